package jobs

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/keyroll/keyroll/internal/roll"
	"github.com/keyroll/keyroll/internal/store"
)

const (
	// ledgerAtOnce bounds the keys of one round, ledgerVaults the vaults that
	// are read side by side.
	ledgerAtOnce = 40
	ledgerVaults = 8
	// ledgerLook bounds one look, and ledgerLease how long a key that a process
	// took stays its own: a crash leaves the key due again after it.
	ledgerLook  = 20 * time.Second
	ledgerLease = 3 * time.Minute
	// ledgerAgain is how soon a key with a violation is looked at again, so that
	// its end is seen; ledgerFirstRetry the first wait after a failed look.
	ledgerAgain      = 15 * time.Minute
	ledgerFirstRetry = time.Minute
)

// watchLedger looks at the keys of the ledger whose turn has come: all keys
// that a policy ever used, former ones and those of retired tenants too (rule
// 12). It only ever reads at Microsoft. A look that fails changes no state.
func (d *Driver) watchLedger(ctx context.Context) error {
	turns := d.ledger.Take(time.Now(), ledgerAtOnce)
	if turns == 0 || d.draining() {
		return nil
	}
	due, err := d.store.DueLedgerKeys(ctx, turns, d.cfg.Ledger, ledgerLease)
	d.ledger.Give(turns - len(due))
	if err != nil {
		return err
	}
	byVault := map[string][]store.WatchedKey{}
	for _, w := range due {
		byVault[w.VaultHost] = append(byVault[w.VaultHost], w)
	}
	var all sync.WaitGroup
	slots := make(chan struct{}, ledgerVaults)
	for _, keys := range byVault {
		all.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			d.watchVault(ctx, keys)
		})
	}
	all.Wait()
	return nil
}

// watchVault looks at the keys of one vault, one after the other. Once the
// vault asks for fewer calls it is left alone, by every process.
func (d *Driver) watchVault(ctx context.Context, keys []store.WatchedKey) {
	for _, w := range keys {
		if !wait(ctx, d.ledger.Next(w.VaultHost, time.Now())) {
			return
		}
		throttled, err := d.lookAtKey(ctx, w)
		if err != nil && !errors.Is(err, store.ErrStale) && ctx.Err() == nil {
			d.log.Warn("looking at a key of the ledger failed", "tenant", w.TenantID, "vault", w.VaultHost, "key", w.Name, "err", err)
		}
		if throttled > 0 {
			if err := d.store.PutOffVault(ctx, w.VaultHost, d.cfg.Ledger, throttled); err != nil && ctx.Err() == nil {
				d.log.Warn("looking at a key of the ledger failed", "tenant", w.TenantID, "vault", w.VaultHost, "key", w.Name, "err", err)
			}
			return
		}
	}
}

// wait waits, and says whether the time was given.
func wait(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// lookAtKey looks at one key and records what was seen, or that nothing was.
// throttled is how long the vault asks to be left alone.
func (d *Driver) lookAtKey(ctx context.Context, w store.WatchedKey) (throttled time.Duration, err error) {
	t, err := d.store.Tenant(ctx, w.TenantID)
	if err != nil {
		return 0, err
	}
	// Before the look: a version that is recorded later is not judged by it.
	if w, err = d.store.LedgerKey(ctx, w); err != nil {
		return 0, err
	}
	at := d.store.Now()
	bound, cancel := context.WithTimeout(ctx, ledgerLook)
	defer cancel()
	l, failed := d.tenants.Look(bound, t.Inventory, w.Ledger.Key, w.Ledger.Versions)
	// What was seen is recorded also where the round's time is up.
	ctx, done := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer done()
	if failed != nil {
		return d.unread(ctx, w, failed)
	}
	l.At = at
	found := roll.CheckLedger(w.Ledger, l)
	next := d.cfg.Ledger - d.cfg.Ledger/20 + time.Duration(rand.Int64N(int64(d.cfg.Ledger)/10+1))
	if len(found) > 0 {
		next = min(next, ledgerAgain)
	}
	change, err := d.store.NoteLook(ctx, w, l, found, d.cfg.Ledger, next)
	if err != nil {
		return 0, err
	}
	d.metrics.looked(change)
	for _, v := range change.Opened {
		if v.Level == roll.LevelError {
			d.log.Error("the ledger is violated", "tenant", w.TenantID, "vault", w.VaultHost, "key", w.Name, "version", v.Version, "code", v.Code)
		}
	}
	return 0, nil
}

// unread records a look that failed. A key that has gone unread for two
// intervals becomes a matter for a person; what was last seen of it stands.
func (d *Driver) unread(ctx context.Context, w store.WatchedKey, failed error) (time.Duration, error) {
	v := d.cfg.classify(failed, w.Failures+1)
	next := d.cfg.Ledger
	for i, retry := 0, min(ledgerFirstRetry, d.cfg.Ledger); i <= w.Failures && retry < d.cfg.Ledger; i++ {
		next, retry = retry, 2*retry
	}
	next = max(next, v.After)
	trouble := roll.Trouble{Code: v.Code, Detail: v.Detail}
	var unverified *roll.Violation
	if w.UnverifiedSince != nil && d.store.Now().Sub(w.CheckedAt) > 2*d.cfg.Ledger {
		unverified = new(w.Ledger.Unverified(w.CheckedAt, trouble, v.Action, v.Absent))
	}
	d.metrics.unread()
	err := d.store.NoteTrouble(ctx, w, trouble, unverified, d.cfg.Ledger, next)
	if v.Throttled {
		return next, err
	}
	return 0, err
}
