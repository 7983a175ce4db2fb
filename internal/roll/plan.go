package roll

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"time"

	"github.com/gowebpki/jcs"
)

// Plan is the ordered steps that a roll would take, with what was found.
// MadeAt and the estimates are not part of the hash.
type Plan struct {
	Hash            string            `json:"hash"`
	TenantID        string            `json:"tenant_id"`
	MadeAt          time.Time         `json:"made_at"`
	Kind            string            `json:"kind,omitempty"` // "" or KindReplace
	Keys            []PlanKey         `json:"keys"`
	OtherKeys       []PlanKey         `json:"other_keys,omitempty"`
	Replaces        []PlanReplacement `json:"replaces,omitempty"`
	Policies        []PlanPolicy      `json:"policies"`
	Steps           []PlanStep        `json:"steps"`
	Findings        []Finding         `json:"findings"`
	EstimateSeconds int64             `json:"estimate_seconds"`
	// Emergency: the roll goes through change windows and freezes.
	Emergency bool `json:"emergency,omitempty"`
	// Runbooks: reading the tenant may take jobs of its Automation account.
	Runbooks bool `json:"runbooks,omitempty"`
}

// PlanKey is a root key in a plan. In OtherKeys it is one that a policy of the
// plan uses but the roll does not touch; its Version is the one that must stay.
type PlanKey struct {
	ID       string `json:"id"`
	VaultURL string `json:"vault_url"`
	Name     string `json:"name"`
	// OldVersion is the newest version in the vault when the plan was made.
	OldVersion string `json:"old_version"`
	// Version is "new", or the version to adopt.
	Version      string     `json:"version"`
	KeyNotBefore *time.Time `json:"key_not_before,omitempty"`
	// Size in bits that was asked for; 0 is the predecessor's.
	Size     int      `json:"size,omitempty"`
	Policies []string `json:"policies"`
}

// Again is the request by which the key came into the plan.
func (k PlanKey) Again() KeyRequest {
	return KeyRequest{Type: RootKey, ID: k.ID, Version: k.Version, KeyNotBefore: k.KeyNotBefore, Size: k.Size}
}

// PlanPolicy is a policy that the roll makes take up its keys.
type PlanPolicy struct {
	ID       string   `json:"id"`
	Workload Workload `json:"workload"`
	Name     string   `json:"name,omitempty"`
	GUID     string   `json:"guid,omitempty"`
	Geo      string   `json:"geo,omitempty"`
	Covers   string   `json:"covers"`
	// Keys are the declared ids of all its root keys, rolled or not.
	Keys []string `json:"keys"`
}

// PlanStep is one step of a plan. N counts from 1; After names the steps that
// must have succeeded before.
type PlanStep struct {
	N      int      `json:"n"`
	Kind   StepKind `json:"kind"`
	After  []int    `json:"after,omitempty"`
	Policy string   `json:"policy,omitempty"`
	Key    string   `json:"key,omitempty"`
	Slot   Slot     `json:"slot,omitempty"`
	Geo    string   `json:"geo,omitempty"`
	Params Params   `json:"params"`
	// Title says the step to people; EstimateSeconds is a rough expectation.
	Title           string `json:"title"`
	EstimateSeconds int64  `json:"estimate_seconds"`
}

// Params are what a step needs beyond its subject. All of it is hashed.
type Params struct {
	// OldVersion: create, the version whose attributes are copied; SharePoint
	// roll, the version that the slot must name before.
	OldVersion string `json:"old_version,omitempty"`
	// Adopt is the existing version to take instead of making one.
	Adopt string `json:"adopt,omitempty"`
	// NotBefore is the new version's nbf.
	NotBefore *time.Time `json:"not_before,omitempty"`
	// Size in bits of the new or adopted version; 0 is the predecessor's.
	Size int `json:"size,omitempty"`
	// Migrate: the new version must be on a newer HSM platform than its
	// predecessor where that is on an old one.
	Migrate bool `json:"migrate,omitempty"`
	// Replaces is the id of the declared key that leaves the slot.
	Replaces string `json:"replaces,omitempty"`
	// Scope of the SharePoint lease.
	Scope string `json:"scope,omitempty"`
	// Transport of the change, and of what watches it; "" is the native one.
	Transport Transport `json:"transport,omitempty"`
	// ByURI: SharePoint is told the key by its URI, since the vault is a Managed
	// HSM, which has no short name.
	ByURI bool `json:"by_uri,omitempty"`
	// Account is the Automation account whose runbook makes the change: an
	// operation is looked for where it was sent, whatever is declared since.
	Account string `json:"account,omitempty"`
	// Gap to keep after the last SharePoint operation on the same geo.
	Gap Duration `json:"gap,omitempty"`
}

