package jobs_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/keyroll/keyroll/internal/roll"
	"github.com/keyroll/keyroll/internal/sim"
)

// shut declares a freeze of an hour from now on, and a window that is not now.
func frozen(inv roll.Inventory) roll.Inventory {
	inv.Freezes = []roll.Freeze{{From: time.Now().Add(-time.Hour).UTC(), To: time.Now().Add(time.Hour).UTC(), Reason: "year-end"}}
	return inv
}

// elsewhen is a window that begins in about three days.
func elsewhen(inv roll.Inventory) roll.Inventory {
	day := time.Now().UTC().Add(72 * time.Hour)
	inv.Windows = []roll.Window{{Days: []string{[]string{"sun", "mon", "tue", "wed", "thu", "fri", "sat"}[day.Weekday()]}, Start: "12:00",
		Duration: roll.Duration(time.Hour), Zone: "UTC"}}
	return inv
}

// redeclared writes a declaration as it is, whoever must confirm it.
func (h *house) redeclared(inv roll.Inventory) {
	h.t.Helper()
	t, err := h.st.Tenant(h.t.Context(), h.inv.TenantID)
	must(h.t, err)
	if inv.Approval == "" {
		inv.Approval = t.Inventory.Approval
	}
	inv.SharePoint.Lease = t.Inventory.SharePoint.Lease
	_, err = h.st.DeclareTenant(h.t.Context(), inv, t.Version, roll.Actor{Subject: "ada@contoso.com", Kind: roll.Person}, roll.Observation{})
	must(h.t, err)
}

func waitsFor(what string, kind roll.StepKind) func(roll.Roll) bool {
	return func(r roll.Roll) bool {
		return slices.ContainsFunc(r.Steps, func(s roll.Step) bool { return s.Kind == kind && s.WaitingFor == what && s.Round == r.Round })
	}
}

// TestCalendarHoldsEffectsUp: outside of the windows and in a freeze nothing
// with an effect begins, in any workload; the SharePoint lease is free
// meanwhile; and an edit of the calendar lets the roll go on at once.
func TestCalendarHoldsEffectsUp(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		shut func(roll.Inventory) roll.Inventory
		what string
	}{{"freeze", frozen, roll.WaitFreeze}, {"window", elsewhen, roll.WaitWindow}} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t, func(_ *sim.Seed, inv *roll.Inventory) { *inv = c.shut(*inv) })
			h.declare()
			h.work(quick())
			r := h.request("global", "exo-na", "spo")
			h.approve(r.ID)
			r = h.await(r.ID, "held up everywhere", func(r roll.Roll) bool {
				n := 0
				for _, s := range r.Steps {
					if s.Kind == roll.CreateKeyVersion && s.WaitingFor == c.what && s.NextAttemptAt != nil {
						n++
					}
				}
				return n == 5 // four keys beside each other, and the first of SharePoint
			})
			if r.State != roll.Running || r.WakeAt == nil || r.WakeAt.Before(time.Now().Add(30*time.Minute)) {
				t.Errorf("%s, wake %v\n%s", r.State, r.WakeAt, show(r))
			}
			if got := r.Stuck(time.Now().Add(48*time.Hour), roll.DefaultBounds()); c.what == roll.WaitWindow && got != nil {
				t.Errorf("stuck: %+v", got)
			}
			h.leaseIsFree()
			for service, op := range map[string]string{"keyvault": sim.OpCreateKey, "exchange": sim.OpSetDEP, "sharepoint": sim.OpRollKey} {
				if n := h.sim.World.Requests(service, op); n != 0 {
					t.Errorf("%d calls of %s", n, op)
				}
			}
			open := h.inv
			open.Windows, open.Freezes = nil, nil
			h.redeclared(open)
			if r = h.ended(r.ID); r.State != roll.Succeeded {
				t.Fatalf("ended %s\n%s", r.State, show(r))
			}
			h.check(r)
			h.leaseIsFree()
		})
	}
}

