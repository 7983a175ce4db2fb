package jobs_test

import (
	"context"
	"slices"
	"strings"
	"testing"

	"github.com/keyroll/keyroll/internal/control"
	"github.com/keyroll/keyroll/internal/roll"
	"github.com/keyroll/keyroll/internal/sim"
)

// truth is what the witness log knows of a step's operation at SharePoint.
func (h *house) truth(r roll.Roll, n int) string {
	s, _ := r.StepByN(n)
	k, _ := r.KeyByID(s.Key)
	for _, e := range h.sim.World.Witness() {
		if e.Operation == sim.OpRollKey && e.Applied && e.By == "api" && strings.EqualFold(e.Target, s.Geo+"/"+string(s.Slot)) &&
			slices.ContainsFunc(e.Versions, func(v string) bool { return strings.HasSuffix(v, "/"+k.NewVersion) }) {
			return roll.AssumeApplied
		}
	}
	return roll.AssumeNotApplied
}

// unproven brings a roll of spo-a to the halt at an operation of which nobody
// can tell: SharePoint shows no versions, the answer is lost, and by the time
// anybody looks nothing rolls.
func (h *house) unproven(mode string) roll.Roll {
	h.t.Helper()
	h.declare()
	h.rate(1e9)
	r := h.requestKey("spo-a")
	h.fault(sim.Fault{Service: "sharepoint", Operation: sim.OpRollKey, Mode: mode, Count: 1})
	h.work(quick())
	h.approve(r.ID)
	if r = h.halted(r.ID); r.Attention.Code != "sharepoint_roll_unproven" || !strings.Contains(r.Attention.Action, `"assume":"applied"`) {
		h.t.Fatalf("attention %+v\n%s", r.Attention, show(r))
	}
	if s, _ := r.StepByN(r.Attention.Step); s.IntentOpen || s.State != roll.StepNeedsAttention || r.InFlight("") || r.Unsettled() {
		h.t.Fatalf("something is still under way\n%s", show(r))
	}
	h.leaseIsFree()
	return r
}

func versionless(s *sim.Seed, _ *roll.Inventory) { s.Tenants[0].SharePoint.URIVersion = no() }

// TestUnprovenSharePointRoll: where nobody can tell, nothing is sent again
// until a person has said what became of it.
func TestUnprovenSharePointRoll(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		mode    string
		outcome roll.Evidence
		source  string
	}{
		{sim.ModeApplyAndLose, roll.Attested, "rita@contoso.com says"},
		{sim.ModeLoseBefore, roll.Accepted, "it shows no version"},
	} {
		t.Run(c.mode, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t, versionless)
			r := h.unproven(c.mode)
			n := r.Attention.Step
			// Looking again changes nothing, however often; nor does anything else send it.
			for range 2 {
				before := r.Version
				h.goOnRetry(r)
				r = h.await(r.ID, "halted again", func(r roll.Roll) bool { return r.State == roll.NeedsAttention && r.Version > before+1 })
				if r.Attention.Code != "sharepoint_roll_unproven" {
					t.Fatalf("attention %+v\n%s", r.Attention, show(r))
				}
			}
			_, err := h.ctl.Replan(t.Context(), requester(), r.ID, control.StrangersAdopt)
			if !refusedAs(err, roll.RefusedUnproven) {
				t.Errorf("replanned over an unproven operation: %v", err)
			}
			if got := h.sim.World.Requests("sharepoint", sim.OpRollKey); got != 1 {
				t.Fatalf("%d calls before anybody said what became of the first", got)
			}
			for what, step := range map[string]int{"perhaps": n, roll.AssumeApplied: n - 1, roll.AssumeNotApplied: 0} {
				if _, err := h.ctl.Assume(t.Context(), requester(), r.ID, step, what); !refusedAs(err, roll.RefusedStepState) {
					t.Errorf("%s of step %d: %v", what, step, err)
				}
			}
			robot := requester()
			robot.Kind = "service"
			if _, err := h.ctl.Assume(t.Context(), robot, r.ID, n, roll.AssumeApplied); !refusedAs(err, roll.RefusedServiceActor) {
				t.Errorf("a service said what became of it: %v", err)
			}
			_, err = h.ctl.Assume(t.Context(), requester(), r.ID, n, h.truth(r, n))
			must(t, err)
			if r = h.ended(r.ID); r.State != roll.Succeeded || r.Outcome != c.outcome {
				t.Fatalf("ended %s, outcome %s, want %s\n%s", r.State, r.Outcome, c.outcome, show(r))
			}
			if _, source := r.PolicyEvidence("spo"); !strings.Contains(source, c.source) {
				t.Errorf("source %q", source)
			}
			h.check(r)
			if got := h.applied(sim.OpRollKey); got != 1 {
				t.Errorf("%d operations took effect, want 1", got)
			}
			h.leaseIsFree()
		})
	}
}

