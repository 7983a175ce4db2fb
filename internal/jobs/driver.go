package jobs

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/keyroll/keyroll/internal/roll"
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
}

// NewDriver makes a driver. worker must be unique among all processes ever.
func NewDriver(st *store.Store, t Tenants, cfg Config, worker string, log *slog.Logger, m *Metrics) *Driver {
	return &Driver{store: st, tenants: t, cfg: cfg.WithDefaults(), worker: worker, log: log, metrics: m,
		driving: map[string]chan struct{}{}, drained: make(chan struct{})}
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
	heir    map[int]bool // lease steps in the queue to which the lease has been handed
	panics  []string
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

// over says that this lane should begin nothing more.
func (l *lane) over() bool {
	return l.d.draining() || l.ctx.Err() != nil || time.Now().After(l.until) || len(l.panics) > 0
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

// advance records what has ended, claims what may begin now, in one
// transition, and starts it. A refusal means that the roll has moved on
// without us: it is read again, and what has ended is recorded event by event.
func (l *lane) advance(done []roll.Event) error {
	events, work := l.plan(done)
	if len(events) > 0 {
		if err := l.transition(events); err != nil {
			var refused *roll.TransitionError
			if !errors.As(err, &refused) {
				return err
			}
			return l.advanceSingly(done)
		}
	}
	l.start(work)
	return nil
}

func (l *lane) transition(events []roll.Event) error {
	ctx, cancel := l.writing()
	defer cancel()
	r, err := l.d.store.Transition(ctx, l.roll, events...)
	if errors.Is(err, roll.ErrAlreadyApplied) {
		return l.reread(l.roll.ID)
	}
	if err != nil {
		return err
	}
	l.d.metrics.moved(l.roll, r, events)
	l.roll = r
	return nil
}

func (l *lane) advanceSingly(done []roll.Event) error {
	if err := l.reread(l.roll.ID); err != nil {
		return err
	}
	for _, ev := range done {
		var refused *roll.TransitionError
		switch err := l.transition([]roll.Event{ev}); {
		case errors.As(err, &refused):
			l.d.log.Warn("event refused", "roll", l.roll.ID, "event", ev.Type(), "code", refused.Code)
		case err != nil:
			return err
		}
	}
	events, work := l.plan(nil)
	if len(events) == 0 {
		l.start(work)
		return nil
	}
	var refused *roll.TransitionError
	if err := l.transition(events); errors.As(err, &refused) {
		// Once more overtaken: the next turn of the loop begins from a fresh read.
		return l.reread(l.roll.ID)
	} else if err != nil {
		return err
	}
	l.start(work)
	return nil
}

// job is one piece of work that was claimed, with what the step was before.
type job struct {
	work roll.Work
	// settle: an intent was open before the claim; due: its deadline had passed.
	settle, due bool
	// epoch of the step before the claim, as this lane knew it.
	epoch int64
}

// plan applies what has ended to a copy of the roll and chooses what to begin
// after it: the events to commit together, and the work to start when they are.
func (l *lane) plan(done []roll.Event) ([]roll.Event, []job) {
	now := l.d.store.Now()
	r := l.roll
	events := append([]roll.Event(nil), done...)
	for _, ev := range done {
		if next, _, err := r.Apply(ev, now); err == nil {
			r = next
		}
	}
	switch {
	case r.State == roll.Scheduled && (r.Request.StartAt == nil || !r.Request.StartAt.After(now)):
		events = append(events, roll.Due{})
		r, _, _ = r.Apply(roll.Due{}, now)
	case r.State == roll.AwaitingApproval && r.ApprovalExpires != nil && !now.Before(*r.ApprovalExpires):
		return append(events, roll.ApprovalExpired{}), nil
	}
	if l.over() || l.d.store.Clock().Age() > l.d.cfg.Stale {
		return events, nil
	}
	var work []job
	for _, w := range l.due(r, now) {
		if len(l.busy)+len(work) >= width || l.busy[w.N] {
			continue
		}
		s, _ := r.StepByN(w.N)
		if !w.Poll {
			run, settle := l.d.cfg.budget(s.Kind)
			ev := roll.Begun{N: w.N, Worker: l.d.worker, RunFor: run, Settle: settle, Takeover: w.Takeover}
			if _, _, err := r.Apply(ev, now); err != nil {
				continue
			}
			events = append(events, ev)
		}
		work = append(work, job{work: w, epoch: s.Epoch, settle: s.IntentOpen, due: s.IntentDeadline == nil || !now.Before(*s.IntentDeadline)})
	}
	return events, work
}

// due is what the roll says may be done now, and the leases that came to it.
func (l *lane) due(r roll.Roll, now time.Time) []roll.Work {
	work := r.Next(now, l.gone)
	for n := range l.heir {
		if s, ok := r.StepByN(n); ok && s.State == roll.StepWaiting && !slices.ContainsFunc(work, func(w roll.Work) bool { return w.N == n }) {
			work = append(work, roll.Work{N: n, Poll: true})
		}
	}
	return work
}

// start runs the claimed work. The lease is the store's own affair and is
// asked for here, in the loop, since it changes the roll itself.
func (l *lane) start(work []job) {
	for _, j := range work {
		s, ok := l.roll.StepByN(j.work.N)
		if !ok || (!j.work.Poll && (s.State != roll.StepRunning || s.Worker != l.d.worker)) || (j.work.Poll && s.State != roll.StepWaiting) {
			continue
		}
		if s.Kind == roll.SharePointLease {
			l.lease(s)
			continue
		}
		l.busy[s.N] = true
		a := &attempt{d: l.d, roll: l.roll, step: s, settle: j.settle, due: j.due}
		if !j.work.Poll && s.Epoch != j.epoch+1 {
			// The claim was written over one of another process, which this lane
			// had not seen: what that one called must be settled first.
			a.settle, a.due = s.IntentOpen, false
		}
		go func() {
			out := result{n: s.N}
			defer func() {
				if p := recover(); p != nil {
					out.event, out.panicked = nil, fmt.Sprintf("step %d (%s): %v", s.N, s.Kind, p)
					l.d.log.Error("step panicked", "roll", a.roll.ID, "step", s.N, "kind", s.Kind, "panic", fmt.Sprint(p), "stack", stack())
				}
				l.results <- out
			}()
			run, _ := l.d.cfg.budget(s.Kind)
			if !j.work.Poll && s.RunUntil != nil {
				// The intent's deadline counts from the claim, not from its commit.
				run = min(run, s.RunUntil.Sub(l.d.store.Now()))
			}
			ctx, cancel := context.WithTimeout(l.ctx, run)
			defer cancel()
			out.event = a.do(ctx)
		}()
	}
}

func (l *lane) lease(s roll.Step) {
	ctx, cancel := l.writing()
	defer cancel()
	r, err := l.d.store.TakeLease(ctx, l.roll, s.N, s.Epoch, l.d.cfg.QueueCheck)
	l.heir = nil
	if err == nil {
		l.d.metrics.moved(l.roll, r, nil)
		l.roll = r
		return
	}
	if !errors.Is(err, store.ErrStale) {
		l.d.log.Warn("asking for the SharePoint lease failed", "roll", l.roll.ID, "err", err)
		if err := l.transition([]roll.Event{roll.WillRetry{N: s.N, Epoch: s.Epoch, At: l.d.store.Now().Add(l.d.cfg.BackoffBase), Code: "database", Detail: "the lease could not be asked for"}}); err != nil {
			l.d.log.Warn("putting the lease off failed", "roll", l.roll.ID, "err", err)
		}
	}
	if err := l.reread(l.roll.ID); err != nil {
		l.d.log.Warn("rereading a roll failed", "roll", l.roll.ID, "err", err)
	}
}

// crash lets go of what a panic left held.
func (l *lane) crash() (time.Time, error) {
	ctx, cancel := l.writing()
	defer cancel()
	r, err := l.d.store.Transition(ctx, l.roll, roll.Crashed{Worker: l.d.worker, Detail: l.panics[0], At: l.d.store.Now().Add(l.d.cfg.BackoffBase)})
	if errors.Is(err, roll.ErrAlreadyApplied) {
		return zeroOr(l.roll.WakeAt), nil
	}
	if err != nil {
		return time.Time{}, err
	}
	l.roll = r
	return zeroOr(r.WakeAt), nil
}
