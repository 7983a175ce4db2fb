package roll

import (
	"errors"
	"fmt"
	"time"
)

// Event is something that happened to a roll: an act of a person, or what a
// worker did or saw. Type is wire format; it stands in the audit log.
type Event interface{ Type() string }

// Acts of people.
type (
	// Approve says yes to the plan with this hash.
	Approve struct {
		By                Actor
		PlanHash, Comment string
	}
	// Reject says no to it.
	Reject struct {
		By     Actor
		Reason string
	}
	// Cancel stops before the next effect.
	Cancel struct {
		By     Actor
		Reason string
	}
	// Retry resumes the halted steps, or only Step where that is not 0. Assume
	// is what a person found out about the unproven operation of Step.
	Retry struct {
		By     Actor
		Step   int
		Assume string
	}
	// Replan gives a halted roll a new plan, which needs a new approval.
	Replan struct {
		By   Actor
		Plan Plan
	}
	// GiveUp is an abandon by one of two people.
	GiveUp struct {
		By     Actor
		Reason string
	}
)

// What time does.
type (
	// Due: the start time has come.
	Due struct{}
	// ApprovalExpired: nobody approved in time.
	ApprovalExpired struct{}
)

// What workers do and see. Epoch is the fence.
type (
	// Begun claims a step, and for an effect commits its intent: RunFor
	// bounds the call, Settle is how long after it an answer may still land.
	// Takeover says that the last worker of a running step is gone.
	Begun struct {
		N              int
		Worker         string
		RunFor, Settle time.Duration
		Takeover       bool
	}
	// Done ends a step.
	Done struct {
		N      int
		Epoch  int64
		Result Result
	}
	// Waits lets a step wait; NotApplied closes its intent as one that
	// did nothing.
	Waits struct {
		N          int
		Epoch      int64
		For        string
		Until      time.Time
		Look       Look
		NotApplied bool
	}
	// Polled is a look that saw nothing new: it moves the next look only,
	// and is no change of state.
	Polled struct {
		N     int
		Epoch int64
		Until time.Time
		Look  Look
	}
	// WillRetry is a failure that will pass. NotApplied closes the intent;
	// otherwise it stays open, to be settled before anything is called again.
	WillRetry struct {
		N            int
		Epoch        int64
		At           time.Time
		Code, Detail string
		NotApplied   bool
		// Over closes the intent as one of an operation that has ended, applied
		// or not, and that does no harm when it is done again, as another one.
		Over bool
	}
	// Halted stops the roll for a person. OpEnded: the operation at
	// Microsoft was seen to have ended.
	Halted struct {
		N                    int
		Epoch                int64
		Code, Detail, Action string
		Findings             []Finding
		NotApplied, OpEnded  bool
		// Over is that of WillRetry.
		Over bool
		// Unproven, with OpEnded: nothing is under way, and what Microsoft shows
		// does not tell whether the operation took effect.
		Unproven bool
		// Settled closes the intent as one whose effect is known: Result says what
		// it was. A version that was made and must not be used is recorded so.
		Settled bool
		Result  Result
	}
	// Crashed: the job that drove these steps panicked or failed in a way nobody expected.
	Crashed struct {
		Worker, Detail string
		At             time.Time
	}
	// PlanChanged: preflight made another plan than the approved one.
	PlanChanged struct {
		N     int
		Epoch int64
		Plan  Plan
	}
	// LeaseGranted gives the roll the right to SharePoint; LastEnded is when the
	// last operation of each geo ended.
	LeaseGranted struct {
		N         int
		Epoch     int64
		LastEnded map[string]time.Time
	}
	// EvidenceSeen: after the roll's end, something shows more of a policy than
	// was known then.
	EvidenceSeen struct {
		Policy   string
		Evidence Evidence
		Source   string
	}
	// LeaseQueued: somebody holds it; Position counts from 1.
	LeaseQueued struct {
		N        int
		Epoch    int64
		Position int
		Until    time.Time
	}
)

