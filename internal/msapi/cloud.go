// Package msapi makes one authorised call to a Microsoft endpoint: the table
// of clouds, the credentials, the HTTP client, and the one error that every
// such call ends in when it fails.
//
// Nothing here retries. A second attempt is a decision about an effect that
// may have landed, and that decision belongs to the roll, not to a transport.
package msapi

import (
	"fmt"
	"slices"
	"strings"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/cloud"
)

// Cloud is one of Microsoft's clouds, or one of the operator's own: each host
// that Keyroll speaks to. The zero value is no cloud; take one from Clouds.
//
// A URL is https://host without a path, a suffix is what follows a name in a
// host, a scope is what a token is asked for.
type Cloud struct {
	Name string
	// Authority is Entra's base URL in this cloud.
	Authority string
	// TokenExchange is the audience of a managed identity's token that an app
	// registration's federated credential trusts in this cloud.
	TokenExchange string
	// VaultSuffix and HSMSuffix are what follows the name, and a dot, in the
	// host of a Key Vault and of a Managed HSM. Their scopes are those that the
	// services' own challenges name.
	VaultSuffix string
	HSMSuffix   string
	VaultScope  string
	HSMScope    string
	// ExchangeURL is the base URL of Exchange Online's admin API; its token
	// scope is the same with "/.default".
	ExchangeURL string
	// ExchangeRedirects are the domains to which Exchange may send a request
	// on. A token goes to no other host.
	ExchangeRedirects []string
	// SharePointAdminSuffix is what follows the tenant's name in the host of
	// its SharePoint admin site, such as "-admin.sharepoint.com". An admin
	// site's scope is its own URL with "/.default".
	SharePointAdminSuffix string
	// ResourceManager is the base URL of Azure Resource Manager; its scope is
	// the same with "/.default".
	ResourceManager string
	// LogAnalyticsURL answers queries of Key Vault's diagnostic log. Its scope
	// is another host's in the public cloud.
	LogAnalyticsURL   string
	LogAnalyticsScope string
	// PortalURL is where a person looks a resource up. Nothing is sent there.
	PortalURL string

	// Azure is the same knowledge in azcore's form, for azidentity and azkeys.
	Azure cloud.Configuration
	// Own says that the cloud comes from the operator's file. Entra's list of
	// known authorities, which Microsoft keeps in its public clouds, does not
	// have such a cloud and is not asked.
	Own bool
}

// The names of the clouds, as they stand in a tenant's declaration.
const (
	CloudPublic  = "public" // GCC (moderate) too: it uses the public hosts
	CloudGCCHigh = "gcc_high"
	CloudDoD     = "dod"
	CloudChina   = "china"
)

