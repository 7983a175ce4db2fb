package roll_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/keyroll/keyroll/internal/roll"
)

// outline is a plan's steps in words: number, kind, subject ← after.
func outline(p roll.Plan) (out []string) {
	for _, s := range p.Steps {
		line := fmt.Sprintf("%d %s", s.N, s.Kind)
		for _, x := range []string{s.Policy, s.Key, string(s.Slot)} {
			if x != "" {
				line += " " + x
			}
		}
		if s.Params.Adopt != "" {
			line += " adopt"
		}
		if s.Params.Gap > 0 {
			line += " gap"
		}
		if s.Params.Scope != "" {
			line += " under " + s.Params.Scope
		}
		out = append(out, fmt.Sprintf("%s ← %v", line, s.After))
	}
	return out
}

func TestPlanOfEverything(t *testing.T) {
	p := planFor(t, contoso(), "global", "exo-na", "spo")
	want := []string{
		"1 preflight ← []",
		"2 create_key_version m-a ← [1]",
		"3 create_key_version m-b ← [1]",
		"4 refresh_policy global ← [2 3]",
		"5 verify global ← [4]",
		"6 create_key_version exo-a ← [1]",
		"7 create_key_version exo-b ← [1]",
		"8 refresh_policy exo-na ← [6 7]",
		"9 verify exo-na ← [8]",
		"10 sharepoint_lease under tenant ← [1]",
		"11 create_key_version spo-a gap under tenant ← [10]",
		"12 sharepoint_roll_key spo spo-a primary gap under tenant ← [11]",
		"13 sharepoint_await spo spo-a primary under tenant ← [12]",
		"14 create_key_version spo-b gap under tenant ← [13]",
		"15 sharepoint_roll_key spo spo-b secondary gap under tenant ← [14]",
		"16 sharepoint_await spo spo-b secondary under tenant ← [15]",
		"17 verify spo ← [13 16]",
	}
	if d := cmp.Diff(want, outline(p)); d != "" {
		t.Error(d)
	}
	if len(p.Findings) != 0 {
		t.Errorf("a tenant in order has findings: %+v", p.Findings)
	}
	if day := int64(24 * 3600); p.EstimateSeconds < 3*day || p.EstimateSeconds > 3*day+600 {
		t.Errorf("estimate %ds: two operations of a day and a gap of a day, the rest beside them", p.EstimateSeconds)
	}
	if k, ok := p.KeyByID("spo-b"); !ok || k.OldVersion != ver("spo-b", 2) || p.Steps[14].Params.OldVersion != ver("spo-b", 2) {
		t.Error("old versions")
	}
}

// A key of several policies gets one version, and every policy is in the plan.
func TestPlanSharedKeys(t *testing.T) {
	inv := contoso()
	inv.Policies[1].Keys = []string{"m-a", "exo-b"}
	inv.Policies[2].Primary = "exo-b"
	res := request(inv)
	res.Keys = []roll.KeyRequest{{ID: "m-a"}, {ID: "exo-b"}, {ID: "spo-b"}}
	p := build(t, inv, res, healthy(inv))
	want := []string{
		"1 preflight ← []",
		"2 create_key_version m-a ← [1]",
		"3 refresh_policy global ← [2]",
		"4 verify global ← [3]",
		"5 create_key_version exo-b ← [1]",
		"6 refresh_policy exo-na ← [2 5]",
		"7 verify exo-na ← [6]",
		"8 sharepoint_lease under tenant ← [1]",
		"9 sharepoint_roll_key spo exo-b primary gap under tenant ← [5 8]",
		"10 sharepoint_await spo exo-b primary under tenant ← [9]",
		"11 create_key_version spo-b gap under tenant ← [10]",
		"12 sharepoint_roll_key spo spo-b secondary gap under tenant ← [11]",
		"13 sharepoint_await spo spo-b secondary under tenant ← [12]",
		"14 verify spo ← [10 13]",
	}
	if d := cmp.Diff(want, outline(p)); d != "" {
		t.Error(d)
	}
	k, _ := p.KeyByID("m-a")
	if !cmp.Equal(k.Policies, []string{"global", "exo-na"}) || len(p.OtherKeys) != 1 || p.OtherKeys[0].ID != "m-b" || p.OtherKeys[0].Version != ver("m-b", 2) {
		t.Errorf("%v, others %+v", k.Policies, p.OtherKeys)
	}
	one := request(inv)
	one.Keys = []roll.KeyRequest{{ID: "exo-b"}}
	p = build(t, inv, one, healthy(inv))
	if len(p.Policies) != 2 || p.Policies[0].ID != "exo-na" || p.Policies[1].ID != "spo" {
		t.Errorf("policies that share the key: %+v", p.Policies)
	}
}

