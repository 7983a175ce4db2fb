package sim_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/keyroll/keyroll/internal/sim"
)

func TestRollMachine(t *testing.T) {
	for _, tc := range []struct {
		name            string
		change          string
		withVersion     bool
		whileRolling    bool // the URI shows the new version while rolling
		wantURIHasParts int
	}{
		{"uri changes at the end", "end", true, false, 6},
		{"uri changes at the start", "start", true, true, 6},
		{"uri without version", "end", false, false, 5},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b := start(t, func(s *sim.Seed) {
				s.Tenants[0].SharePoint.URIChange, s.Tenants[0].SharePoint.URIVersion = tc.change, &tc.withVersion
			})
			if s := b.query(statusXML).result; s["Status"] != 2.0 || s["RegistrationProgress"] != 100.0 ||
				len(strings.Split(s["PrimaryKeyVaultUri"].(string), "/")) != tc.wantURIHasParts {
				t.Fatalf("at the beginning: %v", s)
			}
			version := b.newVersion("contoso-spo-a", keyA)
			if r := b.query(rollXML("0", "contoso-spo-a", keyA, version)); r.errType != "" || r.result["Status"] != 3.0 {
				t.Fatalf("roll: %+v", r)
			}
			b.w.Advance(1500 * time.Millisecond) // half of 240 sites at 80 a second
			s := b.query(statusXML).result
			if s["Status"] != 3.0 || s["RegistrationProgress"] != 50.0 || strings.HasSuffix(s["PrimaryKeyVaultUri"].(string), version) != tc.whileRolling {
				t.Errorf("half way: %v", s)
			}
			if r := b.query(rollXML("1", "contoso-spo-b", "Contoso-SPO-B-Key001", b.newVersion("contoso-spo-b", "Contoso-SPO-B-Key001"))); r.status != 200 || r.errType != "System.InvalidOperationException" {
				t.Errorf("second roll: %+v", r)
			}
			b.w.Advance(1500 * time.Millisecond)
			s = b.query(statusXML).result
			if s["Status"] != 2.0 || strings.HasSuffix(s["PrimaryKeyVaultUri"].(string), version) != tc.withVersion {
				t.Errorf("at the end: %v", s)
			}
			if g := b.w.State().Tenants[0].Geos[0]; g.PrimaryVersion != version {
				t.Errorf("state: %+v", g)
			}
			checkRollWitness(t, b, version)
		})
	}
}

func checkRollWitness(t *testing.T, b *bench, version string) {
	t.Helper()
	if n := b.w.SharePointOperations(tenantID); n != 1 {
		t.Errorf("SharePointOperations %d", n)
	}
	for _, e := range b.w.Witness() {
		if e.Operation != sim.OpRollKey || !e.Applied {
			continue
		}
		if e.Target != "NAM/primary" || e.End.Sub(e.Start) != 3*time.Second || !strings.HasSuffix(e.Versions[0], version) || e.OperationID != "spo-op" {
			t.Errorf("witness: %+v", e)
		}
	}
}

func TestRollRefusals(t *testing.T) {
	b := start(t)
	version := b.w.KeyVersions("contoso-spo-a", keyA)[1].Version
	disabled := b.newVersion("contoso-spo-a", keyA)
	if err := b.w.SetEnabled("contoso-spo-a", keyA, disabled, false); err != nil {
		t.Fatal(err)
	}
	roll := rollXML("0", "contoso-spo-a", keyA, version)
	const invalid, argument = "Microsoft.SharePoint.Client.InvalidClientQueryException", "System.ArgumentException"
	for _, tc := range []struct{ name, xml, want string }{
		{"no such version", rollXML("0", "contoso-spo-a", keyA, strings.Repeat("0", 32)), "Microsoft.SharePoint.SPException"},
		{"disabled version", rollXML("0", "contoso-spo-a", keyA, disabled), "Microsoft.SharePoint.SPException"},
		{"no such vault", rollXML("0", "nobody", keyA, version), argument},
		{"no such slot", rollXML("2", "contoso-spo-a", keyA, version), "System.ArgumentOutOfRangeException"},
		{"version without braces", strings.NewReplacer("{"+version[:8], version[:8]).Replace(roll), invalid},
		{"other value type", strings.Replace(roll, "19d15bc5", "19d15bc6", 1), invalid},
		{"other context type", strings.Replace(roll, "3747adcd", "3747adce", 1), invalid},
		{"not the site", strings.Replace(roll, `Name="Site"`, `Name="Web"`, 1), invalid},
		{"other namespace", strings.Replace(roll, "clientquery/2009", "clientquery/2010", 1), invalid},
		{"other method", strings.Replace(statusXML, "GetBringYourOwnKeyTenantStatus", "RecoverTenantForBringYourOwnKey", 1), invalid},
		{"broken", "<Request", invalid},
	} {
		if r := b.query(tc.xml); r.status != 200 || r.errType != tc.want || r.result != nil {
			t.Errorf("%s: %+v", tc.name, r)
		}
	}
	if n := b.w.SharePointOperations(tenantID); n != 0 {
		t.Errorf("%d rolls began", n)
	}
}

