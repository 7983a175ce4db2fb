package sim

import (
	"maps"
	"strings"
)

// Report is the whole witness log with what follows from it.
type Report struct {
	Effects    []Effect    `json:"effects"`
	Violations []Violation `json:"violations"`
	// Requests counts by service and operation; "unauthorized" are those
	// without an acceptable token.
	Requests map[string]map[string]int `json:"requests"`
	Tenants  map[string]TenantReport   `json:"tenants"`
}

// TenantReport is what the witness log says about one tenant.
type TenantReport struct {
	Overlaps             int            `json:"overlaps"`
	SharePointOperations int            `json:"sharepoint_operations"`
	VersionsCreated      map[string]int `json:"versions_created"` // by vault/key, over the API
}

// Report returns the witness log, counts and conclusions.
func (w *World) Report() Report {
	r := Report{Effects: w.Witness(), Violations: append([]Violation{}, w.Violations()...),
		Requests: map[string]map[string]int{}, Tenants: map[string]TenantReport{}}
	w.lock()
	for service, ops := range w.requests {
		r.Requests[service] = maps.Clone(ops)
	}
	w.mu.Unlock()
	for _, t := range w.tenants {
		created := map[string]int{}
		for _, e := range r.Effects {
			if vault, key, ok := strings.Cut(e.Target, "/"); ok && e.Tenant == t.id && e.Operation == OpCreateKey && created[e.Target] == 0 {
				created[e.Target] = w.VersionsCreated(vault, key)
			}
		}
		r.Tenants[t.id] = TenantReport{Overlaps: w.Overlaps(t.id), SharePointOperations: w.SharePointOperations(t.id), VersionsCreated: created}
	}
	return r
}
