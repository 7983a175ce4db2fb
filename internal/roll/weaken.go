package roll

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// Weakening is a member of a declaration whose change takes a guard away, or
// sends Keyroll's credential elsewhere: it takes effect only when a second
// person confirms it. From and To are for people.
type Weakening struct {
	Pointer string `json:"pointer"`
	What    string `json:"what"`
	From    string `json:"from"`
	To      string `json:"to"`
}

// Member says of a member of a declaration whether a change of it can weaken
// something, and when; or why it cannot. The pointer of a list's item leaves its index out.
type Member struct {
	Pointer string
	Guarded bool
	Why     string
}

// Members classifies every member of Inventory. A test holds the list against
// the type: a member that is added is classified, or nothing is green.
func Members() []Member {
	return []Member{
		{"/tenant_id", false, "it names the tenant and cannot change"},
		{"/name", false, "for people only"},
		{"/labels", false, "for people and for the choice of tenants only"},
		{"/cloud", true, "another cloud means other hosts"},
		{"/credential", true, "another credential acts as somebody else"},
		{"/approval", true, "from required to not_required, in a first declaration too"},
		{"/sharepoint/lease", true, "from tenant to geo: more than one SharePoint operation at a time in the tenant"},
		{"/sharepoint/min_gap", true, "a shorter pause between Primary and Secondary"},
		{"/sharepoint/geos/id", true, "a geo added or taken away"},
		{"/sharepoint/geos/admin_url", true, "another host"},
		{"/sharepoint/geos/transport", true, "as for transports"},
		{"/transports/exchange", true, "manual: a person does, and attests, what Keyroll would"},
		{"/transports/sharepoint", true, "manual: a person does, and attests, what Keyroll would"},
		{"/automation/account", true, "an account that was not declared before runs what Keyroll asks for, with rights of its own"},
		{"/automation/run_on", true, "other machines run it"},
		{"/diagnostics/workspace_id", true, "a log that was not declared before says what is in_use"},
		{"/keys/id", false, "a new key is read into the ledger first; one that leaves keeps its rows and their watch"},
		{"/keys/vault_url", true, "a host that no key was declared in before, or another host for a key"},
		{"/keys/name", false, "a roll looks for the declared key in the policy or the slot, and halts where it is another"},
		{"/former_keys/id", false, "as for keys"},
		{"/former_keys/vault_url", true, "as for keys"},
		{"/former_keys/name", false, "as for keys"},
		{"/policies/id", false, "a policy left out that uses a rolled key is an error of the plan"},
		{"/policies/workload", false, "checked against Microsoft before each effect"},
		{"/policies/name", false, "for people only; another name at Microsoft is a warning"},
		{"/policies/guid", false, "checked against Microsoft before each effect"},
		{"/policies/keys", false, "checked against Microsoft before each effect"},
		{"/policies/sample_mailboxes", false, "they are read only, and prove nothing that a guard rests on"},
		{"/policies/geo", false, "checked against Microsoft before each effect"},
		{"/policies/primary", false, "checked against Microsoft before each effect"},
		{"/policies/secondary", false, "checked against Microsoft before each effect"},
		{"/windows/days", true, "a window that was not declared before, or none where there were some"},
		{"/windows/start", true, "as for days"},
		{"/windows/duration", true, "as for days"},
		{"/windows/zone", true, "as for days"},
		{"/freezes/from", true, "a freeze taken away or cut short"},
		{"/freezes/to", true, "as for from"},
		{"/freezes/reason", false, "for people only"},
		{"/azure/service_principals/exchange", true, "once declared: rights are looked for at another principal, or at none"},
		{"/azure/service_principals/sharepoint", true, "as for exchange"},
		{"/azure/service_principals/multi_workload", true, "as for exchange"},
		{"/vetoes", true, "a finding judged more mildly than before, in a first declaration than by default"},
	}
}

