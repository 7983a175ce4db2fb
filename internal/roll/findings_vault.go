package roll

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// vaultKinds are what Azure Resource Manager shows. Nothing there breaks a
// roll but a service, a firewall or Keyroll's own rights that are known to be
// in the way; the rest is Microsoft's set-up, and advice.
func vaultKinds() []FindingKind {
	kind := func(l Level, code, rows, means, remedy string) FindingKind {
		return FindingKind{Code: code, Level: l, Rows: rows, Seen: seenAzure, Means: means, Remedy: remedy}
	}
	e := func(code, rows, means, remedy, weakenable string) FindingKind {
		k := kind(LevelError, code, rows, means, remedy)
		k.Weakenable = weakenable
		return k
	}
	w := func(code, rows, means, remedy string) FindingKind {
		return kind(LevelWarning, code, rows, means, remedy)
	}
	n := func(code, rows, means, remedy string) FindingKind {
		return kind(LevelNotChecked, code, rows, means, remedy)
	}
	const mayBeWrong = "what Resource Manager shows can lag or be incomplete, and Microsoft itself refuses a roll that it cannot wrap"
	return []FindingKind{
		e("service_principal_denied", "15", "Microsoft 365 cannot use the key without get, wrapKey and unwrapKey", "give the service the role Key Vault Crypto Service Encryption User on the vault, or an access policy with get, wrapKey and unwrapKey", mayBeWrong),
		e("vault_firewall_denies_microsoft", "17", "a vault behind a firewall admits Microsoft 365 only as a trusted service", "allow trusted Microsoft services to bypass the vault's firewall", mayBeWrong),
		e("credential_lacks_rights", "16", "Keyroll needs get, list and create on the keys that it rolls", "give Keyroll's application a role with keys/read and keys/create/action on the vault, or an access policy with get, list and create", mayBeWrong),
		w("one_subscription", "1", "a policy's two keys are in two subscriptions", "plan a move of one key to a vault of another subscription: whoever loses one subscription must not lose both keys"),
		w("subscription_not_paid", "2", "free, trial, sponsored and MSDN subscriptions are not eligible", "move the vault's subscription to a paid offer"),
		w("subscription_not_enabled", "2", "a subscription that is not Enabled may stop serving its vaults", "bring the subscription back to Enabled before anything else"),
		w("vault_shared", "3", "each policy has a pair of vaults of its own", "plan vaults of its own for each policy"),
		w("one_region", "4", "a policy's two keys are in two regions", "plan a move of one key to a vault of another region"),
		w("paired_regions", "4", "the two regions are not a pair, where possible", "plan a move of one key to a region that is not paired with the other's"),
		w("same_administrator", "5", "no one person can damage both keys", "let different people manage the two vaults"),
		w("soft_delete_off", "6", "soft delete is a prerequisite", "turn soft delete on (az keyvault update --enable-soft-delete true)"),
		w("retention_days", "7", "deleted keys are kept for 90 days", "plan a move to a vault with 90 days: they are fixed when a vault is made"),
		w("purge_protection_off", "8", "purge protection keeps a deleted key from being purged", "turn purge protection on (az keyvault update --enable-purge-protection true)"),
		w("retention_period_off", "10", "the mandatory retention period keeps the subscription from being cancelled under its keys", "register the feature mandatoryRetentionPeriodEnabled of Microsoft.Resources, then register Microsoft.KeyVault again"),
		w(codeMayDelete, "16", "whoever rolls keys needs no right to delete or purge them", "replace Keyroll's role by a custom one with keys/read and keys/create/action, or take delete and purge out of its access policy"),
		w("standard_vault", "18", "Microsoft recommends Premium vaults for production", "plan a move to a Premium vault with HSM keys"),
		w("no_delete_lock", "20", "a lock keeps a vault from being deleted by mistake (Keyroll's advice; Microsoft asks for none)", "put a CanNotDelete lock on the vault or its resource group"),
		n("vault_not_checked", "1, 2, 4–8, 10, 15–18, 20", "what only Resource Manager shows of the vault is not known", "grant Keyroll's application the role Reader on the vault's subscription"),
		n("service_principal_not_checked", "15", "whether Microsoft 365 may use the key is not known", "declare the service's object id as azure.service_principals, and let the rights be its own, not a group's"),
		n("credential_not_checked", "16", "what Keyroll's own identity may do is not known", "give its rights to the application itself, by role or access policy"),
		n("locks_not_checked", "20", "whether a lock holds for the vault is not known", "grant Keyroll's application the role Reader on the vault's subscription"),
		n("retention_period_not_checked", "10", "whether the mandatory retention period holds is not known", "grant Keyroll's application the role Reader on the vault's subscription"),
		n("network_not_checked", "17", "whether a firewall keeps Microsoft 365 out is not known", "look at the vault's networking in Azure"),
	}
}

