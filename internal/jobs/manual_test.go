package jobs_test

import (
	"errors"
	"testing"

	"github.com/keyroll/keyroll/internal/roll"
	"github.com/keyroll/keyroll/internal/sim"
)

// offered waits until the roll shows a line, and returns its step.
func (h *house) offered(id string) roll.Step {
	h.t.Helper()
	r := h.await(id, "showing a line", func(r roll.Roll) bool { return offeredStep(r) != nil })
	return *offeredStep(r)
}

func (h *house) report(id string, n int, outcome string) error {
	h.t.Helper()
	_, err := h.ctl.Report(h.t.Context(), approver(), id, n, roll.Reported{Outcome: outcome})
	return err
}

// TestReportedButNotSeen: a person says that the cmdlet ran, and SharePoint
// does not show it: the roll halts and the lease stays, until somebody says
// that nothing was run.
func TestReportedButNotSeen(t *testing.T) {
	t.Parallel()
	h := newHouse(t, byHand)
	h.declare()
	r := h.requestKey("spo-a")
	h.work(quick())
	h.approve(r.ID)
	s := h.offered(r.ID)
	must(t, h.report(r.ID, s.N, roll.ReportDone))
	r = h.halted(r.ID)
	if r.Attention.Code != "reported_not_seen" || !r.InFlight("") {
		t.Fatalf("halted with %s, in flight %t\n%s", r.Attention.Code, r.InFlight(""), show(r))
	}
	must(t, h.report(r.ID, s.N, roll.ReportNotDone))
	again := h.offered(r.ID)
	if again.OpID == s.OpID {
		t.Error("the line is shown again under the same operation")
	}
	h.run(again.Offer.Line)
	must(t, h.report(r.ID, again.N, roll.ReportDone))
	if r = h.ended(r.ID); r.State != roll.Succeeded {
		t.Fatalf("ended %s\n%s", r.State, show(r))
	}
	if n := h.sim.World.SharePointOperations(h.inv.TenantID); n != 0 {
		t.Errorf("Keyroll began %d operations itself", n)
	}
}

// TestNoLineIsShownInAFreeze: a line that people see may be run, so it is
// shown only when its step may begin: a freeze that is declared while Keyroll
// looks, or before another process takes the step over, holds it back.
func TestNoLineIsShownInAFreeze(t *testing.T) {
	t.Parallel()
	status := sim.Fault{Service: "sharepoint", Operation: sim.OpGetStatus, Mode: sim.ModeHold, After: 1, Count: 1}
	policy := sim.Fault{Service: "exchange", Operation: sim.OpGetDEP, Mode: sim.ModeHold, After: 1, Count: 1}
	for _, c := range []struct {
		name, key string
		hold      sim.Fault // the look of the step, after that of preflight
		kind      roll.StepKind
		killed    bool
	}{
		{"refresh", "exo-a", policy, roll.RefreshPolicy, false},
		{"refresh, taken over", "exo-a", policy, roll.RefreshPolicy, true},
		{"sharepoint roll", "spo-a", status, roll.SharePointRollKey, false},
		{"sharepoint roll, taken over", "spo-a", status, roll.SharePointRollKey, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t, byHand)
			h.declare()
			r := h.requestKey(c.key)
			held := h.fault(c.hold)
			kill := func() {}
			if c.killed {
				kill = h.peer(quick()).live()
			} else {
				h.work(quick())
			}
			h.approve(r.ID)
			h.fired(held)
			kill()
			h.redeclared(frozen(h.inv))
			must(t, h.sim.World.ReleaseFault(held))
			if c.killed {
				h.work(quick())
			}
			r = h.await(r.ID, "held up, or showing a line", func(r roll.Roll) bool { return offeredStep(r) != nil || waitsFor(roll.WaitFreeze, c.kind)(r) })
			if s := offeredStep(r); s != nil {
				t.Fatalf("shown in a freeze: %s", s.Offer.Line)
			}
			h.redeclared(h.inv)
			h.hands(r.ID)
			if r = h.ended(r.ID); r.State != roll.Succeeded {
				t.Fatalf("ended %s\n%s", r.State, show(r))
			}
		})
	}
}

// TestCancelWaitsForTheReport: the line was seen, so it may be run after the
// cancel too.
func TestCancelWaitsForTheReport(t *testing.T) {
	t.Parallel()
	h := newHouse(t, byHand)
	h.declare()
	r := h.requestKey("spo-a")
	h.work(quick())
	h.approve(r.ID)
	s := h.offered(r.ID)
	r, err := h.ctl.Cancel(t.Context(), requester(), r.ID, "not now")
	must(t, err)
	if r.State != roll.Cancelling || !r.InFlight("") {
		t.Fatalf("cancelled with the line shown: %s", show(r))
	}
	h.run(s.Offer.Line)
	must(t, h.report(r.ID, s.N, roll.ReportDone))
	if r = h.ended(r.ID); r.State != roll.Cancelled {
		t.Fatalf("ended %s\n%s", r.State, show(r))
	}
	await := 0
	for _, s := range r.Steps {
		if s.Kind == roll.SharePointAwait && s.State == roll.StepSucceeded {
			await++
		}
	}
	if await != 1 {
		t.Errorf("the operation was not watched to its end\n%s", show(r))
	}
	var refused *roll.TransitionError
	if err := h.report(r.ID, s.N, roll.ReportNotDone); !errors.As(err, &refused) {
		t.Errorf("a report after the end: %v", err)
	}
}

