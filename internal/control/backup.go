package control

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/keyroll/keyroll/internal/access"
	"github.com/keyroll/keyroll/internal/roll"
	"github.com/keyroll/keyroll/internal/store"
)

// backupSkew is how far a person's watch may be off.
const backupSkew = 5 * time.Minute

// BackupAttestation is a person's word on a backup. KeyID "" means every key
// that the vault had.
type BackupAttestation struct {
	VaultURL, KeyID, Note string
	TakenAt               time.Time
}

// AttestBackup records that a person says the keys of a vault, or one of them,
// were backed up. Errors: *access.Denied, store.ErrNotFound, *roll.InvalidError.
func (c *Control) AttestBackup(ctx context.Context, p access.Principal, tenantID string, a BackupAttestation) (store.Backup, error) {
	if err := access.Allowed(p, access.AttestBackup); err != nil {
		return store.Backup{}, err
	}
	t, err := c.store.Tenant(ctx, tenantID)
	if err != nil {
		return store.Backup{}, err
	}
	b := store.Backup{TenantID: t.Inventory.TenantID, VaultHost: roll.Key{VaultURL: a.VaultURL}.Ref().Host, TakenAt: a.TakenAt, Note: strings.TrimSpace(a.Note)}
	known := false
	for _, k := range slices.Concat(t.Inventory.Keys, t.Inventory.FormerKeys) {
		if k.Ref().Host != b.VaultHost {
			continue
		}
		known = true
		if k.ID == a.KeyID {
			b.KeyName = k.Name
		}
	}
	switch now := c.store.Now(); {
	case !known:
		return b, invalid("/vault_url", "no declared key is in this vault")
	case a.KeyID != "" && b.KeyName == "":
		return b, invalid("/key", "key %q is not declared in this vault", a.KeyID)
	case a.TakenAt.After(now.Add(backupSkew)):
		return b, invalid("/taken_at", "a backup cannot have been taken in the future; it is %s", now.UTC().Format(time.RFC3339))
	}
	return c.store.AttestBackup(ctx, b, actor(p))
}
