package roll

import (
	"fmt"
	"slices"
	"strings"
)

// GrantState says whether a right was seen to be granted.
type GrantState string

// The states. Unknown is said wherever nothing was probed, and never passes for done.
const (
	GrantDone    GrantState = "done"
	GrantMissing GrantState = "missing"
	GrantUnknown GrantState = "unknown"
)

// Grant is one line of a tenant's checklist: something that is to be granted in
// the customer's tenant, whether it is, how that was seen, and the exact
// commands. Shell is where these run: "browser", "azure_cli" or
// "exchange_powershell".
type Grant struct {
	ID        string     `json:"id"`
	Subject   string     `json:"subject"`
	NeededFor string     `json:"needed_for"`
	State     GrantState `json:"state"`
	Seen      string     `json:"seen"`
	Shell     string     `json:"shell"`
	Commands  []string   `json:"commands"`
	Note      string     `json:"note,omitempty"`
}

// Grantee is who is granted to, in which cloud. ClientID is the application id
// of Keyroll's credential, "" where it is not known; a managed identity that is
// named in another way has ObjectID or ResourceID then.
type Grantee struct {
	ClientID, ObjectID, ResourceID string
	// Authority is Entra's base URL, AzureCloud the Azure CLI's name of the
	// cloud, ExchangeEnvironment Exchange Online PowerShell's.
	Authority, AzureCloud, ExchangeEnvironment string
	// HSMSuffix is what follows a dot in the host of a Managed HSM.
	HSMSuffix string
}

// Proof is what Keyroll itself has done in the tenant so far; done once means
// that the right was there then.
type Proof struct {
	// Created are the hosts of vaults in which a roll made a version.
	Created map[string]bool
	// Refreshed: a policy was refreshed. Rolled: geos in which a SharePoint key was rolled.
	Refreshed bool
	Rolled    map[string]bool
}

// Application roles that are asked for by admin consent.
const (
	roleExchange   = "dc50a0fb-09a3-484d-be87-e023b12c6440" // Exchange.ManageAsApp
	roleSharePoint = "678536fe-1083-478a-9c59-b99265e6b0d3" // Sites.FullControl.All
)

// Checklist says what is to be granted in the tenant, by its declaration, with
// the state of each by what the last look could read. reads is nil before the
// first look. Nothing in it grants a right to delete, purge, disable or
// restore a key, or to ask for a data purge.
func Checklist(inv Inventory, g Grantee, reads []Read, proof Proof) []Grant {
	if g.ClientID == "" {
		g.ClientID = clientIDUnknown
	}
	c := &checklist{inv: inv, g: g, proof: proof, all: reads, reads: map[string]*Trouble{}, seen: map[string]string{}, looked: map[string]bool{}}
	for _, r := range reads {
		c.reads[r.Source], c.seen[r.Source], c.looked[r.Source] = r.Trouble, r.Seen, true
	}
	c.consent()
	if c.wantsExchange() {
		c.exchange()
	}
	for _, geo := range inv.SharePoint.Geos {
		c.geo(geo)
	}
	for _, host := range inv.hosts() {
		c.vault(host)
	}
	c.automation()
	c.findClientID()
	return c.out
}

// clientIDUnknown stands in commands for an application id that only the
// directory knows.
const clientIDUnknown = "CLIENT-ID-OF-KEYROLL"

// findClientID says in each line with the stand-in what it stands for, and
// which command shows it.
func (c *checklist) findClientID() {
	how := `az ad sp list --all --filter "servicePrincipalType eq 'ManagedIdentity'" --query "[].{name:displayName,client_id:appId}" --output table (the identity of a machine has the machine's name)`
	switch {
	case c.g.ObjectID != "":
		how = "az ad sp show --id " + c.g.ObjectID + " --query appId --output tsv"
	case c.g.ResourceID != "":
		how = "az identity show --ids " + c.g.ResourceID + " --query clientId --output tsv"
	}
	for i := range c.out {
		g := &c.out[i]
		if strings.Contains(strings.Join(append(g.Commands, g.Note), " "), clientIDUnknown) {
			g.Note = strings.TrimSpace(g.Note + " " + clientIDUnknown + " stands for the application id of Keyroll's identity, which its credential does not name; this shows it: " + how)
		}
	}
}

type checklist struct {
	inv    Inventory
	g      Grantee
	proof  Proof
	all    []Read
	reads  map[string]*Trouble
	seen   map[string]string
	looked map[string]bool
	out    []Grant
}

