package sim_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/keyroll/keyroll/internal/sim"
)

func TestChallengeThenCreate(t *testing.T) {
	b := start(t)
	r := b.send(http.MethodPost, vaultA+"/keys/"+keyA+"/create"+apiV, "")
	want := `Bearer authorization="https://login.microsoftonline.com/` + tenantID + `", resource="https://vault.azure.net"`
	if r.status != 401 || r.header.Get("WWW-Authenticate") != want {
		t.Fatalf("challenge: %d %q", r.status, r.header.Get("WWW-Authenticate"))
	}
	before := b.w.KeyVersions("contoso-spo-a", keyA)
	first, second := b.create(vaultA, keyA), b.create(vaultA, keyA)
	if first.status != 200 || second.status != 200 || first.path("key", "kid") == second.path("key", "kid") {
		t.Fatalf("create: %s %s", first.raw, second.raw)
	}
	if first.path("attributes", "created").(float64) >= second.path("attributes", "created").(float64) {
		t.Error("creation times do not increase")
	}
	if first.path("attributes", "recoveryLevel") != "Recoverable+ProtectedSubscription" || first.path("attributes", "recoverableDays") != 90.0 ||
		first.path("attributes", "hsmPlatform") != "2" || first.path("key", "kty") != "RSA-HSM" || len(first.path("key", "n").(string)) != 512 {
		t.Errorf("bundle: %s", first.raw)
	}
	if first.path("tags", "keyroll-op") != "op-1" || first.path("tags", "owner") != nil {
		t.Errorf("tags are those of the request only: %s", first.raw)
	}
	if n := len(b.w.KeyVersions("contoso-spo-a", keyA)); n != len(before)+2 {
		t.Errorf("%d versions", n)
	}
	if n := b.w.VersionsCreated("contoso-spo-a", keyA); n != 2 {
		t.Errorf("VersionsCreated %d", n)
	}
	if n := b.w.Requests(sim.ServiceKeyVault, sim.OpCreateKey); n != 2 {
		t.Errorf("%d creates counted, the challenge is not one", n)
	}
	e := b.w.Witness()[0]
	if e.OperationID != "op-1" || e.RequestID != "req-1" || !e.Applied || !e.Answered || e.By != "api" || e.Versions[0] != first.path("key", "kid") {
		t.Errorf("witness: %+v", e)
	}
}

func TestGetKey(t *testing.T) {
	b := start(t)
	versions := b.w.KeyVersions("contoso-spo-a", keyA)
	for _, path := range []string{"/keys/" + keyA, "/keys/" + keyA + "/", "/keys/" + keyA + "/" + versions[1].Version} {
		if r := b.vault(http.MethodGet, vaultA+path+apiV, ""); r.path("key", "kid") != versions[1].ID {
			t.Errorf("%s: %s", path, r.raw)
		}
	}
	if r := b.vault(http.MethodGet, vaultA+"/keys/"+keyA+"/"+versions[0].Version+apiV, ""); r.path("key", "kid") != versions[0].ID {
		t.Errorf("old version: %s", r.raw)
	}
	if r := b.vault(http.MethodGet, vaultA+"/keys/nothing"+apiV, ""); r.status != 404 || r.path("error", "code") != "KeyNotFound" {
		t.Errorf("missing: %d %s", r.status, r.raw)
	}
	if r := b.vault(http.MethodGet, vaultA+"/keys/"+keyA, ""); r.status != 400 {
		t.Errorf("without api-version: %d", r.status)
	}
	if r := b.vault(http.MethodGet, vaultA+"/keys"+apiV, ""); len(r.json["value"].([]any)) != 1 {
		t.Errorf("list of keys: %s", r.raw)
	}
	if r := b.send(http.MethodGet, "https://nobody.vault.azure.net/keys"+apiV, ""); r.status != http.StatusMisdirectedRequest {
		t.Errorf("unknown vault: %d", r.status)
	}
}

func TestVersionPaging(t *testing.T) {
	b := start(t)
	for range 28 { // 30 with the seed's
		b.newVersion("contoso-spo-a", keyA)
	}
	next, seen, pages := vaultA+"/keys/"+keyA+"/versions"+apiV, map[string]bool{}, 0
	for next != "" {
		r := b.vault(http.MethodGet, next, "")
		for _, item := range r.json["value"].([]any) {
			m := item.(map[string]any)
			seen[m["kid"].(string)] = true
			if m["key"] != nil || m["attributes"] == nil {
				t.Fatalf("item %v", m)
			}
		}
		next, _ = r.json["nextLink"].(string)
		pages++
	}
	if len(seen) != 30 || pages != 2 {
		t.Errorf("%d versions in %d pages", len(seen), pages)
	}
	if r := b.vault(http.MethodGet, vaultA+"/keys/"+keyA+"/versions"+apiV+"&maxresults=7", ""); len(r.json["value"].([]any)) != 7 {
		t.Errorf("maxresults: %s", r.raw)
	}
}

