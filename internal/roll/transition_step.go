package roll

import (
	"slices"
	"time"
)

// maxCrashes in a row halt a step: a panic that comes back each time is ours
// to look at, not to repeat.
const maxCrashes = 5

// applyStep applies what workers do and see.
func (r *Roll) applyStep(ev Event, now time.Time) ([]Effect, error) {
	switch e := ev.(type) {
	case Begun:
		return nil, r.begin(e, now)
	case Done:
		return r.done(e, now)
	case Waits:
		return nil, r.wait(e, now)
	case Polled:
		return nil, r.poll(e)
	case WillRetry:
		return nil, r.retryStep(e, now)
	case Halted:
		return r.halt(e, now)
	case Crashed:
		return nil, r.crash(e, now)
	case PlanChanged:
		return nil, r.planChanged(e, now)
	case Offered:
		return r.offer(e, now)
	case LeaseGranted:
		return r.granted(e, now)
	case LeaseQueued:
		return nil, r.queued(e, now)
	}
	return nil, r.refuse(ev, RefusedState, "unknown event")
}

// held returns the step that a worker's event is about, if its epoch still holds.
func (r *Roll) held(ev Event, n int, epoch int64) (*Step, error) {
	if n < 1 || n > len(r.Steps) {
		return nil, r.refuse(ev, RefusedNoSuchStep, "no step %d", n)
	}
	s := &r.Steps[n-1]
	if s.Epoch != epoch {
		return nil, r.refuse(ev, RefusedStaleEpoch, "step %d is at epoch %d, the event at %d: another worker took it over", n, s.Epoch, epoch)
	}
	if s.State != StepRunning && s.State != StepWaiting {
		return nil, r.refuse(ev, RefusedStepState, "step %d is %s", n, s.State)
	}
	return s, nil
}

func (r *Roll) done(e Done, now time.Time) ([]Effect, error) {
	s, err := r.held(e, e.N, e.Epoch)
	switch {
	case err != nil:
		return nil, err
	case s.Kind == SharePointLease:
		return nil, r.refuse(e, RefusedStepState, "step %d ends by lease_granted only", e.N)
	case s.changes() && !s.IntentOpen:
		return nil, r.refuse(e, RefusedStepState, "step %d has no open intent, so nothing was called", e.N)
	case s.Kind == CreateKeyVersion && e.Result.Version == "":
		return nil, r.refuse(e, RefusedStepState, "step %d cannot end without a version", e.N)
	}
	return r.succeed(s, e.Result, now), nil
}

func (r *Roll) succeed(s *Step, result Result, now time.Time) []Effect {
	s.Result = result
	s.State, s.IntentOpen, s.EndedAt, s.ProgressAt = StepSucceeded, false, &now, &now
	s.NextAttemptAt, s.WaitingFor, s.Error, s.Crashes = nil, "", nil, 0
	var effects []Effect
	if s.Kind == CreateKeyVersion {
		effects = r.recordVersion(*s, now)
	}
	if s.Kind == SharePointAwait {
		// An await ends when SharePoint is Registered again: all its sites are done.
		s.Seen = Registered.String()
		if s.Percent != nil {
			all := 100.0
			s.Percent = &all
		}
	}
	if s.Kind == SharePointAwait && s.Params.Replaces != "" {
		effects = append(effects, Redeclare{Policy: s.Policy, Slot: s.Slot, Old: s.Params.Replaces, New: s.Key})
	}
	if s.Kind == SharePointRollKey && result.SeenRolling {
		for i := range r.Steps {
			if a := &r.Steps[i]; a.Kind == SharePointAwait && len(a.After) > 0 && a.After[0] == s.N {
				a.SeenRolling = true
			}
		}
	}
	return append(effects, Announce{"step." + string(StepSucceeded)})
}

func (r *Roll) recordVersion(s Step, now time.Time) []Effect {
	for i := range r.Keys {
		k := &r.Keys[i]
		if k.ID != s.Key {
			continue
		}
		k.NewVersion, k.Adopted, k.NotBefore = s.Result.Version, s.Result.Adopted, s.Result.NotBefore
		created := now
		if s.Result.CreatedAt != nil {
			created = *s.Result.CreatedAt
		}
		if !s.Result.Adopted && !slices.ContainsFunc(r.Made, func(m Made) bool { return m.Key == k.ID && m.Version == k.NewVersion }) {
			r.Made = append(r.Made, Made{Key: k.ID, VaultURL: k.VaultURL, Name: k.Name, Version: k.NewVersion, At: created})
		}
		return []Effect{RecordVersion{Key: *k, Version: k.NewVersion, Created: created, Adopted: k.Adopted, HSMPlatform: s.Result.HSMPlatform}}
	}
	return nil
}

func (r *Roll) wait(e Waits, now time.Time) error {
	s, err := r.held(e, e.N, e.Epoch)
	if err != nil {
		return err
	}
	if e.NotApplied {
		s.closeIntent()
	}
	changed := s.WaitingFor != e.For && Patient(s.WaitingFor) != Patient(e.For)
	if s.Seen != e.Look.Seen || !equalPercent(s.Percent, e.Look.Percent) || changed {
		s.ProgressAt = &now
	}
	s.State, s.WaitingFor, s.NextAttemptAt, s.Error, s.Crashes = StepWaiting, e.For, &e.Until, nil, 0
	s.look(e.Look)
	return nil
}

func (s *Step) look(l Look) {
	s.Seen, s.Percent = l.Seen, l.Percent
	s.SeenRolling = s.SeenRolling || l.Rolling
	s.EqualReads, s.EqualSince = l.EqualReads, l.EqualSince
}

