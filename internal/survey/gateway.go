// Package survey reads what Microsoft has for a tenant (keys with their
// versions, policies, SharePoint's status) into one roll.Observation: for
// plans, preflight, drift and the ledger. It changes nothing.
package survey

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"

	"github.com/keyroll/keyroll/internal/arm"
	"github.com/keyroll/keyroll/internal/automation"
	"github.com/keyroll/keyroll/internal/exchange"
	"github.com/keyroll/keyroll/internal/keylog"
	"github.com/keyroll/keyroll/internal/keyvault"
	"github.com/keyroll/keyroll/internal/msapi"
	"github.com/keyroll/keyroll/internal/roll"
	"github.com/keyroll/keyroll/internal/sharepoint"
)

// Gateway makes and keeps the connectors of tenants. It is safe for concurrent use.
type Gateway struct {
	creds  *msapi.Credentials
	hc     *http.Client
	opts   []msapi.Option
	clouds msapi.Clouds

	mu       sync.Mutex
	vaults   map[string]*keyvault.Client
	geos     map[string]*sharepoint.Client
	exos     map[string]*exchange.Client
	arms     map[string]*arm.Client
	accounts map[string]*automation.Client
	logs     map[string]*keylog.Client
}

// NewGateway makes a gateway over the credentials and the HTTP client that all
// connectors use.
func NewGateway(creds *msapi.Credentials, hc *http.Client, opts ...msapi.Option) *Gateway {
	return &Gateway{creds: creds, hc: hc, opts: opts, clouds: msapi.NewOptions(opts...).Clouds, vaults: map[string]*keyvault.Client{},
		geos: map[string]*sharepoint.Client{}, exos: map[string]*exchange.Client{}, arms: map[string]*arm.Client{}, logs: map[string]*keylog.Client{}, accounts: map[string]*automation.Client{}}
}

// Cloud gives the cloud that the declaration names: one of the table, or one
// of the operator's own.
func (g *Gateway) Cloud(inv roll.Inventory) (msapi.Cloud, error) { return g.clouds.ByName(inv.Cloud) }

// Grantee says who is granted to in the tenant, and in which cloud.
func (g *Gateway) Grantee(inv roll.Inventory) roll.Grantee {
	out := roll.Grantee{ClientID: g.creds.ClientID(inv.Credential)}
	if out.ClientID == "" {
		out.ObjectID, out.ResourceID = g.creds.IdentityIDs(inv.Credential)
	}
	cloud, err := g.clouds.ByName(inv.Cloud)
	if err != nil {
		return out
	}
	out.Authority, out.HSMSuffix = cloud.Authority, cloud.HSMSuffix
	switch cloud.Name {
	case msapi.CloudPublic:
		out.AzureCloud, out.ExchangeEnvironment = "AzureCloud", "O365Default"
	case msapi.CloudGCCHigh:
		out.AzureCloud, out.ExchangeEnvironment = "AzureUSGovernment", "O365USGovGCCHigh"
	case msapi.CloudDoD:
		out.AzureCloud, out.ExchangeEnvironment = "AzureUSGovernment", "O365USGovDoD"
	case msapi.CloudChina:
		out.AzureCloud, out.ExchangeEnvironment = "AzureChinaCloud", "O365China"
	default: // an operator's own: the names that its owner gave it
		out.AzureCloud, out.ExchangeEnvironment = cloud.Name, cloud.Name
	}
	return out
}

func (g *Gateway) credential(inv roll.Inventory) (msapi.Cloud, azcore.TokenCredential, error) {
	cloud, err := g.clouds.ByName(inv.Cloud)
	if err != nil {
		return msapi.Cloud{}, nil, err
	}
	cred, err := g.creds.For(inv.Credential, inv.TenantID, cloud, g.hc)
	if err != nil {
		return msapi.Cloud{}, nil, fmt.Errorf("credential %q of tenant %s: %w", inv.Credential, inv.TenantID, err)
	}
	return cloud, cred, nil
}

// keep returns the client under id, made once. A client belongs to a tenant,
// a cloud and a credential by name; the credential's content may be reloaded.
func keep[T any](g *Gateway, m map[string]T, id string, make func() (T, error)) (T, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if c, ok := m[id]; ok {
		return c, nil
	}
	c, err := make()
	if err == nil {
		m[id] = c
	}
	return c, err
}

func clientID(inv roll.Inventory, what string) string {
	return inv.TenantID + " " + inv.Cloud + " " + inv.Credential + " " + what
}

