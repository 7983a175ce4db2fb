package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// followQuiet is how long a silent connection is trusted before it is asked
// whether it still stands: a network may drop it without a word.
const followQuiet = 20 * time.Second

// FollowRolls listens for new audit entries of rolls on one connection of its
// own, until ctx ends or the connection breaks. connected is called once the
// connection listens: what was committed before may have been missed. changed
// is called with a roll's id after each commit; several may come as one.
// Neither may block.
func (s *Store) FollowRolls(ctx context.Context, connected func(), changed func(rollID string)) error {
	conn, err := pgx.ConnectConfig(ctx, s.pool.Config().ConnConfig.Copy())
	if err != nil {
		return fmt.Errorf("connecting to follow rolls: %w", err)
	}
	defer func() {
		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), rollbackPatience)
		defer cancel()
		_ = conn.Close(end)
	}()
	if _, err := conn.Exec(ctx, `LISTEN keyroll_roll`); err != nil {
		return fmt.Errorf("listening for rolls: %w", err)
	}
	connected()
	for {
		quiet, cancel := context.WithTimeout(ctx, followQuiet)
		n, err := conn.WaitForNotification(quiet)
		cancel()
		switch {
		case err == nil:
			changed(n.Payload)
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, context.DeadlineExceeded):
			ask, cancel := context.WithTimeout(ctx, rollbackPatience)
			err := conn.Ping(ask)
			cancel()
			if err != nil {
				return fmt.Errorf("the connection that follows rolls has gone silent: %w", err)
			}
		default:
			return fmt.Errorf("waiting for rolls: %w", err)
		}
	}
}

// Horizon is how far the log of a roll reached when it was looked at. Entries
// up to Entry may be handed out in order once Settled says so.
type Horizon struct {
	Entry int64
	// fence is the first transaction that had not begun at the look.
	fence string
}

// RollHorizon looks how far the entries of a roll reach. Entries are numbered
// before they are committed, so one with a smaller number than Entry may still
// be on its way.
func (s *Store) RollHorizon(ctx context.Context, rollID string) (Horizon, error) {
	var h Horizon
	err := s.pool.QueryRow(ctx, `SELECT coalesce(max(id), 0), pg_snapshot_xmax(pg_current_snapshot())::text FROM audit_entries WHERE roll_id = $1`, rollID).
		Scan(&h.Entry, &h.fence)
	if err != nil {
		return h, fmt.Errorf("looking how far the log of roll %s reaches: %w", rollID, err)
	}
	return h, nil
}

// Settled says whether every transaction that might still add an entry up to
// the horizon has ended: all that had begun when it was looked at. From then
// on RollEventsUpTo misses none.
func (s *Store) Settled(ctx context.Context, h Horizon) (bool, error) {
	var settled bool
	if err := s.pool.QueryRow(ctx, `SELECT pg_snapshot_xmin(pg_current_snapshot()) >= $1::text::xid8`, h.fence).Scan(&settled); err != nil {
		return false, fmt.Errorf("asking for transactions under way: %w", err)
	}
	return settled, nil
}

// RollEventsUpTo lists the audit entries of a roll after one entry id and up to
// another, oldest first.
func (s *Store) RollEventsUpTo(ctx context.Context, rollID string, after, upTo int64, limit int) ([]RollEvent, error) {
	rows, err := s.pool.Query(ctx, `SELECT id, bytes FROM audit_entries WHERE roll_id = $1 AND id > $2 AND id <= $3 ORDER BY id LIMIT $4`, rollID, after, upTo, limit)
	if err != nil {
		return nil, fmt.Errorf("reading the events of roll %s: %w", rollID, err)
	}
	return pgx.CollectRows(rows, scanRollEvent)
}
