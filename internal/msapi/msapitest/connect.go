package msapitest

import (
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"testing"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"

	"github.com/keyroll/keyroll/internal/msapi"
)

// App is an application registration with its certificate and key, in PEM.
type App struct {
	ClientID  string
	Cert, Key []byte
}

// Connect goes the whole way that production goes: a credentials file, a dial
// map and an extra CA become a client and a credential for the tenant.
func Connect(t testing.TB, dialMap string, ca []byte, app App, tenantID string, cloud msapi.Cloud) (azcore.TokenCredential, *http.Client) {
	t.Helper()
	dir := t.TempDir()
	file, err := json.Marshal(map[string]any{"test": map[string]string{
		"kind": "client_certificate", "client_id": app.ClientID, "certificate_path": "cert.pem", "key_path": "key.pem"}})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "credentials.json")
	for name, data := range map[string][]byte{path: file, filepath.Join(dir, "cert.pem"): app.Cert, filepath.Join(dir, "key.pem"): app.Key} {
		if err := os.WriteFile(name, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	dial, err := msapi.ParseDialMap(dialMap)
	if err != nil {
		t.Fatal(err)
	}
	hc, err := msapi.HTTPClient(dial, ca)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(hc.CloseIdleConnections)
	all, err := msapi.ReadCredentials(path)
	if err != nil {
		t.Fatal(err)
	}
	cred, err := all.For("test", tenantID, cloud, hc)
	if err != nil {
		t.Fatal(err)
	}
	return cred, hc
}
