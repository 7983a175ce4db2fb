package roll

import (
	"slices"
	"time"
)

// Actor is who did something: an immutable subject, and whether it is a person.
type Actor struct {
	Subject string `json:"subject"`
	Kind    string `json:"kind"`
}

// Kinds of actor. System is Keyroll itself.
const (
	Person  = "person"
	Service = "service"
	System  = "system"
)

// Keyroll is the actor of everything that the service does by itself.
func Keyroll() Actor { return Actor{Subject: "keyroll", Kind: System} }

// Roll is one request to give root keys a new version and to make every policy
// that uses them take it up. It is a value: Apply returns a new one. Version
// counts its transitions, and is what an optimistic write is held against.
type Roll struct {
	ID               string     `json:"id"`
	TenantID         string     `json:"tenant_id"`
	Version          int64      `json:"version"`
	State            State      `json:"state"`
	EndCode          string     `json:"end_code,omitempty"`
	Outcome          Evidence   `json:"outcome,omitempty"`
	Round            int        `json:"round"`
	Request          Request    `json:"request"`
	Plan             Plan       `json:"plan"`
	Requester        Actor      `json:"requester"`
	PlannedBy        Actor      `json:"planned_by"`
	NeedsApproval    bool       `json:"needs_approval"`
	Approvals        []Approval `json:"approvals,omitempty"`
	ApprovalExpires  *time.Time `json:"approval_expires_at,omitempty"`
	ApprovalPatience Duration   `json:"approval_patience"`
	Keys             []RollKey  `json:"keys"`
	Made             []Made     `json:"made,omitempty"`
	LeftBehind       []Made     `json:"left_behind,omitempty"`
	Attention        *Attention `json:"attention,omitempty"`
	Abandon          *Abandon   `json:"abandon,omitempty"`
	EndNote          string     `json:"end_note,omitempty"`
	// Later is what was found of the policies after the roll had ended.
	Later      []LaterEvidence `json:"later_evidence,omitempty"`
	Steps      []Step          `json:"-"`
	CreatedAt  time.Time       `json:"created_at"`
	UpdatedAt  time.Time       `json:"updated_at"`
	ProgressAt time.Time       `json:"last_progress_at"`
	EndedAt    *time.Time      `json:"ended_at,omitempty"`
	WakeAt     *time.Time      `json:"wake_at,omitempty"`
	Simulated  bool            `json:"simulated,omitempty"`
}

// Approval is a person's yes to one exact plan.
type Approval struct {
	By       Actor     `json:"by"`
	At       time.Time `json:"at"`
	PlanHash string    `json:"plan_hash"`
	Comment  string    `json:"comment,omitempty"`
}

// RollKey is a key of the roll and the version that the roll recorded for it.
type RollKey struct {
	ID         string     `json:"id"`
	VaultURL   string     `json:"vault_url"`
	Name       string     `json:"name"`
	OldVersion string     `json:"old_version"`
	NewVersion string     `json:"new_version,omitempty"`
	Adopted    bool       `json:"adopted,omitempty"`
	NotBefore  *time.Time `json:"not_before,omitempty"`
}

// Made is a key version that this roll made.
type Made struct {
	Key      string    `json:"key"`
	VaultURL string    `json:"vault_url"`
	Name     string    `json:"name"`
	Version  string    `json:"version"`
	At       time.Time `json:"made_at"`
}

// Attention says why a person is needed and what to do.
type Attention struct {
	Code     string    `json:"code"`
	Detail   string    `json:"detail"`
	Step     int       `json:"step"`
	Action   string    `json:"next_action"`
	Findings []Finding `json:"findings,omitempty"`
	Since    time.Time `json:"since"`
}

// Abandon is the first person's half of giving a roll up.
type Abandon struct {
	By     Actor     `json:"by"`
	At     time.Time `json:"at"`
	Reason string    `json:"reason"`
}

// New makes a roll from an approved-to-be plan. An emergency needs its
// approvals whatever needsApproval says. A plan with errors is the
// caller's to refuse. Patience is how long an approval may take.
func New(id string, req Request, plan Plan, by Actor, needsApproval bool, patience time.Duration, now time.Time) (Roll, []Effect) {
	r := Roll{ID: id, TenantID: plan.TenantID, Version: 1, Round: 0, Request: req, Requester: by,
		NeedsApproval: needsApproval, ApprovalPatience: Duration(patience), CreatedAt: now}
	r.take(plan, by)
	var effects []Effect
	if r.NeedsApproval = needsApproval || r.Emergency(); r.NeedsApproval {
		r.await(now)
	} else {
		effects = r.start(now)
	}
	r.finish(&effects, now)
	effects = append(effects, Announce{"roll." + string(r.State)})
	if r.Emergency() {
		effects = append(effects, Announce{"roll.emergency_requested"})
	}
	return r, effects
}

