package sim_test

import (
	"testing"

	"github.com/keyroll/keyroll/internal/sim"
)

const (
	armHost  = "https://management.azure.com"
	armScope = armHost + "/.default"
)

// arm calls Resource Manager and returns the answer and its error code.
func (b *bench) arm(method, path, scope, body string) (response, string) {
	b.t.Helper()
	header := []string{"Content-Type", "application/json"}
	if scope != "" {
		header = append(header, "Authorization", "Bearer "+b.token(scope))
	}
	r := b.send(method, armHost+path, body, header...)
	code, _ := r.path("error", "code").(string)
	return r, code
}

func TestResourceManagerRefusals(t *testing.T) {
	b := start(t)
	const version = "?api-version=2022-12-01"
	for _, tc := range []struct {
		name, method, path, scope string
		status                    int
		code                      string
	}{
		{"no token", "GET", "/subscriptions" + version, "", 401, "AuthenticationFailed"},
		{"a token of Key Vault", "GET", "/subscriptions" + version, vaultScope, 401, "InvalidAuthenticationToken"},
		{"the older audience", "GET", "/subscriptions" + version, "https://management.core.windows.net/.default", 200, ""},
		{"no api-version", "GET", "/subscriptions", armScope, 400, "MissingApiVersionParameter"},
		{"no such resource", "GET", "/nothing" + version, armScope, 404, "InvalidResourceType"},
		{"no such method", "DELETE", "/subscriptions" + version, armScope, 405, "HttpMethodNotSupported"},
		{"any case", "GET", "/SUBSCRIPTIONS" + version, armScope, 200, ""},
	} {
		if r, code := b.arm(tc.method, tc.path, tc.scope, ""); r.status != tc.status || code != tc.code {
			t.Errorf("%s: %d %q %s, want %d %q", tc.name, r.status, code, r.raw, tc.status, tc.code)
		}
	}
}

func TestResourceManagerGrants(t *testing.T) {
	none := "none"
	b := start(t)
	if err := b.w.SetPermission(sim.Permission{Tenant: "contoso.com", ARM: &none}); err != nil {
		t.Fatal(err)
	}
	if r, code := b.arm("GET", "/subscriptions?api-version=2022-12-01", armScope, ""); r.status != 403 || code != "AuthorizationFailed" {
		t.Errorf("without a grant: %d %q", r.status, code)
	}
	wrong := "owner"
	if err := b.w.SetPermission(sim.Permission{Tenant: "contoso.com", ARM: &wrong}); err == nil {
		t.Error("a grant that is none, reader or contributor only was taken as owner")
	}
}