// TestFreezeDeclaredUnderWay: a freeze that is declared while a roll is at work
// stops each step with an effect before its call, even one that has begun; what
// is under way at Microsoft is watched, and given back to nobody before its end.
func TestFreezeDeclaredUnderWay(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, key string
		hold      sim.Fault // a read in the middle of the step
		kind      roll.StepKind
		service   string
		op        string
	}{
		{"create", "exo-a", sim.Fault{Service: "keyvault", Operation: sim.OpGetKey, Vault: "contoso-exo-a", Mode: sim.ModeHold, After: 1}, roll.CreateKeyVersion, "keyvault", sim.OpCreateKey},
		{"refresh", "exo-a", sim.Fault{Service: "exchange", Operation: sim.OpGetMailboxStatistics, Mode: sim.ModeHold}, roll.RefreshPolicy, "exchange", sim.OpSetDEP},
		{"sharepoint roll", "spo-a", sim.Fault{Service: "sharepoint", Operation: sim.OpGetStatus, Mode: sim.ModeHold, After: 2}, roll.SharePointRollKey, "sharepoint", sim.OpRollKey},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t)
			h.declare()
			r := h.requestKey(c.key)
			c.hold.Count = 1
			held := h.fault(c.hold)
			h.work(quick())
			h.approve(r.ID)
			h.fired(held)
			before := h.sim.World.Requests(c.service, c.op)
			h.redeclared(frozen(h.inv))
			must(t, h.sim.World.ReleaseFault(held))
			r = h.await(r.ID, "held up", waitsFor(roll.WaitFreeze, c.kind))
			if s := step(r, c.kind); s.IntentOpen || s.Seen != "year-end" {
				t.Errorf("intent %v, seen %q", s.IntentOpen, s.Seen)
			}
			if n := h.sim.World.Requests(c.service, c.op); n != before {
				t.Errorf("%d calls in the freeze", n-before)
			}
			h.leaseIsFree()
			h.redeclared(h.inv)
			if r = h.ended(r.ID); r.State != roll.Succeeded {
				t.Fatalf("ended %s\n%s", r.State, show(r))
			}
			h.check(r)
		})
	}
}

// TestFreezeOverWhatIsUnderWay: polls, settling and verification go on in a
// freeze; a lost answer is settled, and only a new call waits.
func TestFreezeOverWhatIsUnderWay(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, key, service, op string
		mode                   string
		ends                   bool // without another call
	}{
		{"SharePoint rolls", "spo-a", "sharepoint", sim.OpRollKey, "", true},
		{"create applied and lost", "exo-a", "keyvault", sim.OpCreateKey, sim.ModeApplyAndLose, false},
		{"refresh lost", "exo-a", "exchange", sim.OpSetDEP, sim.ModeLoseBefore, false},
		{"SharePoint roll applied and lost", "spo-a", "sharepoint", sim.OpRollKey, sim.ModeApplyAndLose, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t)
			h.declare()
			if c.service == "sharepoint" {
				h.rate(0.001)
			}
			r := h.requestKey(c.key)
			held := h.fault(sim.Fault{Service: c.service, Operation: c.op, Mode: sim.ModeHold, Count: 1})
			if c.mode != "" {
				h.fault(sim.Fault{Service: c.service, Operation: c.op, Mode: c.mode, Count: 1})
			}
			h.work(quick())
			h.approve(r.ID)
			h.fired(held)
			h.redeclared(frozen(h.inv))
			must(t, h.sim.World.ReleaseFault(held))
			if c.service == "sharepoint" {
				h.await(r.ID, "seen rolling", func(r roll.Roll) bool {
					return slices.ContainsFunc(r.Steps, func(s roll.Step) bool { return s.Seen == "Rolling" })
				})
				h.endOperation()
			}
			if c.ends {
				r = h.ended(r.ID)
			} else {
				h.await(r.ID, "settled, and waiting", func(r roll.Roll) bool { return waitsFor(roll.WaitFreeze, roll.RefreshPolicy)(r) && !r.Unsettled() })
				h.redeclared(h.inv)
				r = h.ended(r.ID)
			}
			if r.State != roll.Succeeded {
				t.Fatalf("ended %s\n%s", r.State, show(r))
			}
			h.check(r)
		})
	}
}

// TestEmergencyGoesThrough: a freeze and no window; two people approve, and the
// roll begins at once. The first approval begins nothing, and an ordinary roll
// beside it waits.
func TestEmergencyGoesThrough(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.declare()
	shut := elsewhen(frozen(h.inv))
	shut.Approval = roll.ApprovalNotRequired
	h.redeclared(shut)
	h.work(quick())
	ordinary := h.requestKey("exo-a")
	r := h.requestWith(h.ctl, roll.Request{Policies: []string{"spo"}, Emergency: &roll.Emergency{Reason: "a key may be in the wrong hands"}})
	h.approve(r.ID)
	r, err := h.st.Roll(t.Context(), r.ID)
	must(t, err)
	if r.State != roll.AwaitingApproval || len(r.Approvals) != 1 {
		t.Fatalf("%s after one approval", r.State)
	}
	h.await(ordinary.ID, "held up", waitsFor(roll.WaitFreeze, roll.CreateKeyVersion))
	_, err = h.ctl.Approve(t.Context(), requester(), r.ID, r.Version, r.Plan.Hash, "")
	if !refusedAs(err, roll.RefusedOwnApproval) && err == nil {
		t.Error("the requester was the second person")
	}
	_, err = h.ctl.Approve(t.Context(), person("paula", "approver"), r.ID, r.Version, r.Plan.Hash, "")
	must(t, err)
	if r = h.ended(r.ID); r.State != roll.Succeeded {
		t.Fatalf("ended %s\n%s", r.State, show(r))
	}
	h.check(r)
	if ordinary, err = h.st.Roll(t.Context(), ordinary.ID); err != nil || ordinary.State != roll.Running {
		t.Errorf("the ordinary roll is %s, %v", ordinary.State, err)
	}
}

