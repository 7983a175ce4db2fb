package roll

import (
	"slices"
	"time"
)

// begin claims a step. For an effect it writes the intent, and from then on
// the effect may have happened: a crash after this commit leaves an open
// intent, which the next claim settles before it calls anything.
func (r *Roll) begin(e Begun, now time.Time) error {
	if e.N < 1 || e.N > len(r.Steps) {
		return r.refuse(e, RefusedNoSuchStep, "no step %d", e.N)
	}
	s := &r.Steps[e.N-1]
	if !r.mayBegin(s, now, e.Takeover) {
		return r.refuse(e, RefusedStepState, "step %d is %s and may not begin now", e.N, s.State)
	}
	if s.ProgressAt == nil || s.StartedAt == nil || Patient(s.WaitingFor) {
		s.ProgressAt = &now // what it waited for before is nobody's standstill
	}
	s.Epoch++
	s.State, s.Worker, s.NextAttemptAt, s.WaitingFor = StepRunning, e.Worker, nil, ""
	until := now.Add(e.RunFor)
	s.RunUntil = &until
	s.Attempt++
	if s.StartedAt == nil {
		s.StartedAt = &now
	}
	deadline := until.Add(e.Settle)
	if r.State == Running && s.Kind == RefreshPolicy && s.IntentOpen && !now.Before(*s.IntentDeadline) {
		// What was lost can land no more. The same refresh may now be sent
		// again, so its effect is waited for anew.
		s.IntentDeadline = &deadline
	}
	if r.State == Running && s.changes() && !s.IntentOpen {
		s.OpID, s.IntentOpen, s.IntentDeadline = OperationID(r.ID, s.N, s.OpRound), true, &deadline
		s.OpEnded = false
	}
	return nil
}

// changes: this claim may change something. Adopting a version does not, nor
// does looking again at one that this step has made already, or at what became
// of an operation that nobody can tell about.
func (s *Step) changes() bool {
	return s.Kind.HasEffect() && s.Params.Adopt == "" && (s.Kind != CreateKeyVersion || s.Result.Version == "") &&
		!s.Unproven && s.Assumed == nil
}

// mayBegin is the gate of every claim; Next asks it too.
func (r *Roll) mayBegin(s *Step, now time.Time, takeover bool) bool {
	settles := s.IntentOpen || takeover && s.State == StepRunning || s.Kind == SharePointAwait && r.mustWatch(s)
	switch r.State {
	case Running:
	case NeedsAttention, Cancelling:
		if !settles {
			return false
		}
	default:
		return false
	}
	switch s.State {
	case StepRunning:
		return takeover
	case StepPending:
		// A lease given back while its chain waits for a window is asked for
		// again when the window opens.
		if !r.givenBack(s) {
			return false
		}
	case StepReady, StepWaiting:
	default:
		return false
	}
	at := r.opens(s)
	return !at.IsZero() && !now.Before(at)
}

// always is when something opens that nothing holds up.
var always = time.Unix(0, 0).UTC()

// opens is the earliest time at which a step that is ready or waiting may be
// claimed or looked at; zero while something other than time holds it up. An
// open intent is settled whatever stands before it: the steps before it had
// ended when it was written, and only the lease may have been given back since.
func (r *Roll) opens(s *Step) time.Time {
	if s.WaitingFor == WaitManual {
		return time.Time{} // a person opens it
	}
	at := always
	if s.NextAttemptAt != nil && s.NextAttemptAt.After(at) {
		at = *s.NextAttemptAt
	}
	if s.IntentOpen {
		return at
	}
	if !r.afterDone(s) || !r.underLease(s) {
		return time.Time{}
	}
	if g := r.gate(s); g.After(at) {
		return g
	}
	return at
}

