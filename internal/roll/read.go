package roll

import (
	"maps"
	"slices"
)

// Read is what became of one read of Microsoft: Source as in DriftItem, and
// the trouble of one that failed. A vault at Resource Manager is the source
// "vault:<host>", and where it is seen there, so is each of its rights, with
// the code of a finding as trouble where it is not as it should be:
// "vault:<host>/own", "/bounds" and "/network", and "/service:<workload>" for
// each workload that uses it. A probe of a transport is
// "transport:<place>:<transport>".
type Read struct {
	Source  string   `json:"source"`
	Trouble *Trouble `json:"trouble,omitempty"`
	// Seen is what it showed, in words, where the checklist says that.
	Seen string `json:"seen,omitempty"`
}

// Reads lists the reads of an observation of the tenant, in a stable order.
// What was not asked for is not among them.
func Reads(inv Inventory, obs Observation) []Read {
	var out []Read
	for _, id := range slices.Sorted(maps.Keys(obs.Keys)) {
		out = append(out, Read{Source: "key:" + id, Trouble: obs.Keys[id].Trouble})
	}
	for _, geo := range slices.Sorted(maps.Keys(obs.SharePoint)) {
		out = append(out, Read{Source: "geo:" + geo, Trouble: obs.SharePoint[geo].Trouble})
	}
	if obs.Assignment != nil {
		out = append(out, Read{Source: "assignment", Trouble: obs.Assignment.Trouble})
	}
	for _, w := range []Workload{MultiWorkload, Exchange} {
		if t, failed := obs.Troubles[w]; failed {
			out = append(out, Read{Source: "workload:" + string(w), Trouble: &t})
		} else if inv.UsesExchange() {
			out = append(out, Read{Source: "workload:" + string(w)})
		}
	}
	out = append(out, probeReads(inv, obs)...)
	if obs.Vaults == nil && obs.VaultsTrouble == nil {
		return out
	}
	for _, host := range inv.hosts() {
		out = append(out, vaultReads(inv, obs, host)...)
	}
	return out
}

func vaultReads(inv Inventory, obs Observation, host string) []Read {
	source := vaultSource(host)
	if t := obs.unseen(host); t != nil {
		return []Read{{Source: source, Trouble: t}}
	}
	v, out := obs.Vaults[host], []Read{{Source: source}}
	add := func(part string, j judgement) {
		r := Read{Source: source + part, Seen: j.seen}
		if j.code != "" {
			r.Trouble = &Trouble{Code: j.code, Detail: j.seen}
			r.Seen = ""
		}
		out = append(out, r)
	}
	add(partOwn, v.judgeOwn(host, obs.Self, MayGet, MayList, MayCreate))
	add(partBounds, v.judgeBounds(host, obs.Self))
	add(partNetwork, v.judgeNetwork(host))
	for _, w := range inv.workloadsOf(host) {
		add(partService+string(w), v.judgeService(host, w, inv.Azure.ServicePrincipals.Of(w)))
	}
	return out
}

// The parts of a vault's source.
const (
	partOwn     = "/own"
	partBounds  = "/bounds"
	partNetwork = "/network"
	partService = "/service:"
)

func vaultSource(host string) string { return "vault:" + host }

// hosts are those of the declared keys' vaults, each once.
func (inv Inventory) hosts() []string {
	var out []string
	for _, k := range inv.Keys {
		out = append(out, k.Ref().Host)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// workloadsOf are those whose policies use keys of the vault.
func (inv Inventory) workloadsOf(host string) []Workload {
	var out []Workload
	for _, p := range inv.Policies {
		for _, id := range p.KeyIDs() {
			if k, ok := inv.KeyByID(id); ok && k.Ref().Host == host {
				out = append(out, p.Workload)
			}
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}
