package roll

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// Limits that findings look at. A vault's backup fails past 500 versions
// (customer-key.md 5.4), and versions cannot be removed, so the warning comes early.
const (
	manyVersions       = 400
	minRecoverableDays = 90
	maxTags            = 15 // per key version (customer-key.md 5.7)
)

// inspect holds the observation against the plan and returns what a person
// must know, errors first, in a stable order.
func inspect(c *inspection) []Finding {
	p := c.plan
	for _, k := range p.Keys {
		c.key(k, true)
	}
	for _, k := range p.OtherKeys {
		c.key(k, false)
	}
	for _, pol := range p.Policies {
		c.vaults(pol)
		if pol.Workload == SharePoint {
			c.sharePoint(pol)
		} else {
			c.exchange(pol)
		}
	}
	c.replacements()
	c.nameable()
	c.backups()
	c.unproven()
	c.undeclared()
	c.azure()
	judge(c.inv.Vetoes, c.found)
	slices.SortStableFunc(c.found, func(a, b Finding) int {
		return cmp.Or(cmp.Compare(levelOrder(a.Level), levelOrder(b.Level)), strings.Compare(a.Code, b.Code),
			strings.Compare(a.Subject, b.Subject), strings.Compare(a.Seen, b.Seen))
	})
	return c.found
}

type inspection struct {
	inv  Inventory
	plan Plan
	obs  Observation
	now  time.Time
	// migrates: the roll's aim is a newer HSM platform.
	migrates bool
	// asked are the replacements of the request.
	asked []Replacement
	found []Finding
}

func (c *inspection) err(subject, code, seen, remedy string) {
	c.found = append(c.found, Finding{Code: code, Level: LevelError, Subject: subject, Seen: seen, Remedy: remedy})
}

func (c *inspection) warn(subject, code, seen, remedy string) {
	c.found = append(c.found, Finding{Code: code, Level: LevelWarning, Subject: subject, Seen: seen, Remedy: remedy})
}

func (c *inspection) notChecked(subject, code, seen, remedy string) {
	c.found = append(c.found, Finding{Code: code, Level: LevelNotChecked, Subject: subject, Seen: seen, Remedy: remedy})
}

func (c *inspection) fault(subject string, f *Fault) {
	if f != nil {
		c.err(subject, f.Code, f.Seen, f.Remedy)
	}
}

// has says that the finding is there already.
func (c *inspection) has(subject, code string) bool {
	return slices.ContainsFunc(c.found, func(f Finding) bool { return f.Subject == subject && f.Code == code })
}

func (c *inspection) key(pk PlanKey, rolled bool) {
	subject := "key:" + pk.ID
	k, _ := c.inv.KeyByID(pk.ID)
	ko, ok := c.obs.Keys[pk.ID]
	if !ok || ko.Trouble != nil {
		t := Trouble{Code: "unread", Detail: "it was not read"}
		if ko.Trouble != nil {
			t = *ko.Trouble
		}
		c.err(subject, "key_unreadable", fmt.Sprintf("reading key %s in vault %s failed: %s", pk.Name, k.VaultName(), t.Detail), keyTroubleRemedy(t.Code))
		return
	}
	v := ko.Latest
	c.validity(subject, k, v, rolled && pk.Version == v.Version)
	c.kind(subject, k, v)
	c.recovery(subject, k, ko)
	c.hsm(subject, k, pk, ko, rolled)
	if rolled {
		c.rotation(subject, k, ko)
		c.adoption(subject, k, pk, ko)
	}
}

// validity of the newest version: what a policy uses today and what a new
// version copies. One that is to be adopted is put to use by this roll alone,
// which waits for its nbf.
func (c *inspection) validity(subject string, k Key, v KeyVersion, adopted bool) {
	if v.Expires != nil && !v.Expires.After(c.now) {
		c.err(subject, "key_expired", fmt.Sprintf("version %s of key %s expired on %s", v.Version, k.Name, v.Expires.UTC().Format(time.RFC3339)),
			"speak to Microsoft support first: data may be unreadable now. "+expiryRemedy)
		return
	}
	f := CheckUsable(k, v, c.now)
	if adopted && f != nil && f.Code == "key_not_before_future" {
		c.found = append(c.found, Finding{Code: "adopt_not_before", Level: LevelWarning, Subject: subject, Passing: true, Seen: f.Seen,
			Remedy: "nothing: the roll waits until then before anything uses the version"})
		return
	}
	c.fault(subject, f)
}

