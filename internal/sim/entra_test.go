package sim_test

import (
	"encoding/base64"
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/keyroll/keyroll/internal/sim"
)

func TestTokenByCertificate(t *testing.T) {
	b := start(t)
	for _, tc := range []struct{ name, alg, aud string }{
		{"PS256 as MSAL signs", "PS256", tokenURL(tenantID)},
		{"RS256 with x5t", "RS256", tokenURL(tenantID)},
		{"audience by domain", "PS256", tokenURL("contoso.com")},
		{"audience is the issuer", "RS256", "https://login.microsoftonline.com/" + tenantID + "/v2.0"},
	} {
		r := b.askToken(tenantID, "client_assertion", assertion(t, tc.alg, tc.aud), "scope", vaultScope+" openid profile offline_access")
		if r.status != 200 || r.json["token_type"] != "Bearer" || r.json["expires_in"] != 3599.0 {
			t.Errorf("%s: %d %s", tc.name, r.status, r.raw)
			continue
		}
		var claims map[string]any
		part, _ := base64.RawURLEncoding.DecodeString(strings.Split(r.json["access_token"].(string), ".")[1])
		_ = json.Unmarshal(part, &claims)
		if claims["aud"] != "https://vault.azure.net" || claims["tid"] != tenantID || claims["appid"] != clientID {
			t.Errorf("%s: claims %v", tc.name, claims)
		}
	}
}

func TestTokenRefusals(t *testing.T) {
	b := start(t)
	edit := func(f func(head, claims map[string]any)) string { return assertion(t, "PS256", tokenURL(tenantID), f) }
	for _, tc := range []struct {
		name   string
		tenant string
		pairs  []string
		number float64
	}{
		{"unknown tenant", "nobody.example", nil, 90002},
		{"unknown app", tenantID, []string{"client_id", "00000000-0000-4000-8000-000000000000"}, 700016},
		{"other grant", tenantID, []string{"grant_type", "password"}, 70003},
		{"no /.default", tenantID, []string{"scope", "https://vault.azure.net"}, 1002012},
		{"unknown resource", tenantID, []string{"scope", "https://graph.example/.default"}, 500011},
		{"wrong secret", tenantID, []string{"client_secret", "wrong"}, 7000215},
		{"no credential", tenantID, []string{"client_assertion", ""}, 7000216},
		{"garbage", tenantID, []string{"client_assertion", "x.y"}, 50027},
		{"other audience", tenantID, []string{"client_assertion", assertion(t, "PS256", tokenURL("common"))}, 700023},
		{"expired", tenantID, []string{"client_assertion", edit(func(_, c map[string]any) { c["exp"] = time.Now().Add(-time.Hour).Unix() })}, 700024},
		{"other issuer", tenantID, []string{"client_assertion", edit(func(_, c map[string]any) { c["iss"] = "someone" })}, 700021},
		{"no jti", tenantID, []string{"client_assertion", edit(func(_, c map[string]any) { delete(c, "jti") })}, 50027},
		{"unregistered certificate", tenantID, []string{"client_assertion", edit(func(h, _ map[string]any) { h["x5t#S256"] = "AAAA" })}, 700027},
		{"no algorithm", tenantID, []string{"client_assertion", edit(func(h, _ map[string]any) { h["alg"] = "none" })}, 700027},
		{"signature over other bytes", tenantID, []string{"client_assertion", tamper(assertion(t, "PS256", tokenURL(tenantID)))}, 700027},
	} {
		r := b.askToken(tc.tenant, tc.pairs...)
		codes, _ := r.json["error_codes"].([]any)
		if r.status < 400 || len(codes) != 1 || codes[0] != tc.number || !strings.HasPrefix(r.json["error_description"].(string), "AADSTS") {
			t.Errorf("%s: %d %s, want %v", tc.name, r.status, r.raw, tc.number)
		}
	}
}

// tamper replaces the claims and keeps the signature.
func tamper(jwt string) string {
	p := strings.Split(jwt, ".")
	claims, _ := base64.RawURLEncoding.DecodeString(p[1])
	p[1] = base64.RawURLEncoding.EncodeToString([]byte(strings.Replace(string(claims), `"exp":`, `"x":0,"exp":`, 1)))
	return strings.Join(p, ".")
}

