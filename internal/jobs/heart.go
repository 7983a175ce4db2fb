package jobs

import (
	"context"
	"encoding/json"
	"errors"
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
	beat, sweep := time.NewTicker(d.cfg.Heartbeat), time.NewTicker(d.cfg.Sweep)
	tidy := time.NewTicker(time.Minute)
	defer beat.Stop()
	defer sweep.Stop()
	defer tidy.Stop()
	swept, looked := make(chan struct{}, 1), make(chan struct{}, 1)
	swept <- struct{}{}
	looked <- struct{}{}
	for {
		select {
		case <-ctx.Done():
			<-swept // what is under way ends first
			<-looked
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
		case <-sweep.C:
			// Beside the heartbeat, so that a slow sweep cannot make us look dead.
			select {
			case <-swept:
				go func() {
					d.sweep(ctx)
					swept <- struct{}{}
				}()
			default:
			}
			select {
			case <-looked:
				go func() {
					d.lookAtMailboxes(ctx)
					looked <- struct{}{}
				}()
			default:
			}
		case <-tidy.C:
			if err := errors.Join(d.store.PruneKeys(ctx), d.store.PruneWorkers(ctx)); err != nil && ctx.Err() == nil {
				d.log.Warn("pruning failed", "err", err)
			}
		}
	}
}

func (d *Driver) sweep(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	n, err := d.store.Sweep(ctx, d.cfg.Silent)
	if err == nil {
		d.metrics.swept(n)
		_, err = d.store.FreeEndedLeases(ctx)
	}
	if err != nil && ctx.Err() == nil {
		d.log.Warn("sweep failed", "err", err)
	}
}

var _ store.Enqueuer = (*Queue)(nil)
