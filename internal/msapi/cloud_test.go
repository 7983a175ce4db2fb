package msapi_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/keyroll/keyroll/internal/msapi"
)

func cloud(t testing.TB, name string) msapi.Cloud {
	t.Helper()
	c, err := msapi.CloudByName(name)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestCloudHosts(t *testing.T) {
	got := map[string][]string{}
	for _, name := range msapi.CloudNames() {
		c := cloud(t, name)
		if c.Name != name {
			t.Errorf("cloud %q calls itself %q", name, c.Name)
		}
		if authority := c.Authority + "/"; authority != c.Azure.ActiveDirectoryAuthorityHost {
			t.Errorf("%s: authority %q, azcore has %q", name, authority, c.Azure.ActiveDirectoryAuthorityHost)
		}
		got[name] = []string{c.Authority, c.VaultSuffix, c.ExchangeURL, c.SharePointAdminSuffix, c.ResourceManager, c.TokenExchange}
	}
	want := map[string][]string{
		"public":   {"https://login.microsoftonline.com", "vault.azure.net", "https://outlook.office365.com", "-admin.sharepoint.com", "https://management.azure.com", "api://AzureADTokenExchange"},
		"gcc_high": {"https://login.microsoftonline.us", "vault.usgovcloudapi.net", "https://outlook.office365.us", "-admin.sharepoint.us", "https://management.usgovcloudapi.net", "api://AzureADTokenExchangeUSGov"},
		"dod":      {"https://login.microsoftonline.us", "vault.usgovcloudapi.net", "https://outlook-dod.office365.us", "-admin.sharepoint-mil.us", "https://management.usgovcloudapi.net", "api://AzureADTokenExchangeUSGov"},
		"china":    {"https://login.chinacloudapi.cn", "vault.azure.cn", "https://outlook.office365.cn", "-admin.sharepoint.cn", "https://management.chinacloudapi.cn", "api://AzureADTokenExchangeChina"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	for _, name := range []string{"", "Public", "germany"} {
		if _, err := msapi.CloudByName(name); err == nil || !strings.Contains(err.Error(), "gcc_high") {
			t.Errorf("cloud %q: %v", name, err)
		}
	}
}

func TestURLsBelongToTheCloud(t *testing.T) {
	public, gov := cloud(t, "public"), cloud(t, "gcc_high")
	for _, tt := range []struct {
		name, url string
		check     func(string) error
		wantErr   string // "" for none
	}{
		{"vault", "https://contoso-spo-a.vault.azure.net", public.CheckVaultURL, ""},
		{"vault, slash", "https://contoso-spo-a.vault.azure.net/", public.CheckVaultURL, ""},
		{"vault, 443", "https://Contoso.vault.azure.net:443", public.CheckVaultURL, ""},
		{"managed HSM", "https://contoso.managedhsm.azure.net", public.CheckVaultURL, ""},
		{"gov vault", "https://contoso.vault.usgovcloudapi.net", gov.CheckVaultURL, ""},
		{"vault of another cloud", "https://contoso.vault.usgovcloudapi.net", public.CheckVaultURL, `not in the cloud "public"`},
		{"http", "http://contoso.vault.azure.net", public.CheckVaultURL, "must begin with https://"},
		{"port", "https://contoso.vault.azure.net:8443", public.CheckVaultURL, "names a port"},
		{"user", "https://u:p@contoso.vault.azure.net", public.CheckVaultURL, "user name or password"},
		{"path", "https://contoso.vault.azure.net/keys", public.CheckVaultURL, "has a path"},
		{"query", "https://contoso.vault.azure.net?x=1", public.CheckVaultURL, "query or fragment"},
		{"suffix in another domain", "https://contoso.vault.azure.net.example.com", public.CheckVaultURL, "not in the cloud"},
		{"suffix without a dot", "https://evilvault.azure.net", public.CheckVaultURL, "not in the cloud"},
		{"the bare suffix", "https://vault.azure.net", public.CheckVaultURL, "not in the cloud"},
		{"two labels", "https://a.b.vault.azure.net", public.CheckVaultURL, "not in the cloud"},
		{"admin", "https://contoso-admin.sharepoint.com", public.CheckAdminURL, ""},
		{"not the admin site", "https://contoso.sharepoint.com", public.CheckAdminURL, "expected https://{tenant}-admin.sharepoint.com"},
		{"admin of another cloud", "https://contoso-admin.sharepoint.us", public.CheckAdminURL, "not in the cloud"},
		{"no tenant", "https://-admin.sharepoint.com", public.CheckAdminURL, "not in the cloud"},
		{"no host", "https://", public.CheckAdminURL, "names no host"},
		{"empty", "", public.CheckAdminURL, "must begin with https://"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			err := tt.check(tt.url)
			if tt.wantErr == "" && err != nil || tt.wantErr != "" && (err == nil || !strings.Contains(err.Error(), tt.wantErr)) {
				t.Errorf("%s: got %v, want %q", tt.url, err, tt.wantErr)
			}
			if err != nil && strings.Contains(err.Error(), "u:p") {
				t.Error("the error shows the password")
			}
		})
	}
}

func TestParseDialMap(t *testing.T) {
	got, err := msapi.ParseDialMap(" vault.azure.net=127.0.0.1:8443, Login.microsoftonline.com=[::1]:443,")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string]string{"vault.azure.net": "127.0.0.1:8443", "login.microsoftonline.com": "[::1]:443"}, got); diff != "" {
		t.Error(diff)
	}
	for in, want := range map[string]string{
		"vault.azure.net":                          "expected host-suffix=address",
		"vault.azure.net=127.0.0.1":                "expected host:port",
		"vault.azure.net=127.0.0.1:0":              "is not a port",
		"vault.azure.net=127.0.0.1:http":           "is not a port",
		"=127.0.0.1:1":                             "is not a host name",
		"a b=127.0.0.1:1":                          "is not a host name",
		"vault.azure.net=x:1, vault.azure.net=x:2": "twice",
	} {
		if _, err := msapi.ParseDialMap(in); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want %q", in, err, want)
		}
	}
}
