package store

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/keyroll/keyroll/internal/roll"
)

// EvidenceWatched is how long Key Vault's log is looked into after a roll's end.
const EvidenceWatched = 72 * time.Hour

// EvidenceWatch is a policy of an ended roll of which the log may yet show more.
type EvidenceWatch struct {
	RollID, TenantID, PolicyID string
	LookedAt                   *time.Time
	Until                      time.Time
	// Trouble is why the last look saw nothing; "" where the log answered.
	Trouble string
}

// queueEvidence begins to watch the policies of a roll that succeeded with less
// than in_use, and ends a watch that has found it.
func (c change) queueEvidence(b *pgx.Batch) {
	for _, ev := range c.events {
		if e, ok := ev.(roll.EvidenceSeen); ok {
			b.Queue(`UPDATE evidence_watches SET next_at = NULL, looked_at = $3, trouble = '' WHERE roll_id = $1 AND policy_id = $2`, c.after.ID, e.Policy, c.now)
		}
	}
	if c.after.State != roll.Succeeded || c.before.State == roll.Succeeded {
		return
	}
	for _, p := range c.after.Plan.Policies {
		if e, _ := c.after.PolicyEvidence(p.ID); e == roll.Accepted || e == roll.Attested {
			b.Queue(`INSERT INTO evidence_watches (roll_id, policy_id, tenant_id, until, next_at) VALUES ($1,$2,$3,$4,$5) ON CONFLICT DO NOTHING`,
				c.after.ID, p.ID, c.after.TenantID, c.now.Add(EvidenceWatched), c.now)
		}
	}
}

const evidenceColumns = `roll_id::text, tenant_id::text, policy_id, looked_at, until, trouble`

func scanEvidence(row pgx.CollectableRow) (EvidenceWatch, error) {
	var w EvidenceWatch
	return w, row.Scan(&w.RollID, &w.TenantID, &w.PolicyID, &w.LookedAt, &w.Until, &w.Trouble)
}

// DueEvidence takes up to limit watches whose next look is due, and puts their
// next look off by every, so that no other process takes them too. A watch past
// its time gets one last look.
func (s *Store) DueEvidence(ctx context.Context, limit int, every time.Duration) ([]EvidenceWatch, error) {
	now := s.Now()
	rows, err := s.pool.Query(ctx, `UPDATE evidence_watches SET next_at = CASE WHEN until <= $1 THEN NULL ELSE $2::timestamptz END
	  WHERE (roll_id, policy_id) IN (SELECT roll_id, policy_id FROM evidence_watches WHERE next_at <= $1 ORDER BY next_at LIMIT $3 FOR UPDATE SKIP LOCKED)
	  RETURNING `+evidenceColumns, now, now.Add(every), limit)
	if err != nil {
		return nil, fmt.Errorf("taking policies whose use is looked for: %w", err)
	}
	return pgx.CollectRows(rows, scanEvidence)
}

// NoteEvidenceLook records a look that found nothing, and why where that is known.
func (s *Store) NoteEvidenceLook(ctx context.Context, w EvidenceWatch, trouble string) error {
	_, err := s.pool.Exec(ctx, `UPDATE evidence_watches SET looked_at = $3, trouble = $4 WHERE roll_id = $1 AND policy_id = $2`, w.RollID, w.PolicyID, s.Now(), plain(trouble))
	if err != nil {
		return fmt.Errorf("recording a look into a diagnostic log: %w", err)
	}
	return nil
}

// EvidenceWatches lists the watches of a roll.
func (s *Store) EvidenceWatches(ctx context.Context, rollID string) ([]EvidenceWatch, error) {
	rows, err := s.pool.Query(ctx, `SELECT `+evidenceColumns+` FROM evidence_watches WHERE roll_id = $1 ORDER BY policy_id`, rollID)
	if err != nil {
		return nil, fmt.Errorf("reading what is looked for of roll %s: %w", rollID, err)
	}
	return pgx.CollectRows(rows, scanEvidence)
}