// TestUnprovenAndCancelled: a person may also give it up; and a cancelled roll
// that settles its operation ends in the same words.
func TestUnprovenAndCancelled(t *testing.T) {
	t.Parallel()
	h := newHouse(t, versionless)
	r := h.unproven(sim.ModeApplyAndLose)
	r, err := h.ctl.Cancel(t.Context(), requester(), r.ID, "enough")
	must(t, err)
	if r.State != roll.Cancelled || len(r.LeftBehind) != 1 {
		t.Errorf("%s %v", r.State, r.LeftBehind)
	}
	h.check(r)
}

// TestExternalRollWhileUnproven: what rolls after ours could land no more is
// somebody else's; it is waited for, and proves nothing about ours.
func TestExternalRollWhileUnproven(t *testing.T) {
	t.Parallel()
	h := newHouse(t, versionless)
	r := h.unproven(sim.ModeLoseBefore)
	h.rate(0.001)
	must(t, h.sim.World.RollByHand(h.inv.TenantID, "NAM", "secondary", sim.Slot{}))
	h.goOnRetry(r)
	h.await(r.ID, "waiting for the external roll", func(r roll.Roll) bool { return step(r, roll.SharePointRollKey).WaitingFor == roll.WaitExternal })
	h.endOperation()
	h.rate(1e9)
	if r = h.halted(r.ID); r.Attention.Code != "sharepoint_roll_unproven" {
		t.Fatalf("attention %+v\n%s", r.Attention, show(r))
	}
	_, err := h.ctl.Assume(t.Context(), requester(), r.ID, r.Attention.Step, roll.AssumeNotApplied)
	must(t, err)
	h.check(h.ended(r.ID))
	if got := h.applied(sim.OpRollKey); got != 1 {
		t.Errorf("%d operations, want 1", got)
	}
}

// TestExternalRollUnderOpenIntent: without versions, a roll by hand that is
// seen under our open intent cannot be told from ours. The evidence says so.
func TestExternalRollUnderOpenIntent(t *testing.T) {
	t.Parallel()
	h := newHouse(t, versionless)
	h.declare()
	h.rate(0.001)
	r := h.requestKey("spo-a")
	held := h.fault(sim.Fault{Service: "sharepoint", Operation: sim.OpRollKey, Mode: sim.ModeLoseBefore, Count: 1})
	look := h.fault(sim.Fault{Service: "sharepoint", Operation: sim.OpGetStatus, Mode: sim.ModeHold, After: 3, Count: 1})
	h.work(quick())
	h.approve(r.ID)
	h.fired(held)
	h.fired(look)
	must(t, h.sim.World.RollByHand(h.inv.TenantID, "NAM", "primary", sim.Slot{}))
	must(t, h.sim.World.ReleaseFault(look))
	r = h.await(r.ID, "watching what it cannot prove", func(r roll.Roll) bool {
		return step(r, roll.SharePointRollKey).WaitingFor == roll.WaitOwnUnproven
	})
	h.endOperation()
	h.rate(1e9)
	r = h.ended(r.ID)
	e, source := r.PolicyEvidence("spo")
	if r.State != roll.Succeeded || e != roll.Accepted || !strings.Contains(source, "cannot be told from") {
		t.Errorf("ended %s with %s by %q\n%s", r.State, e, source, show(r))
	}
}

// TestWaitingForARollIsQuiet: what lasts for days is looked at without claims
// and without audit entries, whoever began it.
func TestWaitingForARollIsQuiet(t *testing.T) {
	t.Parallel()
	for _, own := range []bool{false, true} {
		h := newHouse(t)
		h.declare()
		h.rate(0.0001)
		r := h.requestKey("spo-a")
		want := roll.WaitExternal
		if own {
			want = roll.WaitOwnUnproven
			h.fault(sim.Fault{Service: "sharepoint", Operation: sim.OpRollKey, Mode: sim.ModeApplyAndLose, Count: 1})
		} else {
			must(t, h.sim.World.RollByHand(h.inv.TenantID, "NAM", "secondary", sim.Slot{}))
		}
		h.work(quick())
		h.approve(r.ID)
		r = h.await(r.ID, "waiting", func(r roll.Roll) bool {
			s := step(r, roll.SharePointRollKey)
			return s.WaitingFor == want && (s.SeenRolling || !own)
		})
		looks := h.sim.World.Requests("sharepoint", sim.OpGetStatus)
		h.await(r.ID, "looked at many times", func(roll.Roll) bool {
			return h.sim.World.Requests("sharepoint", sim.OpGetStatus) >= looks+8
		})
		now, err := h.st.Roll(context.Background(), r.ID)
		must(t, err)
		if now.Version > r.Version+1 { // one for a percent that moved
			t.Errorf("%s: %d changes in 8 looks\n%s", want, now.Version-r.Version, show(now))
		}
		h.endOperation()
		h.rate(1e9)
		r = h.ended(r.ID)
		h.check(r)
		if got := h.applied(sim.OpRollKey); r.State != roll.Succeeded || got != 1 {
			t.Errorf("%s: ended %s after %d operations\n%s", want, r.State, got, show(r))
		}
	}
}

