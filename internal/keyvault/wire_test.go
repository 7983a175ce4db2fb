package keyvault_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/keyroll/keyroll/internal/keyvault"
	"github.com/keyroll/keyroll/internal/msapi"
	"github.com/keyroll/keyroll/internal/msapi/msapitest"
	"github.com/keyroll/keyroll/internal/roll"
)

const (
	vaultHost = "v.vault.azure.net"
	version   = "0123456789abcdef0123456789abcdef"
	kid       = "https://" + vaultHost + "/keys/k/" + version
	apiV      = "?api-version=2025-07-01"
	challenge = `Bearer authorization="https://login.microsoftonline.com/t", resource="https://vault.azure.net"`
)

// bundle is an answer of create and get, with a 2048 bit modulus.
var bundle = `{"key":{"kid":"` + kid + `","kty":"RSA-HSM","key_ops":["wrapKey","unwrapKey"],"n":"` + strings.Repeat("_", 341) + `w","e":"AQAB"},` +
	`"attributes":{"enabled":true,"nbf":1700000000,"created":1600000000,"updated":1600000000,"recoveryLevel":"Recoverable","recoverableDays":90,"hsmPlatform":"2"},` +
	`"tags":{"owner":"compliance","keyroll-op":"op-1"}}`

// challenged answers the first, tokenless request as a vault does.
func challenged(h http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") == "" {
			w.Header().Set("WWW-Authenticate", challenge)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		h(w, r)
	}
}

func says(status int, body string) http.HandlerFunc {
	return challenged(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		_, _ = w.Write([]byte(body))
	})
}

func client(t testing.TB, h http.HandlerFunc, opts ...msapi.Option) (*keyvault.Client, *msapitest.Server) {
	t.Helper()
	srv := msapitest.Start(t, h, vaultHost)
	c, err := keyvault.New("https://"+vaultHost, msapitest.Token("t0ken"), srv.HTTP, opts...)
	if err != nil {
		t.Fatal(err)
	}
	return c, srv
}

// authorized are the requests that carried the token: those that can have an effect.
func authorized(srv *msapitest.Server) []msapitest.Request {
	var out []msapitest.Request
	for _, r := range srv.Seen() {
		if r.Header.Get("Authorization") == "Bearer t0ken" {
			out = append(out, r)
		}
	}
	return out
}

func create(ctx context.Context, c *keyvault.Client) (roll.KeyVersion, error) {
	return c.Create(ctx, "k", keyvault.CreateSpec{Kty: "RSA-HSM", Size: 2048}, "op-1")
}

