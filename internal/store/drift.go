package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/keyroll/keyroll/internal/audit"
	"github.com/keyroll/keyroll/internal/roll"
)

// firstComparison is how soon after its declaration a tenant is compared.
const firstComparison = 5 * time.Minute

// queueComparison makes a declared tenant's turn come soon.
func queueComparison(b *pgx.Batch, tenantID string, now time.Time) {
	b.Queue(`INSERT INTO tenant_comparisons AS c (tenant_id, next_at) VALUES ($1, $2)
	  ON CONFLICT (tenant_id) DO UPDATE SET next_at = least(c.next_at, EXCLUDED.next_at)`, tenantID, now.Add(firstComparison))
}

// DriftRow is a difference that stands, since when and until when it was seen.
type DriftRow struct {
	roll.DriftItem
	Since, LastSeen time.Time
}

// TenantDrift is what the last comparisons of a tenant left: the differences
// that stand, what the last look could not check, and what it could read.
// LookedAt is nil before the first look, ComparedAt before the first one that
// no passing failure cut short.
type TenantDrift struct {
	TenantID             string
	Drift                []DriftRow
	NotChecked           []roll.NotChecked
	Reads                []roll.Read
	LookedAt, ComparedAt *time.Time
	NextAt               time.Time
}

// Look is a comparison on its way into the database. TenantVersion is the
// declaration's that was compared; Complete is false where a passing failure
// cut it short. Next, where not nil, says after how many such looks in a row
// the tenant is looked at again.
type Look struct {
	TenantID      string
	TenantVersion int64
	At            time.Time
	Comparison    roll.Comparison
	Reads         []roll.Read
	Complete      bool
	By            roll.Actor
	Next          func(failures int) time.Duration
}

// RecordDrift records a look: what is new and what is gone, with an audit
// entry and outgoing events where there is any of it, in one transaction. A
// look that began before the last recorded one changes nothing. ErrStale when
// the declaration has changed since, ErrNotFound for a retired tenant.
func (s *Store) RecordDrift(ctx context.Context, l Look) (TenantDrift, error) {
	err := s.inTx(ctx, func(tx pgx.Tx) error {
		var version int64
		var retired, looked *time.Time
		err := tx.QueryRow(ctx, `SELECT version, retired_at FROM tenants WHERE id = $1 FOR SHARE`, l.TenantID).Scan(&version, &retired)
		if errors.Is(err, pgx.ErrNoRows) || err == nil && retired != nil {
			return ErrNotFound
		}
		if err != nil {
			return fmt.Errorf("reading tenant %s: %w", l.TenantID, err)
		}
		if version != l.TenantVersion {
			return ErrStale
		}
		w := driftWriter{Look: l, now: s.Now()}
		err = tx.QueryRow(ctx, `SELECT version, failures, looked_at FROM tenant_comparisons WHERE tenant_id = $1 FOR UPDATE`, l.TenantID).Scan(&w.version, &w.failures, &looked)
		if err != nil {
			return fmt.Errorf("locking the comparison of tenant %s: %w", l.TenantID, err)
		}
		if looked != nil && looked.After(l.At) {
			return nil
		}
		open, err := openDrift(ctx, tx, l.TenantID)
		if err != nil {
			return err
		}
		b := &pgx.Batch{}
		if err := w.queue(b, open); err != nil {
			return err
		}
		return send(ctx, tx, b)
	})
	if errors.Is(err, ErrStale) || errors.Is(err, ErrNotFound) {
		return TenantDrift{}, err
	}
	if err != nil {
		return TenantDrift{}, fmt.Errorf("recording the drift of tenant %s: %w", l.TenantID, err)
	}
	return s.TenantDrift(ctx, l.TenantID)
}

type driftWriter struct {
	Look
	now      time.Time
	version  int64
	failures int
}

