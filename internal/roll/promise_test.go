package roll_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/keyroll/keyroll/internal/roll"
)

func offered(r roll.Roll, now time.Time) map[int]bool {
	out := map[int]bool{}
	for _, w := range r.Next(now, func(roll.Step) bool { return false }) {
		out[w.N] = true
	}
	return out
}

func halt(t *testing.T, r roll.Roll, s roll.Step, now time.Time) (roll.Roll, []roll.Effect) {
	t.Helper()
	return mustFx(t, r, roll.Halted{N: s.N, Epoch: s.Epoch, Code: "seen", Action: "look", NotApplied: true}, now)
}

// A roll that stopped gave its lease back; what comes next in the chain waits
// until the lease is held again, however far the chain had come.
func TestRetryWaitsForTheLeaseAgain(t *testing.T) {
	for _, at := range []roll.StepKind{roll.CreateKeyVersion, roll.SharePointRollKey} {
		r := running(t, contoso(), "spo")
		r = do(t, r, roll.Preflight, "", start)
		r = do(t, r, roll.SharePointLease, "", start)
		if at == roll.SharePointRollKey {
			r = do(t, r, roll.CreateKeyVersion, "spo-a", start)
		}
		r, s := begin(t, r, at, "spo-a", start)
		r, fx := halt(t, r, s, start)
		if leaves(fx) != 1 {
			t.Fatalf("%s: stopped with %d LeaveLease", at, leaves(fx))
		}
		r = must(t, r, roll.Retry{By: bob}, start)
		if got := offered(r, start); got[s.N] || !got[step(t, r, roll.SharePointLease, "").N] {
			t.Fatalf("%s after a retry: offered %v", at, got)
		}
		if _, _, err := r.Apply(roll.Begun{N: s.N, Worker: "w1", RunFor: time.Minute}, start); code(err) != roll.RefusedStepState {
			t.Fatalf("%s began without the lease: %v", at, err)
		}
		r, l := begin(t, r, roll.SharePointLease, "", start)
		r = must(t, r, roll.LeaseQueued{N: l.N, Epoch: l.Epoch, Position: 1, Until: start.Add(time.Minute)}, start)
		if got := r.Stuck(start.Add(48*time.Hour), roll.DefaultBounds()); got != nil {
			t.Errorf("waiting in the queue is counted as standing still: %+v", got)
		}
		r = must(t, r, roll.LeaseGranted{N: l.N, Epoch: l.Epoch}, start)
		if !offered(r, start)[s.N] {
			t.Errorf("%s is not offered under the lease", at)
		}
	}
}

// The lease step itself may halt; a retry must find it halted.
func TestHaltedLeaseStepCanBeRetried(t *testing.T) {
	r := do(t, running(t, contoso(), "spo"), roll.Preflight, "", start)
	r, l := begin(t, r, roll.SharePointLease, "", start)
	r, fx := halt(t, r, l, start)
	if leaves(fx) != 1 || r.Attention == nil {
		t.Fatalf("%v %+v", fx, r.Attention)
	}
	r = must(t, r, roll.Retry{By: bob}, start)
	if !offered(r, start)[l.N] {
		t.Error("not offered after the retry")
	}
}