// What a person may say of an unproven operation.
const (
	// AssumeApplied: it took effect. The roll goes on as if its answer had come,
	// and its evidence names the person.
	AssumeApplied = "applied"
	// AssumeNotApplied: it did not. The operation is sent again, as another one.
	AssumeNotApplied = "not_applied"
)

// Look is what one look at a running operation saw.
type Look struct {
	Seen       string
	Percent    *float64
	Rolling    bool
	EqualReads int
	EqualSince *time.Time
}

// Type strings of the events.
func (Approve) Type() string         { return "approved" }
func (Reject) Type() string          { return "rejected" }
func (Cancel) Type() string          { return "cancel_requested" }
func (Retry) Type() string           { return "retried" }
func (Replan) Type() string          { return "replanned" }
func (GiveUp) Type() string          { return "abandon_requested" }
func (Due) Type() string             { return "due" }
func (ApprovalExpired) Type() string { return "approval_expired" }
func (Begun) Type() string           { return "step_begun" }
func (Done) Type() string            { return "step_succeeded" }
func (Waits) Type() string           { return "step_waiting" }
func (Polled) Type() string          { return "step_polled" }
func (WillRetry) Type() string       { return "step_retry" }
func (Halted) Type() string          { return "step_halted" }
func (Crashed) Type() string         { return "step_crashed" }
func (PlanChanged) Type() string     { return "plan_changed" }
func (LeaseGranted) Type() string    { return "lease_granted" }
func (EvidenceSeen) Type() string    { return "evidence_seen" }
func (LeaseQueued) Type() string     { return "lease_queued" }

// By says who caused the event: the person of an act, else Keyroll itself.
func By(ev Event) Actor {
	switch e := ev.(type) {
	case Approve:
		return e.By
	case Reject:
		return e.By
	case Cancel:
		return e.By
	case Retry:
		return e.By
	case Replan:
		return e.By
	case GiveUp:
		return e.By
	case Reported:
		return e.By
	}
	return Keyroll()
}

// Effect is what must be written together with the roll, in one transaction.
type Effect interface{ effect() }

// Effects of a transition.
type (
	// EnqueueRoll inserts a job that wakes the roll.
	EnqueueRoll struct {
		Kind StepKind
		At   time.Time
	}
	// LeaveLease leaves the queue of the scope and, if the roll holds the lease,
	// hands it on. LastEnded is merged into the lease's memory.
	LeaveLease struct {
		Scope     string
		LastEnded map[string]time.Time
	}
	// RecordVersion enters a key version into the ledger.
	RecordVersion struct {
		Key     RollKey
		Version string
		Created time.Time
		Adopted bool
		// HSMPlatform as the vault shows it; "" where it shows none.
		HSMPlatform string
	}
	// Announce puts an event into the outbox.
	Announce struct{ Name string }
)

func (EnqueueRoll) effect()   {}
func (LeaveLease) effect()    {}
func (RecordVersion) effect() {}
func (Announce) effect()      {}

// ErrAlreadyApplied answers a request for what has happened already.
var ErrAlreadyApplied = errors.New("already applied")

// TransitionError refuses an event in the state that the roll is in.
type TransitionError struct {
	Code   string
	State  State
	Event  string
	Detail string
}

func (e *TransitionError) Error() string {
	return fmt.Sprintf("roll is %s: %s refused: %s", e.State, e.Event, e.Detail)
}

// Codes of refusals.
const (
	RefusedState         = "wrong_state"
	RefusedOwnApproval   = "own_approval"
	RefusedServiceActor  = "service_actor"
	RefusedPlanChanged   = "plan_changed"
	RefusedSamePerson    = "same_person"
	RefusedInFlight      = "operation_in_flight"
	RefusedUnproven      = "operation_unproven"
	RefusedStaleEpoch    = "stale_epoch"
	RefusedNoSuchStep    = "no_such_step"
	RefusedStepState     = "wrong_step_state"
	RefusedPlanHasErrors = "plan_has_errors"
	RefusedReportTime    = "report_time"
)
