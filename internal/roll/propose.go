package roll

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// maxID is how long a declared id may be.
const maxID = 63

// Propose makes a declaration of what was read of a tenant without one. base
// names the tenant, its cloud, credential and geos; every policy in the
// observation is an undeclared one. Ids follow from names alone, so that the
// same tenant gives the same proposal. What cannot be declared is left out, and
// a finding of the level error says so; the other findings are to be looked at.
func Propose(base Inventory, obs Observation) (Inventory, []Finding) {
	p := &proposal{inv: base, obs: obs, refs: map[string]KeyRef{}, vaults: map[string][]string{}}
	p.inv.Approval = cmp.Or(base.Approval, ApprovalRequired)
	p.inv.SharePoint.Lease = cmp.Or(base.SharePoint.Lease, LeasePerTenant)
	p.inv.SharePoint.MinGap = Duration(DefaultMinGap)
	p.inv.Keys, p.inv.Policies = []Key{}, []Policy{}
	p.exchange()
	p.assigned()
	for _, g := range base.SharePoint.Geos {
		p.geo(g)
	}
	p.name()
	for host, users := range maps.All(p.vaults) {
		if len(users) > 1 {
			slices.Sort(users)
			p.say(LevelWarning, "vault:"+host, "vault_shared", "its keys serve more than one policy: "+strings.Join(users, ", "),
				"Microsoft advises a pair of vaults of its own for each policy; nothing stops a roll")
		}
	}
	slices.SortFunc(p.found, func(a, b Finding) int {
		return cmp.Or(cmp.Compare(levelRank(a.Level), levelRank(b.Level)), cmp.Compare(a.Subject, b.Subject), cmp.Compare(a.Code, b.Code))
	})
	return p.inv, p.found
}

func levelRank(l Level) int { return slices.Index(Levels(), l) }

type proposal struct {
	inv    Inventory
	obs    Observation
	found  []Finding
	refs   map[string]KeyRef   // by host and lower-case name
	vaults map[string][]string // host → policies that use a key there
}

func (p *proposal) say(level Level, subject, code, seen, remedy string) {
	p.found = append(p.found, Finding{Code: code, Level: level, Subject: subject, Seen: seen, Remedy: remedy})
}

// exchange proposes the policies that Exchange lists.
func (p *proposal) exchange() {
	for _, w := range []Workload{MultiWorkload, Exchange} {
		if t, ok := p.obs.Troubles[w]; ok {
			p.say(LevelError, "workload:"+string(w), "policies_unreadable", "its policies could not be read, so none is proposed: "+t.Detail, exchangeRemedy+". A tenant that has none needs no such right")
		}
	}
	list := slices.Clone(p.obs.Undeclared)
	slices.SortFunc(list, func(a, b PolicyObservation) int {
		return cmp.Or(cmp.Compare(slices.Index(Workloads(), a.Workload), slices.Index(Workloads(), b.Workload)), cmp.Compare(a.Name, b.Name), cmp.Compare(a.GUID, b.GUID))
	})
	for _, o := range list {
		subject := "policy:" + cmp.Or(o.Name, o.GUID)
		if o.GUID == "" || len(o.AzureKeyIDs) != 2 {
			p.say(LevelError, subject, "policy_left_out", fmt.Sprintf("it has GUID %q and %d key(s); a policy is declared with its GUID and two keys", o.GUID, len(o.AzureKeyIDs)),
				"look at the policy in Exchange Online PowerShell, and declare it by hand")
			continue
		}
		if keys, ok := p.keys(subject, o.AzureKeyIDs); ok {
			name := o.Name
			if len(name) > 200 {
				name = ""
			}
			p.inv.Policies = append(p.inv.Policies, Policy{ID: cmp.Or(slug(o.Name), o.GUID), Workload: o.Workload, Name: name, GUID: strings.ToLower(o.GUID), Keys: keys})
		}
		if o.PurgeRequested {
			p.say(LevelWarning, subject, "policy_purge_requested", "a permanent data purge has been requested on it", "stop: speak to Microsoft support before anything else touches this policy. It is proposed so that its keys are kept")
		}
		if !o.Enabled {
			p.say(LevelWarning, subject, "policy_disabled", "it is disabled, so no roll over it can begin", "enable it at Microsoft, or take it out of the declaration")
		}
	}
}

// assigned says what of the assignment a person should know.
func (p *proposal) assigned() {
	o := p.obs.Assignment
	if o == nil || o.Trouble != nil {
		detail := "it was not read"
		if o != nil {
			detail = o.Trouble.Detail
		}
		p.say(LevelNotChecked, "assignment", "assignment_unreadable", "which multi-workload policy is assigned to the tenant is not known: "+detail, exchangeRemedy)
		return
	}
	for _, q := range p.obs.Undeclared {
		if q.Workload == MultiWorkload && !(o.Assigned && o.names(q)) {
			p.say(LevelWarning, "policy:"+cmp.Or(q.Name, q.GUID), "policy_not_assigned", "it is not the multi-workload policy that is assigned to the tenant", "keep it in the declaration: content may still be encrypted with its keys")
		}
	}
}