// A create under way when another lane stops the roll is settled, though the
// lease before it went back; and a cancel then ends.
func TestOpenCreateIsSettledWithoutTheLease(t *testing.T) {
	for _, cancel := range []bool{false, true} {
		r := do(t, running(t, contoso(), "exo-na", "spo"), roll.Preflight, "", start)
		r = do(t, r, roll.SharePointLease, "", start)
		r, c := begin(t, r, roll.CreateKeyVersion, "spo-a", start)
		r, e := begin(t, r, roll.CreateKeyVersion, "exo-a", start)
		r, fx := halt(t, r, e, start)
		if leaves(fx) != 1 {
			t.Fatal("the lease was not given back")
		}
		if cancel {
			r = must(t, r, roll.Cancel{By: alice}, start)
		}
		r = must(t, r, roll.Crashed{Worker: "w1", At: start}, start)
		if !offered(r, start)[c.N] || r.WakeAt == nil {
			t.Fatalf("the open create is not settled (wake %v)", r.WakeAt)
		}
		r = must(t, r, roll.Begun{N: c.N, Worker: "w2", RunFor: time.Minute}, start)
		r = must(t, r, roll.Done{N: c.N, Epoch: r.Steps[c.N-1].Epoch, Result: roll.Result{Version: ver("spo-a", 3), ByTag: true}}, start)
		if cancel && (r.State != roll.Cancelled || len(r.LeftBehind) != 1) {
			t.Errorf("%s %v", r.State, r.LeftBehind)
		}
		if !cancel && r.Unsettled() {
			t.Error("still unsettled")
		}
	}
}