// TestPlanChangedIntoAnotherRoll: preflight sees a policy that another open
// roll has. A person is told which one is in the way.
func TestPlanChangedIntoAnotherRoll(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.declare()
	first := h.request("exo-na")
	r := h.requestKey("m-a")
	next := h.inv
	next.Policies = slices.Clone(h.inv.Policies)
	next.Policies[1].Keys = []string{"m-a", "exo-b"}
	putExo(h, func(p *sim.Policy) {
		p.AzureKeyIDs = []string{h.inv.Keys[0].URI(""), h.inv.Keys[3].URI("")}
	})
	h.redeclare(next, 1)
	h.work(quick())
	h.approve(r.ID)
	r = h.halted(r.ID)
	if r.Attention.Code != "another_roll_open" || !strings.Contains(r.Attention.Action, first.ID) {
		t.Fatalf("attention %+v\n%s", r.Attention, show(r))
	}
	if s, _ := r.StepByN(r.Attention.Step); s.Crashes != 0 || s.Attempt != 1 {
		t.Errorf("after %d crashes, attempt %d", s.Crashes, s.Attempt)
	}
	_, err := h.ctl.Cancel(t.Context(), requester(), first.ID, "in the way")
	must(t, err)
	h.goOnRetry(r)
	r = h.await(r.ID, "with a new plan", func(r roll.Roll) bool { return r.State == roll.AwaitingApproval })
	h.approve(r.ID)
	if r = h.ended(r.ID); r.State != roll.Succeeded {
		t.Errorf("ended %s\n%s", r.State, show(r))
	}
	h.check(r)
}

// TestAbandonIsWithdrawn: who goes on with a roll, or plans it anew, does not
// want it given up: the first person's request does not wait for a second one.
func TestAbandonIsWithdrawn(t *testing.T) {
	t.Parallel()
	for _, way := range []string{"retry", control.StrangersAdopt} {
		h := newHouse(t)
		h.declare()
		r := h.requestKey("exo-a")
		h.fault(sim.Fault{Service: "keyvault", Operation: sim.OpCreateKey, Mode: sim.ModeStrangerAfter, Count: 1})
		h.work(quick())
		h.approve(r.ID)
		r = h.halted(r.ID)
		_, err := h.ctl.Abandon(t.Context(), approver(), r.ID, "no hope")
		must(t, err)
		r, err = h.st.Roll(t.Context(), r.ID)
		must(t, err)
		h.goOn(r, way)
		entries, err := h.st.RollEvents(t.Context(), r.ID, 0, 100)
		must(t, err)
		said := false
		for _, e := range entries {
			for _, ev := range e.Entry.Events {
				said = said || ev.Type == "abandon_withdrawn"
			}
		}
		if !said {
			t.Errorf("%s: the audit log does not say that the request was withdrawn", way)
		}
		if r, err = h.st.Roll(t.Context(), r.ID); err != nil || r.Abandon != nil {
			t.Errorf("%s: still asked for: %+v, %v", way, r.Abandon, err)
		}
	}
}

// TestUnprovenInTheNextPlan: a roll that was cancelled at such an operation is
// named in the next plan for that slot, in what is approved and in what
// preflight makes of it; once another operation has succeeded, no more.
func TestUnprovenInTheNextPlan(t *testing.T) {
	t.Parallel()
	h := newHouse(t, versionless)
	earlier := h.unproven(sim.ModeApplyAndLose)
	earlier, err := h.ctl.Cancel(t.Context(), requester(), earlier.ID, "enough")
	must(t, err)
	lost := step(earlier, roll.SharePointRollKey)
	named := func(key string) *roll.Finding {
		p, err := h.ctl.Plan(t.Context(), requester(), roll.Request{TenantID: h.inv.TenantID, Keys: []roll.KeyRequest{{Type: roll.RootKey, ID: key}}})
		must(t, err)
		for _, f := range p.Findings {
			if f.Code == "sharepoint_operation_unproven" {
				return &f
			}
		}
		return nil
	}
	f := named("spo-a")
	if f == nil {
		t.Fatal("the plan does not tell of the earlier roll's operation")
	}
	made, _ := earlier.KeyByID("spo-a")
	for _, want := range []string{earlier.ID, lost.OpID, made.NewVersion} {
		if want == "" || !strings.Contains(f.Seen, want) {
			t.Errorf("%q is not in %q", want, f.Seen)
		}
	}
	if f.Level != roll.LevelWarning || f.Passing || f.Subject != "policy:spo" || !strings.Contains(f.Remedy, "/v1/rolls/"+earlier.ID) {
		t.Errorf("finding %+v", f)
	}
	for _, other := range []string{"spo-b", "exo-a"} {
		if got := named(other); got != nil {
			t.Errorf("the plan for %s: %+v", other, got)
		}
	}
	r := h.requestKey("spo-a")
	h.rate(400)
	h.approve(r.ID)
	r = h.await(r.ID, "at its end, or back for another approval", func(r roll.Roll) bool { return r.State.Final() || r.Round > 1 })
	if r.State != roll.Succeeded {
		t.Fatalf("%s in round %d\n%s", r.State, r.Round, show(r))
	}
	if got := named("spo-a"); got != nil {
		t.Errorf("after another operation: %+v", got)
	}
}
