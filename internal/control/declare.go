package control

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/keyroll/keyroll/internal/access"
	"github.com/keyroll/keyroll/internal/roll"
	"github.com/keyroll/keyroll/internal/store"
)

// UnreadableKeys refuses a declaration that brings keys which cannot be read:
// their versions could not be entered into the ledger (rule 12).
type UnreadableKeys struct{ Findings []roll.Finding }

func (e *UnreadableKeys) Error() string {
	return fmt.Sprintf("%d newly declared key(s) cannot be read, first: %s", len(e.Findings), e.Findings[0].Seen)
}

// Declare writes a tenant's declaration. version is the one that the caller
// read, 0 to make a new tenant. Keys that are new in the declaration are read
// first: all their versions enter the ledger in the same transaction. Errors:
// *roll.InvalidError, *UnreadableKeys, store.ErrStale, store.ErrExists,
// *store.KeyTakenError.
func (c *Control) Declare(ctx context.Context, p access.Principal, inv roll.Inventory, version int64) (store.Tenant, error) {
	if err := access.Allowed(p, access.WriteTenants); err != nil {
		return store.Tenant{}, err
	}
	inv, err := normalise(inv)
	if err != nil {
		return store.Tenant{}, err
	}
	if err := c.survey.Check(inv); err != nil {
		return store.Tenant{}, err
	}
	var before roll.Inventory
	switch t, err := c.store.Tenant(ctx, inv.TenantID); {
	case errors.Is(err, store.ErrNotFound):
		if version != 0 {
			return store.Tenant{}, store.ErrNotFound
		}
	case err != nil:
		return store.Tenant{}, err
	case version == 0:
		return store.Tenant{}, store.ErrExists
	case t.Version != version:
		return store.Tenant{}, &VersionError{Have: t.Version, Want: version}
	default:
		before = t.Inventory
	}
	obs, err := c.backfill(ctx, inv, before)
	if err != nil {
		return store.Tenant{}, err
	}
	return c.store.DeclareTenant(ctx, inv, version, actor(p), obs)
}

// backfill reads the keys that are new in the declaration.
func (c *Control) backfill(ctx context.Context, inv, before roll.Inventory) (roll.Observation, error) {
	known := map[roll.KeyRef]bool{}
	for _, k := range before.Keys {
		known[k.Ref()] = true
	}
	fresh := inv
	fresh.Keys, fresh.Policies, fresh.SharePoint.Geos = nil, nil, nil
	for _, k := range append(inv.Keys, inv.FormerKeys...) {
		if !known[k.Ref()] {
			fresh.Keys = append(fresh.Keys, k)
		}
	}
	if len(fresh.Keys) == 0 {
		return roll.Observation{}, nil
	}
	obs, err := c.survey.Survey(ctx, fresh)
	if err != nil {
		return obs, fmt.Errorf("reading the declared keys: %w", err)
	}
	var bad []roll.Finding
	for _, k := range fresh.Keys {
		if t := obs.Keys[k.ID].Trouble; t != nil {
			bad = append(bad, roll.Finding{Code: "key_unreadable", Level: roll.LevelError, Subject: "key:" + k.ID,
				Seen:   fmt.Sprintf("key %s in vault %s: %s", k.Name, k.VaultName(), t.Detail),
				Remedy: "correct vault_url and name, and grant Keyroll's application get and list on the vault's keys; then declare again"})
		}
	}
	if len(bad) > 0 {
		return obs, &UnreadableKeys{Findings: bad}
	}
	return obs, nil
}

// Retire marks a tenant as gone; its ledger and history stay.
func (c *Control) Retire(ctx context.Context, p access.Principal, id, reason string) (store.Tenant, error) {
	if err := access.Allowed(p, access.WriteTenants); err != nil {
		return store.Tenant{}, err
	}
	return c.store.RetireTenant(ctx, id, actor(p), reason)
}

var (
	guidForm = regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$`)
	idForm   = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,62}$`)
)

func invalid(pointer, format string, args ...any) error {
	return &roll.InvalidError{Pointer: pointer, Detail: fmt.Sprintf(format, args...)}
}