// table is every cloud that Keyroll knows by itself, and every host in each.
// Key Vault's hosts in the national clouds, and whether Customer Key's cmdlets
// exist there at all, were not verified against Microsoft: docs/clouds.md.
func table() []Cloud {
	return []Cloud{{
		Name:                  CloudPublic,
		Authority:             "https://login.microsoftonline.com",
		TokenExchange:         "api://AzureADTokenExchange",
		VaultSuffix:           "vault.azure.net",
		HSMSuffix:             "managedhsm.azure.net",
		VaultScope:            "https://vault.azure.net/.default",
		HSMScope:              "https://managedhsm.azure.net/.default",
		ExchangeURL:           "https://outlook.office365.com",
		ExchangeRedirects:     []string{"outlook.office365.com", "outlook.com"},
		SharePointAdminSuffix: "-admin.sharepoint.com",
		ResourceManager:       "https://management.azure.com",
		LogAnalyticsURL:       "https://api.loganalytics.azure.com",
		LogAnalyticsScope:     "https://api.loganalytics.io/.default",
		PortalURL:             "https://portal.azure.com",
		Azure:                 cloud.AzurePublic,
	}, {
		Name:                  CloudGCCHigh,
		Authority:             "https://login.microsoftonline.us",
		TokenExchange:         "api://AzureADTokenExchangeUSGov",
		VaultSuffix:           "vault.usgovcloudapi.net",
		HSMSuffix:             "managedhsm.usgovcloudapi.net",
		VaultScope:            "https://vault.usgovcloudapi.net/.default",
		HSMScope:              "https://managedhsm.usgovcloudapi.net/.default",
		ExchangeURL:           "https://outlook.office365.us",
		ExchangeRedirects:     []string{"office365.us"},
		SharePointAdminSuffix: "-admin.sharepoint.us",
		ResourceManager:       "https://management.usgovcloudapi.net",
		LogAnalyticsURL:       "https://api.loganalytics.us",
		LogAnalyticsScope:     "https://api.loganalytics.us/.default",
		PortalURL:             "https://portal.azure.us",
		Azure:                 cloud.AzureGovernment,
	}, {
		Name:                  CloudDoD,
		Authority:             "https://login.microsoftonline.us",
		TokenExchange:         "api://AzureADTokenExchangeUSGov",
		VaultSuffix:           "vault.usgovcloudapi.net",
		HSMSuffix:             "managedhsm.usgovcloudapi.net",
		VaultScope:            "https://vault.usgovcloudapi.net/.default",
		HSMScope:              "https://managedhsm.usgovcloudapi.net/.default",
		ExchangeURL:           "https://outlook-dod.office365.us",
		ExchangeRedirects:     []string{"office365.us"},
		SharePointAdminSuffix: "-admin.sharepoint-mil.us",
		ResourceManager:       "https://management.usgovcloudapi.net",
		LogAnalyticsURL:       "https://api.loganalytics.us",
		LogAnalyticsScope:     "https://api.loganalytics.us/.default",
		PortalURL:             "https://portal.azure.us",
		Azure:                 cloud.AzureGovernment,
	}, {
		Name:                  CloudChina,
		Authority:             "https://login.chinacloudapi.cn",
		TokenExchange:         "api://AzureADTokenExchangeChina",
		VaultSuffix:           "vault.azure.cn",
		HSMSuffix:             "managedhsm.azure.cn",
		VaultScope:            "https://vault.azure.cn/.default",
		HSMScope:              "https://managedhsm.azure.cn/.default",
		ExchangeURL:           "https://outlook.office365.cn",
		ExchangeRedirects:     []string{"outlook.office365.cn", "partner.outlook.cn"},
		SharePointAdminSuffix: "-admin.sharepoint.cn",
		ResourceManager:       "https://management.chinacloudapi.cn",
		LogAnalyticsURL:       "https://api.loganalytics.azure.cn",
		LogAnalyticsScope:     "https://api.loganalytics.azure.cn/.default",
		PortalURL:             "https://portal.azure.cn",
		Azure:                 cloud.AzureChina,
	}}
}

// Clouds are the clouds that a declaration may name: those of the table, and
// those of the operator's file (ReadClouds). The zero value is the table.
type Clouds struct{ own []Cloud }

// Names lists the clouds: the table's in its order, then the operator's.
func (cs Clouds) Names() []string {
	var names []string
	for _, c := range slices.Concat(table(), cs.own) {
		if !slices.Contains(names, c.Name) {
			names = append(names, c.Name)
		}
	}
	return names
}

// ByName finds a cloud; the operator's row stands before the table's. No name
// is a default: a declaration that forgot its cloud must not end up in the
// public one.
func (cs Clouds) ByName(name string) (Cloud, error) {
	for _, c := range slices.Concat(cs.own, table()) {
		if c.Name == name {
			return c, nil
		}
	}
	return Cloud{}, fmt.Errorf("unknown cloud %q: use one of %s", name, strings.Join(cs.Names(), ", "))
}

// CloudNames lists the clouds of the table.
func CloudNames() []string { return Clouds{}.Names() }

// CloudByName finds a cloud of the table. Where a declaration names the cloud,
// Clouds.ByName is the one to ask: it knows the operator's own too.
func CloudByName(name string) (Cloud, error) { return Clouds{}.ByName(name) }
