package store

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/keyroll/keyroll/internal/audit"
	"github.com/keyroll/keyroll/internal/roll"
)

// Tenant is a declared tenant.
type Tenant struct {
	Inventory  roll.Inventory
	Version    int64
	DeclaredAt time.Time
	UpdatedAt  time.Time
	RetiredAt  *time.Time
}

const selectTenants = `SELECT id::text, version, declaration, declared_at, updated_at, retired_at, ` + selectTransports + ` FROM tenants `

func scanTenant(row pgx.CollectableRow) (Tenant, error) {
	var t Tenant
	var id string
	var raw, chosen []byte
	if err := row.Scan(&id, &t.Version, &raw, &t.DeclaredAt, &t.UpdatedAt, &t.RetiredAt, &chosen); err != nil {
		return t, fmt.Errorf("reading a tenant: %w", err)
	}
	if err := json.Unmarshal(raw, &t.Inventory); err != nil {
		return t, fmt.Errorf("decoding tenant %s: %w", id, err)
	}
	var err error
	if t.Inventory.Recorded, err = transports(chosen); err != nil {
		return t, fmt.Errorf("reading tenant %s: %w", id, err)
	}
	return t, nil
}

// Tenant reads a tenant. ErrNotFound where there is none.
func (s *Store) Tenant(ctx context.Context, id string) (Tenant, error) {
	if _, ok := canonicalID(id); !ok {
		return Tenant{}, ErrNotFound
	}
	rows, err := s.pool.Query(ctx, selectTenants+`WHERE id = $1`, id)
	if err != nil {
		return Tenant{}, fmt.Errorf("reading tenant %s: %w", id, err)
	}
	t, err := pgx.CollectExactlyOneRow(rows, scanTenant)
	if errors.Is(err, pgx.ErrNoRows) {
		return Tenant{}, ErrNotFound
	}
	return t, err
}

// Tenants lists tenants, newest declaration first; afterTime and afterID are
// the last one of the page before.
func (s *Store) Tenants(ctx context.Context, afterTime time.Time, afterID string, limit int) ([]Tenant, error) {
	return s.TenantPage(ctx, TenantFilter{IncludeRetired: true, AfterTime: afterTime, AfterID: afterID, Limit: limit})
}

// TenantFilter narrows a list of tenants; AfterTime and AfterID are the last
// one of the page before.
type TenantFilter struct {
	IncludeRetired bool
	// NeedsAttention leaves those out that need no person now.
	NeedsAttention bool
	AfterTime      time.Time
	AfterID        string
	Limit          int
}

// TenantPage lists tenants, newest declaration first.
func (s *Store) TenantPage(ctx context.Context, f TenantFilter) ([]Tenant, error) {
	rows, err := s.pool.Query(ctx, selectTenants+`WHERE ($1 = '' OR (declared_at, id) < ($2, nullif($1, '')::uuid)) AND ($4 OR retired_at IS NULL)
	  AND (NOT $5 OR id IN (SELECT tenant_id FROM tenant_attention WHERE cleared_at IS NULL AND level = 'error'))
	  ORDER BY declared_at DESC, id DESC LIMIT $3`, f.AfterID, f.AfterTime, f.Limit, f.IncludeRetired, f.NeedsAttention)
	if err != nil {
		return nil, fmt.Errorf("listing tenants: %w", err)
	}
	return pgx.CollectRows(rows, scanTenant)
}

// KeyTakenError: another tenant declares the same key.
type KeyTakenError struct{ Detail string }

func (e *KeyTakenError) Error() string { return "another tenant declares one of these keys" }

// DeclareTenant writes a declaration. version is the one that the caller read,
// 0 to make a new tenant; ErrStale or ErrExists when that does not hold. The
// ledger is filled from obs in the same transaction; the lease rows exist from
// here on. Keys and policies that left the declaration keep their rows.
func (s *Store) DeclareTenant(ctx context.Context, inv roll.Inventory, version int64, by roll.Actor, obs roll.Observation) (Tenant, error) {
	return s.declare(ctx, inv, version, by, obs, nil)
}

// ApproveChange carries a pending change out: the declaration is written as
// DeclareTenant writes it, in one transaction with the change's end. ErrStale
// where the tenant or the change is no longer as it was read.
func (s *Store) ApproveChange(ctx context.Context, c TenantChange, by roll.Actor, comment string, obs roll.Observation) (Tenant, error) {
	return s.declare(ctx, c.Inventory, c.BaseVersion, by, obs, &confirmed{c, comment})
}

// confirmed is the change that a declaration carries out.
type confirmed struct {
	change  TenantChange
	comment string
}