func (w driftWriter) queue(b *pgx.Batch, open []DriftRow) error {
	items := make([]roll.DriftItem, 0, len(open))
	for _, row := range open {
		items = append(items, row.DriftItem)
	}
	detected, cleared := w.Comparison.Settle(items)
	for _, it := range w.Comparison.Drift {
		b.Queue(`INSERT INTO tenant_drift AS d (tenant_id, key, code, subject, source, declared, seen, remedy, since, last_seen) VALUES ($1,$2,$3,$4,$5,$6,$7,$8,$9,$9)
		  ON CONFLICT (tenant_id, key) DO UPDATE SET source = EXCLUDED.source, declared = EXCLUDED.declared, seen = EXCLUDED.seen, remedy = EXCLUDED.remedy,
		    since = CASE WHEN d.cleared_at IS NULL THEN d.since ELSE EXCLUDED.since END, last_seen = EXCLUDED.last_seen, cleared_at = NULL`,
			w.TenantID, plain(it.Key), it.Code, it.Subject, it.Source, plain(it.Declared), plain(it.Seen), plain(it.Remedy), w.At)
	}
	for _, it := range cleared {
		b.Queue(`UPDATE tenant_drift SET cleared_at = $3 WHERE tenant_id = $1 AND key = $2`, w.TenantID, it.Key, w.At)
	}
	if len(detected)+len(cleared) > 0 {
		if err := w.tell(b, detected, cleared); err != nil {
			return err
		}
	}
	return w.schedule(b)
}

// tell writes the audit entry and the events.
func (w driftWriter) tell(b *pgx.Batch, detected, cleared []roll.DriftItem) error {
	subject := "drift/" + w.TenantID
	entry := audit.Entry{Subject: subject, Version: w.version + 1, TenantID: w.TenantID, At: w.now, Actor: audit.Actor{Subject: w.By.Subject, Kind: w.By.Kind}}
	for _, part := range []struct {
		kind  string
		items []roll.DriftItem
	}{{"drift_detected", detected}, {"drift_cleared", cleared}} {
		if len(part.items) == 0 {
			continue
		}
		var list []any
		for _, it := range part.items {
			detail := map[string]any{"key": it.Key, "code": it.Code, "subject": it.Subject, "declared": it.Declared, "seen": it.Seen}
			entry.Events = append(entry.Events, audit.Event{Type: part.kind, Detail: detail})
			list = append(list, map[string]any{"code": it.Code, "subject": it.Subject, "declared": it.Declared, "seen": it.Seen, "remedy": it.Remedy})
		}
		if err := queueTenantEvent(b, w.TenantID, "tenant."+part.kind, map[string]any{"tenant_id": w.TenantID, "at": w.At, "drift": list}, w.now); err != nil {
			return err
		}
	}
	raw, err := entry.Bytes()
	if err != nil {
		return err
	}
	b.Queue(`UPDATE tenant_comparisons SET version = version + 1, audit_chain = sha256(audit_chain || $2::bytea) WHERE tenant_id = $1`, w.TenantID, raw)
	queueAudit(b, auditRow{tenantID: w.TenantID, subject: subject, version: w.version + 1, at: w.now, bytes: raw})
	return nil
}

func (w driftWriter) schedule(b *pgx.Batch) error {
	skipped, err := jsonb(append([]roll.NotChecked{}, w.Comparison.NotChecked...))
	if err != nil {
		return fmt.Errorf("encoding what was not checked: %w", err)
	}
	reads, err := jsonb(append([]roll.Read{}, w.Reads...))
	if err != nil {
		return fmt.Errorf("encoding what was read: %w", err)
	}
	failures := w.failures + 1
	var compared, next *time.Time
	if w.Complete {
		failures, compared = 0, &w.At
	}
	if w.Next != nil {
		at := w.now.Add(w.Next(failures))
		next = &at
	}
	b.Queue(`UPDATE tenant_comparisons SET looked_at = $2, compared_at = coalesce($3, compared_at), not_checked = $4, reads = $5, failures = $6, next_at = coalesce($7, next_at) WHERE tenant_id = $1`,
		w.TenantID, w.At, compared, skipped, reads, failures, next)
	return nil
}

