package roll

import (
	"slices"
	"strings"
)

// VaultObservation is a vault as Azure Resource Manager shows it to an
// identity with Reader. Every member may be unknown: nil, empty, or with a
// Trouble that says why.
type VaultObservation struct {
	// Trouble: nothing could be read of the vault there.
	Trouble      *Trouble `json:"trouble,omitempty"`
	ID           string   `json:"id,omitempty"`
	Subscription string   `json:"subscription,omitempty"`
	Location     string   `json:"location,omitempty"`
	// Paired are the regions that Azure pairs with Location.
	Paired          []string `json:"paired,omitempty"`
	SKU             string   `json:"sku,omitempty"`
	HSM             bool     `json:"hsm,omitempty"` // a Managed HSM
	SoftDelete      *bool    `json:"soft_delete,omitempty"`
	RetentionDays   *int     `json:"retention_days,omitempty"`
	PurgeProtection *bool    `json:"purge_protection,omitempty"`
	// Network as the vault's firewall has it; nil where it shows none.
	Network *VaultNetwork `json:"network,omitempty"`
	// Grants are who may do what with the keys.
	Grants        []VaultGrant `json:"grants,omitempty"`
	GrantsTrouble *Trouble     `json:"grants_trouble,omitempty"`
	// Locks are the levels of the resource locks that hold for the vault.
	Locks        []string `json:"locks,omitempty"`
	LocksTrouble *Trouble `json:"locks_trouble,omitempty"`
	// SubscriptionState and Quota are the subscription's own words.
	SubscriptionState string `json:"subscription_state,omitempty"`
	Quota             string `json:"quota,omitempty"`
	// Retention is the state of the subscription's feature
	// mandatoryRetentionPeriodEnabled.
	Retention        string   `json:"retention,omitempty"`
	RetentionTrouble *Trouble `json:"retention_trouble,omitempty"`
}

// VaultNetwork is a vault's firewall, in Azure's words.
type VaultNetwork struct {
	DefaultAction string `json:"default_action,omitempty"` // Allow, Deny
	Bypass        string `json:"bypass,omitempty"`         // AzureServices, None
	PublicAccess  string `json:"public_access,omitempty"`  // Enabled, Disabled
}

// Admits says whether Microsoft's trusted services get through.
func (n VaultNetwork) Admits() bool {
	return n.Bypass != "None" || n.DefaultAction != "Deny" && n.PublicAccess != "Disabled"
}

// KeyRight is what somebody may do with a vault's keys, by Key Vault's words.
type KeyRight string

// The rights that preflight asks about.
const (
	MayGet    KeyRight = "get"
	MayList   KeyRight = "list"
	MayCreate KeyRight = "create"
	MayWrap   KeyRight = "wrapKey"
	MayUnwrap KeyRight = "unwrapKey"
	MayDelete KeyRight = "delete"
	MayPurge  KeyRight = "purge"
)

// KeyRights lists them.
func KeyRights() []KeyRight {
	return []KeyRight{MayGet, MayList, MayCreate, MayWrap, MayUnwrap, MayDelete, MayPurge}
}

// VaultGrant is one principal's rights, by an access policy or a role.
type VaultGrant struct {
	Principal string     `json:"principal"` // object id
	Kind      string     `json:"kind,omitempty"`
	May       []KeyRight `json:"may,omitempty"`
	// Manages: it may change the vault itself, and so who may do what.
	Manages bool `json:"manages,omitempty"`
	// Unsure: who has these rights cannot be seen here: a group's members, or a
	// role under a condition.
	Unsure bool `json:"unsure,omitempty"`
}

// rights says what a principal may do: may holds what it has by grants of its
// own, and unsure what it might have besides, through a group or a condition.
func (v VaultObservation) rights(principal string) (may, unsure []KeyRight) {
	for _, g := range v.Grants {
		switch {
		case g.Unsure:
			unsure = append(unsure, g.May...)
		case principal != "" && strings.EqualFold(g.Principal, principal):
			may = append(may, g.May...)
		}
	}
	return may, unsure
}

// lacks are those of the wanted rights that a principal has not; open says
// that it might have every one of them by a way that cannot be seen.
func (v VaultObservation) lacks(principal string, wanted ...KeyRight) (missing []KeyRight, open bool) {
	may, unsure := v.rights(principal)
	open = true
	for _, r := range wanted {
		if !slices.Contains(may, r) {
			missing = append(missing, r)
			open = open && slices.Contains(unsure, r)
		}
	}
	return missing, open && len(missing) > 0
}

// AzureSettings are what a declaration says of a tenant's Azure side.
type AzureSettings struct {
	// ServicePrincipals are the object ids, in this tenant, of Microsoft 365's
	// own services: only the tenant's directory knows them.
	ServicePrincipals ServicePrincipals `json:"service_principals,omitzero"`
}

// ServicePrincipals are object ids; "" where none is declared.
type ServicePrincipals struct {
	Exchange      string `json:"exchange,omitempty"`
	SharePoint    string `json:"sharepoint,omitempty"`
	MultiWorkload string `json:"multi_workload,omitempty"`
}

// Of is the declared object id of the service that wraps for a workload.
func (s ServicePrincipals) Of(w Workload) string {
	switch w {
	case Exchange:
		return s.Exchange
	case SharePoint:
		return s.SharePoint
	case MultiWorkload:
		return s.MultiWorkload
	}
	return ""
}

// ServiceAppID is the application id of the service that wraps for a workload,
// the same in every tenant.
func ServiceAppID(w Workload) string {
	switch w {
	case Exchange:
		return "00000002-0000-0ff1-ce00-000000000000"
	case SharePoint:
		return "00000003-0000-0ff1-ce00-000000000000"
	case MultiWorkload:
		return "c066d759-24ae-40e7-a56f-027002b5d3e4"
	}
	return ""
}