// TestTakenOverWhileTheLineIsShown: a restart shows no second line and takes
// no step.
func TestTakenOverWhileTheLineIsShown(t *testing.T) {
	t.Parallel()
	h := newHouse(t, byHand)
	h.declare()
	r := h.request("exo-na")
	kill := h.peer(quick()).live()
	h.approve(r.ID)
	s := h.offered(r.ID)
	kill()
	h.work(quick())
	h.hands(r.ID)
	if r = h.ended(r.ID); r.State != roll.Succeeded || r.Outcome != roll.Attested {
		t.Fatalf("ended %s\n%s", r.State, show(r))
	}
	got, _ := r.StepByN(s.N)
	if got.OpID != s.OpID || got.Report == nil {
		t.Errorf("step %+v", got)
	}
	if n := h.applied(sim.OpSetDEP); n != 0 {
		t.Errorf("Keyroll refreshed %d times itself", n)
	}
}

// TestPassingFailureFlipsNothing: the probe is throttled, and the recorded
// transport stays; a refusal changes it, with an audit entry.
func TestPassingFailureFlipsNothing(t *testing.T) {
	t.Parallel()
	h := newHouse(t, func(s *sim.Seed, inv *roll.Inventory) {
		s.Tenants[0].Automation = []sim.AutomationAccount{{ID: runbooks}}
		inv.Automation = &roll.AutomationAccount{Account: runbooks}
	})
	h.declare()
	via := func() (exchange, sharePoint roll.Transport) {
		tenant, err := h.st.Tenant(t.Context(), h.inv.TenantID)
		must(t, err)
		if len(tenant.Inventory.Recorded) != 2 {
			t.Fatalf("recorded %+v", tenant.Inventory.Recorded)
		}
		return tenant.Inventory.Recorded["exchange"].Via, tenant.Inventory.Recorded["sharepoint/NAM"].Via
	}
	look := func() {
		_, _ = h.ctl.Plan(t.Context(), requester(), roll.Request{TenantID: h.inv.TenantID, Policies: []string{"spo"}})
	}
	if e, s := via(); e != roll.Native || s != roll.Native {
		t.Fatalf("declared: %q, %q", e, s)
	}
	passing := h.fault(sim.Fault{Service: "sharepoint", Operation: sim.OpGetStatus, Mode: sim.ModeThrottle})
	look()
	if e, s := via(); e != roll.Native || s != roll.Native {
		t.Errorf("throttled: %q, %q", e, s)
	}
	must(t, h.sim.World.RemoveFault(passing))
	no := false
	must(t, h.sim.World.SetPermission(sim.Permission{Tenant: h.inv.TenantID, SharePoint: &no}))
	look()
	if e, s := via(); e != roll.Native || s != roll.Automation {
		t.Errorf("refused: %q, %q", e, s)
	}
	report, err := h.st.VerifyAudit(t.Context(), nil)
	must(t, err)
	if !report.OK() {
		t.Errorf("audit log: %+v", report)
	}
}

// TestTransportChangedAfterApproval: the plan was approved for CSOM; at its
// beginning only the runbook is left, so it goes back for approval.
func TestTransportChangedAfterApproval(t *testing.T) {
	t.Parallel()
	h := newHouse(t, func(s *sim.Seed, inv *roll.Inventory) {
		s.Tenants[0].Automation = []sim.AutomationAccount{{ID: runbooks}}
		inv.Automation = &roll.AutomationAccount{Account: runbooks}
	})
	h.declare()
	r := h.requestKey("spo-a")
	no := false
	must(t, h.sim.World.SetPermission(sim.Permission{Tenant: h.inv.TenantID, SharePoint: &no}))
	h.work(quick())
	h.approve(r.ID)
	r = h.await(r.ID, "back for approval", func(r roll.Roll) bool { return r.State == roll.AwaitingApproval && r.Round == 2 })
	for _, s := range r.Plan.Steps {
		if s.Kind == roll.SharePointRollKey && s.Params.Transport != roll.Automation {
			t.Errorf("the new plan rolls by %q", s.Params.Transport)
		}
	}
	h.approve(r.ID)
	if r = h.ended(r.ID); r.State != roll.Succeeded {
		t.Fatalf("ended %s\n%s", r.State, show(r))
	}
}
