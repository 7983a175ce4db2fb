package msapi

import (
	"context"
	"crypto/rsa"
	"crypto/x509"
	"fmt"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
)

// clientOptions are what every kind gives azidentity. Nothing is retried:
// whether to ask again, and when, is the roll's to say.
func clientOptions(cloud Cloud, hc *http.Client) azcore.ClientOptions {
	return azcore.ClientOptions{Cloud: cloud.Azure, Transport: hc, Retry: policy.RetryOptions{MaxRetries: -1}}
}

// certificate is an app registration with its certificate. Its private key
// must not be printed, so it has no exported field and prints as a constant.
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

func (c certificate) expires() (time.Time, bool) { return c.chain[0].NotAfter, true }

func (c certificate) credential(tenantID string, cloud Cloud, hc *http.Client) (azcore.TokenCredential, error) {
	return azidentity.NewClientCertificateCredential(tenantID, c.clientID, c.chain, c.key,
		&azidentity.ClientCertificateCredentialOptions{ClientOptions: clientOptions(cloud, hc), SendCertificateChain: true,
			DisableInstanceDiscovery: cloud.Own})
}

// workload is an app registration that trusts somebody else's token: the one
// that Kubernetes writes to tokenFile, or a managed identity's. No secret is
// kept; each tenant's tokens are had in exchange for it.
type workload struct {
	clientID         string
	tokenFile        string
	identityClientID string
}

func (workload) expires() (time.Time, bool) { return time.Time{}, false }

func (w workload) credential(tenantID string, cloud Cloud, hc *http.Client) (azcore.TokenCredential, error) {
	options := &azidentity.ClientAssertionCredentialOptions{ClientOptions: clientOptions(cloud, hc), DisableInstanceDiscovery: cloud.Own}
	if w.tokenFile != "" {
		// azidentity's own kind keeps the file's content for ten minutes; here a
		// token that somebody puts right is used with the next request.
		return azidentity.NewClientAssertionCredential(tenantID, w.clientID, func(context.Context) (string, error) {
			content, err := os.ReadFile(w.tokenFile)
			return string(content), err
		}, options)
	}
	mi, err := azidentity.NewManagedIdentityCredential(&azidentity.ManagedIdentityCredentialOptions{
		ClientOptions: clientOptions(cloud, hc), ID: azidentity.ClientID(w.identityClientID)})
	if err != nil {
		return nil, err
	}
	assertion := func(ctx context.Context) (string, error) {
		tk, err := mi.GetToken(ctx, policy.TokenRequestOptions{Scopes: []string{cloud.TokenExchange + "/.default"}})
		return tk.Token, err
	}
	return azidentity.NewClientAssertionCredential(tenantID, w.clientID, assertion, options)
}

// managed is a managed identity of the machine that Keyroll runs on. It lives
// in one tenant and gets tokens for that one only.
type managed struct {
	tenantID   string
	idKind, id string // both empty for the system-assigned one
}

func (managed) expires() (time.Time, bool) { return time.Time{}, false }

func (m managed) credential(tenantID string, cloud Cloud, hc *http.Client) (azcore.TokenCredential, error) {
	if !strings.EqualFold(tenantID, m.tenantID) {
		return nil, fmt.Errorf("it is a managed identity of tenant %s and gets no token for another: "+
			"use a credential of kind %q with \"assertion\": %q, or of kind %q", m.tenantID, kindWorkloadIdentity, assertionManagedIdentity, kindClientCertificate)
	}
	o := &azidentity.ManagedIdentityCredentialOptions{ClientOptions: clientOptions(cloud, hc)}
	switch m.idKind {
	case "client_id":
		o.ID = azidentity.ClientID(m.id)
	case "object_id":
		o.ID = azidentity.ObjectID(m.id)
	case "resource_id":
		o.ID = azidentity.ResourceID(m.id)
	}
	return azidentity.NewManagedIdentityCredential(o)
}

// readPEM reads certificate and private key and sees to it that they belong together.
func readPEM(clientID, certPath, keyPath string) (identity, error) {
	data, err := os.ReadFile(certPath)
	if err != nil {
		return nil, fmt.Errorf("reading certificate_path: %w", err)
	}
	where := certPath
	if keyPath != "" {
		where += " and " + keyPath
		key, err := os.ReadFile(keyPath)
		if err != nil {
			return nil, fmt.Errorf("reading key_path: %w", err)
		}
		data = append(append(data, '\n'), key...)
	}
	chain, key, err := azidentity.ParseCertificates(data, nil)
	if err != nil {
		return nil, fmt.Errorf("certificate and private key cannot be read from %s: %s (both must be PEM, the key not encrypted)",
			where, Sanitize(err.Error()))
	}
	rsaKey, ok := key.(*rsa.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("the private key in %s is not RSA: Entra takes RSA only", where)
	}
	if !rsaKey.PublicKey.Equal(chain[0].PublicKey) {
		return nil, fmt.Errorf("the private key does not belong to the first certificate in %s", certPath)
	}
	return certificate{clientID: clientID, chain: chain, key: rsaKey}, nil
}