// Level of a finding.
type Level string

// An error keeps the roll from beginning; a warning is shown with the plan.
// What could not be read is not_checked: it is neither in order nor wrong, and
// it must not look like either.
const (
	LevelError      Level = "error"
	LevelWarning    Level = "warning"
	LevelNotChecked Level = "not_checked"
)

// Levels lists them, the gravest first.
func Levels() []Level { return []Level{LevelError, LevelWarning, LevelNotChecked} }

// Finding is something that preflight saw: what, where, and how to mend it.
type Finding struct {
	Code    string `json:"code"`
	Level   Level  `json:"level"`
	Subject string `json:"subject"`
	Seen    string `json:"seen"`
	Remedy  string `json:"remedy"`
	// Passing findings come and go by themselves (another operation under way);
	// they are shown, but a plan is not a different one because of them.
	Passing bool `json:"passing,omitempty"`
	// OwnLevel is the level that the code has by itself, where the tenant's
	// veto gave it another.
	OwnLevel Level `json:"own_level,omitempty"`
}

// Errors returns the findings that keep the roll from beginning.
func (p Plan) Errors() []Finding {
	var out []Finding
	for _, f := range p.Findings {
		if f.Level == LevelError {
			out = append(out, f)
		}
	}
	return out
}

// KeyByID finds a key of the plan, rolled or not.
func (p Plan) KeyByID(id string) (PlanKey, bool) {
	for _, list := range [][]PlanKey{p.Keys, p.OtherKeys} {
		for _, k := range list {
			if k.ID == id {
				return k, true
			}
		}
	}
	return PlanKey{}, false
}

// Rolls says whether the plan gives the key a version.
func (p Plan) Rolls(keyID string) bool {
	for _, k := range p.Keys {
		if k.ID == keyID {
			return true
		}
	}
	return false
}

// hashed is the part of a plan that its hash covers: keys, old versions,
// policy GUIDs, steps, parameters, and findings by code, level and subject.
type hashed struct {
	TenantID string            `json:"tenant_id"`
	Kind     string            `json:"kind,omitempty"`
	Replaces []PlanReplacement `json:"replaces,omitempty"`
	Keys     []PlanKey         `json:"keys"`
	Others   []PlanKey         `json:"other_keys"`
	Policies []hashedPolicy    `json:"policies"`
	Steps    []hashedStep      `json:"steps"`
	Findings []hashedFinding   `json:"findings"`
	// Left out where it is not so.
	Emergency bool `json:"emergency,omitempty"`
}

type hashedPolicy struct {
	ID       string   `json:"id"`
	Workload Workload `json:"workload"`
	GUID     string   `json:"guid"`
	Geo      string   `json:"geo"`
	Keys     []string `json:"keys"`
}

type hashedStep struct {
	N      int      `json:"n"`
	Kind   StepKind `json:"kind"`
	After  []int    `json:"after"`
	Policy string   `json:"policy"`
	Key    string   `json:"key"`
	Slot   Slot     `json:"slot"`
	Geo    string   `json:"geo"`
	Params Params   `json:"params"`
}

type hashedFinding struct {
	Code    string `json:"code"`
	Level   Level  `json:"level"`
	Subject string `json:"subject"`
}

// ComputeHash returns "sha256:" and the hex SHA-256 over the canonical JSON
// (RFC 8785) of what was planned; times, estimates and prose are left out.
func (p Plan) ComputeHash() (string, error) {
	h := hashed{TenantID: p.TenantID, Kind: p.Kind, Replaces: p.Replaces, Keys: p.Keys, Others: p.OtherKeys, Emergency: p.Emergency}
	for _, q := range p.Policies {
		h.Policies = append(h.Policies, hashedPolicy{q.ID, q.Workload, q.GUID, q.Geo, q.Keys})
	}
	for _, s := range p.Steps {
		h.Steps = append(h.Steps, hashedStep{s.N, s.Kind, s.After, s.Policy, s.Key, s.Slot, s.Geo, s.Params})
	}
	for _, f := range p.Findings {
		if !f.Passing {
			h.Findings = append(h.Findings, hashedFinding{f.Code, f.Level, f.Subject})
		}
	}
	raw, err := json.Marshal(h)
	if err != nil {
		return "", fmt.Errorf("encoding the plan: %w", err)
	}
	canonical, err := jcs.Transform(raw)
	if err != nil {
		return "", fmt.Errorf("making the plan canonical: %w", err)
	}
	sum := sha256.Sum256(canonical)
	return "sha256:" + hex.EncodeToString(sum[:]), nil
}
