package msapi

import (
	"context"
	"fmt"
	"net/http"
	"sort"
	"sync"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
)

// Credentials are the named credentials of KEYROLL_CREDENTIALS_FILE. They
// print as nothing but their count. Safe for concurrent use.
type Credentials struct {
	mu      sync.Mutex
	entries map[string]identity
	// made holds one azidentity credential per tenant: each caches its tokens.
	made map[credentialKey]azcore.TokenCredential
}

type credentialKey struct {
	name, tenantID, cloud string
	hc                    *http.Client
}

// identity is one entry of the credentials file, read and checked. Each kind
// is one type. What it holds must not be printed.
type identity interface {
	// credential makes an azidentity credential that gets tokens of the tenant.
	// Its error says in words why this identity cannot.
	credential(tenantID string, cloud Cloud, hc *http.Client) (azcore.TokenCredential, error)
	// expires says when the identity itself ends; ok is false where it does not
	// or where only Microsoft knows.
	expires() (at time.Time, ok bool)
}

// String says how many credentials there are, and nothing else.
func (c *Credentials) String() string {
	return fmt.Sprintf("credentials(%d, redacted)", len(c.Names()))
}

// GoString is String for %#v.
func (c *Credentials) GoString() string { return c.String() }

// Format covers every other verb.
func (c *Credentials) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(c.String())) }

// MarshalText covers encoders, slog's among them.
func (c *Credentials) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

// ReadCredentials reads the file and everything it points to, so that a
// mistake shows at start and not at the first roll.
func ReadCredentials(path string) (*Credentials, error) {
	entries, err := readEntries(path)
	if err != nil {
		return nil, err
	}
	return &Credentials{entries: entries, made: map[credentialKey]azcore.TokenCredential{}}, nil
}

// Reload reads the file again. On error everything stays as it was.
// Credentials handed out by For change with it.
func (c *Credentials) Reload(path string) error {
	entries, err := readEntries(path)
	if err != nil {
		return fmt.Errorf("reloading credentials, the old ones stay in use: %w", err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.entries, c.made = entries, map[credentialKey]azcore.TokenCredential{}
	return nil
}

// Names lists the credentials, sorted.
func (c *Credentials) Names() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	names := make([]string, 0, len(c.entries))
	for name := range c.entries {
		names = append(names, name)
	}
	sort.Strings(names)
	return names
}

// Expires says when the named credential ends: its certificate's last day. ok
// is false for the kinds that hold nothing which could end.
func (c *Credentials) Expires(name string) (time.Time, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	entry, ok := c.entries[name]
	if !ok {
		return time.Time{}, false
	}
	return entry.expires()
}

// ClientID is the application id of the named credential's app registration:
// what a tenant grants to. "" where only the host knows it (a managed identity
// without a client id), or where there is no such credential.
func (c *Credentials) ClientID(name string) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch id := c.entries[name].(type) {
	case certificate:
		return id.clientID
	case workload:
		return id.clientID
	case managed:
		if id.idKind == "client_id" {
			return id.id
		}
	}
	return ""
}

// IdentityIDs are the object id and the Azure resource id by which the file
// names a managed identity; both are "" where it names it by neither.
func (c *Credentials) IdentityIDs(name string) (objectID, resourceID string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch id, _ := c.entries[name].(managed); id.idKind {
	case "object_id":
		return id.id, ""
	case "resource_id":
		return "", id.id
	}
	return "", ""
}

// For gives the named credential for one tenant. It goes on working across
// Reload, and its failures are *Error with service "entra".
func (c *Credentials) For(name, tenantID string, cloud Cloud, hc *http.Client) (azcore.TokenCredential, error) {
	t := &tenantCredential{all: c, key: credentialKey{name, tenantID, cloud.Name, hc}, cloud: cloud}
	if _, err := t.current(); err != nil {
		return nil, err
	}
	return t, nil
}

// tenantCredential looks its credential up at each use, so that connectors
// which hold it need not be rebuilt on Reload.
type tenantCredential struct {
	all   *Credentials
	key   credentialKey
	cloud Cloud
}

func (t *tenantCredential) String() string { return "credential(" + t.key.name + ", redacted)" }

// GetToken implements azcore.TokenCredential.
func (t *tenantCredential) GetToken(ctx context.Context, opts policy.TokenRequestOptions) (azcore.AccessToken, error) {
	cred, err := t.current()
	if err != nil {
		return azcore.AccessToken{}, TokenError(err, "get_token", time.Now())
	}
	return acquire(ctx, cred, opts)
}

// Refused is told when a service answered 401 to a token of this credential:
// it may have been revoked long before its end, and the cache would give it
// again. The next token is got anew.
func (t *tenantCredential) Refused() {
	t.all.mu.Lock()
	defer t.all.mu.Unlock()
	delete(t.all.made, t.key)
}

func (t *tenantCredential) current() (azcore.TokenCredential, error) {
	t.all.mu.Lock()
	defer t.all.mu.Unlock()
	if cred, ok := t.all.made[t.key]; ok {
		return cred, nil
	}
	entry, ok := t.all.entries[t.key.name]
	if !ok {
		return nil, fmt.Errorf("no credential is called %q: add it to the credentials file", t.key.name)
	}
	cred, err := entry.credential(t.key.tenantID, t.cloud, t.key.hc)
	if err != nil {
		return nil, fmt.Errorf("credential %q for tenant %s: %s", t.key.name, t.key.tenantID, Sanitize(err.Error()))
	}
	t.all.made[t.key] = cred
	return cred, nil
}
