package exchange_test

import (
	"testing"

	"github.com/keyroll/keyroll/internal/exchange"
	"github.com/keyroll/keyroll/internal/msapi"
	"github.com/keyroll/keyroll/internal/roll"
	"github.com/keyroll/keyroll/internal/sim"
)

func settings(t *testing.T, w *sim.World, s sim.ExchangeSettings) {
	t.Helper()
	s.Tenant = sim.ContosoTenant
	if err := w.SetExchange(s); err != nil {
		t.Fatal(err)
	}
}

// firstGUID reads the GUID of the first Exchange policy.
func firstGUID(t *testing.T, c *exchange.Client) string {
	t.Helper()
	all, err := c.Policies(t.Context(), roll.Exchange)
	if err != nil || len(all) == 0 {
		t.Fatal(all, err)
	}
	return all[0].GUID
}

// A regional host gets the request again, with body and token, once.
func TestRedirectIsFollowedWithinTheCloud(t *testing.T) {
	c, w := simulated(t)
	guid := firstGUID(t, c)
	settings(t, w, sim.ExchangeSettings{RedirectHost: new("eurprd01.prod.outlook.com")})
	if _, err := c.Refresh(t.Context(), roll.Exchange, guid, "op-1"); err != nil {
		t.Error(err)
	}
	if n := w.Requests(sim.ServiceExchange, sim.OpSetDEP); n != 1 {
		t.Errorf("the cmdlet ran %d times, want once", n)
	}
	if seen := w.Witness(); len(seen) != 1 || !seen[0].Applied || seen[0].OperationID != "op-1" {
		t.Errorf("witness: %+v", seen)
	}
	if _, err := c.Policies(t.Context(), roll.MultiWorkload); err != nil {
		t.Error(err)
	}
}

// The hosts of another cloud are as foreign as anybody's.
func TestRedirectElsewhereIsRefused(t *testing.T) {
	for _, host := range []string{"outlook.office365.us", "outlook.evil.example", "outlook.com.evil.example", "eviloutlook.com"} {
		c, w := simulatedAt(t, func(s *sim.Seed) { s.Tenants[0].Exchange.RedirectHost = host })
		_, err := c.Refresh(t.Context(), roll.Exchange, guid, "op-1")
		e, _ := msapi.AsError(err)
		if e == nil || e.Kind != msapi.KindProtocol || e.Code != "redirect_refused" {
			t.Errorf("%s: %v", host, err)
		}
		if v := w.Violations(); len(v) != 0 {
			t.Errorf("%s got the request: %+v", host, v)
		}
		if seen := w.Witness(); len(seen) != 0 {
			t.Errorf("%s: witness %+v", host, seen)
		}
	}
}

func TestWhatExchangeSaysWhileItIsBusy(t *testing.T) {
	for _, tt := range []struct {
		code         string
		status       int
		kind         msapi.Kind
		maybeApplied bool
	}{
		{sim.CodeConcurrency, 200, msapi.KindUnavailable, false},
		{sim.CodeConcurrency, 400, msapi.KindUnavailable, false},
		{sim.CodeConcurrency, 403, msapi.KindUnavailable, false},
		{sim.CodeConcurrency, 429, msapi.KindUnavailable, false},
		{sim.CodeConcurrency, 500, msapi.KindUnavailable, false},
		{"CmdletProxyNotAvailableFailure", 400, msapi.KindUnavailable, false},
		{"ServerBusyException", 400, msapi.KindUnavailable, false},
		{"Microsoft.Exchange.Data.Directory.TransientException", 400, msapi.KindUnavailable, true},
		{"BackendCommunicationException", 400, msapi.KindUnavailable, true},
		{sim.CodeNoRole, 403, msapi.KindForbidden, false},
		{sim.CodeNoRoleGzip, 403, msapi.KindForbidden, false},
	} {
		c, w := simulated(t)
		if _, err := w.AddFault(sim.Fault{Service: sim.ServiceExchange, Operation: sim.OpSetDEP, Mode: sim.ModeRefuse,
			Params: sim.FaultParams{Status: tt.status, Code: tt.code}}); err != nil {
			t.Fatal(err)
		}
		_, err := c.Refresh(t.Context(), roll.Exchange, guid, "op-1")
		e, _ := msapi.AsError(err)
		if e == nil || e.Kind != tt.kind || e.MaybeApplied != tt.maybeApplied {
			t.Errorf("%s with status %d: %+v", tt.code, tt.status, e)
		}
		if n := w.Requests(sim.ServiceExchange, sim.OpSetDEP); n != 1 {
			t.Errorf("%s: %d requests on the wire, want 1", tt.code, n)
		}
	}
}

func TestWarningsInHeader(t *testing.T) {
	c, w := simulatedAt(t, func(s *sim.Seed) {
		s.Tenants[0].Exchange.Warnings = []string{"Micro delay applied. Actual delay 5 msecs", "Look here, or there"}
	})
	settings(t, w, sim.ExchangeSettings{WarningsInHeader: new(true), RateLimit: new(1)})
	guid := firstGUID(t, c) // uses the budget up, which is told and refuses nothing
	r, err := c.Refresh(t.Context(), roll.Exchange, guid, "op-1")
	if err != nil || len(r.Warnings) != 2 || len(r.Unknown) != 1 || r.Unknown[0] != "Look here, or there" {
		t.Errorf("%+v, %v", r, err)
	}
}

func TestPolicyTestOfSimulator(t *testing.T) {
	c, w := simulated(t)
	at, err := c.Assignment(t.Context())
	if err != nil || !at.Assigned {
		t.Fatal(at, err)
	}
	verdict := func() roll.TestVerdict {
		t.Helper()
		got, err := c.Test(t.Context(), at.GUID)
		if err != nil {
			t.Fatal(err)
		}
		return got.Verdict
	}
	if got := verdict(); got != roll.TestHealthy {
		t.Errorf("healthy: %s", got)
	}
	if err := w.SetEnabled("contoso-m365-a", "Contoso-M365-A-Key001", "", false); err != nil {
		t.Fatal(err)
	}
	if got := verdict(); got != roll.TestUnhealthy {
		t.Errorf("a key is disabled: %s", got)
	}
	settings(t, w, sim.ExchangeSettings{NoTestCmdlet: new(true), NULBodyGzip: new(true), AssignmentByName: new(true)})
	if _, err := c.Test(t.Context(), at.GUID); kindOf(err) != msapi.KindForbidden {
		t.Errorf("without the cmdlet: %v", err)
	}
	if got, err := c.Assignment(t.Context()); err != nil || got.Name != at.Name || got.GUID != "" {
		t.Errorf("by name: %+v, %v", got, err)
	}
	if seen := w.Witness(); len(seen) != 1 { // the key disabled by hand
		t.Errorf("reads left effects: %+v", seen)
	}
}
