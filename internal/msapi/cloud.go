// Package msapi makes one authorised call to a Microsoft endpoint: the table
// of clouds, the credentials, the HTTP client, and the one error that every
// such call ends in when it fails.
//
// Nothing here retries. A second attempt is a decision about an effect that
// may have landed, and that decision belongs to the roll, not to a transport.
package msapi

import (
	"fmt"
	"net/url"
	"strings"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/cloud"
)

// Cloud is one of Microsoft's clouds: the hosts of the services that a roll
// touches. The zero value is no cloud; take one from CloudByName.
type Cloud struct {
	Name string
	// Authority is Entra's base URL in this cloud.
	Authority string
	// Azure is the same knowledge in azcore's form, for azidentity and azkeys.
	Azure cloud.Configuration
	// TokenExchange is the audience of a managed identity's token that an app
	// registration's federated credential trusts in this cloud.
	TokenExchange string
	// VaultSuffix and HSMSuffix are what follows the name in the host of a
	// Key Vault and of a Managed HSM.
	VaultSuffix string
	HSMSuffix   string
	// ExchangeURL is the base URL of Exchange Online's admin API; its token
	// scope is the same with "/.default".
	ExchangeURL string
	// ExchangeRedirects are the domains to which Exchange may send a request
	// on. A token goes to no other host.
	ExchangeRedirects []string
	// SharePointAdminSuffix is what follows the tenant's name in the host of
	// its SharePoint admin site.
	SharePointAdminSuffix string
	// ResourceManager is the base URL of Azure Resource Manager.
	ResourceManager string
}

// The names of the clouds, as they stand in a tenant's declaration.
const (
	CloudPublic  = "public" // GCC (moderate) too: it uses the public hosts
	CloudGCCHigh = "gcc_high"
	CloudDoD     = "dod"
	CloudChina   = "china"
)

// CloudNames lists the clouds that CloudByName knows.
func CloudNames() []string { return []string{CloudPublic, CloudGCCHigh, CloudDoD, CloudChina} }

// CloudByName finds a cloud. No name is a default: a declaration that forgot
// its cloud must not end up in the public one.
func CloudByName(name string) (Cloud, error) {
	switch name {
	case CloudPublic:
		return publicCloud(), nil
	case CloudGCCHigh:
		return usGovernment(CloudGCCHigh, "https://outlook.office365.us", "-admin.sharepoint.us"), nil
	case CloudDoD:
		return usGovernment(CloudDoD, "https://outlook-dod.office365.us", "-admin.sharepoint-mil.us"), nil
	case CloudChina:
		return chinaCloud(), nil
	}
	return Cloud{}, fmt.Errorf("unknown cloud %q: use one of %s", name, strings.Join(CloudNames(), ", "))
}

func publicCloud() Cloud {
	return Cloud{
		Name:                  CloudPublic,
		Authority:             "https://login.microsoftonline.com",
		Azure:                 cloud.AzurePublic,
		TokenExchange:         "api://AzureADTokenExchange",
		VaultSuffix:           "vault.azure.net",
		HSMSuffix:             "managedhsm.azure.net",
		ExchangeURL:           "https://outlook.office365.com",
		ExchangeRedirects:     []string{"outlook.office365.com", "outlook.com"},
		SharePointAdminSuffix: "-admin.sharepoint.com",
		ResourceManager:       "https://management.azure.com",
	}
}

func usGovernment(name, exchange, sharePointAdmin string) Cloud {
	return Cloud{
		Name:                  name,
		Authority:             "https://login.microsoftonline.us",
		Azure:                 cloud.AzureGovernment,
		TokenExchange:         "api://AzureADTokenExchangeUSGov",
		VaultSuffix:           "vault.usgovcloudapi.net",
		HSMSuffix:             "managedhsm.usgovcloudapi.net",
		ExchangeURL:           exchange,
		ExchangeRedirects:     []string{"office365.us"},
		SharePointAdminSuffix: sharePointAdmin,
		ResourceManager:       "https://management.usgovcloudapi.net",
	}
}