func (s *Store) declare(ctx context.Context, inv roll.Inventory, version int64, by roll.Actor, obs roll.Observation, second *confirmed) (Tenant, error) {
	now := s.Now()
	id, ok := canonicalID(inv.TenantID)
	if !ok {
		return Tenant{}, fmt.Errorf("tenant id %q is no UUID", inv.TenantID)
	}
	inv.TenantID = id
	raw, err := jsonb(inv)
	if err != nil {
		return Tenant{}, fmt.Errorf("encoding the declaration: %w", err)
	}
	detail := map[string]any{"declaration": json.RawMessage(raw)}
	if second != nil {
		detail["change_id"], detail["requested_by"] = second.change.ID, second.change.RequestedBy.Subject
	}
	entry, err := tenantEntry(inv.TenantID, version+1, by, "declared", detail, now)
	if err != nil {
		return Tenant{}, err
	}
	err = s.inTx(ctx, func(tx pgx.Tx) error {
		b := &pgx.Batch{}
		if version == 0 {
			b.Queue(`INSERT INTO tenants (id, version, name, declaration, audit_chain, declared_at, updated_at) VALUES ($1,1,$2,$3,sha256($4::bytea),$5,$5)`,
				inv.TenantID, plain(inv.Name), raw, entry, now)
		} else {
			b.Queue(`WITH u AS (UPDATE tenants SET version = version + 1, name = $3, declaration = $4, audit_chain = sha256(audit_chain || $5::bytea), updated_at = $6, retired_at = NULL
			  WHERE id = $1 AND version = $2 RETURNING 1) SELECT keyroll_must_be_one((SELECT count(*) FROM u))`, inv.TenantID, version, plain(inv.Name), raw, entry, now)
		}
		queueAudit(b, auditRow{tenantID: inv.TenantID, subject: "tenant/" + inv.TenantID, version: version + 1, at: now, bytes: entry})
		if second != nil {
			if err := second.change.queueEnd(b, ChangeApproved, by, second.comment, now); err != nil {
				return err
			}
		}
		if err := send(ctx, tx, b); err != nil {
			return err
		}
		// The ledger before the leases, as a roll's own transition does it.
		if err := recordLedger(ctx, tx, inv, obs, OriginBackfill, now); err != nil {
			return err
		}
		b = &pgx.Batch{}
		queueProjection(b, inv)
		queueComparison(b, inv.TenantID, now)
		if err := send(ctx, tx, b); err != nil {
			return err
		}
		return s.wakeCalendar(ctx, tx, inv.TenantID, now)
	})
	switch {
	case sqlState(err) == stateStale:
		return Tenant{}, ErrStale
	case sqlState(err) == stateUnique && constraint(err) == "root_keys_one_owner":
		return Tenant{}, &KeyTakenError{Detail: s.takenKey(ctx, inv)}
	case sqlState(err) == stateUnique:
		return Tenant{}, ErrExists
	case err != nil:
		return Tenant{}, fmt.Errorf("writing the declaration of tenant %s: %w", inv.TenantID, err)
	}
	return s.Tenant(ctx, inv.TenantID)
}

// wakeCalendar wakes the rolls that wait for a change window or the end of a
// freeze: the declaration may have moved it. Their rows stay as they are.
func (s *Store) wakeCalendar(ctx context.Context, tx pgx.Tx, tenantID string, now time.Time) error {
	rows, err := tx.Query(ctx, `SELECT r.id::text FROM rolls r WHERE r.tenant_id = $1 AND r.ended_at IS NULL AND r.state = 'running'
	  AND EXISTS (SELECT 1 FROM steps s WHERE s.roll_id = r.id AND s.state = 'waiting' AND s.data->>'waiting_for' IN ($2, $3))`, tenantID, roll.WaitWindow, roll.WaitFreeze)
	if err != nil {
		return fmt.Errorf("looking for rolls that wait for the calendar: %w", err)
	}
	ids, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil || len(ids) == 0 {
		return err
	}
	wakes := make([]Wake, 0, len(ids))
	for _, id := range ids {
		wakes = append(wakes, Wake{RollID: id, Kind: roll.Preflight, At: now})
	}
	return s.enq.EnqueueTx(ctx, tx, wakes)
}

// takenKey names the key that another tenant declares; not which tenant.
func (s *Store) takenKey(ctx context.Context, inv roll.Inventory) string {
	for _, k := range inv.Keys {
		ref := k.Ref()
		var taken bool
		err := s.pool.QueryRow(ctx, `SELECT EXISTS (SELECT 1 FROM root_keys WHERE declared AND vault_host = $1 AND lower(name) = lower($2) AND tenant_id <> $3)`,
			ref.Host, ref.Name, inv.TenantID).Scan(&taken)
		if err == nil && taken {
			return fmt.Sprintf("key %s: %s in %s", k.ID, ref.Name, ref.Host)
		}
	}
	return ""
}