func TestDiscovery(t *testing.T) {
	b := start(t)
	r := b.send(http.MethodGet, "https://login.microsoftonline.com/common/discovery/instance?api-version=1.1&authorization_endpoint=https%3A%2F%2Flogin.microsoftonline.us%2F"+tenantID+"%2Foauth2%2Fv2.0%2Fauthorize", "")
	if want := "https://login.microsoftonline.us/" + tenantID + "/v2.0/.well-known/openid-configuration"; r.json["tenant_discovery_endpoint"] != want {
		t.Errorf("discovery: %s", r.raw)
	}
	r = b.send(http.MethodGet, "https://login.microsoftonline.com/contoso.com/v2.0/.well-known/openid-configuration", "")
	if r.json["token_endpoint"] != tokenURL(tenantID) || r.json["issuer"] != "https://login.microsoftonline.com/"+tenantID+"/v2.0" {
		t.Errorf("openid: %s", r.raw)
	}
	if r = b.send(http.MethodGet, r.json["jwks_uri"].(string), ""); len(r.json["keys"].([]any)) != 1 {
		t.Errorf("keys: %s", r.raw)
	}
}

func TestTokenIsCheckedByResources(t *testing.T) {
	seed := func(s *sim.Seed) {
		s.TokenLifetimeSeconds = 60
		other := sim.FleetSeed(1).Tenants[0]
		s.Tenants = append(s.Tenants, other)
	}
	b := start(t, seed)
	get := func(token string) int {
		return b.send(http.MethodGet, vaultA+"/keys"+apiV, "", "Authorization", "Bearer "+token).status
	}
	good := b.token(vaultScope)
	other := sim.FleetSeed(1).Tenants[0].ID
	foreign := b.askToken(other).json["access_token"].(string)
	for name, token := range map[string]string{"audience": b.token(exoScope), "tenant": foreign, "tampered": tamper(good), "garbage": "x"} {
		if got := get(token); got != 401 {
			t.Errorf("token of wrong %s: %d", name, got)
		}
	}
	if got := get(good); got != 200 {
		t.Errorf("good token: %d", got)
	}
	b.w.Advance(time.Hour)
	if got := get(good); got != 200 {
		t.Errorf("good token after Advance: %d, but tokens live in real time", got)
	}
	if n := b.w.Requests(sim.ServiceKeyVault, sim.OpUnauthorized); n != 4 {
		t.Errorf("unauthorized requests: %d", n)
	}
}

func TestTokenExpires(t *testing.T) {
	b := start(t)
	b.w.Wall = func() time.Time { return time.Now().Add(-2 * time.Hour) }
	// The assertion is of the same two hours ago.
	past := assertion(t, "RS256", tokenURL(tenantID), func(_, c map[string]any) {
		c["nbf"], c["exp"] = time.Now().Add(-2*time.Hour).Unix(), time.Now().Add(-110*time.Minute).Unix()
	})
	token := b.askToken(tenantID, "client_assertion", past).json["access_token"].(string)
	b.w.Wall = time.Now
	r := b.send(http.MethodGet, vaultA+"/keys"+apiV, "", "Authorization", "Bearer "+token)
	if r.status != 401 || !strings.Contains(string(r.raw), "expired") {
		t.Errorf("%d %s", r.status, r.raw)
	}
}

// A certificate that has ended proves nothing, however fresh the assertion.
func TestTokenByEndedCertificate(t *testing.T) {
	b := start(t)
	later := time.Now().AddDate(2, 0, 0)
	b.w.Wall = func() time.Time { return later }
	signed := assertion(t, "RS256", tokenURL(tenantID), func(_, c map[string]any) {
		c["nbf"], c["exp"] = later.Unix(), later.Add(10*time.Minute).Unix()
	})
	r := b.askToken(tenantID, "client_assertion", signed)
	if r.status != 401 || r.json["error_codes"].([]any)[0] != 700027.0 || !strings.Contains(string(r.raw), "is expired") {
		t.Errorf("%d %s", r.status, r.raw)
	}
}