func TestCreateOnTheWire(t *testing.T) {
	c, srv := client(t, says(200, bundle))
	nbf := time.Unix(1_700_000_000, 0)
	got, err := c.Create(t.Context(), "k", keyvault.CreateSpec{Kty: "RSA-HSM", Size: 2048, KeyOps: []string{"wrapKey", "unwrapKey"},
		Tags: map[string]string{"owner": "compliance", "keyroll-op": "the predecessor's"}, NotBefore: &nbf}, "op-1")
	if err != nil {
		t.Fatal(err)
	}
	utc := nbf.UTC()
	want := roll.KeyVersion{Version: version, Enabled: true, NotBefore: &utc, Created: time.Unix(1_600_000_000, 0).UTC(),
		RecoveryLevel: "Recoverable", RecoverableDays: 90, Kty: "RSA-HSM", Size: 2048, KeyOps: []string{"wrapKey", "unwrapKey"},
		HSMPlatform: "2", Tags: map[string]string{"owner": "compliance", "keyroll-op": "op-1"}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	seen := srv.Seen()
	if len(seen) != 2 || len(seen[0].Body) != 0 || seen[0].Header.Get("Authorization") != "" {
		t.Fatalf("want a challenge without body and token, then one request: %+v", seen)
	}
	r := seen[1]
	var body any
	if err := json.Unmarshal(r.Body, &body); err != nil {
		t.Fatal(err)
	}
	wantBody := map[string]any{"kty": "RSA-HSM", "key_size": 2048.0, "key_ops": []any{"wrapKey", "unwrapKey"},
		"attributes": map[string]any{"nbf": 1700000000.0}, "tags": map[string]any{"owner": "compliance", "keyroll-op": "op-1"}}
	if diff := cmp.Diff(wantBody, body); diff != "" {
		t.Error(diff)
	}
	if r.Method != "POST" || r.URI != "/keys/k/create"+apiV || r.Header.Get("x-ms-client-request-id") != "op-1" || r.Header.Get("Authorization") != "Bearer t0ken" {
		t.Errorf("%s %s %v", r.Method, r.URI, r.Header)
	}
	if _, there := r.Header["Idempotency-Key"]; there {
		t.Error("an Idempotency-Key lets net/http replay the request")
	}
}

func TestCreateSendsNothingButWhatIsSaid(t *testing.T) {
	c, srv := client(t, says(200, bundle))
	if _, err := create(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	if got, want := string(authorized(srv)[0].Body), `{"key_size":2048,"kty":"RSA-HSM","tags":{"keyroll-op":"op-1"}}`; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestReadsOnTheWire(t *testing.T) {
	for _, tt := range []struct {
		name, answer, uri string
		read              func(context.Context, *keyvault.Client) (any, error)
		want              any
	}{
		{"rotation", `{"id":"x","lifetimeActions":[{"trigger":{"timeAfterCreate":"P18M"},"action":{"type":"rotate"}}],"attributes":{"expiryTime":"P2Y"}}`,
			"/keys/k/rotationpolicy" + apiV, func(ctx context.Context, c *keyvault.Client) (any, error) { return c.RotationPolicy(ctx, "k") },
			roll.RotationPolicy{Readable: true, ExpiryTime: "P2Y", AutoRotate: true}},
		{"rotation, notify only", `{"lifetimeActions":[{"action":{"type":"Notify"}}],"attributes":{}}`,
			"/keys/k/rotationpolicy" + apiV, func(ctx context.Context, c *keyvault.Client) (any, error) { return c.RotationPolicy(ctx, "k") },
			roll.RotationPolicy{Readable: true}},
		{"newest", bundle, "/keys/k/" + apiV, func(ctx context.Context, c *keyvault.Client) (any, error) {
			v, err := c.Get(ctx, "k", "")
			return v.Version, err
		}, version},
		{"one version", bundle, "/keys/k/" + version + apiV, func(ctx context.Context, c *keyvault.Client) (any, error) {
			v, err := c.Get(ctx, "k", version)
			return v.Size, err
		}, 2048},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, srv := client(t, says(200, tt.answer))
			got, err := tt.read(t.Context(), c)
			if diff := cmp.Diff(tt.want, got); err != nil || diff != "" {
				t.Error(err, diff)
			}
			if r := authorized(srv); len(r) != 1 || r[0].Method != "GET" || r[0].URI != tt.uri {
				t.Errorf("on the wire: %+v", r)
			}
		})
	}
}

func item(v string, created int) string {
	return fmt.Sprintf(`{"kid":"https://%s/keys/K/%s","attributes":{"enabled":true,"created":%d},"tags":{"n":"%s"}}`, vaultHost, v, created, v)
}

func TestVersionsReadsAllPagesAndSorts(t *testing.T) {
	c, srv := client(t, challenged(func(w http.ResponseWriter, r *http.Request) {
		page := `{"value":[` + item("c", 300) + `,` + item("b", 100) + `],"nextLink":"https://` + vaultHost + `/keys/k/versions?$skiptoken=x"}`
		if strings.Contains(r.RequestURI, "skiptoken") {
			page = `{"value":[` + item("a", 100) + `],"nextLink":""}`
		}
		_, _ = w.Write([]byte(page))
	}))
	got, err := c.Versions(t.Context(), "k")
	var order []string
	for _, v := range got {
		order = append(order, v.Version)
	}
	if diff := cmp.Diff([]string{"a", "b", "c"}, order); err != nil || diff != "" {
		t.Error(err, diff)
	}
	if n := len(authorized(srv)); n != 2 {
		t.Errorf("%d requests", n)
	}
	c, srv = client(t, says(200, `{"value":[],"nextLink":"https://evil.example/keys"}`))
	if _, err := c.Versions(t.Context(), "k"); kindOf(err) != msapi.KindProtocol || len(authorized(srv)) != 1 {
		t.Errorf("a next page elsewhere: %v", err)
	}
}

func kindOf(err error) msapi.Kind {
	if e, ok := msapi.AsError(err); ok {
		return e.Kind
	}
	return ""
}

func TestRefusals(t *testing.T) {
	doc := func(code, inner string) string {
		return `{"error":{"code":"` + code + `","message":"said\nso","innererror":{"code":"` + inner + `"}}}`
	}
	for _, tt := range []struct {
		status  int
		body    string
		want    msapi.Error
		throttl string
	}{
		{400, doc("BadParameter", ""), msapi.Error{Kind: msapi.KindRejected, Code: "BadParameter", Message: "said so"}, ""},
		{403, doc("Forbidden", "ForbiddenByRbac"), msapi.Error{Kind: msapi.KindForbidden, Code: "Forbidden", InnerCode: "ForbiddenByRbac", Message: "said so"}, ""},
		{404, doc("KeyNotFound", ""), msapi.Error{Kind: msapi.KindNotFound, Code: "KeyNotFound", Message: "said so"}, ""},
		{409, doc("Conflict", "ObjectIsDeletedButRecoverable"), msapi.Error{Kind: msapi.KindConflict, Code: "Conflict", InnerCode: "ObjectIsDeletedButRecoverable", Message: "said so"}, ""},
		{429, doc("Throttled", ""), msapi.Error{Kind: msapi.KindThrottled, Code: "Throttled", Message: "said so", RetryAfter: 120 * time.Second}, "120"},
		{503, "<html>", msapi.Error{Kind: msapi.KindUnavailable, MaybeApplied: true}, ""},
		{201, bundle, msapi.Error{Kind: msapi.KindProtocol, MaybeApplied: true}, ""},
		{307, "", msapi.Error{Kind: msapi.KindProtocol}, ""},
	} {
		t.Run(fmt.Sprint(tt.status), func(t *testing.T) {
			c, srv := client(t, challenged(func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Retry-After", tt.throttl)
				w.Header().Set("x-ms-request-id", "ms-1")
				w.Header().Set("Location", "https://"+vaultHost+"/elsewhere")
				w.WriteHeader(tt.status)
				_, _ = w.Write([]byte(tt.body))
			}))
			_, err := create(t.Context(), c)
			tt.want.Service, tt.want.Operation, tt.want.Status, tt.want.RequestID, tt.want.ClientRequestID = "keyvault", "create_key", tt.status, "ms-1", "op-1"
			got, _ := msapi.AsError(err)
			if diff := cmp.Diff(&tt.want, got, cmpopts.IgnoreUnexported(msapi.Error{})); diff != "" {
				t.Error(diff)
			}
			if n := len(authorized(srv)); n != 1 {
				t.Errorf("%d requests on the wire, want 1", n)
			}
		})
	}
}

