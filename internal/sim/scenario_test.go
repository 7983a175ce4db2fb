package sim_test

import (
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/keyroll/keyroll/internal/sim"
)

// play serves a scenario that comes with the simulator.
func play(t *testing.T, name string) *bench {
	t.Helper()
	s, ok := sim.ScenarioNamed(name)
	if !ok {
		t.Fatalf("no scenario %s", name)
	}
	return playThis(t, s)
}

func playThis(t *testing.T, s sim.Scenario) *bench {
	t.Helper()
	seed := s.Seed()
	seed.AllowCertificate(clientID, appPair().cert)
	srv, err := sim.Start(t.Context(), sim.Options{Seed: seed, Scenario: &s})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = srv.Close() })
	client := newClient(t, srv)
	// Each request by itself: net/http sends none again behind our back.
	client.Transport.(*http.Transport).DisableKeepAlives = true
	return &bench{t: t, srv: srv, w: srv.World, client: client, tokens: map[string]string{}}
}

// asking sends a request with a token and gives status 0 for a broken connection.
func (b *bench) asking(method, target, scope, body string) response {
	b.t.Helper()
	r, _ := b.try(method, target, body, "Authorization", "Bearer "+b.token(scope), "Content-Type", "application/json")
	return r
}

const refreshNA = `{"CmdletInput":{"CmdletName":"Set-DataEncryptionPolicy","Parameters":{"Identity":"NA Mailboxes","Refresh":true,"Confirm":false}}}`

func (b *bench) refresh() response {
	b.t.Helper()
	return b.asking(http.MethodPost, "https://outlook.office365.com/adminapi/beta/"+tenantID+"/InvokeCommand", exoScope, refreshNA)
}

func (b *bench) rollXMLTo(host, xml string) response {
	b.t.Helper()
	r, _ := b.try(http.MethodPost, "https://"+host+"/_vti_bin/client.svc/ProcessQuery", xml,
		"Authorization", "Bearer "+b.token("https://"+host+"/.default"), "Content-Type", "text/xml")
	return r
}

const nam = "contoso-admin.sharepoint.com"

// points are what each scenario is for, as it shows on the wire.
var points = map[string]func(t *testing.T, b *bench){
	"smooth":                        pointSmooth,
	"lost-answers":                  pointLostAnswers,
	"throttled":                     pointThrottled,
	"stranger-version":              pointStranger,
	"soft-deleted-key":              pointDeleted,
	"rotation-policy-stamps-expiry": pointRotation,
	"sharepoint-rolls-for-days":     pointDays,
	"multi-geo":                     pointGeos,
	"managed-hsm":                   pointHSM,
	"flaky":                         pointFlaky,
	"swapped-slots":                 pointSwapped,
}

func TestScenarios(t *testing.T) {
	var names []string
	for _, s := range sim.Scenarios() {
		names = append(names, s.Name)
		t.Run(s.Name, func(t *testing.T) {
			t.Parallel()
			point := points[s.Name]
			if point == nil {
				t.Fatal("nothing shows what the scenario is for")
			}
			point(t, play(t, s.Name))
		})
	}
	files, err := filepath.Glob("scenarios/*.json")
	if err != nil || len(files) != len(names) || len(names) != len(points) || len(names) < 10 {
		t.Errorf("%d files, %v, %d points, %v", len(files), names, len(points), err)
	}
	for i, file := range files {
		if filepath.Base(file) != names[i]+".json" {
			t.Errorf("%s has the scenario %s", file, names[i])
		}
	}
}

func pointSmooth(t *testing.T, b *bench) {
	version, _ := b.create(vaultA, keyA).path("key", "kid").(string)
	if b.create(exoVault, exoKey).status != 200 || b.refresh().status != 200 {
		t.Error("create or refresh failed")
	}
	if r := b.query(rollXML("0", "contoso-spo-a", keyA, version[strings.LastIndex(version, "/")+1:])); r.errType != "" {
		t.Errorf("roll: %+v", r)
	}
	b.w.Advance(3 * time.Second)
	if s := b.query(statusXML).result; s["Status"] != 2.0 || s["PrimaryKeyVaultUri"] != version {
		t.Errorf("status: %v", s)
	}
	if len(b.w.Violations()) != 0 {
		t.Error(b.w.Violations())
	}
}

