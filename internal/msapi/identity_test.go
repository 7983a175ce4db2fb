package msapi_test

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/google/go-cmp/cmp"

	"github.com/keyroll/keyroll/internal/msapi"
	"github.com/keyroll/keyroll/internal/msapi/msapitest"
)

const imds = "169.254.169.254"

// azure is a machine in Azure: Entra and the machine's own identity endpoint.
type azure struct {
	entra *msapitest.Server
	hc    *http.Client

	mu    sync.Mutex
	asked []string // what the identity endpoint was asked for
	forms []string // grant type and assertion of the token requests
}

// newAzure starts one. answer answers the identity endpoint; nil gives a token.
func newAzure(t *testing.T, answer http.HandlerFunc) *azure {
	t.Helper()
	for _, name := range []string{"IDENTITY_ENDPOINT", "IDENTITY_HEADER", "MSI_ENDPOINT", "MSI_SECRET", "IMDS_ENDPOINT", "AZURE_FEDERATED_TOKEN_FILE"} {
		t.Setenv(name, "")
	}
	a := &azure{}
	a.entra = entra(t, func(w http.ResponseWriter, r *http.Request) {
		a.mu.Lock()
		defer a.mu.Unlock()
		tenantID, _, _ := strings.Cut(strings.Trim(r.URL.Path, "/"), "/")
		a.forms = append(a.forms, tenantID+" "+r.PostFormValue("client_id")+" "+r.PostFormValue("client_assertion"))
		_, _ = fmt.Fprintf(w, `{"token_type":"Bearer","expires_in":3599,"access_token":"of-entra-%d"}`, len(a.forms))
	})
	machine := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		a.mu.Lock()
		q := r.URL.Query()
		a.asked = append(a.asked, r.Header.Get("Metadata")+" "+q.Get("resource")+" "+q.Get("client_id")+q.Get("object_id")+q.Get("msi_res_id")+q.Get("mi_res_id"))
		a.mu.Unlock()
		if answer != nil {
			answer(w, r)
			return
		}
		_ = json.NewEncoder(w).Encode(map[string]string{"access_token": "of-machine", "expires_in": "3599", "resource": q.Get("resource"), "token_type": "Bearer"})
	}))
	t.Cleanup(machine.Close)
	dial := maps.Clone(a.entra.DialMap)
	dial[imds] = machine.Listener.Addr().String()
	var err error
	if a.hc, err = msapi.HTTPClient(dial, a.entra.CA); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(a.hc.CloseIdleConnections)
	return a
}

// token gets a token for the tenant with the one credential of the file.
func (a *azure) token(t *testing.T, entry, tenantID string) (string, error) {
	t.Helper()
	dir := t.TempDir()
	write(t, dir, "federated.jwt", []byte("aaa.bbb.ccc\n"))
	all, err := msapi.ReadCredentials(write(t, dir, "credentials.json", []byte(`{"contoso":`+entry+`}`)))
	if err != nil {
		return "", err
	}
	cred, err := all.For("contoso", tenantID, cloud(t, "public"), a.hc)
	if err != nil {
		return "", err
	}
	tk, err := cred.GetToken(t.Context(), policy.TokenRequestOptions{Scopes: []string{"https://vault.azure.net/.default"}})
	return tk.Token, err
}

func TestWorkloadIdentity(t *testing.T) {
	const other = "99999999-2222-3333-4444-555555555555"
	a := newAzure(t, nil)
	const entry = `{"kind":"workload_identity","client_id":"` + app + `","token_file":"federated.jwt"}`
	for i, id := range []string{tenant, other} {
		if got, err := a.token(t, entry, id); err != nil || got != fmt.Sprintf("of-entra-%d", i+1) {
			t.Errorf("tenant %s: %q, %v", id, got, err)
		}
	}
	want := []string{tenant + " " + app + " aaa.bbb.ccc\n", other + " " + app + " aaa.bbb.ccc\n"}
	if diff := cmp.Diff(want, a.forms); diff != "" || len(a.asked) != 0 {
		t.Error(diff, a.asked)
	}
}

func TestWorkloadIdentityOfTheEnvironment(t *testing.T) {
	a := newAzure(t, nil)
	t.Setenv("AZURE_FEDERATED_TOKEN_FILE", write(t, t.TempDir(), "token", []byte("x.y.z")))
	if got, err := a.token(t, `{"kind":"workload_identity","client_id":"`+app+`"}`, tenant); err != nil || got != "of-entra-1" {
		t.Errorf("%q, %v", got, err)
	}
	if diff := cmp.Diff([]string{tenant + " " + app + " x.y.z"}, a.forms); diff != "" {
		t.Error(diff)
	}
}

// The token of a managed identity buys one of another tenant.
func TestManagedIdentityAsAssertion(t *testing.T) {
	a := newAzure(t, nil)
	got, err := a.token(t, `{"kind":"workload_identity","client_id":"`+app+`","assertion":"managed_identity","identity_client_id":"uami"}`, tenant)
	if err != nil || got != "of-entra-1" {
		t.Errorf("%q, %v", got, err)
	}
	if diff := cmp.Diff([]string{tenant + " " + app + " of-machine"}, a.forms); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"true api://AzureADTokenExchange uami"}, a.asked); diff != "" {
		t.Error(diff)
	}
}