// underLease says whether the roll holds the right that the step works under.
// The right is given back when a roll stops, so that a step which had it once
// may have to wait for it again.
func (r *Roll) underLease(s *Step) bool {
	if s.Params.Scope == "" || s.Kind != SharePointRollKey && s.Kind != CreateKeyVersion {
		return true
	}
	for i := range r.Steps {
		l := &r.Steps[i]
		if l.Kind == SharePointLease && l.Round == s.Round && l.Params.Scope == s.Params.Scope {
			return l.State == StepSucceeded
		}
	}
	return false
}

// gate is the earliest time at which a step may begin: the pause between
// SharePoint operations on one geo (rule 4), and the nbf of the versions that
// it would put to use (rule 8). Zero where there is none.
func (r *Roll) gate(s *Step) time.Time {
	var at time.Time
	later := func(t time.Time) {
		if t.After(at) {
			at = t
		}
	}
	if s.Params.Gap > 0 {
		if last := r.lastOperation(s); !last.IsZero() {
			later(last.Add(time.Duration(s.Params.Gap)))
		}
	}
	switch s.Kind {
	case SharePointLease:
		later(r.calendarHold(s.Params.Scope))
	case SharePointRollKey, RefreshPolicy:
		for _, k := range r.Keys {
			if k.NotBefore != nil && (k.ID == s.Key || r.policyUses(s.Policy, k.ID) && s.Kind == RefreshPolicy) {
				later(*k.NotBefore)
			}
		}
	}
	return at
}

// givenBack says that the step is a lease which waits for its chain's window.
func (r *Roll) givenBack(s *Step) bool {
	return s.Kind == SharePointLease && s.State == StepPending && s.Round == r.Round && r.afterDone(s) && !r.calendarHold(s.Params.Scope).IsZero()
}

// calendarHold is when the window opens, or the freeze ends, for which the
// chain of a lease waits; zero where it waits for none. Until then the lease
// is of no use to the roll.
func (r *Roll) calendarHold(scope string) time.Time {
	var at time.Time
	for i := range r.Steps {
		s := &r.Steps[i]
		if s.State == StepWaiting && s.Round == r.Round && s.Params.Scope == scope && ForCalendar(s.WaitingFor) && s.NextAttemptAt != nil && s.NextAttemptAt.After(at) {
			at = *s.NextAttemptAt
		}
	}
	return at
}

// lastOperation is when the last SharePoint operation on the step's geo ended,
// before this roll or in it. A create step of a SharePoint chain carries no
// geo; it takes that of the roll step behind it.
func (r *Roll) lastOperation(s *Step) time.Time {
	geo, scope := s.Geo, s.Params.Scope
	for i := range r.Steps {
		t := &r.Steps[i]
		if geo == "" && t.Round == s.Round && t.Kind == SharePointRollKey && t.Key == s.Key {
			geo, scope = t.Geo, t.Params.Scope
		}
	}
	var last time.Time
	for i := range r.Steps {
		t := &r.Steps[i]
		if end := t.operationEnd(); t.Geo == geo && end.After(last) {
			last = end
		}
		if t.Kind == SharePointLease && t.Params.Scope == scope && t.Result.LastEnded[geo].After(last) {
			last = t.Result.LastEnded[geo]
		}
	}
	return last
}

// operationEnd is when the SharePoint operation that the step watched was seen
// to have ended, well or not; zero where it was not.
func (s *Step) operationEnd() time.Time {
	switch {
	case s.Kind != SharePointAwait:
	case s.State == StepSucceeded && s.EndedAt != nil:
		return *s.EndedAt
	case s.OpEnded:
		return s.Result.LastEnded[s.Geo]
	}
	return time.Time{}
}

func (r *Roll) policyUses(policyID, keyID string) bool {
	return slices.ContainsFunc(r.Plan.Policies, func(p PlanPolicy) bool {
		return p.ID == policyID && slices.Contains(p.Keys, keyID)
	})
}

// afterDone: every step before this one has succeeded (or was not needed).
func (r *Roll) afterDone(s *Step) bool {
	for _, n := range s.After {
		if n < 1 || n > len(r.Steps) || r.Steps[n-1].State != StepSucceeded && r.Steps[n-1].State != StepSkipped {
			return false
		}
	}
	return true
}
