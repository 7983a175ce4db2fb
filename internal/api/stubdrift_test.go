package api_test

import (
	"context"

	"github.com/keyroll/keyroll/internal/api"
)

func sampleDrift() ([]api.DriftItem, []api.NotChecked) {
	return []api.DriftItem{{Code: "slots_swapped", Subject: "policy:spo", Declared: "a, b", Seen: "b, a", Remedy: "correct it", Since: someTime, LastSeenAt: someTime}},
		[]api.NotChecked{{Subject: "key:exo-a", Code: "forbidden", Detail: "no", Remedy: "grant it"}}
}

func (s *stub) DiscoverTenant(_ context.Context, r api.DiscoverTenantRequestObject) (api.DiscoverTenantResponseObject, error) {
	drift, not := sampleDrift()
	return api.DiscoverTenant200JSONResponse{TenantID: someTenant, At: someTime, Drift: drift, NotChecked: not, Observed: api.Observed{
		Policies: []api.ObservedPolicy{}, Keys: []api.ObservedKey{}, Geos: []api.ObservedGeo{}, Assignment: &api.ObservedAssignment{},
	}}, s.act(r)
}

func (s *stub) GetTenantDrift(_ context.Context, r api.GetTenantDriftRequestObject) (api.GetTenantDriftResponseObject, error) {
	drift, not := sampleDrift()
	return api.GetTenantDrift200JSONResponse{TenantID: someTenant, Drift: drift, NotChecked: not, NextAt: someTime}, s.act(r)
}

func (s *stub) GetTenantChecklist(_ context.Context, r api.GetTenantChecklistRequestObject) (api.GetTenantChecklistResponseObject, error) {
	return api.GetTenantChecklist200JSONResponse{TenantID: someTenant, LookedAt: someTime, Items: []api.ChecklistItem{{
		ID: "admin_consent", Subject: "tenant:" + someTenant, NeededFor: "all", State: "unknown", Seen: "not probed", Shell: "browser", Commands: []string{"https://login"},
	}}}, s.act(r)
}
