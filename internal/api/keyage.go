package api

import (
	"context"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/keyroll/keyroll/internal/store"
)

const day = 24 * time.Hour

// olderThan is the time before which a key's newest version must have been
// made for the key to be in the report.
func (h *handlers) olderThan(days int) time.Time { return h.now().Add(-time.Duration(days) * day) }

// ListKeyAges reports the keys that were not rolled in so many days.
func (h *handlers) ListKeyAges(ctx context.Context, r ListKeyAgesRequestObject) (ListKeyAgesResponseObject, error) {
	q := r.Params
	list := []string{"key-ages", q.TenantID, strconv.Itoa(q.NotRolledForDays)}
	after, ok, err := readCursor(q.Cursor, list...)
	if err != nil {
		return nil, err
	}
	tenant, key, cut := strings.Cut(after.ID, " ")
	if ok && (!cut || len(tenant) != 36) {
		return nil, badCursor()
	}
	limit := pageLimit(q.Limit)
	found, err := h.Store.KeyAges(ctx, store.KeyAgeFilter{TenantID: q.TenantID, OlderThan: h.olderThan(q.NotRolledForDays),
		AfterAt: after.At, AfterTenant: tenant, AfterKey: key, Limit: limit + 1})
	if err != nil {
		return nil, err
	}
	found, next := pageOf(found, limit, func(a store.KeyAge) position { return position{At: a.CreatedAt, ID: a.TenantID + " " + a.KeyID} }, list...)
	return ListKeyAges200JSONResponse{Items: each(found, h.keyAge), NextCursor: next}, nil
}

func (h *handlers) keyAge(a store.KeyAge) KeyAge {
	return KeyAge{TenantID: a.TenantID, TenantName: a.TenantName, Key: a.KeyID, VaultURL: "https://" + a.VaultHost, Name: a.KeyName, Policies: notNil(a.Policies),
		NewestVersion: a.Version, NewestVersionAt: a.CreatedAt.UTC(), AgeDays: int(h.now().Sub(a.CreatedAt) / day), LastRollID: a.RollID, LastRolledAt: utc(a.RolledAt)}
}

// ExportKeyAges is the same report as CSV.
func (h *handlers) ExportKeyAges(ctx context.Context, r ExportKeyAgesRequestObject) (ExportKeyAgesResponseObject, error) {
	q := r.Params
	return keyAgesExport{export{ctx: ctx, name: "keyroll-key-ages.csv",
		header: []string{"tenant_id", "tenant_name", "key", "vault_url", "name", "policies", "newest_version", "newest_version_at", "age_days", "last_roll_id", "last_rolled_at"},
		rows: func(ctx context.Context, put func(...string)) error {
			f := store.KeyAgeFilter{TenantID: q.TenantID, OlderThan: h.olderThan(q.NotRolledForDays), Limit: exportPage}
			return paged(exportPage, func() ([]store.KeyAge, error) { return h.Store.KeyAges(ctx, f) }, func(x store.KeyAge) {
				f.AfterAt, f.AfterTenant, f.AfterKey = x.CreatedAt, x.TenantID, x.KeyID
				a := h.keyAge(x)
				put(a.TenantID, a.TenantName, a.Key, a.VaultURL, a.Name, strings.Join(a.Policies, "; "), a.NewestVersion, moment(a.NewestVersionAt), strconv.Itoa(a.AgeDays),
					a.LastRollID, moment(a.LastRolledAt))
			})
		}}}, nil
}

type keyAgesExport struct{ export }

// VisitExportKeyAgesResponse writes it.
func (e keyAgesExport) VisitExportKeyAgesResponse(w http.ResponseWriter) error { return e.write(w) }
