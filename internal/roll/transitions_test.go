package roll_test

import (
	"fmt"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/keyroll/keyroll/internal/roll"
)

// golden compares with testdata, or rewrites it with KEYROLL_UPDATE=1.
func golden(t *testing.T, path, got string) {
	t.Helper()
	if os.Getenv("KEYROLL_UPDATE") == "1" {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), got); d != "" {
		t.Errorf("%s is out of date (KEYROLL_UPDATE=1 rewrites it): %s", path, d)
	}
}

// inState is an approved roll whose step of the kind is in the state, put
// together by hand where no history leads there.
func inState(t *testing.T, state roll.State, kind roll.StepKind, ss roll.StepState) (roll.Roll, roll.Step) {
	r := running(t, contoso(), "exo-na", "spo")
	s := step(t, r, kind, map[roll.StepKind]string{roll.CreateKeyVersion: "exo-a", roll.SharePointRollKey: "spo-a", roll.SharePointAwait: "spo-a"}[kind])
	for _, n := range s.After {
		for i := range r.Steps[:n] {
			r.Steps[i].State, r.Steps[i].StartedAt = roll.StepSucceeded, &start
		}
	}
	until, deadline := start.Add(time.Minute), start.Add(3*time.Minute)
	r.State, s.State, s.Epoch, s.Worker = state, ss, 4, "w1"
	s.StartedAt, s.ProgressAt, s.RunUntil = &start, &start, &until
	if ss == roll.StepRunning && kind.HasEffect() {
		s.IntentOpen, s.IntentDeadline, s.OpID = true, &deadline, roll.OperationID(r.ID, s.N, 0)
	}
	r.Steps[s.N-1] = s
	if ss == roll.StepNeedsAttention {
		r.Attention = &roll.Attention{Code: "seen", Step: s.N, Since: start}
	}
	if state == roll.AwaitingApproval {
		expires := start.Add(time.Hour)
		r.ApprovalExpires, r.Approvals = &expires, nil
	}
	return r, s
}

// outcome applies and says what came of it; a refusal must change nothing.
func outcome(t *testing.T, r roll.Roll, n int, ev roll.Event, now time.Time) string {
	t.Helper()
	before := clone(r)
	next, fx, err := r.Apply(ev, now)
	if !reflect.DeepEqual(before, r) {
		t.Errorf("%s changed its input: %s", ev.Type(), cmp.Diff(before, r))
	}
	if err != nil {
		if !reflect.DeepEqual(before, next) || fx != nil {
			t.Errorf("%s was refused and changed the roll: %s", ev.Type(), cmp.Diff(before, next))
		}
		return "-" + code(err)
	}
	out := string(next.State)
	if n > 0 {
		s := next.Steps[n-1]
		out = fmt.Sprintf("%s/%s", next.State, s.State)
		if s.IntentOpen {
			out += "+intent"
		}
		if s.Epoch != r.Steps[n-1].Epoch {
			out += fmt.Sprintf(" e%d", s.Epoch)
		}
	}
	for _, f := range fx {
		switch f.(type) {
		case roll.LeaveLease:
			out += " leave"
		case roll.EnqueueRoll:
			out += " enqueue"
		case roll.RecordVersion:
			out += " record"
		}
	}
	return out
}

// TestTransitions is every roll state × every event, and every step state ×
// every worker's event, against one table.
func TestTransitions(t *testing.T) {
	var b strings.Builder
	b.WriteString("# Written by the tests (KEYROLL_UPDATE=1). \"-code\" is a refusal; \"roll/step\" the states after, with effects.\n\n## roll state × act\n")
	late := start.Add(2 * time.Hour)
	for _, state := range roll.States() {
		fmt.Fprintf(&b, "%s\n", state)
		r, halted := inState(t, state, roll.CreateKeyVersion, roll.StepNeedsAttention)
		if state != roll.NeedsAttention && state != roll.Cancelling {
			r, _ = inState(t, state, roll.CreateKeyVersion, roll.StepReady)
		}
		given := r
		given.Abandon = &roll.Abandon{By: bob, At: start}
		withErrors := r.Plan
		withErrors.Findings = []roll.Finding{{Code: "x", Level: roll.LevelError}}
		bad := r
		bad.Plan = withErrors
		for _, c := range []struct {
			name string
			r    roll.Roll
			ev   roll.Event
			now  time.Time
		}{
			{"approved by another person", r, roll.Approve{By: bob, PlanHash: r.Plan.Hash}, start},
			{"approved by the requester", r, roll.Approve{By: alice, PlanHash: r.Plan.Hash}, start},
			{"approved by a service", r, roll.Approve{By: robot, PlanHash: r.Plan.Hash}, start},
			{"approved, another plan", r, roll.Approve{By: bob, PlanHash: "sha256:other"}, start},
			{"approved, a plan with errors", bad, roll.Approve{By: bob, PlanHash: r.Plan.Hash}, start},
			{"approved too late", r, roll.Approve{By: bob, PlanHash: r.Plan.Hash}, late},
			{"rejected by another person", r, roll.Reject{By: bob}, start},
			{"rejected by the requester", r, roll.Reject{By: alice}, start},
			{"cancelled", r, roll.Cancel{By: alice}, start},
			{"evidence seen", r, roll.EvidenceSeen{Policy: "exo-na", Evidence: roll.InUse}, start},
			{"retried", r, roll.Retry{By: bob}, start},
			{"retried, another step", r, roll.Retry{By: bob, Step: halted.N + 1}, start},
			{"replanned", r, roll.Replan{By: bob, Plan: r.Plan}, start},
			{"replanned, with errors", r, roll.Replan{By: bob, Plan: withErrors}, start},
			{"abandon, first person", r, roll.GiveUp{By: bob}, start},
			{"abandon, a service", r, roll.GiveUp{By: robot}, start},
			{"abandon, same person", given, roll.GiveUp{By: bob}, start},
			{"abandon, second person", given, roll.GiveUp{By: carol}, start},
			{"due", r, roll.Due{}, start},
			{"approval expired", r, roll.ApprovalExpired{}, late},
			{"approval expired, too early", r, roll.ApprovalExpired{}, start},
		} {
			fmt.Fprintf(&b, "  %-28s %s\n", c.name, outcome(t, c.r, 0, c.ev, c.now))
		}
	}
	pairs := 9 * 20
	kinds := []roll.StepKind{roll.Preflight, roll.CreateKeyVersion, roll.SharePointLease, roll.SharePointRollKey, roll.SharePointAwait}
	for _, kind := range kinds {
		for _, state := range roll.States() {
			if kind != roll.CreateKeyVersion && kind != roll.SharePointAwait && state != roll.Running && state != roll.Cancelling {
				continue
			}
			fmt.Fprintf(&b, "\n## %s, roll %s: step state × worker's event\n", kind, state)
			for _, ss := range roll.StepStates() {
				r, s := inState(t, state, kind, ss)
				fmt.Fprintf(&b, "%s:", ss)
				for _, ev := range workerEvents(s, r.Plan) {
					if got := outcome(t, r, s.N, ev.ev, start.Add(30*time.Second)); got != "-"+roll.RefusedStepState {
						fmt.Fprintf(&b, " %s=%s;", ev.name, got)
					}
					pairs++
				}
				b.WriteString(" others refused\n")
			}
		}
	}
	t.Logf("%d pairs", pairs)
	golden(t, "testdata/transitions.golden", b.String())
}

