package roll

import (
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"
)

// Step is one step of a roll. N counts through all rounds; Round is the plan
// it belongs to. Epoch is the fence: it grows with each claim, and a worker's
// event with an older one is refused.
type Step struct {
	N        int      `json:"n"`
	Round    int      `json:"round"`
	Kind     StepKind `json:"kind"`
	Title    string   `json:"title"`
	After    []int    `json:"after,omitempty"`
	Policy   string   `json:"policy,omitempty"`
	Workload Workload `json:"workload,omitempty"`
	Key      string   `json:"key,omitempty"`
	Slot     Slot     `json:"slot,omitempty"`
	Geo      string   `json:"geo,omitempty"`
	Params   Params   `json:"params"`

	State         StepState  `json:"state"`
	Epoch         int64      `json:"epoch"`
	Worker        string     `json:"worker,omitempty"`
	RunUntil      *time.Time `json:"run_until,omitempty"`
	Attempt       int        `json:"attempt"`
	Crashes       int        `json:"crashes,omitempty"`
	NextAttemptAt *time.Time `json:"next_attempt_at,omitempty"`

	// The intent: what was about to be done when the step was last claimed.
	OpID           string     `json:"op_id,omitempty"`
	OpRound        int        `json:"op_round,omitempty"`
	IntentOpen     bool       `json:"intent_open,omitempty"`
	IntentDeadline *time.Time `json:"intent_deadline,omitempty"`

	// What was seen while watching.
	WaitingFor  string     `json:"waiting_for,omitempty"`
	Position    int        `json:"position,omitempty"`
	Percent     *float64   `json:"percent,omitempty"`
	Seen        string     `json:"seen,omitempty"`
	SeenRolling bool       `json:"seen_rolling,omitempty"`
	EqualReads  int        `json:"equal_reads,omitempty"`
	EqualSince  *time.Time `json:"equal_since,omitempty"`
	OpEnded     bool       `json:"op_ended,omitempty"`

	// A manual step: what people were shown, and what one of them said.
	Offer  *Offer  `json:"offer,omitempty"`
	Report *Report `json:"report,omitempty"`
	// Unproven: the last operation may have taken effect or not, and only a
	// person can find out. It is not sent again before one has said so.
	Unproven bool     `json:"unproven,omitempty"`
	Assumed  *Assumed `json:"assumed,omitempty"`

	StartedAt  *time.Time `json:"started_at,omitempty"`
	ProgressAt *time.Time `json:"last_progress_at,omitempty"`
	EndedAt    *time.Time `json:"ended_at,omitempty"`
	Error      *StepError `json:"error,omitempty"`
	Result     Result     `json:"result"`
}

// Assumed is a person's word that an unproven operation took effect.
type Assumed struct {
	By Actor     `json:"by"`
	At time.Time `json:"at"`
}

// JobSeen begins what a step has seen where that is a runbook job's state.
const JobSeen = "job "

// JobSeen says that the job of the open operation has been seen: where it is
// shown no more, it may still act.
func (s Step) JobSeen() bool { return s.IntentOpen && strings.HasPrefix(s.Seen, JobSeen) }

// StepError is the last error of a step, in words that may be shown.
type StepError struct {
	Code   string `json:"code"`
	Detail string `json:"detail"`
	// Action is what a person does about it, where the step halted.
	Action string `json:"next_action,omitempty"`
}

// Result is what a step found or did.
type Result struct {
	// Version that was created or adopted; ByTag when found by its operation's
	// tag after a lost answer.
	Version   string     `json:"version,omitempty"`
	Adopted   bool       `json:"adopted,omitempty"`
	ByTag     bool       `json:"by_tag,omitempty"`
	NotBefore *time.Time `json:"not_before,omitempty"`
	CreatedAt *time.Time `json:"created_at,omitempty"`
	// HSMPlatform that the vault shows of the version.
	HSMPlatform string `json:"hsm_platform,omitempty"`
	// Versions taken up by a policy, by key id.
	Versions map[string]string `json:"versions,omitempty"`
	Evidence Evidence          `json:"evidence,omitempty"`
	Source   string            `json:"source,omitempty"`
	Warnings []string          `json:"warnings,omitempty"`
	// RequestID is Microsoft's id of the call.
	RequestID string `json:"request_id,omitempty"`
	// SeenRolling: SharePoint answered that it had begun.
	SeenRolling bool `json:"seen_rolling,omitempty"`
	// Unproven: the operation cannot be told from one that somebody else began;
	// AttestedBy is the person on whose word it counts as done.
	Unproven   bool   `json:"unproven,omitempty"`
	AttestedBy string `json:"attested_by,omitempty"`
	// Test is what Microsoft's own test of the policy said after a refresh. It
	// is shown and proves nothing.
	Test *PolicyTest `json:"test,omitempty"`
	// Mailboxes: DataEncryptionPolicyID of the sample mailboxes before a refresh.
	Mailboxes map[string]string `json:"mailboxes,omitempty"`
	// LastEnded: when the last SharePoint operation of each geo ended, as the lease knew.
	LastEnded map[string]time.Time `json:"last_ended,omitempty"`
}

// StepByN finds a step.
func (r Roll) StepByN(n int) (Step, bool) {
	if n < 1 || n > len(r.Steps) {
		return Step{}, false
	}
	return r.Steps[n-1], true
}

// operations is the name space of operation ids.
var operations = uuid.MustParse("6f0f3a4e-6f0c-5f0e-9d7e-3a2b8a6f4c11")

// OperationID is the id of an effect: equal in every attempt of the same round.
func OperationID(rollID string, n, round int) string {
	return uuid.NewSHA1(operations, fmt.Appendf(nil, "%s/%d/%d", rollID, n, round)).String()
}

// OperationIDs returns the ids of all rounds of the step so far: an answer
// that was lost may belong to any of them.
func (r Roll) OperationIDs(n int) []string {
	s, ok := r.StepByN(n)
	if !ok {
		return nil
	}
	var ids []string
	for i := 0; i <= s.OpRound; i++ {
		ids = append(ids, OperationID(r.ID, n, i))
	}
	return ids
}
