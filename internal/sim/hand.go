package sim

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// Errors of the acts by hand.
var (
	// ErrUnknown means that the world has nothing of the name given.
	ErrUnknown = errors.New("not known to the simulator")
	// ErrRefused means that the simulated service would not do it.
	ErrRefused = errors.New("refused by the simulated service")
)

// keyNamed finds a key; the lock is held.
func (w *World) keyNamed(vault, name string) (*key, error) {
	if v := w.vaultOf(vault); v != nil {
		if k := v.key(name); k != nil {
			return k, nil
		}
	}
	return nil, fmt.Errorf("key %s/%s: %w", vault, name, ErrUnknown)
}

// stranger adds a version that nobody knows of; the lock is held.
func (w *World) stranger(k *key, tags map[string]string, now time.Time) *version {
	v := k.addStranger(now)
	v.tags = maps.Clone(tags)
	w.witness(Effect{Start: now, End: now, Service: ServiceKeyVault, Operation: OpCreateKey, Tenant: k.vault.tenant.id,
		Target: k.ref(), Versions: []string{v.kid()}, Applied: true, By: byStranger})
	return v
}

// StrangerVersion makes a key version as if someone else had made it, and
// returns its id.
func (w *World) StrangerVersion(vault, name string, tags map[string]string) (string, error) {
	now := w.lock()
	defer w.mu.Unlock()
	k, err := w.keyNamed(vault, name)
	if err != nil {
		return "", err
	}
	return w.stranger(k, tags, now).id, nil
}

// SetEnabled disables or enables a key version by hand; version "" means all.
func (w *World) SetEnabled(vault, name, versionID string, enabled bool) error {
	now := w.lock()
	defer w.mu.Unlock()
	k, err := w.keyNamed(vault, name)
	if err != nil {
		return err
	}
	var changed []string
	for _, v := range k.versions {
		if versionID == "" || strings.EqualFold(v.id, versionID) {
			v.enabled, v.updated = enabled, max(v.updated, now.Unix())
			changed = append(changed, v.kid())
		}
	}
	if len(changed) == 0 {
		return fmt.Errorf("version %s of %s: %w", versionID, k.ref(), ErrUnknown)
	}
	w.witness(Effect{Start: now, End: now, Service: ServiceKeyVault, Operation: fmt.Sprintf("set_enabled_%t", enabled),
		Tenant: k.vault.tenant.id, Target: k.ref(), Versions: changed, Applied: true, By: byHand})
	return nil
}

// SetSoftDeleted puts a key into the deleted state, or takes it out, by hand.
func (w *World) SetSoftDeleted(vault, name string, deleted bool) error {
	return w.setDeleted(vault, name, deleted, false)
}

// SetBeingDeleted leaves a key half deleted: its name is taken, and neither
// the key nor the deleted key can be read.
func (w *World) SetBeingDeleted(vault, name string) error {
	return w.setDeleted(vault, name, true, true)
}

func (w *World) setDeleted(vault, name string, deleted, deleting bool) error {
	now := w.lock()
	defer w.mu.Unlock()
	k, err := w.keyNamed(vault, name)
	if err == nil {
		k.delete(deleted, deleting, now)
	}
	return err
}

// SetExpires stamps an expiry on a key version by hand, or takes it away: what
// the real vault never does, so that a test can mend what it broke.
func (w *World) SetExpires(vault, name, versionID string, at *time.Time) error {
	now := w.lock()
	defer w.mu.Unlock()
	k, err := w.keyNamed(vault, name)
	if err != nil {
		return err
	}
	v := k.version(versionID)
	if v == nil {
		return fmt.Errorf("version %s of %s: %w", versionID, k.ref(), ErrUnknown)
	}
	v.exp, v.updated = unix(at), max(v.updated, now.Unix())
	return nil
}

// SetRecoveryLevel changes what protects a key, as a change of its vault or of
// the subscription does.
func (w *World) SetRecoveryLevel(vault, name, level string) error {
	w.lock()
	defer w.mu.Unlock()
	k, err := w.keyNamed(vault, name)
	if err == nil {
		k.level = level
	}
	return err
}