// TestFreezeByRunbookAndByHand: the calendar is asked just before a job is put
// and before a line is shown, too.
func TestFreezeByRunbookAndByHand(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, key   string
		change      func(*sim.Seed, *roll.Inventory)
		service, op string // the read in the middle of the step
		kind        roll.StepKind
	}{
		{"refresh by hand", "exo-a", byHand, "exchange", sim.OpGetDEP, roll.RefreshPolicy},
		{"SharePoint roll by hand", "spo-a", byHand, "sharepoint", sim.OpGetStatus, roll.SharePointRollKey},
		{"refresh by runbook", "exo-a", byRunbook, "resource_manager", sim.OpPutJob, roll.RefreshPolicy},
		{"SharePoint roll by runbook", "spo-a", byRunbook, "resource_manager", sim.OpPutJob, roll.SharePointRollKey},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t, c.change)
			h.declare()
			r := h.requestKey(c.key)
			create := h.fault(sim.Fault{Service: "keyvault", Operation: sim.OpCreateKey, Mode: sim.ModeHoldAfter, Count: 1})
			h.work(quick())
			h.approve(r.ID)
			h.fired(create)
			look := h.fault(sim.Fault{Service: c.service, Operation: c.op, Mode: sim.ModeHold, Count: 1})
			must(t, h.sim.World.ReleaseFault(create))
			h.fired(look)
			h.redeclared(frozen(h.inv))
			must(t, h.sim.World.ReleaseFault(look))
			r = h.await(r.ID, "held up", waitsFor(roll.WaitFreeze, c.kind))
			s := step(r, c.kind)
			if s.IntentOpen || s.Offer != nil || s.Seen != "year-end" {
				t.Errorf("intent %v, shown %+v, seen %q", s.IntentOpen, s.Offer, s.Seen)
			}
			for _, e := range h.sim.World.Witness() {
				if e.Operation == sim.OpPutJob && e.Target == roll.OperationID(r.ID, s.N, 0) {
					t.Errorf("the job was put in the freeze")
				}
			}
			h.redeclared(h.inv)
			if s.Params.Transport == roll.Manual {
				h.hands(r.ID)
			}
			if r = h.ended(r.ID); r.State != roll.Succeeded {
				t.Fatalf("ended %s\n%s", r.State, show(r))
			}
			h.taken(r)
		})
	}
}

// TestLineShownUntilTheWindowEnds: nothing takes a line back that somebody has
// seen, so it says until when it may be run; once nobody has run it, it is
// shown again only when the calendar is open.
func TestLineShownUntilTheWindowEnds(t *testing.T) {
	t.Parallel()
	begin := time.Now().UTC().Truncate(time.Minute).Add(-time.Minute)
	end := begin.Add(3 * time.Hour)
	h := newHouse(t, byHand, func(_ *sim.Seed, inv *roll.Inventory) {
		inv.Windows = []roll.Window{{Days: []string{"mon", "tue", "wed", "thu", "fri", "sat", "sun"}, Start: begin.Format("15:04"), Duration: roll.Duration(3 * time.Hour), Zone: "UTC"}}
	})
	h.declare()
	r := h.requestKey("exo-a")
	h.work(quick())
	h.approve(r.ID)
	s := h.offered(r.ID)
	r, err := h.st.Roll(t.Context(), r.ID)
	must(t, err)
	if s.Offer.Until == nil || !s.Offer.Until.Equal(end) {
		t.Fatalf("shown until %v, want %s", s.Offer.Until, end)
	}
	stamp := end.Format(time.RFC3339)
	if got := r.NextAction(end.Add(-time.Second), roll.DefaultBounds()); !strings.Contains(got, s.Offer.Line) || !strings.Contains(got, "before "+stamp) {
		t.Errorf("in the window: %q", got)
	}
	if got := r.NextAction(end, roll.DefaultBounds()); strings.Contains(got, s.Offer.Line) || !strings.Contains(got, "Do not run") || !strings.Contains(got, "/report") {
		t.Errorf("after the window: %q", got)
	}
	h.redeclared(frozen(h.inv))
	if still, err := h.st.Roll(t.Context(), r.ID); err != nil || step(still, roll.RefreshPolicy).Offer == nil {
		t.Errorf("the line was taken back: %v\n%s", err, show(still))
	}
	must(t, h.report(r.ID, s.N, roll.ReportNotDone))
	h.await(r.ID, "held up", waitsFor(roll.WaitFreeze, roll.RefreshPolicy))
	h.redeclared(h.inv)
	h.hands(r.ID)
	if r = h.ended(r.ID); r.State != roll.Succeeded {
		t.Fatalf("ended %s\n%s", r.State, show(r))
	}
}
