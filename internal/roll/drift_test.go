package roll_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/keyroll/keyroll/internal/roll"
)

// basis is a tenant in order: nothing differs from its declaration.
func basis() roll.DriftBasis {
	inv := contoso()
	b := roll.DriftBasis{Inventory: inv, Observation: healthy(inv), Ledger: map[string][]roll.Recorded{}}
	b.Observation.Assignment = &roll.AssignmentObservation{Assigned: true, GUID: guidM, Name: "Contoso_Global"}
	for _, k := range inv.Keys {
		for _, v := range b.Observation.Keys[k.ID].Versions {
			b.Ledger[k.ID] = append(b.Ledger[k.ID], roll.Recorded{Version: v.Version, Created: v.Created, Accepted: true})
		}
	}
	return b
}

// lines are a comparison in short: what differs, and what was not checked.
func lines(c roll.Comparison) []string {
	out := []string{}
	for _, it := range c.Drift {
		out = append(out, it.Code+" "+it.Subject)
		if it.Declared == "" || it.Seen == "" || it.Remedy == "" || it.Source == "" || !strings.HasPrefix(it.Key, it.Code+"|"+it.Subject) {
			out = append(out, "INCOMPLETE "+it.Key)
		}
		if !slices.Contains(roll.DriftCodes(), it.Code) {
			out = append(out, "UNLISTED "+it.Code)
		}
	}
	for _, n := range c.NotChecked {
		out = append(out, "? "+n.Code+" "+n.Subject)
		if n.Detail == "" || n.Remedy == "" || n.Source == "" {
			out = append(out, "INCOMPLETE "+n.Subject)
		}
	}
	return out
}

func key(b roll.DriftBasis, id string, change func(*roll.KeyObservation)) {
	x := tenant{obs: b.Observation}
	x.key(id, change)
}

func newer(b roll.DriftBasis, id string, n int) {
	key(b, id, func(k *roll.KeyObservation) {
		k.Latest = version(id, n)
		k.Versions = append(k.Versions, k.Latest)
	})
}

func record(b roll.DriftBasis, id string, n int, accepted bool) {
	v := version(id, n)
	b.Ledger[id] = append(b.Ledger[id], roll.Recorded{Version: v.Version, Created: v.Created, Accepted: accepted})
}

