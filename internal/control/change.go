package control

import (
	"context"
	"errors"
	"fmt"

	"github.com/keyroll/keyroll/internal/access"
	"github.com/keyroll/keyroll/internal/roll"
	"github.com/keyroll/keyroll/internal/store"
)

// ChangePending: a declaration was not written, because it weakens what holds.
// It waits for a second person.
type ChangePending struct{ Change store.TenantChange }

func (e *ChangePending) Error() string {
	first := e.Change.Weakens[0]
	return fmt.Sprintf("the declaration waits for a second person as change %s: it weakens %d member(s), first %s: %s", e.Change.ID, len(e.Change.Weakens), first.Pointer, first.What)
}

// ChangeEnded: the change is no longer pending.
type ChangeEnded struct{ Change store.TenantChange }

func (e *ChangeEnded) Error() string {
	return fmt.Sprintf("change %s is %s", e.Change.ID, e.Change.State)
}

// ApproveChange carries out a declaration that another person asked for. hash
// is that of the change as the second person read it. Where the tenant has
// changed meanwhile the change ends stale and nothing is declared. Errors:
// those of Declare, store.ErrSamePerson, *ChangeEnded.
func (c *Control) ApproveChange(ctx context.Context, p access.Principal, tenantID, id, hash, comment string) (store.Tenant, error) {
	change, err := c.pending(ctx, p, access.ApproveTenantChange, tenantID, id)
	if err != nil {
		return store.Tenant{}, err
	}
	if change.Hash != hash {
		return store.Tenant{}, invalid("/hash", "the change has hash %s: read what it weakens, and send that one", change.Hash)
	}
	if change.RequestedBy.Subject == p.Subject {
		return store.Tenant{}, store.ErrSamePerson
	}
	// Checked again: credentials and rules may have changed since it was asked for.
	inv, err := normalise(change.Inventory)
	if err != nil {
		return store.Tenant{}, err
	}
	if err := c.survey.Check(inv); err != nil {
		return store.Tenant{}, err
	}
	before, err := c.replaces(ctx, tenantID, change.BaseVersion)
	var other *VersionError
	if errors.As(err, &other) || errors.Is(err, store.ErrExists) {
		return store.Tenant{}, c.stale(ctx, change)
	}
	if err != nil {
		return store.Tenant{}, err
	}
	if err := c.keepLease(ctx, inv, before); err != nil {
		return store.Tenant{}, err
	}
	obs, err := c.backfill(ctx, inv, before)
	if err != nil {
		return store.Tenant{}, err
	}
	out, err := c.store.ApproveChange(ctx, change, actor(p), comment, obs)
	if errors.Is(err, store.ErrStale) || errors.Is(err, store.ErrExists) {
		return out, c.stale(ctx, change)
	}
	if err != nil {
		return out, err
	}
	return c.probe(ctx, out), nil
}

// RejectChange ends a change without carrying it out. Who asked for it may
// take it back so.
func (c *Control) RejectChange(ctx context.Context, p access.Principal, tenantID, id, reason string) (store.TenantChange, error) {
	change, err := c.pending(ctx, p, access.RejectTenantChange, tenantID, id)
	if err != nil {
		return change, err
	}
	out, err := c.store.EndChange(ctx, change, store.ChangeRejected, actor(p), reason)
	if errors.Is(err, store.ErrStale) {
		return out, c.ended(ctx, change)
	}
	return out, err
}

// pending reads a change that p may decide on.
func (c *Control) pending(ctx context.Context, p access.Principal, a access.Action, tenantID, id string) (store.TenantChange, error) {
	if err := access.Allowed(p, a); err != nil {
		return store.TenantChange{}, err
	}
	change, err := c.store.Change(ctx, tenantID, id)
	if err != nil {
		return change, err
	}
	if change.State == store.ChangePending && !change.ExpiresAt.After(c.store.Now()) {
		if _, err := c.store.EndChange(ctx, change, store.ChangeExpired, roll.Keyroll(), ""); err != nil && !errors.Is(err, store.ErrStale) {
			return change, err
		}
		return change, c.ended(ctx, change)
	}
	if change.State != store.ChangePending {
		return change, &ChangeEnded{Change: change}
	}
	return change, nil
}

// stale ends a change whose tenant is no longer what it was asked over; or
// says how somebody else ended it first.
func (c *Control) stale(ctx context.Context, change store.TenantChange) error {
	if _, err := c.store.EndChange(ctx, change, store.ChangeStale, roll.Keyroll(), ""); err != nil && !errors.Is(err, store.ErrStale) {
		return err
	}
	return c.ended(ctx, change)
}

func (c *Control) ended(ctx context.Context, change store.TenantChange) error {
	now, err := c.store.Change(ctx, change.TenantID, change.ID)
	if err != nil {
		return err
	}
	return &ChangeEnded{Change: now}
}
