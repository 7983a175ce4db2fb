package api

import (
	"context"
	"fmt"
	"time"

	"github.com/keyroll/keyroll/internal/roll"
	"github.com/keyroll/keyroll/internal/store"
)

func changePath(c store.TenantChange) string {
	return "/v1/tenants/" + c.TenantID + "/changes/" + c.ID
}

// change is a change of a tenant as the contract shows it.
func (h *handlers) change(c store.TenantChange) TenantChange {
	return TenantChange{
		ID: c.ID, TenantID: c.TenantID, State: TenantChangeState(c.State), BaseVersion: c.BaseVersion, Hash: c.Hash,
		Weakens: each(c.Weakens, func(w roll.Weakening) Weakening {
			return Weakening{Pointer: w.Pointer, What: w.What, From: w.From, To: w.To}
		}),
		Declaration: declaration(c.Inventory), RequestedBy: c.RequestedBy.Subject, RequestedAt: c.RequestedAt.UTC(), ExpiresAt: c.ExpiresAt.UTC(),
		DecidedBy: c.DecidedBy, DecidedAt: utc(c.DecidedAt), Comment: c.Comment, NextAction: changeAction(c),
	}
}

// changeAction says what a human does now about a change.
func changeAction(c store.TenantChange) string {
	switch c.State {
	case store.ChangePending:
		return fmt.Sprintf("Nothing is changed yet. A person with the role admin other than %s reads what it weakens, and before %s approves it by POST %s/approve with its hash, or rejects it by POST %s/reject.",
			c.RequestedBy.Subject, c.ExpiresAt.UTC().Format(time.RFC3339), changePath(c), changePath(c))
	case store.ChangeApproved:
		return "Nothing: it is declared."
	case store.ChangeRejected:
		return "Nothing: it was refused, and what was declared before holds."
	case store.ChangeStale:
		return "The tenant was declared anew meanwhile: read it, and declare anew what is still wanted."
	case store.ChangeExpired:
		return "Nobody confirmed it in time: declare it again if it is still wanted."
	}
	return fmt.Sprintf("State %q is unknown to this server: upgrade it.", c.State)
}

// ListTenantChanges lists the declarations that needed a second person. A
// tenant whose first declaration waits has changes and is not there yet.
func (h *handlers) ListTenantChanges(ctx context.Context, r ListTenantChangesRequestObject) (ListTenantChangesResponseObject, error) {
	list := []string{"tenant-changes", r.TenantID, string(r.Params.State)}
	after, _, err := readRowCursor(r.Params.Cursor, list...)
	if err != nil {
		return nil, err
	}
	limit := pageLimit(r.Params.Limit)
	found, err := h.Store.Changes(ctx, store.ChangeFilter{
		TenantID: r.TenantID, State: string(r.Params.State), AfterTime: after.At, AfterID: after.ID, Limit: limit + 1,
	})
	if err != nil {
		return nil, err
	}
	if len(found) == 0 {
		if _, err := h.Store.Tenant(ctx, r.TenantID); err != nil {
			return nil, err
		}
	}
	found, next := pageOf(found, limit, func(c store.TenantChange) position {
		return position{At: c.RequestedAt, ID: c.ID}
	}, list...)
	return ListTenantChanges200JSONResponse{Items: each(found, h.change), NextCursor: next}, nil
}

// GetTenantChange reads one.
func (h *handlers) GetTenantChange(ctx context.Context, r GetTenantChangeRequestObject) (GetTenantChangeResponseObject, error) {
	c, err := h.Store.Change(ctx, r.TenantID, r.ChangeID)
	if err != nil {
		return nil, err
	}
	return GetTenantChange200JSONResponse(h.change(c)), nil
}

// ApproveTenantChange carries one out.
func (h *handlers) ApproveTenantChange(ctx context.Context, r ApproveTenantChangeRequestObject) (ApproveTenantChangeResponseObject, error) {
	t, err := h.Control.ApproveChange(ctx, PrincipalOf(ctx), r.TenantID, r.ChangeID, r.Body.Hash, r.Body.Comment)
	if err != nil {
		return nil, err
	}
	body, err := h.tenant(ctx, t)
	if err != nil {
		return nil, err
	}
	return ApproveTenantChange200JSONResponse{Body: body, Headers: ApproveTenantChange200ResponseHeaders{ETag: formatETag(t.Version)}}, nil
}

// RejectTenantChange ends one.
func (h *handlers) RejectTenantChange(ctx context.Context, r RejectTenantChangeRequestObject) (RejectTenantChangeResponseObject, error) {
	c, err := h.Control.RejectChange(ctx, PrincipalOf(ctx), r.TenantID, r.ChangeID, r.Body.Reason)
	if err != nil {
		return nil, err
	}
	return RejectTenantChange200JSONResponse(h.change(c)), nil
}
