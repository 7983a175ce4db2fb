package roll

import (
	"cmp"
	"slices"
	"strings"
)

// exchangeRemedy is for reads of Exchange that were refused.
const exchangeRemedy = "grant Keyroll's application Exchange.ManageAsApp and the role that reads data encryption policies; the tenant's checklist has the commands"

// UsesExchange says whether the declaration has a policy that lives in
// Exchange. A tenant without one needs to grant no right there.
func (inv Inventory) UsesExchange() bool {
	return slices.ContainsFunc(inv.Policies, func(p Policy) bool { return p.Workload != SharePoint })
}

// policies compares the Exchange and multi-workload policies, both ways.
func (c *comparison) policies() {
	for _, w := range []Workload{MultiWorkload, Exchange} {
		source := "workload:" + string(w)
		if t, ok := c.Observation.Troubles[w]; ok {
			c.skip(source, source, t.Code, t.Detail, exchangeRemedy)
			continue
		}
		if !c.Inventory.UsesExchange() {
			c.skip(source, source, CodeNotAsked, "no policy of Exchange is declared, so Exchange is not asked", "nothing, unless the tenant has such a policy: then declare it")
			continue
		}
		for _, p := range c.Inventory.Policies {
			if p.Workload == w {
				c.policy(source, p)
			}
		}
		for _, u := range c.Observation.Undeclared {
			if u.Workload == w {
				c.add(DriftPolicyExtra, "policy:"+cmp.Or(u.GUID, u.Name), source, "no such policy",
					"policy "+u.Name+" ("+u.GUID+") with the keys "+strings.Join(u.AzureKeyIDs, ", "),
					"declare it with its keys, so that rolls refresh it and its key versions are kept")
			}
		}
	}
}

func (c *comparison) policy(source string, p Policy) {
	subject := "policy:" + p.ID
	seen := c.Observation.Policies[p.ID]
	switch {
	case seen.Trouble != nil:
		c.skip(subject, source, seen.Trouble.Code, seen.Trouble.Detail, exchangeRemedy)
		return
	case !seen.Found:
		c.add(DriftPolicyMissing, subject, source, "policy "+p.Name+" ("+p.GUID+")", "no policy with this GUID exists at Microsoft",
			"correct the declared GUID, or declare the policy that took its place; the ledger keeps the versions of its keys")
		return
	}
	if !seen.Enabled {
		c.add(DriftPolicyDisabled, subject, source, "enabled", "policy "+seen.Name+" is disabled", "enable the policy at Microsoft, or take it out of the declaration")
	}
	if seen.PurgeRequested {
		c.add(DriftPolicyPurge, subject, source, "no data purge", "a permanent data purge has been requested on policy "+seen.Name,
			"stop: speak to Microsoft support before anything else touches this policy")
	}
	if p.Name != "" && seen.Name != p.Name {
		c.add(DriftPolicyRenamed, subject, source, p.Name, seen.Name, "correct the declared name", seen.Name)
	}
	want := make([]string, 0, len(p.KeyIDs()))
	for _, id := range p.KeyIDs() {
		k, _ := c.Inventory.KeyByID(id)
		want = append(want, k.URI(""))
	}
	if !sameKeys(want, seen.AzureKeyIDs) {
		shown := slices.Sorted(slices.Values(seen.AzureKeyIDs))
		c.add(DriftPolicyKeys, subject, source, strings.Join(want, ", "), strings.Join(shown, ", "),
			"find out who changed the policy's keys; then correct the declaration, keeping the old keys under former_keys. A key that is named with a version must be named without one before it can be rolled", shown...)
	}
}

// sameKeys says whether both lists name the same keys, none with a version.
func sameKeys(want, got []string) bool {
	form := func(list []string) []string {
		out := make([]string, 0, len(list))
		for _, uri := range list {
			ref, ok := ParseKeyURI(uri)
			if !ok {
				ref = KeyRef{Name: uri}
			}
			out = append(out, ref.Host+"/"+strings.ToLower(ref.Name)+"/"+ref.Version)
		}
		return out
	}
	return sameSet(form(want), form(got))
}

// assignment compares which multi-workload policy the tenant is assigned with
// those that it declares. What the cmdlet returns is not documented, so an
// answer that names no policy that is known proves nothing.
func (c *comparison) assignment() {
	const source = "assignment"
	var declared []string
	for _, p := range c.Inventory.Policies {
		if p.Workload == MultiWorkload {
			declared = append(declared, cmp.Or(p.Name, p.GUID))
		}
	}
	o := c.Observation.Assignment
	switch {
	case len(declared) == 0:
		return
	case o == nil:
		c.skip(source, source, "unread", "which multi-workload policy is assigned to the tenant was not read", exchangeRemedy)
		return
	case o.Trouble != nil:
		c.skip(source, source, o.Trouble.Code, o.Trouble.Detail, exchangeRemedy)
		return
	case !o.Assigned:
		c.add(DriftAssignment, source, source, strings.Join(declared, " or "), "no multi-workload policy is assigned to the tenant",
			"assign the declared policy (Set-M365DataAtRestEncryptionPolicyAssignment), or take it out of the declaration", "none")
		return
	}
	for _, p := range c.Inventory.Policies {
		if seen := c.Observation.Policies[p.ID]; p.Workload == MultiWorkload && seen.Found && o.names(seen) {
			return
		}
	}
	for _, u := range c.Observation.Undeclared {
		if u.Workload == MultiWorkload && o.names(u) {
			c.add(DriftAssignment, source, source, strings.Join(declared, " or "), "policy "+u.Name+" ("+u.GUID+") is assigned to the tenant",
				"declare the policy that is assigned, or assign the declared one again (Set-M365DataAtRestEncryptionPolicyAssignment)", cmp.Or(u.GUID, u.Name))
			return
		}
	}
	c.skip(source, source, "assignment_unclear", "the policy that is assigned to the tenant, "+cmp.Or(o.Name, o.GUID)+", is none of those that Exchange lists",
		"look at it in Exchange Online PowerShell: Get-M365DataAtRestEncryptionPolicyAssignment")
}

// names says whether the assignment is of the policy.
func (o AssignmentObservation) names(p PolicyObservation) bool {
	return o.GUID != "" && strings.EqualFold(o.GUID, p.GUID) || o.Name != "" && o.Name == p.Name
}