func TestVaultErrors(t *testing.T) {
	b := start(t)
	no := false
	for _, tc := range []struct {
		name        string
		arrange     func() error
		status      int
		code, inner string
	}{
		{"soft-deleted", func() error { return b.w.SetSoftDeleted("contoso-spo-a", keyA, true) }, 409, "Conflict", "ObjectIsDeletedButRecoverable"},
		{"no right", func() error {
			return b.w.SetPermission(sim.Permission{Tenant: tenantID, KeyVault: map[string]bool{"contoso-spo-a": no}})
		}, 403, "Forbidden", "ForbiddenByRbac"},
	} {
		if err := tc.arrange(); err != nil {
			t.Fatal(err)
		}
		r := b.create(vaultA, keyA)
		if r.status != tc.status || r.path("error", "code") != tc.code || r.path("error", "innererror", "code") != tc.inner {
			t.Errorf("%s: %d %s", tc.name, r.status, r.raw)
		}
	}
	if r := b.create("https://contoso-spo-b.vault.azure.net", "Contoso-SPO-B-Key001"); r.status != 200 {
		t.Errorf("other vault: %d", r.status)
	}
	if r := b.vault(http.MethodPost, exoVault+"/keys/x/create"+apiV, ""); r.status != 400 {
		t.Errorf("no body: %d", r.status)
	}
	for _, e := range b.w.Witness()[:2] {
		if e.Applied {
			t.Errorf("refused and yet applied: %+v", e)
		}
	}
}

func TestViolations(t *testing.T) {
	b := start(t)
	version := b.w.KeyVersions("contoso-spo-a", keyA)[0].Version
	key := vaultA + "/keys/" + keyA
	for _, tc := range []struct{ method, target, body, op string }{
		{http.MethodDelete, key, "", "delete_key"},
		{http.MethodPatch, key + "/" + version, `{"attributes":{"enabled":false}}`, "update_key"},
		{http.MethodPatch, key + "/" + version, `{"attributes":{"exp":1800000000}}`, "update_key"},
		{http.MethodPatch, key + "/" + version, `{"attributes":{"nbf":1800000000}}`, "update_key"},
		{http.MethodPost, vaultA + "/keys/restore", `{"value":"x"}`, "restore_key"},
		{http.MethodDelete, vaultA + "/deletedkeys/" + keyA, "", "purge_key"},
		{http.MethodPost, vaultA + "/deletedkeys/" + keyA + "/recover", "", "recover_key"},
	} {
		before := len(b.w.Violations())
		r := b.vault(tc.method, tc.target+apiV, tc.body)
		v := b.w.Violations()
		if r.status != 403 || len(v) != before+1 || v[before].Operation != tc.op || v[before].Tenant != tenantID {
			t.Errorf("%s %s: %d, %+v", tc.method, tc.target, r.status, v)
		}
	}
	if r := b.vault(http.MethodPatch, key+"/"+version+apiV, `{"tags":{"a":"b"}}`); r.status != 405 || len(b.w.Violations()) != 7 {
		t.Errorf("harmless PATCH: %d", r.status)
	}
}

func TestRotationPolicy(t *testing.T) {
	b := start(t)
	target := vaultA + "/keys/" + keyA + "/rotationpolicy" + apiV
	if r := b.vault(http.MethodGet, target, ""); r.path("attributes", "expiryTime") != nil {
		t.Errorf("default: %s", r.raw)
	}
	err := b.w.SetRotationPolicy("contoso-spo-a", keyA, &sim.RotationPolicy{ExpiryTime: "P2Y", Actions: []sim.RotationAction{{Action: "Rotate", TimeAfterCreate: "P18M"}}})
	if r := b.vault(http.MethodGet, target, ""); err != nil || r.path("attributes", "expiryTime") != "P2Y" || !strings.Contains(string(r.raw), `"Rotate"`) {
		t.Errorf("%v: %s", err, r.raw)
	}
}
