package store

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/keyroll/keyroll/internal/roll"
)

// Sweep bounds.
const (
	sweepLimit = 500
	// sweepLate is how long past its wake-up a roll is before the sweeper takes it.
	sweepLate = 5 * time.Second
	// sweepAgain is when a roll that was swept may be swept again.
	sweepAgain = 30 * time.Second
)

// Sweep finds rolls that nobody drives (their wake-up has passed, or the
// worker of a running step has been silent) and inserts their jobs, in one
// transaction. It runs in every replica, without a leader: rows that another
// sweep holds are skipped. It never reads the job queue; a surplus job finds
// nothing ready.
func (s *Store) Sweep(ctx context.Context, silent time.Duration) (int, error) {
	n := 0
	err := s.inTx(ctx, func(tx pgx.Tx) error {
		now := s.Now()
		rows, err := tx.Query(ctx, `SELECT r.id::text, r.wake_at FROM rolls r WHERE r.ended_at IS NULL AND r.wake_at IS NOT NULL AND (r.wake_at < $1
		    OR r.id IN (SELECT st.roll_id FROM steps st WHERE st.state = 'running'
		         AND NOT EXISTS (SELECT 1 FROM workers w WHERE w.id = st.worker_id AND w.beat_at > $2)) AND r.swept_at < $4)
		  ORDER BY r.wake_at LIMIT $3 FOR UPDATE OF r SKIP LOCKED`, now.Add(-sweepLate), now.Add(-silent), sweepLimit, now.Add(-sweepLate))
		if err != nil {
			return fmt.Errorf("looking for rolls that nobody drives: %w", err)
		}
		ids, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (string, error) {
			var id string
			var at time.Time
			return id, row.Scan(&id, &at)
		})
		if err != nil || len(ids) == 0 {
			return err
		}
		n = len(ids)
		if _, err := tx.Exec(ctx, `UPDATE rolls SET swept_at = $3, wake_at = CASE WHEN wake_at < $3 THEN $2 ELSE wake_at END WHERE id = ANY($1)`, ids, now.Add(sweepAgain), now); err != nil {
			return fmt.Errorf("putting swept rolls off: %w", err)
		}
		wakes := make([]Wake, 0, n)
		for _, id := range ids {
			wakes = append(wakes, Wake{RollID: id, Kind: roll.Preflight, At: now})
		}
		return s.enq.EnqueueTx(ctx, tx, wakes)
	})
	return n, err
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

// Heart is a worker's sign of life: a row of its own, renewed over a
// connection of its own, so that a busy pool cannot make a live worker look dead.
type Heart struct {
	s      *Store
	conn   *pgx.Conn
	worker string
}

// NewHeart connects and writes the worker's row.
func (s *Store) NewHeart(ctx context.Context, worker string) (*Heart, error) {
	conn, err := pgx.ConnectConfig(ctx, s.pool.Config().ConnConfig.Copy())
	if err != nil {
		return nil, fmt.Errorf("connecting the heartbeat: %w", err)
	}
	h := &Heart{s: s, conn: conn, worker: worker}
	if err := h.Beat(ctx); err != nil {
		_ = conn.Close(ctx)
		return nil, err
	}
	return h, nil
}

// Beat renews the row and sets the store's clock by the database's answer. A
// broken connection is made anew by the next beat.
func (h *Heart) Beat(ctx context.Context) error {
	if h.conn.IsClosed() {
		conn, err := pgx.ConnectConfig(ctx, h.s.pool.Config().ConnConfig.Copy())
		if err != nil {
			return fmt.Errorf("connecting the heartbeat: %w", err)
		}
		h.conn = conn
	}
	var now time.Time
	err := h.conn.QueryRow(ctx, `INSERT INTO workers (id, started_at, beat_at) VALUES ($1, clock_timestamp(), clock_timestamp())
	  ON CONFLICT (id) DO UPDATE SET beat_at = clock_timestamp() RETURNING beat_at`, h.worker).Scan(&now)
	if err != nil {
		_ = h.conn.Close(context.WithoutCancel(ctx))
		return fmt.Errorf("renewing the heartbeat: %w", err)
	}
	h.s.clock.Set(now)
	return nil
}

// Stop removes the row: the worker is gone on purpose, and what it still
// held may be taken over at once.
func (h *Heart) Stop(ctx context.Context) error {
	defer func() { _ = h.conn.Close(context.WithoutCancel(ctx)) }()
	if h.conn.IsClosed() {
		return nil
	}
	if _, err := h.conn.Exec(ctx, `DELETE FROM workers WHERE id = $1`, h.worker); err != nil {
		return fmt.Errorf("removing the heartbeat: %w", err)
	}
	return nil
}

// SilentWorkers says which of the workers have shown no sign of life for the
// given time.
func (s *Store) SilentWorkers(ctx context.Context, ids []string, silent time.Duration) (map[string]bool, error) {
	rows, err := s.pool.Query(ctx, `SELECT id FROM workers WHERE id = ANY($1) AND beat_at > $2`, ids, s.Now().Add(-silent))
	if err != nil {
		return nil, fmt.Errorf("reading heartbeats: %w", err)
	}
	alive, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, fmt.Errorf("reading heartbeats: %w", err)
	}
	out := map[string]bool{}
	for _, id := range ids {
		out[id] = true
	}
	for _, id := range alive {
		out[id] = false
	}
	return out, nil
}
