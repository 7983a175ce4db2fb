package store

import (
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// queueTenantEvent puts an event about a tenant, and no roll, into the outbox:
// in the batch of the change that it tells of, and of that change's audit entry.
func queueTenantEvent(b *pgx.Batch, tenantID, kind string, payload map[string]any, now time.Time) error {
	data, err := jsonb(payload)
	if err != nil {
		return fmt.Errorf("encoding an event: %w", err)
	}
	b.Queue(`INSERT INTO events (tenant_id, type, payload, at) VALUES ($1,$2,$3,$4)`, tenantID, kind, data, now)
	return nil
}
