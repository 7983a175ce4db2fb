package sim_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/keyroll/keyroll/internal/sim"
)

func TestContosoSeed(t *testing.T) {
	w, err := sim.New(sim.ContosoSeed())
	if err != nil {
		t.Fatal(err)
	}
	c, ok := w.Tenant("contoso.com")
	if !ok || c.ID != tenantID || len(c.Keys) != 6 || len(c.Policies) != 2 || len(c.Geos) != 1 {
		t.Fatalf("%+v", c)
	}
	for _, k := range c.Keys {
		if len(k.Versions) != 2 || k.Versions[0].Created >= k.Versions[1].Created || k.Versions[1].Size != 3072 || k.Versions[1].Kty != "RSA-HSM" {
			t.Errorf("%+v", k)
		}
	}
	if c.Policies[1].Versions[exoVault+"/keys/"+exoKey] != w.KeyVersions("contoso-exo-a", exoKey)[1].Version {
		t.Errorf("taken up: %v", c.Policies[1].Versions)
	}
}

func TestFleetSeed(t *testing.T) {
	seed := sim.FleetSeed(30)
	w, err := sim.New(seed)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, tenant := range w.State().Tenants {
		for _, id := range []string{tenant.ID, tenant.Policies[0].GUID, tenant.Keys[0].ID, tenant.Keys[0].Versions[0].Version, tenant.Geos[0].AdminHost} {
			if seen[id] {
				t.Errorf("%s is there twice", id)
			}
			seen[id] = true
		}
		if tenant.Mailboxes[0].Policy != tenant.Policies[1].GUID {
			t.Errorf("mailbox: %+v", tenant.Mailboxes)
		}
	}
	if len(seen) != 150 || sim.FleetSeed(2).Tenants[1].ID != seed.Tenants[1].ID {
		t.Errorf("%d ids", len(seen))
	}
}

func TestReadSeed(t *testing.T) {
	good, err := json.Marshal(sim.ContosoSeed())
	if err != nil {
		t.Fatal(err)
	}
	text := string(good)
	replace := func(old, by string) string { return strings.Replace(text, old, by, 1) }
	for _, tc := range []struct{ name, seed, want string }{
		{"good", text, ""},
		{"unknown member", replace(`"domain"`, `"domian":"x","domain"`), `seed:1:271: unknown member "domian"; allowed here: id, name,`},
		{"two documents", text + "{}", "after top-level value"},
		{"tenant id", replace(tenantID, "contoso"), "is not a GUID"},
		{"cloud", replace(`"public"`, `"mars"`), "unknown cloud"},
		{"slot", replace(`"primary":{"vault":"contoso-spo-a"`, `"primary":{"vault":"nobody"`), "primary slot names no key version"},
		{"status", replace(`"Registered"`, `"Asleep"`), "unknown status"},
		{"exchange grant", replace(`"full"`, `"some"`), "exchange grant"},
		{"key of a policy", replace("keys/Contoso-EXO-A-Key001", "keys/nothing"), "names no key"},
		{"certificate", replace(`"grants"`, `"certificates":["x"],"grants"`), "no PEM certificate"},
	} {
		_, err := sim.ReadSeed(strings.NewReader(tc.seed))
		if tc.want == "" && err != nil || tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)) {
			t.Errorf("%s: %v", tc.name, err)
		}
	}
}

func TestSeedIsNotShared(t *testing.T) {
	a := sim.ContosoSeed()
	a.AllowCertificate(clientID, appPair().cert)
	c := a
	c.AllowCertificate("11111111-2222-4333-8444-555555555555", appPair().cert)
	if len(a.Apps) != 1 || len(a.Apps[0].Certificates) != 1 || len(c.Apps) != 2 {
		t.Errorf("%d %d", len(a.Apps), len(c.Apps))
	}
}

// A tenant of another cloud is reached at that cloud's hosts.
func TestOtherClouds(t *testing.T) {
	text, _ := json.Marshal(sim.ContosoSeed())
	moved := strings.NewReplacer(`"public"`, `"dod"`, ".vault.azure.net", ".vault.usgovcloudapi.net", "-admin.sharepoint.com", "-admin.sharepoint-mil.us").Replace(string(text))
	b := start(t, func(s *sim.Seed) {
		seed, err := sim.ReadSeed(strings.NewReader(moved))
		if err != nil {
			t.Fatal(err)
		}
		seed.AllowCertificate(clientID, appPair().cert)
		*s = seed
	})
	r := b.send(http.MethodGet, "https://contoso-spo-a.vault.usgovcloudapi.net/keys"+apiV, "")
	if !strings.Contains(r.header.Get("WWW-Authenticate"), "login.microsoftonline.us/"+tenantID) {
		t.Errorf("challenge: %v", r.header)
	}
	r = b.send(http.MethodPost, "https://outlook-dod.office365.us/adminapi/beta/"+tenantID+"/InvokeCommand", "{}")
	if r.status != 401 {
		t.Errorf("exchange: %d", r.status)
	}
	r = b.send(http.MethodPost, "https://contoso-admin.sharepoint-mil.us/_api/contextinfo", "")
	if r.status != 401 {
		t.Errorf("sharepoint: %d", r.status)
	}
}

func TestRefreshSkipsWhatCannotWrap(t *testing.T) {
	tomorrow := time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
	b := start(t, func(s *sim.Seed) {
		for i, v := range s.Tenants[0].Vaults {
			if v.Name == "contoso-exo-a" {
				s.Tenants[0].Vaults[i].Keys[0].Versions[1].NotBefore = &tomorrow
			}
		}
	})
	set := func() int {
		return b.cmdlet(sim.OpSetDEP, map[string]any{"Identity": exoDEP, "Refresh": true, "Confirm": false}).status
	}
	if got := set(); got != 400 {
		t.Errorf("before nbf: %d", got)
	}
	b.w.Advance(25 * time.Hour)
	if got := set(); got != 200 {
		t.Errorf("after nbf: %d", got)
	}
}
