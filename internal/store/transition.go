package store

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/keyroll/keyroll/internal/audit"
	"github.com/keyroll/keyroll/internal/roll"
)

// maxConflicts bounds how often a transition is tried again on a newer roll.
const maxConflicts = 5

// Transition is the only writer of rolls. It applies the events to r, which
// carries the version it was read at, and writes the roll, its steps, the audit
// entry and the outgoing events in one batch: one round trip, one transaction.
// A guard at the head of the batch aborts all of it when the roll has changed
// meanwhile; then the roll is read again and the events are applied again,
// five times at most (ErrStale after that). Refusals of the events come back
// as they are, with nothing written; so does an *OpenRollError, where a new
// plan takes in a key or policy that another open roll has. Where an effect wants a job or the lease,
// the same statements run in an explicit transaction.
//
// A crash before the commit leaves everything as it was; after it, everything
// is there, the next job too.
func (s *Store) Transition(ctx context.Context, r roll.Roll, events ...roll.Event) (roll.Roll, error) {
	for try := 0; ; try++ {
		next, err := s.transitionOnce(ctx, r, events)
		if sqlState(err) != stateStale {
			return next, err
		}
		if try == maxConflicts {
			return roll.Roll{}, fmt.Errorf("writing roll %s: %w", r.ID, ErrStale)
		}
		if r, err = s.Roll(ctx, r.ID); err != nil {
			return roll.Roll{}, err
		}
	}
}

// TransitionAt is Transition for an act that is bound to what its author has
// read: where the roll has changed since, it is ErrStale and not tried again.
func (s *Store) TransitionAt(ctx context.Context, r roll.Roll, events ...roll.Event) (roll.Roll, error) {
	next, err := s.transitionOnce(ctx, r, events)
	if sqlState(err) == stateStale {
		return roll.Roll{}, fmt.Errorf("writing roll %s: %w", r.ID, ErrStale)
	}
	return next, err
}

func (s *Store) transitionOnce(ctx context.Context, r roll.Roll, events []roll.Event) (roll.Roll, error) {
	c, err := apply(r, events, s.Now())
	if err != nil {
		return roll.Roll{}, err
	}
	b := &pgx.Batch{}
	if err := c.queue(b); err != nil {
		return roll.Roll{}, err
	}
	if !c.wantsTx() {
		if err := send(ctx, s.pool, b); err != nil {
			return roll.Roll{}, s.openRoll(ctx, c.after, fmt.Errorf("writing roll %s: %w", r.ID, err))
		}
		return c.after, nil
	}
	err = s.inTx(ctx, func(tx pgx.Tx) error {
		if err := c.lockTenant(ctx, tx); err != nil {
			return err
		}
		if err := send(ctx, tx, b); err != nil {
			return fmt.Errorf("writing roll %s: %w", r.ID, err)
		}
		return s.follow(ctx, tx, c)
	})
	if err != nil {
		return roll.Roll{}, s.openRoll(ctx, c.after, err)
	}
	return c.after, nil
}

// change is one transition on its way into the database.
type change struct {
	before, after roll.Roll
	events        []roll.Event
	effects       []roll.Effect
	quiet         bool
	now           time.Time
}

// apply runs the events through the roll's transition function. The events of
// one change succeed together or not at all, except that a part which has
// happened already is left out.
func apply(r roll.Roll, events []roll.Event, now time.Time) (change, error) {
	c := change{before: r, after: r, now: now, quiet: true}
	var already error
	for _, ev := range events {
		next, effects, err := c.after.Apply(ev, now)
		if errors.Is(err, roll.ErrAlreadyApplied) {
			already = err
			continue
		}
		if err != nil {
			return change{}, err
		}
		c.after, c.effects = next, append(c.effects, effects...)
		c.events = append(c.events, ev)
		if _, polled := ev.(roll.Polled); !polled {
			c.quiet = false
		}
	}
	if len(c.events) == 0 && already != nil {
		return change{}, already
	}
	// A look that saw nothing new and yet moved something is a change like any other.
	c.quiet = c.quiet && c.after.State == r.State && len(c.effects) == 0
	if !c.quiet {
		c.after.Version++
	}
	return c, nil
}

