package jobs_test

import (
	"flag"
	"runtime"
	"strconv"
	"testing"

	"go.uber.org/goleak"

	"github.com/keyroll/keyroll/internal/pgtest"
)

func TestMain(m *testing.M) {
	flag.Parse()
	// These tests wait more than they work: for calls, deadlines, processes.
	if f := flag.Lookup("test.parallel"); f.Value.String() == strconv.Itoa(runtime.GOMAXPROCS(0)) {
		_ = f.Value.Set(strconv.Itoa(3 * runtime.GOMAXPROCS(0)))
	}
	goleak.VerifyTestMain(runner{m})
}

// runner takes the server that the kill tests built away with it.
type runner struct{ m *testing.M }

func (r runner) Run() int {
	defer unbuild()
	return pgtest.Run(r.m)
}
