package store

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/keyroll/keyroll/internal/roll"
)

// queueSubjects notes which keys and policies the roll's plan is about, and
// lets go of those of an earlier plan: at most one open roll has each (rule
// 10). All rolls take them in one order, so that two that share some wait for
// each other and never in a circle.
func queueSubjects(b *pgx.Batch, r roll.Roll) {
	type subject struct{ id, host, name string }
	var keys []subject
	keyIDs, policyIDs := []string{}, []string{}
	for _, k := range r.Plan.Keys {
		ref := roll.Key{VaultURL: k.VaultURL, Name: k.Name}.Ref()
		keys, keyIDs = append(keys, subject{k.ID, ref.Host, ref.Name}), append(keyIDs, k.ID)
	}
	for _, k := range r.Plan.Replaces {
		ref := roll.Key{VaultURL: k.OldVaultURL, Name: k.OldName}.Ref()
		keys, keyIDs = append(keys, subject{k.OldKey, ref.Host, ref.Name}), append(keyIDs, k.OldKey)
	}
	policies := slices.Clone(r.Plan.Policies)
	for _, p := range policies {
		policyIDs = append(policyIDs, p.ID)
	}
	slices.SortFunc(keys, func(a, b subject) int {
		return cmp.Or(cmp.Compare(a.host, b.host), cmp.Compare(strings.ToLower(a.name), strings.ToLower(b.name)))
	})
	slices.SortFunc(policies, func(a, b roll.PlanPolicy) int { return cmp.Compare(a.ID, b.ID) })
	if r.Round > 1 {
		b.Queue(`UPDATE roll_keys SET open = false WHERE roll_id = $1 AND key_id <> ALL($2)`, r.ID, keyIDs)
		b.Queue(`UPDATE roll_policies SET open = false WHERE roll_id = $1 AND policy_id <> ALL($2)`, r.ID, policyIDs)
	}
	for _, k := range keys {
		b.Queue(`INSERT INTO roll_keys (roll_id, tenant_id, key_id, vault_host, key_name, open) VALUES ($1,$2,$3,$4,$5,true)
		  ON CONFLICT (roll_id, key_id) DO UPDATE SET vault_host = EXCLUDED.vault_host, key_name = EXCLUDED.key_name, open = true`,
			r.ID, r.TenantID, k.id, k.host, k.name)
	}
	for _, p := range policies {
		b.Queue(`INSERT INTO roll_policies (roll_id, tenant_id, policy_id, workload, open) VALUES ($1,$2,$3,$4,true)
		  ON CONFLICT (roll_id, policy_id) DO UPDATE SET workload = EXCLUDED.workload, open = true`, r.ID, r.TenantID, p.ID, string(p.Workload))
	}
}

// openRoll turns a violation of rule 10 by r into the id of the roll that is
// in the way; any other error comes back as it is.
func (s *Store) openRoll(ctx context.Context, r roll.Roll, cause error) error {
	var pg *pgconn.PgError
	if !errors.As(cause, &pg) || pg.Code != stateUnique || !strings.HasSuffix(pg.ConstraintName, "_one_open") {
		return cause
	}
	for _, k := range r.Plan.Keys {
		ref := roll.Key{VaultURL: k.VaultURL, Name: k.Name}.Ref()
		var id string
		err := s.pool.QueryRow(ctx, `SELECT roll_id::text FROM roll_keys WHERE open AND vault_host = $1 AND lower(key_name) = lower($2) AND roll_id <> $3`,
			ref.Host, ref.Name, r.ID).Scan(&id)
		if err == nil {
			return &OpenRollError{RollID: id, Subject: "key " + k.ID}
		}
	}
	for _, p := range r.Plan.Policies {
		var id string
		err := s.pool.QueryRow(ctx, `SELECT roll_id::text FROM roll_policies WHERE open AND workload <> 'sharepoint' AND tenant_id = $1 AND policy_id = $2 AND roll_id <> $3`,
			r.TenantID, p.ID, r.ID).Scan(&id)
		if err == nil {
			return &OpenRollError{RollID: id, Subject: "policy " + p.ID}
		}
	}
	// It ended between the insert and the look: asking again will do.
	return fmt.Errorf("writing roll %s: %w", r.ID, ErrStale)
}

// OpenRollFor names an open roll for one of the plan's keys or policies, or "".
func (s *Store) OpenRollFor(ctx context.Context, p roll.Plan) (string, error) {
	var keys, policies []string
	for _, k := range p.Keys {
		keys = append(keys, k.ID)
	}
	for _, k := range p.Replaces {
		keys = append(keys, k.OldKey)
	}
	for _, q := range p.Policies {
		if q.Workload != roll.SharePoint {
			policies = append(policies, q.ID)
		}
	}
	var id string
	err := s.pool.QueryRow(ctx, `SELECT roll_id::text FROM roll_keys WHERE open AND tenant_id = $1 AND key_id = ANY($2)
	  UNION ALL SELECT roll_id::text FROM roll_policies WHERE open AND tenant_id = $1 AND policy_id = ANY($3) LIMIT 1`, p.TenantID, keys, policies).Scan(&id)
	if errors.Is(err, pgx.ErrNoRows) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("looking for an open roll: %w", err)
	}
	return id, nil
}
