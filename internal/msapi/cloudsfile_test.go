package msapi_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/keyroll/keyroll/internal/msapi"
)

// ownCloud is a cloud with every host, as a file has it.
const ownCloud = `{"authority":"https://login.airgap.example","vault_suffix":"vault.core.airgap.example","hsm_suffix":"managedhsm.core.airgap.example",
"exchange_url":"https://outlook.mail.airgap.example","exchange_redirects":["mail.airgap.example"],"sharepoint_admin_suffix":"-admin.sharepoint.airgap.example",
"resource_manager":"https://management.core.airgap.example/","log_analytics_url":"https://api.loganalytics.airgap.example","portal_url":"https://portal.core.airgap.example"}`

func readClouds(t *testing.T, text string) (msapi.Clouds, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "clouds.json")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return msapi.ReadClouds(path)
}

func TestReadClouds(t *testing.T) {
	all, err := readClouds(t, `{"airgap":`+ownCloud+`}`)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"public", "gcc_high", "dod", "china", "airgap"}, all.Names()); diff != "" {
		t.Error(diff)
	}
	c, err := all.ByName("airgap")
	if err != nil {
		t.Fatal(err)
	}
	got := []string{c.Name, c.VaultScope, c.HSMScope, c.LogAnalyticsScope, c.ResourceManager, c.Azure.ActiveDirectoryAuthorityHost}
	want := []string{"airgap", "https://vault.core.airgap.example/.default", "https://managedhsm.core.airgap.example/.default",
		"https://api.loganalytics.airgap.example/.default", "https://management.core.airgap.example", "https://login.airgap.example/"}
	if diff := cmp.Diff(want, got); diff != "" || !c.Own {
		t.Error(diff, c.Own)
	}
	if err := c.CheckVaultURL("https://contoso.vault.core.airgap.example"); err != nil {
		t.Error(err)
	}
	if err := c.CheckVaultURL("https://contoso.vault.azure.net"); err == nil || !strings.Contains(err.Error(), `not in the cloud "airgap"`) {
		t.Error(err)
	}
	if public, err := all.ByName("public"); err != nil || public.Own {
		t.Errorf("the table is gone beside an own cloud: %+v, %v", public, err)
	}
	if _, err := all.ByName("other"); err == nil || !strings.Contains(err.Error(), "china, airgap") {
		t.Errorf("the error does not name the operator's own: %v", err)
	}
}

func TestKnownCloudIsReplacedOnlyOnPurpose(t *testing.T) {
	if _, err := readClouds(t, `{"public":`+ownCloud+`}`); err == nil || !strings.Contains(err.Error(), `cloud "public"`) || !strings.Contains(err.Error(), `"override": true`) {
		t.Errorf("got %v", err)
	}
	all, err := readClouds(t, `{"public":`+strings.Replace(ownCloud, "{", `{"override":true,`, 1)+`}`)
	if err != nil {
		t.Fatal(err)
	}
	if c, _ := all.ByName("public"); c.Authority != "https://login.airgap.example" {
		t.Errorf("the override did not take: %+v", c)
	}
	if diff := cmp.Diff(msapi.CloudNames(), all.Names()); diff != "" {
		t.Error(diff)
	}
}

