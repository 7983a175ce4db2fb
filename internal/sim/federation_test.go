package sim_test

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"

	"github.com/keyroll/keyroll/internal/sim"
)

const subject = "system:serviceaccount:keyroll:keyroll"

// federated gives the app a workload identity of the simulator's own issuer.
func federated(s *sim.Seed) {
	s.Apps[0].Federated = []sim.Federated{{Issuer: sim.TestIssuer, Subject: subject}}
}

func (b *bench) federatedToken() string {
	b.t.Helper()
	token, err := b.w.FederatedToken(clientID, "")
	if err != nil {
		b.t.Fatal(err)
	}
	return token
}

func TestFederatedToken(t *testing.T) {
	b := start(t, federated)
	r := b.askToken(tenantID, "client_assertion", b.federatedToken())
	if r.status != 200 {
		t.Fatalf("%d %s", r.status, r.raw)
	}
	token := r.json["access_token"].(string)
	if got := b.send(http.MethodGet, vaultA+"/keys"+apiV, "", "Authorization", "Bearer "+token).status; got != 200 {
		t.Errorf("the token at the vault: %d", got)
	}
	if r := b.askToken(tenantID); r.status != 200 {
		t.Errorf("the certificate no longer does: %s", r.raw)
	}
	if _, err := b.w.FederatedToken(clientID, "somebody"); err == nil {
		t.Error("a token for a subject that is not registered")
	}
	status, answer := b.control(http.MethodPost, "/federated-token", `{"client_id":"`+clientID+`","subject":"`+subject+`"}`)
	if token, _ := answer["token"].(string); status != 201 || strings.Count(token, ".") != 2 {
		t.Errorf("control: %d %v", status, answer)
	}
}

func TestFederatedTokenOfAnotherIssuer(t *testing.T) {
	const issuer = "https://oidc.cluster.example"
	b := start(t, func(s *sim.Seed) {
		s.Apps[0].Federated = []sim.Federated{{Issuer: issuer, Subject: "pod", Audience: "entra", Key: string(appPair().cert)}}
	})
	token := func(aud, iss, sub string) string {
		return assertion(t, "RS256", aud, func(h, c map[string]any) { c["iss"], c["sub"] = iss, sub })
	}
	expired := assertion(t, "RS256", "entra", func(_, c map[string]any) { c["iss"], c["sub"], c["nbf"], c["exp"] = issuer, "pod", 1, 2 })
	for _, tc := range []struct {
		name, token string
		number      float64
	}{
		{"right", token("entra", issuer, "pod"), 0},
		{"issuer", token("entra", "https://other.example", "pod"), 700211},
		{"subject", token("entra", issuer, "other"), 700213},
		{"audience", token("other", issuer, "pod"), 700212},
		{"signature", tamper(token("entra", issuer, "pod")), 50013},
		{"expired", expired, 700024},
	} {
		r := b.askToken(tenantID, "client_assertion", tc.token)
		codes, _ := r.json["error_codes"].([]any)
		if tc.number == 0 && r.status != 200 || tc.number != 0 && (len(codes) != 1 || codes[0] != tc.number) {
			t.Errorf("%s: %d %s", tc.name, r.status, r.raw)
		}
	}
}

func managed(s *sim.Seed) {
	s.Apps[0].ManagedIdentity = &sim.ManagedIdentity{Tenant: "contoso.com", ObjectID: "0b1f8a52-2a2c-4f7e-9d6f-1e3a3f4f5a60",
		ResourceID: "/subscriptions/s/resourceGroups/g/providers/Microsoft.ManagedIdentity/userAssignedIdentities/keyroll", SystemAssigned: true}
}

// identity asks the metadata endpoint, without a client library.
func (b *bench) identity(path, header, value string) (int, map[string]any) {
	b.t.Helper()
	req, err := http.NewRequestWithContext(b.t.Context(), http.MethodGet, b.srv.ControlURL+path, nil)
	if err != nil {
		b.t.Fatal(err)
	}
	req.Header.Set(header, value)
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		b.t.Fatal(err)
	}
	defer res.Body.Close()
	raw, _ := io.ReadAll(res.Body)
	var out map[string]any
	_ = json.Unmarshal(raw, &out)
	return res.StatusCode, out
}

