package roll

import "fmt"

func replaceKinds() []FindingKind {
	e := func(code, seen, means, remedy string) FindingKind {
		return FindingKind{Code: code, Level: LevelError, Seen: seen, Means: means, Remedy: remedy}
	}
	return []FindingKind{
		e("replacement_not_possible", seenDeclared, "the slot to be given another key is not declared (any more)", "correct the declaration, or cancel"),
		e("replacement_key_in_use", seenDeclared, "a slot takes a key that no policy uses", "replace by a key that no policy uses"),
		e("replacement_in_other_slot", seenSharePoint, "one key must never be in both slots", "replace by another key, in another vault"),
		e("replacement_same_vault", seenSharePoint, "a policy has two keys in two vaults", "replace by a key in another vault"),
		e("managed_hsm_not_nameable", seenDeclared, "SharePoint's way of this transport names a vault by its short name, and so cannot name a Managed HSM", "declare the automation or the manual transport for SharePoint, or use a key in a vault"),
		{Code: "replaced_key_unusable", Level: LevelWarning, Seen: seenKey, Means: "SharePoint may need the key that leaves the slot until it has taken the new one up", Remedy: "recover or enable the old key first, if it can be done"},
	}
}

// replacements looks at the slots that take another key.
func (c *inspection) replacements() {
	for _, r := range c.asked {
		if p, ok := c.inv.PolicyByID(r.Policy); !ok || p.Workload != SharePoint {
			c.err("policy:"+r.Policy, "replacement_not_possible", "policy "+r.Policy+" is not declared as a SharePoint policy any more", "declare it again, or cancel")
		}
	}
	for _, r := range c.plan.Replaces {
		p, _ := c.inv.PolicyByID(r.Policy)
		k, ok := c.inv.KeyByID(r.Key)
		if !ok {
			c.err("policy:"+r.Policy, "replacement_not_possible", "key "+r.Key+", which is to go into the "+string(r.Slot)+" slot, is not declared any more", "declare it again, or cancel")
			continue
		}
		c.fault("policy:"+r.Policy, CheckReplacement(c.inv, p, r.Slot, c.obs.SharePoint[p.Geo], k))
		old, _ := c.inv.KeyByID(r.OldKey)
		switch ko := c.obs.Keys[r.OldKey]; {
		case ko.Trouble != nil:
			c.warn("key:"+r.OldKey, "replaced_key_unusable", "reading key "+old.Name+", which leaves the "+string(r.Slot)+" slot, failed: "+ko.Trouble.Detail,
				"SharePoint may need it until it has taken the new one up: "+keyTroubleRemedy(ko.Trouble.Code))
		default:
			if f := CheckUsable(old, ko.Latest, c.now); f != nil {
				c.warn("key:"+r.OldKey, "replaced_key_unusable", f.Seen+"; it leaves the "+string(r.Slot)+" slot", "SharePoint may need it until it has taken the new one up: "+f.Remedy)
			}
		}
	}
}

// nameable: SharePoint's methods name a vault by its short name, which a
// Managed HSM has not. Microsoft's cmdlet has a second form that takes a URI;
// the runbook and the manual step use it.
func (c *inspection) nameable() {
	for _, s := range c.plan.Steps {
		if s.Kind != SharePointRollKey || !s.Params.ByURI || s.Params.Transport != Native {
			continue
		}
		k, _ := c.inv.KeyByID(s.Key)
		c.err("key:"+s.Key, "managed_hsm_not_nameable", fmt.Sprintf("key %s is in a Managed HSM (%s), which SharePoint cannot be told by the transport %s: it names a vault by its short name", k.Name, k.Ref().Host, s.Params.Transport.Name(SharePoint)),
			`declare "transports": {"sharepoint": "automation"} or "manual", whose cmdlet names the key by its URI; or use a key in a vault`)
	}
}
