package roll

import (
	"slices"
	"time"
)

// endSteps ends every step that has not ended. Open intents stay on record.
func (r *Roll) endSteps(to StepState, now time.Time) {
	for i := range r.Steps {
		if s := &r.Steps[i]; !s.State.Final() {
			s.State, s.EndedAt, s.NextAttemptAt, s.WaitingFor = to, &now, nil, ""
		}
	}
}

// finish brings the roll to rest after an event: steps whose predecessors have
// ended become ready, a roll whose last step ended ends, the lease is given
// back when nothing needs it, and the next wake-up is computed.
func (r *Roll) finish(effects *[]Effect, now time.Time) {
	if r.State == Cancelling {
		r.dropUnwatched(now)
	}
	for i := range r.Steps {
		s := &r.Steps[i]
		if s.State == StepPending && r.afterDone(s) && (r.State == Running || !r.State.Final() && r.mustWatch(s)) {
			s.State, s.ProgressAt = StepReady, &now
		}
	}
	r.end(now)
	r.giveBack(effects, now)
	r.settleAttention()
	if r.UpdatedAt.IsZero() {
		r.UpdatedAt = now
	}
	r.ProgressAt = r.lastProgress()
	r.WakeAt = r.wake(now)
}

// end ends a roll whose steps have all ended, and says what it leaves behind.
func (r *Roll) end(now time.Time) {
	open := slices.ContainsFunc(r.Steps, func(s Step) bool { return !s.State.Final() })
	short := slices.ContainsFunc(r.Steps, func(s Step) bool { return s.Round == r.Round && s.State != StepSucceeded })
	switch {
	case r.State == Cancelling && !open && !r.Unsettled():
		r.State = Cancelled
	case r.State == Running && !short:
		r.State, r.Outcome = Succeeded, r.outcome()
	}
	if !r.State.Final() {
		return
	}
	if r.EndedAt == nil {
		r.EndedAt = &now
	}
	r.ApprovalExpires = nil
	r.LeftBehind = r.leftBehind()
}

// settleAttention keeps what people are told in step with what is halted: it
// goes when nothing is, and passes to another halted step when its own went on.
func (r *Roll) settleAttention() {
	var halted *Step
	for i := range r.Steps {
		s := &r.Steps[i]
		if s.State != StepNeedsAttention {
			continue
		}
		if r.Attention != nil && r.Attention.Step == s.N {
			return
		}
		if halted == nil {
			halted = s
		}
	}
	r.Attention = nil
	if halted != nil && halted.Error != nil && halted.ProgressAt != nil {
		r.Attention = &Attention{Code: halted.Error.Code, Detail: halted.Error.Detail, Action: halted.Error.Action,
			Step: halted.N, Since: *halted.ProgressAt}
	}
}

// dropUnwatched cancels, in a roll that is being cancelled, every step that
// has nothing under way.
func (r *Roll) dropUnwatched(now time.Time) {
	for i := range r.Steps {
		if s := &r.Steps[i]; !s.State.Final() && !r.mustWatch(s) {
			s.State, s.EndedAt, s.NextAttemptAt, s.WaitingFor = StepCancelled, &now, nil, ""
		}
	}
}