func pointLostAnswers(t *testing.T, b *bench) {
	version := b.newVersion("contoso-spo-a", keyA)
	for name, ask := range map[string]func() response{
		"create": func() response {
			return b.asking(http.MethodPost, exoVault+"/keys/"+exoKey+"/create"+apiV, vaultScope, createBody)
		},
		"refresh": b.refresh,
		"roll":    func() response { return b.rollXMLTo(nam, rollXML("0", "contoso-spo-a", keyA, version)) },
	} {
		if r := ask(); r.status != 0 {
			t.Errorf("%s was answered: %d %s", name, r.status, r.raw)
		}
	}
	for _, e := range b.w.Witness() {
		if e.By == "api" && (!e.Applied || e.Answered) {
			t.Errorf("%+v", e)
		}
	}
	if b.refresh().status != 200 {
		t.Error("the second refresh is not answered")
	}
}

func pointThrottled(t *testing.T, b *bench) {
	if r := b.askToken(tenantID); r.status != 429 || r.header.Get("Retry-After") != "1" {
		t.Errorf("token: %d %v", r.status, r.header)
	}
	for i, want := range []int{429, 429, 200} {
		if r := b.create(vaultA, keyA); r.status != want || r.header.Get("Retry-After") != "" {
			t.Errorf("create %d: %d %v", i, r.status, r.header)
		}
	}
	for i, want := range []int{429, 429, 200} {
		if r := b.refresh(); r.status != want || (want == 429) != (r.header.Get("Retry-After") == "2") {
			t.Errorf("refresh %d: %d %v", i, r.status, r.header)
		}
	}
	for i, want := range []int{200, 200, 503, 503, 200} {
		if r := b.rollXMLTo(nam, statusXML); r.status != want || (want == 503) != (r.header.Get("Retry-After") == "3") {
			t.Errorf("status %d: %d %v", i, r.status, r.header)
		}
	}
	if n := b.w.VersionsCreated("contoso-spo-a", keyA); n != 1 {
		t.Errorf("%d versions", n)
	}
}

func pointStranger(t *testing.T, b *bench) {
	mine := b.create(exoVault, exoKey).path("key", "kid")
	newest := b.vault(http.MethodGet, exoVault+"/keys/"+exoKey+apiV, "").path("key", "kid")
	if mine == newest || mine == nil {
		t.Errorf("made %v, the newest is %v", mine, newest)
	}
	if b.refresh().status != 200 || exoVault+"/keys/"+exoKey+"/"+b.w.PolicyVersions(tenantID, exoDEP)[exoVault+"/keys/"+exoKey] != newest {
		t.Error("a refresh does not take up the stranger's version")
	}
}

func pointDeleted(t *testing.T, b *bench) {
	const vault, key = "https://contoso-exo-b.vault.azure.net", "Contoso-EXO-B-Key001"
	if r := b.create(vault, key); r.status != 409 || r.path("error", "innererror", "code") != "ObjectIsDeletedButRecoverable" {
		t.Errorf("create: %d %s", r.status, r.raw)
	}
	if r := b.vault(http.MethodGet, vault+"/deletedkeys/"+key+apiV, ""); r.status != 200 {
		t.Errorf("deleted key: %d", r.status)
	}
	if r := b.refresh(); r.status != 400 || !strings.Contains(string(r.raw), "is deleted") {
		t.Errorf("refresh: %d %s", r.status, r.raw)
	}
}

func pointRotation(t *testing.T, b *bench) {
	if r := b.vault(http.MethodGet, vaultA+"/keys/"+keyA+"/rotationpolicy"+apiV, ""); r.path("attributes", "expiryTime") != "P1Y" {
		t.Errorf("policy: %s", r.raw)
	}
	if r := b.create(vaultA, keyA); r.path("attributes", "exp") == nil {
		t.Errorf("no expiry: %s", r.raw)
	}
	b.w.Advance(31 * 24 * time.Hour)
	versions := b.w.KeyVersions("contoso-spo-a", keyA)
	if last := versions[len(versions)-1]; last.By != "policy" || last.Expires == nil {
		t.Errorf("after a month: %+v", last)
	}
}

func pointDays(t *testing.T, b *bench) {
	version := b.newVersion("contoso-spo-a", keyA)
	// Some status reads show what was before; each kind is seen within a few.
	seen := map[any]bool{}
	for range 60 {
		seen[b.query(statusXML).result["Status"]] = true
	}
	if !seen[3.0] {
		t.Errorf("the roll by hand does not show: %v", seen)
	}
	if r := b.query(rollXML("0", "contoso-spo-a", keyA, version)); r.errType != "System.InvalidOperationException" {
		t.Errorf("a second roll: %+v", r)
	}
	begin, real := b.w.CurrentTime(), time.Now()
	for b.w.CurrentTime().Sub(begin) < time.Minute {
		if time.Since(real) > 30*time.Second {
			t.Fatal("the world is not faster than life")
		}
	}
	b.w.Advance(3 * 24 * time.Hour)
	if geo := b.w.State().Tenants[0].Geos[0]; geo.Status != "Registered" || geo.Rolls != 0 {
		t.Errorf("after three days: %+v", geo)
	}
}