func openDrift(ctx context.Context, db interface {
	Query(context.Context, string, ...any) (pgx.Rows, error)
}, tenantID string) ([]DriftRow, error) {
	rows, err := db.Query(ctx, `SELECT key, code, subject, source, declared, seen, remedy, since, last_seen FROM tenant_drift WHERE tenant_id = $1 AND cleared_at IS NULL ORDER BY subject, key`, tenantID)
	if err != nil {
		return nil, fmt.Errorf("reading drift: %w", err)
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (DriftRow, error) {
		var d DriftRow
		return d, row.Scan(&d.Key, &d.Code, &d.Subject, &d.Source, &d.Declared, &d.Seen, &d.Remedy, &d.Since, &d.LastSeen)
	})
}

// TenantDrift reads what stands for a tenant. ErrNotFound where there is none.
func (s *Store) TenantDrift(ctx context.Context, tenantID string) (TenantDrift, error) {
	id, ok := canonicalID(tenantID)
	if !ok {
		return TenantDrift{}, ErrNotFound
	}
	d := TenantDrift{TenantID: id}
	var skipped, reads []byte
	err := s.pool.QueryRow(ctx, `SELECT looked_at, compared_at, next_at, not_checked, reads FROM tenant_comparisons WHERE tenant_id = $1`, id).Scan(&d.LookedAt, &d.ComparedAt, &d.NextAt, &skipped, &reads)
	if errors.Is(err, pgx.ErrNoRows) {
		return d, ErrNotFound
	}
	if err != nil {
		return d, fmt.Errorf("reading the comparison of tenant %s: %w", id, err)
	}
	if err := errors.Join(json.Unmarshal(skipped, &d.NotChecked), json.Unmarshal(reads, &d.Reads)); err != nil {
		return d, fmt.Errorf("decoding the comparison of tenant %s: %w", id, err)
	}
	d.Drift, err = openDrift(ctx, s.pool, id)
	return d, err
}

// DueComparisons takes up to limit tenants whose turn has come, and puts their
// next turn off by hold, so that no other process takes them too and a process
// that dies loses none.
func (s *Store) DueComparisons(ctx context.Context, limit int, hold time.Duration) ([]string, error) {
	now := s.Now()
	rows, err := s.pool.Query(ctx, `UPDATE tenant_comparisons SET next_at = $2 WHERE tenant_id IN (
	    SELECT c.tenant_id FROM tenant_comparisons c JOIN tenants t ON t.id = c.tenant_id
	    WHERE c.next_at <= $1 AND t.retired_at IS NULL ORDER BY c.next_at LIMIT $3 FOR UPDATE OF c SKIP LOCKED)
	  RETURNING tenant_id::text`, now, now.Add(hold), limit)
	if err != nil {
		return nil, fmt.Errorf("taking tenants to compare: %w", err)
	}
	return pgx.CollectRows(rows, pgx.RowTo[string])
}

// DriftBasis reads what a comparison holds Microsoft against: the ledger by
// declared key id, and the rolls of the tenant that are open. A version counts
// as accepted where it was there at the declaration, or a roll made or adopted it.
func (s *Store) DriftBasis(ctx context.Context, inv roll.Inventory) (map[string][]roll.Recorded, []roll.Roll, error) {
	rows, err := s.pool.Query(ctx, `SELECT vault_host, lower(key_name), version, created_at, origin IN ('backfill', 'roll') OR roll_id IS NOT NULL FROM key_versions WHERE tenant_id = $1`, inv.TenantID)
	if err != nil {
		return nil, nil, fmt.Errorf("reading the ledger: %w", err)
	}
	ids := map[string]string{}
	for _, k := range inv.Keys {
		ids[k.Ref().Host+"/"+strings.ToLower(k.Name)] = k.ID
	}
	ledger := map[string][]roll.Recorded{}
	var host, name string
	var r roll.Recorded
	_, err = pgx.ForEachRow(rows, []any{&host, &name, &r.Version, &r.Created, &r.Accepted}, func() error {
		if id, ok := ids[host+"/"+name]; ok {
			ledger[id] = append(ledger[id], r)
		}
		return nil
	})
	if err != nil {
		return nil, nil, fmt.Errorf("reading the ledger: %w", err)
	}
	// After the ledger: a roll that recorded a version must be known to have.
	open, err := s.openRollsOf(ctx, inv.TenantID)
	return ledger, open, err
}

