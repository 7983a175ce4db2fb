package control

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/keyroll/keyroll/internal/roll"
)

var (
	guidForm = regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$`)
	idForm   = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,62}$`)
)

func invalid(pointer, format string, args ...any) error {
	return &roll.InvalidError{Pointer: pointer, Detail: fmt.Sprintf(format, args...)}
}

// normalise fills defaults and refuses a declaration that contradicts itself.
func normalise(inv roll.Inventory) (roll.Inventory, error) {
	inv.TenantID = strings.ToLower(inv.TenantID)
	if !guidForm.MatchString(inv.TenantID) {
		return inv, invalid("/tenant_id", "use the Entra tenant's GUID")
	}
	if inv.Approval == "" {
		inv.Approval = roll.ApprovalRequired
	}
	if inv.SharePoint.Lease == "" {
		inv.SharePoint.Lease = roll.LeasePerTenant
	}
	if err := roll.CheckVetoes(inv.Vetoes); err != nil {
		return inv, err
	}
	keys, err := checkKeys(inv)
	if err != nil {
		return inv, err
	}
	geos := map[string]bool{}
	for i, g := range inv.SharePoint.Geos {
		if geos[g.ID] {
			return inv, invalid(fmt.Sprintf("/sharepoint/geos/%d/id", i), "geo %q is declared twice", g.ID)
		}
		geos[g.ID] = true
	}
	ids, guids, perGeo := map[string]bool{}, map[string]bool{}, map[string]bool{}
	inv.Policies = slices.Clone(inv.Policies) // the caller's stay as they are
	for i := range inv.Policies {
		p := &inv.Policies[i]
		at := fmt.Sprintf("/policies/%d", i)
		if ids[p.ID] {
			return inv, invalid(at+"/id", "policy %q is declared twice", p.ID)
		}
		ids[p.ID] = true
		p.GUID = strings.ToLower(p.GUID)
		if p.GUID != "" && guids[p.GUID] {
			return inv, invalid(at+"/guid", "GUID %s is declared twice", p.GUID)
		}
		guids[p.GUID] = true
		if err := checkPolicy(at, *p, keys, geos); err != nil {
			return inv, err
		}
		if p.Workload == roll.SharePoint && perGeo[p.Geo] {
			return inv, invalid(at+"/geo", "geo %q has a policy already; SharePoint has one a geo", p.Geo)
		}
		perGeo[p.Geo] = p.Workload == roll.SharePoint || perGeo[p.Geo]
	}
	return inv, nil
}

func checkKeys(inv roll.Inventory) (map[string]bool, error) {
	keys, refs := map[string]bool{}, map[roll.KeyRef]bool{}
	check := func(at string, k roll.Key) error {
		if !idForm.MatchString(k.ID) {
			return invalid(at+"/id", "an id has up to 63 of a-z, 0-9, dot, dash and underscore")
		}
		ref := k.Ref()
		ref.Name = strings.ToLower(ref.Name)
		if keys[k.ID] || refs[ref] {
			return invalid(at, "key %q is declared twice", k.ID)
		}
		keys[k.ID], refs[ref] = true, true
		return nil
	}
	for i, k := range inv.Keys {
		if err := check(fmt.Sprintf("/keys/%d", i), k); err != nil {
			return nil, err
		}
	}
	usable := maps.Clone(keys)
	// A former key under the id of another key would mix up their ledgers.
	for i, k := range inv.FormerKeys {
		if err := check(fmt.Sprintf("/former_keys/%d", i), k); err != nil {
			return nil, err
		}
	}
	return usable, nil
}

func checkPolicy(at string, p roll.Policy, keys, geos map[string]bool) error {
	if !idForm.MatchString(p.ID) {
		return invalid(at+"/id", "an id has up to 63 of a-z, 0-9, dot, dash and underscore")
	}
	if member := foreign(p); member != "" {
		return invalid(at+"/"+member, "a %s policy has no %s: leave it out", p.Workload, member)
	}
	switch p.Workload {
	case roll.SharePoint:
		if !geos[p.Geo] {
			return invalid(at+"/geo", "geo %q is not among sharepoint.geos", p.Geo)
		}
		if p.Primary == p.Secondary {
			return invalid(at+"/secondary", "primary and secondary are the same key")
		}
	case roll.Exchange, roll.MultiWorkload:
		if !guidForm.MatchString(p.GUID) {
			return invalid(at+"/guid", "name the policy's GUID as Microsoft shows it")
		}
	default:
		return invalid(at+"/workload", "workload %q is unknown; use multi-workload, exchange or sharepoint", p.Workload)
	}
	seen := map[string]bool{}
	for _, id := range p.KeyIDs() {
		if !keys[id] {
			return invalid(at, "policy %q uses key %q, which is not declared", p.ID, id)
		}
		if seen[id] {
			return invalid(at, "policy %q names key %q twice", p.ID, id)
		}
		seen[id] = true
	}
	if len(seen) != 2 {
		return invalid(at+"/keys", "a policy has two keys, in two vaults")
	}
	return nil
}

// foreign names a member that a policy of this workload cannot have.
func foreign(p roll.Policy) string {
	switch {
	case p.Workload == roll.SharePoint && len(p.Keys) > 0:
		return "keys"
	case p.Workload == roll.SharePoint && p.GUID != "":
		return "guid"
	case p.Workload == roll.SharePoint && len(p.SampleMailboxes) > 0:
		return "sample_mailboxes"
	case p.Workload == roll.SharePoint:
		return ""
	case p.Geo != "":
		return "geo"
	case p.Primary != "":
		return "primary"
	case p.Secondary != "":
		return "secondary"
	}
	return ""
}

// MinGap is the declared pause between SharePoint operations, or the default
// where the declaration names none.
func MinGap(declared *time.Duration) roll.Duration {
	if declared == nil {
		return roll.Duration(roll.DefaultMinGap)
	}
	return roll.Duration(*declared)
}
