package sim

import (
	"maps"
	"slices"
	"strings"
	"time"
)

// State is the world as it is now.
type State struct {
	Now     time.Time     `json:"now"`
	Trap    bool          `json:"trap"`
	Tenants []TenantState `json:"tenants"`
}

// TenantState is a tenant in a State.
type TenantState struct {
	ID        string         `json:"id"`
	Name      string         `json:"name"`
	Domain    string         `json:"domain"`
	Keys      []KeyState     `json:"keys"`
	Policies  []PolicyState  `json:"policies"`
	Mailboxes []MailboxState `json:"mailboxes"`
	Geos      []GeoState     `json:"geos"`
}

// KeyState is a key in a State, its versions oldest first.
type KeyState struct {
	Vault       string         `json:"vault"`
	Name        string         `json:"name"`
	ID          string         `json:"id"`
	SoftDeleted bool           `json:"soft_deleted"`
	Versions    []VersionState `json:"versions"`
}

// VersionState is a key version in a State.
type VersionState struct {
	Version     string            `json:"version"`
	ID          string            `json:"id"`
	Kty         string            `json:"kty"`
	Size        int               `json:"size"`
	KeyOps      []string          `json:"key_ops"`
	HSMPlatform string            `json:"hsm_platform"`
	Enabled     bool              `json:"enabled"`
	Created     int64             `json:"created"`
	NotBefore   *int64            `json:"not_before,omitempty"`
	Expires     *int64            `json:"expires,omitempty"`
	Tags        map[string]string `json:"tags,omitempty"`
	By          string            `json:"by"` // "seed", "api", "stranger" or "policy"
}

// PolicyState is a policy in a State. Versions is by key identifier: the
// version that Microsoft wraps with, which no client can see.
type PolicyState struct {
	Policy
	Versions map[string]string `json:"versions"`
}

// MailboxState is a mailbox in a State.
type MailboxState struct {
	Address                string `json:"address"`
	Policy                 string `json:"policy"`
	DataEncryptionPolicyID string `json:"data_encryption_policy_id"`
}

// GeoState is a SharePoint geo in a State.
type GeoState struct {
	ID               string  `json:"id"`
	AdminHost        string  `json:"admin_host"`
	Status           string  `json:"status"`
	Progress         float64 `json:"progress"`
	Rolls            int     `json:"rolls"` // under way
	PrimaryVersion   string  `json:"primary_version"`
	SecondaryVersion string  `json:"secondary_version"`
	PrimaryURI       string  `json:"primary_uri"`
	SecondaryURI     string  `json:"secondary_uri"`
}

// State returns a copy of the world.
func (w *World) State() State {
	now := w.lock()
	defer w.mu.Unlock()
	out := State{Now: now, Trap: w.trap, Tenants: []TenantState{}}
	for _, t := range w.tenants {
		out.Tenants = append(out.Tenants, t.state(now))
	}
	return out
}

// Tenant returns one tenant of the State; false when there is none.
func (w *World) Tenant(id string) (TenantState, bool) {
	now := w.lock()
	defer w.mu.Unlock()
	t := w.tenantOf(id)
	if t == nil {
		return TenantState{}, false
	}
	return t.state(now), true
}

// KeyVersions returns a key's versions, oldest first.
func (w *World) KeyVersions(vault, name string) []VersionState {
	w.lock()
	defer w.mu.Unlock()
	k, err := w.keyNamed(vault, name)
	if err != nil {
		return nil
	}
	return k.state().Versions
}

// PolicyVersions returns, by key identifier, the versions that a policy (by
// GUID or name) has taken up.
func (w *World) PolicyVersions(tenant, identity string) map[string]string {
	w.lock()
	defer w.mu.Unlock()
	if t := w.tenantOf(tenant); t != nil {
		if p := t.policyOf(identity, ""); p != nil {
			return maps.Clone(p.taken)
		}
	}
	return nil
}

// CurrentTime is the time in the world.
func (w *World) CurrentTime() time.Time {
	now := w.lock()
	defer w.mu.Unlock()
	return now
}

func (t *tenant) state(now time.Time) TenantState {
	out := TenantState{ID: t.id, Name: t.name, Domain: t.domain}
	for _, v := range t.vaults {
		for _, k := range v.keys {
			out.Keys = append(out.Keys, k.state())
		}
	}
	for _, p := range t.policies {
		s := PolicyState{Policy: p.Policy, Versions: maps.Clone(p.taken)}
		enabled := p.enabled
		s.Enabled, s.AzureKeyIDs = &enabled, slices.Clone(p.AzureKeyIDs)
		out.Policies = append(out.Policies, s)
	}
	for _, m := range t.mailboxes {
		out.Mailboxes = append(out.Mailboxes, MailboxState{m.address, m.policy, m.shown})
	}
	for _, g := range t.geos {
		out.Geos = append(out.Geos, g.state(now))
	}
	return out
}

func (k *key) state() KeyState {
	out := KeyState{Vault: k.vault.name, Name: k.name, ID: k.id(), SoftDeleted: k.softDeleted}
	for _, v := range k.versions {
		out.Versions = append(out.Versions, VersionState{Version: v.id, ID: v.kid(), Kty: v.kty, Size: v.size,
			KeyOps: slices.Clone(v.ops), HSMPlatform: v.platform, Enabled: v.enabled, Created: v.created, NotBefore: v.nbf, Expires: v.exp,
			Tags: maps.Clone(v.tags), By: v.by})
	}
	return out
}

func (g *geo) state(now time.Time) GeoState {
	status, progress := g.seen(now)
	held := func(slot int) string {
		if g.slots[slot] == nil {
			return ""
		}
		return strings.ToLower(g.slots[slot].id)
	}
	return GeoState{ID: g.id, AdminHost: g.host, Status: statusNames()[status], Progress: progress, Rolls: len(g.rolling),
		PrimaryVersion: held(slotPrimary), SecondaryVersion: held(slotSecondary),
		PrimaryURI: g.uri(slotPrimary), SecondaryURI: g.uri(slotSecondary)}
}
