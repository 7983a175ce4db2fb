package roll

// State is the state of a roll. The strings are wire format and are never renamed.
type State string

// States of a roll: who acts next, and when it ends.
const (
	// AwaitingApproval: a person other than the requester approves the plan's
	// hash or rejects it; it ends by itself when the approval expires.
	AwaitingApproval State = "awaiting_approval"
	// Scheduled: approved; Keyroll begins it at start_at.
	Scheduled State = "scheduled"
	// Running: Keyroll works on it, or waits for Microsoft.
	Running State = "running"
	// NeedsAttention: something was seen that Keyroll must not decide alone. No
	// new effect begins; an operation under way at Microsoft is still watched.
	NeedsAttention State = "needs_attention"
	// Cancelling: cancelled while an operation was under way; that operation is
	// watched to its end, and nothing new begins.
	Cancelling State = "cancelling"
	// Succeeded: every policy took up its keys, as far as its evidence says.
	Succeeded State = "succeeded"
	// Failed: ended without reaching its aim; end_code says why.
	Failed State = "failed"
	// Cancelled: ended by a person or by an approval that expired.
	Cancelled State = "cancelled"
	// Rejected: a person refused the plan.
	Rejected State = "rejected"
)

// States lists every state of a roll.
func States() []State {
	return []State{AwaitingApproval, Scheduled, Running, NeedsAttention, Cancelling, Succeeded, Failed, Cancelled, Rejected}
}

// Final says that nothing follows the state.
func (s State) Final() bool {
	switch s {
	case Succeeded, Failed, Cancelled, Rejected:
		return true
	}
	return false
}

// Edge is a legal change from one state to another.
type Edge struct{ From, To string }

// Edges returns every legal change of a roll's state. The database holds the
// same table and refuses any other change.
func Edges() []Edge {
	table := map[State][]State{
		AwaitingApproval: {Scheduled, Running, Rejected, Cancelled},
		Scheduled:        {Running, Cancelled},
		Running:          {AwaitingApproval, NeedsAttention, Cancelling, Cancelled, Succeeded, Failed},
		NeedsAttention:   {Running, AwaitingApproval, Cancelling, Cancelled, Failed},
		Cancelling:       {Cancelled, Failed},
	}
	var out []Edge
	for _, from := range States() {
		for _, to := range table[from] {
			out = append(out, Edge{string(from), string(to)})
		}
	}
	return out
}

// StepState is the state of a step. The strings are wire format.
type StepState string

// States of a step.
const (
	// StepPending: waits for the steps before it.
	StepPending StepState = "pending"
	// StepReady: may begin, at next_attempt_at where that is set.
	StepReady StepState = "ready"
	// StepRunning: claimed by a worker under the step's epoch.
	StepRunning StepState = "running"
	// StepWaiting: waits for time, for a queue or for Microsoft; waiting_for says which.
	StepWaiting StepState = "waiting"
	// StepNeedsAttention: halted; the roll's attention says why and what to do.
	StepNeedsAttention StepState = "needs_attention"
	// StepSucceeded, StepFailed, StepSkipped and StepCancelled are final.
	StepSucceeded StepState = "succeeded"
	StepFailed    StepState = "failed"
	StepSkipped   StepState = "skipped"
	StepCancelled StepState = "cancelled"
)

// StepStates lists every state of a step.
func StepStates() []StepState {
	return []StepState{StepPending, StepReady, StepRunning, StepWaiting, StepNeedsAttention,
		StepSucceeded, StepFailed, StepSkipped, StepCancelled}
}

// Final says that nothing follows the state.
func (s StepState) Final() bool {
	switch s {
	case StepSucceeded, StepFailed, StepSkipped, StepCancelled:
		return true
	}
	return false
}

