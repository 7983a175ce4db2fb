package api_test

import (
	"strings"
	"testing"

	"github.com/keyroll/keyroll/internal/api"
	"github.com/keyroll/keyroll/internal/store"
)

func TestWhyKeep(t *testing.T) {
	for want, row := range map[string]store.LedgerRow{
		"A policy may have used": {State: "enabled"}, "Policy spo uses or used": {Policies: []string{"spo"}}, "Policies a, b use or used": {Policies: []string{"a", "b"}},
		"enable it again": {State: "disabled"}, "recover it": {State: "soft_deleted"}, "speak to Microsoft": {State: "missing"}, "has expired": {State: "expired"},
		"cannot be read since 2026-01-31T08:00:00Z": {UnverifiedSince: &someTime},
	} {
		if got := api.WhyKeep(row); !strings.Contains(got, want) || !strings.Contains(got, "Never delete or disable it") {
			t.Errorf("%+v: %q", row, got)
		}
	}
}