func chinaCloud() Cloud {
	return Cloud{
		Name:                  CloudChina,
		Authority:             "https://login.chinacloudapi.cn",
		Azure:                 cloud.AzureChina,
		TokenExchange:         "api://AzureADTokenExchangeChina",
		VaultSuffix:           "vault.azure.cn",
		HSMSuffix:             "managedhsm.azure.cn",
		ExchangeURL:           "https://outlook.office365.cn",
		ExchangeRedirects:     []string{"outlook.office365.cn", "partner.outlook.cn"},
		SharePointAdminSuffix: "-admin.sharepoint.cn",
		ResourceManager:       "https://management.chinacloudapi.cn",
	}
}

// ResourceManagerScope is what tokens for Azure Resource Manager are asked for.
func (c Cloud) ResourceManagerScope() string { return c.ResourceManager + "/.default" }

// CheckVaultURL says whether the URL is that of a Key Vault or Managed HSM of
// this cloud. The text of the error may be shown to the one who declared it.
func (c Cloud) CheckVaultURL(raw string) error {
	u, err := Origin(raw)
	if err != nil {
		return fmt.Errorf("vault URL: %w", err)
	}
	host := strings.ToLower(u.Hostname())
	for _, suffix := range []string{c.VaultSuffix, c.HSMSuffix} {
		if name, ok := strings.CutSuffix(host, "."+suffix); ok && isLabel(name) {
			return nil
		}
	}
	return fmt.Errorf("vault URL %q is not in the cloud %q: expected https://{vault}.%s or https://{hsm}.%s",
		raw, c.Name, c.VaultSuffix, c.HSMSuffix)
}

// CheckAdminURL says whether the URL is that of a SharePoint admin site of this cloud.
func (c Cloud) CheckAdminURL(raw string) error {
	u, err := Origin(raw)
	if err != nil {
		return fmt.Errorf("SharePoint admin URL: %w", err)
	}
	host := strings.ToLower(u.Hostname())
	if name, ok := strings.CutSuffix(host, c.SharePointAdminSuffix); ok && isLabel(name) {
		return nil
	}
	return fmt.Errorf("SharePoint admin URL %q is not in the cloud %q: expected https://{tenant}%s",
		raw, c.Name, c.SharePointAdminSuffix)
}

// Origin reads a URL that names a host and nothing more: https, port 443 at
// most, no user, no path, no query. Anything else could send a token astray.
func Origin(raw string) (*url.URL, error) {
	u, err := url.Parse(raw)
	if err != nil {
		return nil, fmt.Errorf("%q is not a URL", raw)
	}
	switch {
	case u.Scheme != "https":
		return nil, fmt.Errorf("%q must begin with https://", raw)
	case u.User != nil:
		return nil, fmt.Errorf("a URL with a user name or password in it is refused")
	case u.Hostname() == "":
		return nil, fmt.Errorf("%q names no host", raw)
	case u.Port() != "" && u.Port() != "443", strings.HasSuffix(u.Host, ":"):
		return nil, fmt.Errorf("%q names a port: only 443, which needs no mention, is allowed", raw)
	case u.Path != "" && u.Path != "/":
		return nil, fmt.Errorf("%q has a path: give only https://host", raw)
	case u.RawQuery != "" || u.ForceQuery || u.Fragment != "" || strings.HasSuffix(raw, "#"):
		return nil, fmt.Errorf("%q has a query or fragment: give only https://host", raw)
	}
	return u, nil
}

// isLabel says whether s is one label of a host name.
func isLabel(s string) bool {
	if s == "" || len(s) > 63 || s[0] == '-' || s[len(s)-1] == '-' {
		return false
	}
	for _, r := range s {
		if (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '-' {
			return false
		}
	}
	return true
}