func TestDrift(t *testing.T) {
	pol := func(b roll.DriftBasis, id string, change func(*roll.PolicyObservation)) {
		x := tenant{obs: b.Observation}
		x.policy(id, change)
	}
	spo := func(b roll.DriftBasis, change func(*roll.SharePointObservation)) {
		x := tenant{obs: b.Observation}
		x.sharePoint(change)
	}
	no := &roll.Trouble{Code: "forbidden", Detail: "no"}
	for _, c := range []struct {
		name string
		do   func(*roll.DriftBasis)
		want []string
	}{
		{"in order", func(*roll.DriftBasis) {}, nil},
		{"policy gone", func(b *roll.DriftBasis) { delete(b.Observation.Policies, "exo-na") }, []string{"policy_missing policy:exo-na"}},
		{"policy more", func(b *roll.DriftBasis) {
			b.Observation.Undeclared = []roll.PolicyObservation{{Workload: roll.Exchange, Found: true, Name: "EU", GUID: "g", Enabled: true}}
		}, []string{"policy_extra policy:g"}},
		{"other keys", func(b *roll.DriftBasis) {
			pol(*b, "exo-na", func(p *roll.PolicyObservation) { p.AzureKeyIDs[1] = b.Inventory.Keys[0].URI("") })
		}, []string{"policy_keys_differ policy:exo-na"}},
		{"a key with a version", func(b *roll.DriftBasis) {
			pol(*b, "exo-na", func(p *roll.PolicyObservation) { p.AzureKeyIDs[1] += "/" + ver("exo-b", 2) })
		}, []string{"policy_keys_differ policy:exo-na"}},
		{"a key in no known form", func(b *roll.DriftBasis) {
			pol(*b, "exo-na", func(p *roll.PolicyObservation) { p.AzureKeyIDs[1] = "urn:key" })
		}, []string{"policy_keys_differ policy:exo-na"}},
		{"keys in another order and case", func(b *roll.DriftBasis) {
			pol(*b, "exo-na", func(p *roll.PolicyObservation) {
				slices.Reverse(p.AzureKeyIDs)
				p.AzureKeyIDs[0] = strings.ToLower(p.AzureKeyIDs[0])
			})
		}, nil},
		{"disabled and to be purged", func(b *roll.DriftBasis) {
			pol(*b, "exo-na", func(p *roll.PolicyObservation) { p.Enabled, p.PurgeRequested = false, true })
		}, []string{"policy_disabled policy:exo-na", "policy_purge_requested policy:exo-na"}},
		{"renamed", func(b *roll.DriftBasis) {
			pol(*b, "exo-na", func(p *roll.PolicyObservation) { p.Name = "EU" })
		}, []string{"policy_renamed policy:exo-na"}},
		{"key gone", func(b *roll.DriftBasis) {
			key(*b, "exo-a", func(k *roll.KeyObservation) { k.Trouble = &roll.Trouble{Code: "not_found", Detail: "no such key"} })
		}, []string{"key_missing key:exo-a"}},
		{"key not readable", func(b *roll.DriftBasis) { key(*b, "exo-a", func(k *roll.KeyObservation) { k.Trouble = no }) }, []string{"? forbidden key:exo-a"}},
		{"key not read", func(b *roll.DriftBasis) { delete(b.Observation.Keys, "exo-a") }, []string{"? unread key:exo-a"}},
		{"version of a stranger", func(b *roll.DriftBasis) { newer(*b, "exo-a", 3) }, []string{"key_newer_version key:exo-a"}},
		{"version of a stranger that the ledger has noticed", func(b *roll.DriftBasis) { newer(*b, "exo-a", 3); record(*b, "exo-a", 3, false) }, []string{"key_newer_version key:exo-a"}},
		{"two of them", func(b *roll.DriftBasis) { newer(*b, "exo-a", 3); newer(*b, "exo-a", 4) }, []string{"key_newer_version key:exo-a", "key_newer_version key:exo-a"}},
		{"version of a stranger, adopted", func(b *roll.DriftBasis) { newer(*b, "exo-a", 3); record(*b, "exo-a", 3, true) }, nil},
		{"version of a stranger before an adopted one", func(b *roll.DriftBasis) {
			newer(*b, "exo-a", 3)
			newer(*b, "exo-a", 4)
			record(*b, "exo-a", 4, true)
		}, nil},
		{"newest is not listed yet", func(b *roll.DriftBasis) {
			key(*b, "exo-a", func(k *roll.KeyObservation) { k.Latest = version("exo-a", 3) })
		}, []string{"key_newer_version key:exo-a"}},
		{"ledger empty", func(b *roll.DriftBasis) { delete(b.Ledger, "exo-a") }, []string{"? ledger_empty key:exo-a"}},
		{"slots swapped", func(b *roll.DriftBasis) {
			spo(*b, func(o *roll.SharePointObservation) { o.PrimaryURI, o.SecondaryURI = o.SecondaryURI, o.PrimaryURI })
		}, []string{"slots_swapped policy:spo"}},
		{"one key in both slots", func(b *roll.DriftBasis) {
			spo(*b, func(o *roll.SharePointObservation) { o.SecondaryURI = o.PrimaryURI })
		}, []string{"slot_other_key slot:spo/secondary"}},
		{"slot unreadable", func(b *roll.DriftBasis) {
			spo(*b, func(o *roll.SharePointObservation) { o.PrimaryURI = "" })
		}, []string{"slot_other_key slot:spo/primary"}},
		{"slot behind", func(b *roll.DriftBasis) {
			spo(*b, func(o *roll.SharePointObservation) { o.PrimaryURI = b.Inventory.Keys[4].URI(ver("spo-a", 1)) })
		}, []string{"slot_version_behind slot:spo/primary"}},
		{"slot on a stranger's version", func(b *roll.DriftBasis) {
			newer(*b, "spo-a", 3)
			spo(*b, func(o *roll.SharePointObservation) { o.PrimaryURI = b.Inventory.Keys[4].URI(ver("spo-a", 3)) })
		}, []string{"key_newer_version key:spo-a", "slot_version_unknown slot:spo/primary"}},
		{"a stranger's version on record is not what a slot should name", func(b *roll.DriftBasis) {
			newer(*b, "spo-a", 3)
			record(*b, "spo-a", 3, false)
		}, []string{"key_newer_version key:spo-a"}},
		{"slot without a version", func(b *roll.DriftBasis) {
			spo(*b, func(o *roll.SharePointObservation) { o.PrimaryURI = b.Inventory.Keys[4].URI("") })
		}, []string{"? slot_version_not_shown slot:spo/primary"}},
		{"unregistered", func(b *roll.DriftBasis) {
			b.Observation.SharePoint["NAM"] = roll.SharePointObservation{Status: roll.Unregistered}
		}, []string{"geo_status_not_registered policy:spo"}},
		{"rolled by hand", func(b *roll.DriftBasis) {
			spo(*b, func(o *roll.SharePointObservation) { o.Status = roll.Rolling })
		}, []string{"geo_status_not_registered policy:spo"}},
		{"status unknown", func(b *roll.DriftBasis) {
			spo(*b, func(o *roll.SharePointObservation) { o.Status = 17 })
		}, []string{"geo_status_not_registered policy:spo"}},
		{"geo not readable", func(b *roll.DriftBasis) {
			spo(*b, func(o *roll.SharePointObservation) { o.Trouble = no })
		}, []string{"? forbidden policy:spo"}},
		{"geo not read", func(b *roll.DriftBasis) { delete(b.Observation.SharePoint, "NAM") }, []string{"? unread policy:spo"}},
		{"workload not readable", func(b *roll.DriftBasis) {
			b.Observation.Troubles = map[roll.Workload]roll.Trouble{roll.Exchange: *no}
			delete(b.Observation.Policies, "exo-na")
		}, []string{"? forbidden workload:exchange"}},
		{"none assigned", func(b *roll.DriftBasis) { b.Observation.Assignment = &roll.AssignmentObservation{} }, []string{"assignment_differs assignment"}},
		{"another assigned", func(b *roll.DriftBasis) {
			b.Observation.Undeclared = []roll.PolicyObservation{{Workload: roll.MultiWorkload, Found: true, Name: "New", GUID: "g", Enabled: true}}
			b.Observation.Assignment = &roll.AssignmentObservation{Assigned: true, Name: "New"}
		}, []string{"assignment_differs assignment", "policy_extra policy:g"}},
		{"assigned by name alone", func(b *roll.DriftBasis) {
			b.Observation.Assignment = &roll.AssignmentObservation{Assigned: true, Name: "Contoso_Global"}
		}, nil},
		{"something assigned that is no policy", func(b *roll.DriftBasis) {
			b.Observation.Assignment = &roll.AssignmentObservation{Assigned: true, GUID: "of the assignment"}
		}, []string{"? assignment_unclear assignment"}},
		{"assignment not readable", func(b *roll.DriftBasis) { b.Observation.Assignment = &roll.AssignmentObservation{Trouble: no} }, []string{"? forbidden assignment"}},
		{"assignment not read", func(b *roll.DriftBasis) { b.Observation.Assignment = nil }, []string{"? unread assignment"}},
		{"only SharePoint declared", func(b *roll.DriftBasis) {
			b.Inventory.Policies = b.Inventory.Policies[2:]
			b.Observation.Assignment = nil
		}, []string{"? not_asked workload:exchange", "? not_asked workload:multi-workload"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := basis()
			c.do(&b)
			got := roll.Drift(b)
			want := append([]string{}, c.want...)
			if diff := cmp.Diff(want, lines(got)); diff != "" {
				t.Error(diff)
			}
			if diff := cmp.Diff(got, roll.Drift(b)); diff != "" {
				t.Errorf("another time it is another comparison:\n%s", diff)
			}
		})
	}
}

