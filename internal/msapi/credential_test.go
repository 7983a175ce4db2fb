package msapi_test

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"log/slog"
	"math/big"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/google/go-cmp/cmp"

	"github.com/keyroll/keyroll/internal/msapi"
	"github.com/keyroll/keyroll/internal/msapi/msapitest"
)

const (
	login  = "login.microsoftonline.com"
	tenant = "11111111-2222-3333-4444-555555555555"
	app    = "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee"
)

// pemPair makes a certificate and its private key, in PEM.
func pemPair(t testing.TB) (cert, key []byte) {
	t.Helper()
	k, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "app"},
		NotBefore: time.Unix(1_700_000_000, 0), NotAfter: time.Unix(1_900_000_000, 0)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, k.Public(), k)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})
}

func write(t testing.TB, dir, name string, data []byte) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

const goodEntry = `{"kind":"client_certificate","client_id":"` + app + `","certificate_path":"app.pem"}`

// credentialsDir holds app.pem with both parts, and cert.pem and key.pem apart.
func credentialsDir(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	cert, key := pemPair(t)
	_, other := pemPair(t)
	write(t, dir, "app.pem", append(append([]byte{}, key...), cert...))
	write(t, dir, "cert.pem", cert)
	write(t, dir, "key.pem", key)
	write(t, dir, "other.pem", other)
	return dir
}

func TestReadCredentials(t *testing.T) {
	dir := credentialsDir(t)
	for _, tt := range []struct{ name, file, want string }{
		{"one PEM", `{"contoso":` + goodEntry + `}`, ""},
		{"key apart", `{"contoso":{"kind":"client_certificate","client_id":"x","certificate_path":"cert.pem","key_path":"key.pem"}}`, ""},
		{"no JSON", `contoso`, "not JSON"},
		{"an array", `[]`, "expected a JSON object"},
		{"empty", `{}`, "names no credential"},
		{"trailing", `{"contoso":` + goodEntry + `} {}`, "something follows"},
		{"name twice", `{"contoso":` + goodEntry + `,"contoso":` + goodEntry + `}`, `"contoso" stands twice`},
		{"member twice", `{"contoso":{"kind":"client_certificate","kind":"client_certificate"}}`, `"kind" stands twice`},
		{"unknown member", `{"contoso":{"kind":"client_certificate","password":"hush"}}`, `credential "contoso" in FILE: unknown member "password"`},
		{"other case", `{"contoso":{"Kind":"client_certificate"}}`, `unknown member "Kind"`},
		{"not a string", `{"contoso":{"kind":1}}`, `"kind" must be a string`},
		{"null", `{"contoso":{"kind":null}}`, `"kind" must be a string`},
		{"other kind", `{"contoso":{"kind":"client_secret"}}`, `the supported kinds are client_certificate, workload_identity, managed_identity`},
		{"no client id", `{"contoso":{"kind":"client_certificate","certificate_path":"app.pem"}}`, "client_id is missing"},
		{"no path", `{"contoso":{"kind":"client_certificate","client_id":"x"}}`, "certificate_path is missing"},
		{"no file", `{"contoso":{"kind":"client_certificate","client_id":"x","certificate_path":"none.pem"}}`, "reading certificate_path"},
		{"no key", `{"contoso":{"kind":"client_certificate","client_id":"x","certificate_path":"cert.pem"}}`, "cannot be read"},
		{"key of another", `{"contoso":{"kind":"client_certificate","client_id":"x","certificate_path":"cert.pem","key_path":"other.pem"}}`, "does not belong"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			path := write(t, dir, "credentials.json", []byte(tt.file))
			c, err := msapi.ReadCredentials(path)
			if tt.want == "" {
				if err != nil {
					t.Fatal(err)
				}
				at, ok := c.Expires("contoso")
				if diff := cmp.Diff([]string{"contoso"}, c.Names()); diff != "" || !ok || at.Unix() != 1_900_000_000 {
					t.Error(diff, at)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), strings.ReplaceAll(tt.want, "FILE", path)) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
			if err != nil && (strings.Contains(err.Error(), "hush") || strings.Contains(err.Error(), "PRIVATE")) {
				t.Errorf("the error shows a secret: %v", err)
			}
		})
	}
}

func TestCredentialsDoNotPrint(t *testing.T) {
	path := write(t, credentialsDir(t), "credentials.json", []byte(`{"contoso":`+goodEntry+`}`))
	c, err := msapi.ReadCredentials(path)
	if err != nil {
		t.Fatal(err)
	}
	var log strings.Builder
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "credentials", c)
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "credentials", c)
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%d", "%x"} {
		if got := fmt.Sprintf(verb, c); got != "credentials(1, redacted)" {
			t.Errorf("%s prints %.80q", verb, got)
		}
	}
	if strings.Contains(log.String(), app) || !strings.Contains(log.String(), "redacted") {
		t.Errorf("the log shows %s", log.String())
	}
}

// entra is as much of Entra as a client certificate needs. token answers the
// token requests.
func entra(t *testing.T, token http.HandlerFunc) *msapitest.Server {
	return msapitest.Start(t, func(w http.ResponseWriter, r *http.Request) {
		id, _, _ := strings.Cut(strings.Trim(r.URL.Path, "/"), "/")
		if u, err := url.Parse(r.URL.Query().Get("authorization_endpoint")); err == nil && u.Host != "" {
			id, _, _ = strings.Cut(strings.Trim(u.Path, "/"), "/")
		}
		base := "https://" + login + "/" + id
		switch {
		case strings.HasSuffix(r.URL.Path, "/oauth2/v2.0/token"):
			token(w, r)
		case strings.HasSuffix(r.URL.Path, "/openid-configuration"):
			_ = json.NewEncoder(w).Encode(map[string]string{"issuer": base + "/v2.0", "token_endpoint": base + "/oauth2/v2.0/token",
				"authorization_endpoint": base + "/oauth2/v2.0/authorize"})
		default:
			_ = json.NewEncoder(w).Encode(map[string]any{"tenant_discovery_endpoint": base + "/v2.0/.well-known/openid-configuration",
				"metadata": []any{map[string]any{"preferred_network": login, "preferred_cache": login, "aliases": []string{login}}}})
		}
	}, login)
}

