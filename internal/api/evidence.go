package api

import (
	"bytes"
	"context"
	"net/http"

	"github.com/keyroll/keyroll/internal/evidence"
	"github.com/keyroll/keyroll/internal/roll"
	"github.com/keyroll/keyroll/internal/store"
)

// ledgerInBundle bounds the versions of one key in a bundle, newest first; a
// vault keeps no backup of a key that has more.
const ledgerInBundle = 500

// GetRollEvidence gives the bundle that an auditor takes away.
func (h *handlers) GetRollEvidence(ctx context.Context, r GetRollEvidenceRequestObject) (GetRollEvidenceResponseObject, error) {
	found, err := h.Store.Roll(ctx, r.RollID)
	if err != nil {
		return nil, err
	}
	b, err := h.bundle(ctx, found)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	if err := b.Write(&out); err != nil {
		return nil, err
	}
	return bundleAnswer{name: "keyroll-" + found.ID + ".zip", body: out.Bytes()}, nil
}

type bundleAnswer struct {
	name string
	body []byte
}

// VisitGetRollEvidenceResponse writes it.
func (a bundleAnswer) VisitGetRollEvidenceResponse(w http.ResponseWriter) error {
	w.Header().Set("Content-Type", "application/zip")
	w.Header().Set("Content-Disposition", `attachment; filename="`+a.name+`"`)
	w.WriteHeader(http.StatusOK)
	_, err := w.Write(a.body)
	return err
}

// bundle collects what is known of the roll.
func (h *handlers) bundle(ctx context.Context, r roll.Roll) (evidence.Bundle, error) {
	b := evidence.Of(r)
	b.TakenAt, b.TakenBy = h.now(), PrincipalOf(ctx).Subject
	t, err := h.Store.Tenant(ctx, r.TenantID)
	if err != nil {
		return b, err
	}
	b.TenantName, b.Cloud = t.Inventory.Name, t.Inventory.Cloud
	approvals, err := h.Store.Approvals(ctx, r.ID)
	if err != nil {
		return b, err
	}
	b.Approvals = append(b.Approvals, approvals...)
	backups, err := h.Store.BackupsSince(ctx, r)
	if err != nil {
		return b, err
	}
	for i := range b.Keys {
		if held, ok := backups[b.Keys[i].ID]; ok {
			b.Keys[i].Backup = &evidence.Backup{TakenAt: held.TakenAt.UTC(), AttestedBy: held.AttestedBy, AttestedAt: held.AttestedAt.UTC(), Note: held.Note}
		}
		rows, err := h.Store.Ledger(ctx, r.TenantID, store.LedgerPage{KeyID: b.Keys[i].ID, Limit: ledgerInBundle})
		if err != nil {
			return b, err
		}
		for _, l := range rows {
			b.Keys[i].Ledger = append(b.Keys[i].Ledger, evidence.LedgerVersion{Version: l.Version, State: l.State, Origin: l.Origin, CreatedAt: l.CreatedAt.UTC(), LastVerifiedAt: l.LastVerifiedAt.UTC()})
		}
	}
	boxes, err := h.Store.Mailboxes(ctx, r.ID)
	if err != nil {
		return b, err
	}
	for _, m := range boxes {
		b.Mailboxes = append(b.Mailboxes, evidence.Mailbox{Policy: m.PolicyID, Mailbox: m.Mailbox, Before: m.Before, Last: m.Last, LookedAt: m.LookedAt, ChangedAt: m.ChangedAt, Until: m.Until})
	}
	record, err := h.Store.AuditRecord(ctx, r.ID)
	if err != nil {
		return b, err
	}
	return b, b.SetAudit(record.Lines, record.Version, record.Chain)
}
