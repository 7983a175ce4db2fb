package roll

import (
	"fmt"
	"slices"
	"strings"
)

// vault: Keyroll's right to read and to create, and Microsoft's own services'
// right to use the keys.
func (c *checklist) vault(host string) {
	keys, sources := c.keysOf(host)
	name := keys[0].VaultName()
	hsm := c.g.HSMSuffix != "" && strings.HasSuffix(host, "."+c.g.HSMSuffix)
	state, seen := c.state([]string{"forbidden", "unauthorized"}, sources...)
	if state == GrantDone && c.proof.Created[host] {
		seen += ", and Keyroll has made a key version there"
	} else if state == GrantDone {
		state, seen = GrantUnknown, seen+"; whether a new version may be made shows at the first roll"
	}
	grant := Grant{ID: "vault_keyroll", Subject: "vault:" + host, NeededFor: "reading the keys and giving them new versions",
		State: state, Seen: seen, Shell: "azure_cli"}
	service := Grant{ID: "vault_microsoft365", Subject: "vault:" + host, NeededFor: "Microsoft 365 itself wrapping and unwrapping with the keys",
		State: GrantUnknown, Seen: "the keys themselves do not show it; Azure Resource Manager does, where the tenant grants Reader", Shell: "azure_cli"}
	if hsm {
		grant.Commands, service.Commands = c.hsmKeyroll(name, keys), c.hsmServices(name, keys)
		grant.Note = "The role holds reading and creating keys and nothing else. Managed HSM assigns by its own roles, key by key."
	} else {
		grant.Commands, service.Commands = c.vaultKeyroll(name), c.vaultServices(name)
		grant.Note = "The role holds reading keys and rotation policies and creating keys: no right to delete, purge, disable, restore or export. The last command is for a vault that still uses access policies; of the two ways only the vault's own takes effect. A vault with a firewall must also let Keyroll's address through."
	}
	service.Note = "Without it Microsoft 365 cannot decrypt: grant it before the vault's keys are used, and never take it away. A vault with a firewall must let trusted Microsoft services through."
	c.out = append(c.out, grant, service)
	if !hsm {
		c.out = append(c.out, Grant{ID: "vault_reader", Subject: "vault:" + host, NeededFor: "optional: preflight sees purge protection, retention, network rules and locks through Azure Resource Manager",
			State: GrantUnknown, Seen: "it was not probed", Shell: "azure_cli", Commands: append(c.locate(name), c.assign("Reader", c.g.ClientID))})
	}
}

// locate finds the vault in whichever subscription it is: the two vaults of a
// policy are in two.
func (c *checklist) locate(name string) []string {
	return []string{
		"az cloud set --name " + c.g.AzureCloud,
		"az login --tenant " + c.inv.TenantID,
		fmt.Sprintf(`VAULT=$(for s in $(az account list --query '[].id' --output tsv); do az keyvault list --subscription "$s" --query "[?name=='%s'].id" --output tsv; done)`, name),
	}
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
	return append(c.locate(name),
		fmt.Sprintf(`az role definition create --role-definition '{"Name":"%s","IsCustom":true,"Description":"Reads keys and gives them new versions.","Actions":[],"NotActions":[],"DataActions":["Microsoft.KeyVault/vaults/keys/read","Microsoft.KeyVault/vaults/keys/create/action","Microsoft.KeyVault/vaults/keyrotationpolicies/read"],"NotDataActions":[],"AssignableScopes":["'"$(echo "$VAULT" | cut -d/ -f1-5)"'"]}'`, role),
		c.assign(role, c.g.ClientID),
		fmt.Sprintf(`az keyvault set-policy --subscription "$(echo "$VAULT" | cut -d/ -f3)" --name %s --spn %s --key-permissions get list create getrotationpolicy`, name, c.g.ClientID))
}

// services are Microsoft's applications that use the keys of the vault.
func (c *checklist) services(name string) []string {
	var out []string
	for _, p := range c.inv.Policies {
		for _, id := range p.KeyIDs() {
			if k, ok := c.inv.KeyByID(id); !ok || k.VaultName() != name {
				continue
			}
			out = append(out, map[Workload]string{Exchange: appExchange, SharePoint: appSharePoint, MultiWorkload: appAtRest}[p.Workload])
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

func (c *checklist) vaultServices(name string) []string {
	out := c.locate(name)
	for _, app := range c.services(name) {
		out = append(out, c.assign("Key Vault Crypto Service Encryption User", app),
			fmt.Sprintf(`az keyvault set-policy --subscription "$(echo "$VAULT" | cut -d/ -f3)" --name %s --spn %s --key-permissions get wrapKey unwrapKey`, name, app))
	}
	return out
}

func (c *checklist) hsmKeyroll(name string, keys []Key) []string {
	out := []string{"az cloud set --name " + c.g.AzureCloud, "az login --tenant " + c.inv.TenantID,
		fmt.Sprintf(`az keyvault role definition create --hsm-name %s --role-definition '{"roleName":"Keyroll key roller","description":"Reads keys and gives them new versions.","actions":[],"notActions":[],"dataActions":["Microsoft.KeyVault/managedHsm/keys/read/action","Microsoft.KeyVault/managedHsm/keys/create"],"notDataActions":[]}'`, name)}
	for _, k := range keys {
		out = append(out, fmt.Sprintf("az keyvault role assignment create --hsm-name %s --role 'Keyroll key roller' --assignee %s --scope /keys/%s", name, c.g.ClientID, k.Name))
	}
	return out
}

func (c *checklist) hsmServices(name string, keys []Key) []string {
	out := []string{"az cloud set --name " + c.g.AzureCloud, "az login --tenant " + c.inv.TenantID}
	for _, k := range keys {
		for _, app := range c.services(name) {
			out = append(out, fmt.Sprintf("az keyvault role assignment create --hsm-name %s --role 'Managed HSM Crypto Service Encryption User' --assignee %s --scope /keys/%s", name, app, k.Name))
		}
	}
	return out
}
