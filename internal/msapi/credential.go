package msapi

import (
	"context"
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"sync"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
)

// kindClientCertificate is the one kind of credential so far: the only one
// that is sure to be taken by all services across tenants (SharePoint refuses
// app-only tokens that a client secret bought).
const kindClientCertificate = "client_certificate"

// Credentials are the named credentials of KEYROLL_CREDENTIALS_FILE. They
// print as nothing but their count. Safe for concurrent use.
type Credentials struct {
	mu      sync.Mutex
	entries map[string]certificate
	// made holds one azidentity credential per tenant: each caches its tokens.
	made map[credentialKey]azcore.TokenCredential
}

type credentialKey struct {
	name, tenantID, cloud string
	hc                    *http.Client
}

// certificate is a credential read and checked. Its private key must not be
// printed, so it has no exported field and prints as a constant.
type certificate struct {
	clientID string
	chain    []*x509.Certificate
	key      *rsa.PrivateKey
}

// String keeps the private key out of logs, whatever the verb.
func (certificate) String() string { return "certificate(redacted)" }

// GoString is String for %#v.
func (c certificate) GoString() string { return c.String() }

// Format covers every other verb.
func (c certificate) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(c.String())) }

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

// Expires says when the named credential's certificate ends.
func (c *Credentials) Expires(name string) (time.Time, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	entry, ok := c.entries[name]
	if !ok {
		return time.Time{}, false
	}
	return entry.chain[0].NotAfter, true
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
	cred, err := azidentity.NewClientCertificateCredential(t.key.tenantID, entry.clientID, entry.chain, entry.key,
		&azidentity.ClientCertificateCredentialOptions{
			ClientOptions: azcore.ClientOptions{
				Cloud:     t.cloud.Azure,
				Transport: t.key.hc,
				Retry:     policy.RetryOptions{MaxRetries: -1},
			},
			SendCertificateChain: true,
		})
	if err != nil {
		return nil, fmt.Errorf("credential %q for tenant %s: %s", t.key.name, t.key.tenantID, Sanitize(err.Error()))
	}
	t.all.made[t.key] = cred
	return cred, nil
}

func readEntries(path string) (map[string]certificate, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("reading the credentials file: %w", err)
	}
	members, err := object(raw)
	if err != nil {
		return nil, fmt.Errorf("credentials file %s: %w", path, err)
	}
	if len(members) == 0 {
		return nil, fmt.Errorf("credentials file %s names no credential", path)
	}
	entries := make(map[string]certificate, len(members))
	for _, m := range members {
		if strings.TrimSpace(m.name) == "" {
			return nil, fmt.Errorf("credentials file %s: a credential has an empty name", path)
		}
		entry, err := readEntry(filepath.Dir(path), m.value)
		if err != nil {
			return nil, fmt.Errorf("credential %q in %s: %w", m.name, path, err)
		}
		entries[m.name] = entry
	}
	return entries, nil
}

// readEntry reads one credential. Relative paths are relative to the file
// that names them.
func readEntry(dir string, raw []byte) (certificate, error) {
	members, err := object(raw)
	if err != nil {
		return certificate{}, err
	}
	f := map[string]string{}
	for _, m := range members {
		if !slices.Contains([]string{"kind", "client_id", "certificate_path", "key_path"}, m.name) {
			return certificate{}, fmt.Errorf("unknown member %q: use kind, client_id, certificate_path, key_path", m.name)
		}
		if f[m.name], err = text(m); err != nil {
			return certificate{}, err
		}
	}
	switch {
	case f["kind"] != kindClientCertificate:
		return certificate{}, fmt.Errorf("kind %q is not supported: the supported kind is %q", f["kind"], kindClientCertificate)
	case f["client_id"] == "":
		return certificate{}, errors.New("client_id is missing: give the application (client) id of the app registration")
	case f["certificate_path"] == "":
		return certificate{}, errors.New("certificate_path is missing: give the path of a PEM file with the certificate")
	}
	return readPEM(f["client_id"], in(dir, f["certificate_path"]), in(dir, f["key_path"]))
}

func in(dir, path string) string {
	if path == "" || filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(dir, path)
}

// readPEM reads certificate and private key and sees to it that they belong together.
func readPEM(clientID, certPath, keyPath string) (certificate, error) {
	data, err := os.ReadFile(certPath)
	if err != nil {
		return certificate{}, fmt.Errorf("reading certificate_path: %w", err)
	}
	where := certPath
	if keyPath != "" {
		where += " and " + keyPath
		key, err := os.ReadFile(keyPath)
		if err != nil {
			return certificate{}, fmt.Errorf("reading key_path: %w", err)
		}
		data = append(append(data, '\n'), key...)
	}
	chain, key, err := azidentity.ParseCertificates(data, nil)
	if err != nil {
		return certificate{}, fmt.Errorf("certificate and private key cannot be read from %s: %s (both must be PEM, the key not encrypted)",
			where, Sanitize(err.Error()))
	}
	rsaKey, ok := key.(*rsa.PrivateKey)
	if !ok {
		return certificate{}, fmt.Errorf("the private key in %s is not RSA: Entra takes RSA only", where)
	}
	if !rsaKey.PublicKey.Equal(chain[0].PublicKey) {
		return certificate{}, fmt.Errorf("the private key does not belong to the first certificate in %s", certPath)
	}
	return certificate{clientID: clientID, chain: chain, key: rsaKey}, nil
}