// azure holds what Resource Manager shows against the rules of set-up. Only
// an error of it is part of the plan's hash: the rest comes and goes with what
// may be read there, and a plan is not a different one because of that.
func (c *inspection) azure() {
	users := map[string][]PlanPolicy{} // host → policies of the plan
	for _, p := range c.plan.Policies {
		for _, id := range p.Keys {
			if k, ok := c.inv.KeyByID(id); ok {
				host := k.Ref().Host
				if !slices.ContainsFunc(users[host], func(q PlanPolicy) bool { return q.ID == p.ID }) {
					users[host] = append(users[host], p)
				}
			}
		}
		c.pair(p)
	}
	for _, host := range slices.Sorted(maps.Keys(users)) {
		c.shared(host)
		if why := c.obs.unseen(host); why != nil {
			c.of("vault:"+host, "vault_not_checked", "purge protection, retention, firewall, rights, locks and subscription of vault "+host+" were not checked: "+why.Detail)
			continue
		}
		v := c.obs.Vaults[host]
		c.setUp(host, v)
		c.judged(host, v.judgeNetwork(host))
		c.services(host, v, users[host])
		c.own(host, v)
	}
}

// of makes a finding of the catalogue's level and remedy. more, where given,
// follows the remedy.
func (c *inspection) of(subject, code, seen string, more ...string) {
	kind, _ := KindOfFinding(code)
	c.found = append(c.found, Finding{Code: code, Level: kind.Level, Subject: subject, Seen: seen,
		Remedy: strings.Join(append([]string{kind.Remedy}, more...), ": "), Passing: kind.Level != LevelError})
}

// judged makes the finding of a judgement that is not in order.
func (c *inspection) judged(host string, j judgement) {
	if j.code != "" {
		c.of("vault:"+host, j.code, j.seen, j.more...)
	}
}

// shared is seen in the declaration alone.
func (c *inspection) shared(host string) {
	var ids []string
	for _, p := range c.inv.Policies {
		if slices.ContainsFunc(p.KeyIDs(), func(id string) bool { k, ok := c.inv.KeyByID(id); return ok && k.Ref().Host == host }) {
			ids = append(ids, p.ID)
		}
	}
	if len(ids) > 1 {
		c.of("vault:"+host, "vault_shared", "vault "+host+" holds keys of the policies "+strings.Join(ids, ", "))
	}
}

// pair compares the two vaults of a policy.
func (c *inspection) pair(p PlanPolicy) {
	var seen []VaultObservation
	for _, id := range p.Keys {
		k, _ := c.inv.KeyByID(id)
		if v, ok := c.obs.Vaults[k.Ref().Host]; ok && v.Trouble == nil {
			seen = append(seen, v)
		}
	}
	if len(seen) != 2 || seen[0].ID == seen[1].ID {
		return
	}
	a, b, subject := seen[0], seen[1], "policy:"+p.ID
	if a.Subscription == b.Subscription {
		c.of(subject, "one_subscription", "both keys of policy "+p.ID+" are in subscription "+a.Subscription)
	}
	switch {
	case a.Location == b.Location:
		c.of(subject, "one_region", "both keys of policy "+p.ID+" are in region "+a.Location)
	case slices.Contains(a.Paired, b.Location) || slices.Contains(b.Paired, a.Location):
		c.of(subject, "paired_regions", "the keys of policy "+p.ID+" are in "+a.Location+" and "+b.Location+", which Azure pairs")
	}
	var both []string
	for _, g := range a.Grants {
		dangerous := func(g VaultGrant) bool {
			return g.Manages || slices.Contains(g.May, MayDelete) || slices.Contains(g.May, MayPurge)
		}
		if dangerous(g) && !strings.EqualFold(g.Principal, c.obs.Self) && !slices.Contains(both, g.Principal) &&
			slices.ContainsFunc(b.Grants, func(h VaultGrant) bool { return h.Principal == g.Principal && dangerous(h) }) {
			both = append(both, g.Principal)
		}
	}
	if len(both) > 0 {
		c.of(subject, "same_administrator", fmt.Sprintf("%d principal(s) may delete keys of, or change, both vaults of policy %s: %s", len(both), p.ID, strings.Join(both, ", ")))
	}
}