// Emergency says whether the roll goes through change windows and freezes.
func (r Roll) Emergency() bool { return r.Request.Emergency != nil }

// ApprovalsNeeded is how many people must approve a plan of the roll: two in
// an emergency, whatever the tenant's declaration says.
func (r Roll) ApprovalsNeeded() int {
	if r.Emergency() {
		return 2
	}
	return 1
}

// await puts the roll before a second person.
func (r *Roll) await(now time.Time) {
	r.State = AwaitingApproval
	until := now.Add(time.Duration(r.ApprovalPatience))
	r.ApprovalExpires = &until
}

// start lets the roll begin now, or at its start time.
func (r *Roll) start(now time.Time) []Effect {
	r.ApprovalExpires = nil
	if r.Request.StartAt != nil && r.Request.StartAt.After(now) {
		r.State = Scheduled
		return []Effect{EnqueueRoll{Kind: Preflight, At: *r.Request.StartAt}}
	}
	r.State = Running
	return []Effect{EnqueueRoll{Kind: Preflight, At: now}}
}

// take makes plan the roll's plan: steps of earlier rounds that have not ended
// are skipped, the plan's steps are added behind them.
func (r *Roll) take(plan Plan, by Actor) {
	r.Plan, r.PlannedBy, r.Approvals = plan, by, nil
	r.Round++
	offset := len(r.Steps)
	for _, ps := range plan.Steps {
		s := Step{N: ps.N + offset, Round: r.Round, Kind: ps.Kind, Title: ps.Title, Policy: ps.Policy, Key: ps.Key,
			Slot: ps.Slot, Geo: ps.Geo, Params: ps.Params, State: StepPending}
		for _, a := range ps.After {
			s.After = append(s.After, a+offset)
		}
		for _, p := range plan.Policies {
			if p.ID == ps.Policy {
				s.Workload = p.Workload
			}
		}
		r.Steps = append(r.Steps, s)
	}
	var keys []RollKey
	for _, k := range plan.Keys {
		keys = append(keys, RollKey{ID: k.ID, VaultURL: k.VaultURL, Name: k.Name, OldVersion: r.firstOld(k)})
	}
	r.Keys = keys
}

// firstOld keeps the version that a key had when the roll first saw it, over
// all rounds: that is what people mean by the old version.
func (r *Roll) firstOld(k PlanKey) string {
	for _, rk := range r.Keys {
		if rk.ID == k.ID {
			return rk.OldVersion
		}
	}
	return k.OldVersion
}

// KeyByID finds a key of the roll.
func (r Roll) KeyByID(id string) (RollKey, bool) {
	for _, k := range r.Keys {
		if k.ID == id {
			return k, true
		}
	}
	return RollKey{}, false
}

// Expected returns the version that each root key of a policy must show
// before and after a refresh: the one this roll recorded, or, for a key
// outside the roll, the one recorded in the plan. "" where none is recorded yet.
func (r Roll) Expected() map[string]string {
	out := map[string]string{}
	for _, k := range r.Plan.OtherKeys {
		out[k.ID] = k.Version
	}
	for _, k := range r.Keys {
		out[k.ID] = k.NewVersion
	}
	return out
}

// PolicyEvidence is the evidence of a policy in the current round, and its source.
func (r Roll) PolicyEvidence(policyID string) (Evidence, string) {
	for _, s := range r.Steps {
		if s.Round == r.Round && s.Kind == Verify && s.Policy == policyID && s.State == StepSucceeded {
			return s.Result.Evidence, s.Result.Source
		}
	}
	return Unknown, ""
}

// outcome is the weakest evidence over all policies.
func (r *Roll) outcome() Evidence {
	var all []Evidence
	for _, p := range r.Plan.Policies {
		e, _ := r.PolicyEvidence(p.ID)
		all = append(all, e)
	}
	return Weakest(all...)
}

// Workloads lists the workloads of the roll's policies, each once.
func (r Roll) Workloads() []Workload {
	var out []Workload
	for _, w := range Workloads() {
		if slices.ContainsFunc(r.Plan.Policies, func(p PlanPolicy) bool { return p.Workload == w }) {
			out = append(out, w)
		}
	}
	return out
}