// normalise fills defaults and refuses a declaration that contradicts itself.
func normalise(inv roll.Inventory) (roll.Inventory, error) {
	inv.TenantID = strings.ToLower(inv.TenantID)
	if !guidForm.MatchString(inv.TenantID) {
		return inv, invalid("/tenant_id", "use the Entra tenant's GUID")
	}
	if inv.Approval == "" {
		inv.Approval = roll.ApprovalRequired
	}
	if inv.SharePoint.Lease == "" {
		inv.SharePoint.Lease = roll.LeasePerTenant
	}
	if len(inv.Windows) > 0 {
		return inv, invalid("/windows", "change windows are not supported yet: leave the list empty")
	}
	keys, err := checkKeys(inv)
	if err != nil {
		return inv, err
	}
	geos := map[string]bool{}
	for i, g := range inv.SharePoint.Geos {
		if geos[g.ID] {
			return inv, invalid(fmt.Sprintf("/sharepoint/geos/%d/id", i), "geo %q is declared twice", g.ID)
		}
		geos[g.ID] = true
	}
	ids, guids, perGeo := map[string]bool{}, map[string]bool{}, map[string]bool{}
	for i := range inv.Policies {
		p := &inv.Policies[i]
		at := fmt.Sprintf("/policies/%d", i)
		if ids[p.ID] {
			return inv, invalid(at+"/id", "policy %q is declared twice", p.ID)
		}
		ids[p.ID] = true
		p.GUID = strings.ToLower(p.GUID)
		if p.GUID != "" && guids[p.GUID] {
			return inv, invalid(at+"/guid", "GUID %s is declared twice", p.GUID)
		}
		guids[p.GUID] = true
		if err := checkPolicy(at, *p, keys, geos); err != nil {
			return inv, err
		}
		if p.Workload == roll.SharePoint && perGeo[p.Geo] {
			return inv, invalid(at+"/geo", "geo %q has a policy already; SharePoint has one a geo", p.Geo)
		}
		perGeo[p.Geo] = p.Workload == roll.SharePoint || perGeo[p.Geo]
	}
	return inv, nil
}

func checkKeys(inv roll.Inventory) (map[string]bool, error) {
	keys, refs := map[string]bool{}, map[roll.KeyRef]bool{}
	for i, k := range inv.Keys {
		at := fmt.Sprintf("/keys/%d", i)
		if !idForm.MatchString(k.ID) {
			return nil, invalid(at+"/id", "an id has up to 63 of a-z, 0-9, dot, dash and underscore")
		}
		ref := k.Ref()
		ref.Name = strings.ToLower(ref.Name)
		if keys[k.ID] || refs[ref] {
			return nil, invalid(at, "key %q is declared twice", k.ID)
		}
		keys[k.ID], refs[ref] = true, true
	}
	return keys, nil
}

func checkPolicy(at string, p roll.Policy, keys, geos map[string]bool) error {
	switch p.Workload {
	case roll.SharePoint:
		if !geos[p.Geo] {
			return invalid(at+"/geo", "geo %q is not among sharepoint.geos", p.Geo)
		}
		if p.Primary == p.Secondary {
			return invalid(at+"/secondary", "primary and secondary are the same key")
		}
	case roll.Exchange, roll.MultiWorkload:
		if !guidForm.MatchString(p.GUID) {
			return invalid(at+"/guid", "name the policy's GUID as Microsoft shows it")
		}
	default:
		return invalid(at+"/workload", "workload %q is unknown; use multi-workload, exchange or sharepoint", p.Workload)
	}
	seen := map[string]bool{}
	for _, id := range p.KeyIDs() {
		if !keys[id] {
			return invalid(at, "policy %q uses key %q, which is not declared", p.ID, id)
		}
		if seen[id] {
			return invalid(at, "policy %q names key %q twice", p.ID, id)
		}
		seen[id] = true
	}
	if len(seen) < 2 {
		return invalid(at+"/keys", "a policy has two keys, in two vaults")
	}
	return nil
}

// MinGap is the declared pause between SharePoint operations, or the default
// where the declaration names none.
func MinGap(declared *time.Duration) roll.Duration {
	if declared == nil {
		return roll.Duration(roll.DefaultMinGap)
	}
	return roll.Duration(*declared)
}
