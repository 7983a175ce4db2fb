package sim_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/keyroll/keyroll/internal/sim"
)

// vaultNamed finds a vault of the seed's first tenant.
func vaultNamed(t *testing.T, s *sim.Seed, name string) *sim.Vault {
	t.Helper()
	for i := range s.Tenants[0].Vaults {
		if s.Tenants[0].Vaults[i].Name == name {
			return &s.Tenants[0].Vaults[i]
		}
	}
	t.Fatalf("no vault %s", name)
	return nil
}

func (b *bench) createType(vault, key, kty string) response {
	b.t.Helper()
	return b.vault(http.MethodPost, vault+"/keys/"+key+"/create"+apiV, `{"kty":"`+kty+`"}`)
}

func TestCreateLimit(t *testing.T) {
	for _, tc := range []struct {
		kty        string
		limit      int
		retryAfter int
	}{{"RSA-HSM", 10, 0}, {"RSA", 20, 7}} {
		b := start(t, func(s *sim.Seed) { vaultNamed(t, s, "contoso-spo-a").CreateRetryAfter = tc.retryAfter })
		wall := time.Now()
		b.w.Wall = func() time.Time { return wall }
		for i := range tc.limit {
			if r := b.createType(vaultA, fmt.Sprintf("k%d", i), tc.kty); r.status != 200 {
				t.Fatalf("%s %d: %d %s", tc.kty, i, r.status, r.raw)
			}
		}
		r := b.createType(vaultA, keyA, tc.kty)
		want := ""
		if tc.retryAfter > 0 {
			want = fmt.Sprint(tc.retryAfter)
		}
		if r.status != 429 || r.path("error", "code") != "Throttled" || r.header.Get("Retry-After") != want {
			t.Errorf("%s over the limit: %d %v %s", tc.kty, r.status, r.header, r.raw)
		}
		if r := b.createType(exoVault, exoKey, tc.kty); r.status != 200 {
			t.Errorf("another vault: %d", r.status)
		}
		if n := b.w.VersionsCreated("contoso-spo-a", keyA); n != 0 {
			t.Errorf("refused and yet made: %d", n)
		}
		wall = wall.Add(10 * time.Second)
		if r := b.createType(vaultA, keyA, tc.kty); r.status != 200 {
			t.Errorf("%s ten seconds later: %d", tc.kty, r.status)
		}
	}
}

func TestCreateLimitTakenAway(t *testing.T) {
	b := start(t, func(s *sim.Seed) { vaultNamed(t, s, "contoso-spo-a").UnlimitedCreates = true })
	for i := range 25 {
		if r := b.create(vaultA, keyA); r.status != 200 {
			t.Fatalf("%d: %d", i, r.status)
		}
	}
}

func TestTagLimit(t *testing.T) {
	b := start(t)
	create := func(tags int, value string) int {
		var pairs []string
		for i := range tags {
			pairs = append(pairs, fmt.Sprintf(`"t%d":"%s"`, i, value))
		}
		return b.vault(http.MethodPost, vaultA+"/keys/"+keyA+"/create"+apiV, `{"kty":"RSA-HSM","tags":{`+strings.Join(pairs, ",")+`}}`).status
	}
	if got := create(15, strings.Repeat("v", 256)); got != 200 {
		t.Errorf("15 tags: %d", got)
	}
	if got := create(16, "v"); got != 400 {
		t.Errorf("16 tags: %d", got)
	}
	if got := create(1, strings.Repeat("v", 257)); got != 400 {
		t.Errorf("a long tag: %d", got)
	}
}

