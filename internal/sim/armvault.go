package sim

import (
	"crypto/sha256"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"
)

// VaultAzure is a vault as Azure Resource Manager shows it. Left-out members
// are those of a vault set up as Microsoft asks.
type VaultAzure struct {
	// Subscription is one of the tenant's; left out, the first for every other vault.
	Subscription string `json:"subscription,omitempty"`
	// Location is eastus or westeurope in turns where left out.
	Location string `json:"location,omitempty"`
	// SKU is premium where left out.
	SKU string `json:"sku,omitempty"`
	// SoftDeleteOff: the vault has no soft delete.
	SoftDeleteOff bool `json:"soft_delete_off,omitempty"`
	// RetentionDays is 90 where left out.
	RetentionDays int `json:"retention_days,omitempty"`
	// PurgeUnprotected: the vault has no purge protection.
	PurgeUnprotected bool `json:"purge_unprotected,omitempty"`
	// AccessPolicies says that the vault goes by access policies, not by roles.
	AccessPolicies bool `json:"access_policies,omitempty"`
	// DefaultAction is that of the vault's firewall: Allow where left out.
	DefaultAction string `json:"default_action,omitempty"`
	// Bypass is whom the firewall lets through: AzureServices where left out.
	Bypass string `json:"bypass,omitempty"`
	// PublicNetworkAccess is Enabled where left out.
	PublicNetworkAccess string `json:"public_network_access,omitempty"`
	// Unlocked: there is no CanNotDelete lock.
	Unlocked bool `json:"unlocked,omitempty"`
	// Invisible: the app's Reader does not reach it.
	Invisible bool `json:"invisible,omitempty"`
	// Denied are first-party services without rights on the keys, by their app id.
	Denied []string `json:"denied,omitempty"`
	// Group has the rights of the services, and of Keyroll where it has none
	// of its own: who is in a group, Resource Manager does not show.
	Group string `json:"group,omitempty"`
	// Owners are object ids of people who may do everything with the vault.
	Owners []string `json:"owners,omitempty"`
	// Officer: Keyroll's app has the role Key Vault Crypto Officer, delete and
	// purge included, where it has a role of its own otherwise.
	Officer bool `json:"officer,omitempty"`
}

// SubscriptionAzure is a subscription as Resource Manager shows it.
type SubscriptionAzure struct {
	State     string `json:"state,omitempty"`     // Enabled
	Quota     string `json:"quota,omitempty"`     // EnterpriseAgreement_2014-09-01
	Retention string `json:"retention,omitempty"` // Registered, the mandatory retention period
}

// The app ids of Microsoft 365's own services that wrap with a tenant's keys.
const (
	ExchangeAppID      = "00000002-0000-0ff1-ce00-000000000000"
	SharePointAppID    = "00000003-0000-0ff1-ce00-000000000000"
	MultiWorkloadAppID = "c066d759-24ae-40e7-a56f-027002b5d3e4"
)

// ObjectID is the object id of an app's service principal in a tenant.
func ObjectID(tenantID, appID string) string {
	return derivedGUID("principal", strings.ToLower(tenantID), strings.ToLower(appID))
}

