package sim

import (
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
	"time"
)

// Workloads of a Policy.
const (
	WorkloadExchange = "exchange"
	WorkloadMulti    = "multi-workload"
)

// policy is a data encryption policy and, by key identifier without version,
// the version of each key that it has taken up.
type policy struct {
	Policy
	enabled bool
	taken   map[string]string
}

// mailbox is a mailbox; shown is its DataEncryptionPolicyID.
type mailbox struct {
	address, guid, policy, shown string
	changes                      time.Time // when shown changes next; zero: not
}

// settle lets a mailbox show another DataEncryptionPolicyID when it is due.
// Microsoft's page on rolling says that the value changes; to what, it does not.
func (m *mailbox) settle(now time.Time) {
	if !m.changes.IsZero() && !now.Before(m.changes) {
		m.shown, m.changes = newGUID(), time.Time{}
	}
}

// putPolicy adds a policy, or replaces the one with the same GUID. A new one
// has taken up the newest versions; a replaced one keeps what it had.
func (t *tenant) putPolicy(s Policy) (*policy, error) {
	switch {
	case !isGUID(s.GUID):
		return nil, fmt.Errorf("guid %q is not a GUID", s.GUID)
	case s.Name == "":
		return nil, fmt.Errorf("name is missing")
	case s.Workload != WorkloadExchange && s.Workload != WorkloadMulti:
		return nil, fmt.Errorf("workload %q is not exchange or multi-workload", s.Workload)
	}
	s.AzureKeyIDs = slices.Clone(s.AzureKeyIDs)
	if s.Test != nil {
		s.Test = &PolicyTest{Result: s.Test.Result, Detail: s.Test.Detail}
	}
	p := &policy{Policy: s, enabled: s.Enabled == nil || *s.Enabled, taken: map[string]string{}}
	for _, id := range s.AzureKeyIDs {
		k, versionID, err := t.keyOf(id)
		if err != nil {
			return nil, err
		}
		if v := k.version(versionID); v != nil {
			p.taken[k.id()] = v.id
		} else if v := k.newest(); v != nil {
			p.taken[k.id()] = v.id
		}
	}
	for i, old := range t.policies {
		if strings.EqualFold(old.GUID, s.GUID) {
			maps.Copy(p.taken, old.taken)
			t.policies[i] = p
			return p, nil
		}
	}
	t.policies = append(t.policies, p)
	return p, nil
}

// policyOf finds a policy by GUID or name; workload "" means any.
func (t *tenant) policyOf(identity, workload string) *policy {
	for _, p := range t.policies {
		if (workload == "" || p.Workload == workload) &&
			(strings.EqualFold(p.GUID, identity) || strings.EqualFold(p.Name, identity)) {
			return p
		}
	}
	return nil
}

// keyOf resolves a key identifier of one of the tenant's vaults, with or
// without a version.
func (t *tenant) keyOf(id string) (*key, string, error) {
	u, err := url.Parse(id)
	if err != nil {
		return nil, "", fmt.Errorf("key identifier %q: %w", id, err)
	}
	parts := strings.Split(strings.Trim(u.Path, "/"), "/")
	if len(parts) < 2 || len(parts) > 3 || parts[0] != "keys" {
		return nil, "", fmt.Errorf("key identifier %q is not https://{vault}/keys/{name}", id)
	}
	versionID := ""
	if len(parts) == 3 {
		versionID = parts[2]
	}
	for _, v := range t.vaults {
		if strings.EqualFold(v.host, u.Host) {
			if k := v.key(parts[1]); k != nil {
				return k, versionID, nil
			}
		}
	}
	return nil, "", fmt.Errorf("key identifier %q names no key of the tenant's vaults", id)
}

// policyKeys returns the keys that the policy names and that exist.
func (t *tenant) policyKeys(p *policy) []*key {
	var out []*key
	for _, id := range p.AzureKeyIDs {
		if k, _, err := t.keyOf(id); err == nil {
			out = append(out, k)
		}
	}
	return out
}

// serving returns the version of each of the policy's keys that Microsoft
// would wrap with now; the error says which key denies it and why.
func (t *tenant) serving(p *policy, now time.Time) ([]*version, error) {
	var versions []*version
	for _, id := range p.AzureKeyIDs {
		k, versionID, err := t.keyOf(id)
		if err != nil {
			return nil, err
		}
		v, err := k.serve(versionID, now)
		if err != nil {
			return nil, err
		}
		// What is wrapped now has to be unwrapped before it can be wrapped anew.
		if held := k.version(p.taken[k.id()]); held != nil {
			if err := held.unwrap(); err != nil {
				return nil, err
			}
		}
		versions = append(versions, v)
	}
	return versions, nil
}

// takeUp lets the policy wrap with the newest version of each of its keys, all
// or none of them, and sends its mailboxes on their way.
func (t *tenant) takeUp(p *policy, now time.Time) ([]*version, error) {
	versions, err := t.serving(p, now)
	if err != nil {
		return nil, err
	}
	for _, v := range versions {
		p.taken[v.key.id()] = v.id
	}
	for _, m := range t.mailboxes {
		if strings.EqualFold(m.policy, p.GUID) {
			m.changes = now.Add(t.refresh)
		}
	}
	return versions, nil
}

// mailboxOf finds a mailbox by address or GUID.
func (t *tenant) mailboxOf(identity string) *mailbox {
	for _, m := range t.mailboxes {
		if strings.EqualFold(m.address, identity) || strings.EqualFold(m.guid, identity) {
			return m
		}
	}
	return nil
}
