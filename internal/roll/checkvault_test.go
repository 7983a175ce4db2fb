package roll_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/keyroll/keyroll/internal/roll"
)

// TestChecklistByResourceManager: what it shows of a vault is done or missing
// by the judgements that make findings, and what it does not show is unknown.
func TestChecklistByResourceManager(t *testing.T) {
	t.Parallel()
	const u, d, m = roll.GrantUnknown, roll.GrantDone, roll.GrantMissing
	const host = "contoso-exo-a.vault.azure.net"
	no := &roll.Trouble{Code: "throttled", Detail: "not now"}
	may := func(who string, rights ...roll.KeyRight) func(*tenant) {
		return func(x *tenant) {
			x.vault("exo-a", func(v *roll.VaultObservation) {
				v.Grants = slices.DeleteFunc(v.Grants, func(g roll.VaultGrant) bool { return g.Principal == who })
				v.Grants = append(v.Grants, roll.VaultGrant{Principal: who, May: rights})
			})
		}
	}
	vault := func(do func(*roll.VaultObservation)) func(*tenant) {
		return func(x *tenant) { x.vault("exo-a", do) }
	}
	troubled := func(code string) func(*tenant) {
		return func(x *tenant) {
			x.key("exo-a", func(k *roll.KeyObservation) { k.Trouble = &roll.Trouble{Code: code, Detail: "no"} })
		}
	}
	gone := func(why *roll.Trouble) func(*tenant) {
		return func(x *tenant) { delete(x.obs.Vaults, host); x.obs.VaultsTrouble = why }
	}
	for name, c := range map[string]struct {
		do func(*tenant)
		// Keyroll's rights, no right to delete, Microsoft's services, the firewall, Reader
		want [5]roll.GrantState
		seen string
	}{
		"in order":        {func(*tenant) {}, [5]roll.GrantState{d, d, d, d, d}, "shows get, wrapKey, unwrapKey for the service of exchange"},
		"no wrapKey":      {may("sp-exo", roll.MayGet, roll.MayUnwrap), [5]roll.GrantState{d, d, m, d, d}, "lacks wrapKey"},
		"another service": {may("sp-spo"), [5]roll.GrantState{d, d, d, d, d}, ""},
		"no create":       {may("self", roll.MayGet, roll.MayList), [5]roll.GrantState{m, d, d, d, d}, "lacks create"},
		"too much":        {may("self", roll.KeyRights()...), [5]roll.GrantState{d, m, d, d, d}, "may delete, purge"},
		"through a group": {vault(func(v *roll.VaultObservation) {
			v.Grants = []roll.VaultGrant{{Principal: "g", May: roll.KeyRights(), Unsure: true}}
		}), [5]roll.GrantState{u, u, u, d, d}, "cannot be seen"},
		"not declared":      {func(x *tenant) { x.inv.Azure.ServicePrincipals.Exchange = "" }, [5]roll.GrantState{d, d, u, d, d}, "is not declared"},
		"self unknown":      {func(x *tenant) { x.obs.Self = "" }, [5]roll.GrantState{u, u, d, d, d}, "which principal it is"},
		"grants unseen":     {vault(func(v *roll.VaultObservation) { v.Grants, v.GrantsTrouble = nil, no }), [5]roll.GrantState{u, u, u, d, d}, "not now"},
		"firewall":          {vault(func(v *roll.VaultObservation) { v.Network = &roll.VaultNetwork{DefaultAction: "Deny", Bypass: "None"} }), [5]roll.GrantState{d, d, d, m, d}, "bypass None"},
		"network unseen":    {vault(func(v *roll.VaultObservation) { v.Network = nil }), [5]roll.GrantState{d, d, d, u, d}, "no network rules"},
		"vault not there":   {gone(nil), [5]roll.GrantState{u, u, u, u, m}, "sees no such vault"},
		"refused":           {gone(&roll.Trouble{Code: "forbidden", Detail: "no"}), [5]roll.GrantState{u, u, u, u, m}, "refused"},
		"no subscription":   {gone(&roll.Trouble{Code: "not_granted", Detail: "none"}), [5]roll.GrantState{u, u, u, u, m}, "none"},
		"throttled":         {gone(no), [5]roll.GrantState{u, u, u, u, u}, "not now"},
		"no token for it":   {gone(&roll.Trouble{Code: "token", Detail: "none"}), [5]roll.GrantState{u, u, u, u, u}, "none"},
		"never asked":       {func(x *tenant) { x.obs.Vaults = nil }, [5]roll.GrantState{u, u, u, u, u}, "discover the tenant"},
		"refused the keys":  {troubled("forbidden"), [5]roll.GrantState{m, d, d, d, d}, "was refused"},
		"throttled at keys": {troubled("throttled"), [5]roll.GrantState{d, d, d, d, d}, ""},
	} {
		x := &tenant{inv: contoso(), obs: healthy(contoso())}
		c.do(x)
		var got []roll.GrantState
		var seen []string
		for _, g := range roll.Checklist(x.inv, grantee(), roll.Reads(x.inv, x.obs), roll.Proof{}) {
			if g.Subject == "vault:"+host {
				got, seen = append(got, g.State), append(seen, g.Seen)
			} else if strings.HasPrefix(g.Subject, "vault:") && byAzure[g.ID] && g.State != d && name == "no wrapKey" {
				t.Errorf("%s: %s %s is %s", name, g.ID, g.Subject, g.State)
			}
			if g.Seen == "" {
				t.Errorf("%s: %s says nothing", name, g.ID)
			}
		}
		if !slices.Equal(got, c.want[:]) || !strings.Contains(strings.Join(seen, "\n"), c.seen) {
			t.Errorf("%s: %v, want %v with %q:\n%s", name, got, c.want, c.seen, strings.Join(seen, "\n"))
		}
	}
}