// Weakens returns what the new declaration weakens of the old one, in the
// order of their pointers; none where it only strengthens or changes what no
// guard rests on. It looks at the declarations alone.
func Weakens(old, now Inventory) []Weakening {
	w := &weakenings{}
	// Their names are told apart by case where they are looked up.
	if old.Cloud != now.Cloud {
		w.add("/cloud", "the tenant is looked for in another cloud", old.Cloud, now.Cloud)
	}
	if old.Credential != now.Credential {
		w.add("/credential", "Keyroll acts in the tenant with another credential", old.Credential, now.Credential)
	}
	if strict(old.Approval) && !strict(now.Approval) {
		w.add("/approval", "rolls begin without a second person", ApprovalRequired, ApprovalNotRequired)
	}
	if perTenant(old.SharePoint.Lease) && !perTenant(now.SharePoint.Lease) {
		w.add("/sharepoint/lease", "SharePoint operations of several geos may run at once", LeasePerTenant, LeasePerGeo)
	}
	if now.SharePoint.MinGap < old.SharePoint.MinGap {
		w.add("/sharepoint/min_gap", "the pause between Primary and Secondary is shorter",
			time.Duration(old.SharePoint.MinGap).String(), time.Duration(now.SharePoint.MinGap).String())
	}
	w.geos(old, now)
	w.hosts(old, now)
	w.transports(old, now)
	if now.Diagnostics != nil {
		before := ""
		if old.Diagnostics != nil {
			before = old.Diagnostics.WorkspaceID
		}
		w.changed("/diagnostics/workspace_id", "evidence in_use is taken from this log", before, now.Diagnostics.WorkspaceID)
	}
	w.calendar(old, now)
	w.principals(old.Azure.ServicePrincipals, now.Azure.ServicePrincipals)
	w.vetoes(old.Vetoes, now.Vetoes)
	slices.SortFunc(w.found, func(a, b Weakening) int { return cmp.Compare(a.Pointer, b.Pointer) })
	return w.found
}

// WeakensDefaults is Weakens for a first declaration, which nobody has agreed
// to before: held against what holds where a declaration says nothing.
func WeakensDefaults(first Inventory) []Weakening {
	plain := first
	plain.Approval, plain.Vetoes, plain.Transports, plain.Automation, plain.Diagnostics = ApprovalRequired, nil, TransportSettings{}, nil, nil
	plain.SharePoint.Geos = slices.Clone(first.SharePoint.Geos)
	for i := range plain.SharePoint.Geos {
		plain.SharePoint.Geos[i].Transport = ""
	}
	return Weakens(plain, first)
}

func strict(approval string) bool { return approval != ApprovalNotRequired }
func perTenant(lease string) bool { return lease != LeasePerGeo }

type weakenings struct{ found []Weakening }

func (w *weakenings) add(pointer, what, from, to string) {
	w.found = append(w.found, Weakening{Pointer: pointer, What: what, From: from, To: to})
}

func (w *weakenings) changed(pointer, what, from, to string) {
	if !strings.EqualFold(from, to) {
		w.add(pointer, what, from, to)
	}
}

func (w *weakenings) geos(old, now Inventory) {
	for _, g := range old.SharePoint.Geos {
		switch seen, ok := now.GeoByID(g.ID); {
		case !ok:
			w.add("/sharepoint/geos/"+g.ID, "a SharePoint geo is no longer looked after", g.AdminURL, "")
		case !strings.EqualFold(strings.TrimSuffix(seen.AdminURL, "/"), strings.TrimSuffix(g.AdminURL, "/")):
			w.add("/sharepoint/geos/"+g.ID, "the geo's admin site is another host", g.AdminURL, seen.AdminURL)
		}
	}
	for _, g := range now.SharePoint.Geos {
		if _, ok := old.GeoByID(g.ID); !ok {
			w.add("/sharepoint/geos/"+g.ID, "a SharePoint geo is added", "", g.AdminURL)
		}
	}
}