// geo proposes the policy of a SharePoint geo.
func (p *proposal) geo(g Geo) {
	subject := "geo:" + g.ID
	o, ok := p.obs.SharePoint[g.ID]
	switch {
	case !ok || o.Trouble != nil:
		detail := "it was not read"
		if o.Trouble != nil {
			detail = o.Trouble.Detail
		}
		p.say(LevelError, subject, "sharepoint_unreadable", "its key status could not be read, so no policy is proposed: "+detail, "grant Keyroll's application Sites.FullControl.All with a certificate, and check the geo's admin URL")
		return
	case o.Status == Unregistered:
		p.say(LevelWarning, subject, "sharepoint_not_registered", "SharePoint has no Customer Key in this geo (Unregistered)", "nothing, where that is meant")
		return
	case o.Status != Registered:
		p.say(LevelWarning, subject, "sharepoint_not_registered", fmt.Sprintf("SharePoint's key status is %s (%d), so its slots may change", o.Status, int(o.Status)), "discover again when it is Registered")
	}
	for _, uri := range []string{o.PrimaryURI, o.SecondaryURI} {
		if ref, ok := ParseKeyURI(uri); ok && ref.Version == "" {
			p.say(LevelNotChecked, subject, codeVersionNotShown, "SharePoint shows "+uri+" without a version, so which one it uses is not known", "nothing: SharePoint shows no more")
		}
	}
	keys, ok := p.keys(subject, []string{withoutVersion(o.PrimaryURI), withoutVersion(o.SecondaryURI)})
	if ok {
		p.inv.Policies = append(p.inv.Policies, Policy{ID: "spo-" + slug(g.ID), Workload: SharePoint, Geo: g.ID, Primary: keys[0], Secondary: keys[1]})
	}
}

// withoutVersion is the slot's key: there the version is as it should be.
func withoutVersion(uri string) string {
	ref, ok := ParseKeyURI(uri)
	if !ok {
		return uri
	}
	return "https://" + ref.Host + "/keys/" + ref.Name
}

// keys takes a policy's two keys into the proposal. What it returns are marks
// that name resolves, when all keys are known.
func (p *proposal) keys(subject string, uris []string) ([]string, bool) {
	var marks []string
	for _, uri := range uris {
		ref, ok := ParseKeyURI(uri)
		if !ok {
			p.say(LevelError, subject, "key_uri_unknown", fmt.Sprintf("it names a key in a form that Keyroll does not know: %q; the policy is left out", uri), "look at the policy at Microsoft, and declare it by hand")
			return nil, false
		}
		if ref.Version != "" {
			p.say(LevelWarning, subject, "policy_keys_versioned", "it names a fixed key version ("+uri+"), so a refresh would not take up a new one; the key is proposed without it", "have the policy name its keys without a version before the first roll")
			ref.Version = ""
		}
		mark := ref.Host + "/" + strings.ToLower(ref.Name)
		if _, known := p.refs[mark]; !known {
			p.refs[mark] = ref
		}
		marks = append(marks, mark)
	}
	if marks[0] == marks[1] {
		p.say(LevelError, subject, "one_key", "both of its keys are the same one; the policy is left out", "Customer Key needs two keys in two vaults: look at the policy at Microsoft")
		return nil, false
	}
	a, b := p.refs[marks[0]].Host, p.refs[marks[1]].Host
	if a == b {
		p.say(LevelWarning, subject, "fewer_than_two_vaults", "both of its keys are in the vault "+a, "Customer Key needs two keys in two vaults: a plan over this policy has an error")
	}
	for _, host := range slices.Compact([]string{a, b}) {
		p.vaults[host] = append(p.vaults[host], subject)
	}
	return marks, true
}

// name gives the keys their ids, puts these into the policies, and keeps
// policy ids apart.
func (p *proposal) name() {
	ids := map[string]string{}
	for _, mark := range slices.Sorted(maps.Keys(p.refs)) {
		ref := p.refs[mark]
		k := Key{VaultURL: "https://" + ref.Host, Name: ref.Name}
		k.ID = short(cmp.Or(slug(k.VaultName()+"."+k.Name), "key"), mark)
		for _, other := range p.inv.Keys {
			if other.ID == k.ID {
				k.ID = tailed(k.ID, mark)
			}
		}
		ids[mark] = k.ID
		p.inv.Keys = append(p.inv.Keys, k)
	}
	used := map[string]bool{}
	for i := range p.inv.Policies {
		q := &p.inv.Policies[i]
		for n := range q.Keys {
			q.Keys[n] = ids[q.Keys[n]]
		}
		if q.Workload == SharePoint {
			q.Primary, q.Secondary = ids[q.Primary], ids[q.Secondary]
		}
		q.ID = short(q.ID, q.GUID+q.Geo)
		if used[q.ID] {
			q.ID = tailed(q.ID, q.GUID+q.Geo)
		}
		used[q.ID] = true
	}
}

// slug makes an id of a name: lower case, and a dash for what an id cannot hold.
func slug(name string) string {
	var b strings.Builder
	for _, r := range strings.ToLower(name) {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '.' || r == '_' || r == '-' {
			b.WriteRune(r)
		} else {
			b.WriteByte('-')
		}
	}
	return strings.Trim(b.String(), "-._")
}

// short keeps an id within its length.
func short(id, of string) string {
	if len(id) <= maxID {
		return id
	}
	return tailed(id, of)
}

// tailed puts a digest of what the id stands for behind it.
func tailed(id, of string) string {
	sum := sha256.Sum256([]byte(of))
	const tail = 8
	return id[:min(len(id), maxID-tail-1)] + "-" + hex.EncodeToString(sum[:])[:tail]
}
