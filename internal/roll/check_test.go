package roll_test

import (
	"slices"

	"github.com/keyroll/keyroll/internal/roll"
)

// closes says whether the event tells that the step's operation did not apply.
func closes(ev roll.Event, n int) bool {
	switch e := ev.(type) {
	case roll.Waits:
		return e.N == n && e.NotApplied
	case roll.WillRetry:
		return e.N == n && e.NotApplied
	case roll.Halted:
		return e.N == n && (e.NotApplied || e.Settled)
	}
	return false
}

func (s *sim) checkSteps(before, after roll.Roll, ev roll.Event) {
	if before.State != after.State && !rollEdges[roll.Edge{From: string(before.State), To: string(after.State)}] {
		s.fatal("roll went from %s to %s", before.State, after.State)
	}
	for i, b := range before.Steps {
		a := after.Steps[i]
		if a.State != b.State && !stepEdges[roll.Edge{From: string(b.State), To: string(a.State)}] {
			s.fatal("step %d went from %s to %s", b.N, b.State, a.State)
		}
		if a.Epoch < b.Epoch {
			s.fatal("the epoch of step %d went back", b.N)
		}
		if e, ok := ev.(roll.Retry); ok && e.Assume == roll.AssumeNotApplied && e.Step == b.N && b.Unproven && !b.IntentOpen && a.OpRound == b.OpRound+1 {
			continue // a person says that it did not apply
		}
		if a.OpRound != b.OpRound && (a.OpRound != b.OpRound+1 || !b.IntentOpen || !closes(ev, b.N)) {
			s.fatal("the round of step %d grew from %d to %d", b.N, b.OpRound, a.OpRound)
		}
		if a.IntentOpen && !b.IntentOpen {
			if _, ok := ev.(roll.Begun); !ok || before.State != roll.Running {
				s.fatal("step %d opened an intent in a roll that is %s", b.N, before.State)
			}
			if a.OpID != roll.OperationID(after.ID, a.N, a.OpRound) {
				s.fatal("step %d: operation id", a.N)
			}
		}
		if b.State.Final() && b.Kind != roll.SharePointLease && a.State != b.State {
			s.fatal("step %d was final", b.N)
		}
	}
}

func (s *sim) checkLease(before, after roll.Roll, ev roll.Event, fx []roll.Effect) {
	for _, f := range fx {
		l, ok := f.(roll.LeaveLease)
		if !ok {
			continue
		}
		if !s.asked[l.Scope] {
			s.fatal("left lease %s without having asked for it", l.Scope)
		}
		if after.InFlight(l.Scope) {
			s.fatal("left lease %s with an operation in flight", l.Scope)
		}
		for _, o := range s.w.ops {
			if o.ours && o.scope == l.Scope {
				s.fatal("left lease %s while SharePoint rolls for us", l.Scope)
			}
		}
		s.asked[l.Scope] = false
		if s.w.holder[l.Scope] == "us" {
			s.w.holder[l.Scope] = ""
		}
		s.w.queued[l.Scope] = false
	}
	stopped := after.State != roll.Running && after.State != roll.Cancelling && after.State != roll.Scheduled
	for scope, asked := range s.asked {
		busy := after.InFlight(scope) || slices.ContainsFunc(after.Steps, func(x roll.Step) bool {
			return x.Kind == roll.SharePointLease && x.State == roll.StepRunning && x.Params.Scope == scope
		})
		if asked && stopped && !busy {
			s.fatal("the roll is %s with nothing in flight and keeps lease %s", after.State, scope)
		}
	}
}

func (s *sim) checkState(r roll.Roll) {
	halted := false
	for _, x := range r.Steps {
		halted = halted || x.State == roll.StepNeedsAttention
	}
	if (r.Attention != nil) != halted {
		s.fatal("attention %+v with halted=%v", r.Attention, halted)
	}
	if r.State == roll.NeedsAttention && !halted {
		s.fatal("a person is wanted, but no step is halted")
	}
	now := s.w.now
	alive := func(x roll.Step) bool { return x.RunUntil != nil && !now.Before(*x.RunUntil) }
	work := r.Next(now, alive)
	switch {
	case r.State.Final():
		if r.WakeAt != nil || len(work) > 0 || r.EndedAt == nil {
			s.fatal("a final roll wakes, works or has no end")
		}
		s.checkEnd(r)
	case r.State == roll.AwaitingApproval:
		if r.WakeAt == nil || !r.WakeAt.Equal(*r.ApprovalExpires) || len(work) > 0 {
			s.fatal("awaiting approval")
		}
	case r.State == roll.Scheduled:
		if r.WakeAt == nil {
			s.fatal("scheduled without a wake-up")
		}
	default:
		due := r.WakeAt != nil && !r.WakeAt.After(now)
		if due != (len(work) > 0) {
			s.fatal("wake_at %v at %s, but work is %v", r.WakeAt, now, work)
		}
		if r.WakeAt == nil && !halted {
			s.fatal("sleeps for ever")
		}
		if r.State == roll.Cancelling && !r.Unsettled() {
			s.fatal("nothing is unsettled and the roll is still cancelling")
		}
	}
}

func (s *sim) checkEnd(r roll.Roll) {
	short := false
	for _, x := range r.Steps {
		short = short || x.Round == r.Round && x.State != roll.StepSucceeded
	}
	if r.State == roll.Succeeded && short || r.State == roll.Cancelled && r.Unsettled() {
		s.fatal("ended %s too early", r.State)
	}
	var want []string
	for _, m := range r.Made {
		k, ok := r.KeyByID(m.Key)
		if ok && r.State == roll.Succeeded && k.NewVersion == m.Version {
			continue
		}
		if !slices.ContainsFunc(r.Steps, func(x roll.Step) bool { return x.State == roll.StepSucceeded && x.Result.Versions[m.Key] == m.Version }) {
			want = append(want, m.Version)
		}
	}
	var got []string
	for _, m := range r.LeftBehind {
		got = append(got, m.Version)
	}
	if !slices.Equal(got, want) {
		s.fatal("left behind %v, want %v", got, want)
	}
}
