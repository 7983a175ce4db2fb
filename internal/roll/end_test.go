package roll_test

import (
	"slices"
	"testing"
	"time"

	"github.com/keyroll/keyroll/internal/roll"
)

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

// A version that was made and must not be used is recorded, is never made
// again by a retry, and is left behind.
func TestMadeButUnusable(t *testing.T) {
	r := do(t, running(t, contoso(), "exo-na"), roll.Preflight, "", start)
	r, s := begin(t, r, roll.CreateKeyVersion, "exo-a", start)
	made := roll.Result{Version: ver("exo-a", 3)}
	bad := roll.Halted{N: s.N, Epoch: s.Epoch, Code: "version_differs", Settled: true, Result: made}
	r, fx := mustFx(t, r, bad, start)
	if len(r.Made) != 1 || r.Unsettled() || !slices.ContainsFunc(fx, func(f roll.Effect) bool { v, ok := f.(roll.RecordVersion); return ok && v.Version == made.Version }) {
		t.Fatalf("made %v, unsettled %v, effects %v", r.Made, r.Unsettled(), fx)
	}
	r = must(t, r, roll.Retry{By: bob}, start)
	r, s = begin(t, r, roll.CreateKeyVersion, "exo-a", start)
	if s.IntentOpen {
		t.Error("a retry may make it again")
	}
	bad.Epoch = s.Epoch
	if r, fx = mustFx(t, r, bad, start); len(r.Made) != 1 || slices.ContainsFunc(fx, func(f roll.Effect) bool { _, ok := f.(roll.RecordVersion); return ok }) {
		t.Errorf("recorded twice: %v %v", r.Made, fx)
	}
	if c := must(t, r, roll.Cancel{By: bob}, start); c.State != roll.Cancelled || len(c.LeftBehind) != 1 {
		t.Errorf("%s %v", c.State, c.LeftBehind)
	}
	r = must(t, r, roll.Retry{By: bob}, start)
	r, s = begin(t, r, roll.CreateKeyVersion, "exo-a", start)
	if r = must(t, r, roll.Done{N: s.N, Epoch: s.Epoch, Result: made}, start); len(r.Made) != 1 {
		t.Errorf("made %v", r.Made)
	}
}

// An adopted version is not one that the roll made, and so not one it leaves behind.
func TestAdoptedIsNotMade(t *testing.T) {
	r := do(t, running(t, contoso(), "exo-na"), roll.Preflight, "", start)
	r, s := begin(t, r, roll.CreateKeyVersion, "exo-a", start)
	r, fx := mustFx(t, r, roll.Done{N: s.N, Epoch: s.Epoch, Result: roll.Result{Version: ver("exo-a", 2), Adopted: true}}, start)
	if len(r.Made) != 0 || !r.Keys[0].Adopted || len(fx) < 1 {
		t.Errorf("made %v", r.Made)
	}
	if c := must(t, r, roll.Cancel{By: bob}, start); len(c.LeftBehind) != 0 {
		t.Errorf("left behind %v", c.LeftBehind)
	}
	req := request(contoso(), "exo-na")
	req.Keys = []roll.KeyRequest{{ID: "exo-a", Version: ver("exo-a", 2)}}
	r, _ = roll.New(rollID, req, build(t, contoso(), req, healthy(contoso())), alice, false, patience, start)
	r = do(t, r, roll.Preflight, "", start)
	if _, s = begin(t, r, roll.CreateKeyVersion, "exo-a", start); s.Params.Adopt == "" || s.IntentOpen {
		t.Errorf("adopting calls nothing, and has an intent: %+v", s)
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
