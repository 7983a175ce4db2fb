package roll

import (
	"fmt"
	"time"
)

// Rough expectations in seconds, used for the estimate only. Microsoft gives
// no figure for a SharePoint roll; a day is what a mid-sized tenant takes.
const (
	estimateRead       = 5
	estimateCreate     = 5
	estimateRefresh    = 60
	estimateSharePoint = 24 * 3600
)

// Build makes the plan of a resolved request from the declaration and what was
// observed at Microsoft. It never fails for what was seen: that becomes findings.
func Build(inv Inventory, req Resolved, obs Observation, now time.Time) (Plan, error) {
	b := &builder{inv: inv, obs: obs, now: now, versions: map[string]KeyRequest{}, created: map[string]int{},
		migrate: req.Request.Reason.Code == ReasonHSMMigration}
	for _, k := range req.Keys {
		b.versions[k.ID] = k
	}
	b.plan = Plan{TenantID: inv.TenantID, MadeAt: now, Emergency: req.Request.Emergency != nil, Runbooks: inv.Automation != nil}
	b.aim(req.Request.Replace)
	b.collectPolicies()
	b.collectKeys()
	b.steps()
	b.plan.Findings = inspect(&inspection{inv: inv, plan: b.plan, obs: obs, now: now, migrates: b.migrate, asked: req.Request.Replace})
	b.plan.EstimateSeconds = longest(b.plan.Steps)
	hash, err := b.plan.ComputeHash()
	if err != nil {
		return Plan{}, err
	}
	b.plan.Hash = hash
	return b.plan, nil
}

// longest is how long the steps take where all that can run side by side does,
// the pauses between SharePoint operations included.
func longest(steps []PlanStep) int64 {
	ends := map[int]int64{}
	rolled := map[string]bool{}
	var last int64
	for _, s := range steps {
		var begin int64
		for _, n := range s.After {
			begin = max(begin, ends[n])
		}
		if s.Kind == SharePointRollKey {
			if rolled[s.Geo] {
				begin += int64(time.Duration(s.Params.Gap).Seconds())
			}
			rolled[s.Geo] = true
		}
		ends[s.N] = begin + s.EstimateSeconds
		last = max(last, ends[s.N])
	}
	return last
}

type builder struct {
	inv      Inventory
	obs      Observation
	now      time.Time
	versions map[string]KeyRequest // keys to roll
	created  map[string]int        // key id → its create step
	aimed    Inventory             // the declaration after all replacements
	migrate  bool                  // the aim is a newer HSM platform
	plan     Plan
}

// collectPolicies takes every declared policy that uses a rolled key.
func (b *builder) collectPolicies() {
	for _, p := range b.aimed.Policies {
		for _, k := range p.KeyIDs() {
			if _, ok := b.versions[k]; ok {
				b.plan.Policies = append(b.plan.Policies, PlanPolicy{ID: p.ID, Workload: p.Workload,
					Name: p.Name, GUID: p.GUID, Geo: p.Geo, Covers: p.Workload.Covers(), Keys: p.KeyIDs()})
				break
			}
		}
	}
}

// collectKeys takes the rolled keys, and those beside them in Exchange and
// multi-workload policies: a refresh takes up whatever is newest in both.
func (b *builder) collectKeys() {
	beside := map[string]bool{}
	for _, p := range b.plan.Policies {
		if p.Workload != SharePoint {
			for _, k := range p.Keys {
				beside[k] = true
			}
		}
	}
	for _, k := range b.inv.Keys {
		req, rolled := b.versions[k.ID]
		if !rolled && !beside[k.ID] {
			continue
		}
		pk := PlanKey{ID: k.ID, VaultURL: k.VaultURL, Name: k.Name, OldVersion: b.obs.Keys[k.ID].Latest.Version}
		for _, p := range b.plan.Policies {
			for _, id := range p.Keys {
				if id == k.ID {
					pk.Policies = append(pk.Policies, p.ID)
				}
			}
		}
		if rolled {
			pk.Version, pk.KeyNotBefore, pk.Size = req.Version, wholeSeconds(req.KeyNotBefore), req.Size
			if pk.Version != NewVersion {
				pk.OldVersion = b.predecessor(k.ID, pk.Version)
			}
			b.plan.Keys = append(b.plan.Keys, pk)
		} else {
			pk.Version = pk.OldVersion
			b.plan.OtherKeys = append(b.plan.OtherKeys, pk)
		}
	}
}

// wholeSeconds is how a vault keeps times; and one instant must hash alike in
// whatever zone it was written.
func wholeSeconds(t *time.Time) *time.Time {
	if t == nil {
		return nil
	}
	u := t.UTC().Truncate(time.Second)
	return &u
}

// predecessor is the newest version made before the one to adopt: the one
// whose attributes the adopted version must share.
func (b *builder) predecessor(keyID, adopt string) string {
	ko := b.obs.Keys[keyID]
	taken, ok := ko.ByVersion(adopt)
	if !ok {
		return ko.Latest.Version
	}
	var best KeyVersion
	for _, v := range ko.Versions {
		if v.Version == adopt || v.Created.After(taken.Created) {
			continue
		}
		// Versions of one second are told apart by name, so that the choice
		// does not hang on the order in which the vault lists them.
		if best.Version == "" || v.Created.After(best.Created) || v.Created.Equal(best.Created) && v.Version > best.Version {
			best = v
		}
	}
	return best.Version
}

func (b *builder) add(s PlanStep) int {
	s.N = len(b.plan.Steps) + 1
	b.plan.Steps = append(b.plan.Steps, s)
	return s.N
}