func TestManagedIdentity(t *testing.T) {
	for _, tt := range []struct{ name, id, asked string }{
		{"system-assigned", ``, ""},
		{"by client id", `,"client_id":"c-1"`, "c-1"},
		{"by object id", `,"object_id":"o-1"`, "o-1"},
		{"by resource id", `,"resource_id":"/subscriptions/s/r"`, "/subscriptions/s/r"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a := newAzure(t, nil)
			got, err := a.token(t, `{"kind":"managed_identity","tenant_id":"`+strings.ToUpper(tenant)+`"`+tt.id+`}`, tenant)
			if err != nil || got != "of-machine" {
				t.Errorf("%q, %v", got, err)
			}
			if diff := cmp.Diff([]string{"true https://vault.azure.net " + tt.asked}, a.asked); diff != "" || len(a.forms) != 0 {
				t.Error(diff, a.forms)
			}
		})
	}
}

func TestManagedIdentityIsOfOneTenant(t *testing.T) {
	a := newAzure(t, nil)
	_, err := a.token(t, `{"kind":"managed_identity","tenant_id":"`+app+`"}`, tenant)
	if err == nil || !strings.Contains(err.Error(), "managed identity of tenant "+app) || !strings.Contains(err.Error(), "workload_identity") {
		t.Errorf("got %v", err)
	}
	if len(a.asked)+len(a.forms) != 0 {
		t.Errorf("something was asked: %v %v", a.asked, a.forms)
	}
}

// One request each, and a failure that will pass is told from one that needs a person.
func TestManagedIdentityFailures(t *testing.T) {
	for _, tt := range []struct {
		name   string
		answer http.HandlerFunc
		kind   msapi.Kind
	}{
		{"no such identity", func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(400)
			_, _ = io.WriteString(w, `{"error":"invalid_request","error_description":"Identity not found"}`)
		}, msapi.KindToken},
		{"throttled", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(429) }, msapi.KindThrottled},
		{"being updated", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(410) }, msapi.KindUnavailable},
		{"down", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(503) }, msapi.KindUnavailable},
		{"lost", msapitest.Drop, msapi.KindUnavailable},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a := newAzure(t, tt.answer)
			// The SDK keeps the tokens of each identity for the whole process.
			_, err := a.token(t, `{"kind":"managed_identity","tenant_id":"`+tenant+`","client_id":"`+tt.name+`"}`, tenant)
			e, ok := msapi.AsError(err)
			if !ok || e.Kind != tt.kind || e.Service != msapi.ServiceEntra {
				t.Errorf("got %v", err)
			}
			a.mu.Lock() // the server's goroutine may outlive a lost answer
			defer a.mu.Unlock()
			if len(a.asked) != 1 {
				t.Errorf("%d requests, want 1", len(a.asked))
			}
		})
	}
}

func TestIdentityEntriesAreRead(t *testing.T) {
	t.Setenv("AZURE_FEDERATED_TOKEN_FILE", "")
	dir := t.TempDir()
	write(t, dir, "token", []byte("a.b.c"))
	write(t, dir, "hush", []byte("hush"))
	for _, tt := range []struct{ name, entry, want string }{
		{"workload", `{"kind":"workload_identity","client_id":"x","token_file":"token"}`, ""},
		{"workload, said", `{"kind":"workload_identity","client_id":"x","assertion":"token_file","token_file":"token"}`, ""},
		{"exchange", `{"kind":"workload_identity","client_id":"x","assertion":"managed_identity","identity_client_id":"y"}`, ""},
		{"managed", `{"kind":"managed_identity","tenant_id":"` + tenant + `"}`, ""},
		{"workload without client", `{"kind":"workload_identity","token_file":"token"}`, "client_id is missing"},
		{"no token file", `{"kind":"workload_identity","client_id":"x"}`, "token_file is missing, and the environment has no AZURE_FEDERATED_TOKEN_FILE"},
		{"token file not there", `{"kind":"workload_identity","client_id":"x","token_file":"none"}`, "reading token_file"},
		{"no token in it", `{"kind":"workload_identity","client_id":"x","token_file":"hush"}`, filepath.Join(dir, "hush") + " holds no service account token"},
		{"strange assertion", `{"kind":"workload_identity","client_id":"x","assertion":"secret"}`, `assertion "secret" is not supported`},
		{"identity without use", `{"kind":"workload_identity","client_id":"x","token_file":"token","identity_client_id":"y"}`, "identity_client_id goes with"},
		{"file without use", `{"kind":"workload_identity","client_id":"x","assertion":"managed_identity","identity_client_id":"y","token_file":"token"}`, "token_file goes with"},
		{"no identity", `{"kind":"workload_identity","client_id":"x","assertion":"managed_identity"}`, "identity_client_id is missing"},
		{"managed without tenant", `{"kind":"managed_identity"}`, "tenant_id is missing"},
		{"two identities", `{"kind":"managed_identity","tenant_id":"` + tenant + `","client_id":"a","object_id":"b"}`, "client_id and object_id both name"},
		{"member of another kind", `{"kind":"managed_identity","tenant_id":"` + tenant + `","certificate_path":"hush"}`, `kind "managed_identity" has no member "certificate_path"`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			all, err := msapi.ReadCredentials(write(t, dir, "credentials.json", []byte(`{"contoso":`+tt.entry+`}`)))
			if tt.want == "" {
				if err != nil {
					t.Fatal(err)
				}
				if _, ok := all.Expires("contoso"); ok || fmt.Sprintf("%+v", all) != "credentials(1, redacted)" {
					t.Errorf("it ends, or it prints %+v", all)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
}
