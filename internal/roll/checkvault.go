package roll

import (
	"fmt"
	"slices"
	"strings"
)

// vault: Keyroll's rights and their bounds, Microsoft's own services' right to
// use the keys, the firewall, and the Reader by which all of that is seen.
func (c *checklist) vault(host string) {
	keys, sources := c.keysOf(host)
	name := keys[0].VaultName()
	hsm := c.g.HSMSuffix != "" && strings.HasSuffix(host, "."+c.g.HSMSuffix)
	line := func(id, neededFor, note string) Grant {
		return Grant{ID: id, Subject: vaultSource(host), NeededFor: neededFor, Note: note, Shell: "azure_cli"}
	}
	grant := line("vault_keyroll", "reading the keys and giving them new versions",
		"The role holds reading keys and rotation policies and creating keys: no right to delete, purge, disable, restore or export. The last command is for a vault that still uses access policies; of the two ways only the vault's own takes effect. A vault with a firewall must also let Keyroll's address through.")
	bounds := line("vault_keyroll_no_delete", "nothing: no roll deletes or purges a key, so Keyroll's application should not be able to",
		"The first listing shows what the application may do beyond this checklist: once vault_keyroll is granted, take away each role that it shows (az role assignment delete --ids and the id). The last command is for a vault that still uses access policies, and sets the application's rights on keys to what a roll needs.")
	service := line("vault_microsoft365", "Microsoft 365 itself wrapping and unwrapping with the keys",
		"Without it Microsoft 365 cannot decrypt: grant it before the vault's keys are used, and never take it away.")
	network := line("vault_network", "Microsoft 365 getting through the vault's firewall as a trusted service", "It changes nothing for a vault without a firewall.")
	reader := line("vault_reader", "optional: preflight and this checklist see rights, purge protection, retention, network rules and locks through Azure Resource Manager",
		"Granted on the vault it shows all that this checklist asks about; locks and the mandatory retention period need it on the vault's whole subscription.")
	if hsm {
		grant.Commands, service.Commands = c.hsmKeyroll(name, keys), c.hsmServices(name, host, keys)
		grant.Note = "The role holds reading and creating keys and nothing else. Managed HSM assigns by its own roles, key by key, and Resource Manager does not show them."
		service.Note += " Resource Manager does not show a Managed HSM's own roles."
		bounds.Commands = append(c.login(), fmt.Sprintf("az keyvault role assignment list --hsm-name %s --assignee %s --query \"[?roleName!='Keyroll key roller'].{role:roleName,scope:scope,id:id}\" --output table", name, c.g.ClientID))
		bounds.Note = "What it shows is more than a roll needs: once vault_keyroll is granted, take it away (az keyvault role assignment delete --hsm-name, --ids and the id)."
		network.Commands = append(c.login(), fmt.Sprintf("az keyvault update-hsm --hsm-name %s --bypass AzureServices", name))
		reader.Commands = append(c.locate(name, "hsm"), c.assign("Reader", c.g.ClientID))
	} else {
		grant.Commands, service.Commands = c.vaultKeyroll(name), c.vaultServices(name, host)
		service.Note += " It is seen where Keyroll has Reader and the tenant's declaration names the services' object ids (azure.service_principals)" + c.objectIDs(host) + "."
		bounds.Commands = append(c.locate(name, "vault"),
			fmt.Sprintf(`az role assignment list --scope "$VAULT" --include-inherited --assignee %s --query "[?roleDefinitionName!='%s' && roleDefinitionName!='Reader'].{role:roleDefinitionName,scope:scope,id:id}" --output table`, c.g.ClientID, keyrollRole(name)),
			c.setPolicy(name, c.g.ClientID, "get list create getrotationpolicy"))
		network.Commands = append(c.locate(name, "vault"), fmt.Sprintf(`az keyvault update --subscription "$(echo "$VAULT" | cut -d/ -f3)" --name %s --bypass AzureServices`, name))
		reader.Commands = append(c.locate(name, "vault"), c.assign("Reader", c.g.ClientID))
	}
	grant.State, grant.Seen = c.keyrollAt(host, sources)
	bounds.State, bounds.Seen = c.shown(host, partBounds)
	service.State, service.Seen = c.servicesAt(host)
	network.State, network.Seen = c.shown(host, partNetwork)
	reader.State, reader.Seen = c.state([]string{"forbidden", "unauthorized", "not_granted"}, vaultSource(host))
	c.out = append(c.out, grant, bounds, service, network, reader)
}

// shown judges by what Resource Manager showed of the vault in the last look.
func (c *checklist) shown(host, part string) (GrantState, string) {
	source := vaultSource(host)
	t := c.reads[source+part]
	switch {
	case !c.looked[source]:
		return GrantUnknown, "Azure Resource Manager was not asked yet: discover the tenant"
	case c.reads[source] != nil:
		return GrantUnknown, "Azure Resource Manager does not show the vault: " + c.reads[source].Detail
	case !c.looked[source+part]:
		return GrantUnknown, "the declaration has changed since the last look: discover the tenant"
	case t == nil:
		return GrantDone, c.seen[source+part]
	}
	if kind, _ := KindOfFinding(t.Code); kind.Level == LevelError || kind.Level == LevelWarning {
		return GrantMissing, t.Detail
	}
	return GrantUnknown, t.Detail
}

