package store

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/keyroll/keyroll/internal/roll"
)

// Origins of a ledger row.
const (
	OriginBackfill = "backfill"
	OriginRoll     = "roll"
	OriginStranger = "stranger"
)

// LedgerRow is a key version that a policy may ever have used. It must stay,
// enabled, for ever.
type LedgerRow struct {
	TenantID, KeyID, VaultHost, KeyName, Version string
	Policies                                     []string
	Origin, RollID, State                        string
	CreatedAt, FirstSeenAt, LastVerifiedAt       time.Time
	// HSMPlatform: "0" software, "1" the old platform, "2" the new one; "" where no vault has shown it yet.
	HSMPlatform string
	// UnverifiedSince and Unread: since when its vault cannot be read, and why.
	// What is known of the version is older than that.
	UnverifiedSince *time.Time
	Unread          string
}

// upsertLedger enters a version, or refreshes what is known of it. The
// policies that it was ever used by are kept, and so is its origin, except that
// a survey may have seen a roll's version before the roll knew of it. An older
// look does not overwrite what a newer one saw.
const upsertLedger = `INSERT INTO key_versions AS v (vault_host, key_name, version, tenant_id, key_id, policies, origin, roll_id, state, created_at, first_seen_at, last_verified_at, hsm_platform)
VALUES ($1,$2,$3,$4,$5,$6,$7,nullif($8,'')::uuid,$9,$10,$11,$11,$12)
ON CONFLICT (tenant_id, vault_host, lower(key_name), version) DO UPDATE SET key_id = EXCLUDED.key_id,
  state = CASE WHEN EXCLUDED.last_verified_at >= v.last_verified_at THEN EXCLUDED.state ELSE v.state END,
  hsm_platform = CASE WHEN EXCLUDED.hsm_platform <> '' THEN EXCLUDED.hsm_platform ELSE v.hsm_platform END,
  last_verified_at = greatest(v.last_verified_at, EXCLUDED.last_verified_at),
  origin = CASE WHEN EXCLUDED.origin = 'roll' THEN 'roll' ELSE v.origin END,
  roll_id = CASE WHEN EXCLUDED.origin = 'roll' AND v.origin <> 'roll' THEN EXCLUDED.roll_id ELSE coalesce(v.roll_id, EXCLUDED.roll_id) END,
  policies = ARRAY(SELECT DISTINCT p FROM unnest(v.policies || EXCLUDED.policies) p ORDER BY p)`

// ledgerLine is one version on its way into the ledger. Lines are written in
// one order, so that two writers never wait for each other in a circle.
type ledgerLine struct {
	ref                          roll.KeyRef
	keyID, origin, rollID, state string
	policies                     []string
	created                      time.Time
	platform                     string
}

func queueLines(b *pgx.Batch, tenantID string, lines []ledgerLine, now time.Time) {
	slices.SortFunc(lines, func(x, y ledgerLine) int {
		return cmp.Or(cmp.Compare(x.ref.Host, y.ref.Host), cmp.Compare(strings.ToLower(x.ref.Name), strings.ToLower(y.ref.Name)), cmp.Compare(x.ref.Version, y.ref.Version))
	})
	for _, l := range lines {
		b.Queue(upsertLedger, l.ref.Host, l.ref.Name, l.ref.Version, tenantID, l.keyID, l.policies, l.origin, l.rollID, l.state, l.created, now, l.platform)
	}
}

// queueLedger enters the versions that this change made or adopted.
func (c change) queueLedger(b *pgx.Batch) {
	var lines []ledgerLine
	for _, e := range c.effects {
		v, ok := e.(roll.RecordVersion)
		if !ok {
			continue
		}
		ref := roll.Key{VaultURL: v.Key.VaultURL, Name: v.Key.Name}.Ref()
		policies := []string{}
		if pk, ok := c.after.Plan.KeyByID(v.Key.ID); ok {
			policies = pk.Policies
		}
		origin := OriginRoll
		if v.Adopted {
			origin = OriginStranger
		}
		ref.Version = v.Version
		lines = append(lines, ledgerLine{ref: ref, keyID: v.Key.ID, origin: origin, rollID: c.after.ID, state: "enabled", policies: policies, created: v.Created, platform: v.HSMPlatform})
	}
	queueLines(b, c.after.TenantID, lines, c.now)
}

