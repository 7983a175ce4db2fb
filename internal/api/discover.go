package api

import (
	"context"
	"maps"
	"slices"

	"github.com/keyroll/keyroll/internal/control"
	"github.com/keyroll/keyroll/internal/roll"
	"github.com/keyroll/keyroll/internal/store"
)

// DiscoverTenant compares a declaration with what Microsoft has.
func (h *handlers) DiscoverTenant(ctx context.Context, r DiscoverTenantRequestObject) (DiscoverTenantResponseObject, error) {
	d, err := h.Control.Discover(ctx, PrincipalOf(ctx), r.TenantID)
	if err != nil {
		return nil, err
	}
	inv := d.Tenant.Inventory
	return DiscoverTenant200JSONResponse{
		TenantID: inv.TenantID, At: d.Observation.At.UTC(),
		Drift: each(d.Standing.Drift, driftItem), NotChecked: each(d.Comparison.NotChecked, notChecked),
		Observed: observed(inv, d),
	}, nil
}

// GetTenantDrift reads what the last comparison left.
func (h *handlers) GetTenantDrift(ctx context.Context, r GetTenantDriftRequestObject) (GetTenantDriftResponseObject, error) {
	d, err := h.Control.StandingDrift(ctx, PrincipalOf(ctx), r.TenantID)
	if err != nil {
		return nil, err
	}
	return GetTenantDrift200JSONResponse{
		TenantID: d.TenantID, LookedAt: utc(d.LookedAt), ComparedAt: utc(d.ComparedAt), NextAt: d.NextAt.UTC(),
		Drift: each(d.Drift, driftItem), NotChecked: each(d.NotChecked, notChecked),
	}, nil
}

// GetTenantChecklist reads what is still to be granted.
func (h *handlers) GetTenantChecklist(ctx context.Context, r GetTenantChecklistRequestObject) (GetTenantChecklistResponseObject, error) {
	d, list, err := h.Control.Checklist(ctx, PrincipalOf(ctx), r.TenantID)
	if err != nil {
		return nil, err
	}
	return GetTenantChecklist200JSONResponse{
		TenantID: d.TenantID, LookedAt: utc(d.LookedAt),
		Items: each(list, func(g roll.Grant) ChecklistItem {
			return ChecklistItem{
				ID: ChecklistItemID(g.ID), Subject: g.Subject, NeededFor: g.NeededFor, State: ChecklistItemState(g.State), Seen: g.Seen,
				Shell: ChecklistItemShell(g.Shell), Commands: notNil(g.Commands), Note: g.Note,
			}
		}),
	}, nil
}

func driftItem(d store.DriftRow) DriftItem {
	return DriftItem{
		Code: DriftItemCode(d.Code), Subject: d.Subject, Declared: d.Declared, Seen: d.Seen, Remedy: d.Remedy,
		Since: d.Since.UTC(), LastSeenAt: d.LastSeen.UTC(),
	}
}

func notChecked(n roll.NotChecked) NotChecked {
	return NotChecked{Subject: n.Subject, Code: n.Code, Detail: n.Detail, Remedy: n.Remedy}
}

// observed leaves out what could not be read: that stands in not_checked.
func observed(inv roll.Inventory, d control.Discovery) Observed {
	obs := d.Observation
	out := Observed{Policies: []ObservedPolicy{}, Keys: []ObservedKey{}, Geos: []ObservedGeo{}}
	for _, id := range slices.Sorted(maps.Keys(obs.Policies)) {
		if p := obs.Policies[id]; p.Found && p.Trouble == nil {
			out.Policies = append(out.Policies, observedPolicy(id, p))
		}
	}
	for _, p := range obs.Undeclared {
		out.Policies = append(out.Policies, observedPolicy("", p))
	}
	for _, k := range inv.Keys {
		if ko, ok := obs.Keys[k.ID]; ok && ko.Trouble == nil {
			out.Keys = append(out.Keys, ObservedKey{
				ID: k.ID, VaultURL: k.VaultURL, Name: k.Name, Version: ko.Latest.Version, Enabled: ko.Latest.Enabled,
				CreatedAt: ko.Latest.Created.UTC(), Versions: len(ko.Versions),
			})
		}
	}
	for _, g := range inv.SharePoint.Geos {
		if o, ok := obs.SharePoint[g.ID]; ok && o.Trouble == nil {
			out.Geos = append(out.Geos, ObservedGeo{ID: g.ID, Status: o.Status.String(), Primary: o.PrimaryURI, Secondary: o.SecondaryURI, Percent: o.Percent})
		}
	}
	if a := obs.Assignment; a != nil && a.Trouble == nil {
		out.Assignment = &ObservedAssignment{Assigned: a.Assigned, GUID: a.GUID, Name: a.Name}
	}
	return out
}

func observedPolicy(id string, p roll.PolicyObservation) ObservedPolicy {
	return ObservedPolicy{
		ID: id, Workload: Workload(p.Workload), Name: p.Name, GUID: p.GUID, Enabled: p.Enabled, PurgeRequested: p.PurgeRequested,
		Keys: notNil(p.AzureKeyIDs),
	}
}
