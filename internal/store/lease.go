package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/keyroll/keyroll/internal/audit"
	"github.com/keyroll/keyroll/internal/roll"
)

// TakeLease asks for the SharePoint lease for step n of r, which the caller
// has claimed under epoch. The roll's own transition (granted or queued) is
// written in the same transaction. Asking again keeps the place in the queue.
// Lock order: own roll, lease, queue. The roll is locked FOR NO KEY UPDATE: a
// hand-over to this roll checks its foreign key under the lease's lock, and
// FOR UPDATE would make the two wait for each other. A crash before the commit leaves the
// lease, the queue and the roll as they were.
func (s *Store) TakeLease(ctx context.Context, r roll.Roll, n int, epoch int64, again time.Duration) (roll.Roll, error) {
	st, ok := r.StepByN(n)
	if !ok || st.Kind != roll.SharePointLease {
		return roll.Roll{}, fmt.Errorf("step %d of roll %s is no lease step", n, r.ID)
	}
	var after roll.Roll
	err := s.inTx(ctx, func(tx pgx.Tx) error {
		var version int64
		if err := tx.QueryRow(ctx, `SELECT version FROM rolls WHERE id = $1 FOR NO KEY UPDATE`, r.ID).Scan(&version); err != nil {
			return fmt.Errorf("locking roll %s: %w", r.ID, err)
		}
		if version != r.Version {
			return ErrStale
		}
		now := s.Now()
		granted, position, ended, err := claimLease(ctx, tx, r.TenantID, st.Params.Scope, r.ID, now)
		if err != nil {
			return err
		}
		var ev roll.Event = roll.LeaseQueued{N: n, Epoch: epoch, Position: position, Until: now.Add(again)}
		if granted {
			ev = roll.LeaseGranted{N: n, Epoch: epoch, LastEnded: ended}
		} else if st.State == roll.StepWaiting && st.WaitingFor == roll.WaitQueue && st.Position == position {
			ev = roll.Polled{N: n, Epoch: epoch, Until: now.Add(again)}
		}
		c, err := apply(r, []roll.Event{ev}, now)
		if err != nil {
			return err
		}
		b := &pgx.Batch{}
		if err := c.queue(b); err != nil {
			return err
		}
		if err := send(ctx, tx, b); err != nil {
			return fmt.Errorf("writing roll %s: %w", r.ID, err)
		}
		after = c.after
		return s.follow(ctx, tx, c)
	})
	return after, err
}

// claimLease locks the lease row, and then decides with a fresh snapshot: one
// statement for both could miss a waiter that committed while it waited.
func claimLease(ctx context.Context, tx pgx.Tx, tenantID, scope, rollID string, now time.Time) (granted bool, position int, ended map[string]time.Time, err error) {
	holder, raw, err := lockLease(ctx, tx, tenantID, scope)
	if err != nil {
		return false, 0, nil, err
	}
	if err := json.Unmarshal(raw, &ended); err != nil {
		return false, 0, nil, fmt.Errorf("decoding the lease of tenant %s: %w", tenantID, err)
	}
	if holder == rollID {
		return true, 0, ended, nil
	}
	if holder == "" {
		var head string
		err := tx.QueryRow(ctx, `SELECT roll_id::text FROM sharepoint_queue WHERE tenant_id = $1 AND scope = $2 ORDER BY place LIMIT 1`, tenantID, scope).Scan(&head)
		if err != nil && !errors.Is(err, pgx.ErrNoRows) {
			return false, 0, nil, fmt.Errorf("reading the queue: %w", err)
		}
		if head == "" || head == rollID {
			return true, 0, ended, giveLease(ctx, tx, tenantID, scope, rollID, now)
		}
	}
	if _, err := tx.Exec(ctx, `INSERT INTO sharepoint_queue (tenant_id, scope, roll_id, queued_at) VALUES ($1,$2,$3,$4) ON CONFLICT (tenant_id, scope, roll_id) DO NOTHING`, tenantID, scope, rollID, now); err != nil {
		return false, 0, nil, fmt.Errorf("joining the queue: %w", err)
	}
	err = tx.QueryRow(ctx, `SELECT count(*) FROM sharepoint_queue WHERE tenant_id = $1 AND scope = $2 AND place <=
	  (SELECT place FROM sharepoint_queue WHERE tenant_id = $1 AND scope = $2 AND roll_id = $3)`, tenantID, scope, rollID).Scan(&position)
	if err != nil {
		return false, 0, nil, fmt.Errorf("reading the place in the queue: %w", err)
	}
	return false, position, ended, nil
}