func TestRotationPolicyThatMayNotBeRead(t *testing.T) {
	c, _ := client(t, says(403, `{"error":{"code":"Forbidden"}}`))
	if got, err := c.RotationPolicy(t.Context(), "k"); err != nil || got.Readable {
		t.Errorf("%+v, %v", got, err)
	}
	c, _ = client(t, says(404, `{"error":{"code":"KeyNotFound"}}`))
	if _, err := c.RotationPolicy(t.Context(), "k"); kindOf(err) != msapi.KindNotFound {
		t.Error(err)
	}
}

func TestNewRefuses(t *testing.T) {
	for _, url := range []string{"http://v.vault.azure.net", "https://v.vault.azure.net/keys", "https://v.vault.azure.net:8443"} {
		if _, err := keyvault.New(url, msapitest.Token("t"), http.DefaultClient); err == nil {
			t.Errorf("%s was taken", url)
		}
	}
	if _, err := keyvault.New("https://v.vault.azure.net", nil, http.DefaultClient); err == nil {
		t.Error("no credential was taken for a credential")
	}
	c, srv := client(t, says(200, bundle))
	for _, name := range []string{"", "../x", "a/b", "a?b", "k\n"} {
		if _, err := c.Get(t.Context(), name, ""); kindOf(err) != msapi.KindRejected {
			t.Errorf("name %q: %v", name, err)
		}
	}
	if _, err := c.Create(t.Context(), "k", keyvault.CreateSpec{Kty: "RSA"}, ""); kindOf(err) != msapi.KindRejected {
		t.Errorf("a create without an operation id: %v", err)
	}
	if len(srv.Seen()) != 0 {
		t.Error("something was sent")
	}
	if _, err := keyvault.New("https://v.vault.azure.net", msapitest.NoToken{Err: errors.New("x")}, http.DefaultClient); err != nil {
		t.Error(err)
	}
}
