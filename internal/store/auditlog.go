package store

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/keyroll/keyroll/internal/audit"
)

type auditRow struct {
	tenantID, rollID, subject string
	version                   int64
	at                        time.Time
	bytes                     []byte
}

// queueAudit adds the entry, and its place among those that no tree holds yet.
func queueAudit(b *pgx.Batch, a auditRow) {
	b.Queue(`WITH e AS (INSERT INTO audit_entries (tenant_id, roll_id, subject, version, at, bytes)
	  VALUES (nullif($1, '')::uuid, nullif($2, '')::uuid, $3, $4, $5, $6) RETURNING id)
	  INSERT INTO audit_pending (id) SELECT id FROM e`, a.tenantID, a.rollID, a.subject, a.version, a.at, a.bytes)
}

// subjectHeads are the rows that count audit entries, with their digests.
const subjectHeads = `
  SELECT 'roll/' || id, version, audit_chain, state FROM rolls
  UNION ALL SELECT 'tenant/' || id, version, audit_chain, '' FROM tenants
  UNION ALL SELECT 'tenant-change/' || id, version, audit_chain, state FROM tenant_changes
  UNION ALL SELECT 'backup/' || id, 1, audit_chain, '' FROM backups
  UNION ALL SELECT 'token/' || id, version, audit_chain, '' FROM api_tokens
  UNION ALL SELECT 'lease/' || tenant_id || '/' || scope, version, audit_chain, '' FROM sharepoint_leases WHERE version > 0
  UNION ALL SELECT 'mailbox/' || roll_id || '/' || policy_id || '/' || mailbox, version, audit_chain, '' FROM mailbox_watches WHERE version > 0
  UNION ALL SELECT 'ledger/' || tenant_id || '/' || vault_host || '/' || key, version, audit_chain, '' FROM ledger_keys WHERE version > 0
  UNION ALL SELECT 'drift/' || tenant_id, version, audit_chain, '' FROM tenant_comparisons WHERE version > 0
  UNION ALL SELECT 'transport/' || tenant_id || '/' || place, version, audit_chain, '' FROM tenant_transports`

// VerifyAudit holds every entry of the log against the subjects' versions and
// digests, in one snapshot. progress, where not nil, is told how many entries
// have been read.
func (s *Store) VerifyAudit(ctx context.Context, progress func(read int)) (audit.Report, error) {
	var report audit.Report
	tx, err := s.pool.BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly})
	if err != nil {
		return report, fmt.Errorf("beginning to verify: %w", err)
	}
	defer func() { _ = tx.Rollback(context.WithoutCancel(ctx)) }()
	if _, err := tx.Exec(ctx, `SET LOCAL statement_timeout = 0`); err != nil {
		return report, fmt.Errorf("beginning to verify: %w", err)
	}
	rows, err := tx.Query(ctx, subjectHeads)
	if err != nil {
		return report, fmt.Errorf("reading the subjects: %w", err)
	}
	heads, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (audit.Head, error) {
		var h audit.Head
		return h, row.Scan(&h.Subject, &h.Version, &h.Chain, &h.State)
	})
	if err != nil {
		return report, fmt.Errorf("reading the subjects: %w", err)
	}
	v := audit.NewVerifier(heads)
	rows, err = tx.Query(ctx, `SELECT id, subject, version, coalesce(tenant_id::text, ''), coalesce(roll_id::text, ''), at, bytes FROM audit_entries ORDER BY subject, version, id`)
	if err != nil {
		return report, fmt.Errorf("reading the entries: %w", err)
	}
	defer rows.Close()
	for read := 1; rows.Next(); read++ {
		var r audit.Row
		if err := rows.Scan(&r.ID, &r.Subject, &r.Version, &r.TenantID, &r.RollID, &r.At, &r.Bytes); err != nil {
			return report, fmt.Errorf("reading an entry: %w", err)
		}
		v.Add(r)
		if progress != nil && read%1000 == 0 {
			progress(read)
		}
	}
	if err := rows.Err(); err != nil {
		return report, fmt.Errorf("reading the entries: %w", err)
	}
	return v.Finish(), nil
}
