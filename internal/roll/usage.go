package roll

import (
	"slices"
	"strings"
	"time"
)

// Diagnostics is where the diagnostic log of a tenant's vaults can be read: a
// Log Analytics workspace to which they send it.
type Diagnostics struct {
	WorkspaceID string `json:"workspace_id"`
}

// Operations of a KeyUse, as Key Vault's log names them.
const (
	UseWrap   = "KeyWrap"
	UseUnwrap = "KeyUnwrap"
)

// KeyUse is what Key Vault's diagnostic log says of one application's
// successful calls of one operation with one key version, after some moment.
type KeyUse struct {
	Operation string
	AppID     string
	Ref       KeyRef // with its version
	First     time.Time
	Calls     int64
}

// AppID is the application under which Microsoft 365 uses the root keys of the
// workload's policies (customer-key.md, part 1).
func (w Workload) AppID() string {
	switch w {
	case MultiWorkload:
		return "c066d759-24ae-40e7-a56f-027002b5d3e4"
	case Exchange:
		return "00000002-0000-0ff1-ce00-000000000000"
	case SharePoint:
		return "00000003-0000-0ff1-ce00-000000000000"
	}
	return ""
}

// TakenVersion is a new version of a roll and the moment before which nobody
// had asked Microsoft to take it up for a policy.
type TakenVersion struct {
	Ref   KeyRef
	Since time.Time
}

// Taken lists the rolled keys of a policy with their new versions. It is empty
// where the roll has not asked Microsoft for one of them: nothing can be in use then.
func (r Roll) Taken(policyID string) []TakenVersion {
	i := slices.IndexFunc(r.Plan.Policies, func(p PlanPolicy) bool { return p.ID == policyID })
	if i < 0 {
		return nil
	}
	var out []TakenVersion
	for _, k := range r.Keys {
		if !slices.Contains(r.Plan.Policies[i].Keys, k.ID) {
			continue
		}
		since := r.asked(policyID, k.ID)
		if k.NewVersion == "" || since == nil {
			return nil
		}
		ref := Key{VaultURL: k.VaultURL, Name: k.Name}.Ref()
		ref.Version = k.NewVersion
		out = append(out, TakenVersion{Ref: ref, Since: *since})
	}
	return out
}

// asked is when the step that makes the policy take the key up began.
func (r Roll) asked(policyID, keyID string) *time.Time {
	for _, s := range r.Steps {
		if s.Round == r.Round && s.Policy == policyID && (s.Kind == RefreshPolicy || s.Kind == SharePointRollKey && s.Key == keyID) {
			return s.StartedAt
		}
	}
	return nil
}

// CheckUse says whether the log shows Microsoft wrapping with every one of the
// versions since it was asked to take it up, by the workload's own
// application. Unwrapping proves nothing: it reads what an older time wrapped;
// nor does anybody else's call.
func CheckUse(w Workload, taken []TakenVersion, uses []KeyUse) (inUse bool, source string) {
	if len(taken) == 0 {
		return false, ""
	}
	var latest time.Time
	for _, t := range taken {
		i := slices.IndexFunc(uses, func(u KeyUse) bool {
			return u.Operation == UseWrap && u.Calls > 0 && strings.EqualFold(u.AppID, w.AppID()) && u.Ref.SameKey(t.Ref) && u.Ref.Version == t.Ref.Version && !u.First.Before(t.Since)
		})
		if i < 0 {
			return false, ""
		}
		if uses[i].First.After(latest) {
			latest = uses[i].First
		}
	}
	return true, "Key Vault's diagnostic log shows Microsoft's application " + w.AppID() + " wrapping with " + count(len(taken), "new version") +
		" since " + latest.UTC().Format(time.RFC3339) + "; that content is encrypted anew it does not show"
}

// LaterEvidence is evidence that was found after a roll had ended.
type LaterEvidence struct {
	Policy   string    `json:"policy"`
	Evidence Evidence  `json:"evidence"`
	Source   string    `json:"source"`
	At       time.Time `json:"at"`
}

// CurrentEvidence is the best that is known of a policy now, where it comes
// from and since when: what stood at the roll's end, or what was found later.
func (r Roll) CurrentEvidence(policyID string) (e Evidence, source string, at *time.Time) {
	for _, l := range r.Later {
		if l.Policy == policyID {
			return l.Evidence, l.Source, new(l.At)
		}
	}
	e, source = r.PolicyEvidence(policyID)
	for _, s := range r.Steps {
		if s.Round == r.Round && s.Kind == Verify && s.Policy == policyID && s.State == StepSucceeded {
			at = s.EndedAt
		}
	}
	return e, source, at
}

// CurrentOutcome is the weakest evidence over all policies as it is known now.
// Outcome stays what it was when the roll ended.
func (r Roll) CurrentOutcome() Evidence {
	if r.Outcome == "" {
		return ""
	}
	var all []Evidence
	for _, p := range r.Plan.Policies {
		e, _, _ := r.CurrentEvidence(p.ID)
		all = append(all, e)
	}
	return Weakest(all...)
}

// evidenceSeen raises the evidence of a policy after the roll's end: from
// accepted or attested to in_use, never otherwise and never back. No state changes.
func (r *Roll) evidenceSeen(e EvidenceSeen, now time.Time) ([]Effect, error) {
	if err := r.in(e, Succeeded); err != nil {
		return nil, err
	}
	if !slices.ContainsFunc(r.Plan.Policies, func(p PlanPolicy) bool { return p.ID == e.Policy }) {
		return nil, r.refuse(e, RefusedNoSuchStep, "no policy %s in the plan", e.Policy)
	}
	had, _, _ := r.CurrentEvidence(e.Policy)
	switch {
	case e.Evidence != InUse:
		return nil, r.refuse(e, RefusedStepState, "evidence %s is not found after a roll's end", e.Evidence)
	case had == InUse:
		return nil, ErrAlreadyApplied
	case had != Accepted && had != Attested:
		return nil, r.refuse(e, RefusedStepState, "evidence is %s, and in_use does not improve it", had)
	}
	r.Later = append(slices.Clone(r.Later), LaterEvidence{Policy: e.Policy, Evidence: e.Evidence, Source: e.Source, At: now})
	return []Effect{Announce{"roll.evidence_improved"}}, nil
}
