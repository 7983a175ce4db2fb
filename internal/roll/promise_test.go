package roll_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/keyroll/keyroll/internal/roll"
)

func TestFourEyesAfterReplan(t *testing.T) {
	r := do(t, running(t, contoso(), "exo-na"), roll.Preflight, "", start)
	r, s := begin(t, r, roll.CreateKeyVersion, "exo-a", start)
	if _, _, err := r.Apply(roll.Replan{By: bob, Plan: r.Plan}, start); code(err) != roll.RefusedState {
		t.Error(err)
	}
	open := must(t, r, roll.Halted{N: s.N, Epoch: s.Epoch, Code: "seen"}, start)
	if _, _, err := open.Apply(roll.Replan{By: bob, Plan: r.Plan}, start); code(err) != roll.RefusedInFlight {
		t.Errorf("replanned over an open intent: %v", err)
	}
	// More than one version by tag: the operation has ended, a person chooses by a replan.
	r = must(t, r, roll.Halted{N: s.N, Epoch: s.Epoch, Code: "two", OpEnded: true}, start)
	r = must(t, r, roll.Replan{By: bob, Plan: r.Plan}, start)
	for who, want := range map[roll.Actor]string{alice: roll.RefusedOwnApproval, bob: roll.RefusedOwnApproval, robot: roll.RefusedServiceActor, carol: "ok"} {
		if _, _, err := r.Apply(roll.Approve{By: who, PlanHash: r.Plan.Hash}, start); code(err) != want {
			t.Errorf("%s: %v, want %s", who.Subject, err, want)
		}
	}
	yes := must(t, r, roll.Approve{By: carol, PlanHash: r.Plan.Hash}, start)
	if _, _, err := yes.Apply(roll.Approve{By: carol, PlanHash: r.Plan.Hash}, start); code(err) != "already" {
		t.Error(err)
	}
}

func TestPlanChanged(t *testing.T) {
	r, s := begin(t, running(t, contoso(), "exo-na"), roll.Preflight, "", start)
	bad := r.Plan
	bad.Findings = []roll.Finding{{Code: "key_disabled", Level: roll.LevelError, Seen: "it is disabled", Remedy: "enable it"}}
	halted := must(t, r, roll.PlanChanged{N: s.N, Epoch: s.Epoch, Plan: bad}, start)
	if halted.State != roll.NeedsAttention || halted.Attention.Action != "enable it" || halted.Round != 1 {
		t.Errorf("a plan with errors: %s %+v", halted.State, halted.Attention)
	}
	r = must(t, r, roll.PlanChanged{N: s.N, Epoch: s.Epoch, Plan: r.Plan}, start)
	if r.State != roll.AwaitingApproval || r.Round != 2 || len(r.Approvals) != 0 || r.Steps[0].State != roll.StepSkipped {
		t.Errorf("%s round %d", r.State, r.Round)
	}
	c, s := begin(t, running(t, contoso(), "exo-na"), roll.Preflight, "", start)
	c = must(t, c, roll.Cancel{By: bob}, start)
	if c.State != roll.Cancelling {
		t.Fatal(c.State)
	}
	if c = must(t, c, roll.PlanChanged{N: s.N, Epoch: s.Epoch, Plan: c.Plan}, start); c.State != roll.Cancelled {
		t.Errorf("a cancelled preflight that saw another plan: %s", c.State)
	}
}

func TestCrashes(t *testing.T) {
	r := running(t, contoso(), "exo-na")
	for i := range 5 {
		var s roll.Step
		r, s = begin(t, r, roll.Preflight, "", start)
		r = must(t, r, roll.Crashed{Worker: "w1", Detail: "panic", At: start}, start)
		if _, _, err := r.Apply(roll.Done{N: s.N, Epoch: s.Epoch}, start); code(err) != roll.RefusedStaleEpoch {
			t.Fatalf("crash %d: the dead worker's word was taken: %v", i, err)
		}
		if want := map[bool]roll.State{true: roll.NeedsAttention, false: roll.Running}[i == 4]; r.State != want {
			t.Fatalf("after crash %d: %s", i+1, r.State)
		}
	}
	if _, _, err := r.Apply(roll.Crashed{Worker: "w1"}, start); code(err) != "already" {
		t.Error(err)
	}
}

// The attention passes on to another halted step when its own goes on.
func TestAttentionFollowsTheHalted(t *testing.T) {
	r := do(t, running(t, contoso(), "exo-na"), roll.Preflight, "", start)
	r, a := begin(t, r, roll.CreateKeyVersion, "exo-a", start)
	r, b := begin(t, r, roll.CreateKeyVersion, "exo-b", start)
	r, _ = halt(t, r, a, start)
	r, _ = halt(t, r, b, start)
	if r.Attention.Step != b.N {
		t.Error("the newest is shown")
	}
	r = must(t, r, roll.Retry{By: bob, Step: b.N}, start)
	if r.State != roll.NeedsAttention || r.Attention == nil || r.Attention.Step != a.N || r.Attention.Action != "look" {
		t.Errorf("%s %+v", r.State, r.Attention)
	}
	if got := r.Next(start, func(roll.Step) bool { return true }); len(got) != 0 {
		t.Errorf("something new begins while a person is wanted: %v", got)
	}
	if r = must(t, r, roll.Retry{By: bob}, start); r.State != roll.Running || r.Attention != nil {
		t.Errorf("%s %+v", r.State, r.Attention)
	}
}

