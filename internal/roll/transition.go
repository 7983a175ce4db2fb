package roll

import (
	"fmt"
	"slices"
	"time"
)

// Apply is the transition function: the only place that says what may happen
// to a roll. It takes and returns values; now is database time. Refusals are
// *TransitionError; asking again for what has happened is ErrAlreadyApplied.
// The roll returned has the same Version: the write that commits it counts it up.
func (r Roll) Apply(ev Event, now time.Time) (Roll, []Effect, error) {
	if err := r.known(ev); err != nil {
		return r, nil, err
	}
	next := r
	next.Steps = slices.Clone(r.Steps)
	next.Keys = slices.Clone(r.Keys)
	next.Made = slices.Clone(r.Made)
	next.Approvals = slices.Clone(r.Approvals)
	var effects []Effect
	var err error
	switch e := ev.(type) {
	case Approve:
		effects, err = next.approve(e, now)
	case Reject:
		err = next.reject(e, now)
	case Cancel:
		effects, err = next.cancel(e, now)
	case Retry:
		effects, err = next.retry(e, now)
	case Replan:
		err = next.replan(e, now)
	case GiveUp:
		err = next.giveUp(e, now)
	case Reported:
		effects, err = next.report(e, now)
	case Due:
		err = next.due(now)
	case ApprovalExpired:
		err = next.approvalExpired(now)
	case EvidenceSeen:
		effects, err = next.evidenceSeen(e, now)
	default:
		effects, err = next.applyStep(ev, now)
	}
	if err != nil {
		return r, nil, err
	}
	if _, quiet := ev.(Polled); !quiet {
		next.UpdatedAt = now
	}
	next.finish(&effects, now)
	if next.State != r.State {
		effects = append(effects, Announce{"roll." + string(next.State)})
	}
	return next, effects, nil
}

// known refuses what a default branch might otherwise swallow: no event, or a
// state that this program does not know (a row of another release).
func (r *Roll) known(ev Event) error {
	if ev == nil {
		return &TransitionError{Code: RefusedState, State: r.State, Detail: "no event"}
	}
	if !slices.Contains(States(), r.State) {
		return r.refuse(ev, RefusedState, "unknown state %q", r.State)
	}
	for i := range r.Steps {
		s := &r.Steps[i]
		if !slices.Contains(StepStates(), s.State) {
			return r.refuse(ev, RefusedStepState, "step %d is in unknown state %q", s.N, s.State)
		}
	}
	return nil
}

func (r *Roll) refuse(ev Event, code, format string, args ...any) error {
	return &TransitionError{Code: code, State: r.State, Event: ev.Type(), Detail: fmt.Sprintf(format, args...)}
}

func (r *Roll) in(ev Event, states ...State) error {
	if slices.Contains(states, r.State) {
		return nil
	}
	return r.refuse(ev, RefusedState, "it is possible only while the roll is one of %v", states)
}

func (r *Roll) approve(e Approve, now time.Time) ([]Effect, error) {
	for _, a := range r.Approvals {
		if a.By.Subject == e.By.Subject && a.PlanHash == e.PlanHash {
			return nil, ErrAlreadyApplied
		}
	}
	if err := r.in(e, AwaitingApproval); err != nil {
		return nil, err
	}
	if err := r.mayDecide(e, e.By); err != nil {
		return nil, err
	}
	if faults := r.Plan.Errors(); len(faults) > 0 {
		return nil, r.refuse(e, RefusedPlanHasErrors, "the plan has errors: %s", faults[0].Seen)
	}
	if e.PlanHash != r.Plan.Hash {
		return nil, r.refuse(e, RefusedPlanChanged, "the approval names plan %s; the roll's plan is %s", e.PlanHash, r.Plan.Hash)
	}
	if r.ApprovalExpires != nil && !now.Before(*r.ApprovalExpires) {
		return nil, r.refuse(e, RefusedState, "the time for an approval ended at %s", r.ApprovalExpires.UTC().Format(time.RFC3339))
	}
	r.Approvals = append(r.Approvals, Approval{By: e.By, At: now, PlanHash: e.PlanHash, Comment: e.Comment})
	if len(r.Approvals) < r.ApprovalsNeeded() {
		return []Effect{Announce{"roll.approval_given"}}, nil // another person must approve as well
	}
	return r.start(now), nil
}