// StepEdges returns every legal change of a step's state, as one write may
// commit it: the end of a step and the claim of the next one are one write, so
// a pending step may be running when it is next seen.
func StepEdges() []Edge {
	table := map[StepState][]StepState{
		StepPending:        {StepReady, StepRunning, StepSkipped, StepCancelled},
		StepReady:          {StepRunning, StepPending, StepSkipped, StepCancelled},
		StepRunning:        {StepReady, StepWaiting, StepPending, StepNeedsAttention, StepSucceeded, StepSkipped, StepCancelled},
		StepWaiting:        {StepReady, StepRunning, StepPending, StepNeedsAttention, StepSucceeded, StepSkipped, StepCancelled},
		StepNeedsAttention: {StepReady, StepSkipped, StepCancelled},
		// The right to SharePoint is given back when a roll stops, and asked
		// for again when it goes on.
		StepSucceeded: {StepPending},
	}
	var out []Edge
	for _, from := range StepStates() {
		for _, to := range table[from] {
			out = append(out, Edge{string(from), string(to)})
		}
	}
	return out
}

// StepKind says which effect on which system a step has. The strings are wire
// format: job kinds and metrics carry them.
type StepKind string

// The kinds of step.
const (
	Preflight         StepKind = "preflight"
	CreateKeyVersion  StepKind = "create_key_version"
	RefreshPolicy     StepKind = "refresh_policy"
	SharePointLease   StepKind = "sharepoint_lease"
	SharePointRollKey StepKind = "sharepoint_roll_key"
	SharePointAwait   StepKind = "sharepoint_await"
	Verify            StepKind = "verify"
)

// StepKinds lists every kind.
func StepKinds() []StepKind {
	return []StepKind{Preflight, CreateKeyVersion, RefreshPolicy, SharePointLease, SharePointRollKey, SharePointAwait, Verify}
}

// HasEffect says that the step changes something at Microsoft, and so needs an
// intent before the call and reconciliation after a lost answer.
func (k StepKind) HasEffect() bool {
	switch k {
	case CreateKeyVersion, RefreshPolicy, SharePointRollKey:
		return true
	}
	return false
}

// Evidence says how well an end is known, from weakest to strongest.
type Evidence string

// Evidence levels (product.md, words).
const (
	Unknown   Evidence = "unknown"
	Attested  Evidence = "attested"
	Accepted  Evidence = "accepted"
	InUse     Evidence = "in_use"
	Confirmed Evidence = "confirmed"
)

// rank orders evidence; anything unheard of ranks with unknown.
func (e Evidence) rank() int {
	switch e {
	case Attested:
		return 1
	case Accepted:
		return 2
	case InUse:
		return 3
	case Confirmed:
		return 4
	}
	return 0
}

// Weakest returns the weakest of the levels; Unknown where there is none.
func Weakest(levels ...Evidence) Evidence {
	if len(levels) == 0 {
		return Unknown
	}
	low := levels[0]
	for _, e := range levels[1:] {
		if e.rank() < low.rank() {
			low = e
		}
	}
	if low.rank() == 0 {
		return Unknown
	}
	return low
}

// What a waiting step waits for. Stuck detection counts no time spent in the
// ones for which Patient is true.
const (
	WaitQueue       = "sharepoint_queue"
	WaitGap         = "sharepoint_min_gap"
	WaitExternal    = "external_roll"
	WaitNotBefore   = "key_not_before"
	WaitMicrosoft   = "microsoft"
	WaitSettle      = "lost_answer_to_settle"
	WaitOwnUnproven = "own_operation_unproven"
	WaitRunbook     = "runbook_job"
	WaitManual      = "manual_step"
	WaitWindow      = "change_window"
	WaitFreeze      = "freeze"
)

// ForCalendar says that this is waiting for a change window or the end of a freeze.
func ForCalendar(waitingFor string) bool { return waitingFor == WaitWindow || waitingFor == WaitFreeze }

// Patient says that waiting for this is nobody's fault and is not counted as
// standing still.
func Patient(waitingFor string) bool {
	switch waitingFor {
	case WaitQueue, WaitGap, WaitExternal, WaitNotBefore, WaitWindow, WaitFreeze:
		return true
	}
	return false
}