// unpaid are parts of the quota ids of offers that are not eligible.
func unpaid(quota string) bool {
	for _, part := range []string{"FreeTrial", "Sponsored", "MSDN", "AzurePass", "AzureForStudents", "BizSpark", "DreamSpark", "MPN"} {
		if strings.Contains(strings.ToLower(quota), strings.ToLower(part)) {
			return true
		}
	}
	return false
}

// setUp is how the vault and its subscription were made.
func (c *inspection) setUp(host string, v VaultObservation) {
	subject := "vault:" + host
	if unpaid(v.Quota) {
		c.of(subject, "subscription_not_paid", "subscription "+v.Subscription+" is of the offer "+v.Quota)
	}
	if v.SubscriptionState != "" && v.SubscriptionState != "Enabled" {
		c.of(subject, "subscription_not_enabled", "subscription "+v.Subscription+" is "+v.SubscriptionState)
	}
	if v.SoftDelete != nil && !*v.SoftDelete {
		c.of(subject, "soft_delete_off", "vault "+host+" has soft delete off")
	}
	if v.RetentionDays != nil && *v.RetentionDays < minRecoverableDays {
		c.of(subject, "retention_days", fmt.Sprintf("vault %s keeps deleted keys for %d days", host, *v.RetentionDays))
	}
	if v.PurgeProtection != nil && !*v.PurgeProtection {
		c.of(subject, "purge_protection_off", "vault "+host+" has no purge protection")
	}
	if v.SKU == "standard" {
		c.of(subject, "standard_vault", "vault "+host+" is of the SKU Standard")
	}
	switch {
	case v.RetentionTrouble != nil:
		c.of(subject, "retention_period_not_checked", "whether subscription "+v.Subscription+" has the mandatory retention period was not checked: "+v.RetentionTrouble.Detail)
	case v.Retention != "Registered":
		c.of(subject, "retention_period_off", "the mandatory retention period of subscription "+v.Subscription+" is "+v.Retention)
	}
	switch {
	case v.LocksTrouble != nil:
		c.of(subject, "locks_not_checked", "resource locks of vault "+host+" were not checked: "+v.LocksTrouble.Detail)
	case len(v.Locks) == 0:
		c.of(subject, "no_delete_lock", "no resource lock holds for vault "+host)
	}
}

// services: the one that wraps for each policy must be able to.
func (c *inspection) services(host string, v VaultObservation, users []PlanPolicy) {
	done := map[Workload]bool{}
	for _, p := range users {
		if !done[p.Workload] {
			done[p.Workload] = true
			c.judged(host, v.judgeService(host, p.Workload, c.inv.Azure.ServicePrincipals.Of(p.Workload)))
		}
	}
}

// own: what Keyroll's identity may do, and may not.
func (c *inspection) own(host string, v VaultObservation) {
	wanted := []KeyRight{MayGet, MayList}
	if slices.ContainsFunc(c.plan.Keys, func(pk PlanKey) bool {
		k, _ := c.inv.KeyByID(pk.ID)
		return k.Ref().Host == host && pk.Version == NewVersion
	}) {
		wanted = append(wanted, MayCreate)
	}
	c.judged(host, v.judgeOwn(host, c.obs.Self, wanted...))
	if j := v.judgeBounds(host, c.obs.Self); j.code == codeMayDelete {
		c.judged(host, j)
	}
}