func TestDeletedKeys(t *testing.T) {
	b := start(t)
	key, deleted := vaultA+"/keys/"+keyA, vaultA+"/deletedkeys"
	for _, tc := range []struct {
		deleting      bool
		inner         string
		listed, shown int
	}{{false, "ObjectIsDeletedButRecoverable", 1, 200}, {true, "ObjectIsBeingDeleted", 0, 404}} {
		status, _ := b.control(http.MethodPost, "/keys/soft-delete", fmt.Sprintf(`{"vault":"contoso-spo-a","key":"%s","deleting":%t}`, keyA, tc.deleting))
		if status != 204 {
			t.Fatalf("control: %d", status)
		}
		if r := b.create(vaultA, keyA); r.status != 409 || r.path("error", "code") != "Conflict" || r.path("error", "innererror", "code") != tc.inner {
			t.Errorf("create: %d %s", r.status, r.raw)
		}
		for _, target := range []string{key, key + "/", key + "/versions", key + "/rotationpolicy", key + "/" + b.w.KeyVersions("contoso-spo-a", keyA)[0].Version} {
			if r := b.vault(http.MethodGet, target+apiV, ""); r.status != 404 || r.path("error", "code") != "KeyNotFound" {
				t.Errorf("%s: %d %s", target, r.status, r.raw)
			}
		}
		if r := b.vault(http.MethodGet, vaultA+"/keys"+apiV, ""); len(r.json["value"].([]any)) != 0 {
			t.Errorf("keys: %s", r.raw)
		}
		if r := b.vault(http.MethodGet, deleted+apiV, ""); len(r.json["value"].([]any)) != tc.listed {
			t.Errorf("deleted keys: %s", r.raw)
		}
		r := b.vault(http.MethodGet, deleted+"/"+keyA+apiV, "")
		if r.status != tc.shown || tc.shown == 200 && r.path("recoveryId") != deleted+"/"+keyA {
			t.Errorf("deleted key: %d %s", r.status, r.raw)
		}
		if err := b.w.SetSoftDeleted("contoso-spo-a", keyA, false); err != nil {
			t.Fatal(err)
		}
		if r := b.vault(http.MethodGet, key+apiV, ""); r.status != 200 {
			t.Errorf("recovered: %d", r.status)
		}
	}
	if r := b.vault(http.MethodGet, deleted+"/nothing"+apiV, ""); r.status != 404 {
		t.Errorf("a key that never was: %d", r.status)
	}
	if n := len(b.w.Violations()); n != 0 {
		t.Errorf("looking is no violation: %d", n)
	}
}

const hsm = "https://contoso-hsm.managedhsm.azure.net"

func managedHSM(s *sim.Seed) {
	s.Tenants[0].Vaults = append(s.Tenants[0].Vaults, sim.Vault{Name: "contoso-hsm", ManagedHSM: true, UnlimitedCreates: true,
		Keys: []sim.Key{{Name: "Root", Versions: []sim.KeyVersion{{Version: strings.Repeat("a1", 16), Created: time.Date(2025, 1, 1, 0, 0, 0, 0, time.UTC)}}}}})
}

func TestManagedHSM(t *testing.T) {
	b := start(t, managedHSM)
	r := b.send(http.MethodGet, hsm+"/keys/Root"+apiV, "")
	if want := `resource="https://managedhsm.azure.net"`; r.status != 401 || !strings.Contains(r.header.Get("WWW-Authenticate"), want) {
		t.Fatalf("challenge: %d %v", r.status, r.header)
	}
	as := func(scope, method, target, body string) response {
		return b.send(method, hsm+target+apiV, body, "Authorization", "Bearer "+b.token(scope))
	}
	const scope = "https://managedhsm.azure.net/.default"
	if r := as(vaultScope, http.MethodGet, "/keys/Root", ""); r.status != 401 {
		t.Errorf("a vault's token: %d", r.status)
	}
	if r := as(scope, http.MethodGet, "/keys/Root/", ""); r.status != 200 || r.path("key", "kid") != hsm+"/keys/Root/"+strings.Repeat("a1", 16) {
		t.Errorf("get: %d %s", r.status, r.raw)
	}
	if r := as(scope, http.MethodPost, "/keys/Root/create", `{"kty":"RSA"}`); r.status != 400 {
		t.Errorf("a software key: %d", r.status)
	}
	for i := range 99 {
		if r := as(scope, http.MethodPost, "/keys/Root/create", `{"kty":"RSA-HSM"}`); r.status != 200 {
			t.Fatalf("%d: %d %s", i, r.status, r.raw)
		}
	}
	if r := as(scope, http.MethodPost, "/keys/Root/create", `{"kty":"RSA-HSM"}`); r.status != 400 || !strings.Contains(string(r.raw), "100 versions") {
		t.Errorf("the 101st version: %d %s", r.status, r.raw)
	}
	if n := len(b.w.KeyVersions("contoso-hsm", "Root")); n != 100 {
		t.Errorf("%d versions", n)
	}
}