// Every refusal names the member and the reason.
func TestCloudsFileRefused(t *testing.T) {
	without := func(member string) string { return strings.Replace(ownCloud, `"`+member+`"`, `"was_`+member+`"`, 1) }
	with := func(member string) string { return strings.Replace(ownCloud, "{", "{"+member+",", 1) }
	set := func(old, new string) string { return strings.Replace(ownCloud, old, new, 1) }
	drop := func(text string) string { return strings.Replace(ownCloud, text, "", 1) }
	for _, tt := range []struct{ name, text, want string }{
		{"no JSON", `nope`, "not JSON"},
		{"a list", `[]`, "expected a JSON object"},
		{"empty", `{}`, "names no cloud"},
		{"name", `{"Air Gap":` + ownCloud + `}`, `cloud "Air Gap": a name is`},
		{"cloud twice", `{"a":` + ownCloud + `,"a":` + ownCloud + `}`, `"a" stands twice`},
		{"member twice", `{"a":` + with(`"authority":"https://login.other.example"`) + `}`, `"authority" stands twice`},
		{"unknown member", `{"a":` + without("authority") + `}`, `unknown member "was_authority"`},
		{"other case", `{"a":` + with(`"Authority":"x"`) + `}`, `unknown member "Authority"`},
		{"missing authority", `{"a":` + drop(`"authority":"https://login.airgap.example",`) + `}`, `member "authority" is missing`},
		{"missing HSM", `{"a":` + drop(`"hsm_suffix":"managedhsm.core.airgap.example",`) + `}`, `member "hsm_suffix" is missing`},
		{"missing redirects", `{"a":` + drop(`"exchange_redirects":["mail.airgap.example"],`) + `}`, `member "exchange_redirects" is missing`},
		{"missing portal", `{"a":` + drop(`,"portal_url":"https://portal.core.airgap.example"`) + `}`, `member "portal_url" is missing`},
		{"http", `{"a":` + set("https://login", "http://login") + `}`, `member "authority": "http://login.airgap.example" must begin with https://`},
		{"path", `{"a":` + set("outlook.mail.airgap.example", "outlook.mail.airgap.example/adminapi") + `}`, `member "exchange_url"`},
		{"port", `{"a":` + set("https://login.airgap.example", "https://login.airgap.example:443") + `}`, "leave the port away"},
		{"suffix of one label", `{"a":` + set("vault.core.airgap.example", "example") + `}`, `member "vault_suffix": "example" is not a domain`},
		{"suffix with a dot", `{"a":` + set(`"vault.core`, `".vault.core`) + `}`, `member "vault_suffix"`},
		{"redirect to everybody", `{"a":` + set(`["mail.airgap.example"]`, `["example"]`) + `}`, `member "exchange_redirects"`},
		{"redirects in one string", `{"a":` + set(`["mail.airgap.example"]`, `"mail.airgap.example"`) + `}`, "must be a list"},
		{"admin suffix", `{"a":` + set("-admin.sharepoint", ".sharepoint") + `}`, `member "sharepoint_admin_suffix": ".sharepoint.airgap.example" must begin with -admin.`},
		{"number", `{"a":` + set(`"https://login.airgap.example"`, `5`) + `}`, `member "authority": "authority" must be a string`},
		{"scope", `{"a":` + with(`"vault_scope":"https://vault.example"`) + `}`, `member "vault_scope": "https://vault.example" must end in /.default`},
		{"override in words", `{"a":` + with(`"override":"yes"`) + `}`, `member "override" must be true or false`},
		{"override of nothing", `{"a":` + with(`"override":true`) + `}`, "nothing to override"},
		{"more", `{"a":` + ownCloud + `} x`, "something follows"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := readClouds(t, tt.text)
			if err == nil || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), "clouds.json") {
				t.Errorf("got %v, want %q", err, tt.want)
			}
			if diff := cmp.Diff(msapi.CloudNames(), got.Names()); diff != "" {
				t.Error(diff)
			}
		})
	}
	if _, err := msapi.ReadClouds(filepath.Join(t.TempDir(), "none")); err == nil {
		t.Error("a file that is not there was read")
	}
}

// Whatever the row, what azcore gets is what the row says.
func TestTableIsWhole(t *testing.T) {
	for _, name := range msapi.CloudNames() {
		c := cloud(t, name)
		for what, v := range map[string]string{"authority": c.Authority, "vault": c.VaultSuffix, "HSM": c.HSMSuffix, "Exchange": c.ExchangeURL,
			"SharePoint": c.SharePointAdminSuffix, "ARM": c.ResourceManager, "logs": c.LogAnalyticsURL, "portal": c.PortalURL, "logs' scope": c.LogAnalyticsScope} {
			if v == "" {
				t.Errorf("cloud %s has no %s", name, what)
			}
		}
		for what, pair := range map[string][2]string{"vault": {c.VaultScope, c.VaultSuffix}, "HSM": {c.HSMScope, c.HSMSuffix}} {
			if pair[0] != "https://"+pair[1]+"/.default" {
				t.Errorf("cloud %s: the %s's scope is %s", name, what, pair[0])
			}
		}
		if got := c.Azure.Services["resourceManager"].Endpoint; got != c.ResourceManager {
			t.Errorf("cloud %s: Resource Manager is %s, azcore has %s", name, c.ResourceManager, got)
		}
		if c.Own || !strings.HasPrefix(c.Authority, "https://") || len(c.ExchangeRedirects) == 0 {
			t.Errorf("%+v", c)
		}
	}
}