// state judges by reads that need the right: done when one was answered,
// missing when one was refused as the codes say.
func (c *checklist) state(missing []string, sources ...string) (GrantState, string) {
	state, seen := GrantUnknown, "it was not probed yet: discover the tenant"
	for _, s := range sources {
		t := c.reads[s]
		switch {
		case !c.looked[s]:
		case t == nil:
			return GrantDone, "reading " + s + " succeeded"
		case slices.Contains(missing, t.Code):
			state, seen = GrantMissing, "reading "+s+" was refused: "+t.Detail
		case state == GrantUnknown:
			seen = "reading " + s + " failed for another reason: " + t.Detail
		}
	}
	return state, seen
}

// wantsExchange: a tenant that was asked about Exchange, or declares a policy there.
func (c *checklist) wantsExchange() bool {
	return c.inv.UsesExchange() || c.looked["workload:"+string(Exchange)]
}

func (c *checklist) keysOf(host string) (keys []Key, sources []string) {
	for _, k := range c.inv.Keys {
		if k.Ref().Host == host {
			keys, sources = append(keys, k), append(sources, "key:"+k.ID)
		}
	}
	return keys, sources
}

// consent: Keyroll's application exists in the tenant. Entra hands out tokens
// from then on.
func (c *checklist) consent() {
	state, seen := GrantUnknown, "it was not probed yet: discover the tenant"
	for _, r := range c.all {
		switch t := r.Trouble; {
		case t == nil || t.Code == "unauthorized" || t.Code == "forbidden" || t.Code == "not_found":
			state, seen = GrantDone, "Entra gave a token for the tenant"
		case t.Code == "token" && state == GrantUnknown:
			state, seen = GrantMissing, "Entra gave no token: "+t.Detail
		}
	}
	url := fmt.Sprintf("%s/%s/adminconsent?client_id=%s", c.g.Authority, c.inv.TenantID, c.g.ClientID)
	var declare []string
	if c.wantsExchange() {
		declare = append(declare, fmt.Sprintf("az ad app permission add --id %s --api %s --api-permissions %s=Role", c.g.ClientID, ServiceAppID(Exchange), roleExchange))
	}
	if len(c.inv.SharePoint.Geos) > 0 {
		declare = append(declare, fmt.Sprintf("az ad app permission add --id %s --api %s --api-permissions %s=Role", c.g.ClientID, ServiceAppID(SharePoint), roleSharePoint))
	}
	c.out = append(c.out, Grant{ID: "admin_consent", Subject: "tenant:" + c.inv.TenantID, NeededFor: "every call: Keyroll's application in the tenant, with its application roles",
		State: state, Seen: seen, Shell: "browser", Commands: []string{url},
		Note: strings.TrimSpace("A Global Administrator of the tenant opens the address. " + prefixIf("Before that, the application's own tenant declares its roles: ", strings.Join(declare, "; ")))})
}

func prefixIf(prefix, s string) string {
	if s == "" {
		return ""
	}
	return prefix + s
}

// exchange: without the application role Exchange answers 401, with it but
// without a role group 403 (microsoft-wire.md B4).
func (c *checklist) exchange() {
	sources := []string{"workload:" + string(MultiWorkload), "workload:" + string(Exchange)}
	state, seen := c.state([]string{"unauthorized"}, sources...)
	if s, why := c.state([]string{"forbidden"}, sources...); s == GrantMissing {
		state, seen = GrantDone, "Exchange takes the token ("+why+")"
	}
	c.out = append(c.out, Grant{ID: "exchange_app_role", Subject: "exchange", NeededFor: "reading and refreshing Exchange and multi-workload policies: the application role Exchange.ManageAsApp",
		State: state, Seen: seen, Shell: "browser", Commands: []string{fmt.Sprintf("%s/%s/adminconsent?client_id=%s", c.g.Authority, c.inv.TenantID, c.g.ClientID)},
		Note: "It comes with the admin consent; by itself it lets the application sign in and do nothing."})
	native, runbook := c.byRunbook(Place(Exchange, ""))
	if runbook {
		c.out[len(c.out)-1].State, c.out[len(c.out)-1].Seen = GrantUnknown, native
	}
	state, seen = c.state([]string{"forbidden", "unauthorized"}, sources...)
	if runbook {
		state, seen = GrantUnknown, native
	} else if state == GrantDone && c.proof.Refreshed {
		seen += ", and Keyroll has refreshed a policy"
	} else if state == GrantDone {
		state, seen = GrantUnknown, seen+"; whether a refresh is permitted shows at the first one"
	}
	c.out = append(c.out, Grant{ID: "exchange_role_group", Subject: "exchange", NeededFor: "running the data encryption policy cmdlets",
		State: state, Seen: seen, Shell: "exchange_powershell", Commands: c.roleGroup("Keyroll", c.g.ClientID, "(az ad sp show --id "+c.g.ClientID+" --query id --output tsv)"),
		Note: "The roles hold only the cmdlets that Keyroll runs, and of the Set cmdlets only Identity, Refresh and Confirm: not the parameters that ask for a data purge or replace keys. " +
			"Microsoft names the Compliance Administrator role for these cmdlets; smaller roles are not verified against a live tenant. The object id is that of the enterprise application in this tenant."})
}

