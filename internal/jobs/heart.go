package jobs

import (
	"context"
	"encoding/json"
	"errors"
	"sync"
	"time"

	"github.com/riverqueue/river/rivertype"

	"github.com/keyroll/keyroll/internal/roll"
	"github.com/keyroll/keyroll/internal/store"
)

// crashed is called for a job that panicked or failed in a way nobody
// expected: its steps are let go, and their intents stay open. If this fails
// too, the steps are taken over when their time is up.
func (d *Driver) crashed(ctx context.Context, job *rivertype.JobRow, detail string) {
	d.log.Error("job failed", "job", job.ID, "kind", job.Kind, "attempt", job.Attempt, "err", detail)
	var a struct {
		RollID string `json:"roll_id"`
	}
	if err := json.Unmarshal(job.EncodedArgs, &a); err != nil || a.RollID == "" {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	r, err := d.store.Roll(ctx, a.RollID)
	if err != nil {
		d.log.Error("letting go of a failed job's steps failed", "roll", a.RollID, "err", err)
		return
	}
	if _, busy := d.claim(a.RollID); !busy {
		return // another job of this process drives it by now
	}
	defer d.release(a.RollID)
	ev := roll.Crashed{Worker: d.worker, Detail: "a job failed; its log line has the cause", At: d.store.Now().Add(d.cfg.BackoffBase)}
	if _, err := d.store.Transition(ctx, r, ev); err != nil && !errors.Is(err, roll.ErrAlreadyApplied) {
		d.log.Error("letting go of a failed job's steps failed", "roll", a.RollID, "err", err)
	}
}

// Live keeps the process's sign of life and sweeps, until ctx ends. Then the
// sign is taken back. ready is closed after the first beat.
func (d *Driver) Live(ctx context.Context, ready chan<- struct{}) error {
	heart, err := d.store.NewHeart(ctx, d.worker)
	if err != nil {
		return err
	}
	close(ready)
	beat := time.NewTicker(d.cfg.Heartbeat)
	defer beat.Stop()
	// Beside the heartbeat, so that a slow round cannot make us look dead.
	var under sync.WaitGroup
	for _, r := range d.rounds() {
		under.Add(1)
		go func() {
			defer under.Done()
			d.repeat(ctx, r)
		}()
	}
	for {
		select {
		case <-ctx.Done():
			under.Wait() // what is under way ends first
			stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
			defer cancel()
			return heart.Stop(stop)
		case <-beat.C:
			bound, cancel := context.WithTimeout(ctx, d.cfg.Stale)
			if err := heart.Beat(bound); err != nil && ctx.Err() == nil {
				d.log.Warn("heartbeat failed", "err", err)
			}
			cancel()
			d.metrics.beat(d.store)
		}
	}
}

// round is work that comes round again in every process, besides the jobs.
// Replicas share it by what they claim in the database; nobody leads.
type round struct {
	// name says what failed, in the log.
	name string
	// every is the pause between two; limit bounds one.
	every, limit time.Duration
	// do does one. What it began and could not end, the next one finds again.
	do func(ctx context.Context) error
}

// rounds lists them all.
func (d *Driver) rounds() []round {
	return []round{
		{"sweep", d.cfg.Sweep, 20 * time.Second, d.sweep},
		{"looking at mailboxes", d.cfg.Sweep, time.Minute, d.lookAtMailboxes},
		{"looking for use", d.cfg.Sweep, time.Minute, d.lookForUse},
		{"watching the ledger", d.cfg.Sweep, time.Minute, d.watchLedger},
		{"comparing tenants", d.cfg.Sweep, 2 * time.Minute, d.compareTenants},
		{"pruning", time.Minute, time.Minute, d.prune},
		{"ending changes that nobody confirmed", time.Minute, time.Minute, d.expireChanges},
	}
}

// repeat runs a round until ctx ends: never two of a kind at once in a process.
func (d *Driver) repeat(ctx context.Context, r round) {
	tick := time.NewTicker(r.every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			bound, cancel := context.WithTimeout(ctx, r.limit)
			if err := r.do(bound); err != nil && ctx.Err() == nil {
				d.log.Warn(r.name+" failed", "err", err)
			}
			cancel()
		}
	}
}

func (d *Driver) prune(ctx context.Context) error {
	return errors.Join(d.store.PruneKeys(ctx), d.store.PruneWorkers(ctx))
}

// expireChanges ends the declarations that waited for a second person in vain.
func (d *Driver) expireChanges(ctx context.Context) error {
	_, err := d.store.ExpireChanges(ctx)
	return err
}

func (d *Driver) sweep(ctx context.Context) error {
	n, err := d.store.Sweep(ctx, d.cfg.Silent)
	if err != nil {
		return err
	}
	d.metrics.swept(n)
	_, err = d.store.FreeEndedLeases(ctx)
	return err
}

var _ store.Enqueuer = (*Queue)(nil)
