package api

import (
	"context"

	"github.com/keyroll/keyroll/internal/control"
	"github.com/keyroll/keyroll/internal/store"
)

// ListBackups lists what people attested.
func (h *handlers) ListBackups(ctx context.Context, r ListBackupsRequestObject) (ListBackupsResponseObject, error) {
	list := []string{"backups", r.TenantID}
	after, _, err := readRowCursor(r.Params.Cursor, list...)
	if err != nil {
		return nil, err
	}
	if _, err := h.Store.Tenant(ctx, r.TenantID); err != nil {
		return nil, err
	}
	limit := pageLimit(r.Params.Limit)
	found, err := h.Store.Backups(ctx, r.TenantID, after.At, after.ID, limit+1)
	if err != nil {
		return nil, err
	}
	found, next := pageOf(found, limit, func(b store.Backup) position { return position{At: b.AttestedAt, ID: b.ID} }, list...)
	return ListBackups200JSONResponse{Items: each(found, backup), NextCursor: next}, nil
}

// AttestBackup records a person's word on a backup.
func (h *handlers) AttestBackup(ctx context.Context, r AttestBackupRequestObject) (AttestBackupResponseObject, error) {
	b, err := h.Control.AttestBackup(ctx, PrincipalOf(ctx), r.TenantID, control.BackupAttestation{
		VaultURL: r.Body.VaultURL, KeyID: r.Body.Key, TakenAt: r.Body.TakenAt, Note: r.Body.Note,
	})
	if err != nil {
		return nil, err
	}
	return AttestBackup201JSONResponse(backup(b)), nil
}

func backup(b store.Backup) Backup {
	return Backup{
		ID: b.ID, VaultURL: "https://" + b.VaultHost, Name: b.KeyName, TakenAt: b.TakenAt.UTC(),
		AttestedBy: b.AttestedBy, AttestedAt: b.AttestedAt.UTC(), Note: b.Note,
	}
}
