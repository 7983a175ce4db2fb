package sim_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/keyroll/keyroll/internal/sim"
)

const (
	tenantID = sim.ContosoTenant
	clientID = sim.ContosoClientID
	secret   = "a-secret"

	vaultScope = "https://vault.azure.net/.default"
	exoScope   = "https://outlook.office365.com/.default"
	spoScope   = "https://contoso-admin.sharepoint.com/.default"

	vaultA   = "https://contoso-spo-a.vault.azure.net"
	keyA     = "Contoso-SPO-A-Key001"
	exoVault = "https://contoso-exo-a.vault.azure.net"
	exoKey   = "Contoso-EXO-A-Key001"
	exoDEP   = "5e2b9c64-7d13-4f6a-9a41-1c0d7b52e8f3"
	m365DEP  = "c1a7d2f0-51b4-4d2c-8f0e-0b8a6a3d9e10"
	apiV     = "?api-version=2025-07-01"
)

// appPair is one certificate for all tests; RSA keys are slow to make.
var appPair = sync.OnceValue(func() (p struct{ cert, key []byte }) {
	var err error
	if p.cert, p.key, err = sim.NewAppCertificate("test app"); err != nil {
		panic(err)
	}
	return p
})

// bench is a simulator and a client of it.
type bench struct {
	t      *testing.T
	srv    *sim.Server
	w      *sim.World
	client *http.Client
	mu     sync.Mutex
	tokens map[string]string
}

// start serves Contoso at a standing clock, changed by edits.
func start(t *testing.T, edits ...func(*sim.Seed)) *bench {
	t.Helper()
	seed := sim.ContosoSeed()
	seed.AllowCertificate(clientID, appPair().cert)
	seed.Apps[0].Secrets = []string{secret}
	for _, edit := range edits {
		edit(&seed)
	}
	srv, err := sim.Start(t.Context(), sim.Options{Seed: seed})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = srv.Close() })
	base := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	srv.World.Now = func() time.Time { return base }
	return &bench{t: t, srv: srv, w: srv.World, client: newClient(t, srv), tokens: map[string]string{}}
}

// newClient dials by the dial map and trusts the simulator's CA only.
func newClient(t *testing.T, srv *sim.Server) *http.Client {
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(srv.CAPEM()) {
		t.Fatal("no CA certificate")
	}
	dial := func(ctx context.Context, network, addr string) (net.Conn, error) {
		host, _, _ := net.SplitHostPort(addr)
		if host == "127.0.0.1" {
			return new(net.Dialer).DialContext(ctx, network, addr)
		}
		for pair := range strings.SplitSeq(srv.DialMap(), ",") {
			suffix, to, _ := strings.Cut(pair, "=")
			if host == suffix || strings.HasSuffix(host, "."+suffix) {
				return new(net.Dialer).DialContext(ctx, network, to)
			}
		}
		return nil, &net.DNSError{Err: "not in the dial map", Name: host, IsNotFound: true}
	}
	tr := &http.Transport{DialContext: dial, TLSClientConfig: &tls.Config{RootCAs: pool}}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr}
}

// response is an answer, read to its end.
type response struct {
	status int
	header http.Header
	raw    []byte
	json   map[string]any
}

func (r response) path(keys ...string) any {
	var v any = r.json
	for _, k := range keys {
		m, _ := v.(map[string]any)
		v = m[k]
	}
	return v
}