func lockLease(ctx context.Context, tx pgx.Tx, tenantID, scope string) (holder string, ended []byte, err error) {
	var h *string
	err = tx.QueryRow(ctx, `SELECT holder::text, last_ended FROM sharepoint_leases WHERE tenant_id = $1 AND scope = $2 FOR UPDATE`, tenantID, scope).Scan(&h, &ended)
	if err != nil {
		return "", nil, fmt.Errorf("locking the SharePoint lease %s of tenant %s: %w", scope, tenantID, err)
	}
	if h != nil {
		holder = *h
	}
	return holder, ended, nil
}

func giveLease(ctx context.Context, tx pgx.Tx, tenantID, scope, rollID string, now time.Time) error {
	b := &pgx.Batch{}
	b.Queue(`UPDATE sharepoint_leases SET holder = $3, held_since = $4, release_by = NULL, release_at = NULL, release_why = NULL, release_of = NULL WHERE tenant_id = $1 AND scope = $2`, tenantID, scope, rollID, now)
	b.Queue(`DELETE FROM sharepoint_queue WHERE tenant_id = $1 AND scope = $2 AND roll_id = $3`, tenantID, scope, rollID)
	if err := send(ctx, tx, b); err != nil {
		return fmt.Errorf("giving the SharePoint lease to roll %s: %w", rollID, err)
	}
	return nil
}

// leaveLease takes the roll out of the queue and, if it holds the lease, hands
// it to the head of the queue, whose id it returns. The heir's own row is not
// touched: it takes note by its own transition.
func leaveLease(ctx context.Context, tx pgx.Tx, tenantID, rollID string, e roll.LeaveLease, now time.Time) (heir string, err error) {
	holder, _, err := lockLease(ctx, tx, tenantID, e.Scope)
	if err != nil {
		return "", err
	}
	if _, err := tx.Exec(ctx, `DELETE FROM sharepoint_queue WHERE tenant_id = $1 AND scope = $2 AND roll_id = $3`, tenantID, e.Scope, rollID); err != nil {
		return "", fmt.Errorf("leaving the queue: %w", err)
	}
	if holder != rollID {
		return "", nil
	}
	if len(e.LastEnded) > 0 {
		raw, err := json.Marshal(e.LastEnded)
		if err != nil {
			return "", fmt.Errorf("encoding the lease: %w", err)
		}
		if _, err := tx.Exec(ctx, `UPDATE sharepoint_leases SET last_ended = last_ended || $3::jsonb WHERE tenant_id = $1 AND scope = $2`, tenantID, e.Scope, raw); err != nil {
			return "", fmt.Errorf("noting when the last operation ended: %w", err)
		}
	}
	return passLease(ctx, tx, tenantID, e.Scope, now)
}

// passLease gives a locked lease to the head of its queue, or frees it.
func passLease(ctx context.Context, tx pgx.Tx, tenantID, scope string, now time.Time) (heir string, err error) {
	err = tx.QueryRow(ctx, `SELECT roll_id::text FROM sharepoint_queue WHERE tenant_id = $1 AND scope = $2 ORDER BY place LIMIT 1`, tenantID, scope).Scan(&heir)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		_, err = tx.Exec(ctx, `UPDATE sharepoint_leases SET holder = NULL, held_since = NULL, release_by = NULL, release_at = NULL, release_why = NULL, release_of = NULL WHERE tenant_id = $1 AND scope = $2`, tenantID, scope)
		if err != nil {
			return "", fmt.Errorf("freeing the SharePoint lease: %w", err)
		}
		return "", nil
	case err != nil:
		return "", fmt.Errorf("reading the queue: %w", err)
	}
	return heir, giveLease(ctx, tx, tenantID, scope, heir, now)
}

// Lease is one SharePoint lease as people see it.
type Lease struct {
	TenantID, Scope, Holder string
	HeldSince               *time.Time
	Queue                   []string
	ReleaseBy               string
	ReleaseAt               *time.Time
	// ReleaseOf is the roll from which a release was asked for.
	ReleaseOf string
}

// Leases lists a tenant's leases with their queues, in order.
func (s *Store) Leases(ctx context.Context, tenantID string) ([]Lease, error) {
	rows, err := s.pool.Query(ctx, `SELECT l.tenant_id::text, l.scope, coalesce(l.holder::text, ''), l.held_since, coalesce(l.release_by, ''), l.release_at, coalesce(l.release_of::text, ''),
	  coalesce((SELECT array_agg(q.roll_id::text ORDER BY q.place) FROM sharepoint_queue q WHERE q.tenant_id = l.tenant_id AND q.scope = l.scope), '{}')
	  FROM sharepoint_leases l WHERE l.tenant_id = $1 ORDER BY l.scope`, tenantID)
	if err != nil {
		return nil, fmt.Errorf("reading the leases: %w", err)
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (Lease, error) {
		var l Lease
		return l, row.Scan(&l.TenantID, &l.Scope, &l.Holder, &l.HeldSince, &l.ReleaseBy, &l.ReleaseAt, &l.ReleaseOf, &l.Queue)
	})
}