// Recreate purges a key and makes another under its name, with one version.
// The returned function restores the key from a backup: its versions are there
// again, and the other one's are gone.
func (w *World) Recreate(vault, name string) (restore func(), err error) {
	now := w.lock()
	defer w.mu.Unlock()
	k, err := w.keyNamed(vault, name)
	if err != nil {
		return nil, err
	}
	backup := k.versions
	k.versions = nil
	w.stranger(k, nil, now)
	return func() {
		w.lock()
		defer w.mu.Unlock()
		k.versions = backup
	}, nil
}

// SetVaultDeleted deletes a whole vault, whose host then answers nothing of a
// vault's, or recovers it with its keys.
func (w *World) SetVaultDeleted(name string, deleted bool) error {
	w.lock()
	defer w.mu.Unlock()
	v := w.vaultOf(name)
	if v == nil {
		return fmt.Errorf("vault %q: %w", name, ErrUnknown)
	}
	v.deleted = deleted
	return nil
}

// SetRotationPolicy gives a key an auto-rotation policy, in force from now;
// nil takes it away.
func (w *World) SetRotationPolicy(vault, name string, p *RotationPolicy) error {
	now := w.lock()
	defer w.mu.Unlock()
	k, err := w.keyNamed(vault, name)
	if err != nil {
		return err
	}
	return w.setRotation(k, p, now)
}

// RollByHand begins a SharePoint key roll as an administrator would from a
// shell: slot is "primary" or "secondary"; vault and key "" mean the key in
// the slot, version "" its newest enabled version.
func (w *World) RollByHand(tenant, geoID, slot string, to Slot) error {
	now := w.lock()
	defer w.mu.Unlock()
	g, err := w.geoNamed(tenant, geoID)
	if err != nil {
		return err
	}
	n := slices.Index([]string{"primary", "secondary"}, strings.ToLower(slot))
	if n < 0 || g.slots[n] == nil {
		return fmt.Errorf("slot %q: %w", slot, ErrUnknown)
	}
	k := g.slots[n].key
	if to.Vault != "" || to.Key != "" {
		if k, err = w.keyNamed(to.Vault, to.Key); err != nil {
			return err
		}
	}
	v, bad := w.mayRoll(g, n, []*key{k}, to.Version, now)
	if bad != nil {
		return fmt.Errorf("rolling by hand: %w: %s", ErrRefused, bad.message)
	}
	record := w.witness(Effect{Service: ServiceSharePoint, Operation: OpRollKey, Tenant: g.tenant.id,
		Target: g.id + "/" + slotName(n), Geo: g.id, Versions: []string{v.kid()}, Applied: true, By: byHand})
	g.roll(n, v, record, nil, now)
	return nil
}

// geoNamed finds a tenant's geo by id or admin host; "" means the only one.
func (w *World) geoNamed(tenant, id string) (*geo, error) {
	t := w.tenantOf(tenant)
	if t == nil {
		return nil, fmt.Errorf("tenant %q: %w", tenant, ErrUnknown)
	}
	for _, g := range t.geos {
		if strings.EqualFold(g.id, id) || strings.EqualFold(g.host, id) || id == "" && len(t.geos) == 1 {
			return g, nil
		}
	}
	return nil, fmt.Errorf("geo %q: %w", id, ErrUnknown)
}

// SharePointSettings changes a geo; nil members stay as they are.
type SharePointSettings struct {
	Tenant         string   `json:"tenant"`
	Geo            string   `json:"geo,omitempty"`
	Status         *string  `json:"status,omitempty"` // while nothing rolls
	Progress       *float64 `json:"progress,omitempty"`
	SiteCount      *int     `json:"site_count,omitempty"`
	SitesPerSecond *float64 `json:"sites_per_second,omitempty"`
	URIVersion     *bool    `json:"uri_version,omitempty"`
	URIChange      *string  `json:"uri_change,omitempty"`
	SharePointOddities
}