func (c change) wantsTx() bool {
	for _, e := range c.effects {
		switch e.(type) {
		case roll.EnqueueRoll, roll.LeaveLease, roll.Redeclare:
			return true
		}
	}
	return false
}

// queue puts the statements of the change into the batch, the guard first.
func (c change) queue(b *pgx.Batch) error {
	row, err := rollRow(c.after, c.after.Round != c.before.Round)
	if err != nil {
		return err
	}
	if c.quiet {
		b.Queue(guardQuiet, c.before.ID, c.before.Version, row.wakeAt, row.data)
		return c.queueSteps(b)
	}
	entry, err := c.entry().Bytes()
	if err != nil {
		return err
	}
	b.Queue(guard, c.before.ID, c.before.Version, row.state, row.endCode, row.outcome, row.planHash,
		row.wakeAt, row.inFlight, row.data, row.updatedAt, row.progressAt, row.endedAt, entry, c.after.Version, row.plan)
	if err := c.queueSteps(b); err != nil {
		return err
	}
	queueAudit(b, auditRow{tenantID: c.after.TenantID, rollID: c.after.ID, subject: "roll/" + c.after.ID,
		version: c.after.Version, at: c.now, bytes: entry})
	if err := c.queueEvents(b); err != nil {
		return err
	}
	c.queueLedger(b)
	c.queueMailboxes(b)
	c.queueEvidence(b)
	for _, ev := range c.events {
		if a, ok := ev.(roll.Approve); ok {
			b.Queue(`INSERT INTO approvals (roll_id, round, approver, requester, plan_hash, comment, at) VALUES ($1,$2,$3,$4,$5,$6,$7)`,
				c.after.ID, c.after.Round, a.By.Subject, c.after.Requester.Subject, a.PlanHash, plain(a.Comment), c.now)
		}
	}
	switch {
	case c.after.State.Final() && !c.before.State.Final():
		b.Queue(`UPDATE roll_keys SET open = false WHERE roll_id = $1`, c.after.ID)
		b.Queue(`UPDATE roll_policies SET open = false WHERE roll_id = $1`, c.after.ID)
	case c.after.Round != c.before.Round:
		queueSubjects(b, c.after)
	}
	return nil
}

// guard writes the roll if it still has the version that was read, and aborts
// the whole batch if not. The audit digest grows in the same statement. Who
// writes drives the roll, so that the sweeper may look at it again.
const guard = `WITH u AS (
  UPDATE rolls SET version = $14::bigint, state = $3, end_code = $4, outcome = $5, plan_hash = $6, wake_at = $7, in_flight = $8,
    data = $9, plan = COALESCE($15, plan), updated_at = $10, progress_at = $11, ended_at = $12, audit_chain = sha256(audit_chain || $13::bytea),
    swept_at = '-infinity'
  WHERE id = $1 AND version = $2 RETURNING 1)
SELECT keyroll_must_be_one((SELECT count(*) FROM u))`

// guardQuiet moves the next look of a roll in which nothing has changed.
const guardQuiet = `WITH u AS (
  UPDATE rolls SET wake_at = $3, data = $4 WHERE id = $1 AND version = $2 RETURNING 1)
SELECT keyroll_must_be_one((SELECT count(*) FROM u))`

func (c change) queueSteps(b *pgx.Batch) error {
	for i, st := range c.after.Steps {
		data, err := jsonb(st)
		if err != nil {
			return fmt.Errorf("encoding step %d: %w", st.N, err)
		}
		if i < len(c.before.Steps) {
			old, err := jsonb(c.before.Steps[i])
			if err != nil {
				return fmt.Errorf("encoding step %d: %w", st.N, err)
			}
			if bytes.Equal(old, data) {
				continue
			}
			b.Queue(updateStep, stepArgs(c.after.ID, st, data)...)
			continue
		}
		b.Queue(insertStep, stepArgs(c.after.ID, st, data)...)
	}
	return nil
}

const insertStep = `INSERT INTO steps (roll_id, n, kind, state, epoch, worker_id, attempt, next_attempt_at, op_id, intent_deadline, intent_settled, data)
VALUES ($1,$2,$3,$4,$5,$6,$7,$8,$9,$10,$11,$12)`

