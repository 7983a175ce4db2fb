package arm

import (
	"context"
	"slices"
	"strings"

	"github.com/keyroll/keyroll/internal/msapi"
	"github.com/keyroll/keyroll/internal/roll"
)

// Versions of the documented interfaces that are used.
const (
	versionSubscriptions = "2022-12-01"
	versionKeyVault      = "2023-07-01"
	versionAuthorization = "2022-04-01"
	versionLocks         = "2020-05-01"
	versionFeatures      = "2021-07-01"
)

// Subscription is one that the identity can see.
type Subscription struct {
	ID, State, Quota string
}

// Subscriptions lists those that the identity can see: none where it has no role.
func (c *Client) Subscriptions(ctx context.Context) ([]Subscription, error) {
	type wire struct {
		SubscriptionID string `json:"subscriptionId"`
		State          string `json:"state"`
		Policies       struct {
			QuotaID string `json:"quotaId"`
		} `json:"subscriptionPolicies"`
	}
	found, err := list[wire](ctx, c, opSubscriptions, "/subscriptions", versionSubscriptions)
	if err != nil {
		return nil, err
	}
	var out []Subscription
	for _, s := range found {
		if err := segment(opSubscriptions, "/subscriptions/"+s.SubscriptionID); err != nil || strings.Contains(s.SubscriptionID, "/") {
			return nil, protocol(opSubscriptions, "a subscription has no id")
		}
		out = append(out, Subscription{ID: strings.ToLower(s.SubscriptionID), State: s.State, Quota: s.Policies.QuotaID})
	}
	return out, nil
}

// vaultWire is a vault's or a Managed HSM's document.
type vaultWire struct {
	ID       string `json:"id"`
	Location string `json:"location"`
	SKU      struct {
		Name string `json:"name"`
	} `json:"sku"`
	Properties struct {
		VaultURI string `json:"vaultUri"`
		HSMURI   string `json:"hsmUri"`
		SKU      struct {
			Name string `json:"name"`
		} `json:"sku"`
		SoftDelete      *bool  `json:"enableSoftDelete"`
		RetentionDays   *int   `json:"softDeleteRetentionInDays"`
		PurgeProtection *bool  `json:"enablePurgeProtection"`
		RBAC            *bool  `json:"enableRbacAuthorization"`
		PublicAccess    string `json:"publicNetworkAccess"`
		ACLs            *struct {
			DefaultAction string `json:"defaultAction"`
			Bypass        string `json:"bypass"`
		} `json:"networkAcls"`
		AccessPolicies []struct {
			ObjectID    string `json:"objectId"`
			Permissions struct {
				Keys []string `json:"keys"`
			} `json:"permissions"`
		} `json:"accessPolicies"`
	} `json:"properties"`
}

// Vault is a vault as it is listed. ByRoles says that roles, and not the
// access policies in Grants, say who may use its keys.
type Vault struct {
	Host    string
	ByRoles bool
	roll.VaultObservation
}

// Vaults lists the vaults and Managed HSMs of a subscription that the
// identity can see.
func (c *Client) Vaults(ctx context.Context, subscription string) ([]Vault, error) {
	at := "/subscriptions/" + subscription + "/providers/Microsoft.KeyVault/"
	vaults, err := list[vaultWire](ctx, c, opVaults, at+"vaults", versionKeyVault)
	if err != nil {
		return nil, err
	}
	hsms, err := list[vaultWire](ctx, c, opVaults, at+"managedHSMs", versionKeyVault)
	if err != nil {
		return nil, err
	}
	var out []Vault
	for _, w := range slices.Concat(vaults, hsms) {
		if err := segment(opVaults, w.ID); err != nil {
			return nil, err
		}
		out = append(out, w.vault(subscription))
	}
	return out, nil
}

