package store

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/keyroll/keyroll/internal/roll"
)

// Sweep bounds.
const (
	sweepLimit = 500
	// sweepLate is how long past its wake-up a roll is before the sweeper takes it.
	sweepLate = 5 * time.Second
	// sweepAgain is when a roll that was swept may be swept again, unless a
	// worker died meanwhile: the job may have died with it.
	sweepAgain = 30 * time.Second
)

// late, undriven and bereft are three questions, each answered from an index
// of its own. All take their rows as they stand after any other sweep: the conditions on r
// are asked again of a row that was locked meanwhile. FOR NO KEY UPDATE lets
// others refer to the roll.
const (
	late = `SELECT id::text FROM rolls r WHERE wake_at < $1 ORDER BY wake_at LIMIT $2 FOR NO KEY UPDATE SKIP LOCKED`

	undriven = `SELECT r.id::text FROM rolls r WHERE r.ended_at IS NULL AND r.wake_at IS NOT NULL AND r.swept_at < $1 AND r.id IN (
	    SELECT st.roll_id FROM steps st WHERE st.state = 'running' AND NOT EXISTS (SELECT 1 FROM workers w WHERE w.id = st.worker_id AND w.beat_at > $3))
	  LIMIT $2 FOR NO KEY UPDATE OF r SKIP LOCKED`

	// A roll whose last sweep nobody has acted on, while a worker that lived at
	// that time (or showed its last sign a moment before) is silent now.
	bereft = `SELECT r.id::text FROM rolls r WHERE r.ended_at IS NULL AND r.swept_at > '-infinity' AND EXISTS (
	    SELECT 1 FROM workers w WHERE w.beat_at <= $1 AND w.beat_at > r.swept_at - $3::interval)
	  LIMIT $2 FOR NO KEY UPDATE OF r SKIP LOCKED`
)

// Sweep finds rolls that nobody drives (their wake-up has passed, or the
// worker of a running step has been silent) and inserts their jobs, in one
// transaction. It runs in every replica, without a leader: rows that another
// sweep holds are skipped. It never reads the job queue; a surplus job finds
// nothing ready. A roll that was swept is left alone for a while, unless it
// has moved since.
func (s *Store) Sweep(ctx context.Context, silent time.Duration) (int, error) {
	n := 0
	err := s.inTx(ctx, func(tx pgx.Tx) error {
		now := s.Now()
		ids, err := lockedIDs(ctx, tx, late, now.Add(-sweepLate), sweepLimit)
		if err != nil {
			return err
		}
		if room := sweepLimit - len(ids); room > 0 {
			more, err := lockedIDs(ctx, tx, undriven, now.Add(-sweepAgain), room, now.Add(-silent))
			if err != nil {
				return err
			}
			ids = append(ids, more...)
		}
		if room := sweepLimit - len(ids); room > 0 {
			more, err := lockedIDs(ctx, tx, bereft, now.Add(-silent), room, silent)
			if err != nil {
				return err
			}
			ids = append(ids, more...)
		}
		// A roll may be more than one of these.
		slices.Sort(ids)
		ids = slices.Compact(ids)
		if len(ids) == 0 {
			return nil
		}
		if _, err := tx.Exec(ctx, `UPDATE rolls SET swept_at = $3, wake_at = CASE WHEN wake_at < $3 THEN $2 ELSE wake_at END WHERE id = ANY($1)`, ids, now.Add(sweepAgain), now); err != nil {
			return fmt.Errorf("putting swept rolls off: %w", err)
		}
		wakes := make([]Wake, 0, len(ids))
		for _, id := range ids {
			wakes = append(wakes, Wake{RollID: id, Kind: roll.Preflight, At: now})
		}
		if err := s.enq.EnqueueTx(ctx, tx, wakes); err != nil {
			return fmt.Errorf("inserting jobs for rolls that nobody drives: %w", err)
		}
		n = len(ids)
		return nil
	})
	if err != nil {
		return 0, err
	}
	return n, nil
}

func lockedIDs(ctx context.Context, tx pgx.Tx, sql string, args ...any) ([]string, error) {
	rows, err := tx.Query(ctx, sql, args...)
	if err != nil {
		return nil, fmt.Errorf("looking for rolls that nobody drives: %w", err)
	}
	ids, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, fmt.Errorf("looking for rolls that nobody drives: %w", err)
	}
	return ids, nil
}

// FreeEndedLeases hands on every lease whose roll has ended with nothing in
// flight: what a process left that died between two transactions.
func (s *Store) FreeEndedLeases(ctx context.Context) (int, error) {
	rows, err := s.pool.Query(ctx, `SELECT l.tenant_id::text, l.scope, l.holder::text FROM sharepoint_leases l JOIN rolls r ON r.id = l.holder WHERE r.ended_at IS NOT NULL AND NOT r.in_flight`)
	if err != nil {
		return 0, fmt.Errorf("looking for leases of ended rolls: %w", err)
	}
	type held struct{ tenant, scope, roll string }
	list, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (held, error) {
		var h held
		return h, row.Scan(&h.tenant, &h.scope, &h.roll)
	})
	if err != nil {
		return 0, err
	}
	for _, h := range list {
		err := s.inTx(ctx, func(tx pgx.Tx) error {
			now := s.Now()
			heir, err := leaveLease(ctx, tx, h.tenant, h.roll, roll.LeaveLease{Scope: h.scope}, now)
			if err != nil || heir == "" {
				return err
			}
			return s.enq.EnqueueTx(ctx, tx, []Wake{{RollID: heir, Kind: roll.SharePointLease, At: now}})
		})
		if err != nil {
			return 0, err
		}
	}
	return len(list), nil
}