func (c *inspection) kind(subject string, k Key, v KeyVersion) {
	if v.Kty != "RSA" && v.Kty != "RSA-HSM" {
		c.err(subject, "key_wrong_type", fmt.Sprintf("key %s is of type %s; Customer Key needs RSA", k.Name, v.Kty), "use an RSA or RSA-HSM key for the policy")
	}
	if !slices.Contains(v.KeyOps, "wrapKey") || !slices.Contains(v.KeyOps, "unwrapKey") {
		c.err(subject, "key_ops_missing", fmt.Sprintf("key %s permits %v; Customer Key needs wrapKey and unwrapKey", k.Name, v.KeyOps), "use a key made with key_ops wrapKey and unwrapKey")
	}
	if v.Kty == "RSA" {
		c.warn(subject, "software_key", "key "+k.Name+" is protected by software", "Microsoft recommends HSM keys (RSA-HSM in a Premium vault) for production")
	}
}

func (c *inspection) recovery(subject string, k Key, ko KeyObservation) {
	v := ko.Latest
	if v.RecoveryLevel != "Recoverable+ProtectedSubscription" {
		c.warn(subject, "recovery_level", "key "+k.Name+" has recovery level "+v.RecoveryLevel,
			"Microsoft's set-up asks for Recoverable+ProtectedSubscription: turn on soft delete and purge protection and register the mandatory retention period")
	}
	if v.RecoverableDays < minRecoverableDays {
		c.warn(subject, "recovery_days", fmt.Sprintf("vault %s keeps deleted keys for %d days", k.VaultName(), v.RecoverableDays),
			"Customer Key asks for 90 days, which is fixed when a vault is made: plan a move to a vault that has them")
	}
	if len(ko.Versions) >= manyVersions {
		c.warn(subject, "many_versions", fmt.Sprintf("key %s has %d versions; backup fails past 500", k.Name, len(ko.Versions)), "plan to replace the key by a new one")
	}
	for _, old := range ko.Versions {
		if old.Version != v.Version && !old.Enabled {
			c.warn(subject, "older_version_disabled", "version "+old.Version+" of key "+k.Name+" is disabled",
				"enable it again: content may still be encrypted with it")
		}
	}
}

func (c *inspection) rotation(subject string, k Key, ko KeyObservation) {
	if !ko.Rotation.Readable {
		c.warn(subject, "rotation_policy_unreadable", "the rotation policy of key "+k.Name+" may not be read", "grant get on the key's rotation policy, so that Keyroll can see whether it would stamp an expiry")
		return
	}
	if ko.Rotation.ExpiryTime != "" {
		c.err(subject, "rotation_policy_expiry", fmt.Sprintf("the rotation policy of key %s stamps an expiry of %s on every new version", k.Name, ko.Rotation.ExpiryTime),
			"take the expiry time out of the key's rotation policy: an expired key stops Microsoft 365 from reading its data")
	}
	if ko.Rotation.AutoRotate {
		c.warn(subject, "rotation_policy_rotates", "the rotation policy of key "+k.Name+" makes versions by itself, which no policy takes up without a refresh", "turn automatic rotation off, or let Keyroll adopt its versions")
	}
}

