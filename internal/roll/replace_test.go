package roll_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/keyroll/keyroll/internal/roll"
)

// spare is contoso with the key spo-c, which no policy uses.
func spare() (roll.Inventory, roll.Observation) {
	inv := contoso()
	inv.Keys = append(inv.Keys, declared("spo-c"))
	return inv, healthy(inv)
}

func replace(slot roll.Slot) roll.Request {
	return roll.Request{TenantID: contoso().TenantID, Reason: reason(), Replace: []roll.Replacement{{Policy: "spo", Slot: slot, Key: "spo-c"}}}
}

// TestReplacePlan: a slot takes another key; the operation expects the old
// key's version in the slot, and the plan's hash knows which key leaves.
func TestReplacePlan(t *testing.T) {
	inv, obs := spare()
	for _, c := range []struct {
		slot roll.Slot
		old  string
	}{{roll.Primary, "spo-a"}, {roll.Secondary, "spo-b"}} {
		p := build(t, inv, replace(c.slot), obs)
		if len(p.Errors()) > 0 || p.Kind != roll.KindReplace || p.KindWord() != "replace" {
			t.Fatalf("%s: kind %q, findings %+v", c.slot, p.Kind, p.Findings)
		}
		old := declared(c.old)
		want := []roll.PlanReplacement{{Policy: "spo", Slot: c.slot, Key: "spo-c", OldKey: c.old, OldVaultURL: old.VaultURL, OldName: old.Name, OldVersion: ver(c.old, 2)}}
		if d := cmp.Diff(want, p.Replaces); d != "" {
			t.Error(d)
		}
		var got []string
		for _, s := range p.Steps {
			got = append(got, strings.Join([]string{string(s.Kind), s.Key, string(s.Slot), s.Params.OldVersion, s.Params.Replaces}, " "))
		}
		slot := string(c.slot)
		steps := []string{"preflight    ", "sharepoint_lease    ", "create_key_version spo-c  " + ver("spo-c", 2) + " ",
			"sharepoint_roll_key spo-c " + slot + " " + ver(c.old, 2) + " " + c.old, "sharepoint_await spo-c " + slot + "  " + c.old, "verify    "}
		if d := cmp.Diff(steps, got); d != "" {
			t.Error(d)
		}
		if k := p.Policies[0].Keys; slices.Contains(k, c.old) || !slices.Contains(k, "spo-c") || len(p.Policies) != 1 {
			t.Errorf("policies %+v", p.Policies)
		}
		// Another version in the slot is another plan.
		changed := healthy(inv)
		o := changed.SharePoint["NAM"]
		if o.PrimaryURI = old.URI(ver(c.old, 1)); c.slot == roll.Secondary {
			o.PrimaryURI, o.SecondaryURI = obs.SharePoint["NAM"].PrimaryURI, o.PrimaryURI
		}
		changed.SharePoint["NAM"] = o
		if q := build(t, inv, replace(c.slot), changed); q.Hash == p.Hash {
			t.Errorf("%s: the slot's version is not in the hash", c.slot)
		}
	}
	ordinary := planFor(t, inv, "spo")
	if ordinary.Kind != "" || ordinary.KindWord() != "roll" {
		t.Errorf("an ordinary plan is of kind %q", ordinary.Kind)
	}
}

// Both slots take other keys in one roll, one after the other under one lease.
func TestReplaceBoth(t *testing.T) {
	inv, _ := spare()
	inv.Keys = append(inv.Keys, declared("spo-d"))
	req := replace(roll.Primary)
	req.Replace = append(req.Replace, roll.Replacement{Policy: "spo", Slot: roll.Secondary, Key: "spo-d", Version: ver("spo-d", 2)})
	p := build(t, inv, req, healthy(inv))
	if len(p.Errors()) > 0 || len(p.Replaces) != 2 {
		t.Fatalf("%+v", p.Findings)
	}
	if d := cmp.Diff([]string{"spo-c", "spo-d"}, p.Policies[0].Keys); d != "" {
		t.Error(d)
	}
}