func derivedGUID(parts ...string) string {
	s := sha256.Sum256([]byte(strings.Join(parts, "/")))
	s[6], s[8] = s[6]&0x0f|0x40, s[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", s[0:4], s[4:6], s[6:8], s[8:10], s[10:16])
}

// defaultSubscriptions are those of a tenant whose seed names none: two, as
// Customer Key asks.
func defaultSubscriptions(t *tenant) []string {
	return []string{derivedGUID("subscription", t.id, "1"), derivedGUID("subscription", t.id, "2")}
}

// SetVaultAzure changes what Resource Manager shows of a vault.
func (w *World) SetVaultAzure(name string, change func(*VaultAzure)) error {
	w.lock()
	defer w.mu.Unlock()
	v := w.vaultOf(name)
	if v == nil {
		return fmt.Errorf("vault %q: %w", name, ErrUnknown)
	}
	change(&v.azure)
	return nil
}

// SetSubscriptions changes what Resource Manager shows of all a tenant's subscriptions.
func (w *World) SetSubscriptions(tenantID string, s SubscriptionAzure) error {
	w.lock()
	defer w.mu.Unlock()
	t := w.tenantOf(tenantID)
	if t == nil {
		return fmt.Errorf("tenant %q: %w", tenantID, ErrUnknown)
	}
	t.azure = s
	return nil
}

// place is where the vault stands among its tenant's.
func (v *vault) place() int { return slices.Index(v.tenant.vaults, v) }

func (v *vault) subscription() string {
	subs := v.tenant.subscriptions
	if v.azure.Subscription != "" || len(subs) == 0 {
		return v.azure.Subscription
	}
	return subs[v.place()%len(subs)]
}

func (v *vault) resourceID() string {
	kind := "vaults"
	if v.hsm {
		kind = "managedHSMs"
	}
	return "/subscriptions/" + v.subscription() + "/resourceGroups/customer-key/providers/Microsoft.KeyVault/" + kind + "/" + v.name
}

// The operations on vaults and what stands around them.
const (
	OpListVaults         = "list_vaults"
	OpListHSMs           = "list_managed_hsms"
	OpListAssignments    = "list_role_assignments"
	OpGetRoleDefinition  = "get_role_definition"
	OpListLocks          = "list_locks"
	OpGetFeature         = "get_feature"
	OpListLocations      = "list_locations"
	armVaultPage         = 2 // vaults on one page
	roleEncryptionUser   = "e147488a-f6f5-4113-8e2d-b22465e65bf6"
	roleCryptoOfficer    = "14b46e9e-c2b7-41b4-b07b-48a6ebf60603"
	roleOwner            = "8e3af657-a8ff-443c-a75c-2fe8c4bcb635"
	roleKeyroll          = "5b0c7c1a-2f0d-4c59-9d0e-0f6a3b1e7a01" // a custom role: read and create
	mandatoryRetention   = "mandatoryRetentionPeriodEnabled"
	armSubscriptionScope = "/subscriptions/{sub}"
	armVaultScope        = armSubscriptionScope + "/resourceGroups/{group}/providers/Microsoft.KeyVault/{kind}/{vault}"
)

// armVaultRoutes are the reads of Key Vault's provider and of those around it.
func armVaultRoutes() []armRoute {
	get := func(op, pattern string, do func(w *World, r *armRequest) answer) armRoute {
		return armRoute{op: op, method: http.MethodGet, pattern: pattern, do: func(w *World, r *armRequest, _ *call, _ time.Time) answer { return do(w, r) }}
	}
	return []armRoute{
		get(OpListVaults, armSubscriptionScope+"/providers/Microsoft.KeyVault/vaults", func(w *World, r *armRequest) answer { return r.vaults(false) }),
		get(OpListHSMs, armSubscriptionScope+"/providers/Microsoft.KeyVault/managedHSMs", func(w *World, r *armRequest) answer { return r.vaults(true) }),
		get(OpListAssignments, armVaultScope+"/providers/Microsoft.Authorization/roleAssignments", (*World).armAssignments),
		get(OpGetRoleDefinition, armSubscriptionScope+"/providers/Microsoft.Authorization/roleDefinitions/{role}", armRoleDefinition),
		get(OpListLocks, armSubscriptionScope+"/providers/Microsoft.Authorization/locks", armLocks),
		get(OpGetFeature, armSubscriptionScope+"/providers/Microsoft.Features/providers/{provider}/features/{feature}", armFeature),
		get(OpListLocations, armSubscriptionScope+"/locations", armLocations),
	}
}

// vaults lists a subscription's, a few on a page, so that clients turn pages.
func (r *armRequest) vaults(hsm bool) answer {
	var all []map[string]any
	for _, v := range r.tenant.vaults {
		if v.hsm == hsm && !v.azure.Invisible && strings.EqualFold(v.subscription(), r.path["sub"]) {
			all = append(all, v.document(r.app))
		}
	}
	var skip int
	_, _ = fmt.Sscan(r.query.Get("$skiptoken"), &skip)
	page := all[min(skip, len(all)):min(skip+armVaultPage, len(all))]
	out := map[string]any{"value": append([]map[string]any{}, page...)}
	if skip+armVaultPage < len(all) {
		kind := map[bool]string{false: "vaults", true: "managedHSMs"}[hsm]
		out["nextLink"] = fmt.Sprintf("https://%s/subscriptions/%s/providers/Microsoft.KeyVault/%s?api-version=%s&$skiptoken=%d",
			r.tenant.cloud.arm, r.path["sub"], kind, r.query.Get("api-version"), skip+armVaultPage)
	}
	return jsonAnswer(http.StatusOK, out)
}

// document is the vault's resource document.
func (v *vault) document(a *app) map[string]any {
	z := v.azure
	properties := map[string]any{
		"tenantId": v.tenant.id, "enableSoftDelete": !z.SoftDeleteOff, "softDeleteRetentionInDays": or(z.RetentionDays, 90),
		"publicNetworkAccess": or(z.PublicNetworkAccess, "Enabled"),
		"networkAcls":         map[string]any{"defaultAction": or(z.DefaultAction, "Allow"), "bypass": or(z.Bypass, "AzureServices"), "ipRules": []any{}},
	}
	if !z.PurgeUnprotected { // Azure shows the member only where it is on
		properties["enablePurgeProtection"] = true
	}
	doc := map[string]any{"id": v.resourceID(), "name": v.name, "location": or(z.Location, []string{"eastus", "westeurope"}[v.place()%2]), "properties": properties}
	if v.hsm {
		properties["hsmUri"], doc["sku"] = "https://"+v.host+"/", map[string]any{"family": "B", "name": "Standard_B1"}
		return doc
	}
	properties["vaultUri"], properties["sku"] = "https://"+v.host+"/", map[string]any{"family": "A", "name": or(z.SKU, "premium")}
	properties["enableRbacAuthorization"], properties["accessPolicies"] = !z.AccessPolicies, []any{}
	if z.AccessPolicies {
		var list []any
		for _, h := range v.holders(a) {
			list = append(list, map[string]any{"tenantId": v.tenant.id, "objectId": h.principal, "permissions": map[string]any{"keys": h.permissions}})
		}
		properties["accessPolicies"] = list
	}
	return doc
}

// holder is who may do what with the vault's keys.
type holder struct {
	principal, kind, role string
	permissions           []string
}

func (v *vault) holders(a *app) []holder {
	var out []holder
	for _, id := range []string{ExchangeAppID, SharePointAppID, MultiWorkloadAppID} {
		if !v.serviceDenied && !slices.Contains(v.azure.Denied, id) {
			out = append(out, holder{ObjectID(v.tenant.id, id), "ServicePrincipal", roleEncryptionUser, []string{"get", "wrapKey", "unwrapKey"}})
		}
	}
	if v.azure.Group != "" {
		out = append(out, holder{v.azure.Group, "Group", roleEncryptionUser, []string{"get", "wrapKey", "unwrapKey"}})
	}
	if a.mayUse(v) {
		h := holder{ObjectID(v.tenant.id, a.clientID), "ServicePrincipal", roleKeyroll, []string{"get", "list", "create"}}
		if v.azure.Officer {
			h.role, h.permissions = roleCryptoOfficer, []string{"all"}
		}
		out = append(out, h)
	}
	for _, id := range v.azure.Owners {
		out = append(out, holder{id, "User", roleOwner, []string{"all"}})
	}
	return out
}

func (w *World) armAssignments(r *armRequest) answer {
	for _, v := range r.tenant.vaults {
		if !strings.EqualFold(v.name, r.path["vault"]) || v.azure.Invisible {
			continue
		}
		value := []map[string]any{}
		for _, h := range v.holders(r.app) {
			if v.azure.AccessPolicies && h.kind != "User" || v.hsm {
				continue
			}
			sub := "/subscriptions/" + v.subscription()
			value = append(value, map[string]any{"id": v.resourceID() + "/providers/Microsoft.Authorization/roleAssignments/" + derivedGUID(v.name, h.principal),
				"properties": map[string]any{"principalId": h.principal, "principalType": h.kind, "scope": sub,
					"roleDefinitionId": sub + "/providers/Microsoft.Authorization/roleDefinitions/" + h.role}})
		}
		return jsonAnswer(http.StatusOK, map[string]any{"value": value})
	}
	return armError(http.StatusNotFound, "ResourceNotFound", "The Resource '"+r.path["vault"]+"' was not found.")
}

func armRoleDefinition(_ *World, r *armRequest) answer {
	actions, data := []string{}, []string{}
	switch r.path["role"] {
	case roleEncryptionUser:
		data = []string{"Microsoft.KeyVault/vaults/keys/read", "Microsoft.KeyVault/vaults/keys/wrap/action", "Microsoft.KeyVault/vaults/keys/unwrap/action"}
	case roleCryptoOfficer:
		data = []string{"Microsoft.KeyVault/vaults/keys/*", "Microsoft.KeyVault/vaults/keyrotationpolicies/*"}
	case roleKeyroll:
		data = []string{"Microsoft.KeyVault/vaults/keys/read", "Microsoft.KeyVault/vaults/keys/create/action", "Microsoft.KeyVault/vaults/keyrotationpolicies/read"}
	case roleOwner:
		actions = []string{"*"}
	default:
		return armError(http.StatusNotFound, "RoleDefinitionDoesNotExist", "The specified role definition with ID '"+r.path["role"]+"' does not exist.")
	}
	return jsonAnswer(http.StatusOK, map[string]any{"name": r.path["role"], "properties": map[string]any{
		"permissions": []any{map[string]any{"actions": actions, "notActions": []string{}, "dataActions": data, "notDataActions": []string{}}}}})
}

func armLocks(_ *World, r *armRequest) answer {
	value := []map[string]any{}
	for _, v := range r.tenant.vaults {
		if !v.azure.Unlocked && strings.EqualFold(v.subscription(), r.path["sub"]) {
			value = append(value, map[string]any{"id": v.resourceID() + "/providers/Microsoft.Authorization/locks/keep", "name": "keep",
				"properties": map[string]any{"level": "CanNotDelete"}})
		}
	}
	return jsonAnswer(http.StatusOK, map[string]any{"value": value})
}

func armFeature(_ *World, r *armRequest) answer {
	state := "NotRegistered"
	if strings.EqualFold(r.path["feature"], mandatoryRetention) {
		state = or(r.tenant.azure.Retention, "Registered")
	}
	return jsonAnswer(http.StatusOK, map[string]any{"name": r.path["provider"] + "/" + r.path["feature"], "properties": map[string]any{"state": state}})
}

// armLocations shows a few regions and the one that each is paired with.
func armLocations(*World, *armRequest) answer {
	value := []map[string]any{}
	for name, pair := range map[string]string{"eastus": "westus", "westus": "eastus", "westeurope": "northeurope", "northeurope": "westeurope"} {
		value = append(value, map[string]any{"name": name, "metadata": map[string]any{"pairedRegion": []any{map[string]any{"name": pair}}}})
	}
	return jsonAnswer(http.StatusOK, map[string]any{"value": value})
}
