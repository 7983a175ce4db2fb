package jobs

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/keyroll/keyroll/internal/store"
)

// Driver drives rolls: one job at a time drives one roll, as far as it goes.
// A Driver is one process's; worker is its id in steps and heartbeats, new at
// every start.
type Driver struct {
	store   *store.Store
	tenants Tenants
	cfg     Config
	worker  string
	log     *slog.Logger
	metrics *Metrics

	mu      sync.Mutex
	driving map[string]chan struct{} // roll id → kick
	drained chan struct{}
	drain   sync.Once

	ledger *pace
}

// NewDriver makes a driver. worker must be unique among all processes ever.
func NewDriver(st *store.Store, t Tenants, cfg Config, worker string, log *slog.Logger, m *Metrics) *Driver {
	cfg = cfg.WithDefaults()
	return &Driver{store: st, tenants: t, cfg: cfg, worker: worker, log: log, metrics: m,
		driving: map[string]chan struct{}{}, drained: make(chan struct{}), ledger: newPace(cfg.LedgerRate, cfg.LedgerPause)}
}

// Drain makes every drive begin nothing more and end when what it has under
// way has ended. What a kill leaves instead, the sweeper of another process
// picks up.
func (d *Driver) Drain() { d.drain.Do(func() { close(d.drained) }) }

func (d *Driver) draining() bool {
	select {
	case <-d.drained:
		return true
	default:
		return false
	}
}

// claim makes the caller the only one in this process that drives the roll.
// Where somebody does already, that one is told to look at the roll again.
func (d *Driver) claim(rollID string) (kick chan struct{}, ok bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if k, busy := d.driving[rollID]; busy {
		select {
		case k <- struct{}{}:
		default:
		}
		return nil, false
	}
	k := make(chan struct{}, 1)
	d.driving[rollID] = k
	return k, true
}

func (d *Driver) release(rollID string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.driving, rollID)
}

// Drive does what can be done for the roll now and until nothing is left to
// do at once. It returns when the roll wants to be driven again: zero means
// never by this job (it ended, a person must act, or somebody else drives it).
// An error is one that nobody expected; expected failures are in the roll.
func (d *Driver) Drive(ctx context.Context, rollID string) (time.Time, error) {
	for {
		kick, ok := d.claim(rollID)
		if !ok {
			return time.Time{}, nil
		}
		l := &lane{d: d, ctx: ctx, kick: kick, results: make(chan result), busy: map[int]bool{}, until: time.Now().Add(d.cfg.Lane)}
		wake, err := l.run(rollID)
		d.release(rollID)
		if err != nil || d.draining() || ctx.Err() != nil {
			return wake, err
		}
		select {
		case <-kick: // by a job that ended because we drive; nobody can kick any more
			continue
		default:
		}
		// An act of a person may have been committed after this drive last
		// looked and before it let go; its own job found us driving and ended.
		now, err := d.store.Roll(ctx, rollID)
		if err != nil || now.Version == l.roll.Version {
			return wake, err
		}
	}
}