func queueProjection(b *pgx.Batch, inv roll.Inventory) {
	b.Queue(`UPDATE root_keys SET declared = false WHERE tenant_id = $1`, inv.TenantID)
	b.Queue(`UPDATE policies SET declared = false WHERE tenant_id = $1`, inv.TenantID)
	// In one order for all tenants, so that two which declare the same keys
	// never wait for each other in a circle.
	keys := slices.Clone(inv.Keys)
	slices.SortFunc(keys, func(x, y roll.Key) int {
		a, b := x.Ref(), y.Ref()
		return cmp.Or(cmp.Compare(a.Host, b.Host), cmp.Compare(strings.ToLower(a.Name), strings.ToLower(b.Name)))
	})
	for _, k := range keys {
		ref := k.Ref()
		b.Queue(`INSERT INTO root_keys (tenant_id, id, vault_host, name, declared) VALUES ($1,$2,$3,$4,true)
		  ON CONFLICT (tenant_id, id) DO UPDATE SET vault_host = EXCLUDED.vault_host, name = EXCLUDED.name, declared = true`, inv.TenantID, k.ID, ref.Host, ref.Name)
	}
	scopes := map[string]bool{}
	for _, p := range inv.Policies {
		b.Queue(`INSERT INTO policies (tenant_id, id, workload, name, guid, geo, key_ids, declared) VALUES ($1,$2,$3,$4,$5,$6,$7,true)
		  ON CONFLICT (tenant_id, id) DO UPDATE SET workload = EXCLUDED.workload, name = EXCLUDED.name, guid = EXCLUDED.guid, geo = EXCLUDED.geo, key_ids = EXCLUDED.key_ids, declared = true`,
			inv.TenantID, p.ID, string(p.Workload), plain(p.Name), p.GUID, p.Geo, p.KeyIDs())
		if p.Workload == roll.SharePoint {
			scopes[inv.LeaseScope(p.Geo)] = true
		}
	}
	// Locked first, and in order: what is copied is what stands after whoever
	// gives a lease back at this moment.
	b.Queue(`SELECT scope FROM sharepoint_leases WHERE tenant_id = $1 ORDER BY scope FOR UPDATE`, inv.TenantID)
	for _, scope := range slices.Sorted(maps.Keys(scopes)) {
		// A lease of another scope knows when operations ended on a geo; the gap
		// after them holds whichever scope is declared now.
		b.Queue(`INSERT INTO sharepoint_leases AS l (tenant_id, scope, last_ended)
		  SELECT $1, $2, coalesce((SELECT jsonb_object_agg(e.geo, e.at) FROM (SELECT o.key AS geo, max(o.value::timestamptz) AS at
		    FROM sharepoint_leases k, jsonb_each_text(k.last_ended) o WHERE k.tenant_id = $1 GROUP BY o.key) e), '{}')
		  ON CONFLICT (tenant_id, scope) DO UPDATE SET last_ended = l.last_ended || EXCLUDED.last_ended`, inv.TenantID, scope)
	}
}

func tenantEntry(tenantID string, version int64, by roll.Actor, action string, detail map[string]any, now time.Time) ([]byte, error) {
	return audit.Entry{Subject: "tenant/" + tenantID, Version: version, TenantID: tenantID, At: now,
		Actor: audit.Actor{Subject: by.Subject, Kind: by.Kind}, Events: []audit.Event{{Type: action, Detail: detail}}}.Bytes()
}

// ErrOpenRolls: the tenant has rolls that have not ended.
var ErrOpenRolls = errors.New("the tenant has open rolls")

// RetireTenant marks a tenant as gone; its ledger and its history stay.
func (s *Store) RetireTenant(ctx context.Context, id string, by roll.Actor, reason string) (Tenant, error) {
	id, ok := canonicalID(id)
	if !ok {
		return Tenant{}, ErrNotFound
	}
	err := s.inTx(ctx, func(tx pgx.Tx) error {
		var version int64
		var retired *time.Time
		err := tx.QueryRow(ctx, `SELECT version, retired_at FROM tenants WHERE id = $1 FOR UPDATE`, id).Scan(&version, &retired)
		if errors.Is(err, pgx.ErrNoRows) {
			return ErrNotFound
		}
		if err != nil {
			return fmt.Errorf("locking tenant %s: %w", id, err)
		}
		if retired != nil {
			return nil
		}
		var open bool
		if err := tx.QueryRow(ctx, `SELECT EXISTS (SELECT 1 FROM rolls WHERE tenant_id = $1 AND ended_at IS NULL)`, id).Scan(&open); err != nil {
			return fmt.Errorf("looking for open rolls: %w", err)
		}
		if open {
			return ErrOpenRolls
		}
		now := s.Now()
		entry, err := tenantEntry(id, version+1, by, "retired", map[string]any{"reason": reason}, now)
		if err != nil {
			return err
		}
		b := &pgx.Batch{}
		b.Queue(`UPDATE tenants SET version = version + 1, retired_at = $2, updated_at = $2, audit_chain = sha256(audit_chain || $3::bytea) WHERE id = $1`, id, now, entry)
		b.Queue(`UPDATE root_keys SET declared = false WHERE tenant_id = $1`, id)
		b.Queue(`UPDATE policies SET declared = false WHERE tenant_id = $1`, id)
		queueAudit(b, auditRow{tenantID: id, subject: "tenant/" + id, version: version + 1, at: now, bytes: entry})
		return send(ctx, tx, b)
	})
	if err != nil {
		return Tenant{}, err
	}
	return s.Tenant(ctx, id)
}