// try sends a request and returns the transport's error, if any.
func (b *bench) try(method, target, body string, header ...string) (response, error) {
	req, err := http.NewRequestWithContext(b.t.Context(), method, target, strings.NewReader(body))
	if err != nil {
		return response{}, err
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	res, err := b.client.Do(req)
	if err != nil {
		return response{}, err
	}
	defer func() { _ = res.Body.Close() }()
	raw, err := io.ReadAll(res.Body)
	out := response{status: res.StatusCode, header: res.Header, raw: raw}
	_ = json.Unmarshal(raw, &out.json)
	return out, err
}

func (b *bench) send(method, target, body string, header ...string) response {
	b.t.Helper()
	r, err := b.try(method, target, body, header...)
	if err != nil {
		b.t.Fatalf("%s %s: %v", method, target, err)
	}
	return r
}

// assertion signs a client assertion; edits change header and claims.
func assertion(t *testing.T, alg, aud string, edits ...func(head, claims map[string]any)) string {
	t.Helper()
	pair := appPair()
	keyBlock, _ := pem.Decode(pair.key)
	parsed, err := x509.ParsePKCS8PrivateKey(keyBlock.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	key := parsed.(*rsa.PrivateKey)
	certBlock, _ := pem.Decode(pair.cert)
	s1, s256 := sha1.Sum(certBlock.Bytes), sha256.Sum256(certBlock.Bytes)
	head := map[string]any{"alg": alg, "typ": "JWT"}
	if alg == "PS256" { // as MSAL for Go writes it: in the standard alphabet
		head["x5t#S256"] = base64.StdEncoding.EncodeToString(s256[:])
	} else {
		head["x5t"] = base64.RawURLEncoding.EncodeToString(s1[:])
	}
	now := time.Now().Unix()
	claims := map[string]any{"aud": aud, "iss": clientID, "sub": clientID, "jti": rand.Text(), "nbf": now, "exp": now + 600}
	for _, edit := range edits {
		edit(head, claims)
	}
	h, _ := json.Marshal(head)
	c, _ := json.Marshal(claims)
	signed := base64.RawURLEncoding.EncodeToString(h) + "." + base64.RawURLEncoding.EncodeToString(c)
	sum := sha256.Sum256([]byte(signed))
	var sig []byte
	if alg == "PS256" {
		sig, err = rsa.SignPSS(rand.Reader, key, crypto.SHA256, sum[:], &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash})
	} else {
		sig, err = rsa.SignPKCS1v15(rand.Reader, key, crypto.SHA256, sum[:])
	}
	if err != nil {
		t.Fatal(err)
	}
	return signed + "." + base64.RawURLEncoding.EncodeToString(sig)
}

func tokenURL(tenant string) string {
	return "https://login.microsoftonline.com/" + tenant + "/oauth2/v2.0/token"
}

// tokenForm is a token request for Key Vault.
func tokenForm(t *testing.T) string {
	t.Helper()
	return url.Values{"grant_type": {"client_credentials"}, "client_id": {clientID}, "scope": {vaultScope},
		"client_assertion_type": {"urn:ietf:params:oauth:client-assertion-type:jwt-bearer"},
		"client_assertion":      {assertion(t, "PS256", tokenURL(tenantID))}}.Encode()
}

// askToken posts a token request; form pairs replace the defaults.
func (b *bench) askToken(tenant string, pairs ...string) response {
	b.t.Helper()
	form := url.Values{"grant_type": {"client_credentials"}, "client_id": {clientID}, "scope": {vaultScope},
		"client_assertion_type": {"urn:ietf:params:oauth:client-assertion-type:jwt-bearer"}}
	for i := 0; i < len(pairs); i += 2 {
		form.Set(pairs[i], pairs[i+1])
	}
	if !form.Has("client_assertion") && !form.Has("client_secret") {
		form.Set("client_assertion", assertion(b.t, "PS256", tokenURL(tenant)))
	}
	return b.send(http.MethodPost, tokenURL(tenant), form.Encode(), "Content-Type", "application/x-www-form-urlencoded")
}

// token gets an access token, once per scope.
func (b *bench) token(scope string) string {
	b.t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.tokens[scope] == "" {
		r := b.askToken(tenantID, "scope", scope)
		if r.status != 200 {
			b.t.Fatalf("token: %d %s", r.status, r.raw)
		}
		b.tokens[scope] = r.json["access_token"].(string)
	}
	return b.tokens[scope]
}

// vault sends a Key Vault request with a token.
func (b *bench) vault(method, target, body string) response {
	b.t.Helper()
	return b.send(method, target, body, "Authorization", "Bearer "+b.token(vaultScope), "Content-Type", "application/json",
		"x-ms-client-request-id", "req-1")
}

const createBody = `{"kty":"RSA-HSM","key_size":3072,"key_ops":["wrapKey","unwrapKey"],"tags":{"keyroll-op":"op-1"}}`

func (b *bench) create(vault, key string) response {
	b.t.Helper()
	return b.vault(http.MethodPost, vault+"/keys/"+key+"/create"+apiV, createBody)
}

// cmdlet runs an Exchange cmdlet.
func (b *bench) cmdlet(name string, params map[string]any) response {
	b.t.Helper()
	body, _ := json.Marshal(map[string]any{"CmdletInput": map[string]any{"CmdletName": name, "Parameters": params}})
	return b.send(http.MethodPost, "https://outlook.office365.com/adminapi/beta/"+tenantID+"/InvokeCommand", string(body),
		"Authorization", "Bearer "+b.token(exoScope), "Content-Type", "application/json; charset=utf-8", "client-request-id", "exo-op")
}

// spo is a ProcessQuery reply taken apart.
type spo struct {
	status  int
	errType string
	result  map[string]any
}

const queryHead = `<Request AddExpandoFieldTypeSuffix="true" SchemaVersion="15.0.0.0" LibraryVersion="16.0.0.0" ApplicationName="test" xmlns="http://schemas.microsoft.com/sharepoint/clientquery/2009"><Actions>`
const queryTail = `</Actions><ObjectPaths><StaticProperty Id="1" TypeId="{3747adcd-a3c3-41b9-bfab-4a64dd2f1e0a}" Name="Current"/><Property Id="5" ParentId="1" Name="Site"/></ObjectPaths></Request>`
const statusXML = queryHead + `<Method Name="GetBringYourOwnKeyTenantStatus" Id="7" ObjectPathId="5"/>` + queryTail

func rollXML(slot, vault, key, version string) string {
	v := version
	if len(v) == 32 {
		v = "{" + v[:8] + "-" + v[8:12] + "-" + v[12:16] + "-" + v[16:20] + "-" + v[20:] + "}"
	}
	return queryHead + `<Method Name="RollTenantBringYourOwnKey" Id="7" ObjectPathId="5"><Parameters><Parameter Type="Enum">` + slot +
		`</Parameter><Parameter TypeId="{19d15bc5-c167-4d4f-a469-a9d7de4bdcc1}"><Property Name="KeyName" Type="String">` + key +
		`</Property><Property Name="KeyVersion" Type="Guid">` + v + `</Property><Property Name="VaultName" Type="String">` + vault +
		`</Property></Parameter></Parameters></Method>` + queryTail
}

func (b *bench) query(xml string) spo {
	b.t.Helper()
	r := b.send(http.MethodPost, "https://contoso-admin.sharepoint.com/_vti_bin/client.svc/ProcessQuery", xml,
		"Authorization", "Bearer "+b.token(spoScope), "Content-Type", "text/xml", "x-ms-client-request-id", "spo-op")
	return readQuery(r)
}

func readQuery(r response) spo {
	out := spo{status: r.status}
	var items []any
	if json.NewDecoder(bytes.NewReader(r.raw)).Decode(&items) != nil || len(items) == 0 {
		return out
	}
	if info, ok := items[0].(map[string]any)["ErrorInfo"].(map[string]any); ok {
		out.errType, _ = info["ErrorTypeName"].(string)
	}
	for i, item := range items {
		if n, ok := item.(float64); ok && n == 7 && i+1 < len(items) {
			out.result, _ = items[i+1].(map[string]any)
		}
	}
	return out
}

// newVersion makes a version of a key as a stranger would, and returns its id.
func (b *bench) newVersion(vault, key string) string {
	b.t.Helper()
	id, err := b.w.StrangerVersion(vault, key, nil)
	if err != nil {
		b.t.Fatal(err)
	}
	return id
}
