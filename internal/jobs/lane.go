package jobs

import (
	"context"
	"fmt"
	"time"

	"github.com/keyroll/keyroll/internal/roll"
)

// lane is one drive of one roll. Its loop alone owns the roll's value; steps
// run in goroutines of their own and hand it their events.
type lane struct {
	d       *Driver
	ctx     context.Context
	kick    chan struct{}
	results chan result
	busy    map[int]bool // steps that run in this lane
	roll    roll.Roll
	until   time.Time
	silent  map[string]bool
	moved   map[int]bool // steps whose opening an edit of the calendar has moved
	heir    map[int]bool // lease steps in the queue to which the lease has been handed
	panics  []string
	begun   bool // it has begun something
}

// result is how a step's attempt ended.
type result struct {
	n        int
	event    roll.Event
	panicked string
}

// width bounds how many steps of one roll run at once.
const width = 8

func (l *lane) run(rollID string) (time.Time, error) {
	if err := l.reread(rollID); err != nil {
		return time.Time{}, err
	}
	defer l.settleDown()
	var done []roll.Event
	idle := 0
	for {
		if err := l.advance(done); err != nil {
			return time.Time{}, err
		}
		done = nil
		if len(l.panics) > 0 && len(l.busy) == 0 {
			return l.crash()
		}
		if len(l.busy) == 0 {
			wake := l.roll.WakeAt
			if wake == nil || l.over() {
				return zeroOr(wake), nil
			}
			wait := wake.Sub(l.d.store.Now())
			if wait > l.d.cfg.ShortWait {
				return *wake, nil
			}
			// Never a busy loop, whatever the roll says.
			idle = min(idle+1, 100)
			done = l.next(max(wait, time.Duration(idle)*10*time.Millisecond))
			continue
		}
		// What is under way holds up no other step whose time comes meanwhile.
		idle = min(idle+1, 100)
		wait := time.Hour
		if wake := l.roll.WakeAt; wake != nil && !l.over() {
			wait = wake.Sub(l.d.store.Now())
		}
		if done = l.next(max(wait, time.Duration(idle)*10*time.Millisecond)); len(done) > 0 {
			idle = 0
		}
	}
}

func zeroOr(t *time.Time) time.Time {
	if t == nil {
		return time.Time{}
	}
	return *t
}

// over says that this lane should begin nothing more. However short its time,
// it may begin something once: lanes that never did would be put off for ever.
func (l *lane) over() bool {
	until := l.until
	if !l.begun {
		until = until.Add(l.d.cfg.CallRead)
	}
	return l.d.draining() || l.ctx.Err() != nil || time.Now().After(until) || len(l.panics) > 0
}

// next waits for a result, a kick, the time or the end of the job, and returns
// the events of all results that are there.
func (l *lane) next(wait time.Duration) []roll.Event {
	t := time.NewTimer(wait)
	defer t.Stop()
	drained, gone := l.d.drained, l.ctx.Done()
	if len(l.busy) > 0 {
		// Only results count: what is under way is waited for.
		drained, gone = nil, nil
	}
	select {
	case r := <-l.results:
		return l.collect(r)
	case <-l.kick:
		if err := l.reread(l.roll.ID); err != nil {
			l.d.log.Warn("rereading a roll failed", "roll", l.roll.ID, "err", err)
		}
	case <-t.C:
	case <-drained:
	case <-gone:
	}
	return nil
}

func (l *lane) collect(first result) []roll.Event {
	var out []roll.Event
	take := func(r result) {
		delete(l.busy, r.n)
		if r.panicked != "" {
			l.panics = append(l.panics, r.panicked)
		} else if r.event != nil {
			out = append(out, r.event)
		}
	}
	take(first)
	for {
		select {
		case r := <-l.results:
			take(r)
		default:
			return out
		}
	}
}

// settleDown lets the goroutines of a lane that ended early hand over nothing.
func (l *lane) settleDown() {
	for len(l.busy) > 0 {
		delete(l.busy, (<-l.results).n)
	}
}

func (l *lane) reread(rollID string) error {
	ctx, cancel := l.writing()
	defer cancel()
	r, err := l.d.store.Roll(ctx, rollID)
	if err != nil {
		return fmt.Errorf("reading roll %s: %w", rollID, err)
	}
	l.roll = r
	if err := l.askHeir(ctx); err != nil {
		return err
	}
	if err := l.askCalendar(ctx); err != nil {
		return err
	}
	return l.askSilent(ctx)
}

// askHeir finds out whether a lease that the roll queues for has been handed to
// it: a hand-over wakes the roll and leaves its row alone, so the step itself
// still says that it waits.
func (l *lane) askHeir(ctx context.Context) error {
	l.heir = nil
	for _, s := range l.roll.Steps {
		if s.Kind != roll.SharePointLease || s.WaitingFor != roll.WaitQueue {
			continue
		}
		holds, err := l.d.store.HoldsLease(ctx, l.roll.TenantID, s.Params.Scope, l.roll.ID)
		if err != nil {
			return err
		}
		if holds {
			l.heir = map[int]bool{s.N: true}
		}
	}
	return nil
}

// writing is the context of what must be recorded even when the job's own time
// is up: an effect that landed and was not recorded would have to be found again.
func (l *lane) writing() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(l.ctx), 5*time.Second)
}

// askSilent finds out which workers of running steps are gone.
func (l *lane) askSilent(ctx context.Context) error {
	var ids []string
	for _, s := range l.roll.Steps {
		if s.State == roll.StepRunning && s.Worker != l.d.worker {
			ids = append(ids, s.Worker)
		}
	}
	l.silent = nil
	if len(ids) == 0 {
		return nil
	}
	var err error
	l.silent, err = l.d.store.SilentWorkers(ctx, ids, l.d.cfg.Silent)
	return err
}

// gone: our own steps that do not run in this lane (it is the only one of this
// process), those of silent workers, and those past their time.
func (l *lane) gone(s roll.Step) bool {
	if l.busy[s.N] {
		return false
	}
	if s.Worker == l.d.worker || l.silent[s.Worker] {
		return true
	}
	return s.RunUntil != nil && l.d.store.Now().After(s.RunUntil.Add(l.d.cfg.Silent))
}
