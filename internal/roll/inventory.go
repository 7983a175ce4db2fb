// Package roll is the pure heart of Keyroll: the declared inventory, what was
// observed at Microsoft, the plan that follows from both, and the roll with
// its steps and its transition function.
//
// Nothing here does I/O, reads a clock or logs. Every rule about what a roll
// may do next lives in this package, so that the API, the workers, the page
// and the tests ask one place.
package roll

import (
	"encoding/json"
	"fmt"
	"time"
)

// Workload says what a data encryption policy covers.
type Workload string

// The three workloads of Microsoft 365 Customer Key. The strings are wire
// format: they stand in declarations, metrics and the database.
const (
	MultiWorkload Workload = "multi-workload"
	Exchange      Workload = "exchange"
	SharePoint    Workload = "sharepoint"
)

// Workloads lists every workload in the order in which people read them.
func Workloads() []Workload { return []Workload{MultiWorkload, Exchange, SharePoint} }

// Covers says in a sentence what the workload's policy encrypts.
func (w Workload) Covers() string {
	switch w {
	case MultiWorkload:
		return "data of all users of the tenant across Microsoft 365 workloads, Teams among them"
	case Exchange:
		return "the mailboxes to which the policy is assigned (Exchange Online and Skype for Business)"
	case SharePoint:
		return "SharePoint, OneDrive and Teams files of the geo"
	}
	return "unknown workload " + string(w)
}

// Slot is one of the two keys of a SharePoint policy.
type Slot string

// The slots, by Microsoft's names.
const (
	Primary   Slot = "primary"
	Secondary Slot = "secondary"
)

// Duration is a time.Duration that reads and writes Go's text form ("24h") in JSON.
type Duration time.Duration

// MarshalJSON writes the text form.
func (d Duration) MarshalJSON() ([]byte, error) { return json.Marshal(time.Duration(d).String()) }

// UnmarshalJSON reads the text form; a negative duration is refused.
func (d *Duration) UnmarshalJSON(b []byte) error {
	var s string
	if err := json.Unmarshal(b, &s); err != nil {
		return fmt.Errorf("a duration is a string such as \"24h\": %w", err)
	}
	v, err := time.ParseDuration(s)
	if err != nil {
		return err
	}
	if v < 0 {
		return fmt.Errorf("duration %q is negative", s)
	}
	*d = Duration(v)
	return nil
}

// Inventory is a tenant's declaration: which keys and policies exist, and how
// the tenant wants them rolled. Policy GUIDs and slots are as Microsoft shows them.
type Inventory struct {
	TenantID   string             `json:"tenant_id"`
	Name       string             `json:"name"`
	Cloud      string             `json:"cloud"`
	Credential string             `json:"credential"`
	Labels     map[string]string  `json:"labels,omitempty"`
	Approval   string             `json:"approval"`
	SharePoint SharePointSettings `json:"sharepoint"`
	Transports TransportSettings  `json:"transports,omitzero"`
	Automation *AutomationAccount `json:"automation,omitempty"`
	// Diagnostics is where Key Vault's log can be read; nil: nowhere.
	Diagnostics *Diagnostics      `json:"diagnostics,omitempty"`
	Azure       AzureSettings     `json:"azure,omitzero"`
	Keys        []Key             `json:"keys"`
	FormerKeys  []Key             `json:"former_keys,omitempty"`
	Policies    []Policy          `json:"policies"`
	Windows     []Window          `json:"windows,omitempty"`
	Freezes     []Freeze          `json:"freezes,omitempty"`
	Vetoes      map[string]string `json:"vetoes,omitempty"`
	// Recorded are the transports that were chosen last, by place. They are no
	// part of the declaration: the store adds them when it reads one.
	Recorded map[string]ChosenTransport `json:"-"`
}

// Approval settings of a tenant.
const (
	ApprovalRequired    = "required"
	ApprovalNotRequired = "not_required"
)

// SharePointSettings say how SharePoint key operations of a tenant are kept apart.
type SharePointSettings struct {
	// Lease is "tenant" (one operation at a time in the tenant) or "geo".
	Lease  string   `json:"lease,omitempty"`
	MinGap Duration `json:"min_gap"`
	Geos   []Geo    `json:"geos,omitempty"`
}

// Lease scopes.
const (
	LeasePerTenant = "tenant"
	LeasePerGeo    = "geo"
)

// DefaultMinGap is the pause between Primary and Secondary where the
// declaration names none (product rule 4).
const DefaultMinGap = 24 * time.Hour

// Geo is one SharePoint geo location with its own admin site.
type Geo struct {
	ID       string `json:"id"`
	AdminURL string `json:"admin_url"`
	// Transport overrides the tenant's for this geo; "" where it does not.
	Transport string `json:"transport,omitempty"`
}

// Key is a root key: its declared id, its vault and its name there.
type Key struct {
	ID       string `json:"id"`
	VaultURL string `json:"vault_url"`
	Name     string `json:"name"`
}

// Policy is a declared data encryption policy.
type Policy struct {
	ID              string   `json:"id"`
	Workload        Workload `json:"workload"`
	Name            string   `json:"name,omitempty"`
	GUID            string   `json:"guid,omitempty"`
	Keys            []string `json:"keys,omitempty"`
	SampleMailboxes []string `json:"sample_mailboxes,omitempty"`
	Geo             string   `json:"geo,omitempty"`
	Primary         string   `json:"primary,omitempty"`
	Secondary       string   `json:"secondary,omitempty"`
}

// KeyIDs returns the declared ids of the policy's root keys; for SharePoint
// Primary first, then Secondary.
func (p Policy) KeyIDs() []string {
	if p.Workload == SharePoint {
		return []string{p.Primary, p.Secondary}
	}
	return p.Keys
}

// KeyByID finds a declared key.
func (inv Inventory) KeyByID(id string) (Key, bool) {
	for _, k := range inv.Keys {
		if k.ID == id {
			return k, true
		}
	}
	return Key{}, false
}

// PolicyByID finds a declared policy.
func (inv Inventory) PolicyByID(id string) (Policy, bool) {
	for _, p := range inv.Policies {
		if p.ID == id {
			return p, true
		}
	}
	return Policy{}, false
}

// GeoByID finds a declared SharePoint geo.
func (inv Inventory) GeoByID(id string) (Geo, bool) {
	for _, g := range inv.SharePoint.Geos {
		if g.ID == id {
			return g, true
		}
	}
	return Geo{}, false
}

// PoliciesUsing returns the declared policies that use the key.
func (inv Inventory) PoliciesUsing(keyID string) []Policy {
	var out []Policy
	for _, p := range inv.Policies {
		for _, k := range p.KeyIDs() {
			if k == keyID {
				out = append(out, p)
				break
			}
		}
	}
	return out
}

// LeaseScope names the lease that guards SharePoint key operations in a geo:
// one per tenant, unless the declaration says one per geo.
func (inv Inventory) LeaseScope(geo string) string {
	if inv.SharePoint.Lease == LeasePerGeo {
		return "geo:" + geo
	}
	return LeasePerTenant
}
