package store

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/keyroll/keyroll/internal/roll"
)

// redeclares are the change's effects on the declaration.
func (c change) redeclares() (out []roll.Redeclare) {
	for _, e := range c.effects {
		if r, ok := e.(roll.Redeclare); ok {
			out = append(out, r)
		}
	}
	return out
}

// lockTenant locks the declaration that the change will make follow, before
// the roll's own row and the ledger: in the order of DeclareTenant, so that
// neither waits for the other in a circle.
func (c change) lockTenant(ctx context.Context, tx pgx.Tx) error {
	if len(c.redeclares()) == 0 {
		return nil
	}
	if _, err := tx.Exec(ctx, `SELECT 1 FROM tenants WHERE id = $1 FOR NO KEY UPDATE`, c.after.TenantID); err != nil {
		return fmt.Errorf("locking tenant %s: %w", c.after.TenantID, err)
	}
	return nil
}

// redeclare lets the tenant's declaration follow the slots that took another
// key: in the transaction that records the end of the operation, so that no
// crash leaves a declaration that names a key which the slot has not. A
// declaration that somebody edited meanwhile is left alone; the roll's next
// look at the policy stops on it. Doing it again changes nothing.
func (c change) redeclare(ctx context.Context, tx pgx.Tx) error {
	for _, e := range c.redeclares() {
		var version int64
		var raw []byte
		if err := tx.QueryRow(ctx, `SELECT version, declaration FROM tenants WHERE id = $1`, c.after.TenantID).Scan(&version, &raw); err != nil {
			return fmt.Errorf("reading tenant %s: %w", c.after.TenantID, err)
		}
		var inv roll.Inventory
		if err := json.Unmarshal(raw, &inv); err != nil {
			return fmt.Errorf("decoding tenant %s: %w", c.after.TenantID, err)
		}
		next, ok := inv.Follow(e)
		if !ok {
			continue
		}
		if raw, err := jsonb(next); err != nil {
			return fmt.Errorf("encoding the declaration: %w", err)
		} else if err := c.writeDeclaration(ctx, tx, next, version, raw, e); err != nil {
			return err
		}
	}
	return nil
}

func (c change) writeDeclaration(ctx context.Context, tx pgx.Tx, inv roll.Inventory, version int64, raw []byte, e roll.Redeclare) error {
	detail := map[string]any{"roll_id": c.after.ID, "policy": e.Policy, "slot": string(e.Slot), "old_key": e.Old, "new_key": e.New}
	b := &pgx.Batch{}
	if err := queueTenantEvent(b, c.after.TenantID, "tenant.slot_replaced", detail, c.now); err != nil {
		return err
	}
	detail["declaration"] = json.RawMessage(raw)
	entry, err := tenantEntry(c.after.TenantID, version+1, roll.Keyroll(), "slot_replaced", detail, c.now)
	if err != nil {
		return err
	}
	b.Queue(`UPDATE tenants SET version = version + 1, declaration = $2, audit_chain = sha256(audit_chain || $3::bytea), updated_at = $4 WHERE id = $1`,
		c.after.TenantID, raw, entry, c.now)
	queueAudit(b, auditRow{tenantID: c.after.TenantID, subject: "tenant/" + c.after.TenantID, version: version + 1, at: c.now, bytes: entry})
	queueProjection(b, inv)
	if err := send(ctx, tx, b); err != nil {
		return fmt.Errorf("letting the declaration of tenant %s follow: %w", c.after.TenantID, err)
	}
	return nil
}