func TestReplaceRefused(t *testing.T) {
	for _, c := range []struct {
		name    string
		do      func(*roll.Request)
		pointer string
	}{
		{"with policies", func(r *roll.Request) { r.Policies = []string{"spo"} }, "/replace"},
		{"with keys", func(r *roll.Request) { r.Keys = []roll.KeyRequest{{ID: "exo-a"}} }, "/replace"},
		{"unknown policy", func(r *roll.Request) { r.Replace[0].Policy = "x" }, "/replace/0/policy"},
		{"Exchange policy", func(r *roll.Request) { r.Replace[0].Policy = "exo-na" }, "/replace/0/policy"},
		{"unknown slot", func(r *roll.Request) { r.Replace[0].Slot = "availability" }, "/replace/0/slot"},
		{"unknown key", func(r *roll.Request) { r.Replace[0].Key = "x" }, "/replace/0/key"},
		{"key of the other slot", func(r *roll.Request) { r.Replace[0].Key = "spo-b" }, "/replace/0/key"},
		{"key of the same slot", func(r *roll.Request) { r.Replace[0].Key = "spo-a" }, "/replace/0/key"},
		{"key of another policy", func(r *roll.Request) { r.Replace[0].Key = "exo-a" }, "/replace/0/key"},
		{"bad version", func(r *roll.Request) { r.Replace[0].Version = "newest" }, "/replace/0/version"},
		{"one key for both slots", func(r *roll.Request) {
			r.Replace = append(r.Replace, roll.Replacement{Policy: "spo", Slot: roll.Secondary, Key: "spo-c"})
		}, "/replace/1"},
		{"slot twice", func(r *roll.Request) {
			r.Replace = append(r.Replace, roll.Replacement{Policy: "spo", Slot: roll.Primary, Key: "spo-d"})
		}, "/replace/1"},
		{"no reason", func(r *roll.Request) { r.Reason.Text = "" }, "/reason/text"},
	} {
		inv, _ := spare()
		inv.Keys = append(inv.Keys, declared("spo-d"))
		req := replace(roll.Primary)
		c.do(&req)
		_, err := roll.Resolve(inv, req)
		if bad, ok := err.(*roll.InvalidError); !ok || bad.Pointer != c.pointer || bad.Detail == "" {
			t.Errorf("%s: %v, want %s", c.name, err, c.pointer)
		}
	}
}

// TestReplaceFindings: what a replacement adds to the findings of a roll.
func TestReplaceFindings(t *testing.T) {
	for _, c := range []struct {
		name string
		do   func(x *tenant)
		want []string
	}{
		{"in order", func(*tenant) {}, nil},
		{"in the vault of the other slot", func(x *tenant) {
			b, _ := x.inv.KeyByID("spo-b")
			x.inv.Keys[len(x.inv.Keys)-1].VaultURL = b.VaultURL
		}, []string{"error fewer_than_two_vaults policy:spo", "error replacement_same_vault policy:spo"}},
		{"in the other slot at Microsoft", func(x *tenant) {
			c := declared("spo-c")
			x.sharePoint(func(o *roll.SharePointObservation) { o.SecondaryURI = c.URI(ver("spo-c", 2)) })
		}, []string{"error replacement_in_other_slot policy:spo", "error sharepoint_slot_mismatch policy:spo"}},
		{"the slot has a stranger", func(x *tenant) {
			m := declared("m-a")
			x.sharePoint(func(o *roll.SharePointObservation) { o.PrimaryURI = m.URI(ver("m-a", 2)) })
		}, []string{"error sharepoint_slot_mismatch policy:spo"}},
		{"the old key cannot be read", func(x *tenant) {
			x.key("spo-a", func(k *roll.KeyObservation) { k.Trouble = &roll.Trouble{Code: "forbidden", Detail: "no"} })
		}, []string{"warning replaced_key_unusable key:spo-a"}},
		{"the old key is disabled", func(x *tenant) { x.latest("spo-a", func(v *roll.KeyVersion) { v.Enabled = false }) },
			[]string{"warning replaced_key_unusable key:spo-a"}},
		{"the new key is disabled", func(x *tenant) { x.latest("spo-c", func(v *roll.KeyVersion) { v.Enabled = false }) },
			[]string{"error key_disabled key:spo-c"}},
		{"used by a policy since", func(x *tenant) {
			x.after = func() { x.inv.Policies[1].Keys = []string{"exo-a", "spo-c"} }
		}, []string{"error policy_keys_mismatch policy:exo-na", "error replacement_key_in_use policy:spo"}},
		{"the key has gone from the declaration", func(x *tenant) {
			x.after = func() { x.inv.Keys = x.inv.Keys[:len(x.inv.Keys)-1] }
		}, []string{"error fewer_than_two_vaults policy:spo", "error replacement_not_possible policy:spo"}},
		{"the policy has gone from the declaration", func(x *tenant) {
			x.after = func() { x.inv.Policies = x.inv.Policies[:2] }
		}, []string{"error replacement_not_possible policy:spo"}},
		{"a Managed HSM, by CSOM", func(x *tenant) { x.inHSM("spo-c", 2) }, []string{"error managed_hsm_not_nameable key:spo-c"}},
		{"a Managed HSM, by runbook", func(x *tenant) {
			x.inHSM("spo-c", 2)
			x.obs.Transports = map[string]roll.ChosenTransport{roll.Place(roll.SharePoint, "NAM"): {Via: roll.Automation}}
		}, nil},
		{"a Managed HSM, by hand", func(x *tenant) {
			x.inv.Keys[len(x.inv.Keys)-1].VaultURL = "https://contoso.managedhsm.azure.net"
			x.inHSM("spo-c", 2)
			x.obs.Transports = map[string]roll.ChosenTransport{roll.Place(roll.SharePoint, "NAM"): {Via: roll.Manual}}
		}, nil},
		{"a Managed HSM of a strange name, by hand", func(x *tenant) {
			x.inHSM("spo-c", 2)
			x.obs.Transports = map[string]roll.ChosenTransport{roll.Place(roll.SharePoint, "NAM"): {Via: roll.Manual}}
		}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			x := &tenant{req: replace(roll.Primary)}
			x.inv, x.obs = spare()
			c.do(x)
			res, err := roll.Resolve(x.inv, x.req)
			if err != nil {
				t.Fatal(err)
			}
			if x.after != nil {
				x.after()
			}
			p, err := roll.Build(x.inv, res, x.obs, start)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, f := range p.Findings {
				if slices.Contains([]string{"one_region", "one_subscription", "vault_not_checked"}, f.Code) {
					continue // of vaults, whoever's turn it is
				}
				got = append(got, string(f.Level)+" "+f.Code+" "+f.Subject)
			}
			if d := cmp.Diff(c.want, got); d != "" {
				t.Error(d)
			}
		})
	}
}