func pointGeos(t *testing.T, b *bench) {
	status := func(host string) any {
		r := b.rollXMLTo(host, statusXML)
		_, after, ok := strings.Cut(string(r.raw), `"Status":`)
		if r.status != 200 || !ok {
			return r.status
		}
		return "status " + after[:1]
	}
	for _, tc := range []struct {
		host string
		want any
	}{{nam, "status 2"}, {"contosoeur-admin.sharepoint.com", "status 3"}, {"contosoapc-admin.sharepoint.com", 503}} {
		if got := status(tc.host); got != tc.want {
			t.Errorf("%s: %v, want %v", tc.host, got, tc.want)
		}
	}
	b.w.Advance(time.Minute)
	for _, host := range []string{nam, "contosoeur-admin.sharepoint.com", "contosoapc-admin.sharepoint.com"} {
		if got := status(host); got != "status 2" {
			t.Errorf("%s a minute later: %v", host, got)
		}
	}
}

func pointHSM(t *testing.T, b *bench) {
	const vault, scope = "https://contoso-hsm-a.managedhsm.azure.net/keys/Contoso-HSM-A-Key001", "https://managedhsm.azure.net/.default"
	r := b.asking(http.MethodPost, vault+"/create"+apiV, scope, createBody)
	if r.status != 200 || r.path("key", "kty") != "RSA-HSM" {
		t.Fatalf("create: %d %s", r.status, r.raw)
	}
	if b.refresh().status != 200 || vault+"/"+b.w.PolicyVersions(tenantID, exoDEP)[vault] != r.path("key", "kid") {
		t.Errorf("taken up: %v", b.w.PolicyVersions(tenantID, exoDEP))
	}
	if r := b.vault(http.MethodGet, vaultA+"/keys/"+keyA+apiV, ""); r.path("attributes", "hsmPlatform") != "1" {
		t.Errorf("old platform: %s", r.raw)
	}
	if r := b.create(vaultA, keyA); r.path("attributes", "hsmPlatform") != "2" {
		t.Errorf("new platform: %s", r.raw)
	}
}

func pointFlaky(t *testing.T, b *bench) {
	run := func(b *bench) (out []int) {
		for b.tokens[vaultScope] == "" {
			r, err := b.try(http.MethodPost, tokenURL(tenantID), tokenForm(t), "Content-Type", "application/x-www-form-urlencoded")
			if token, ok := r.json["access_token"].(string); err == nil && ok {
				b.tokens[vaultScope] = token
			}
		}
		for range 60 {
			out = append(out, b.asking(http.MethodGet, vaultA+"/keys"+apiV, vaultScope, "").status)
		}
		return out
	}
	first, again := run(b), run(play(t, "flaky"))
	for _, status := range []int{0, 200, 503} {
		if !slices.Contains(first, status) {
			t.Errorf("status %d is not among %v", status, first)
		}
	}
	if !slices.Equal(first, again) {
		t.Errorf("the same requests, another outcome:\n%v\n%v", first, again)
	}
}

func pointSwapped(t *testing.T, b *bench) {
	s := b.query(statusXML).result
	if !strings.Contains(s["PrimaryKeyVaultUri"].(string), "contoso-spo-b") || !strings.Contains(s["SecondaryKeyVaultUri"].(string), "contoso-spo-a") {
		t.Errorf("slots: %v", s)
	}
	version := b.newVersion("contoso-spo-a", keyA)
	if r := b.query(rollXML("0", "contoso-spo-a", keyA, version)); r.errType != "" || len(b.w.Violations()) != 1 {
		t.Errorf("rolling by name: %+v, violations %v", r, b.w.Violations())
	}
}

const goodScenario = `{
 "name": "mine",
 "description": "d",
 "expect": "e",
 "base": "contoso",
 "faults": [{"service": "keyvault", "mode": "throttle"}],
 "acts": [{"at": 5, "do": "keys/stranger", "with": {"vault": "contoso-spo-a", "key": "Contoso-SPO-A-Key001"}}]
}
`