// TestChecklistSharedVault: every service of a vault counts, and one that a
// declaration brings after the last look is unknown.
func TestChecklistSharedVault(t *testing.T) {
	t.Parallel()
	inv := contoso()
	inv.Keys[0].VaultURL = inv.Keys[2].VaultURL // of the multi-workload policy, at Exchange's vault
	x := &tenant{inv: inv, obs: healthy(inv)}
	services := func(inv roll.Inventory, reads []roll.Read) roll.Grant {
		for _, g := range roll.Checklist(inv, grantee(), reads, roll.Proof{}) {
			if g.ID == "vault_microsoft365" && g.Subject == "vault:contoso-exo-a.vault.azure.net" {
				return g
			}
		}
		return roll.Grant{}
	}
	reads := roll.Reads(inv, x.obs)
	if g := services(inv, reads); g.State != roll.GrantDone || strings.Count(g.Seen, "shows get, wrapKey, unwrapKey") != 2 {
		t.Errorf("both: %+v", g)
	}
	before := contoso()
	if g := services(inv, roll.Reads(before, healthy(before))); g.State != roll.GrantUnknown || !strings.Contains(g.Seen, "has changed since") {
		t.Errorf("a new one: %+v", g)
	}
	x.inv.Azure.ServicePrincipals.MultiWorkload = ""
	x.vault("exo-a", func(v *roll.VaultObservation) {
		v.Grants = slices.DeleteFunc(v.Grants, func(g roll.VaultGrant) bool { return g.Principal == "sp-exo" })
	})
	if g := services(x.inv, roll.Reads(x.inv, x.obs)); g.State != roll.GrantMissing || !strings.Contains(g.Seen, "lacks") || !strings.Contains(g.Seen, "not declared") {
		t.Errorf("one missing, one unknown: %+v", g)
	}
}

// TestChecklistClientID: where the application id is not known, each line with
// the stand-in says which command shows it.
func TestChecklistClientID(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		objectID, resourceID, want string
	}{
		"by object id":    {"0b1ec7", "", "az ad sp show --id 0b1ec7 --query appId --output tsv"},
		"by resource id":  {"", "/subscriptions/s/x", "az identity show --ids /subscriptions/s/x --query clientId --output tsv"},
		"system-assigned": {"", "", "servicePrincipalType eq 'ManagedIdentity'"},
	} {
		g := grantee()
		g.ClientID, g.ObjectID, g.ResourceID = "", c.objectID, c.resourceID
		n := 0
		for _, l := range roll.Checklist(contoso(), g, nil, roll.Proof{}) {
			uses := strings.Contains(strings.Join(l.Commands, " "), "CLIENT-ID-OF-KEYROLL")
			if uses != strings.Contains(l.Note, c.want) {
				t.Errorf("%s: %s uses the stand-in: %v, note: %s", name, l.ID, uses, l.Note)
			}
			if uses {
				n++
			}
		}
		if n < 10 {
			t.Errorf("%s: %d lines", name, n)
		}
	}
	for _, l := range roll.Checklist(contoso(), grantee(), nil, roll.Proof{}) {
		if strings.Contains(l.Note, "CLIENT-ID-OF-KEYROLL") {
			t.Errorf("%s speaks of a stand-in", l.ID)
		}
	}
}
