package store

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

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
// connection that turns out to be broken is made anew at once, and by every
// later beat until that succeeds.
func (h *Heart) Beat(ctx context.Context) error {
	broken := h.conn.IsClosed()
	err := h.beat(ctx)
	if err != nil && !broken && h.conn.IsClosed() && ctx.Err() == nil {
		return h.beat(ctx)
	}
	return err
}

func (h *Heart) beat(ctx context.Context) error {
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
	const remove = `DELETE FROM workers WHERE id = $1`
	_, err := h.conn.Exec(ctx, remove, h.worker)
	if err != nil && h.conn.IsClosed() {
		_, err = h.s.pool.Exec(ctx, remove, h.worker)
	}
	if err != nil {
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
