package store

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// Attention is why a tenant needs a person: what was seen, and what a person
// does. It is open until what it tells of was seen to have ended.
type Attention struct {
	TenantID, Code, Subject, Level string
	Detail, Action                 string
	Policies                       []string
	Since                          time.Time
}

// queueAttention opens one, unless it is open already.
func queueAttention(b *pgx.Batch, tenantID string, a Attention, now time.Time) {
	b.Queue(`INSERT INTO tenant_attention (tenant_id, code, subject, level, detail, action, policies, since) VALUES ($1,$2,$3,$4,$5,$6,$7,$8)
	  ON CONFLICT (tenant_id, code, subject) WHERE cleared_at IS NULL DO NOTHING`, tenantID, a.Code, a.Subject, a.Level, plain(a.Detail), plain(a.Action), a.Policies, now)
}

// Attentions reads what is open for the tenants, by tenant: errors first, then
// the oldest.
func (s *Store) Attentions(ctx context.Context, tenantIDs ...string) (map[string][]Attention, error) {
	rows, err := s.pool.Query(ctx, `SELECT tenant_id::text, code, subject, level, detail, action, policies, since FROM tenant_attention
	  WHERE cleared_at IS NULL AND tenant_id = ANY($1::uuid[]) ORDER BY level, since, id`, tenantIDs)
	if err != nil {
		return nil, fmt.Errorf("reading what needs attention: %w", err)
	}
	all, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (Attention, error) {
		var a Attention
		return a, row.Scan(&a.TenantID, &a.Code, &a.Subject, &a.Level, &a.Detail, &a.Action, &a.Policies, &a.Since)
	})
	if err != nil {
		return nil, fmt.Errorf("reading what needs attention: %w", err)
	}
	out := map[string][]Attention{}
	for _, a := range all {
		out[a.TenantID] = append(out[a.TenantID], a)
	}
	return out, nil
}

// LedgerStats are figures over the watch of the ledger.
type LedgerStats struct {
	// Violations that are open, by code.
	Violations map[string]int
	// Unwell are versions in another state than enabled, by state.
	Unwell map[string]int
	// OldestActive is when the vault of the key that has gone unread longest last
	// answered, among tenants that are not retired; OldestRetired among the rest.
	OldestActive, OldestRetired *time.Time
}

// LedgerStats reads them; each part has its index.
func (s *Store) LedgerStats(ctx context.Context) (LedgerStats, error) {
	st := LedgerStats{Violations: map[string]int{}, Unwell: map[string]int{}}
	oldest := `(SELECT k.checked_at FROM ledger_keys k WHERE EXISTS (SELECT 1 FROM tenants t WHERE t.id = k.tenant_id AND (t.retired_at IS NULL) = %t) ORDER BY k.checked_at LIMIT 1)`
	err := s.pool.QueryRow(ctx, `SELECT `+fmt.Sprintf(oldest, true)+`, `+fmt.Sprintf(oldest, false)).Scan(&st.OldestActive, &st.OldestRetired)
	if err != nil {
		return st, fmt.Errorf("reading the figures of the ledger: %w", err)
	}
	for sql, into := range map[string]map[string]int{
		`SELECT code, count(*) FROM tenant_attention WHERE cleared_at IS NULL GROUP BY code`: st.Violations,
		`SELECT state, count(*) FROM key_versions WHERE state <> 'enabled' GROUP BY state`:   st.Unwell,
	} {
		rows, err := s.pool.Query(ctx, sql)
		if err != nil {
			return st, fmt.Errorf("reading the figures of the ledger: %w", err)
		}
		var name string
		var n int
		if _, err := pgx.ForEachRow(rows, []any{&name, &n}, func() error { into[name] = n; return nil }); err != nil {
			return st, fmt.Errorf("reading the figures of the ledger: %w", err)
		}
	}
	return st, nil
}
