package store

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/keyroll/keyroll/internal/roll"
)

// Stats are figures over what is open now; nothing here counts a whole table.
type Stats struct {
	// QueueDepth rolls wait for a SharePoint lease, the first since QueueOldest.
	QueueDepth  int
	QueueOldest *time.Time
	// LeasesHeld, the oldest since LeaseOldest.
	LeasesHeld  int
	LeaseOldest *time.Time
	// Workers with a sign of life in the last ten seconds.
	Workers int
	// WorkerOldest is the oldest sign of life of a worker that has not gone on purpose.
	WorkerOldest *time.Time
}

// Stats reads them in one statement.
func (s *Store) Stats(ctx context.Context) (Stats, error) {
	var st Stats
	err := s.pool.QueryRow(ctx, `SELECT
	  (SELECT count(*) FROM sharepoint_queue), (SELECT min(queued_at) FROM sharepoint_queue),
	  (SELECT count(*) FROM sharepoint_leases WHERE holder IS NOT NULL), (SELECT min(held_since) FROM sharepoint_leases),
	  (SELECT count(*) FROM workers WHERE beat_at > $1), (SELECT min(beat_at) FROM workers)`, s.Now().Add(-10*time.Second)).
		Scan(&st.QueueDepth, &st.QueueOldest, &st.LeasesHeld, &st.LeaseOldest, &st.Workers, &st.WorkerOldest)
	if err != nil {
		return st, fmt.Errorf("reading the figures: %w", err)
	}
	return st, nil
}

// OpenRolls reads the rolls that have not ended, oldest progress first, at most limit.
func (s *Store) OpenRolls(ctx context.Context, limit int) ([]roll.Roll, error) {
	rows, err := s.pool.Query(ctx, selectRolls+`WHERE r.ended_at IS NULL ORDER BY r.progress_at LIMIT $1`, limit)
	if err != nil {
		return nil, fmt.Errorf("reading open rolls: %w", err)
	}
	return pgx.CollectRows(rows, scanRoll)
}

// PruneWorkers removes the rows of workers that died long ago.
func (s *Store) PruneWorkers(ctx context.Context) error {
	_, err := s.pool.Exec(ctx, `DELETE FROM workers WHERE beat_at < $1`, s.Now().Add(-time.Hour))
	if err != nil {
		return fmt.Errorf("pruning workers: %w", err)
	}
	return nil
}
