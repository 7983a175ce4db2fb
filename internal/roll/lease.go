package roll

import (
	"slices"
	"time"
)

// giveBack leaves the SharePoint lease or its queue when the chain under it
// has ended, or when the roll has stopped with nothing in flight.
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
		if !done && !stopped || lease.State == StepRunning {
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