func TestScenarioErrorsHaveTheirPlace(t *testing.T) {
	for _, tc := range []struct{ old, by, want string }{
		{"", "", ""},
		{`"expect"`, `"expects"`, `f.json:4:2: unknown member "expects"; allowed here: name, description, expect, base`},
		{`"expect"`, `"Expect"`, `f.json:4:2: unknown member "Expect"`},
		{`"expect": "e"`, `"expect": "e", "expect": "f"`, `f.json:4:17: member "expect" is there twice`},
		{`"expect": "e"`, `"expect": ""`, `f.json:4:12: expect: expect is missing`},
		{`"expect": "e"`, `"expect": 7`, `f.json:4:12: this is a number, where a text in quotes is expected`},
		{`"base": "contoso",`, ``, `f.json:1:1: base or world is missing`},
		{`"contoso",`, `"fabrikam",`, `f.json:5:10: base: unknown base "fabrikam": there is contoso`},
		{`"throttle"`, `"trottle"`, `f.json:6:45: faults/0/mode: unknown mode "trottle": there are refuse, throttle,`},
		{`"keyvault"`, `"vault"`, `f.json:6:25: faults/0/service: unknown service "vault": there are entra,`},
		{`"mode": "throttle"`, `"mode": "throttle", "fired": 1`, `f.json:6:57: unknown member "fired"`},
		{`"mode": "throttle"`, `"mode": "delay", "params": {"percent": 1}`, `faults/0/params/percent: mode delay does not read percent; it reads seconds`},
		{`"mode": "throttle"`, `"mode": "delay", "probability": 2`, `f.json:6:69: faults/0/probability: probability is between 0 and 1`},
		{`"at": 5`, `"at": -5`, `f.json:7:18: acts/0/at: at is seconds`},
		{`"at": 5`, `"at": "5s"`, `f.json:7:18: this is a text, where a number is expected`},
		{`keys/stranger`, `keys/delete`, `f.json:7:27: unknown act "keys/delete": there are keys/stranger,`},
		{`"key": "Con`, `"kee": "Con`, `unknown member "kee"; allowed here: vault, key, tags`},
		{`"contoso-spo-a"`, `"contoso-spo-z"`, `f.json:7:52: acts/0/with: key contoso-spo-z/Contoso-SPO-A-Key001: not known to the simulator`},
		{`, "with": {"vault": "contoso-spo-a", "key": "Contoso-SPO-A-Key001"}`, ``, `f.json:7:11: the act has no with`},
		{`]
}`, `}`, `f.json:7:110: this is not JSON: invalid character`},
		{goodScenario, ``, `f.json:1:1: this is not JSON: unexpected end`},
		{"\"d\"", "\"\xff\"", `f.json:3:18: the file is not UTF-8`},
		{`"base": "contoso"`, `"world": {"tenants": [{"id": "7a3b6c1e-0d52-4a0f-9f53-2f4d8b1c5e01", "cloud": "mars"}]}`, `f.json:5:80: world/tenants/0/cloud: unknown cloud "mars"`},
	} {
		text := strings.Replace(goodScenario, tc.old, tc.by, 1)
		_, err := sim.ReadScenario("f.json", []byte(text))
		if tc.want == "" {
			if err != nil {
				t.Error(err)
			}
			continue
		}
		var at *sim.FileError
		if !errors.As(err, &at) || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s → %s:\n%v, want\n%s", tc.old, tc.by, err, tc.want)
		}
	}
}

func TestActsHappenInTime(t *testing.T) {
	s, err := sim.ReadScenario("f.json", []byte(goodScenario))
	if err != nil {
		t.Fatal(err)
	}
	b := playThis(t, s)
	if n := len(b.w.KeyVersions("contoso-spo-a", keyA)); n != 2 {
		t.Errorf("%d versions at the start", n)
	}
	b.w.Advance(5 * time.Second)
	if v := b.w.KeyVersions("contoso-spo-a", keyA); len(v) != 3 || v[2].By != "stranger" {
		t.Errorf("after 5 s: %+v", v)
	}
}

// FuzzReadScenario: whatever a file holds, it is read or refused at a place in it.
func FuzzReadScenario(f *testing.F) {
	f.Add([]byte(goodScenario))
	files, _ := filepath.Glob("scenarios/*.json")
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		_, err := sim.ReadScenario("f", text)
		var at *sim.FileError
		if err == nil {
			return
		}
		if !errors.As(err, &at) || at.Line < 1 || at.Line > strings.Count(string(text), "\n")+1 || at.Column < 1 || at.Reason == "" {
			t.Errorf("%v", err)
		}
	})
}
