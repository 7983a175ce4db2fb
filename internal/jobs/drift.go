package jobs

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/keyroll/keyroll/internal/control"
	"github.com/keyroll/keyroll/internal/roll"
	"github.com/keyroll/keyroll/internal/store"
)

// comparisonsAtOnce bounds the tenants that one process compares at a time.
const comparisonsAtOnce = 4

// comparisonHold is for how long a tenant stays taken by a process that says
// no more about it: then another one takes its turn.
const comparisonHold = 5 * time.Minute

// compareTenants compares the tenants whose turn has come. What it records is
// the comparison; nothing is changed at Microsoft.
func (d *Driver) compareTenants(ctx context.Context) error {
	due, err := d.store.DueComparisons(ctx, comparisonsAtOnce, comparisonHold)
	if err != nil {
		return err
	}
	var all sync.WaitGroup
	for _, id := range due {
		all.Add(1)
		go func() {
			defer all.Done()
			bound, cancel := context.WithTimeout(ctx, d.cfg.CallRead)
			defer cancel()
			if err := d.compareTenant(bound, id); err != nil && ctx.Err() == nil {
				d.log.Warn("comparing a tenant failed", "tenant", id, "err", err)
			}
		}()
	}
	all.Wait()
	return nil
}

// compareTenant compares one. A declaration that changed meanwhile makes its
// tenant's turn come again when the hold ends, or sooner by itself.
func (d *Driver) compareTenant(ctx context.Context, id string) error {
	t, err := d.store.Tenant(ctx, id)
	if err != nil {
		return err
	}
	out, err := control.RecordComparison(ctx, d.store, d.tenants, t, roll.Keyroll(), d.cfg.untilCompared)
	if errors.Is(err, store.ErrStale) || errors.Is(err, store.ErrNotFound) {
		return nil
	}
	if err == nil && out.Passing != nil {
		d.log.Info("comparing a tenant was cut short", "tenant", id, "err", out.Passing)
	}
	return err
}

// untilCompared is how long until a tenant is compared again: the declared
// pause give or take a tenth, so that tenants spread out, or after failures
// that will pass a shorter one that doubles with each of them.
func (c Config) untilCompared(failures int) time.Duration {
	d := c.Drift
	if failures > 0 {
		d = c.DriftRetry
		for i := 1; i < failures && d < c.Drift; i++ {
			d *= 2
		}
		d = min(d, c.Drift)
	}
	return d - d/10 + time.Duration(rand.Int64N(int64(d)/5+1))
}
