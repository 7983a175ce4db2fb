package roll

import (
	"fmt"
	"strings"
)

// probeSource is where the probe of a transport stands among the reads.
func probeSource(place string, via Transport) string {
	w, _ := SplitPlace(place)
	return "transport:" + place + ":" + via.Name(w)
}

// probeReads are the probes of the transports in an observation. A place whose
// transport could not be decided has none.
func probeReads(inv Inventory, obs Observation) []Read {
	var out []Read
	for _, place := range inv.Places() {
		for _, p := range obs.Transports[place].Probes {
			r := Read{Source: probeSource(place, p.Via)}
			if !p.reads() {
				r.Trouble = &Trouble{Code: "probe_" + string(p.Outcome), Detail: p.Detail}
			}
			out = append(out, r)
		}
	}
	return out
}

// byRunbook says that the runbook was probed for a place, so that what was read
// of the place proves nothing of the native way; seen is how that way went.
func (c *checklist) byRunbook(place string) (seen string, ok bool) {
	if !c.looked[probeSource(place, Automation)] {
		return "", false
	}
	seen = "the native way was not probed: the declaration says automation"
	if native := probeSource(place, Native); c.looked[native] && c.reads[native] != nil {
		seen = "the native way was refused, so the runbook was tried: " + c.reads[native].Detail
	}
	return seen, true
}

// probed judges the runbook by its probes: one that read well is proof; of one
// that did not, the words say who refused.
func (c *checklist) probed(places []string) (GrantState, string) {
	state, seen := GrantUnknown, "no runbook was probed in the last look: it is tried where the declaration says automation, or where the native way is refused"
	for _, place := range places {
		s := probeSource(place, Automation)
		switch t := c.reads[s]; {
		case !c.looked[s]:
		case t == nil:
			return GrantDone, "a runbook has read " + place
		default:
			seen = "reading " + place + " by runbook failed: " + t.Detail
		}
	}
	return state, seen
}

// automation: Keyroll's right to run jobs in the declared account, and what
// the runbooks' own identity needs.
func (c *checklist) automation() {
	account := c.inv.Automation
	if account == nil {
		return
	}
	subject := "automation:" + account.Account
	var exchange, geos []string
	for _, place := range c.inv.Places() {
		switch w, _ := SplitPlace(place); c.inv.DeclaredTransport(place) {
		case string(Manual), TransportCSOM, TransportInvokeCommand:
		default:
			if w == SharePoint {
				geos = append(geos, place)
			} else {
				exchange = append(exchange, place)
			}
		}
	}
	g := Grant{ID: "automation_keyroll", Subject: subject, NeededFor: "running the runbooks' jobs and reading their outputs", Shell: "azure_cli", Commands: c.jobRole(account.Account),
		Note: "The role holds reading the account and starting and reading jobs: no right to change a runbook, a variable or a module. It is verified against the simulator only; Microsoft's own roles are Automation Job Operator and Reader."}
	g.State, g.Seen = c.probed(append(exchange, geos...))
	c.out = append(c.out, g)
	if len(exchange) > 0 {
		g := Grant{ID: "automation_exchange", Subject: subject, NeededFor: "the runbooks' own identity running the data encryption policy cmdlets: Exchange.ManageAsApp and a role group", Shell: "exchange_powershell",
			Commands: append(c.runbookRole(Exchange, roleExchange), c.roleGroup("Keyroll runbooks", "(az ad sp show --id $runbooks --query appId --output tsv)", "$runbooks")...), Note: runbookIdentity}
		g.State, g.Seen = c.probed(exchange)
		switch {
		case g.State != GrantDone:
		case c.proof.Refreshed && c.inv.Recorded[exchange[0]].Via == Automation:
			g.Seen += ", and Keyroll has refreshed a policy"
		default:
			g.State, g.Seen = GrantUnknown, g.Seen+"; whether a refresh is permitted shows at the first one"
		}
		c.out = append(c.out, g)
	}
	if len(geos) > 0 {
		g := Grant{ID: "automation_sharepoint", Subject: subject, NeededFor: "the runbooks' own identity reading SharePoint's key status and rolling its keys: Sites.FullControl.All", Shell: "exchange_powershell",
			Commands: c.runbookRole(SharePoint, roleSharePoint), Note: runbookIdentity}
		g.State, g.Seen = c.probed(geos)
		c.out = append(c.out, g)
	}
}

const runbookIdentity = "The commands are for the account's system-assigned managed identity. With a certificate asset Keyroll-Certificate it is the app registration of variable Keyroll-AppId instead: set $runbooks to the object id of its enterprise application (docs/transports.md)."

// jobRole makes a role for the account that holds what Keyroll calls there.
func (c *checklist) jobRole(account string) []string {
	parts := strings.Split(strings.TrimPrefix(account, "/"), "/")
	name := "Keyroll job runner " + parts[len(parts)-1]
	return append(c.login(),
		fmt.Sprintf(`az role definition create --role-definition '{"Name":"%s","IsCustom":true,"Description":"Starts and reads the jobs of Keyroll.","Actions":["Microsoft.Automation/automationAccounts/read","Microsoft.Automation/automationAccounts/jobs/read","Microsoft.Automation/automationAccounts/jobs/write","Microsoft.Automation/automationAccounts/jobs/output/read"],"NotActions":[],"DataActions":[],"NotDataActions":[],"AssignableScopes":["%s"]}'`, name, "/"+strings.Join(parts[:min(len(parts), 4)], "/")),
		fmt.Sprintf(`az role assignment create --role '%s' --assignee-object-id "$(az ad sp show --id %s --query id --output tsv)" --assignee-principal-type ServicePrincipal --scope '%s'`, name, c.g.ClientID, account))
}

// runbookRole gives the account's identity an application role, in PowerShell.
func (c *checklist) runbookRole(w Workload, role string) []string {
	graph := map[string]string{"O365Default": "Global", "O365USGovGCCHigh": "USGov", "O365USGovDoD": "USGovDoD", "O365China": "China"}[c.g.ExchangeEnvironment]
	if graph == "" {
		graph = c.g.ExchangeEnvironment // an operator's own
	}
	return append(c.login(),
		fmt.Sprintf("$runbooks = az resource show --ids '%s' --query identity.principalId --output tsv", c.inv.Automation.Account),
		fmt.Sprintf("Connect-MgGraph -Environment %s -TenantId %s -Scopes AppRoleAssignment.ReadWrite.All,Application.Read.All", graph, c.inv.TenantID),
		fmt.Sprintf("New-MgServicePrincipalAppRoleAssignment -ServicePrincipalId $runbooks -PrincipalId $runbooks -ResourceId (Get-MgServicePrincipal -Filter \"appId eq '%s'\").Id -AppRoleId %s", ServiceAppID(w), role))
}