func (c *inspection) adoption(subject string, k Key, pk PlanKey, ko KeyObservation) {
	if pk.Version == NewVersion {
		c.leftBehind(subject, k, ko)
		c.tags(subject, k, ko)
		c.size(subject, k, pk, ko)
		return
	}
	v, ok := ko.ByVersion(pk.Version)
	switch {
	case !ok:
		c.err(subject, "adopt_version_missing", "key "+k.Name+" has no version "+pk.Version, "name a version that the vault lists")
	case ko.Latest.Version != pk.Version:
		c.err(subject, "adopt_version_not_newest", fmt.Sprintf("version %s of key %s is not the newest (%s is), and a refresh takes the newest", pk.Version, k.Name, ko.Latest.Version), "adopt the newest version, or ask for a new one")
	default:
		if old, ok := ko.ByVersion(pk.OldVersion); ok && old.Kty != "" {
			if f := CheckNewVersion(k, old, merge(v, ko.Latest), pk.Size); f != nil && !c.has(subject, f.Code) {
				c.fault(subject, f)
			}
			if !maps.Equal(SpecFrom(old, 0, nil).Tags, SpecFrom(merge(v, ko.Latest), 0, nil).Tags) {
				c.warn(subject, "adopt_tags_differ", fmt.Sprintf("version %s of key %s does not carry the tags of its predecessor", pk.Version, k.Name),
					"set the tags in the vault if your tooling goes by them; Customer Key does not")
			}
		}
	}
}

// tags: a new version copies its predecessor's and carries the operation's as well.
func (c *inspection) tags(subject string, k Key, ko KeyObservation) {
	if n := len(SpecFrom(ko.Latest, 0, nil).Tags); n >= maxTags {
		c.err(subject, "too_many_tags", fmt.Sprintf("the newest version of key %s has %d tags; a vault takes %d, and the operation's own tag is one of them", k.Name, n, maxTags),
			"take a tag off the newest version")
	}
}

// merge fills what a version listing leaves out (kty, size, key_ops) from a full read.
func merge(listed, full KeyVersion) KeyVersion {
	if full.Version == listed.Version {
		return full
	}
	return listed
}

// leftBehind offers versions that an earlier roll made and no policy took up
// (rule 11): newest in the vault, carrying an operation's tag, in no slot.
func (c *inspection) leftBehind(subject string, k Key, ko KeyObservation) {
	if ko.Latest.Tags[OperationTag] == "" {
		return
	}
	for _, p := range c.inv.PoliciesUsing(k.ID) {
		if p.Workload != SharePoint {
			continue
		}
		o := c.obs.SharePoint[p.Geo]
		for _, uri := range []string{o.PrimaryURI, o.SecondaryURI} {
			if taken, exact := SlotTaken(k, uri, ko.Latest.Version); exact && !taken {
				if ref, ok := ParseKeyURI(uri); ok && ref.SameKey(k.Ref()) {
					c.warn(subject, "version_left_behind", "version "+ko.Latest.Version+" of key "+k.Name+" was made by an earlier roll and SharePoint has not taken it up",
						"adopt it instead of making another: \"version\": \""+ko.Latest.Version+"\"")
				}
			}
		}
	}
}

func (c *inspection) vaults(p PlanPolicy) {
	hosts := map[string]bool{}
	for _, id := range p.Keys {
		if k, ok := c.inv.KeyByID(id); ok {
			hosts[k.Ref().Host] = true
		}
	}
	if len(p.Keys) < 2 || len(hosts) < 2 {
		c.err("policy:"+p.ID, "fewer_than_two_vaults", fmt.Sprintf("policy %s has its keys in %d vault(s)", p.ID, len(hosts)), "Customer Key needs two keys in two vaults: correct the declaration")
	}
}

// byHand: the declaration itself has the place changed by hand. A transport
// that is manual only because nothing else works excuses no failed read.
func (c *inspection) byHand(place string) bool {
	return c.inv.DeclaredTransport(place) == string(Manual)
}

