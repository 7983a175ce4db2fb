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
