package api

import (
	"context"
	"errors"

	"github.com/google/uuid"

	"github.com/keyroll/keyroll/internal/control"
	"github.com/keyroll/keyroll/internal/store"
)

// ListTenants lists the declared tenants.
func (h *handlers) ListTenants(ctx context.Context, r ListTenantsRequestObject) (ListTenantsResponseObject, error) {
	list := []string{"tenants", boolText(r.Params.IncludeRetired), boolText(r.Params.NeedsAttention)}
	after, _, err := readRowCursor(r.Params.Cursor, list...)
	if err != nil {
		return nil, err
	}
	limit := pageLimit(r.Params.Limit)
	found, err := h.Store.TenantPage(ctx, store.TenantFilter{
		IncludeRetired: r.Params.IncludeRetired, NeedsAttention: r.Params.NeedsAttention, AfterTime: after.At, AfterID: after.ID, Limit: limit + 1,
	})
	if err != nil {
		return nil, err
	}
	found, next := pageOf(found, limit, func(t store.Tenant) position {
		return position{At: t.DeclaredAt, ID: t.Inventory.TenantID}
	}, list...)
	items, err := h.tenants(ctx, found)
	if err != nil {
		return nil, err
	}
	return ListTenants200JSONResponse{Items: items, NextCursor: next}, nil
}

// readRowCursor is readCursor for lists whose items have UUIDs as ids: another
// id, which no list of ours gave, would be an error of the database's.
func readRowCursor(cursor Cursor, list ...string) (position, bool, error) {
	pos, ok, err := readCursor(cursor, list...)
	if err != nil || !ok {
		return pos, ok, err
	}
	if _, err := uuid.Parse(pos.ID); err != nil || len(pos.ID) != 36 {
		return position{}, false, badCursor()
	}
	return pos, true, nil
}

func boolText(b bool) string {
	if b {
		return "true"
	}
	return ""
}

// GetTenant reads a declaration.
func (h *handlers) GetTenant(ctx context.Context, r GetTenantRequestObject) (GetTenantResponseObject, error) {
	t, err := h.Store.Tenant(ctx, r.TenantID)
	if err != nil {
		return nil, err
	}
	body, err := h.tenant(ctx, t)
	if err != nil {
		return nil, err
	}
	return GetTenant200JSONResponse{Body: body, Headers: GetTenant200ResponseHeaders{ETag: formatETag(t.Version)}}, nil
}

// PutTenant declares a tenant, or replaces the declaration that was read.
func (h *handlers) PutTenant(ctx context.Context, r PutTenantRequestObject) (PutTenantResponseObject, error) {
	pre, err := readPrecondition(r.Params.IfMatch, r.Params.IfNoneMatch)
	if err != nil {
		return nil, err
	}
	inv, err := inventory(r.TenantID, *r.Body)
	if err != nil {
		return nil, err
	}
	t, err := h.Control.Declare(ctx, PrincipalOf(ctx), inv, pre.Version)
	var pending *control.ChangePending
	switch {
	case errors.As(err, &pending):
		out := h.change(pending.Change)
		return PutTenant202JSONResponse{Body: out, Headers: PutTenant202ResponseHeaders{Location: changePath(pending.Change)}}, nil
	case errors.Is(err, store.ErrNotFound):
		return nil, refuse(ProblemCodeVersionMismatch, "there is no such tenant yet: declare it with If-None-Match: *")
	case err != nil:
		return nil, err
	}
	body, err := h.tenant(ctx, t)
	if err != nil {
		return nil, err
	}
	if pre.Create {
		return PutTenant201JSONResponse{Body: body, Headers: PutTenant201ResponseHeaders{
			ETag: formatETag(t.Version), Location: "/v1/tenants/" + t.Inventory.TenantID,
		}}, nil
	}
	return PutTenant200JSONResponse{Body: body, Headers: PutTenant200ResponseHeaders{ETag: formatETag(t.Version)}}, nil
}

// RetireTenant marks a tenant as gone.
func (h *handlers) RetireTenant(ctx context.Context, r RetireTenantRequestObject) (RetireTenantResponseObject, error) {
	t, err := h.Control.Retire(ctx, PrincipalOf(ctx), r.TenantID, r.Body.Reason)
	if err != nil {
		return nil, err
	}
	body, err := h.tenant(ctx, t)
	if err != nil {
		return nil, err
	}
	return RetireTenant200JSONResponse{Body: body, Headers: RetireTenant200ResponseHeaders{ETag: formatETag(t.Version)}}, nil
}

// ListKeyVersions lists the ledger of a tenant.
func (h *handlers) ListKeyVersions(ctx context.Context, r ListKeyVersionsRequestObject) (ListKeyVersionsResponseObject, error) {
	list := []string{"key-versions", r.TenantID, r.Params.Key, string(r.Params.State)}
	after, _, err := readCursor(r.Params.Cursor, list...)
	if err != nil {
		return nil, err
	}
	if _, err := h.Store.Tenant(ctx, r.TenantID); err != nil {
		return nil, err
	}
	limit := pageLimit(r.Params.Limit)
	rows, err := h.Store.Ledger(ctx, r.TenantID, store.LedgerPage{
		KeyID: r.Params.Key, State: string(r.Params.State), AfterTime: after.At, AfterKey: after.ID, Limit: limit + 1,
	})
	if err != nil {
		return nil, err
	}
	rows, next := pageOf(rows, limit, func(l store.LedgerRow) position {
		return position{At: l.CreatedAt, ID: l.VaultHost + " " + l.KeyName + " " + l.Version}
	}, list...)
	out := ListKeyVersions200JSONResponse{Items: []KeyVersion{}, NextCursor: next}
	for _, l := range rows {
		out.Items = append(out.Items, keyVersion(l))
	}
	return out, nil
}

// ReleaseSharePointLease is one of the two people's calls that take the lease
// away from the roll that holds it.
func (h *handlers) ReleaseSharePointLease(ctx context.Context, r ReleaseSharePointLeaseRequestObject) (ReleaseSharePointLeaseResponseObject, error) {
	scope := r.Body.Scope
	if scope == "" {
		scope = tenantScope
	}
	p := PrincipalOf(ctx)
	done, lease, err := h.Control.ReleaseLease(ctx, p, r.TenantID, scope, r.Body.Reason)
	if err != nil {
		return nil, err
	}
	out := LeaseRelease{TenantID: r.TenantID, Scope: scope, ReleasePending: !done, RollID: lease.ReleaseOf, RequestedBy: lease.ReleaseBy, RequestedAt: value(lease.ReleaseAt)}
	if !done {
		out.NextAction = "A second person sends the same request to confirm; look at SharePoint first: no operation may be under way."
		return ReleaseSharePointLease202JSONResponse(out), nil
	}
	out.ConfirmedBy, out.ConfirmedAt = p.Subject, h.now()
	out.NextAction = "Nothing: the lease is free."
	if lease.Holder != "" {
		out.NextAction = "Nothing: the lease has passed to roll " + lease.Holder + ", the next in the queue."
	}
	return ReleaseSharePointLease200JSONResponse(out), nil
}
