package store

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/keyroll/keyroll/internal/audit"
	"github.com/keyroll/keyroll/internal/roll"
)

// AuditFilter narrows an export of the audit log; zero members do not. AfterAt
// and AfterID are the last entry of the page before.
type AuditFilter struct {
	TenantID, RollID string
	Since, Until     time.Time
	AfterAt          time.Time
	AfterID          int64
	Limit            int
}

// AuditLine is an entry of the audit log with what stands beside it.
type AuditLine struct {
	ID               int64
	At               time.Time
	TenantID, RollID string
	Entry            audit.Entry
	// Digest is the SHA-256 of the entry's canonical bytes, in hex.
	Digest string
}

// AuditPage lists entries, oldest first.
func (s *Store) AuditPage(ctx context.Context, f AuditFilter) ([]AuditLine, error) {
	var since, until *time.Time
	if !f.Since.IsZero() {
		since = &f.Since
	}
	if !f.Until.IsZero() {
		until = &f.Until
	}
	rows, err := s.pool.Query(ctx, `SELECT id, at, coalesce(tenant_id::text, ''), coalesce(roll_id::text, ''), bytes FROM audit_entries
	  WHERE ($1 = '' OR tenant_id = nullif($1, '')::uuid) AND ($2 = '' OR roll_id = nullif($2, '')::uuid)
	    AND ($3::timestamptz IS NULL OR at >= $3) AND ($4::timestamptz IS NULL OR at < $4) AND ($6 = 0 OR (at, id) > ($5, $6))
	  ORDER BY at, id LIMIT $7`, f.TenantID, f.RollID, since, until, f.AfterAt, f.AfterID, f.Limit)
	if err != nil {
		return nil, fmt.Errorf("reading the audit log: %w", err)
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (AuditLine, error) {
		var l AuditLine
		var raw []byte
		if err := row.Scan(&l.ID, &l.At, &l.TenantID, &l.RollID, &raw); err != nil {
			return l, err
		}
		sum := sha256.Sum256(raw)
		l.Digest = hex.EncodeToString(sum[:])
		if err := json.Unmarshal(raw, &l.Entry); err != nil {
			return l, fmt.Errorf("decoding audit entry %d: %w", l.ID, err)
		}
		return l, nil
	})
}

// AuditRecord is what is known of a roll in the audit log, byte for byte.
type AuditRecord struct {
	// Lines are the canonical bytes of the roll's entries, in the order of the log.
	Lines [][]byte
	// Version and Chain are the roll's count of entries and their running
	// digest (audit.Link over them), as the roll's own row keeps them.
	Version int64
	Chain   []byte
}

// AuditRecord reads it in one snapshot.
func (s *Store) AuditRecord(ctx context.Context, rollID string) (AuditRecord, error) {
	var out AuditRecord
	err := s.inSnapshot(ctx, func(tx pgx.Tx) error {
		if err := tx.QueryRow(ctx, `SELECT version, audit_chain FROM rolls WHERE id = $1`, rollID).Scan(&out.Version, &out.Chain); err != nil {
			return err
		}
		rows, err := tx.Query(ctx, `SELECT bytes FROM audit_entries WHERE roll_id = $1 ORDER BY id`, rollID)
		if err != nil {
			return err
		}
		out.Lines, err = pgx.CollectRows(rows, pgx.RowTo[[]byte])
		return err
	})
	if err != nil {
		return out, fmt.Errorf("reading the entries of roll %s: %w", rollID, err)
	}
	return out, nil
}

func (s *Store) inSnapshot(ctx context.Context, f func(tx pgx.Tx) error) error {
	tx, err := s.pool.BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly})
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback(context.WithoutCancel(ctx)) }()
	return f(tx)
}

// Approvals lists the approvals of a roll, of all its plans, oldest first.
func (s *Store) Approvals(ctx context.Context, rollID string) ([]roll.Approval, error) {
	rows, err := s.pool.Query(ctx, `SELECT approver, plan_hash, comment, at FROM approvals WHERE roll_id = $1 ORDER BY at, approver`, rollID)
	if err != nil {
		return nil, fmt.Errorf("reading the approvals of roll %s: %w", rollID, err)
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (roll.Approval, error) {
		a := roll.Approval{By: roll.Actor{Kind: roll.Person}}
		return a, row.Scan(&a.By.Subject, &a.PlanHash, &a.Comment, &a.At)
	})
}

// KeyAge is how old a declared root key's newest version is, and when a roll
// last gave it one.
type KeyAge struct {
	TenantID, TenantName, KeyID, VaultHost, KeyName string
	Policies                                        []string
	Version                                         string
	CreatedAt                                       time.Time
	// RollID and RolledAt are the last roll of the key that succeeded; "" and nil where there was none.
	RollID   string
	RolledAt *time.Time
}

// KeyAgeFilter narrows the report; AfterAt, AfterTenant and AfterKey are the
// last key of the page before.
type KeyAgeFilter struct {
	TenantID string
	// OlderThan keeps the keys whose newest version was made before it.
	OlderThan             time.Time
	AfterAt               time.Time
	AfterTenant, AfterKey string
	Limit                 int
}

// KeyAges lists the declared keys of all tenants that are not retired, the
// oldest newest version first. A key of which the ledger knows no version is
// not among them.
func (s *Store) KeyAges(ctx context.Context, f KeyAgeFilter) ([]KeyAge, error) {
	rows, err := s.pool.Query(ctx, `SELECT k.tenant_id::text, t.name, k.id, k.vault_host, k.name,
	    ARRAY(SELECT p.id FROM policies p WHERE p.tenant_id = k.tenant_id AND p.declared AND k.id = ANY(p.key_ids) ORDER BY p.id),
	    v.version, v.created_at, coalesce(r.id::text, ''), r.ended_at
	  FROM root_keys k JOIN tenants t ON t.id = k.tenant_id
	  JOIN LATERAL (SELECT version, created_at FROM key_versions v WHERE v.tenant_id = k.tenant_id AND v.vault_host = k.vault_host AND lower(v.key_name) = lower(k.name)
	    ORDER BY v.created_at DESC, v.version LIMIT 1) v ON true
	  LEFT JOIN LATERAL (SELECT r.id, r.ended_at FROM roll_keys rk JOIN rolls r ON r.id = rk.roll_id
	    WHERE rk.tenant_id = k.tenant_id AND rk.key_id = k.id AND r.state = 'succeeded' ORDER BY r.ended_at DESC LIMIT 1) r ON true
	  WHERE k.declared AND t.retired_at IS NULL AND ($1 = '' OR k.tenant_id = nullif($1, '')::uuid) AND v.created_at < $2
	    AND ($4 = '' OR (v.created_at, k.tenant_id, k.id) > ($3, nullif($4, '')::uuid, $5))
	  ORDER BY v.created_at, k.tenant_id, k.id LIMIT $6`, f.TenantID, f.OlderThan, f.AfterAt, f.AfterTenant, f.AfterKey, f.Limit)
	if err != nil {
		return nil, fmt.Errorf("reading the ages of keys: %w", err)
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (KeyAge, error) {
		var a KeyAge
		return a, row.Scan(&a.TenantID, &a.TenantName, &a.KeyID, &a.VaultHost, &a.KeyName, &a.Policies, &a.Version, &a.CreatedAt, &a.RollID, &a.RolledAt)
	})
}