func credentials(t *testing.T) (all *msapi.Credentials, dir string) {
	t.Helper()
	dir = credentialsDir(t)
	all, err := msapi.ReadCredentials(write(t, dir, "credentials.json", []byte(`{"contoso":`+goodEntry+`}`)))
	if err != nil {
		t.Fatal(err)
	}
	return all, dir
}

func TestTokenIsHadOncePerTenantAndSurvivesReload(t *testing.T) {
	var asked atomic.Int32
	srv := entra(t, func(w http.ResponseWriter, r *http.Request) {
		if r.PostFormValue("scope") == "" || r.PostFormValue("client_assertion") == "" {
			t.Error("the token request lacks scope or assertion")
		}
		_, _ = fmt.Fprintf(w, `{"token_type":"Bearer","expires_in":3599,"access_token":"token-%d"}`, asked.Add(1))
	})
	all, dir := credentials(t)
	get := func() string {
		t.Helper()
		cred, err := all.For("contoso", tenant, cloud(t, "public"), srv.HTTP)
		if err != nil {
			t.Fatal(err)
		}
		tk, err := cred.GetToken(t.Context(), policy.TokenRequestOptions{Scopes: []string{"https://outlook.office365.com/.default"}})
		if err != nil {
			t.Fatal(err)
		}
		return tk.Token
	}
	held, err := all.For("contoso", tenant, cloud(t, "public"), srv.HTTP)
	if err != nil {
		t.Fatal(err)
	}
	if a, b := get(), get(); a != "token-1" || b != "token-1" {
		t.Errorf("got %q, %q: one credential per tenant caches its tokens", a, b)
	}
	bad := write(t, dir, "bad.json", []byte(`{}`))
	if err := all.Reload(bad); err == nil || !strings.Contains(err.Error(), "the old ones stay in use") || get() != "token-1" {
		t.Errorf("a bad file must change nothing: %v", err)
	}
	if err := all.Reload(filepath.Join(dir, "credentials.json")); err != nil {
		t.Fatal(err)
	}
	tk, err := held.GetToken(t.Context(), policy.TokenRequestOptions{Scopes: []string{"https://outlook.office365.com/.default"}})
	if err != nil || tk.Token != "token-2" {
		t.Errorf("a credential handed out before the reload gave %q, %v", tk.Token, err)
	}
	if _, err := all.For("fabrikam", tenant, cloud(t, "public"), srv.HTTP); err == nil || !strings.Contains(err.Error(), `"fabrikam"`) {
		t.Errorf("unknown credential: %v", err)
	}
	if _, err := all.For("contoso", "not/a/tenant", cloud(t, "public"), srv.HTTP); err == nil {
		t.Error("a tenant that is none must be refused")
	}
}

func TestTokenFailures(t *testing.T) {
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	const refusal = `{"error":"invalid_client","error_description":"AADSTS700027: The certificate is not registered.\r\nTrace ID: t-1","trace_id":"t-1"}`
	for _, tt := range []struct {
		name   string
		ctx    context.Context
		answer http.HandlerFunc
		want   msapi.Error
	}{
		{"refused", t.Context(), func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(401)
			_, _ = w.Write([]byte(refusal))
		}, msapi.Error{Kind: msapi.KindToken, Status: 401, Code: "AADSTS700027", InnerCode: "invalid_client", Message: "The certificate is not registered.", RequestID: "t-1"}},
		{"throttled", t.Context(), func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", "9")
			w.WriteHeader(429)
		}, msapi.Error{Kind: msapi.KindThrottled, Status: 429, Code: "token_not_acquired", Message: "Entra answered 429", RetryAfter: 9 * time.Second}},
		{"down", t.Context(), func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(503) },
			msapi.Error{Kind: msapi.KindUnavailable, Status: 503, Code: "token_not_acquired", Message: "Entra answered 503"}},
		{"lost", t.Context(), msapitest.Drop, msapi.Error{Kind: msapi.KindUnavailable, Code: "connection_lost"}},
		{"cancelled", ended, msapitest.Drop, msapi.Error{Kind: msapi.KindUnavailable, Code: "cancelled"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			srv := entra(t, tt.answer)
			all, _ := credentials(t)
			cred, err := all.For("contoso", tenant, cloud(t, "public"), srv.HTTP)
			if err != nil {
				t.Fatal(err)
			}
			_, err = cred.GetToken(tt.ctx, policy.TokenRequestOptions{Scopes: []string{"s/.default"}})
			got, ok := msapi.AsError(err)
			if !ok {
				t.Fatalf("got %v", err)
			}
			tt.want.Service, tt.want.Operation = "entra", "get_token"
			if tt.want.Message == "" { // the network's own words
				got.Message = ""
			}
			if diff := cmp.Diff(tt.want.Error(), got.Error()); diff != "" || got.RetryAfter != tt.want.RetryAfter {
				t.Error(diff)
			}
		})
	}
}

func FuzzCredentials(f *testing.F) {
	f.Add([]byte(`{"contoso":` + goodEntry + `}`))
	f.Add([]byte(`{"a":{"kind":"x"},"a":{}}`))
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, data []byte) {
		path := filepath.Join(dir, "c.json")
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := msapi.ReadCredentials(path); err == nil {
			t.Error("accepted, though no certificate is there")
		}
	})
}
