package roll

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"
)

// Request asks for a roll. Policies stands for all root keys of these
// policies; together with Keys it forms a union.
type Request struct {
	TenantID string       `json:"tenant_id"`
	Policies []string     `json:"policies,omitempty"`
	Keys     []KeyRequest `json:"keys,omitempty"`
	// Replace puts other keys into SharePoint slots; nothing else goes with it.
	Replace  []Replacement `json:"replace,omitempty"`
	Reason   Reason        `json:"reason"`
	StartAt  *time.Time    `json:"start_at,omitempty"`
	PlanHash string        `json:"plan_hash,omitempty"`
	// Emergency lets the roll through change windows and freezes; two people
	// must approve it, whatever the tenant's declaration says.
	Emergency *Emergency `json:"emergency,omitempty"`
}

// Emergency says why a roll cannot wait for a window or the end of a freeze.
type Emergency struct {
	Reason string `json:"reason"`
}

// KeyRequest names one key to roll.
type KeyRequest struct {
	// Type is "root"; "availability" is answered with what does roll that key.
	Type   string `json:"type,omitempty"`
	ID     string `json:"id,omitempty"`
	Policy string `json:"policy,omitempty"`
	// Version is "new", or the 32 hex digits of an existing version to adopt.
	Version string `json:"version,omitempty"`
	// KeyNotBefore becomes the new version's nbf.
	KeyNotBefore *time.Time `json:"key_not_before,omitempty"`
	// Size asks for another size in bits than the predecessor's: a larger one
	// only. 0 copies the predecessor's.
	Size int `json:"size,omitempty"`
}

// Key request types and the word for a new version.
const (
	RootKey         = "root"
	AvailabilityKey = "availability"
	NewVersion      = "new"
)

// Reason says why the roll is wanted; a roll without one is refused (rule 2).
type Reason struct {
	Code   string  `json:"code"`
	Text   string  `json:"text"`
	Ticket *Ticket `json:"ticket,omitempty"`
}

// Ticket is the change ticket behind a roll.
type Ticket struct {
	Source string `json:"source"`
	ID     string `json:"id"`
}

// ReasonHSMMigration is the code of a roll whose aim is a newer HSM platform.
const ReasonHSMMigration = "hsm_migration"

// KeySizes lists the sizes in bits of RSA keys that a vault makes.
func KeySizes() []int { return []int{2048, 3072, 4096} }

// ReasonCodes lists the codes that a reason may carry.
func ReasonCodes() []string {
	return []string{"scheduled_rotation", "compliance_requirement", "suspected_compromise",
		"security_incident", "personnel_change", ReasonHSMMigration, "other"}
}

// InvalidError says which member of a request or declaration is wrong, and how
// to mend it. Pointer is a JSON pointer.
type InvalidError struct {
	Pointer, Detail string
}

func (e *InvalidError) Error() string { return e.Pointer + ": " + e.Detail }

// AvailabilityKeyError refuses to roll the availability key and says what does (rule 3).
type AvailabilityKeyError struct {
	Policy   string
	Workload Workload
}

func (e *AvailabilityKeyError) Error() string {
	return "the availability key cannot be rolled by a customer: " + e.Explanation()
}

// Explanation says what rolls the availability key of the policy's workload.
func (e *AvailabilityKeyError) Explanation() string {
	const microsoft = "Microsoft itself rolls it on its own internal schedule, without a service level agreement."
	switch e.Workload {
	case Exchange:
		return "For Exchange Online and Skype for Business each data encryption policy has an availability key of its own, so creating a new policy makes a new one (the mailboxes are then assigned to that policy). " + microsoft
	case SharePoint:
		return "For SharePoint, OneDrive and Teams files it exists at the forest level and is shared across policies and customers; a new policy rolls only the tenant intermediate key (TIK). " + microsoft
	case MultiWorkload:
		return "For multi-workload policies Microsoft documents nothing that a customer could do. " + microsoft
	}
	return "Exchange: a new policy makes a new availability key. SharePoint: it is forest-level, and a new policy rolls only the tenant intermediate key (TIK). Multi-workload: Microsoft documents nothing. " + microsoft
}

var hexVersion = regexp.MustCompile(`^[0-9a-f]{32}$`)

// ValidVersion says whether v is the id of a key version: 32 hex digits.
func ValidVersion(v string) bool { return hexVersion.MatchString(v) }

// Resolved is a request against a declaration: the keys to roll, in declared order.
type Resolved struct {
	Request Request
	Keys    []KeyRequest
}