func (b *builder) steps() {
	pre := b.add(PlanStep{Kind: Preflight, Title: "Check everything and make the plan again", EstimateSeconds: estimateRead})
	for _, p := range b.plan.Policies {
		if p.Workload == SharePoint {
			continue
		}
		var after []int
		for _, k := range p.Keys {
			if b.plan.Rolls(k) {
				after = append(after, b.create(k, []int{pre}, Params{}))
			}
		}
		under := Params{Transport: b.obs.Transports[Place(p.Workload, "")].Via}
		refresh := b.add(PlanStep{Kind: RefreshPolicy, After: after, Policy: p.ID, Params: Params{Transport: under.Transport, Account: b.inv.accountFor(under.Transport)},
			Title: fmt.Sprintf("Refresh %s policy %s", p.Workload, p.Name), EstimateSeconds: estimateRefresh})
		b.add(PlanStep{Kind: Verify, After: []int{refresh}, Policy: p.ID, Params: under,
			Title: fmt.Sprintf("Verify %s policy %s", p.Workload, p.Name), EstimateSeconds: estimateRead})
	}
	b.sharePoint(pre)
}

// create adds the step that gives the key its version, once per key. under
// holds the gap and the lease that a new version in a SharePoint chain waits for.
func (b *builder) create(keyID string, after []int, under Params) int {
	if n, ok := b.created[keyID]; ok {
		return n
	}
	pk, _ := b.plan.KeyByID(keyID)
	s := PlanStep{Kind: CreateKeyVersion, After: after, Key: keyID,
		Params: Params{OldVersion: pk.OldVersion, NotBefore: pk.KeyNotBefore, Size: pk.Size, Migrate: b.migrate, Gap: under.Gap, Scope: under.Scope},
		Title:  "Create a new version of " + pk.Name, EstimateSeconds: estimateCreate}
	if pk.Version != NewVersion {
		// A version that is there is taken as it is: what it falls short of is a
		// finding, which a second person has read.
		s.Params.Adopt, s.Params.Migrate, s.Params.Gap, s.Params.Scope = pk.Version, false, 0, ""
		s.Title = "Adopt version " + pk.Version + " of " + pk.Name
	}
	n := b.add(s)
	b.created[keyID] = n
	return n
}

// sharePoint chains all SharePoint operations of one lease: lease, then per
// slot create, roll, await, and the gap before the next slot of the same geo.
func (b *builder) sharePoint(pre int) {
	last := map[string]int{} // lease scope → last step under it
	for _, pp := range b.plan.Policies {
		if pp.Workload != SharePoint {
			continue
		}
		p, _ := b.aimed.PolicyByID(pp.ID)
		scope := b.inv.LeaseScope(p.Geo)
		prev, ok := last[scope]
		if !ok {
			prev = b.add(PlanStep{Kind: SharePointLease, After: []int{pre}, Params: Params{Scope: scope},
				Title: "Wait for the right to change SharePoint keys", EstimateSeconds: estimateRead})
		}
		var awaits []int
		for _, slot := range []Slot{Primary, Secondary} {
			if n := b.slot(p, slot, prev); n != 0 {
				// A key made in an earlier part of the plan must not pull the
				// chain out from behind its lease.
				prev = max(prev, n)
				awaits = append(awaits, n)
			}
		}
		last[scope] = prev
		if len(awaits) == 0 {
			awaits = []int{prev}
		}
		b.add(PlanStep{Kind: Verify, After: awaits, Policy: p.ID, Geo: p.Geo,
			Params: Params{Transport: b.obs.Transports[Place(SharePoint, p.Geo)].Via},
			Title:  "Verify SharePoint geo " + p.Geo, EstimateSeconds: estimateRead})
	}
}

// slot adds create, roll and await for one slot; it returns the last one's
// number, or 0 when the roll does not touch this slot's key. Where the slot
// names the version to adopt already, there is nothing to roll.
func (b *builder) slot(p Policy, slot Slot, prev int) int {
	keyID := p.SlotKey(slot)
	if !b.plan.Rolls(keyID) {
		return 0
	}
	pk, _ := b.plan.KeyByID(keyID)
	ref, _ := ParseKeyURI(b.obs.SharePoint[p.Geo].SlotURI(slot))
	if pk.Version != NewVersion && ref.Version == pk.Version {
		return b.create(keyID, []int{prev}, Params{})
	}
	gap, scope := b.inv.SharePoint.MinGap, b.inv.LeaseScope(p.Geo)
	via := b.obs.Transports[Place(SharePoint, p.Geo)].Via
	after := []int{b.create(keyID, []int{prev}, Params{Gap: gap, Scope: scope})}
	if after[0] < prev {
		after = []int{after[0], prev}
	}
	old, title := b.plan.replaces(p.ID, slot), fmt.Sprintf("Roll the %s key of SharePoint geo %s", slot, p.Geo)
	if old != "" {
		title = fmt.Sprintf("Replace the %s key of SharePoint geo %s (%s) by key %s", slot, p.Geo, old, keyID)
	}
	rolled := b.add(PlanStep{Kind: SharePointRollKey, After: after, Policy: p.ID, Key: keyID, Slot: slot, Geo: p.Geo,
		Params: Params{OldVersion: ref.Version, Replaces: old, Gap: gap, Scope: scope, Transport: via, Account: b.inv.accountFor(via), ByURI: b.obs.Keys[keyID].ManagedHSM},
		Title:  title, EstimateSeconds: estimateRead})
	return b.add(PlanStep{Kind: SharePointAwait, After: []int{rolled}, Policy: p.ID, Key: keyID, Slot: slot, Geo: p.Geo,
		Params: Params{Scope: scope, Transport: via, Replaces: old},
		Title:  fmt.Sprintf("Watch SharePoint geo %s take up the %s key", p.Geo, slot), EstimateSeconds: estimateSharePoint})
}
