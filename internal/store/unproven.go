package store

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/keyroll/keyroll/internal/roll"
)

// UnprovenOperations lists the SharePoint operations of a tenant's ended rolls
// of which nobody could tell whether they took effect, oldest roll first. One
// that a later roll's operation in the same slot has come after is left out:
// what the slot uses is known again. The keys of a roll are locked while it is
// open, so that the list for a slot does not change under a plan for it.
func (s *Store) UnprovenOperations(ctx context.Context, tenantID string) ([]roll.UnprovenOperation, error) {
	rows, err := s.pool.Query(ctx, `SELECT r.id::text, s.n, s.data->>'geo', s.data->>'slot', s.data->>'key', coalesce(s.op_id::text, s.data->>'op_id', ''),
	    to_char(r.ended_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"'), coalesce((SELECT k->>'new_version' FROM jsonb_array_elements(r.data->'keys') k WHERE k->>'id' = s.data->>'key'), '')
	  FROM rolls r JOIN steps s ON s.roll_id = r.id
	  WHERE r.tenant_id = $1 AND r.ended_at IS NOT NULL AND s.kind = 'sharepoint_roll_key'
	    AND (s.data->>'unproven' = 'true' OR NOT s.intent_settled)
	    AND NOT EXISTS (SELECT 1 FROM rolls l JOIN steps t ON t.roll_id = l.id
	      WHERE l.tenant_id = r.tenant_id AND l.created_at > r.created_at AND t.kind = 'sharepoint_roll_key' AND t.state = 'succeeded'
	        AND t.data->>'geo' = s.data->>'geo' AND t.data->>'slot' = s.data->>'slot')
	  ORDER BY r.created_at, r.id, s.n`, tenantID)
	if err != nil {
		return nil, fmt.Errorf("reading unproven operations of tenant %s: %w", tenantID, err)
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (roll.UnprovenOperation, error) {
		var u roll.UnprovenOperation
		return u, row.Scan(&u.Roll, &u.Step, &u.Geo, &u.Slot, &u.Key, &u.OpID, &u.Ended, &u.Version)
	})
}