// Vault gives the connector of a key's vault.
func (g *Gateway) Vault(inv roll.Inventory, k roll.Key) (*keyvault.Client, error) {
	return keep(g, g.vaults, clientID(inv, k.Ref().Host), func() (*keyvault.Client, error) {
		cloud, cred, err := g.credential(inv)
		if err != nil {
			return nil, err
		}
		if err := cloud.CheckVaultURL(k.VaultURL); err != nil {
			return nil, err
		}
		return keyvault.New(k.VaultURL, cred, g.hc, g.opts...)
	})
}

// managedHSM says whether the key is in a Managed HSM of the tenant's cloud.
func (g *Gateway) managedHSM(inv roll.Inventory, k roll.Key) bool {
	cloud, err := g.clouds.ByName(inv.Cloud)
	return err == nil && cloud.IsManagedHSM(k.Ref().Host)
}

// Exchange gives the connector of the tenant's Exchange Online.
func (g *Gateway) Exchange(inv roll.Inventory) (*exchange.Client, error) {
	return keep(g, g.exos, clientID(inv, "exchange"), func() (*exchange.Client, error) {
		cloud, cred, err := g.credential(inv)
		if err != nil {
			return nil, err
		}
		return exchange.New(cloud, inv.TenantID, cred, g.hc, g.opts...), nil
	})
}

// Uses asks the diagnostic log of the tenant's vaults who used the key versions
// since the moment; an error where none is declared.
func (g *Gateway) Uses(ctx context.Context, inv roll.Inventory, refs []roll.KeyRef, since time.Time) ([]roll.KeyUse, error) {
	if inv.Diagnostics == nil {
		return nil, msapi.Invalid(msapi.ServiceLogs, "query_key_uses", "the tenant declares no diagnostics")
	}
	c, err := keep(g, g.logs, clientID(inv, inv.Diagnostics.WorkspaceID), func() (*keylog.Client, error) {
		cloud, cred, err := g.credential(inv)
		if err != nil {
			return nil, err
		}
		return keylog.New(cloud, inv.Diagnostics.WorkspaceID, cred, g.hc, g.opts...)
	})
	if err != nil {
		return nil, err
	}
	return c.Uses(ctx, refs, since)
}

// SharePoint gives the connector of a geo's admin site.
func (g *Gateway) SharePoint(inv roll.Inventory, geoID string) (*sharepoint.Client, error) {
	geo, ok := inv.GeoByID(geoID)
	if !ok {
		return nil, fmt.Errorf("geo %q is not declared", geoID)
	}
	return keep(g, g.geos, clientID(inv, geo.AdminURL), func() (*sharepoint.Client, error) {
		cloud, cred, err := g.credential(inv)
		if err != nil {
			return nil, err
		}
		return sharepoint.New(cloud, geo.AdminURL, cred, g.hc, g.opts...)
	})
}

// Check says which member of a declaration cannot be right for its cloud and
// credential; *roll.InvalidError.
func (g *Gateway) Check(inv roll.Inventory) error {
	cloud, err := g.clouds.ByName(inv.Cloud)
	if err != nil {
		return &roll.InvalidError{Pointer: "/cloud", Detail: err.Error()}
	}
	for i, k := range inv.Keys {
		if err := cloud.CheckVaultURL(k.VaultURL); err != nil {
			return &roll.InvalidError{Pointer: fmt.Sprintf("/keys/%d/vault_url", i), Detail: err.Error()}
		}
	}
	for i, geo := range inv.SharePoint.Geos {
		if err := cloud.CheckAdminURL(geo.AdminURL); err != nil {
			return &roll.InvalidError{Pointer: fmt.Sprintf("/sharepoint/geos/%d/admin_url", i), Detail: err.Error()}
		}
	}
	if d := inv.Diagnostics; d != nil {
		if err := keylog.CheckWorkspace(d.WorkspaceID); err != nil {
			return &roll.InvalidError{Pointer: "/diagnostics/workspace_id", Detail: err.Error()}
		}
		if cloud.LogAnalyticsURL == "" {
			return &roll.InvalidError{Pointer: "/diagnostics", Detail: "cloud " + cloud.Name + " has no host for Log Analytics"}
		}
	}
	if inv.Automation != nil {
		if err := automation.CheckAccount(inv.Automation.Account); err != nil {
			return &roll.InvalidError{Pointer: "/automation/account", Detail: err.Error()}
		}
	}
	if _, err := g.creds.For(inv.Credential, inv.TenantID, cloud, g.hc); err != nil {
		return &roll.InvalidError{Pointer: "/credential", Detail: err.Error()}
	}
	return nil
}
