package roll

import (
	"maps"
	"slices"
)

// Read is what became of one read of Microsoft: Source as in DriftItem, and
// the trouble of one that failed.
type Read struct {
	Source  string   `json:"source"`
	Trouble *Trouble `json:"trouble,omitempty"`
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
	return out
}
