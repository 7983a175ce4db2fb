package api_test

import (
	"testing"

	"github.com/keyroll/keyroll/internal/pgtest"
)

func TestMain(m *testing.M) { pgtest.Main(m) }