// HoldsLease says whether the roll holds the lease now: asked just before a
// SharePoint operation.
func (s *Store) HoldsLease(ctx context.Context, tenantID, scope, rollID string) (bool, error) {
	var holds bool
	err := s.pool.QueryRow(ctx, `SELECT holder = $3 FROM sharepoint_leases WHERE tenant_id = $1 AND scope = $2 AND holder IS NOT NULL`, tenantID, scope, rollID).Scan(&holds)
	if errors.Is(err, pgx.ErrNoRows) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("reading the SharePoint lease: %w", err)
	}
	return holds, nil
}

// ErrLeaseFree: there is nothing to release.
var ErrLeaseFree = errors.New("nobody holds the lease")

// ErrSamePerson: the second of two people must be another one.
var ErrSamePerson = errors.New("a second person must confirm")

// ReleaseLease frees a lease by two people: the first call asks for it, the
// second, by another person and about the same holder, does it. Both are
// audited. The lease returned is the one after the call; its Release members
// say who asked for the release, when, and from which roll.
func (s *Store) ReleaseLease(ctx context.Context, tenantID, scope string, by roll.Actor, reason string) (done bool, lease Lease, err error) {
	var first Lease
	tenantID, ok := canonicalID(tenantID)
	if !ok {
		return false, lease, ErrNotFound
	}
	err = s.inTx(ctx, func(tx pgx.Tx) error {
		holder, _, err := lockLease(ctx, tx, tenantID, scope)
		if errors.Is(err, pgx.ErrNoRows) {
			return ErrNotFound
		}
		if err != nil {
			return err
		}
		if holder == "" {
			return ErrLeaseFree
		}
		var asked, of *string
		var version int64
		if err := tx.QueryRow(ctx, `SELECT release_by, release_at, release_of::text, version FROM sharepoint_leases WHERE tenant_id = $1 AND scope = $2`, tenantID, scope).Scan(&asked, &first.ReleaseAt, &of, &version); err != nil {
			return fmt.Errorf("reading the lease: %w", err)
		}
		now := s.Now()
		action := "release_requested"
		if asked != nil && of != nil && *of == holder {
			if *asked == by.Subject {
				return ErrSamePerson
			}
			action, done = "released", true
			first.ReleaseBy, first.ReleaseOf = *asked, holder
		}
		if err := auditLease(ctx, tx, tenantID, scope, holder, version+1, by, action, reason, now); err != nil {
			return err
		}
		if !done {
			_, err := tx.Exec(ctx, `UPDATE sharepoint_leases SET release_by = $3, release_at = $4, release_why = $5, release_of = holder WHERE tenant_id = $1 AND scope = $2`, tenantID, scope, by.Subject, now, plain(reason))
			return err
		}
		heir, err := passLease(ctx, tx, tenantID, scope, now)
		if err != nil || heir == "" {
			return err
		}
		return s.enq.EnqueueTx(ctx, tx, []Wake{{RollID: heir, Kind: roll.SharePointLease, At: now}})
	})
	if err != nil {
		return false, Lease{}, err
	}
	leases, err := s.Leases(ctx, tenantID)
	for _, l := range leases {
		if l.Scope == scope {
			lease = l
		}
	}
	if done {
		lease.ReleaseBy, lease.ReleaseAt, lease.ReleaseOf = first.ReleaseBy, first.ReleaseAt, first.ReleaseOf
	}
	return done, lease, err
}

func auditLease(ctx context.Context, tx pgx.Tx, tenantID, scope, holder string, version int64, by roll.Actor, action, reason string, now time.Time) error {
	subject := "lease/" + tenantID + "/" + scope
	entry, err := audit.Entry{Subject: subject, Version: version, TenantID: tenantID, At: now, Actor: audit.Actor{Subject: by.Subject, Kind: by.Kind},
		Events: []audit.Event{{Type: action, Detail: map[string]any{"reason": reason, "holder": holder}}}}.Bytes()
	if err != nil {
		return err
	}
	b := &pgx.Batch{}
	b.Queue(`UPDATE sharepoint_leases SET version = $3, audit_chain = sha256(audit_chain || $4::bytea) WHERE tenant_id = $1 AND scope = $2`, tenantID, scope, version, entry)
	queueAudit(b, auditRow{tenantID: tenantID, rollID: holder, subject: subject, version: version, at: now, bytes: entry})
	if err := send(ctx, tx, b); err != nil {
		return fmt.Errorf("writing the audit entry of a lease release: %w", err)
	}
	return nil
}