const updateStep = `UPDATE steps SET kind = $3, state = $4, epoch = $5, worker_id = $6, attempt = $7, next_attempt_at = $8, op_id = $9,
  intent_deadline = $10, intent_settled = $11, data = $12 WHERE roll_id = $1 AND n = $2`

func stepArgs(rollID string, st roll.Step, data []byte) []any {
	var op *string
	if st.OpID != "" {
		op = &st.OpID
	}
	return []any{rollID, st.N, string(st.Kind), string(st.State), st.Epoch, st.Worker, st.Attempt, st.NextAttemptAt,
		op, st.IntentDeadline, !st.IntentOpen, data}
}

func (c change) queueEvents(b *pgx.Batch) error {
	for _, e := range c.effects {
		a, ok := e.(roll.Announce)
		if !ok {
			continue
		}
		said := map[string]any{"roll_id": c.after.ID, "state": c.after.State, "outcome": c.after.Outcome, "end_code": c.after.EndCode}
		if c.after.Emergency() {
			said["emergency"] = true
			said["approvals"] = len(c.after.Approvals)
		}
		for _, ev := range c.events {
			if seen, ok := ev.(roll.EvidenceSeen); ok {
				said["policy"], said["evidence"], said["source"], said["current_outcome"] = seen.Policy, seen.Evidence, seen.Source, c.after.CurrentOutcome()
			}
		}
		payload, err := jsonb(said)
		if err != nil {
			return fmt.Errorf("encoding an event: %w", err)
		}
		b.Queue(`INSERT INTO events (tenant_id, roll_id, roll_version, type, payload, at) VALUES ($1,$2,$3,$4,$5,$6)`,
			c.after.TenantID, c.after.ID, c.after.Version, a.Name, payload, c.now)
	}
	return nil
}

// entry is the audit entry of the change.
func (c change) entry() audit.Entry {
	e := audit.Entry{Subject: "roll/" + c.after.ID, Version: c.after.Version, TenantID: c.after.TenantID, At: c.now,
		From: string(c.before.State), To: string(c.after.State), Actor: audit.Actor{Subject: roll.Keyroll().Subject, Kind: roll.System}}
	for _, ev := range c.events {
		if by := roll.By(ev); by.Kind != roll.System {
			e.Actor = audit.Actor{Subject: by.Subject, Kind: by.Kind}
		}
		e.Events = append(e.Events, describe(c.after, ev))
	}
	if a := c.before.Abandon; a != nil && c.after.Abandon == nil {
		e.Events = append(e.Events, audit.Event{Type: "abandon_withdrawn", Detail: map[string]any{"asked_by": a.By.Subject}})
	}
	return e
}

// follow runs what cannot be one statement: the lease, then the jobs. Lock
// order is own roll (held by the guard), lease, queue.
func (s *Store) follow(ctx context.Context, tx pgx.Tx, c change) error {
	var wakes []Wake
	var leave []roll.LeaveLease
	for _, e := range c.effects {
		switch e := e.(type) {
		case roll.EnqueueRoll:
			wakes = append(wakes, Wake{RollID: c.after.ID, Kind: e.Kind, At: e.At})
		case roll.LeaveLease:
			leave = append(leave, e)
		}
	}
	if err := c.redeclare(ctx, tx); err != nil {
		return err
	}
	// Several leases always in the same order.
	slices.SortStableFunc(leave, func(a, b roll.LeaveLease) int { return cmp.Compare(a.Scope, b.Scope) })
	for _, e := range leave {
		heir, err := leaveLease(ctx, tx, c.after.TenantID, c.after.ID, e, c.now)
		if err != nil {
			return err
		}
		if heir != "" {
			wakes = append(wakes, Wake{RollID: heir, Kind: roll.SharePointLease, At: c.now})
		}
	}
	if len(wakes) == 0 {
		return nil
	}
	if err := s.enq.EnqueueTx(ctx, tx, wakes); err != nil {
		return fmt.Errorf("inserting the next job: %w", err)
	}
	return nil
}
