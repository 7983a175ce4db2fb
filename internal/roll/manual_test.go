package roll_test

import (
	"testing"
	"time"

	"github.com/keyroll/keyroll/internal/roll"
)

// shown is a running roll whose step of the kind shows a line to a person.
func shown(t *testing.T, kind roll.StepKind) (roll.Roll, int) {
	t.Helper()
	r, s := inState(t, roll.Running, kind, roll.StepRunning)
	r.Steps[s.N-1].Params.Transport = roll.Manual
	r = must(t, r, roll.Offered{N: s.N, Epoch: s.Epoch, Offer: roll.Offer{Line: "Do-It", At: start}}, start)
	return r, s.N
}

func done(n int) roll.Reported    { return roll.Reported{By: bob, N: n, Outcome: roll.ReportDone} }
func notDone(n int) roll.Reported { return roll.Reported{By: bob, N: n, Outcome: roll.ReportNotDone} }

// TestManualStepIsInFlight: from the moment the line is shown nothing but a
// report frees the step: not time, not cancel, not replan.
func TestManualStepIsInFlight(t *testing.T) {
	for _, kind := range []roll.StepKind{roll.RefreshPolicy, roll.SharePointRollKey} {
		r, n := shown(t, kind)
		s, _ := r.StepByN(n)
		if s.State != roll.StepWaiting || s.WaitingFor != roll.WaitManual || !s.IntentOpen || s.NextAttemptAt != nil {
			t.Fatalf("%s: offered is %+v", kind, s)
		}
		year := start.AddDate(1, 0, 0)
		for _, w := range r.Next(year, func(roll.Step) bool { return true }) {
			if w.N == n {
				t.Errorf("%s: a worker may take the step after a year", kind)
			}
		}
		stuck := r.Stuck(year, roll.DefaultBounds())
		if len(stuck) == 0 || stuck[0].Code != roll.StuckManual {
			t.Errorf("%s: a person is needed, and the standstill says %v", kind, stuck)
		}
		c := must(t, r, roll.Cancel{By: alice}, start)
		if c.State != roll.Cancelling {
			t.Errorf("%s: cancel made it %s", kind, c.State)
		}
		if kind == roll.SharePointRollKey && !c.InFlight("") {
			t.Errorf("%s: not in flight after cancel", kind)
		}
		halted := r
		halted.State = roll.NeedsAttention
		if _, _, err := halted.Apply(roll.Replan{By: alice, Plan: r.Plan}, start); code(err) != roll.RefusedInFlight {
			t.Errorf("%s: replan: %v", kind, err)
		}
		if c = must(t, c, notDone(n), start); c.State != roll.Cancelled {
			t.Errorf("%s: cancelled and not done is %s", kind, c.State)
		}
	}
}

func TestReportNotDoneShowsTheLineAgain(t *testing.T) {
	r, n := shown(t, roll.RefreshPolicy)
	before, _ := r.StepByN(n)
	r = must(t, r, notDone(n), start)
	s, _ := r.StepByN(n)
	if s.State != roll.StepReady || s.IntentOpen || s.Offer != nil || s.OpRound != before.OpRound+1 {
		t.Fatalf("not done: %+v", s)
	}
	r = must(t, r, roll.Begun{N: n, Worker: "w2", RunFor: time.Minute}, start)
	if s, _ = r.StepByN(n); s.OpID == before.OpID {
		t.Error("the line is shown again under the same operation")
	}
}

func TestReportDoneIsSettled(t *testing.T) {
	r, n := shown(t, roll.SharePointRollKey)
	ran := start.Add(time.Minute)
	ev := done(n)
	ev.RanAt, ev.Note = &ran, "done"
	r = must(t, r, ev, start.Add(2*time.Minute))
	s, _ := r.StepByN(n)
	if s.State != roll.StepReady || !s.IntentOpen || s.Report == nil || s.Report.By != bob || s.WaitingFor != "" {
		t.Fatalf("reported: %+v", s)
	}
	if _, _, err := r.Apply(ev, start.Add(3*time.Minute)); code(err) != code(roll.ErrAlreadyApplied) {
		t.Errorf("the same report again: %v", err)
	}
	other := ev
	other.By = alice
	if _, _, err := r.Apply(other, start.Add(3*time.Minute)); code(err) != roll.RefusedStepState {
		t.Errorf("another person's report after it: %v", err)
	}
}

func TestReportRefusals(t *testing.T) {
	r, n := shown(t, roll.RefreshPolicy)
	early, late := start.Add(-time.Hour), start.Add(time.Hour)
	for name, c := range map[string]struct {
		change func(*roll.Roll)
		ev     roll.Reported
		code   string
	}{
		"a service":          {nil, roll.Reported{By: roll.Actor{Subject: "svc", Kind: roll.Service}, N: n, Outcome: "done"}, roll.RefusedServiceActor},
		"no step":            {nil, done(99), roll.RefusedNoSuchStep},
		"step 0":             {nil, done(0), roll.RefusedNoSuchStep},
		"another step":       {nil, done(1), roll.RefusedStepState},
		"no outcome":         {nil, roll.Reported{By: bob, N: n}, roll.RefusedStepState},
		"before it was seen": {nil, roll.Reported{By: bob, N: n, Outcome: "done", RanAt: &early}, roll.RefusedReportTime},
		"in the future":      {nil, roll.Reported{By: bob, N: n, Outcome: "done", RanAt: &late}, roll.RefusedReportTime},
		"ended":              {func(r *roll.Roll) { r.State = roll.Cancelled }, done(n), roll.RefusedState},
		"awaiting approval":  {func(r *roll.Roll) { r.State = roll.AwaitingApproval }, done(n), roll.RefusedState},
	} {
		in := clone(r)
		if c.change != nil {
			c.change(&in)
		}
		if _, _, err := in.Apply(c.ev, start); code(err) != c.code {
			t.Errorf("%s: %v, want %s", name, err, c.code)
		}
	}
}

// TestNoLineInARollThatStopped: the roll was cancelled while a worker made the
// checks; nobody has seen the line, and nobody does.
func TestNoLineInARollThatStopped(t *testing.T) {
	r, s := inState(t, roll.Running, roll.RefreshPolicy, roll.StepRunning)
	r.Steps[s.N-1].Params.Transport = roll.Manual
	r = must(t, r, roll.Cancel{By: alice}, start)
	r = must(t, r, roll.Offered{N: s.N, Epoch: s.Epoch, Offer: roll.Offer{Line: "Do-It", At: start}}, start)
	if got, _ := r.StepByN(s.N); r.State != roll.Cancelled || got.Offer != nil {
		t.Errorf("roll %s, offer %+v", r.State, got.Offer)
	}
}

// TestOfferedOnlyForManualSteps: a line for a step of another transport would
// let one effect happen twice.
func TestOfferedOnlyForManualSteps(t *testing.T) {
	r, s := inState(t, roll.Running, roll.RefreshPolicy, roll.StepRunning)
	if _, _, err := r.Apply(roll.Offered{N: s.N, Epoch: s.Epoch, Offer: roll.Offer{Line: "x"}}, start); code(err) != roll.RefusedStepState {
		t.Errorf("offered for a native step: %v", err)
	}
}