func TestStuck(t *testing.T) {
	bounds := roll.DefaultBounds()
	codes := func(r roll.Roll, now time.Time) (out []string) {
		for _, s := range r.Stuck(now, bounds) {
			out = append(out, s.Code)
		}
		return out
	}
	base := do(t, running(t, contoso(), "exo-na", "spo"), roll.Preflight, "", start)
	base = do(t, base, roll.SharePointLease, "", start)
	base = do(t, base, roll.CreateKeyVersion, "spo-a", start)
	run, s := begin(t, base, roll.SharePointRollKey, "spo-a", start)
	with := func(ev roll.Event) roll.Roll {
		r := must(t, run, ev, start)
		for _, k := range []string{"exo-a", "exo-b"} {
			if r.State == roll.Running {
				r = do(t, r, roll.CreateKeyVersion, k, start)
			}
		}
		if r.State == roll.Running {
			r = do(t, r, roll.RefreshPolicy, "", start)
			r = do(t, r, roll.Verify, "exo-na", start)
		}
		return r
	}
	long := start.Add(31 * time.Minute)
	percent := 4.0
	cases := []struct {
		name string
		r    roll.Roll
		now  time.Time
		want []string
	}{
		{"external roll", with(roll.Waits{N: s.N, Epoch: s.Epoch, For: roll.WaitExternal, Until: start.Add(time.Minute), NotApplied: true}), start.Add(9 * 24 * time.Hour), nil},
		{"failing", with(roll.WillRetry{N: s.N, Epoch: s.Epoch, At: start.Add(time.Minute), Code: "throttled", NotApplied: true}), long, []string{roll.StuckFailing}},
		{"lost answer", with(roll.WillRetry{N: s.N, Epoch: s.Epoch, At: start.Add(time.Minute)}), long, []string{roll.StuckUnproven}},
		{"ours, unproven, is SharePoint's time", with(roll.Waits{N: s.N, Epoch: s.Epoch, For: roll.WaitOwnUnproven, Until: start.Add(time.Minute)}), long, nil},
		{"halted", with(roll.Halted{N: s.N, Epoch: s.Epoch, Code: "x", NotApplied: true}), long, []string{roll.StuckNeedsAttention}},
		{"not yet", with(roll.Halted{N: s.N, Epoch: s.Epoch, Code: "x", NotApplied: true}), start.Add(30 * time.Minute), nil},
	}
	rolled := with(roll.Done{N: s.N, Epoch: s.Epoch})
	rolled, a := begin(t, rolled, roll.SharePointAwait, "spo-a", start)
	moving := must(t, rolled, roll.Waits{N: a.N, Epoch: a.Epoch, For: roll.WaitMicrosoft, Until: start, Look: roll.Look{Seen: "Rolling", Percent: &percent}}, start)
	blind := must(t, rolled, roll.Waits{N: a.N, Epoch: a.Epoch, For: roll.WaitMicrosoft, Until: start, Look: roll.Look{Seen: "Rolling"}}, start)
	for name, c := range map[string]struct {
		r     roll.Roll
		after time.Duration
	}{"percent": {moving, 24 * time.Hour}, "no percent": {blind, 7 * 24 * time.Hour}} {
		if got := codes(c.r, start.Add(c.after)); got != nil {
			t.Errorf("%s: stuck too early: %v", name, got)
		}
		if got := codes(c.r, start.Add(c.after+time.Second)); !cmp.Equal(got, []string{roll.StuckNoProgress}) {
			t.Errorf("%s: %v", name, got)
		}
	}
	for _, c := range cases {
		if got := codes(c.r, c.now); !cmp.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
	waiting, _ := roll.New(rollID, request(contoso(), "spo"), planFor(t, contoso(), "spo"), alice, true, patience, start)
	if got := codes(waiting, start.Add(1000*time.Hour)); got != nil {
		t.Errorf("an approval counts: %v", got)
	}
}

func TestOperationIDs(t *testing.T) {
	r := do(t, running(t, contoso(), "exo-na"), roll.Preflight, "", start)
	r, s := begin(t, r, roll.CreateKeyVersion, "exo-a", start)
	first := s.OpID
	r = must(t, r, roll.WillRetry{N: s.N, Epoch: s.Epoch, At: start}, start) // lost: same operation
	r, s = begin(t, r, roll.CreateKeyVersion, "exo-a", start)
	if s.OpID != first || !s.IntentOpen {
		t.Error("an open intent was written anew")
	}
	r = must(t, r, roll.WillRetry{N: s.N, Epoch: s.Epoch, At: start, NotApplied: true}, start)
	r, s = begin(t, r, roll.CreateKeyVersion, "exo-a", start)
	if s.OpID == first || !cmp.Equal(r.OperationIDs(s.N), []string{first, s.OpID}) || r.OperationIDs(0) != nil {
		t.Errorf("rounds: %v", r.OperationIDs(s.N))
	}
}

// A cancel sets out to settle what a halted step left open, unasked.
func TestCancelSettlesWhatHalted(t *testing.T) {
	r := do(t, running(t, contoso(), "exo-na"), roll.Preflight, "", start)
	r, s := begin(t, r, roll.CreateKeyVersion, "exo-a", start)
	r = must(t, r, roll.Halted{N: s.N, Epoch: s.Epoch, Code: "lost"}, start)
	r = must(t, r, roll.Cancel{By: bob}, start)
	if r.State != roll.Cancelling || !offered(r, start)[s.N] {
		t.Fatalf("%s, offered %v", r.State, offered(r, start))
	}
	r, s = begin(t, r, roll.CreateKeyVersion, "exo-a", start)
	if r = must(t, r, roll.WillRetry{N: s.N, Epoch: s.Epoch, At: start, NotApplied: true}, start); r.State != roll.Cancelled {
		t.Error(r.State)
	}
}

// A step taken over in a roll that stopped opens no intent, whatever it held.
func TestTakeoverOpensNothingWhenStopped(t *testing.T) {
	for _, state := range []roll.State{roll.NeedsAttention, roll.Cancelling} {
		r, s := inState(t, state, roll.CreateKeyVersion, roll.StepRunning)
		r.Steps[s.N-1].IntentOpen = false
		r = must(t, r, roll.Begun{N: s.N, Worker: "w2", RunFor: time.Minute, Takeover: true}, start)
		if r.Steps[s.N-1].IntentOpen {
			t.Errorf("%s: an intent was opened", state)
		}
	}
}

// Two histories that part from one roll share nothing that either writes.
func TestHistoriesPart(t *testing.T) {
	r := do(t, running(t, contoso(), "global", "exo-na"), roll.Preflight, "", start)
	for _, k := range []string{"m-a", "m-b", "exo-a"} {
		r = do(t, r, roll.CreateKeyVersion, k, start)
	}
	r.Made = append(make([]roll.Made, 0, 9), r.Made...)
	r.Approvals = append(make([]roll.Approval, 0, 9), r.Approvals...)
	r, s := begin(t, r, roll.CreateKeyVersion, "exo-b", start)
	one := must(t, r, roll.Done{N: s.N, Epoch: s.Epoch, Result: roll.Result{Version: ver("exo-b", 3)}}, start)
	two := must(t, r, roll.Done{N: s.N, Epoch: s.Epoch, Result: roll.Result{Version: ver("exo-b", 4)}}, start)
	if one.Made[3].Version != ver("exo-b", 3) || two.Made[3].Version != ver("exo-b", 4) || one.Keys[3].NewVersion == two.Keys[3].NewVersion {
		t.Error("one history wrote into the other")
	}
}

// TestRefreshSentAgainIsWaitedForAnew: the second sending of a refresh whose
// answer was lost has the first one's operation id and a deadline of its own;
// before the first deadline nothing is renewed.
func TestRefreshSentAgainIsWaitedForAnew(t *testing.T) {
	r := running(t, contoso(), "exo-na")
	for _, k := range []struct {
		kind    roll.StepKind
		subject string
	}{{roll.Preflight, ""}, {roll.CreateKeyVersion, "exo-a"}, {roll.CreateKeyVersion, "exo-b"}} {
		r = do(t, r, k.kind, k.subject, start)
	}
	r, first := begin(t, r, roll.RefreshPolicy, "exo-na", start)
	r = must(t, r, roll.WillRetry{N: first.N, Epoch: first.Epoch, At: start, Code: "lost"}, start)
	r, early := begin(t, r, roll.RefreshPolicy, "exo-na", start.Add(time.Second))
	if !early.IntentDeadline.Equal(*first.IntentDeadline) {
		t.Errorf("renewed before its time: %s, was %s", early.IntentDeadline, first.IntentDeadline)
	}
	r = must(t, r, roll.WillRetry{N: first.N, Epoch: early.Epoch, At: *first.IntentDeadline, Code: "lost"}, start.Add(time.Second))
	again := *first.IntentDeadline
	_, second := begin(t, r, roll.RefreshPolicy, "exo-na", again)
	if second.OpID != first.OpID || second.OpRound != first.OpRound {
		t.Errorf("another operation: %s round %d, was %s round %d", second.OpID, second.OpRound, first.OpID, first.OpRound)
	}
	if !second.IntentDeadline.Equal(again.Add(3 * time.Minute)) {
		t.Errorf("deadline %s, want %s", second.IntentDeadline, again.Add(3*time.Minute))
	}
}
