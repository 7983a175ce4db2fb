package roll_test

import (
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/keyroll/keyroll/internal/roll"
)

// undeclared is what is read of Contoso before it is declared.
func undeclared() (roll.Inventory, roll.Observation) {
	inv := contoso()
	obs := healthy(inv)
	obs.Assignment = &roll.AssignmentObservation{Assigned: true, GUID: guidM}
	for _, id := range []string{"exo-na", "global"} {
		obs.Undeclared = append(obs.Undeclared, obs.Policies[id])
	}
	obs.Policies = map[string]roll.PolicyObservation{}
	base := inv
	base.Keys, base.Policies = nil, nil
	return base, obs
}

// TestPropose: what is proposed of a tenant in order is its declaration, but
// for the ids, and holding it against Microsoft finds nothing.
func TestPropose(t *testing.T) {
	t.Parallel()
	base, obs := undeclared()
	got, found := roll.Propose(base, obs)
	if len(found) != 0 {
		t.Errorf("findings %+v", found)
	}
	var ids []string
	for _, k := range got.Keys {
		ids = append(ids, k.ID)
	}
	for _, p := range got.Policies {
		ids = append(ids, p.ID+"="+strings.Join(p.KeyIDs(), "+"))
	}
	want := []string{
		"contoso-exo-a.contoso-exo-a-key001", "contoso-exo-b.contoso-exo-b-key001", "contoso-m-a.contoso-m-a-key001",
		"contoso-m-b.contoso-m-b-key001", "contoso-spo-a.contoso-spo-a-key001", "contoso-spo-b.contoso-spo-b-key001",
		"contoso_global=contoso-m-a.contoso-m-a-key001+contoso-m-b.contoso-m-b-key001",
		"na-mailboxes=contoso-exo-a.contoso-exo-a-key001+contoso-exo-b.contoso-exo-b-key001",
		"spo-nam=contoso-spo-a.contoso-spo-a-key001+contoso-spo-b.contoso-spo-b-key001",
	}
	if diff := cmp.Diff(want, ids); diff != "" {
		t.Error(diff)
	}
	again, _ := roll.Propose(base, obs)
	if diff := cmp.Diff(got, again); diff != "" {
		t.Errorf("another time it is another proposal:\n%s", diff)
	}
}

// TestProposeOdd: each thing that is not in order is a finding, and what
// cannot be declared is left out.
func TestProposeOdd(t *testing.T) {
	t.Parallel()
	no := &roll.Trouble{Code: "forbidden", Detail: "no"}
	idForm := regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,62}$`)
	for name, c := range map[string]struct {
		do       func(*roll.Inventory, *roll.Observation)
		want     string
		policies int
	}{
		"key with a version": {func(_ *roll.Inventory, o *roll.Observation) { o.Undeclared[0].AzureKeyIDs[0] += "/" + ver("exo-a", 1) }, "warning policy_keys_versioned", 3},
		"purge and disabled": {func(_ *roll.Inventory, o *roll.Observation) {
			o.Undeclared[0].PurgeRequested, o.Undeclared[0].Enabled = true, false
		}, "warning policy_disabled, warning policy_purge_requested", 3},
		"one key": {func(_ *roll.Inventory, o *roll.Observation) {
			o.Undeclared[0].AzureKeyIDs = o.Undeclared[0].AzureKeyIDs[:1]
		}, "error policy_left_out", 2},
		"no guid":    {func(_ *roll.Inventory, o *roll.Observation) { o.Undeclared[0].GUID = "" }, "error policy_left_out", 2},
		"no key URI": {func(_ *roll.Inventory, o *roll.Observation) { o.Undeclared[0].AzureKeyIDs[0] = "urn:x" }, "error key_uri_unknown", 2},
		"twice a key": {func(_ *roll.Inventory, o *roll.Observation) {
			o.Undeclared[0].AzureKeyIDs[0] = o.Undeclared[0].AzureKeyIDs[1]
		}, "error one_key", 2},
		"keys of another policy": {func(_ *roll.Inventory, o *roll.Observation) {
			o.Undeclared[0].AzureKeyIDs = o.Undeclared[1].AzureKeyIDs
		},
			"warning vault_shared, warning vault_shared", 3},
		"one vault": {func(_ *roll.Inventory, o *roll.Observation) {
			o.Undeclared[0].AzureKeyIDs[0] = "https://contoso-exo-b.vault.azure.net/keys/other"
		}, "warning fewer_than_two_vaults", 3},
		"not assigned":      {func(_ *roll.Inventory, o *roll.Observation) { o.Assignment.GUID = guidE }, "warning policy_not_assigned", 3},
		"assignment unread": {func(_ *roll.Inventory, o *roll.Observation) { o.Assignment = nil }, "not_checked assignment_unreadable", 3},
		"policies unreadable": {func(_ *roll.Inventory, o *roll.Observation) {
			o.Troubles = map[roll.Workload]roll.Trouble{roll.Exchange: *no}
		}, "error policies_unreadable", 3},
		"geo unreadable": {func(_ *roll.Inventory, o *roll.Observation) {
			o.SharePoint["NAM"] = roll.SharePointObservation{Trouble: no}
		}, "error sharepoint_unreadable", 2},
		"geo not registered": {func(_ *roll.Inventory, o *roll.Observation) { o.SharePoint["NAM"] = roll.SharePointObservation{} }, "warning sharepoint_not_registered", 2},
		"names that collide": {func(_ *roll.Inventory, o *roll.Observation) {
			o.Undeclared[0].Name, o.Undeclared[1].Name = "A B", "a-b"
		}, "", 3},
		"long and foreign names": {func(_ *roll.Inventory, o *roll.Observation) {
			o.Undeclared[0].Name = "---" + strings.Repeat("ü", 150)
			o.Undeclared[1].Name = strings.Repeat("x", 150)
			o.Undeclared[1].AzureKeyIDs[0] = "https://contoso-exo-a.vault.azure.net/keys/" + strings.Repeat("K", 120)
		}, "warning vault_shared", 3},
	} {
		t.Run(name, func(t *testing.T) {
			base, obs := undeclared()
			c.do(&base, &obs)
			got, found := roll.Propose(base, obs)
			var out []string
			for _, f := range found {
				out = append(out, string(f.Level)+" "+f.Code)
				if f.Seen == "" || f.Remedy == "" || f.Subject == "" {
					t.Errorf("incomplete: %+v", f)
				}
			}
			if s := strings.Join(out, ", "); s != c.want || len(got.Policies) != c.policies {
				t.Errorf("%d policies, findings %q; want %d, %q", len(got.Policies), s, c.policies, c.want)
			}
			ids := map[string]bool{}
			for _, k := range got.Keys {
				if !idForm.MatchString(k.ID) || ids["key "+k.ID] {
					t.Errorf("key id %q", k.ID)
				}
				ids["key "+k.ID] = true
			}
			for _, p := range got.Policies {
				if !idForm.MatchString(p.ID) || ids[p.ID] {
					t.Errorf("policy id %q", p.ID)
				}
				ids[p.ID] = true
				for _, k := range p.KeyIDs() {
					if !ids["key "+k] {
						t.Errorf("policy %s names key %q", p.ID, k)
					}
				}
			}
		})
	}
}