// roleGroup makes management roles that hold no more than Keyroll runs, named
// after the group, and an application their holder: app and object are its ids.
func (c *checklist) roleGroup(group, app, object string) []string {
	out := []string{
		"Connect-ExchangeOnline -ExchangeEnvironmentName " + c.g.ExchangeEnvironment,
		fmt.Sprintf("New-ServicePrincipal -AppId %s -ObjectId %s -DisplayName '%s'", app, object, group),
	}
	var roles []string
	for _, set := range []struct{ set, role, keep string }{
		{"Set-DataEncryptionPolicy", group + " Exchange DEP", "'Get-DataEncryptionPolicy','Set-DataEncryptionPolicy','Get-MailboxStatistics'"},
		{"Set-M365DataAtRestEncryptionPolicy", group + " M365 DEP", "'Get-M365DataAtRestEncryptionPolicy','Set-M365DataAtRestEncryptionPolicy','Get-M365DataAtRestEncryptionPolicyAssignment','Test-M365DataAtRestEncryptionPolicy'"},
	} {
		roles = append(roles, "'"+set.role+"'")
		out = append(out,
			fmt.Sprintf("New-ManagementRole -Name '%s' -Parent (Get-ManagementRole -Cmdlet %s | Select-Object -First 1).Name", set.role, set.set),
			fmt.Sprintf("Get-ManagementRoleEntry '%s\\*' | Where-Object Name -NotIn %s | ForEach-Object { Remove-ManagementRoleEntry \"%s\\$($_.Name)\" -Confirm:$false }", set.role, set.keep, set.role),
			fmt.Sprintf("Set-ManagementRoleEntry '%s\\%s' -Parameters Identity,Refresh,Confirm", set.role, set.set))
	}
	return append(out,
		"New-ManagementRole -Name '"+group+" mailboxes' -Parent (Get-ManagementRole -Cmdlet Get-MailboxStatistics | Where-Object Name -Like 'View-Only*' | Select-Object -First 1).Name",
		"Get-ManagementRoleEntry '"+group+" mailboxes\\*' | Where-Object Name -NE 'Get-MailboxStatistics' | ForEach-Object { Remove-ManagementRoleEntry \""+group+" mailboxes\\$($_.Name)\" -Confirm:$false }",
		"New-RoleGroup -Name '"+group+"' -Roles "+strings.Join(append(roles, "'"+group+" mailboxes'"), ","),
		"Add-RoleGroupMember -Identity '"+group+"' -Member "+app)
}

func (c *checklist) geo(geo Geo) {
	state, seen := c.state([]string{"forbidden", "unauthorized"}, "geo:"+geo.ID)
	if native, ok := c.byRunbook(Place(SharePoint, geo.ID)); ok {
		state, seen = GrantUnknown, native
	} else if state == GrantDone && c.proof.Rolled[geo.ID] {
		seen += ", and Keyroll has rolled a key there"
	}
	c.out = append(c.out, Grant{ID: "sharepoint_app_role", Subject: "geo:" + geo.ID, NeededFor: "reading SharePoint's key status and rolling its keys: the application role Sites.FullControl.All",
		State: state, Seen: seen, Shell: "browser", Commands: []string{fmt.Sprintf("%s/%s/adminconsent?client_id=%s", c.g.Authority, c.inv.TenantID, c.g.ClientID)},
		Note: "It comes with the admin consent. SharePoint takes only tokens that a certificate bought. No smaller right for these calls is known; where it cannot be granted, choose the transport automation or manual."})
}