func TestManagedIdentityEndpoint(t *testing.T) {
	b := start(t, managed)
	const imds, app = "/metadata/identity/oauth2/token?api-version=2018-02-01&resource=", "/msi/token?api-version=2019-08-01&resource="
	for _, tc := range []struct {
		path, header, value string
		status              int
	}{
		{imds + "https://vault.azure.net", "Metadata", "true", 200},
		{imds + "https://vault.azure.net&client_id=" + clientID, "Metadata", "true", 200},
		{imds + "https://vault.azure.net&object_id=0b1f8a52-2a2c-4f7e-9d6f-1e3a3f4f5a60", "Metadata", "true", 200},
		{imds + "https://vault.azure.net&msi_res_id=%2Fsubscriptions%2Fs%2FresourceGroups%2Fg%2Fproviders%2FMicrosoft.ManagedIdentity%2FuserAssignedIdentities%2Fkeyroll", "Metadata", "true", 200},
		{imds + "https://vault.azure.net&client_id=nobody", "Metadata", "true", 400},
		{imds + "https://vault.azure.net", "Metadata", "false", 400},
		{imds + "https://graph.example", "Metadata", "true", 400},
		{app + "https://outlook.office365.com", "X-IDENTITY-HEADER", sim.IdentityHeader, 200},
		{app + "https://outlook.office365.com", "X-IDENTITY-HEADER", "guess", 401},
	} {
		status, answer := b.identity(tc.path, tc.header, tc.value)
		if token, _ := answer["access_token"].(string); status != tc.status || (status == 200) != (token != "") {
			t.Errorf("%s: %d %v", tc.path, status, answer)
		}
	}
	// A managed identity may stand in for a federated token in another tenant.
	_, answer := b.identity(imds+"api://AzureADTokenExchange", "Metadata", "true")
	b2 := start(t, func(s *sim.Seed) {
		s.Apps[0].Federated = []sim.Federated{{Issuer: "https://login.microsoftonline.com/" + tenantID + "/v2.0", Subject: "0b1f8a52-2a2c-4f7e-9d6f-1e3a3f4f5a60"}}
		managed(s)
	})
	if r := b2.askToken(tenantID, "client_assertion", answer["access_token"].(string)); r.json["error_codes"].([]any)[0] != 50013.0 {
		t.Errorf("another world's token: %s", r.raw)
	}
	_, answer = b2.identity(imds+"api://AzureADTokenExchange", "Metadata", "true")
	if r := b2.askToken(tenantID, "client_assertion", answer["access_token"].(string)); r.status != 200 {
		t.Errorf("its own: %s", r.raw)
	}
}

// Microsoft's own credentials get their tokens here: the workload identity's
// from a token of the test issuer, the managed identity's at the fixed address
// of the metadata service and at App Service's endpoint.
func TestAzidentityReachesTheSimulator(t *testing.T) {
	b := start(t, federated, managed)
	options := azcore.ClientOptions{Transport: b.client, Retry: policy.RetryOptions{MaxRetries: -1}}
	workload, err := azidentity.NewClientAssertionCredential(tenantID, clientID,
		func(context.Context) (string, error) { return b.w.FederatedToken(clientID, subject) },
		&azidentity.ClientAssertionCredentialOptions{ClientOptions: options})
	if err != nil {
		t.Fatal(err)
	}
	imds, err := azidentity.NewManagedIdentityCredential(&azidentity.ManagedIdentityCredentialOptions{ClientOptions: options})
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("IDENTITY_ENDPOINT", b.srv.ControlURL+"/msi/token")
	t.Setenv("IDENTITY_HEADER", sim.IdentityHeader)
	site, err := azidentity.NewManagedIdentityCredential(&azidentity.ManagedIdentityCredentialOptions{ClientOptions: options, ID: azidentity.ClientID(clientID)})
	if err != nil {
		t.Fatal(err)
	}
	for name, credential := range map[string]azcore.TokenCredential{"workload identity": workload, "metadata service": imds, "App Service": site} {
		token, err := credential.GetToken(t.Context(), policy.TokenRequestOptions{Scopes: []string{vaultScope}})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if got := b.send(http.MethodGet, vaultA+"/keys"+apiV, "", "Authorization", "Bearer "+token.Token).status; got != 200 {
			t.Errorf("%s: its token at the vault: %d", name, got)
		}
	}
	if n := b.w.Requests(sim.ServiceEntra, sim.OpManagedIdentity); n != 2 {
		t.Errorf("%d requests of managed identities", n)
	}
}
