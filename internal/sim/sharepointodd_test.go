package sim_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/keyroll/keyroll/internal/sim"
)

// queryAt is query at another geo's admin site.
func (b *bench) queryAt(host, xml string) (status int, errorType string, result map[string]any) {
	b.t.Helper()
	r := b.send(http.MethodPost, "https://"+host+"/_vti_bin/client.svc/ProcessQuery", xml,
		"Authorization", "Bearer "+b.token("https://"+host+"/.default"), "Content-Type", "text/xml")
	out := readQuery(r)
	return out.status, out.errType, out.result
}

func twoGeos(rollsPer string) func(*sim.Seed) {
	return func(s *sim.Seed) {
		s.Tenants[0].AddGeo("EUR")
		s.Tenants[0].SharePoint.RollsPer = rollsPer
	}
}

func TestGeosAreApart(t *testing.T) {
	const nam, eur = "contoso-admin.sharepoint.com", "contosoeur-admin.sharepoint.com"
	for rollsPer, wantErr := range map[string]string{"geo": "", "tenant": "System.InvalidOperationException"} {
		t.Run(rollsPer, func(t *testing.T) {
			b := start(t, twoGeos(rollsPer))
			_, _, before := b.queryAt(eur, statusXML)
			if before["Status"] != 2.0 || !strings.Contains(before["PrimaryKeyVaultUri"].(string), "contoso-eur-a.") {
				t.Fatalf("the second geo: %v", before)
			}
			if _, bad, _ := b.queryAt(nam, rollXML("0", "contoso-spo-a", keyA, b.newVersion("contoso-spo-a", keyA))); bad != "" {
				t.Fatal(bad)
			}
			_, _, eurNow := b.queryAt(eur, statusXML)
			_, _, namNow := b.queryAt(nam, statusXML)
			if namNow["Status"] != 3.0 || eurNow["Status"] != 2.0 || eurNow["PrimaryKeyVaultUri"] != before["PrimaryKeyVaultUri"] {
				t.Errorf("one geo rolls: NAM %v, EUR %v", namNow, eurNow)
			}
			version := b.newVersion("contoso-eur-a", "Contoso-EUR-A-Key001")
			if status, bad, _ := b.queryAt(eur, rollXML("0", "contoso-eur-a", "Contoso-EUR-A-Key001", version)); status != 200 || bad != wantErr {
				t.Errorf("a roll in the other geo: %d %q, want %q", status, bad, wantErr)
			}
			b.w.Advance(time.Hour)
			if _, bad, _ := b.queryAt(eur, rollXML("1", "contoso-eur-b", "Contoso-EUR-B-Key001", b.newVersion("contoso-eur-b", "Contoso-EUR-B-Key001"))); bad != "" {
				t.Errorf("when both are done: %s", bad)
			}
			if n := b.w.Overlaps(tenantID); (n != 0) != (rollsPer == "geo") {
				t.Errorf("%d overlaps", n)
			}
			r := b.send(http.MethodPost, "https://"+eur+"/_vti_bin/client.svc/ProcessQuery", statusXML, "Authorization", "Bearer "+b.token(spoScope), "Content-Type", "text/xml")
			if r.status != 401 {
				t.Errorf("the token of another geo: %d", r.status)
			}
		})
	}
}

func TestSharePointForms(t *testing.T) {
	b := start(t)
	id := vaultA + "/keys/" + keyA + "/" + b.w.KeyVersions("contoso-spo-a", keyA)[1].Version
	for _, tc := range []struct{ form, want string }{
		{"plain", id}, {"trailing_slash", id + "/"}, {"upper_case", strings.ToUpper(id)}, {"port", strings.Replace(id, ".net/", ".net:443/", 1)},
	} {
		if err := b.w.SetSharePoint(sim.SharePointSettings{Tenant: tenantID, SharePointOddities: sim.SharePointOddities{URIForm: tc.form}}); err != nil {
			t.Fatal(err)
		}
		if got := b.query(statusXML).result["PrimaryKeyVaultUri"]; got != tc.want {
			t.Errorf("%s: %v", tc.form, got)
		}
	}
	for form, want := range map[string]struct {
		there bool
		value any
	}{"value": {true, 100.0}, "null": {true, nil}, "absent": {false, nil}} {
		if err := b.w.SetSharePoint(sim.SharePointSettings{Tenant: tenantID, SharePointOddities: sim.SharePointOddities{ProgressForm: form}}); err != nil {
			t.Fatal(err)
		}
		if got, there := b.query(statusXML).result["RegistrationProgress"]; there != want.there || got != want.value {
			t.Errorf("%s: %v, %v", form, got, there)
		}
	}
	for i, bad := range []sim.SharePointOddities{{RollsPer: "site"}, {ProgressForm: "words"}, {URIForm: "odd"}, {SecretTokenStatus: 500}} {
		if err := b.w.SetSharePoint(sim.SharePointSettings{Tenant: tenantID, SharePointOddities: bad}); err == nil {
			t.Errorf("settings %d were taken", i)
		}
		seed := sim.ContosoSeed()
		seed.Tenants[0].SharePoint.SharePointOddities = bad
		if _, err := sim.New(seed); err == nil || !strings.Contains(err.Error(), "tenants/0/sharepoint/") {
			t.Errorf("seed %d: %v", i, err)
		}
	}
}

func TestSecretTokenForbidden(t *testing.T) {
	b := start(t, func(s *sim.Seed) { s.Tenants[0].SharePoint.SecretTokenStatus = 403 })
	bySecret := b.askToken(tenantID, "client_secret", secret, "scope", spoScope).json["access_token"].(string)
	r := b.send(http.MethodPost, "https://contoso-admin.sharepoint.com/_vti_bin/client.svc/ProcessQuery", statusXML, "Authorization", "Bearer "+bySecret, "Content-Type", "text/xml")
	if r.status != 403 || !strings.Contains(string(r.raw), "Unsupported app only token.") {
		t.Errorf("%d %s", r.status, r.raw)
	}
	if s := b.query(statusXML); s.status != 200 {
		t.Errorf("by certificate: %d", s.status)
	}
}