func (s *Store) openRollsOf(ctx context.Context, tenantID string) ([]roll.Roll, error) {
	rows, err := s.pool.Query(ctx, selectRolls+`WHERE r.tenant_id = $1 AND r.ended_at IS NULL ORDER BY r.id`, tenantID)
	if err != nil {
		return nil, fmt.Errorf("reading the open rolls of tenant %s: %w", tenantID, err)
	}
	return pgx.CollectRows(rows, scanRoll)
}

// DriftStats are figures over the tenants that are not retired.
type DriftStats struct {
	// Items that stand, by code.
	Items map[string]int
	// NotChecked counts what the last looks could not check. What there was no
	// reason to ask about is not among it.
	NotChecked int
	// Oldest is the oldest last complete comparison; a tenant that has none
	// counts from its declaration. Nil without tenants.
	Oldest *time.Time
}

// DriftStats reads them.
func (s *Store) DriftStats(ctx context.Context) (DriftStats, error) {
	st := DriftStats{Items: map[string]int{}}
	err := s.pool.QueryRow(ctx, `SELECT coalesce(sum((SELECT count(*) FROM jsonb_array_elements(c.not_checked) n WHERE n->>'code' <> $1)), 0), min(coalesce(c.compared_at, t.declared_at))
	  FROM tenant_comparisons c JOIN tenants t ON t.id = c.tenant_id WHERE t.retired_at IS NULL`, roll.CodeNotAsked).Scan(&st.NotChecked, &st.Oldest)
	if err != nil {
		return st, fmt.Errorf("reading the figures of drift: %w", err)
	}
	rows, err := s.pool.Query(ctx, `SELECT d.code, count(*) FROM tenant_drift d JOIN tenants t ON t.id = d.tenant_id WHERE d.cleared_at IS NULL AND t.retired_at IS NULL GROUP BY d.code`)
	if err != nil {
		return st, fmt.Errorf("counting drift: %w", err)
	}
	var code string
	var n int
	_, err = pgx.ForEachRow(rows, []any{&code, &n}, func() error { st.Items[code] = n; return nil })
	return st, err
}

// Proof reads what Keyroll itself has done in a tenant: steps that ended well.
func (s *Store) Proof(ctx context.Context, tenantID string) (roll.Proof, error) {
	p := roll.Proof{Created: map[string]bool{}, Rolled: map[string]bool{}}
	rows, err := s.pool.Query(ctx, `SELECT DISTINCT 'created', vault_host FROM key_versions WHERE tenant_id = $1 AND origin = 'roll'
	  UNION SELECT DISTINCT s.kind, coalesce(s.data->>'geo', '') FROM steps s JOIN rolls r ON r.id = s.roll_id
	    WHERE r.tenant_id = $1 AND s.kind IN ('refresh_policy', 'sharepoint_roll_key') AND s.state = 'succeeded'`, tenantID)
	if err != nil {
		return p, fmt.Errorf("reading what was done in tenant %s: %w", tenantID, err)
	}
	var what, where string
	_, err = pgx.ForEachRow(rows, []any{&what, &where}, func() error {
		switch what {
		case "created":
			p.Created[where] = true
		case string(roll.RefreshPolicy):
			p.Refreshed = true
		default:
			p.Rolled[where] = true
		}
		return nil
	})
	return p, err
}
