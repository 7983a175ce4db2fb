package jobs

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/keyroll/keyroll/internal/roll"
	"github.com/keyroll/keyroll/internal/store"
)

// advance records what has ended, claims what may begin now, in one
// transition, and starts it. A refusal means that the roll has moved on
// without us: it is read again, and what has ended is recorded event by event.
func (l *lane) advance(done []roll.Event) error {
	events, work := l.plan(done)
	if len(events) > 0 {
		if err := l.transition(events); err != nil {
			var refused *roll.TransitionError
			if done, blocked := l.blocked(done, err); blocked {
				return l.advanceSingly(done)
			}
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

// blocked: a plan that preflight made anew takes in a key or a policy that
// another open roll has (rule 10). A person must wait for that one, or end it.
func (l *lane) blocked(done []roll.Event, err error) ([]roll.Event, bool) {
	var open *store.OpenRollError
	if !errors.As(err, &open) {
		return done, false
	}
	out := slices.Clone(done)
	for i, ev := range out {
		if e, ok := ev.(roll.PlanChanged); ok {
			out[i] = roll.Halted{N: e.N, Epoch: e.Epoch, Code: "another_roll_open",
				Detail: "the plan made anew takes in " + open.Subject + ", which roll " + open.RollID + " has",
				Action: "wait until roll " + open.RollID + " has ended, or cancel it; then retry"}
			return out, true
		}
	}
	return done, false
}

func (l *lane) advanceSingly(done []roll.Event) error {
	if err := l.reread(l.roll.ID); err != nil {
		return err
	}
	for _, ev := range done {
		var refused *roll.TransitionError
		err := l.transition([]roll.Event{ev})
		if instead, blocked := l.blocked([]roll.Event{ev}, err); blocked {
			err = l.transition(instead)
		}
		switch {
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
			run, settle := l.d.cfg.budget(r, s)
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

// due is what the roll says may be done now, the leases that came to it, and
// the steps whose calendar was edited.
func (l *lane) due(r roll.Roll, now time.Time) []roll.Work {
	work := r.Next(now, l.gone)
	for n := range l.heir {
		if s, ok := r.StepByN(n); ok && s.State == roll.StepWaiting && !slices.ContainsFunc(work, func(w roll.Work) bool { return w.N == n }) {
			work = append(work, roll.Work{N: n, Poll: true})
		}
	}
	for n := range l.moved {
		if s, ok := r.StepByN(n); ok && s.State == roll.StepWaiting && !slices.ContainsFunc(work, func(w roll.Work) bool { return w.N == n }) {
			work = append(work, roll.Work{N: n, Poll: true})
		}
	}
	l.moved = nil
	return work
}

// start runs the claimed work. The lease is the store's own affair and is
// asked for here, in the loop, since it changes the roll itself.
func (l *lane) start(work []job) {
	l.begun = l.begun || len(work) > 0
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
		a := &attempt{d: l.d, roll: l.roll, step: s, settle: j.settle, poll: j.work.Poll, due: j.due}
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
			run, _ := l.d.cfg.budget(a.roll, s)
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
