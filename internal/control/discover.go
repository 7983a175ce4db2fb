package control

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/keyroll/keyroll/internal/access"
	"github.com/keyroll/keyroll/internal/roll"
	"github.com/keyroll/keyroll/internal/store"
)

// discoverer reads a tenant at Microsoft for a comparison. It changes nothing.
// Its error joins failures that will pass; the observation beside it holds what
// could be read, with a Trouble in place of the rest.
type discoverer interface {
	Discover(ctx context.Context, inv roll.Inventory) (roll.Observation, error)
}

// Discovery is a tenant held against what Microsoft has. Passing joins the
// failures that will pass; Standing is the drift as it is recorded now.
type Discovery struct {
	Tenant      store.Tenant
	Observation roll.Observation
	Comparison  roll.Comparison
	Passing     error
	Standing    store.TenantDrift
}

// Discover compares a tenant's declaration with what Microsoft has, and
// records what differs. It changes nothing at Microsoft. What cannot be read is
// among what was not checked. Errors: *access.Denied, store.ErrNotFound,
// ErrRetired, store.ErrStale where the declaration keeps changing meanwhile,
// and *UnavailableError where time ran out.
func (c *Control) Discover(ctx context.Context, p access.Principal, tenantID string) (Discovery, error) {
	if err := access.Allowed(p, access.Discover); err != nil {
		return Discovery{}, err
	}
	for attempt := 1; ; attempt++ {
		t, err := c.tenant(ctx, tenantID)
		if err != nil {
			return Discovery{}, err
		}
		d, err := RecordComparison(ctx, c.store, c.survey, t, actor(p), nil)
		if !errors.Is(err, store.ErrStale) || attempt == 3 {
			return d, err
		}
	}
}

// RecordComparison compares a tenant and records the result in the name of by;
// next says when the tenant's turn comes again, nil leaves that as it is.
// Errors: store.ErrStale, store.ErrNotFound, *UnavailableError.
func RecordComparison(ctx context.Context, st *store.Store, r discoverer, t store.Tenant, by roll.Actor, next func(failures int) time.Duration) (Discovery, error) {
	at := st.Now()
	d, err := Compare(ctx, st, r, t)
	if err != nil {
		return d, err
	}
	d.Standing, err = st.RecordDrift(ctx, store.Look{TenantID: t.Inventory.TenantID, TenantVersion: t.Version, At: at, Comparison: d.Comparison,
		Reads: roll.Reads(t.Inventory, d.Observation), Complete: d.Passing == nil, By: by, Next: next})
	return d, err
}

// Compare reads Microsoft and the database and compares; it records nothing. A
// read that the end of ctx cut off is no finding about the tenant, so it fails
// as a whole: *UnavailableError.
func Compare(ctx context.Context, st *store.Store, r discoverer, t store.Tenant) (Discovery, error) {
	d := Discovery{Tenant: t}
	_, before, err := st.DriftBasis(ctx, t.Inventory)
	if err != nil {
		return d, err
	}
	d.Observation, d.Passing = r.Discover(ctx, t.Inventory)
	if err := ctx.Err(); err != nil {
		return d, &UnavailableError{Err: errors.Join(d.Passing, err)}
	}
	ledger, after, err := st.DriftBasis(ctx, t.Inventory)
	if err != nil {
		return d, err
	}
	// A roll that ended meanwhile explains what was read before it did.
	for _, r := range before {
		if slices.ContainsFunc(after, func(o roll.Roll) bool { return o.ID == r.ID }) {
			continue
		}
		ended, err := st.Roll(ctx, r.ID)
		if err != nil {
			return d, err
		}
		after = append(after, ended)
	}
	d.Comparison = roll.Drift(roll.DriftBasis{Inventory: t.Inventory, Observation: d.Observation, Ledger: ledger, Rolls: slices.Concat(before, after)})
	return d, nil
}

// StandingDrift is what the last comparisons of a tenant left. It calls nobody.
func (c *Control) StandingDrift(ctx context.Context, p access.Principal, tenantID string) (store.TenantDrift, error) {
	if err := access.Allowed(p, access.ReadTenants); err != nil {
		return store.TenantDrift{}, err
	}
	return c.store.TenantDrift(ctx, tenantID)
}

// Checklist says what is still to be granted in a tenant, by what the last
// look could read and by what Keyroll has done there. It calls nobody.
func (c *Control) Checklist(ctx context.Context, p access.Principal, tenantID string) (store.TenantDrift, []roll.Grant, error) {
	if err := access.Allowed(p, access.ReadTenants); err != nil {
		return store.TenantDrift{}, nil, err
	}
	t, err := c.store.Tenant(ctx, tenantID)
	if err != nil {
		return store.TenantDrift{}, nil, err
	}
	d, err := c.store.TenantDrift(ctx, tenantID)
	if err != nil {
		return d, nil, err
	}
	proof, err := c.store.Proof(ctx, tenantID)
	if err != nil {
		return d, nil, err
	}
	return d, roll.Checklist(t.Inventory, c.survey.Grantee(t.Inventory), d.Reads, proof), nil
}