func (w vaultWire) vault(subscription string) Vault {
	p := w.Properties
	v := Vault{Host: hostOf(p.VaultURI + p.HSMURI), ByRoles: p.RBAC != nil && *p.RBAC, VaultObservation: roll.VaultObservation{
		ID: w.ID, Subscription: subscription, Location: strings.ToLower(strings.ReplaceAll(w.Location, " ", "")), SKU: strings.ToLower(p.SKU.Name + w.SKU.Name),
		HSM: p.HSMURI != "", SoftDelete: p.SoftDelete, RetentionDays: p.RetentionDays, PurgeProtection: p.PurgeProtection}}
	// Azure leaves the member out where the protection was never turned on.
	if v.PurgeProtection == nil {
		v.PurgeProtection = new(false)
	}
	if p.ACLs != nil {
		v.Network = &roll.VaultNetwork{DefaultAction: p.ACLs.DefaultAction, Bypass: p.ACLs.Bypass, PublicAccess: p.PublicAccess}
	}
	switch {
	case v.HSM:
		v.GrantsTrouble = &roll.Trouble{Code: "local_roles", Detail: "a Managed HSM keeps its roles to itself: Resource Manager does not show them"}
	case !v.ByRoles:
		for _, a := range p.AccessPolicies {
			v.Grants = append(v.Grants, roll.VaultGrant{Principal: a.ObjectID, May: policyRights(a.Permissions.Keys)})
		}
	}
	return v
}

func hostOf(uri string) string {
	return strings.TrimSuffix(strings.ToLower(strings.TrimSuffix(strings.TrimPrefix(uri, "https://"), "/")), ":443")
}

// policyRights reads an access policy's permissions on keys. "all" is no part
// of the documented list any more, and still found; it leaves out purge.
func policyRights(permissions []string) []roll.KeyRight {
	var out []roll.KeyRight
	for _, r := range roll.KeyRights() {
		for _, p := range permissions {
			if strings.EqualFold(p, string(r)) || strings.EqualFold(p, "all") && r != roll.MayPurge {
				out = append(out, r)
				break
			}
		}
	}
	return out
}

// Locks lists a subscription's resource locks: what each is on, and its level.
func (c *Client) Locks(ctx context.Context, subscription string) (map[string][]string, error) {
	type wire struct {
		ID         string `json:"id"`
		Properties struct {
			Level string `json:"level"`
		} `json:"properties"`
	}
	found, err := list[wire](ctx, c, opLocks, "/subscriptions/"+subscription+"/providers/Microsoft.Authorization/locks", versionLocks)
	if err != nil {
		return nil, err
	}
	out := map[string][]string{}
	for _, l := range found {
		scope, _, _ := strings.Cut(strings.ToLower(l.ID), "/providers/microsoft.authorization/locks/")
		out[scope] = append(out[scope], l.Properties.Level)
	}
	return out, nil
}

// LocksOn are the levels of those locks that hold for a resource: on itself,
// on its resource group or on its subscription.
func LocksOn(locks map[string][]string, id string) []string {
	var out []string
	id = strings.ToLower(id)
	for scope, levels := range locks {
		if id == scope || strings.HasPrefix(id, scope+"/") {
			out = append(out, levels...)
		}
	}
	slices.Sort(out)
	return out
}

// Retention is the state of the subscription's feature that keeps it from
// being cancelled while keys are to be kept ("Registered" where it holds).
func (c *Client) Retention(ctx context.Context, subscription string) (string, error) {
	var doc struct {
		Properties struct {
			State string `json:"state"`
		} `json:"properties"`
	}
	err := c.get(ctx, opFeature, c.base+"/subscriptions/"+subscription+
		"/providers/Microsoft.Features/providers/Microsoft.Resources/features/mandatoryRetentionPeriodEnabled?api-version="+versionFeatures, &doc)
	if e, ok := msapi.AsError(err); ok && e.Kind == msapi.KindNotFound {
		return "NotRegistered", nil
	}
	return doc.Properties.State, err
}

// Pairs are the regions that Azure pairs with each region.
func (c *Client) Pairs(ctx context.Context, subscription string) (map[string][]string, error) {
	type wire struct {
		Name     string `json:"name"`
		Metadata struct {
			Paired []struct {
				Name string `json:"name"`
			} `json:"pairedRegion"`
		} `json:"metadata"`
	}
	found, err := list[wire](ctx, c, opLocations, "/subscriptions/"+subscription+"/locations", versionSubscriptions)
	if err != nil {
		return nil, err
	}
	out := map[string][]string{}
	for _, l := range found {
		for _, p := range l.Metadata.Paired {
			out[l.Name] = append(out[l.Name], p.Name)
		}
	}
	return out, nil
}