// TestDriftOfOurOwn: what an open roll does itself is no drift, at any point
// of it; and the same without the roll is.
func TestDriftOfOurOwn(t *testing.T) {
	t.Parallel()
	open := running(t, contoso(), "spo")
	now := start
	open = do(t, open, roll.Preflight, "", now)
	open = do(t, open, roll.SharePointLease, "", now)
	opID := roll.OperationID(rollID, step(t, open, roll.CreateKeyVersion, "spo-a").N, 0)
	made := do(t, open, roll.CreateKeyVersion, "spo-a", now)
	moving, _ := begin(t, made, roll.SharePointRollKey, "spo-a", now)
	watched := do(t, made, roll.SharePointRollKey, "spo-a", now)

	check := func(name string, r roll.Roll, change func(roll.DriftBasis), explained, alone []string) {
		t.Run(name, func(t *testing.T) {
			b := basis()
			change(b)
			if diff := cmp.Diff(alone, lines(roll.Drift(b))); diff != "" {
				t.Errorf("without the roll:\n%s", diff)
			}
			b.Rolls = []roll.Roll{r}
			if diff := cmp.Diff(explained, lines(roll.Drift(b))); diff != "" {
				t.Errorf("with the roll:\n%s", diff)
			}
		})
	}
	check("version made, not recorded yet", open, func(b roll.DriftBasis) {
		newer(b, "spo-a", 3)
		key(b, "spo-a", func(k *roll.KeyObservation) {
			k.Versions[2].Tags = map[string]string{roll.OperationTag: opID}
			k.Latest = k.Versions[2]
		})
	}, []string{}, []string{"key_newer_version key:spo-a"})
	check("a stranger's version beside it", open, func(b roll.DriftBasis) { newer(b, "spo-a", 3) },
		[]string{"key_newer_version key:spo-a"}, []string{"key_newer_version key:spo-a"})
	taken := func(b roll.DriftBasis) {
		newer(b, "spo-a", 3)
		record(b, "spo-a", 3, true)
	}
	behind := []string{"slot_version_behind slot:spo/primary"}
	check("made, slots to follow", made, taken, []string{}, behind)
	rolling := func(b roll.DriftBasis) {
		taken(b)
		o := b.Observation.SharePoint["NAM"]
		o.Status = roll.Rolling
		b.Observation.SharePoint["NAM"] = o
	}
	all := append([]string{"geo_status_not_registered policy:spo"}, behind...)
	check("call under way", moving, rolling, []string{"? roll_under_way policy:spo"}, all)
	check("watched", watched, rolling, []string{"? roll_under_way policy:spo"}, all)
	check("lease held, nothing begun", made, rolling, []string{"geo_status_not_registered policy:spo"}, all)
}