// keyrollAt: a vault that refuses to show its keys tells first, then what
// Resource Manager shows, then what was read and done there.
func (c *checklist) keyrollAt(host string, sources []string) (GrantState, string) {
	state, seen := c.state([]string{"forbidden", "unauthorized"}, sources...)
	if state == GrantMissing {
		return state, seen
	}
	shown, why := c.shown(host, partOwn)
	switch {
	case shown != GrantUnknown:
		return shown, why
	case state == GrantDone && c.proof.Created[host]:
		return GrantDone, seen + ", and Keyroll has made a key version there"
	case state == GrantDone:
		return GrantUnknown, seen + "; whether a new version may be made shows at the first roll (" + why + ")"
	}
	return state, seen
}

// servicesAt: every service that uses the vault must be able to.
func (c *checklist) servicesAt(host string) (GrantState, string) {
	state, all := GrantDone, []string{}
	for _, w := range c.inv.workloadsOf(host) {
		s, seen := c.shown(host, partService+string(w))
		if s == GrantMissing || s == GrantUnknown && state == GrantDone {
			state = s
		}
		if !slices.Contains(all, seen) {
			all = append(all, seen)
		}
	}
	if len(all) == 0 {
		return GrantUnknown, "no declared policy uses a key of the vault now"
	}
	return state, strings.Join(all, "; ")
}

// objectIDs are the commands that show them.
func (c *checklist) objectIDs(host string) string {
	var out []string
	for _, w := range c.inv.workloadsOf(host) {
		out = append(out, "az ad sp show --id "+ServiceAppID(w)+" --query id --output tsv")
	}
	return prefixIf(": ", strings.Join(out, "; "))
}

func (c *checklist) login() []string {
	return []string{"az cloud set --name " + c.g.AzureCloud, "az login --tenant " + c.inv.TenantID}
}

// locate finds the vault in whichever subscription it is: the two vaults of a
// policy are in two. kind is "vault" or "hsm".
func (c *checklist) locate(name, kind string) []string {
	return append(c.login(),
		fmt.Sprintf(`VAULT=$(for s in $(az account list --query '[].id' --output tsv); do az keyvault list --resource-type %s --subscription "$s" --query "[?name=='%s'].id" --output tsv; done)`, kind, name))
}

// setPolicy sets an application's rights on keys in a vault with access policies.
func (c *checklist) setPolicy(name, app, rights string) string {
	return fmt.Sprintf(`az keyvault set-policy --subscription "$(echo "$VAULT" | cut -d/ -f3)" --name %s --spn %s --key-permissions %s`, name, app, rights)
}

// assign gives an application a role on $VAULT.
func (c *checklist) assign(role, app string) string {
	return fmt.Sprintf(`az role assignment create --role '%s' --assignee-object-id "$(az ad sp show --id %s --query id --output tsv)" --assignee-principal-type ServicePrincipal --scope "$VAULT"`, role, app)
}

// keyrollRole is the name of the custom role in a vault's subscription. Role
// names are one per tenant, vaults many, so each vault has a role of its own.
func keyrollRole(vault string) string { return "Keyroll key roller " + vault }

func (c *checklist) vaultKeyroll(name string) []string {
	role := keyrollRole(name)
	return append(c.locate(name, "vault"),
		fmt.Sprintf(`az role definition create --role-definition '{"Name":"%s","IsCustom":true,"Description":"Reads keys and gives them new versions.","Actions":[],"NotActions":[],"DataActions":["Microsoft.KeyVault/vaults/keys/read","Microsoft.KeyVault/vaults/keys/create/action","Microsoft.KeyVault/vaults/keyrotationpolicies/read"],"NotDataActions":[],"AssignableScopes":["'"$(echo "$VAULT" | cut -d/ -f1-5)"'"]}'`, role),
		c.assign(role, c.g.ClientID),
		c.setPolicy(name, c.g.ClientID, "get list create getrotationpolicy"))
}

func (c *checklist) vaultServices(name, host string) []string {
	out := c.locate(name, "vault")
	for _, w := range c.inv.workloadsOf(host) {
		app := ServiceAppID(w)
		out = append(out, c.assign("Key Vault Crypto Service Encryption User", app), c.setPolicy(name, app, "get wrapKey unwrapKey"))
	}
	return out
}

func (c *checklist) hsmKeyroll(name string, keys []Key) []string {
	out := append(c.login(),
		fmt.Sprintf(`az keyvault role definition create --hsm-name %s --role-definition '{"roleName":"Keyroll key roller","description":"Reads keys and gives them new versions.","actions":[],"notActions":[],"dataActions":["Microsoft.KeyVault/managedHsm/keys/read/action","Microsoft.KeyVault/managedHsm/keys/create"],"notDataActions":[]}'`, name))
	for _, k := range keys {
		out = append(out, fmt.Sprintf("az keyvault role assignment create --hsm-name %s --role 'Keyroll key roller' --assignee %s --scope /keys/%s", name, c.g.ClientID, k.Name))
	}
	return out
}

func (c *checklist) hsmServices(name, host string, keys []Key) []string {
	out := c.login()
	for _, k := range keys {
		for _, w := range c.inv.workloadsOf(host) {
			out = append(out, fmt.Sprintf("az keyvault role assignment create --hsm-name %s --role 'Managed HSM Crypto Service Encryption User' --assignee %s --scope /keys/%s", name, ServiceAppID(w), k.Name))
		}
	}
	return out
}
