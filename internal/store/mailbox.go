package store

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/keyroll/keyroll/internal/audit"
	"github.com/keyroll/keyroll/internal/roll"
)

// MailboxWatched is how long a sample mailbox is watched after its policy's refresh.
const MailboxWatched = 72 * time.Hour

// MailboxWatch is one sample mailbox under watch. Before is what
// DataEncryptionPolicyID was before the refresh, Last what it was when last
// looked at. A change proves no more than that the value changed.
type MailboxWatch struct {
	RollID, TenantID, PolicyID, Mailbox string
	Before, Last                        string
	LookedAt, ChangedAt                 *time.Time
	Until                               time.Time
	Version                             int64
}

// queueMailboxes begins to watch what a refresh of this change read before.
func (c change) queueMailboxes(b *pgx.Batch) {
	for _, ev := range c.events {
		done, ok := ev.(roll.Done)
		if !ok || len(done.Result.Mailboxes) == 0 {
			continue
		}
		s, _ := c.after.StepByN(done.N)
		for box, id := range done.Result.Mailboxes {
			b.Queue(`INSERT INTO mailbox_watches (roll_id, policy_id, mailbox, tenant_id, before, last, until, next_at) VALUES ($1,$2,$3,$4,$5,$5,$6,$7)
			  ON CONFLICT (roll_id, policy_id, mailbox) DO UPDATE SET until = EXCLUDED.until, next_at = EXCLUDED.next_at`,
				c.after.ID, s.Policy, box, c.after.TenantID, id, c.now.Add(MailboxWatched), c.now)
		}
	}
}

const mailboxColumns = `roll_id::text, tenant_id::text, policy_id, mailbox, before, last, looked_at, changed_at, until, version`

func scanMailbox(row pgx.CollectableRow) (MailboxWatch, error) {
	var w MailboxWatch
	return w, row.Scan(&w.RollID, &w.TenantID, &w.PolicyID, &w.Mailbox, &w.Before, &w.Last, &w.LookedAt, &w.ChangedAt, &w.Until, &w.Version)
}

// DueMailboxes takes up to limit watches whose next look is due, and puts
// their next look off by every, so that no other process takes them too. A
// watch past its time gets one last look.
func (s *Store) DueMailboxes(ctx context.Context, limit int, every time.Duration) ([]MailboxWatch, error) {
	now := s.Now()
	rows, err := s.pool.Query(ctx, `UPDATE mailbox_watches SET next_at = CASE WHEN until <= $1 THEN NULL ELSE $2::timestamptz END
	  WHERE (roll_id, policy_id, mailbox) IN (SELECT roll_id, policy_id, mailbox FROM mailbox_watches WHERE next_at <= $1 ORDER BY next_at LIMIT $3 FOR UPDATE SKIP LOCKED)
	  RETURNING `+mailboxColumns, now, now.Add(every), limit)
	if err != nil {
		return nil, fmt.Errorf("taking mailboxes to look at: %w", err)
	}
	return pgx.CollectRows(rows, scanMailbox)
}

// Mailboxes lists the watches of a roll.
func (s *Store) Mailboxes(ctx context.Context, rollID string) ([]MailboxWatch, error) {
	rows, err := s.pool.Query(ctx, `SELECT `+mailboxColumns+` FROM mailbox_watches WHERE roll_id = $1 ORDER BY policy_id, mailbox`, rollID)
	if err != nil {
		return nil, fmt.Errorf("reading the mailboxes of roll %s: %w", rollID, err)
	}
	return pgx.CollectRows(rows, scanMailbox)
}

// NoteMailbox records a look. A value that differs from the last one is a
// change, with its audit entry in the same transaction.
func (s *Store) NoteMailbox(ctx context.Context, w MailboxWatch, seen string) error {
	now := s.Now()
	if seen == w.Last {
		_, err := s.pool.Exec(ctx, `UPDATE mailbox_watches SET looked_at = $4 WHERE roll_id = $1 AND policy_id = $2 AND mailbox = $3`, w.RollID, w.PolicyID, w.Mailbox, now)
		if err != nil {
			return fmt.Errorf("recording a look at a mailbox: %w", err)
		}
		return nil
	}
	subject := "mailbox/" + w.RollID + "/" + w.PolicyID + "/" + w.Mailbox
	entry, err := audit.Entry{Subject: subject, Version: w.Version + 1, TenantID: w.TenantID, At: now,
		Actor: audit.Actor{Subject: roll.Keyroll().Subject, Kind: roll.System}, Events: []audit.Event{{Type: "mailbox_policy_id_changed",
			Detail: map[string]any{"mailbox": w.Mailbox, "policy": w.PolicyID, "from": w.Last, "to": seen}}}}.Bytes()
	if err != nil {
		return err
	}
	b := &pgx.Batch{}
	b.Queue(`WITH u AS (UPDATE mailbox_watches SET last = $5, looked_at = $6, changed_at = $6, version = version + 1, audit_chain = sha256(audit_chain || $7::bytea)
	  WHERE roll_id = $1 AND policy_id = $2 AND mailbox = $3 AND version = $4 RETURNING 1) SELECT keyroll_must_be_one((SELECT count(*) FROM u))`,
		w.RollID, w.PolicyID, w.Mailbox, w.Version, seen, now, entry)
	queueAudit(b, auditRow{tenantID: w.TenantID, rollID: w.RollID, subject: subject, version: w.Version + 1, at: now, bytes: entry})
	if err := send(ctx, s.pool, b); err != nil {
		if sqlState(err) == stateStale {
			return nil // another process saw the same change
		}
		return fmt.Errorf("recording a change of a mailbox: %w", err)
	}
	return nil
}
