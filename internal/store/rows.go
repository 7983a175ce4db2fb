package store

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/keyroll/keyroll/internal/roll"
)

// rollColumns are a roll's columns: data is the value without its plan and its
// steps, which have places of their own; the others are what SQL asks about.
type rollColumns struct {
	state, endCode, outcome, planHash string
	wakeAt, endedAt                   *time.Time
	updatedAt, progressAt             time.Time
	inFlight                          bool
	data, plan                        []byte
}

// rollRow takes a roll apart. Its plan is large and seldom new: without it
// plan is nil, which keeps the one that is stored.
func rollRow(r roll.Roll, withPlan bool) (rollColumns, error) {
	var plan []byte
	var err error
	if withPlan {
		if plan, err = jsonb(r.Plan); err != nil {
			return rollColumns{}, fmt.Errorf("encoding the plan of roll %s: %w", r.ID, err)
		}
	}
	bare := r
	bare.Plan = roll.Plan{Hash: r.Plan.Hash}
	data, err := jsonb(bare)
	if err != nil {
		return rollColumns{}, fmt.Errorf("encoding roll %s: %w", r.ID, err)
	}
	return rollColumns{state: string(r.State), endCode: r.EndCode, outcome: string(r.Outcome), planHash: r.Plan.Hash,
		wakeAt: r.WakeAt, endedAt: r.EndedAt, updatedAt: r.UpdatedAt, progressAt: r.ProgressAt, inFlight: r.InFlight(""), data: data, plan: plan}, nil
}

// selectRolls reads rolls with their steps as one JSON array each.
const selectRolls = `SELECT r.version, r.data, r.plan, (SELECT jsonb_agg(s.data ORDER BY s.n) FROM steps s WHERE s.roll_id = r.id) FROM rolls r `

func scanRoll(row pgx.CollectableRow) (roll.Roll, error) {
	var version int64
	var data, plan, steps []byte
	if err := row.Scan(&version, &data, &plan, &steps); err != nil {
		return roll.Roll{}, fmt.Errorf("reading a roll: %w", err)
	}
	var r roll.Roll
	if err := json.Unmarshal(data, &r); err != nil {
		return roll.Roll{}, fmt.Errorf("decoding a roll: %w", err)
	}
	if err := json.Unmarshal(plan, &r.Plan); err != nil {
		return roll.Roll{}, fmt.Errorf("decoding the plan of roll %s: %w", r.ID, err)
	}
	if steps != nil {
		if err := json.Unmarshal(steps, &r.Steps); err != nil {
			return roll.Roll{}, fmt.Errorf("decoding the steps of roll %s: %w", r.ID, err)
		}
	}
	r.Version = version
	return r, nil
}