// Resolve checks the request against the declaration and expands policies
// into keys. Errors: *InvalidError, *AvailabilityKeyError.
func Resolve(inv Inventory, req Request) (Resolved, error) {
	if err := checkReason(req.Reason); err != nil {
		return Resolved{}, err
	}
	if e := req.Emergency; e != nil && strings.TrimSpace(e.Reason) == "" {
		return Resolved{}, &InvalidError{"/emergency/reason", "say in a sentence why this cannot wait"}
	}
	if len(req.Replace) > 0 {
		return resolveReplace(inv, req)
	}
	if len(req.Policies) == 0 && len(req.Keys) == 0 {
		return Resolved{}, &InvalidError{"/keys", "name at least one key in keys or one policy in policies"}
	}
	wanted := map[string]KeyRequest{}
	for i, id := range req.Policies {
		p, ok := inv.PolicyByID(id)
		if !ok {
			return Resolved{}, &InvalidError{fmt.Sprintf("/policies/%d", i), fmt.Sprintf("policy %q is not declared; declared are: %s", id, policyIDs(inv))}
		}
		for _, k := range p.KeyIDs() {
			if _, ok := inv.KeyByID(k); !ok {
				return Resolved{}, &InvalidError{fmt.Sprintf("/policies/%d", i), fmt.Sprintf("policy %q uses key %q, which is not declared: declare it first", id, k)}
			}
			wanted[k] = KeyRequest{Type: RootKey, ID: k, Version: NewVersion}
		}
	}
	named := map[string]bool{}
	for i, k := range req.Keys {
		at := fmt.Sprintf("/keys/%d", i)
		if k.Type == AvailabilityKey {
			p, _ := inv.PolicyByID(k.Policy)
			return Resolved{}, &AvailabilityKeyError{Policy: k.Policy, Workload: p.Workload}
		}
		k, err := checkKeyRequest(inv, at, k)
		if err != nil {
			return Resolved{}, err
		}
		if named[k.ID] {
			return Resolved{}, &InvalidError{at + "/id", fmt.Sprintf("key %q is named twice", k.ID)}
		}
		named[k.ID] = true
		wanted[k.ID] = k
	}
	out := Resolved{Request: req}
	for _, k := range inv.Keys {
		if kr, ok := wanted[k.ID]; ok {
			out.Keys = append(out.Keys, kr)
		}
	}
	return out, nil
}

func checkKeyRequest(inv Inventory, at string, k KeyRequest) (KeyRequest, error) {
	if k.Type == "" {
		k.Type = RootKey
	}
	if k.Type != RootKey {
		return k, &InvalidError{at + "/type", fmt.Sprintf("type %q is unknown: use \"root\"", k.Type)}
	}
	if _, ok := inv.KeyByID(k.ID); !ok {
		return k, &InvalidError{at + "/id", fmt.Sprintf("key %q is not declared; declared are: %s", k.ID, keyIDs(inv))}
	}
	if len(inv.PoliciesUsing(k.ID)) == 0 {
		return k, &InvalidError{at + "/id", fmt.Sprintf("no declared policy uses key %q, so nothing would take up a new version: declare the policy first, or put the key into a SharePoint slot with replace", k.ID)}
	}
	return checkVersionWanted(at, k)
}

// checkVersionWanted fills the default and refuses what contradicts itself.
func checkVersionWanted(at string, k KeyRequest) (KeyRequest, error) {
	if k.Version == "" {
		k.Version = NewVersion
	}
	if k.Version != NewVersion && !ValidVersion(k.Version) {
		return k, &InvalidError{at + "/version", "use \"new\", or the 32 lower-case hex digits of an existing version to adopt"}
	}
	if k.Version != NewVersion && k.KeyNotBefore != nil {
		return k, &InvalidError{at + "/key_not_before", "an adopted version keeps its own nbf: leave key_not_before out"}
	}
	if k.Size != 0 && !slices.Contains(KeySizes(), k.Size) {
		return k, &InvalidError{at + "/size", fmt.Sprintf("size %d is none that a vault makes: use one of %v, or leave size out to keep the predecessor's", k.Size, KeySizes())}
	}
	return k, nil
}

func checkReason(r Reason) error {
	for _, c := range ReasonCodes() {
		if r.Code == c {
			if strings.TrimSpace(r.Text) == "" {
				return &InvalidError{"/reason/text", "say in a sentence why this roll is needed"}
			}
			return nil
		}
	}
	return &InvalidError{"/reason/code", fmt.Sprintf("code %q is unknown; use one of %s", r.Code, strings.Join(ReasonCodes(), ", "))}
}

func policyIDs(inv Inventory) string {
	var ids []string
	for _, p := range inv.Policies {
		ids = append(ids, p.ID)
	}
	return strings.Join(ids, ", ")
}

func keyIDs(inv Inventory) string {
	var ids []string
	for _, k := range inv.Keys {
		ids = append(ids, k.ID)
	}
	return strings.Join(ids, ", ")
}