// mayDecide: four eyes. A person, and neither the one who asked nor the one
// who made this plan.
func (r *Roll) mayDecide(ev Event, by Actor) error {
	switch {
	case by.Kind != Person:
		return r.refuse(ev, RefusedServiceActor, "only a person can decide on a plan")
	case by.Subject == r.Requester.Subject || by.Subject == r.PlannedBy.Subject:
		return r.refuse(ev, RefusedOwnApproval, "who asked for a plan cannot approve or reject it")
	}
	return nil
}

func (r *Roll) reject(e Reject, now time.Time) error {
	if r.State == Rejected {
		return ErrAlreadyApplied
	}
	if err := r.in(e, AwaitingApproval); err != nil {
		return err
	}
	if err := r.mayDecide(e, e.By); err != nil {
		return err
	}
	r.endSteps(StepCancelled, now)
	r.State, r.EndCode, r.EndNote = Rejected, "rejected", e.Reason
	return nil
}

func (r *Roll) cancel(e Cancel, now time.Time) ([]Effect, error) {
	if r.State == Cancelled || r.State == Cancelling {
		return nil, ErrAlreadyApplied
	}
	if err := r.in(e, AwaitingApproval, Scheduled, Running, NeedsAttention); err != nil {
		return nil, err
	}
	r.EndCode, r.EndNote = "cancelled", e.Reason
	if !r.Unsettled() {
		r.endSteps(StepCancelled, now)
		r.State = Cancelled
		return nil, nil
	}
	r.State = Cancelling
	for i := range r.Steps {
		if s := &r.Steps[i]; s.State == StepNeedsAttention && r.mustWatch(s) {
			r.resume(s, now)
		}
	}
	return []Effect{EnqueueRoll{Kind: r.leadKind(), At: now}}, nil
}

// retry resumes halted steps where they stopped: intents, epochs and what was
// made already stay, so that no create or SharePoint effect is repeated.
func (r *Roll) retry(e Retry, now time.Time) ([]Effect, error) {
	if err := r.in(e, NeedsAttention, Cancelling); err != nil {
		return nil, err
	}
	if err := r.mayAssume(e); err != nil {
		return nil, err
	}
	resumed := 0
	for i := range r.Steps {
		s := &r.Steps[i]
		if s.State != StepNeedsAttention || (e.Step != 0 && s.N != e.Step) {
			continue
		}
		r.resume(s, now)
		s.assume(e, now)
		resumed++
	}
	if resumed == 0 {
		return nil, r.refuse(e, RefusedNoSuchStep, "no halted step %d", e.Step)
	}
	r.Abandon = nil // who goes on with a roll does not want it given up
	if r.State == NeedsAttention && !slices.ContainsFunc(r.Steps, func(s Step) bool { return s.State == StepNeedsAttention }) {
		r.State = Running
		r.restart(now)
	}
	return []Effect{EnqueueRoll{Kind: r.leadKind(), At: now}}, nil
}

// mayAssume: what became of an operation is for a person to say, and only
// where nobody else can tell.
func (r *Roll) mayAssume(e Retry) error {
	if e.Assume == "" {
		return nil
	}
	s, ok := r.StepByN(e.Step)
	switch {
	case e.By.Kind != Person:
		return r.refuse(e, RefusedServiceActor, "only a person can say what became of an operation")
	case e.Assume != AssumeApplied && e.Assume != AssumeNotApplied:
		return r.refuse(e, RefusedStepState, "%q is not known: say %s or %s", e.Assume, AssumeApplied, AssumeNotApplied)
	case !ok || s.State != StepNeedsAttention || !s.Unproven:
		return r.refuse(e, RefusedStepState, "step %d has no operation whose end is unproven", e.Step)
	}
	return nil
}