type named struct {
	name string
	ev   roll.Event
}

func workerEvents(s roll.Step, plan roll.Plan) []named {
	n, e, at := s.N, s.Epoch, start.Add(time.Hour)
	return []named{
		{"begun", roll.Begun{N: n, Worker: "w2", RunFor: time.Minute, Settle: time.Minute}},
		{"takeover", roll.Begun{N: n, Worker: "w2", RunFor: time.Minute, Settle: time.Minute, Takeover: true}},
		{"done", roll.Done{N: n, Epoch: e, Result: roll.Result{Version: ver("x", 9)}}},
		{"stale", roll.Done{N: n, Epoch: e - 1, Result: roll.Result{Version: ver("x", 9)}}},
		{"nostep", roll.Done{N: 99, Epoch: e}},
		{"empty", roll.Done{N: n, Epoch: e}},
		{"waits", roll.Waits{N: n, Epoch: e, For: roll.WaitMicrosoft, Until: at}},
		{"polled", roll.Polled{N: n, Epoch: e, Until: at}},
		{"retry", roll.WillRetry{N: n, Epoch: e, At: at}},
		{"notapplied", roll.WillRetry{N: n, Epoch: e, At: at, NotApplied: true}},
		{"halted", roll.Halted{N: n, Epoch: e, Code: "seen"}},
		{"ended", roll.Halted{N: n, Epoch: e, Code: "seen", OpEnded: true}},
		{"crashed", roll.Crashed{Worker: "w1", At: at}},
		{"planchanged", roll.PlanChanged{N: n, Epoch: e, Plan: plan}},
		{"granted", roll.LeaseGranted{N: n, Epoch: e}},
		{"queued", roll.LeaseQueued{N: n, Epoch: e, Position: 1, Until: at}},
	}
}

type foreign struct{}

func (foreign) Type() string { return "foreign" }

func TestUnknown(t *testing.T) {
	r := running(t, contoso(), "exo-na")
	strange, odd := clone(r), clone(r)
	strange.State = "paused"
	odd.Steps[0].State = "paused"
	cases := []struct {
		name string
		r    roll.Roll
		ev   roll.Event
		want string
	}{
		{"event", r, foreign{}, roll.RefusedState},
		{"pointer to an event", r, &roll.Due{}, roll.RefusedState},
		{"no event", r, nil, roll.RefusedState},
		{"roll state", strange, roll.Cancel{By: bob}, roll.RefusedState},
		{"roll state, worker", strange, roll.Crashed{Worker: "w1"}, roll.RefusedState},
		{"step state", odd, roll.Cancel{By: bob}, roll.RefusedStepState},
	}
	for _, c := range cases {
		next, _, err := c.r.Apply(c.ev, start)
		if code(err) != c.want || !reflect.DeepEqual(next, c.r) {
			t.Errorf("unknown %s: %v", c.name, err)
		}
		if err != nil && err.Error() == "" {
			t.Errorf("unknown %s: no words", c.name)
		}
	}
}

func TestEdgesAreOfKnownStates(t *testing.T) {
	known := map[string]bool{}
	for _, s := range roll.States() {
		known[string(s)] = true
	}
	for _, e := range roll.Edges() {
		if !known[e.From] || !known[e.To] || roll.State(e.From).Final() {
			t.Errorf("edge %v", e)
		}
	}
	known = map[string]bool{}
	for _, s := range roll.StepStates() {
		known[string(s)] = true
	}
	for _, e := range roll.StepEdges() {
		if !known[e.From] || !known[e.To] || roll.StepState(e.From).Final() && e.From != "succeeded" {
			t.Errorf("step edge %v", e)
		}
	}
}