func TestGap(t *testing.T) {
	inv := contoso()
	r := do(t, running(t, inv, "spo"), roll.Preflight, "", start)
	r, l := begin(t, r, roll.SharePointLease, "", start)
	before := start.Add(-10 * time.Hour) // another roll's operation, known to the lease
	r = must(t, r, roll.LeaseGranted{N: l.N, Epoch: l.Epoch, LastEnded: map[string]time.Time{"NAM": before, "EUR": start}}, start)
	first, free := step(t, r, roll.CreateKeyVersion, "spo-a"), before.Add(24*time.Hour)
	if offered(r, free.Add(-time.Second))[first.N] || !offered(r, free)[first.N] || !r.WakeAt.Equal(free) {
		t.Fatalf("the first slot opens at %v, want %v", r.WakeAt, free)
	}
	for _, k := range []roll.StepKind{roll.CreateKeyVersion, roll.SharePointRollKey} {
		r = do(t, r, k, "spo-a", free)
	}
	end := free.Add(3 * time.Hour)
	halted := r
	r = do(t, r, roll.SharePointAwait, "spo-a", end)
	second, free := step(t, r, roll.CreateKeyVersion, "spo-b"), end.Add(24*time.Hour)
	if offered(r, free.Add(-time.Second))[second.N] || !offered(r, free)[second.N] || !r.WakeAt.Equal(free) {
		t.Fatalf("the second slot opens at %v, want %v", r.WakeAt, free)
	}
	if got := r.Stuck(free.Add(10*time.Minute), roll.DefaultBounds()); got != nil {
		t.Errorf("the gap is counted: %+v", got)
	}
	r, _ = begin(t, r, roll.CreateKeyVersion, "spo-b", free)
	if got := r.Stuck(free.Add(10*time.Minute), roll.DefaultBounds()); got != nil {
		t.Errorf("the gap is counted once the step runs: %+v", got)
	}

	// An operation that ended badly is followed by the gap as well, in the
	// lease's memory and in the next plan.
	halted, a := begin(t, halted, roll.SharePointAwait, "spo-a", end)
	halted, fx := mustFx(t, halted, roll.Halted{N: a.N, Epoch: a.Epoch, Code: "seen", OpEnded: true}, end)
	want := roll.LeaveLease{Scope: "tenant", LastEnded: map[string]time.Time{"NAM": end}}
	var got roll.LeaveLease
	for _, f := range fx {
		if l, ok := f.(roll.LeaveLease); ok {
			got = l
		}
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	halted = must(t, halted, roll.Replan{By: alice, Plan: planFor(t, inv, "spo")}, end)
	halted = must(t, halted, roll.Approve{By: bob, PlanHash: halted.Plan.Hash}, end)
	halted = do(t, halted, roll.Preflight, "", end)
	halted = do(t, halted, roll.SharePointLease, "", end)
	if n := step(t, halted, roll.CreateKeyVersion, "spo-a").N; offered(halted, free.Add(-time.Second))[n] || !offered(halted, free)[n] {
		t.Error("the next plan does not keep the gap")
	}
}

func TestNotBeforeHoldsTheUse(t *testing.T) {
	nbf := start.Add(6 * time.Hour)
	for policy, kind := range map[string]roll.StepKind{"exo-na": roll.RefreshPolicy, "spo": roll.SharePointRollKey} {
		r := do(t, running(t, contoso(), policy), roll.Preflight, "", start)
		if policy == "spo" {
			r = do(t, r, roll.SharePointLease, "", start)
		}
		for _, key := range map[string][]string{"exo-na": {"exo-a", "exo-b"}, "spo": {"spo-a"}}[policy] {
			var s roll.Step
			r, s = begin(t, r, roll.CreateKeyVersion, key, start)
			res := roll.Result{Version: ver(key, 3)}
			if key != "exo-b" {
				res.NotBefore = &nbf
			}
			r = must(t, r, roll.Done{N: s.N, Epoch: s.Epoch, Result: res}, start)
		}
		n := step(t, r, kind, "").N
		if offered(r, nbf.Add(-time.Second))[n] || !offered(r, nbf)[n] || !r.WakeAt.Equal(nbf) {
			t.Errorf("%s: opens at %v, want %v", kind, r.WakeAt, nbf)
		}
	}
}

// rules 9 and 11: what is said at the end.
func TestEnds(t *testing.T) {
	r := do(t, running(t, contoso(), "exo-na"), roll.Preflight, "", start)
	r = do(t, r, roll.CreateKeyVersion, "exo-a", start)
	gone := must(t, r, roll.Cancel{By: bob, Reason: "wrong day"}, start)
	if gone.State != roll.Cancelled || len(gone.LeftBehind) != 1 || gone.LeftBehind[0].Version != ver("exo-a", 3) || gone.EndNote != "wrong day" {
		t.Errorf("%s %+v", gone.State, gone.LeftBehind)
	}
	given := must(t, must(t, r, roll.GiveUp{By: bob}, start), roll.GiveUp{By: carol}, start)
	if given.State != roll.Failed || given.EndCode != "abandoned" || len(given.LeftBehind) != 1 {
		t.Errorf("%s %s %+v", given.State, given.EndCode, given.LeftBehind)
	}
	r = do(t, r, roll.CreateKeyVersion, "exo-b", start)
	r = do(t, r, roll.RefreshPolicy, "", start)
	if c := must(t, r, roll.Cancel{By: bob}, start); len(c.LeftBehind) != 0 {
		t.Errorf("the refresh took them up: %+v", c.LeftBehind)
	}
	r = do(t, r, roll.Verify, "", start)
	if r.State != roll.Succeeded || r.Outcome != roll.Accepted || len(r.LeftBehind) != 0 {
		t.Errorf("%s %s %+v", r.State, r.Outcome, r.LeftBehind)
	}
	if code := func() string { _, _, err := r.Apply(roll.Cancel{By: bob}, start); return code(err) }(); code != roll.RefusedState {
		t.Error(code)
	}
}

// A version that a later round replaced is left behind by a roll that succeeds.
func TestReplacedVersionIsLeftBehind(t *testing.T) {
	r := do(t, running(t, contoso(), "exo-na"), roll.Preflight, "", start)
	r, s := begin(t, r, roll.CreateKeyVersion, "exo-a", start)
	r = must(t, r, roll.Done{N: s.N, Epoch: s.Epoch, Result: roll.Result{Version: ver("exo-a", 7)}}, start)
	r = do(t, r, roll.CreateKeyVersion, "exo-b", start)
	r, s = begin(t, r, roll.RefreshPolicy, "", start)
	r, _ = halt(t, r, s, start)
	r = must(t, r, roll.Replan{By: alice, Plan: planFor(t, contoso(), "exo-na")}, start)
	if got := r.Steps[len(r.Steps)-1].N; got != len(r.Steps) || r.Steps[1].State != roll.StepSucceeded || r.Steps[4].State != roll.StepSkipped {
		t.Errorf("steps after a replan: %+v", r.Steps)
	}
	if r.Expected()["exo-a"] != "" {
		t.Error("the new plan expects the old round's version")
	}
	r = must(t, r, roll.Approve{By: bob, PlanHash: r.Plan.Hash}, start)
	for _, k := range []struct {
		kind roll.StepKind
		sub  string
	}{{roll.Preflight, ""}, {roll.CreateKeyVersion, "exo-a"}, {roll.CreateKeyVersion, "exo-b"}, {roll.RefreshPolicy, ""}, {roll.Verify, ""}} {
		r = do(t, r, k.kind, k.sub, start)
	}
	if r.State != roll.Succeeded || len(r.LeftBehind) != 1 || r.LeftBehind[0].Version != ver("exo-a", 7) {
		t.Errorf("%s %+v", r.State, r.LeftBehind)
	}
}

func TestOutcomeIsTheWeakest(t *testing.T) {
	order := []roll.Evidence{roll.Unknown, roll.Attested, roll.Accepted, roll.InUse, roll.Confirmed}
	for i, a := range order {
		for j, b := range order {
			if got := roll.Weakest(a, b); got != order[min(i, j)] {
				t.Errorf("Weakest(%s, %s) = %s", a, b, got)
			}
		}
	}
	if roll.Weakest() != roll.Unknown || roll.Weakest("certain", roll.Confirmed) != roll.Unknown {
		t.Error("nothing, or an unheard-of word, is unknown")
	}
	r := do(t, running(t, contoso(), "global", "exo-na"), roll.Preflight, "", start)
	for _, k := range []string{"m-a", "m-b", "exo-a", "exo-b"} {
		r = do(t, r, roll.CreateKeyVersion, k, start)
	}
	r = do(t, r, roll.RefreshPolicy, "global", start)
	r = do(t, r, roll.RefreshPolicy, "exo-na", start)
	for p, e := range map[string]roll.Evidence{"global": roll.InUse, "exo-na": roll.Attested} {
		var s roll.Step
		r, s = begin(t, r, roll.Verify, p, start)
		r = must(t, r, roll.Done{N: s.N, Epoch: s.Epoch, Result: roll.Result{Evidence: e, Source: "log"}}, start)
	}
	if e, src := r.PolicyEvidence("global"); r.Outcome != roll.Attested || e != roll.InUse || src != "log" {
		t.Errorf("outcome %s, %s %s", r.Outcome, e, src)
	}
}

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

func TestScheduledAndExpired(t *testing.T) {
	at := start.Add(time.Hour)
	req := request(contoso(), "exo-na")
	req.StartAt = &at
	r, fx := roll.New(rollID, req, planFor(t, contoso(), "exo-na"), alice, false, patience, start)
	if r.State != roll.Scheduled || !r.WakeAt.Equal(at) || len(fx) != 2 || fx[0] != (roll.EnqueueRoll{Kind: roll.Preflight, At: at}) {
		t.Errorf("%s %v %v", r.State, r.WakeAt, fx)
	}
	if _, _, err := r.Apply(roll.Due{}, start); code(err) != roll.RefusedState {
		t.Error(err)
	}
	r = must(t, r, roll.Due{}, at)
	if _, _, err := r.Apply(roll.Due{}, at); r.State != roll.Running || code(err) != "already" {
		t.Error(r.State, err)
	}
	w, _ := roll.New(rollID, req, planFor(t, contoso(), "exo-na"), alice, true, patience, start)
	if !w.WakeAt.Equal(start.Add(patience)) {
		t.Error(w.WakeAt)
	}
	w = must(t, w, roll.ApprovalExpired{}, start.Add(patience))
	if w.State != roll.Cancelled || w.EndCode != "approval_expired" || w.WakeAt != nil {
		t.Errorf("%s %s", w.State, w.EndCode)
	}
}
