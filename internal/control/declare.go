package control

import (
	"context"
	"errors"
	"fmt"
	"slices"
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
// first: all their versions enter the ledger in the same transaction. A
// declaration that weakens what holds is not written but kept for a second
// person: *ChangePending. Nothing of it has been tried by then, since the
// credential must not go to a host that one person alone has named. Errors:
// *roll.InvalidError, *UnreadableKeys, *UnavailableError, *VersionError,
// store.ErrNotFound, store.ErrExists, *store.KeyTakenError.
func (c *Control) Declare(ctx context.Context, p access.Principal, inv roll.Inventory, version int64) (store.Tenant, error) {
	if err := access.Allowed(p, access.WriteTenants); err != nil {
		return store.Tenant{}, err
	}
	inv, err := normalise(inv)
	if err != nil {
		return store.Tenant{}, err
	}
	if err := roll.CheckCalendar(inv, c.store.Now()); err != nil {
		return store.Tenant{}, err
	}
	if err := c.survey.Check(inv); err != nil {
		return store.Tenant{}, err
	}
	before, err := c.replaces(ctx, inv.TenantID, version)
	if err != nil {
		return store.Tenant{}, err
	}
	if err := c.keepLease(ctx, inv, before); err != nil {
		return store.Tenant{}, err
	}
	if weakens := weakens(before, inv, version); len(weakens) > 0 {
		change, err := c.store.ProposeChange(ctx, inv, version, weakens, actor(p), c.patience)
		if err != nil {
			return store.Tenant{}, err
		}
		return store.Tenant{}, &ChangePending{Change: change}
	}
	obs, err := c.backfill(ctx, inv, before)
	if err != nil {
		return store.Tenant{}, err
	}
	out, err := c.store.DeclareTenant(ctx, inv, version, actor(p), obs)
	if errors.Is(err, store.ErrStale) {
		now, readErr := c.store.Tenant(ctx, inv.TenantID)
		if readErr != nil {
			return out, readErr
		}
		return out, &VersionError{Have: now.Version, Want: version}
	}
	if err != nil {
		return out, err
	}
	return c.probe(ctx, out), nil
}

// probePatience is how long a declaration waits for the probe of its transports.
const probePatience = 20 * time.Second

// probe finds out by which transports the tenant can be changed, and records
// it. It holds up no declaration: what cannot be found out now, the next plan
// finds out.
func (c *Control) probe(ctx context.Context, t store.Tenant) store.Tenant {
	bounded, cancel := context.WithTimeout(ctx, probePatience)
	defer cancel()
	chosen := c.survey.Probe(bounded, t.Inventory)
	if err := c.store.NoteTransports(ctx, t.Inventory, chosen); err != nil {
		return t
	}
	now, err := c.store.Tenant(ctx, t.Inventory.TenantID)
	if err != nil {
		return t
	}
	return now
}

// replaces reads the declaration that one over version takes the place of.
func (c *Control) replaces(ctx context.Context, tenantID string, version int64) (roll.Inventory, error) {
	switch t, err := c.store.Tenant(ctx, tenantID); {
	case errors.Is(err, store.ErrNotFound) && version == 0:
		return roll.Inventory{}, nil
	case err != nil:
		return roll.Inventory{}, err
	case version == 0:
		return roll.Inventory{}, store.ErrExists
	case t.Version != version:
		return roll.Inventory{}, &VersionError{Have: t.Version, Want: version}
	default:
		return t.Inventory, nil
	}
}

func weakens(before, inv roll.Inventory, version int64) []roll.Weakening {
	if version == 0 {
		return roll.WeakensDefaults(inv)
	}
	return roll.Weakens(before, inv)
}

// keepLease refuses to change what the SharePoint lease guards while a roll
// that was planned under the old one is at work: two leases would let two
// operations through at once (rule 4). Rolls that have not begun plan again.
func (c *Control) keepLease(ctx context.Context, inv, before roll.Inventory) error {
	if before.SharePoint.Lease == "" || before.SharePoint.Lease == inv.SharePoint.Lease {
		return nil
	}
	for _, state := range []roll.State{roll.Running, roll.NeedsAttention, roll.Cancelling} {
		open, err := c.store.Rolls(ctx, store.RollFilter{TenantID: inv.TenantID, State: string(state), Limit: 1})
		if err != nil {
			return err
		}
		if len(open) > 0 {
			return invalid("/sharepoint/lease", "roll %s is under way under the present lease: change it when the roll has ended", open[0].ID)
		}
	}
	return nil
}

// backfill reads the keys that are new in the declaration.
func (c *Control) backfill(ctx context.Context, inv, before roll.Inventory) (roll.Observation, error) {
	known := map[roll.KeyRef]bool{}
	for _, k := range slices.Concat(before.Keys, before.FormerKeys) {
		known[k.Ref()] = true
	}
	fresh := inv
	fresh.Keys, fresh.Policies, fresh.SharePoint.Geos = nil, nil, nil
	for _, k := range slices.Concat(inv.Keys, inv.FormerKeys) {
		if !known[k.Ref()] {
			fresh.Keys = append(fresh.Keys, k)
		}
	}
	if len(fresh.Keys) == 0 {
		return roll.Observation{}, nil
	}
	obs, err := c.look(ctx, fresh)
	if err != nil {
		return obs, err
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
