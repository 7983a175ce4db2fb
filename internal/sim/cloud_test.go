package sim_test

import (
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/keyroll/keyroll/internal/sim"
)

// moved is Contoso in another cloud: its own is not changed, the hosts are.
func moved(t *testing.T, cloud, vault, exchange, admin string) sim.Tenant {
	t.Helper()
	raw, err := json.Marshal(sim.ContosoSeed().Tenants[0])
	if err != nil {
		t.Fatal(err)
	}
	text := strings.NewReplacer(`"cloud":"public"`, `"cloud":"`+cloud+`"`, ".vault.azure.net", "."+vault, "outlook.office365.com", exchange,
		"contoso-admin.sharepoint.com", "moved"+admin, "contoso-", "moved-", "contoso.com", "moved.example",
		tenantID, movedTenant).Replace(string(raw))
	var out sim.Tenant
	if err := json.Unmarshal([]byte(text), &out); err != nil {
		t.Fatal(err)
	}
	return out
}

const movedTenant = "0d0d0d0d-1111-4222-8333-444444444444"

// askAt asks for a token at an authority.
func (b *bench) askAt(login, tenant, scope string) response {
	b.t.Helper()
	at := "https://" + login + "/" + tenant + "/oauth2/v2.0/token"
	form := url.Values{"grant_type": {"client_credentials"}, "client_id": {clientID}, "scope": {scope},
		"client_assertion_type": {"urn:ietf:params:oauth:client-assertion-type:jwt-bearer"}, "client_assertion": {assertion(b.t, "PS256", at)}}
	return b.send(http.MethodPost, at, form.Encode(), "Content-Type", "application/x-www-form-urlencoded")
}

func TestTokensAreOfOneCloud(t *testing.T) {
	b := start(t, func(s *sim.Seed) {
		s.Tenants = append(s.Tenants, moved(t, "gcc_high", "vault.usgovcloudapi.net", "outlook.office365.us", "-admin.sharepoint.us"))
	})
	const publicLogin, govLogin = "login.microsoftonline.com", "login.microsoftonline.us"
	for _, tc := range []struct {
		name, login, tenant, scope string
		number                     float64 // 0: a token
	}{
		{"public at its own", publicLogin, tenantID, vaultScope, 0},
		{"government at its own", govLogin, movedTenant, "https://vault.usgovcloudapi.net/.default", 0},
		{"government's Exchange", govLogin, movedTenant, "https://outlook.office365.us/.default", 0},
		{"government's SharePoint", govLogin, movedTenant, "https://moved-admin.sharepoint.us/.default", 0},
		{"public at the government's authority", govLogin, tenantID, vaultScope, 90002},
		{"government at the public authority", publicLogin, movedTenant, "https://vault.usgovcloudapi.net/.default", 90002},
		{"audience of the public cloud", govLogin, movedTenant, vaultScope, 500011},
		{"audience of the government", publicLogin, tenantID, "https://outlook.office365.us/.default", 500011},
		{"another tenant's SharePoint", govLogin, movedTenant, spoScope, 500011},
	} {
		r := b.askAt(tc.login, tc.tenant, tc.scope)
		codes, _ := r.json["error_codes"].([]any)
		if tc.number == 0 && r.status != 200 || tc.number != 0 && (len(codes) != 1 || codes[0] != tc.number) {
			t.Errorf("%s: %d %s", tc.name, r.status, r.raw)
		}
	}
	// A good token of the one cloud is none in the other.
	token := b.askAt(govLogin, movedTenant, "https://vault.usgovcloudapi.net/.default").json["access_token"].(string)
	for url, want := range map[string]int{"https://moved-spo-a.vault.usgovcloudapi.net": 200, vaultA: 401} {
		if r := b.send(http.MethodGet, url+"/keys"+apiV, "", "Authorization", "Bearer "+token); r.status != want {
			t.Errorf("%s: %d, want %d", url, r.status, want)
		}
	}
}

func airgap() sim.Cloud {
	return sim.Cloud{Name: "airgap", Logins: []string{"login.airgap.example"}, Vault: "vault.airgap.example", HSM: "hsm.airgap.example",
		Exchange: "outlook.mail.airgap.example", ExchangeRedirects: []string{"mail.airgap.example"},
		SharePointAdmin: "-admin.sharepoint.airgap.example", ResourceManager: "management.airgap.example"}
}

func TestOwnCloud(t *testing.T) {
	b := start(t, func(s *sim.Seed) {
		s.Clouds = []sim.Cloud{airgap()}
		s.Tenants = append(s.Tenants, moved(t, "airgap", "vault.airgap.example", "outlook.mail.airgap.example", "-admin.sharepoint.airgap.example"))
	})
	if !strings.Contains(b.srv.DialMap(), "vault.airgap.example=") || !strings.Contains(b.srv.DialMap(), ",mail.airgap.example=") {
		t.Errorf("dial map: %s", b.srv.DialMap())
	}
	r := b.send(http.MethodGet, "https://moved-spo-a.vault.airgap.example/keys"+apiV, "")
	if c := r.header.Get("WWW-Authenticate"); !strings.Contains(c, "https://login.airgap.example/"+movedTenant) || !strings.Contains(c, "https://vault.airgap.example") {
		t.Errorf("challenge: %s", c)
	}
	if r := b.askAt("login.airgap.example", movedTenant, "https://vault.airgap.example/.default"); r.status != 200 {
		t.Errorf("token: %d %s", r.status, r.raw)
	}
	// Microsoft's list of authorities does not have it.
	r = b.send(http.MethodGet, "https://login.microsoftonline.com/common/discovery/instance?api-version=1.1&authorization_endpoint="+
		url.QueryEscape("https://login.airgap.example/"+movedTenant+"/oauth2/v2.0/authorize"), "")
	if r.status != 400 || r.json["error"] != "invalid_instance" {
		t.Errorf("instance discovery: %d %s", r.status, r.raw)
	}
}

func TestOwnCloudRefused(t *testing.T) {
	for name, edit := range map[string]func(*sim.Cloud){
		"no name": func(c *sim.Cloud) { c.Name = "" }, "no login": func(c *sim.Cloud) { c.Logins = nil }, "no HSM": func(c *sim.Cloud) { c.HSM = "" },
		"admin": func(c *sim.Cloud) { c.SharePointAdmin = ".sharepoint.example" }} {
		c := airgap()
		edit(&c)
		if _, err := sim.New(sim.Seed{Clouds: []sim.Cloud{c}}); err == nil || !strings.Contains(err.Error(), "clouds/0") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