// RecordLedger enters what a survey saw of a tenant's keys: every version of
// every key (rule 12). Versions not seen before get the origin given.
func (s *Store) RecordLedger(ctx context.Context, inv roll.Inventory, obs roll.Observation, origin string) error {
	return s.inTx(ctx, func(tx pgx.Tx) error { return recordLedger(ctx, tx, inv, obs, origin, s.Now()) })
}

func recordLedger(ctx context.Context, tx pgx.Tx, inv roll.Inventory, obs roll.Observation, origin string, now time.Time) error {
	var lines []ledgerLine
	for _, k := range slices.Concat(inv.Keys, inv.FormerKeys) {
		id := k.ID
		ko, ok := obs.Keys[id]
		if !ok || ko.Trouble != nil {
			continue
		}
		policies := []string{}
		for _, p := range inv.PoliciesUsing(id) {
			policies = append(policies, p.ID)
		}
		ref := k.Ref()
		for _, v := range ko.Versions {
			state := "enabled"
			if !v.Enabled {
				state = "disabled"
			}
			ref.Version = v.Version
			lines = append(lines, ledgerLine{ref: ref, keyID: id, origin: origin, state: state, policies: policies, created: v.Created, platform: v.HSMPlatform})
		}
	}
	if len(lines) == 0 {
		return nil
	}
	b := &pgx.Batch{}
	queueLines(b, inv.TenantID, lines, now)
	if err := send(ctx, tx, b); err != nil {
		return fmt.Errorf("writing the ledger of tenant %s: %w", inv.TenantID, err)
	}
	return nil
}

// LedgerPage is where a page of the ledger goes on.
type LedgerPage struct {
	KeyID     string
	State     string
	AfterTime time.Time
	AfterKey  string // vault_host, key_name and version, joined by a space
	Limit     int
}

// Ledger lists a tenant's key versions, newest first.
func (s *Store) Ledger(ctx context.Context, tenantID string, p LedgerPage) ([]LedgerRow, error) {
	var after *time.Time
	if p.AfterKey != "" {
		after = &p.AfterTime
	}
	rows, err := s.pool.Query(ctx, `SELECT tenant_id::text, key_id, vault_host, key_name, v.version, policies, origin, coalesce(roll_id::text, ''), state, created_at, first_seen_at, last_verified_at,
	    k.unverified_since, coalesce(k.trouble->>'detail', ''), hsm_platform
	  FROM key_versions v LEFT JOIN LATERAL (SELECT unverified_since, trouble FROM ledger_keys k
	    WHERE k.tenant_id = v.tenant_id AND k.vault_host = v.vault_host AND k.key = lower(v.key_name)) k ON true
	  WHERE tenant_id = $1 AND ($2 = '' OR key_id = $2) AND ($6 = '' OR state = $6)
	    AND ($3::timestamptz IS NULL OR created_at < $3 OR created_at = $3 AND vault_host || ' ' || key_name || ' ' || version > $4)
	  ORDER BY created_at DESC, vault_host || ' ' || key_name || ' ' || version LIMIT $5`, tenantID, p.KeyID, after, p.AfterKey, p.Limit, p.State)
	if err != nil {
		return nil, fmt.Errorf("reading the ledger: %w", err)
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (LedgerRow, error) {
		var l LedgerRow
		return l, row.Scan(&l.TenantID, &l.KeyID, &l.VaultHost, &l.KeyName, &l.Version, &l.Policies, &l.Origin, &l.RollID, &l.State, &l.CreatedAt, &l.FirstSeenAt, &l.LastVerifiedAt, &l.UnverifiedSince, &l.Unread, &l.HSMPlatform)
	})
}
