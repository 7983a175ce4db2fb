package jobs

import (
	"context"
	"time"

	"github.com/keyroll/keyroll/internal/roll"
)

// shut is asked before an effect: outside of the tenant's change windows, and
// in a freeze, it does not begin. It waits for the next opening, and what this
// claim meant to do is closed as not done. An emergency goes through.
func (a *attempt) shut(inv roll.Inventory) roll.Event {
	if a.roll.Emergency() {
		return nil
	}
	c := inv.Closed(a.now())
	if c == nil {
		return nil
	}
	return roll.Waits{N: a.step.N, Epoch: a.step.Epoch, For: c.For, Until: a.opening(c), NotApplied: true, Look: roll.Look{Seen: c.Why}}
}

// opening is when to begin. A calendar without one is refused when it is
// declared; should there be none all the same, it is looked at again.
func (a *attempt) opening(c *roll.Closed) time.Time {
	if c.Until.IsZero() {
		return a.now().Add(time.Hour)
	}
	return c.Until
}

// lastCheck is asked just before a call that changes something, or a line that
// does is shown: the calendar or the Automation account may have been declared
// otherwise, and this process cut off, since the step began.
func (a *attempt) lastCheck(ctx context.Context) roll.Event {
	t, err := a.d.store.Tenant(ctx, a.roll.TenantID)
	if err != nil {
		return roll.WillRetry{N: a.step.N, Epoch: a.step.Epoch, At: a.now().Add(a.d.cfg.BackoffBase), Code: "database",
			Detail: "the tenant's declaration could not be read", NotApplied: !a.settle}
	}
	a.inv.Windows, a.inv.Freezes = t.Inventory.Windows, t.Inventory.Freezes
	if ev := a.shut(a.inv); ev != nil {
		return ev
	}
	if f := roll.CheckAccount(t.Inventory, a.step.Params.Account); f != nil {
		return a.fault(f)
	}
	if !a.mayAct() {
		return a.tooStale()
	}
	return nil
}

// calendarChanged looks at a step that waits for an opening which is no longer
// the next one.
func (a *attempt) calendarChanged() roll.Event {
	if ev := a.shut(a.inv); ev != nil {
		return ev
	}
	return roll.WillRetry{N: a.step.N, Epoch: a.step.Epoch, At: a.now()}
}

// askCalendar finds the steps that wait for an opening which an edit of the
// declaration has moved: the edit wakes the roll, and the step still says when
// the old calendar would have let it begin.
func (l *lane) askCalendar(ctx context.Context) error {
	l.moved = nil
	for _, s := range l.roll.Steps {
		if s.State != roll.StepWaiting || !roll.ForCalendar(s.WaitingFor) || s.NextAttemptAt == nil {
			continue
		}
		t, err := l.d.store.Tenant(ctx, l.roll.TenantID)
		if err != nil {
			return err
		}
		now := l.d.store.Now()
		if at, open := roll.OpensAt(t.Inventory, now); open && now.Before(*s.NextAttemptAt) || !open && !at.IsZero() && !at.Equal(*s.NextAttemptAt) {
			if l.moved == nil {
				l.moved = map[int]bool{}
			}
			l.moved[s.N] = true
		}
	}
	return nil
}