func (c *inspection) exchange(p PlanPolicy) {
	subject := "policy:" + p.ID
	if t, ok := c.obs.Troubles[p.Workload]; ok {
		if c.byHand(Place(p.Workload, "")) {
			c.notChecked(subject, "policy_unreadable_manual", "reading "+string(p.Workload)+" policies failed: "+t.Detail+"; the declaration has them refreshed by hand", "the person who runs the cmdlet looks first that the policy is enabled, has no purge requested and names the declared keys; or grant Keyroll's application the Exchange role that reads data encryption policies")
			return
		}
		c.err(subject, "policy_unreadable", "reading "+string(p.Workload)+" policies failed: "+t.Detail, "grant Keyroll's application the Exchange role that reads data encryption policies")
		return
	}
	declared, _ := c.inv.PolicyByID(p.ID)
	seen := c.obs.Policies[p.ID]
	c.fault(subject, checkPolicy(c.inv, declared, seen))
	if seen.Found && declared.Name != "" && seen.Name != declared.Name {
		c.warn(subject, "policy_name_differs", "the policy is called "+seen.Name+" at Microsoft, "+declared.Name+" in the declaration", "correct the declared name")
	}
}

func (c *inspection) sharePoint(p PlanPolicy) {
	subject := "policy:" + p.ID
	declared, _ := c.inv.PolicyByID(p.ID)
	seen, ok := c.obs.SharePoint[p.Geo]
	if !ok || seen.Trouble != nil {
		detail := "it was not read"
		if seen.Trouble != nil {
			detail = seen.Trouble.Detail
		}
		if c.byHand(Place(SharePoint, p.Geo)) {
			c.notChecked(subject, "sharepoint_unreadable_manual", "reading SharePoint's key status of geo "+p.Geo+" failed: "+detail+"; the declaration has its keys rolled by hand", "the person who runs the cmdlet looks first that SharePoint is Registered and that the slot names the declared key and its old version; or grant Keyroll's application Sites.FullControl.All with a certificate")
			return
		}
		c.err(subject, "sharepoint_unreadable", "reading SharePoint's key status of geo "+p.Geo+" failed: "+detail, "grant Keyroll's application Sites.FullControl.All with a certificate, and check the geo's admin URL")
		return
	}
	switch seen.Status {
	case Registered:
	case Rolling:
		c.found = append(c.found, Finding{Code: "external_roll_under_way", Level: LevelWarning, Subject: subject, Passing: true,
			Seen: "SharePoint is rolling a key of geo " + p.Geo + " now", Remedy: "nothing: this roll waits for it to end"})
	default:
		c.err(subject, "sharepoint_not_registered", fmt.Sprintf("SharePoint's key status of geo %s is %s (%d), not Registered", p.Geo, seen.Status, int(seen.Status)), "wait for it, or speak to Microsoft support: a key can be rolled only when SharePoint is Registered")
		return
	}
	for _, slot := range []Slot{Primary, Secondary} {
		ref, _ := ParseKeyURI(seen.SlotURI(slot))
		if f := CheckSlot(c.inv, declared, slot, seen, ref.Version); f != nil {
			c.fault(subject, f)
			return
		}
	}
}

// undeclared policies that use a rolled key would keep its old version, unseen.
func (c *inspection) undeclared() {
	planned := func(w Workload) bool {
		return slices.ContainsFunc(c.plan.Policies, func(p PlanPolicy) bool { return p.Workload == w })
	}
	for _, w := range []Workload{MultiWorkload, Exchange} {
		if t, ok := c.obs.Troubles[w]; ok && !planned(w) {
			c.found = append(c.found, Finding{Code: "undeclared_policies_unreadable", Level: LevelWarning, Subject: "workload:" + string(w), Passing: true,
				Seen:   "reading " + string(w) + " policies failed: " + t.Detail + "; whether one that is not declared uses a key of this plan is not known",
				Remedy: "grant Keyroll's application the Exchange role that reads data encryption policies"})
		}
	}
	for _, u := range c.obs.Undeclared {
		for _, uri := range u.AzureKeyIDs {
			ref, ok := ParseKeyURI(uri)
			for _, pk := range c.plan.Keys {
				k, _ := c.inv.KeyByID(pk.ID)
				if ok && ref.SameKey(k.Ref()) {
					c.err("key:"+pk.ID, "undeclared_policy_uses_key", fmt.Sprintf("%s policy %s (%s) uses key %s and is not declared", u.Workload, u.Name, u.GUID, k.Name), "declare the policy, so that it is refreshed too")
				}
			}
		}
	}
}