// Where a slot names the version to adopt, nothing is rolled; and the chain
// stays behind its lease.
func TestPlanAdopts(t *testing.T) {
	inv := contoso()
	inv.Policies[1].Keys = []string{"spo-a", "exo-b"}
	req := request(inv, "spo")
	req.Keys = []roll.KeyRequest{{ID: "spo-a", Version: ver("spo-a", 2)}}
	p := build(t, inv, req, healthy(inv))
	want := []string{
		"1 preflight ← []",
		"2 create_key_version spo-a adopt ← [1]",
		"3 refresh_policy exo-na ← [2]",
		"4 verify exo-na ← [3]",
		"5 sharepoint_lease under tenant ← [1]",
		"6 create_key_version spo-b gap under tenant ← [5]",
		"7 sharepoint_roll_key spo spo-b secondary gap under tenant ← [6]",
		"8 sharepoint_await spo spo-b secondary under tenant ← [7]",
		"9 verify spo ← [2 8]",
	}
	if d := cmp.Diff(want, outline(p)); d != "" {
		t.Error(d)
	}
	if k, _ := p.KeyByID("spo-a"); k.OldVersion != ver("spo-a", 1) {
		t.Errorf("the predecessor is %s", k.OldVersion)
	}
	// A newer version than the slot's is adopted by a roll.
	obs := healthy(inv)
	k := obs.Keys["spo-a"]
	k.Latest = version("spo-a", 3)
	k.Versions = append(k.Versions, k.Latest)
	obs.Keys["spo-a"] = k
	req.Keys[0].Version = ver("spo-a", 3)
	p = build(t, inv, req, obs)
	var s roll.PlanStep
	for _, x := range p.Steps {
		if x.Kind == roll.SharePointRollKey && x.Key == "spo-a" {
			s = x
		}
	}
	if s.Params.OldVersion != ver("spo-a", 2) {
		t.Errorf("slot's old version %+v", s.Params)
	}
	// Adopting changes nothing, so it waits for no lease and no gap.
	p = build(t, contoso(), roll.Request{Reason: reason(), Keys: []roll.KeyRequest{{ID: "spo-a", Version: ver("spo-a", 3)}}}, obs)
	if got := outline(p)[2:4]; !cmp.Equal(got, []string{"3 create_key_version spo-a adopt ← [2]", "4 sharepoint_roll_key spo spo-a primary gap under tenant ← [3]"}) {
		t.Errorf("%q", got)
	}
}

func TestPlanPerGeo(t *testing.T) {
	for lease, want := range map[string][]string{
		roll.LeasePerGeo:    {"geo:NAM", "geo:EUR"},
		roll.LeasePerTenant: {"tenant"},
	} {
		inv := contoso()
		inv.SharePoint.Lease = lease
		inv.SharePoint.Geos = append(inv.SharePoint.Geos, roll.Geo{ID: "EUR"})
		inv.Policies = append(inv.Policies, roll.Policy{ID: "eur", Workload: roll.SharePoint, Geo: "EUR", Primary: "m-a", Secondary: "m-b"})
		p := planFor(t, inv, "spo", "eur")
		var scopes []string
		var last, first roll.PlanStep
		for _, s := range p.Steps {
			if s.Kind == roll.SharePointLease {
				scopes = append(scopes, s.Params.Scope)
			}
			if s.Kind == roll.SharePointAwait && s.Geo == "NAM" {
				last = s
			}
			if s.Kind == roll.SharePointRollKey && s.Geo == "EUR" && first.N == 0 {
				first = s
			}
		}
		if !cmp.Equal(scopes, want) {
			t.Errorf("leases %v, want %v", scopes, want)
		}
		if slices.Contains(first.After, last.N) != (lease == roll.LeasePerTenant) {
			t.Errorf("%s: the second geo begins after %v, the first ends with %d", lease, first.After, last.N)
		}
	}
}