// closeIntent: the operation is known not to have been applied, so the next
// one is another operation with another id.
func (s *Step) closeIntent() {
	if s.IntentOpen {
		if s.JobSeen() {
			s.Seen = ""
		}
		s.IntentOpen, s.IntentDeadline = false, nil
		s.Offer, s.Report = nil, nil
		s.OpRound++
	}
}

// endOperation: the operation was seen to have ended, but not as it should
// have. Its intent is closed; the round stays, since it may have been applied.
func (s *Step) endOperation(now time.Time) {
	s.IntentOpen, s.IntentDeadline = false, nil
	if s.Kind == SharePointAwait && !s.OpEnded {
		s.Result.LastEnded = map[string]time.Time{s.Geo: now}
	}
	s.OpEnded = true
}

func equalPercent(a, b *float64) bool {
	return a == nil && b == nil || a != nil && b != nil && *a == *b
}

func (r *Roll) poll(e Polled) error {
	s, err := r.held(e, e.N, e.Epoch)
	if err != nil {
		return err
	}
	if s.State != StepWaiting {
		return r.refuse(e, RefusedStepState, "step %d is %s", e.N, s.State)
	}
	s.NextAttemptAt = &e.Until
	s.SeenRolling = s.SeenRolling || e.Look.Rolling
	s.EqualReads, s.EqualSince = e.Look.EqualReads, e.Look.EqualSince
	return nil
}

func (r *Roll) retryStep(e WillRetry, now time.Time) error {
	s, err := r.held(e, e.N, e.Epoch)
	if err != nil {
		return err
	}
	if e.NotApplied || e.Over {
		s.closeIntent()
	}
	if Patient(s.WaitingFor) {
		s.ProgressAt = &now
	}
	s.State, s.NextAttemptAt, s.WaitingFor = StepReady, &e.At, ""
	if s.IntentOpen && e.At.After(now) {
		s.WaitingFor = WaitSettle
	}
	if e.Code != "" {
		s.Error = &StepError{Code: e.Code, Detail: e.Detail}
	}
	return nil
}

func (r *Roll) halt(e Halted, now time.Time) ([]Effect, error) {
	s, err := r.held(e, e.N, e.Epoch)
	if err != nil {
		return nil, err
	}
	if e.NotApplied || e.Settled || e.Over {
		s.closeIntent()
	}
	var effects []Effect
	if e.Settled {
		recorded := s.Result.Version
		s.Result = e.Result
		if s.Kind == CreateKeyVersion && e.Result.Version != recorded {
			effects = r.recordVersion(*s, now)
		}
	}
	if e.OpEnded && (s.Kind.HasEffect() || s.Kind == SharePointAwait) {
		s.endOperation(now)
		s.Unproven = s.Unproven || e.Unproven && s.Kind == SharePointRollKey
	}
	r.stopAt(s, Attention{Code: e.Code, Detail: e.Detail, Step: s.N, Action: e.Action, Findings: e.Findings, Since: now}, now)
	return effects, nil
}

func (r *Roll) stopAt(s *Step, a Attention, now time.Time) {
	s.State, s.NextAttemptAt, s.WaitingFor, s.ProgressAt = StepNeedsAttention, nil, "", &now
	s.Error = &StepError{Code: a.Code, Detail: a.Detail, Action: a.Action}
	r.Attention = &a
	if r.State == Running {
		r.State = NeedsAttention
	}
}

// crash lets go of every step that the crashed worker's job held: their epochs
// grow, so that nothing the job still does can be recorded; intents stay open.
func (r *Roll) crash(e Crashed, now time.Time) error {
	held := 0
	for i := range r.Steps {
		s := &r.Steps[i]
		if s.State != StepRunning || s.Worker != e.Worker {
			continue
		}
		held++
		s.Epoch++
		s.Crashes++
		s.Error = &StepError{Code: "step_crashed", Detail: e.Detail}
		if s.Crashes >= maxCrashes {
			r.stopAt(s, Attention{Code: "step_crashed", Detail: e.Detail, Step: s.N, Since: now,
				Action: "this is a fault of Keyroll: keep the logs, report it, then retry"}, now)
			continue
		}
		at := e.At
		s.State, s.NextAttemptAt = StepReady, &at
	}
	if held == 0 {
		return ErrAlreadyApplied
	}
	return nil
}

func (r *Roll) planChanged(e PlanChanged, now time.Time) error {
	s, err := r.held(e, e.N, e.Epoch)
	if err != nil {
		return err
	}
	if s.Kind != Preflight {
		return r.refuse(e, RefusedStepState, "only preflight changes the plan; step %d is %s", e.N, s.Kind)
	}
	if e.Plan.Emergency != r.Emergency() {
		return r.refuse(e, RefusedState, "no plan makes an emergency of a roll, or an ordinary roll of an emergency")
	}
	if r.State != Running {
		// The roll stopped meanwhile: let the step go, a retry looks again.
		s.State, s.NextAttemptAt, s.WaitingFor = StepReady, &now, ""
		return nil
	}
	if faults := e.Plan.Errors(); len(faults) > 0 {
		r.stopAt(s, Attention{Code: RefusedPlanHasErrors, Detail: faults[0].Seen, Step: s.N, Action: faults[0].Remedy, Findings: faults, Since: now}, now)
		return nil
	}
	s.Error = &StepError{Code: "plan_changed", Detail: "what Microsoft shows differs from what was approved"}
	r.endSteps(StepSkipped, now)
	r.take(e.Plan, r.PlannedBy)
	r.await(now)
	return nil
}