// assume takes a person's word for what became of the step's operation.
func (s *Step) assume(e Retry, now time.Time) {
	switch e.Assume {
	case AssumeApplied:
		s.Unproven, s.Assumed = false, &Assumed{By: e.By, At: now}
	case AssumeNotApplied:
		s.Unproven = false
		s.OpRound++
	}
}

// unproven is the first step of the round of whose operation nobody can tell
// whether it took effect.
func (r *Roll) unproven() (Step, bool) {
	for _, s := range r.Steps {
		if s.Unproven && s.Round == r.Round {
			return s, true
		}
	}
	return Step{}, false
}

// restart lets the time that steps stood ready behind a halted one not count as theirs.
func (r *Roll) restart(now time.Time) {
	for i := range r.Steps {
		if s := &r.Steps[i]; s.State == StepReady {
			s.ProgressAt = &now
		}
	}
}

func (r *Roll) resume(s *Step, now time.Time) {
	s.State, s.Attempt, s.Crashes, s.NextAttemptAt, s.WaitingFor = StepReady, 0, 0, &now, ""
	s.ProgressAt, s.EqualReads, s.EqualSince = &now, 0, nil
}

func (r *Roll) replan(e Replan, now time.Time) error {
	if err := r.in(e, NeedsAttention, AwaitingApproval); err != nil {
		return err
	}
	if r.Unsettled() {
		return r.refuse(e, RefusedInFlight, "%s", r.whenSettled())
	}
	if s, ok := r.unproven(); ok {
		return r.refuse(e, RefusedUnproven, "nobody can tell whether the operation of step %d took effect, and a new plan would send it again: say by a retry of step %d with assume what became of it", s.N, s.N)
	}
	if e.Plan.Emergency != r.Emergency() {
		return r.refuse(e, RefusedState, "no plan makes an emergency of a roll, or an ordinary roll of an emergency: request another roll")
	}
	if len(e.Plan.Errors()) > 0 {
		return r.refuse(e, RefusedPlanHasErrors, "the new plan has errors: %s", e.Plan.Errors()[0].Seen)
	}
	r.endSteps(StepSkipped, now)
	r.Abandon = nil // who plans anew does not want it given up
	r.take(e.Plan, e.By)
	r.await(now)
	return nil
}

func (r *Roll) giveUp(e GiveUp, now time.Time) error {
	if r.State == Failed && r.EndCode == "abandoned" {
		return ErrAlreadyApplied
	}
	if err := r.in(e, Running, NeedsAttention, Cancelling); err != nil {
		return err
	}
	if e.By.Kind != Person {
		return r.refuse(e, RefusedServiceActor, "only people can abandon a roll")
	}
	if r.Abandon == nil {
		r.Abandon = &Abandon{By: e.By, At: now, Reason: e.Reason}
		return nil
	}
	if r.Abandon.By.Subject == e.By.Subject {
		return r.refuse(e, RefusedSamePerson, "a second person must confirm; %s asked for it already", e.By.Subject)
	}
	r.endSteps(StepCancelled, now)
	r.State, r.EndCode, r.EndNote = Failed, "abandoned", r.Abandon.Reason
	return nil
}

func (r *Roll) due(now time.Time) error {
	if r.State == Running {
		return ErrAlreadyApplied
	}
	if err := r.in(Due{}, Scheduled); err != nil {
		return err
	}
	if r.Request.StartAt != nil && r.Request.StartAt.After(now) {
		return r.refuse(Due{}, RefusedState, "its start time has not come")
	}
	r.State = Running
	return nil
}

func (r *Roll) approvalExpired(now time.Time) error {
	ev := ApprovalExpired{}
	if err := r.in(ev, AwaitingApproval); err != nil {
		return err
	}
	if r.ApprovalExpires == nil || now.Before(*r.ApprovalExpires) {
		return r.refuse(ev, RefusedState, "the approval has not expired")
	}
	r.endSteps(StepCancelled, now)
	r.State, r.EndCode, r.EndNote = Cancelled, "approval_expired", "nobody approved the plan in time"
	return nil
}