// TestSettle: the same difference is detected once and cleared once, another
// one is another, and what could not be looked at is neither.
func TestSettle(t *testing.T) {
	t.Parallel()
	b := basis()
	newer(b, "exo-a", 3)
	first := roll.Drift(b)
	short := func(detected, cleared []roll.DriftItem) string {
		var out []string
		for _, it := range detected {
			out = append(out, "+"+it.Key)
		}
		for _, it := range cleared {
			out = append(out, "-"+it.Key)
		}
		return strings.Join(out, " ")
	}
	want := func(name string, c roll.Comparison, open []roll.DriftItem, want string) {
		t.Helper()
		if got := short(c.Settle(open)); got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
	item := "key_newer_version|key:exo-a|" + ver("exo-a", 3)
	want("first seen", first, nil, "+"+item)
	want("seen again", first, first.Drift, "")
	newer(b, "exo-a", 4)
	want("one more", roll.Drift(b), first.Drift, "+key_newer_version|key:exo-a|"+ver("exo-a", 4))
	key(b, "exo-a", func(k *roll.KeyObservation) { k.Trouble = &roll.Trouble{Code: "unavailable", Detail: "later"} })
	want("not readable", roll.Drift(b), first.Drift, "")
	key(b, "exo-a", func(k *roll.KeyObservation) { k.Trouble = &roll.Trouble{Code: "not_found", Detail: "gone"} })
	want("gone", roll.Drift(b), first.Drift, "+key_missing|key:exo-a -"+item)
	want("in order again", roll.Drift(basis()), first.Drift, "-"+item)
	b = basis()
	b.Inventory.Keys = slices.DeleteFunc(b.Inventory.Keys, func(k roll.Key) bool { return k.ID == "exo-a" })
	want("not declared any more", roll.Comparison{}, first.Drift, "-"+item)

	b = basis()
	b.Observation.SharePoint["NAM"] = roll.SharePointObservation{Status: roll.Registered,
		PrimaryURI: b.Inventory.Keys[4].URI(ver("spo-a", 1)), SecondaryURI: b.Inventory.Keys[5].URI(ver("spo-b", 2))}
	behind := roll.Drift(b)
	b.Observation.SharePoint["NAM"] = roll.SharePointObservation{Status: roll.Registered,
		PrimaryURI: b.Inventory.Keys[4].URI(""), SecondaryURI: b.Inventory.Keys[5].URI(ver("spo-b", 2))}
	if len(behind.Drift) != 1 {
		t.Fatal(behind)
	}
	want("the version is not shown any more", roll.Drift(b), behind.Drift, "")
	other := roll.DriftItem{Key: "slot_other_key|slot:spo/primary|x", Code: roll.DriftSlotOtherKey, Subject: "slot:spo/primary", Source: "geo:NAM"}
	want("the key is right again, without a version", roll.Drift(b), []roll.DriftItem{other}, "-"+other.Key)
}
