package store

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/keyroll/keyroll/internal/audit"
	"github.com/keyroll/keyroll/internal/roll"
)

// Backup is a person's word that a vault's keys, or one of them, were backed
// up: with every version that the vault had at TakenAt. KeyName is "" for all
// keys of the vault. Keyroll sees no backup itself.
type Backup struct {
	ID, TenantID, VaultHost, KeyName string
	TakenAt, AttestedAt              time.Time
	AttestedBy, Note                 string
}

// Covers says whether the backup holds a version of the key that was created
// at the time given. A vault keeps whole seconds, so that one taken within the
// same second may not hold it.
func (b Backup) Covers(ref roll.KeyRef, created time.Time) bool {
	return b.VaultHost == ref.Host && (b.KeyName == "" || strings.EqualFold(b.KeyName, ref.Name)) && !b.TakenAt.Before(created.Add(time.Second))
}

// AttestBackup records a backup, its audit entry and its event.
func (s *Store) AttestBackup(ctx context.Context, b Backup, by roll.Actor) (Backup, error) {
	id, err := uuid.NewV7()
	if err != nil {
		return b, fmt.Errorf("making a backup's id: %w", err)
	}
	b.ID, b.AttestedAt, b.AttestedBy = id.String(), s.Now(), by.Subject
	detail := map[string]any{"vault": b.VaultHost, "key": b.KeyName, "taken_at": b.TakenAt.UTC().Format(time.RFC3339), "note": b.Note}
	entry, err := audit.Entry{Subject: "backup/" + b.ID, Version: 1, TenantID: b.TenantID, At: b.AttestedAt,
		Actor: audit.Actor{Subject: by.Subject, Kind: by.Kind}, Events: []audit.Event{{Type: "backup_attested", Detail: detail}}}.Bytes()
	if err != nil {
		return b, err
	}
	batch := &pgx.Batch{}
	batch.Queue(`INSERT INTO backups (id, tenant_id, vault_host, key_name, taken_at, attested_at, attested_by, note, audit_chain) VALUES ($1,$2,$3,$4,$5,$6,$7,$8,sha256($9::bytea))`,
		b.ID, b.TenantID, b.VaultHost, b.KeyName, b.TakenAt, b.AttestedAt, b.AttestedBy, plain(b.Note), entry)
	queueAudit(batch, auditRow{tenantID: b.TenantID, subject: "backup/" + b.ID, version: 1, at: b.AttestedAt, bytes: entry})
	if err := queueTenantEvent(batch, b.TenantID, "backup.attested", detail, b.AttestedAt); err != nil {
		return b, err
	}
	if err := send(ctx, s.pool, batch); err != nil {
		return b, fmt.Errorf("recording a backup: %w", err)
	}
	return b, nil
}

const selectBackups = `SELECT id::text, tenant_id::text, vault_host, key_name, taken_at, attested_at, attested_by, note FROM backups `

func scanBackup(row pgx.CollectableRow) (Backup, error) {
	var b Backup
	return b, row.Scan(&b.ID, &b.TenantID, &b.VaultHost, &b.KeyName, &b.TakenAt, &b.AttestedAt, &b.AttestedBy, &b.Note)
}

// Backups lists what was attested, newest first; afterTime and afterID are the
// last one of the page before.
func (s *Store) Backups(ctx context.Context, tenantID string, afterTime time.Time, afterID string, limit int) ([]Backup, error) {
	rows, err := s.pool.Query(ctx, selectBackups+`WHERE tenant_id = $1 AND ($2 = '' OR (attested_at, id) < ($3, nullif($2, '')::uuid))
	  ORDER BY attested_at DESC, id DESC LIMIT $4`, tenantID, afterID, afterTime, limit)
	if err != nil {
		return nil, fmt.Errorf("listing backups: %w", err)
	}
	return pgx.CollectRows(rows, scanBackup)
}

// LatestBackups is the newest time at which a backup of each key was taken, by
// declared id; a key without one is not in the map.
func (s *Store) LatestBackups(ctx context.Context, inv roll.Inventory) (map[string]time.Time, error) {
	all, err := s.newestBackups(ctx, inv.TenantID)
	if err != nil {
		return nil, err
	}
	out := map[string]time.Time{}
	for _, k := range inv.Keys {
		for _, b := range all {
			if b.Covers(k.Ref(), time.Time{}) && b.TakenAt.After(out[k.ID]) {
				out[k.ID] = b.TakenAt
			}
		}
	}
	return out, nil
}

// newestBackups are the newest backup of each vault and key.
func (s *Store) newestBackups(ctx context.Context, tenantID string) ([]Backup, error) {
	rows, err := s.pool.Query(ctx, `SELECT DISTINCT ON (vault_host, lower(key_name)) id::text, tenant_id::text, vault_host, key_name, taken_at, attested_at, attested_by, note
	  FROM backups WHERE tenant_id = $1 ORDER BY vault_host, lower(key_name), taken_at DESC, id DESC`, tenantID)
	if err != nil {
		return nil, fmt.Errorf("reading the backups of tenant %s: %w", tenantID, err)
	}
	return pgx.CollectRows(rows, scanBackup)
}

// BackupsSince gives, by key id, a backup that covers the version which the
// roll made or adopted; a key without one is not in the map.
func (s *Store) BackupsSince(ctx context.Context, r roll.Roll) (map[string]Backup, error) {
	all, err := s.newestBackups(ctx, r.TenantID)
	if err != nil {
		return nil, err
	}
	out := map[string]Backup{}
	for _, k := range r.Keys {
		created, ok := r.VersionCreated(k.ID)
		ref := roll.Key{VaultURL: k.VaultURL, Name: k.Name}.Ref()
		for _, b := range all {
			if ok && b.Covers(ref, created) && b.TakenAt.After(out[k.ID].TakenAt) {
				out[k.ID] = b
			}
		}
	}
	return out, nil
}