func TestHSMPlatform(t *testing.T) {
	b := start(t, func(s *sim.Seed) {
		v := vaultNamed(t, s, "contoso-spo-a")
		v.Keys[0].HSMPlatform, v.Keys[0].Versions[1].HSMPlatform = "1", "2"
		vaultNamed(t, s, "contoso-exo-a").NewHSMPlatform = "1"
	})
	version := b.w.KeyVersions("contoso-spo-a", keyA)[0].Version
	for _, tc := range []struct {
		name string
		r    response
		want string
	}{
		{"of the key", b.vault(http.MethodGet, vaultA+"/keys/"+keyA+"/"+version+apiV, ""), "1"},
		{"of the version", b.vault(http.MethodGet, vaultA+"/keys/"+keyA+apiV, ""), "2"},
		{"of a new HSM version", b.create(vaultA, keyA), "2"},
		{"of a new software version", b.createType(vaultA, keyA, "RSA"), "0"},
		{"of a vault on the old platform", b.create(exoVault, exoKey), "1"},
	} {
		if got := tc.r.path("attributes", "hsmPlatform"); got != tc.want {
			t.Errorf("%s: %v, want %s", tc.name, got, tc.want)
		}
	}
}

// A refresh has to unwrap with the old version and to wrap with the new one.
func TestRefreshNeedsBothVersions(t *testing.T) {
	hour := time.Date(2026, 11, 23, 11, 0, 0, 0, time.UTC)
	for _, tc := range []struct {
		name string
		edit func(versions []sim.KeyVersion)
		text string // "" when it goes well
	}{
		{"the newest is disabled", func(v []sim.KeyVersion) { v[1].Enabled = new(bool) }, "is disabled"},
		{"the newest has expired", func(v []sim.KeyVersion) { v[1].Expires = &hour }, "has expired"},
		{"the one before it has expired", func(v []sim.KeyVersion) { v[0].Expires = &hour }, ""},
	} {
		b := start(t, func(s *sim.Seed) { tc.edit(vaultNamed(t, s, "contoso-exo-a").Keys[0].Versions) })
		r := b.cmdlet(sim.OpSetDEP, map[string]any{"Identity": exoDEP, "Refresh": true, "Confirm": false})
		if (r.status == 200) != (tc.text == "") || !strings.Contains(string(r.raw), tc.text) {
			t.Errorf("%s: %d %s", tc.name, r.status, r.raw)
		}
	}
	b := start(t)
	old := b.w.KeyVersions("contoso-exo-a", exoKey)[1].Version
	b.newVersion("contoso-exo-a", exoKey)
	if err := b.w.SetEnabled("contoso-exo-a", exoKey, old, false); err != nil {
		t.Fatal(err)
	}
	if r := b.cmdlet(sim.OpSetDEP, map[string]any{"Identity": exoDEP, "Refresh": true, "Confirm": false}); r.status != 400 || !strings.Contains(string(r.raw), "in use until now") {
		t.Errorf("the version in use is disabled: %d %s", r.status, r.raw)
	}
	held := b.w.KeyVersions("contoso-spo-a", keyA)[1].Version
	next := b.newVersion("contoso-spo-a", keyA)
	if err := b.w.SetEnabled("contoso-spo-a", keyA, held, false); err != nil {
		t.Fatal(err)
	}
	if r := b.query(rollXML("0", "contoso-spo-a", keyA, next)); r.errType != "Microsoft.SharePoint.SPException" {
		t.Errorf("the slot's version is disabled: %+v", r)
	}
}
