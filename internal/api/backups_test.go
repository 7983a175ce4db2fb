package api_test

import (
	"strings"
	"testing"
	"time"

	"github.com/keyroll/keyroll/internal/api"
)

// TestBackups: a person attests, everybody who may read sees it, page by page;
// a service may not say it, and a mistake is told where it is.
func TestBackups(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	path := tenantPath + "/backups"
	now := h.st.Now().UTC().Truncate(time.Second)
	attest := func(vault, key string, at time.Time) map[string]any {
		out := map[string]any{"vault_url": vault, "taken_at": at.Format(time.RFC3339), "note": "one in the safe"}
		if key != "" {
			out["key"] = key
		}
		return out
	}
	const vault = "https://contoso-exo-a.vault.azure.net"
	refused(t, h.as("ada", "POST", path, attest(vault, "", now)), 404, api.ProblemCodeNotFound)
	refused(t, h.as("aud", "GET", path, nil), 404, api.ProblemCodeNotFound)
	h.declare()
	if got := answer[api.BackupList](t, h.as("aud", "GET", path, nil), 200); len(got.Items) != 0 || got.NextCursor != "" {
		t.Errorf("before any: %+v", got)
	}
	// robot has every role, and is no person.
	refused(t, h.as("robot", "POST", path, attest(vault, "", now)), 403, api.ProblemCodeForbidden)
	refused(t, h.as("rex", "POST", path, attest(vault, "", now)), 403, api.ProblemCodeForbidden)
	refused(t, h.as("", "POST", path, attest(vault, "", now)), 401, api.ProblemCodeUnauthenticated)
	for _, tt := range []struct {
		body    any
		status  int
		code    api.ProblemCode
		pointer string
	}{
		{attest("https://elsewhere.vault.azure.net", "", now), 422, api.ProblemCodeUnprocessable, "/vault_url"},
		{attest(vault, "exo-b", now), 422, api.ProblemCodeUnprocessable, "/key"},
		{attest(vault, "", now.Add(time.Hour)), 422, api.ProblemCodeUnprocessable, "/taken_at"},
		{attest("http://contoso-exo-a.vault.azure.net", "", now), 400, api.ProblemCodeInvalidRequest, "/vault_url"},
		{`{"vault_url":"` + vault + `"}`, 400, api.ProblemCodeInvalidRequest, "/taken_at"},
		{`{"vault_url":"` + vault + `","taken_at":"yesterday"}`, 400, api.ProblemCodeInvalidRequest, "/taken_at"},
		{`{"vault_url":"` + vault + `","taken_at":"2026-01-31T08:00:00Z","blob":"x"}`, 400, api.ProblemCodeInvalidRequest, "/blob"},
		{`{"vault_url":"` + vault + `","taken_at":"2026-01-31T08:00:00Z","note":"` + strings.Repeat("n", 2001) + `"}`, 400, api.ProblemCodeInvalidRequest, "/note"},
	} {
		p := refused(t, h.as("ada", "POST", path, tt.body), tt.status, tt.code)
		if len(p.Errors) != 1 || p.Errors[0].Pointer != tt.pointer || p.NextAction == "" {
			t.Errorf("%v: %+v", tt.body, p)
		}
	}
	first := answer[api.Backup](t, h.as("ada", "POST", path, attest(vault, "exo-a", now)), 201)
	if first.VaultURL != vault || first.Name != "Contoso-EXO-A-Key001" || first.AttestedBy != "ada@contoso.com" || first.Note != "one in the safe" || !first.TakenAt.Equal(now) {
		t.Errorf("%+v", first)
	}
	second := answer[api.Backup](t, h.as("bea", "POST", path, attest(vault, "", now)), 201)
	page := answer[api.BackupList](t, h.as("aud", "GET", path+"?limit=1", nil), 200)
	if len(page.Items) != 1 || page.Items[0].ID != second.ID || page.Items[0].Name != "" || page.NextCursor == "" {
		t.Fatalf("the first page: %+v", page)
	}
	rest := answer[api.BackupList](t, h.as("aud", "GET", path+"?limit=1&cursor="+page.NextCursor, nil), 200)
	if len(rest.Items) != 1 || rest.Items[0].ID != first.ID || rest.NextCursor != "" {
		t.Errorf("the second: %+v", rest)
	}
	refused(t, h.as("aud", "GET", path+"?cursor=nonsense", nil), 400, api.ProblemCodeBadCursor)
}