// transports: by hand means that a person's word stands where Keyroll would
// look, and a runbook acts with the rights of its own account.
func (w *weakenings) transports(old, now Inventory) {
	toManual := func(pointer, from, to string) {
		if to == string(Manual) && from != to {
			w.add(pointer, "changes are made, and attested, by a person", from, to)
		}
	}
	toManual("/transports/exchange", cmp.Or(old.Transports.Exchange, TransportAuto), now.Transports.Exchange)
	toManual("/transports/sharepoint", cmp.Or(old.Transports.SharePoint, TransportAuto), now.Transports.SharePoint)
	for _, g := range now.SharePoint.Geos {
		// A geo that says nothing any more follows the tenant.
		before, _ := old.GeoByID(g.ID)
		to := g.Transport
		if before.Transport != "" {
			to = cmp.Or(to, now.Transports.SharePoint)
		}
		toManual("/sharepoint/geos/"+g.ID+"/transport", cmp.Or(before.Transport, old.Transports.SharePoint, TransportAuto), to)
	}
	if now.Automation == nil {
		return
	}
	var before AutomationAccount
	if old.Automation != nil {
		before = *old.Automation
	}
	w.changed("/automation/account", "runbooks of this Azure Automation account change keys", before.Account, now.Automation.Account)
	if before.Account != "" {
		w.changed("/automation/run_on", "runbooks run on other machines", before.RunOn, now.Automation.RunOn)
	}
}

// hosts: the credential's tokens go to no vault that a second person has not
// seen declared, and a declared key does not move to another vault unseen.
func (w *weakenings) hosts(old, now Inventory) {
	known, of := map[string]bool{}, map[string]string{}
	for _, k := range slices.Concat(old.Keys, old.FormerKeys) {
		known[k.Ref().Host], of[k.ID] = true, k.Ref().Host
	}
	for _, list := range []struct {
		at   string
		keys []Key
	}{{"/keys/", now.Keys}, {"/former_keys/", now.FormerKeys}} {
		for _, k := range list.keys {
			host := k.Ref().Host
			switch before, declared := of[k.ID]; {
			case declared && before != host:
				w.add(list.at+k.ID, "the key is looked for in another vault", before, host)
			case !known[host]:
				w.add(list.at+k.ID, "a vault is added that no key was declared in before", "", host)
			}
		}
	}
}

// calendar: what an emergency needs two people for, a declaration does not let
// one person do alone.
func (w *weakenings) calendar(old, now Inventory) {
	if len(old.Windows) > 0 {
		if len(now.Windows) == 0 {
			w.add("/windows", "steps begin at any time", fmt.Sprintf("%d windows", len(old.Windows)), "none")
		}
		for i, n := range now.Windows {
			if !slices.ContainsFunc(old.Windows, func(o Window) bool {
				return slices.Equal(o.Days, n.Days) && o.Start == n.Start && o.Duration == n.Duration && o.Zone == n.Zone
			}) {
				w.add(fmt.Sprintf("/windows/%d", i), "steps begin at times that were not declared before", "", n.Start+" "+strings.Join(n.Days, ",")+" for "+time.Duration(n.Duration).String())
			}
		}
	}
	for i, o := range old.Freezes {
		if !slices.ContainsFunc(now.Freezes, func(n Freeze) bool { return !n.From.After(o.From) && !n.To.Before(o.To) }) {
			w.add(fmt.Sprintf("/freezes/%d", i), "a freeze is taken away or cut short: "+o.Reason, o.From.UTC().Format(time.RFC3339)+" to "+o.To.UTC().Format(time.RFC3339), "")
		}
	}
}

// principals: what was declared once is checked; a first id only adds a check.
func (w *weakenings) principals(old, now ServicePrincipals) {
	for _, p := range []struct{ pointer, from, to string }{
		{"/azure/service_principals/exchange", old.Exchange, now.Exchange},
		{"/azure/service_principals/sharepoint", old.SharePoint, now.SharePoint},
		{"/azure/service_principals/multi_workload", old.MultiWorkload, now.MultiWorkload},
	} {
		if p.from != "" {
			w.changed(p.pointer, "the service's rights are looked for at another principal", p.from, p.to)
		}
	}
}

// vetoes: what counts is how a finding is judged before and after, whether a
// veto says so or none does.
func (w *weakenings) vetoes(old, now map[string]string) {
	codes := maps.Clone(old)
	if codes == nil {
		codes = map[string]string{}
	}
	maps.Copy(codes, now)
	for code := range codes {
		kind, ok := KindOfFinding(code)
		if !ok {
			continue
		}
		from, to := cmp.Or(Level(old[code]), kind.Level), cmp.Or(Level(now[code]), kind.Level)
		if levelOrder(to) > levelOrder(from) {
			w.add("/vetoes/"+code, "this finding no longer weighs as much: "+kind.Means, string(from), string(to))
		}
	}
}