// SetSharePoint changes how a geo looks and behaves. Rolls under way keep
// their pace.
func (w *World) SetSharePoint(s SharePointSettings) error {
	w.lock()
	defer w.mu.Unlock()
	g, err := w.geoNamed(s.Tenant, s.Geo)
	if err != nil {
		return err
	}
	status := g.status
	if s.Status != nil {
		if status = slices.Index(statusNames(), *s.Status); status < 0 {
			return fmt.Errorf("status %q: %w", *s.Status, ErrUnknown)
		}
	}
	if s.URIChange != nil && *s.URIChange != "end" && *s.URIChange != "start" {
		return fmt.Errorf("uri_change %q: %w", *s.URIChange, ErrUnknown)
	}
	if s.SitesPerSecond != nil && *s.SitesPerSecond <= 0 {
		return fmt.Errorf("sites_per_second must be more than 0: %w", ErrRefused)
	}
	if err := s.check(); err != nil {
		return err
	}
	g.tenant.change(g, s.SharePointOddities)
	g.status = status
	if status == StatusRegistered {
		g.progress = 100
	}
	set(&g.progress, s.Progress)
	set(&g.sites, s.SiteCount)
	set(&g.perSecond, s.SitesPerSecond)
	set(&g.uriVersion, s.URIVersion)
	if s.URIChange != nil {
		g.changeAtEnd = *s.URIChange == "end"
	}
	return nil
}

func set[T any](to *T, from *T) {
	if from != nil {
		*to = *from
	}
}

// PutPolicy adds a policy to a tenant, or replaces the one with the same GUID.
func (w *World) PutPolicy(tenant string, p Policy) error {
	w.lock()
	defer w.mu.Unlock()
	t := w.tenantOf(tenant)
	if t == nil {
		return fmt.Errorf("tenant %q: %w", tenant, ErrUnknown)
	}
	_, err := t.putPolicy(p)
	return err
}

// RemovePolicy takes a policy away, as if an administrator had deleted it.
func (w *World) RemovePolicy(tenant, guid string) error {
	w.lock()
	defer w.mu.Unlock()
	t := w.tenantOf(tenant)
	if t == nil {
		return fmt.Errorf("tenant %q: %w", tenant, ErrUnknown)
	}
	before := len(t.policies)
	t.policies = slices.DeleteFunc(t.policies, func(p *policy) bool { return strings.EqualFold(p.GUID, guid) })
	if len(t.policies) == before {
		return fmt.Errorf("policy %q: %w", guid, ErrUnknown)
	}
	return nil
}

// SetTrap switches trap mode: a SharePoint roll that starts while another runs
// is accepted instead of refused, so that Overlaps shows who did it.
func (w *World) SetTrap(on bool) {
	w.lock()
	defer w.mu.Unlock()
	w.trap = on
}

// RefreshByHand makes a policy (by GUID or name) take up its keys' newest
// versions, as an administrator would from a shell.
func (w *World) RefreshByHand(tenant, identity string) error {
	now := w.lock()
	defer w.mu.Unlock()
	t := w.tenantOf(tenant)
	if t == nil {
		return fmt.Errorf("tenant %q: %w", tenant, ErrUnknown)
	}
	p := t.policyOf(identity, "")
	if p == nil {
		return fmt.Errorf("policy %q: %w", identity, ErrUnknown)
	}
	versions, err := t.takeUp(p, now)
	if err != nil {
		return fmt.Errorf("refreshing by hand: %w: %w", ErrRefused, err)
	}
	e := Effect{Start: now, End: now, Service: ServiceExchange, Operation: OpSetDEP, Tenant: t.id, Target: p.GUID, Applied: true, By: byHand}
	if p.Workload == WorkloadMulti {
		e.Operation = OpSetM365DEP
	}
	for _, v := range versions {
		e.Versions = append(e.Versions, v.kid())
	}
	w.witness(e)
	return nil
}