// TestHash: what is planned changes the hash; times, estimates, prose, passing
// findings and the order of lists and maps do not.
func TestHash(t *testing.T) {
	base := planFor(t, contoso(), "global", "spo")
	base.Findings = []roll.Finding{{Code: "software_key", Level: roll.LevelWarning, Subject: "key:m-a"}}
	nbf := start
	hash := func(p roll.Plan) string {
		h, err := p.ComputeHash()
		if err != nil {
			t.Fatal(err)
		}
		return h
	}
	copyOf := func() (p roll.Plan) {
		raw, err := json.Marshal(base)
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(raw, &p); err != nil {
			t.Fatal(err)
		}
		return p
	}
	if hash(copyOf()) != hash(base) {
		t.Error("a plan that was stored has another hash")
	}
	for name, c := range map[string]struct {
		changes bool
		do      func(*roll.Plan)
	}{
		"tenant":          {true, func(p *roll.Plan) { p.TenantID = "x" }},
		"key version":     {true, func(p *roll.Plan) { p.Keys[0].Version = ver("m-a", 2) }},
		"key old version": {true, func(p *roll.Plan) { p.Keys[0].OldVersion = "x" }},
		"key vault":       {true, func(p *roll.Plan) { p.Keys[0].VaultURL = "x" }},
		"key nbf":         {true, func(p *roll.Plan) { p.Keys[0].KeyNotBefore = &nbf }},
		"other key":       {true, func(p *roll.Plan) { p.OtherKeys = p.Keys[:1] }},
		"policy guid":     {true, func(p *roll.Plan) { p.Policies[0].GUID = "x" }},
		"policy keys":     {true, func(p *roll.Plan) { p.Policies[0].Keys = nil }},
		"step order":      {true, func(p *roll.Plan) { p.Steps[3].After = []int{1} }},
		"step kind":       {true, func(p *roll.Plan) { p.Steps[3].Kind = roll.Verify }},
		"step slot":       {true, func(p *roll.Plan) { p.Steps[7].Slot = roll.Secondary }},
		"step params":     {true, func(p *roll.Plan) { p.Steps[7].Params.Gap++ }},
		"finding code":    {true, func(p *roll.Plan) { p.Findings[0].Code = "x" }},
		"finding level":   {true, func(p *roll.Plan) { p.Findings[0].Level = roll.LevelError }},
		"finding subject": {true, func(p *roll.Plan) { p.Findings[0].Subject = "key:m-b" }},
		"finding gone":    {true, func(p *roll.Plan) { p.Findings = nil }},
		"finding prose":   {false, func(p *roll.Plan) { p.Findings[0].Seen, p.Findings[0].Remedy = "x", "y" }},
		"passing finding": {false, func(p *roll.Plan) {
			p.Findings = append(p.Findings, roll.Finding{Code: "external_roll_under_way", Passing: true})
		}},
		"made at":          {false, func(p *roll.Plan) { p.MadeAt = p.MadeAt.Add(time.Hour) }},
		"estimate":         {false, func(p *roll.Plan) { p.EstimateSeconds, p.Steps[0].EstimateSeconds = 1, 2 }},
		"title":            {false, func(p *roll.Plan) { p.Steps[0].Title = "x" }},
		"covers, name":     {false, func(p *roll.Plan) { p.Policies[0].Covers, p.Policies[0].Name = "x", "y" }},
		"the hash's field": {false, func(p *roll.Plan) { p.Hash = "x" }},
	} {
		p := copyOf()
		c.do(&p)
		if (hash(p) != hash(base)) != c.changes {
			t.Errorf("%s: changes the hash = %v, want %v", name, !c.changes, c.changes)
		}
	}
}

func TestHashIsStable(t *testing.T) {
	inv := contoso()
	req := request(inv, "spo", "exo-na")
	req.Keys = []roll.KeyRequest{{ID: "exo-a", Version: ver("exo-a", 9)}}
	zone := time.FixedZone("CET", 3600)
	at := start.Add(time.Hour + 300*time.Millisecond)
	req.Keys = append(req.Keys, roll.KeyRequest{ID: "exo-b", KeyNotBefore: &at})
	obs := healthy(inv)
	k := obs.Keys["exo-a"]
	k.Latest = version("exo-a", 9)
	for i := 3; i < 10; i++ { // all made within one second
		v := version("exo-a", i)
		v.Created, v.Enabled = start, i%2 == 0 || i == 9
		k.Versions = append(k.Versions, v)
	}
	k.Latest = k.Versions[len(k.Versions)-1]
	obs.Keys["exo-a"] = k
	for i := range 3 {
		obs.Undeclared = append(obs.Undeclared, roll.PolicyObservation{Workload: roll.Exchange, Name: fmt.Sprint(i), AzureKeyIDs: []string{inv.Keys[4].URI(""), inv.Keys[2].URI("")}})
	}
	want := build(t, inv, req, obs)
	dice := rand.New(rand.NewPCG(1, 2))
	for range 50 {
		o, r := obs, req
		vs := slices.Clone(k.Versions)
		dice.Shuffle(len(vs), func(i, j int) { vs[i], vs[j] = vs[j], vs[i] })
		us := slices.Clone(obs.Undeclared)
		dice.Shuffle(len(us), func(i, j int) { us[i], us[j] = us[j], us[i] })
		o.Undeclared = us
		o.Keys = map[string]roll.KeyObservation{}
		for id, v := range obs.Keys {
			o.Keys[id] = v
		}
		shuffled := k
		shuffled.Versions = vs
		o.Keys["exo-a"] = shuffled
		elsewhere := at.In(zone)
		r.Keys = []roll.KeyRequest{{ID: "exo-b", KeyNotBefore: &elsewhere}, req.Keys[0]}
		r.Policies = []string{"exo-na", "spo"}
		if got := build(t, inv, r, o); got.Hash != want.Hash {
			t.Fatalf("another hash for the same: %s", cmp.Diff(want, got))
		} else if d := cmp.Diff(want.Findings, got.Findings); d != "" {
			t.Fatalf("findings in another order: %s", d)
		}
	}
}

// TestHashGolden pins the canonical form: approvals already given hang on it.
func TestHashGolden(t *testing.T) {
	golden(t, "testdata/plan_hash.golden", planFor(t, contoso(), "global", "exo-na", "spo").Hash+"\n"+roll.OperationID(rollID, 3, 1)+"\n")
}
