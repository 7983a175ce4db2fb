package jobs_test

import (
	"testing"

	"github.com/keyroll/keyroll/internal/roll"
	"github.com/keyroll/keyroll/internal/sim"
)

// TestLostAnswers breaks each effect in every way in which a call can fail,
// and holds the whole roll against the witness log: one version per key, as
// many SharePoint operations as slots, and as many requests as there must be.
func TestLostAnswers(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		policy string
		fault  sim.Fault
		op     string // whose requests are counted
		calls  int
	}{
		{"create applied and lost", "exo-na", sim.Fault{Service: "keyvault", Operation: sim.OpCreateKey, Mode: sim.ModeApplyAndLose, Count: 2}, sim.OpCreateKey, 2},
		{"create applied, then 500", "exo-na", sim.Fault{Service: "keyvault", Operation: sim.OpCreateKey, Mode: sim.ModeErrorAfter, Count: 2}, sim.OpCreateKey, 2},
		{"create lost before", "exo-na", sim.Fault{Service: "keyvault", Operation: sim.OpCreateKey, Mode: sim.ModeLoseBefore, Count: 1}, sim.OpCreateKey, 3},
		{"create lost before, then applied and lost", "exo-na", sim.Fault{Service: "keyvault", Operation: sim.OpCreateKey, Mode: sim.ModeApplyAndLose, Count: 1, After: 1}, sim.OpCreateKey, 2},
		{"create throttled", "exo-na", sim.Fault{Service: "keyvault", Operation: sim.OpCreateKey, Mode: sim.ModeThrottle, Count: 2}, sim.OpCreateKey, 4},
		{"refresh applied and lost", "exo-na", sim.Fault{Service: "exchange", Operation: sim.OpSetDEP, Mode: sim.ModeApplyAndLose, Count: 1}, sim.OpSetDEP, 2},
		{"refresh lost before", "exo-na", sim.Fault{Service: "exchange", Operation: sim.OpSetDEP, Mode: sim.ModeLoseBefore, Count: 1}, sim.OpSetDEP, 2},
		{"multi-workload refresh applied, then 500", "global", sim.Fault{Service: "exchange", Operation: sim.OpSetM365DEP, Mode: sim.ModeErrorAfter, Count: 1}, sim.OpSetM365DEP, 2},
		{"refresh refused for now", "exo-na", sim.Fault{Service: "exchange", Operation: sim.OpSetDEP, Mode: sim.ModeThrottle, Count: 1}, sim.OpSetDEP, 2},
		{"sharepoint roll applied and lost", "spo", sim.Fault{Service: "sharepoint", Operation: sim.OpRollKey, Mode: sim.ModeApplyAndLose, Count: 2}, sim.OpRollKey, 2},
		{"sharepoint roll applied, then 500", "spo", sim.Fault{Service: "sharepoint", Operation: sim.OpRollKey, Mode: sim.ModeErrorAfter, Count: 1}, sim.OpRollKey, 2},
		{"sharepoint roll lost before", "spo", sim.Fault{Service: "sharepoint", Operation: sim.OpRollKey, Mode: sim.ModeLoseBefore, Count: 1}, sim.OpRollKey, 3},
		{"sharepoint roll throttled", "spo", sim.Fault{Service: "sharepoint", Operation: sim.OpRollKey, Mode: sim.ModeThrottle, Count: 1}, sim.OpRollKey, 3},
		{"sharepoint status lost", "spo", sim.Fault{Service: "sharepoint", Operation: sim.OpGetStatus, Mode: sim.ModeLoseBefore, Count: 2, After: 4}, sim.OpRollKey, 2},
		{"entra down", "exo-na", sim.Fault{Service: "exchange", Operation: sim.OpGetDEP, Mode: sim.ModeRefuse, Count: 2, After: 1, Params: sim.FaultParams{Status: 503}}, sim.OpCreateKey, 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t)
			h.declare()
			r := h.request(c.policy)
			_, err := h.sim.World.AddFault(c.fault)
			must(t, err)
			h.work(quick())
			h.approve(r.ID)
			r = h.ended(r.ID)
			if r.State != roll.Succeeded {
				t.Fatalf("ended %s\n%s", r.State, show(r))
			}
			h.check(r)
			if got := h.sim.World.Requests(c.fault.Service, c.op); c.fault.Service != "exchange" || c.op != sim.OpCreateKey {
				if got != c.calls {
					t.Errorf("%d requests of %s on the wire, want %d\n%s", got, c.op, c.calls, show(r))
				}
			}
			if c.policy == "spo" {
				if n := h.sim.World.SharePointOperations(h.inv.TenantID); n != 2 {
					t.Errorf("%d SharePoint operations, want 2", n)
				}
			}
		})
	}
}