func TestObjectPathActions(t *testing.T) {
	b := start(t)
	xml := strings.Replace(statusXML, "<Actions>", `<Actions><ObjectPath Id="2" ObjectPathId="1"/>`, 1)
	if r := b.query(xml); r.result["Status"] != 2.0 {
		t.Errorf("%+v", r)
	}
}

func TestSharePointAuthorisation(t *testing.T) {
	b := start(t)
	const target = "https://contoso-admin.sharepoint.com/_vti_bin/client.svc/ProcessQuery"
	bySecret := b.askToken(tenantID, "client_secret", secret, "scope", spoScope).json["access_token"].(string)
	r := b.send(http.MethodPost, target, statusXML, "Authorization", "Bearer "+bySecret, "Content-Type", "text/xml")
	if r.status != 401 || !strings.Contains(string(r.raw), "Unsupported app only token.") {
		t.Errorf("secret: %d %s", r.status, r.raw)
	}
	if r = b.send(http.MethodPost, target, statusXML, "Content-Type", "text/xml"); r.status != 401 {
		t.Errorf("no token: %d", r.status)
	}
	r = b.send(http.MethodPost, "https://contoso-admin.sharepoint.com/_api/contextinfo", "", "Authorization", "Bearer "+b.token(spoScope))
	if digest, _ := r.json["FormDigestValue"].(string); r.status != 200 || !strings.HasPrefix(digest, "0x") {
		t.Errorf("contextinfo: %d %s", r.status, r.raw)
	}
	no := false
	if err := b.w.SetPermission(sim.Permission{Tenant: "contoso.com", SharePoint: &no}); err != nil {
		t.Fatal(err)
	}
	if r := b.query(statusXML); r.status != 403 {
		t.Errorf("no permission: %+v", r)
	}
}

func TestSharePointSettings(t *testing.T) {
	b := start(t)
	recovering := "Recovering"
	if err := b.w.SetSharePoint(sim.SharePointSettings{Tenant: tenantID, Status: &recovering}); err != nil {
		t.Fatal(err)
	}
	if s := b.query(statusXML).result; s["Status"] != 4.0 {
		t.Errorf("recovering: %v", s)
	}
	id := add(t, b, sim.Fault{Mode: sim.ModeStatus, Params: sim.FaultParams{Status: 99}})
	if s := b.query(statusXML).result; s["Status"] != 99.0 {
		t.Errorf("forced: %v", s)
	}
	if err := b.w.RemoveFault(id); err != nil {
		t.Fatal(err)
	}
	sites := 0
	registered := "Registered"
	if err := b.w.SetSharePoint(sim.SharePointSettings{Tenant: tenantID, Geo: "NAM", Status: &registered, SiteCount: &sites}); err != nil {
		t.Fatal(err)
	}
	version := b.w.KeyVersions("contoso-spo-a", keyA)[0].Version
	if r := b.query(rollXML("0", "contoso-spo-a", keyA, version)); r.result["Status"] != 2.0 {
		t.Errorf("a roll over no sites is done at once: %+v", r)
	}
}

func TestRollingForever(t *testing.T) {
	b := start(t)
	id := add(t, b, sim.Fault{Mode: sim.ModeRollingForever, Count: 1, Params: sim.FaultParams{Percent: 30}})
	b.query(statusXML) // reads do not use it up
	b.query(rollXML("0", "contoso-spo-a", keyA, b.w.KeyVersions("contoso-spo-a", keyA)[1].Version))
	b.w.Advance(1000 * time.Hour)
	if s := b.query(statusXML).result; s["Status"] != 3.0 || s["RegistrationProgress"] != 30.0 {
		t.Errorf("stuck: %v", s)
	}
	if err := b.w.RemoveFault(id); err != nil {
		t.Fatal(err)
	}
	if s := b.query(statusXML).result; s["Status"] != 3.0 || s["RegistrationProgress"] != 30.0 {
		t.Errorf("freed: %v", s)
	}
	b.w.Advance(2100 * time.Millisecond) // the other 70 %
	if s := b.query(statusXML).result; s["Status"] != 2.0 {
		t.Errorf("at the end: %v", s)
	}
}
