package exchange_test

import (
	"testing"

	"github.com/keyroll/keyroll/internal/exchange"
	"github.com/keyroll/keyroll/internal/msapi"
	"github.com/keyroll/keyroll/internal/msapi/msapitest"
	"github.com/keyroll/keyroll/internal/roll"
	"github.com/keyroll/keyroll/internal/sim"
)

// simulated starts Contoso and gives a client that gets its tokens with a
// client certificate, as in production.
func simulated(t *testing.T) (*exchange.Client, *sim.World) {
	t.Helper()
	return simulatedAt(t, func(*sim.Seed) {})
}

// simulatedAt is simulated with a change of the seed.
func simulatedAt(t *testing.T, change func(*sim.Seed)) (*exchange.Client, *sim.World) {
	t.Helper()
	seed := sim.ContosoSeed()
	change(&seed)
	cert, key, err := sim.NewAppCertificate("exchange test")
	if err != nil {
		t.Fatal(err)
	}
	seed.AllowCertificate(sim.ContosoClientID, cert)
	srv, err := sim.Start(t.Context(), sim.Options{Seed: seed})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = srv.Close() })
	cred, hc := msapitest.Connect(t, srv.DialMap(), srv.CAPEM(),
		msapitest.App{ClientID: sim.ContosoClientID, Cert: cert, Key: key}, sim.ContosoTenant, public(t))
	return exchange.New(public(t), sim.ContosoTenant, cred, hc), srv.World
}

func TestMailboxOfSimulator(t *testing.T) {
	c, _ := simulated(t)
	seed := sim.ContosoSeed().Tenants[0].Exchange.Mailboxes
	if len(seed) == 0 {
		t.Fatal("Contoso has no mailbox")
	}
	if got, err := c.MailboxPolicyID(t.Context(), seed[0].Address); err != nil || got != seed[0].Policy {
		t.Errorf("%q, %v", got, err)
	}
	if _, err := c.MailboxPolicyID(t.Context(), "nobody@contoso.com"); kindOf(err) != msapi.KindNotFound {
		t.Errorf("a mailbox that is not there: %v", err)
	}
}

func TestWithoutRights(t *testing.T) {
	for grant, want := range map[string]msapi.Kind{"none": msapi.KindUnauthorized, "app_role": msapi.KindForbidden} {
		c, w := simulated(t)
		if err := w.SetPermission(sim.Permission{Tenant: sim.ContosoTenant, Exchange: &grant}); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Policies(t.Context(), roll.Exchange); kindOf(err) != want {
			t.Errorf("%s: %v", grant, err)
		}
	}
}

func TestRefreshAgainstFaults(t *testing.T) {
	for _, tt := range []struct {
		mode                  string
		params                sim.FaultParams
		kind                  msapi.Kind
		maybeApplied, applied bool
		warnings              int
	}{
		{sim.ModeRefuse, sim.FaultParams{Status: 400, Code: "Some.Exception"}, msapi.KindRejected, false, false, 0},
		{sim.ModeRefuse, sim.FaultParams{Status: 400, Body: concurrency}, msapi.KindUnavailable, false, false, 0},
		{sim.ModeThrottle, sim.FaultParams{RetryAfter: 3}, msapi.KindThrottled, false, false, 0},
		{sim.ModeLoseBefore, sim.FaultParams{}, msapi.KindUnavailable, true, false, 0},
		{sim.ModeApplyAndLose, sim.FaultParams{}, msapi.KindUnavailable, true, true, 0},
		{sim.ModeErrorAfter, sim.FaultParams{}, msapi.KindUnavailable, true, true, 0},
		{sim.ModeWarning, sim.FaultParams{Warning: "look here"}, "", false, true, 1},
	} {
		t.Run(tt.mode, func(t *testing.T) {
			c, w := simulated(t)
			if _, err := w.AddFault(sim.Fault{Service: sim.ServiceExchange, Operation: sim.OpSetDEP, Mode: tt.mode, Params: tt.params}); err != nil {
				t.Fatal(err)
			}
			all, err := c.Policies(t.Context(), roll.Exchange)
			if err != nil {
				t.Fatal(err)
			}
			receipt, err := c.Refresh(t.Context(), roll.Exchange, all[0].GUID, "op-1")
			e, _ := msapi.AsError(err)
			if kindOf(err) != tt.kind || e != nil && e.MaybeApplied != tt.maybeApplied || len(receipt.Warnings) != tt.warnings {
				t.Errorf("%+v, %v", receipt, err)
			}
			if n := w.Requests(sim.ServiceExchange, sim.OpSetDEP); n != 1 {
				t.Errorf("%d requests on the wire, want 1", n)
			}
			if seen := w.Witness(); len(seen) > 0 && seen[0].Applied != tt.applied {
				t.Errorf("witness: %+v", seen)
			}
		})
	}
}

func TestAssignment(t *testing.T) {
	c, w := simulated(t)
	all, err := c.Policies(t.Context(), roll.MultiWorkload)
	if err != nil || len(all) != 1 {
		t.Fatal(all, err)
	}
	got, err := c.Assignment(t.Context())
	if want := (roll.AssignmentObservation{Assigned: true, GUID: all[0].GUID, Name: all[0].Name}); err != nil || got != want {
		t.Errorf("%+v, %v; want %+v", got, err, want)
	}
	if n := w.Requests(sim.ServiceExchange, sim.OpGetM365Assignment); n != 1 {
		t.Errorf("%d requests", n)
	}
}
