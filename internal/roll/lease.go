package roll

import (
	"slices"
	"time"
)

// granted: the right to SharePoint. Where the roll stopped meanwhile, the
// same transition gives it back.
func (r *Roll) granted(e LeaseGranted, now time.Time) ([]Effect, error) {
	s, err := r.heldLease(e, e.N, e.Epoch)
	if err != nil {
		return nil, err
	}
	s.Position = 0
	return r.succeed(s, Result{LastEnded: e.LastEnded}, now), nil
}

func (r *Roll) heldLease(ev Event, n int, epoch int64) (*Step, error) {
	s, err := r.held(ev, n, epoch)
	if err != nil {
		return nil, err
	}
	if s.Kind != SharePointLease {
		return nil, r.refuse(ev, RefusedStepState, "step %d is %s", n, s.Kind)
	}
	return s, nil
}

func (r *Roll) queued(e LeaseQueued, now time.Time) error {
	s, err := r.heldLease(e, e.N, e.Epoch)
	if err != nil {
		return err
	}
	if s.Position != e.Position {
		s.ProgressAt = &now
	}
	s.Error, s.Crashes = nil, 0
	s.State, s.WaitingFor, s.Position, s.NextAttemptAt = StepWaiting, WaitQueue, e.Position, &e.Until
	return nil
}

// giveBack leaves the SharePoint lease or its queue when the chain under it
// has ended, or with nothing in flight when the roll has stopped, or the chain
// waits for a change window or the end of a freeze.
func (r *Roll) giveBack(effects *[]Effect, now time.Time) {
	for i := range r.Steps {
		lease := &r.Steps[i]
		if lease.Kind != SharePointLease || lease.Round != r.Round && lease.State != StepSucceeded || lease.OpEnded {
			continue
		}
		asked := lease.State == StepSucceeded || lease.StartedAt != nil
		if !asked || r.InFlight(lease.Params.Scope) {
			continue
		}
		done := r.chainDone(lease.Params.Scope)
		stopped := r.State == NeedsAttention || r.State == AwaitingApproval || r.State.Final()
		shut := r.State == Running && lease.State == StepSucceeded && r.calendarHold(lease.Params.Scope).After(now)
		if !done && !stopped && !shut || lease.State == StepRunning {
			continue
		}
		*effects = append(*effects, LeaveLease{Scope: lease.Params.Scope, LastEnded: r.lastEnded(lease.Params.Scope)})
		if done || r.State.Final() || lease.Round != r.Round {
			lease.OpEnded = true
			continue
		}
		// To be asked for again; where the step itself halted, by a retry.
		lease.StartedAt, lease.EndedAt, lease.NextAttemptAt, lease.WaitingFor, lease.Position = nil, nil, nil, "", 0
		if lease.State != StepNeedsAttention {
			lease.State = StepPending
		}
	}
}

// chainDone: every SharePoint operation of the scope in this round has ended.
func (r *Roll) chainDone(scope string) bool {
	return !slices.ContainsFunc(r.Steps, func(s Step) bool {
		return (s.Kind == SharePointRollKey || s.Kind == SharePointAwait || s.Kind == SharePointLease) &&
			s.Params.Scope == scope && s.Round == r.Round && !s.State.Final()
	})
}

// lastEnded collects when the roll's own SharePoint operations ended, by geo.
func (r *Roll) lastEnded(scope string) map[string]time.Time {
	out := map[string]time.Time{}
	for i := range r.Steps {
		s := &r.Steps[i]
		if end := s.operationEnd(); s.Params.Scope == scope && end.After(out[s.Geo]) {
			out[s.Geo] = end
		}
	}
	return out
}