// TestReplacedDeclaration: what the declaration becomes, and when it stays.
func TestReplacedDeclaration(t *testing.T) {
	inv, obs := spare()
	r, _ := roll.New(rollID, replace(roll.Primary), build(t, inv, replace(roll.Primary), obs), alice, false, patience, start)
	for _, k := range []roll.StepKind{roll.Preflight, roll.SharePointLease, roll.CreateKeyVersion, roll.SharePointRollKey} {
		r = do(t, r, k, "", start)
	}
	r, s := begin(t, r, roll.SharePointAwait, "", start)
	_, fx := mustFx(t, r, roll.Done{N: s.N, Epoch: s.Epoch, Result: roll.Result{Versions: map[string]string{"spo-c": ver("spo-c", 3)}, Evidence: roll.Confirmed}}, start)
	var e roll.Redeclare
	for _, f := range fx {
		if d, ok := f.(roll.Redeclare); ok {
			e = d
		}
	}
	if want := (roll.Redeclare{Policy: "spo", Slot: roll.Primary, Old: "spo-a", New: "spo-c"}); e != want {
		t.Fatalf("effect %+v", e)
	}
	next, ok := inv.Follow(e)
	p, _ := next.PolicyByID("spo")
	if _, still := next.KeyByID("spo-a"); !ok || p.Primary != "spo-c" || p.Secondary != "spo-b" || still || len(next.FormerKeys) != 1 || next.FormerKeys[0].ID != "spo-a" {
		t.Errorf("declaration %+v", next)
	}
	if q, _ := inv.PolicyByID("spo"); q.Primary != "spo-a" || len(inv.Keys) != 7 {
		t.Error("the declaration given was changed")
	}
	if _, again := next.Follow(e); again {
		t.Error("it follows twice")
	}
	edited, _ := spare()
	edited.Policies[2].Primary = "m-a"
	if _, ok := edited.Follow(e); ok {
		t.Error("an edited declaration was overwritten")
	}
	// A plan made again afterwards has nothing left to replace, and takes what was made.
	obs.Keys["spo-c"] = roll.KeyObservation{Latest: version("spo-c", 3), Versions: []roll.KeyVersion{version("spo-c", 2), version("spo-c", 3)}, Rotation: roll.RotationPolicy{Readable: true}}
	o, c := obs.SharePoint["NAM"], declared("spo-c")
	o.PrimaryURI = c.URI(ver("spo-c", 3))
	obs.SharePoint["NAM"] = o
	plan, err := roll.Build(next, roll.Resolved{Request: replace(roll.Primary), Keys: []roll.KeyRequest{{Type: roll.RootKey, ID: "spo-c", Version: ver("spo-c", 3)}}}, obs, start.Add(time.Hour))
	if err != nil || len(plan.Errors()) > 0 || len(plan.Replaces) > 0 {
		t.Errorf("%v %+v", err, plan.Findings)
	}
	for _, s := range plan.Steps {
		if s.Kind == roll.SharePointRollKey {
			t.Error("the slot would be rolled again")
		}
	}
}

// A Managed HSM has no short name, so the line names the key by its URI; what
// would not be one word in a shell is refused.
func TestManualLineOfManagedHSM(t *testing.T) {
	geo := contoso().SharePoint.Geos[0]
	k := roll.Key{ID: "h", VaultURL: "https://Contoso-HSM.managedhsm.azure.net/", Name: "Key-1"}
	o, f := roll.SharePointLine(contoso(), geo, k, ver("h", 1), roll.Secondary, true)
	if want := "Update-SPODataEncryptionPolicy -KeyVaultUri https://contoso-hsm.managedhsm.azure.net/keys/Key-1/" + ver("h", 1) + " -KeyType Secondary"; f != nil || o.Line != want {
		t.Errorf("%+v %q", f, o.Line)
	}
	k.VaultURL = "https://contoso.managedhsm.azure.net;rm"
	if o, f := roll.SharePointLine(contoso(), geo, k, ver("h", 1), roll.Secondary, true); f == nil {
		t.Errorf("%q", o.Line)
	}
}
