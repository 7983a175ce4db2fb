package roll_test

import (
	"slices"
	"testing"

	"github.com/keyroll/keyroll/internal/roll"
)

// vault changes what Resource Manager shows of a key's vault.
func (x *tenant) vault(key string, do func(*roll.VaultObservation)) {
	k, _ := x.inv.KeyByID(key)
	v := x.obs.Vaults[k.Ref().Host]
	v.Grants = slices.Clone(v.Grants)
	do(&v)
	x.obs.Vaults[k.Ref().Host] = v
}

// Each rule of set-up, one at a time, over a tenant in order; and what cannot
// be seen is said, never passed.
func TestVaultFindings(t *testing.T) {
	const e, w, n = roll.LevelError, roll.LevelWarning, roll.LevelNotChecked
	const exoA, exoB = "vault:contoso-exo-a.vault.azure.net", "vault:contoso-exo-b.vault.azure.net"
	type want struct {
		level         roll.Level
		code, subject string
	}
	no := &roll.Trouble{Code: "forbidden", Detail: "no"}
	vault := func(do func(*roll.VaultObservation)) func(*tenant) {
		return func(x *tenant) { x.vault("exo-a", do) }
	}
	without := func(who string, rights ...roll.KeyRight) func(*tenant) {
		return vault(func(v *roll.VaultObservation) {
			for i, g := range v.Grants {
				if g.Principal == who {
					v.Grants[i].May = slices.DeleteFunc(slices.Clone(g.May), func(r roll.KeyRight) bool { return slices.Contains(rights, r) })
				}
			}
		})
	}
	grant := func(g roll.VaultGrant) func(*tenant) {
		return vault(func(v *roll.VaultObservation) { v.Grants = append(v.Grants, g) })
	}
	all := func(fs ...func(*tenant)) func(*tenant) {
		return func(x *tenant) {
			for _, f := range fs {
				f(x)
			}
		}
	}
	use := []roll.KeyRight{roll.MayGet, roll.MayWrap, roll.MayUnwrap}
	for name, c := range map[string]struct {
		do   func(*tenant)
		want []want
	}{
		"in order":            {func(*tenant) {}, nil},
		"one subscription":    {vault(func(v *roll.VaultObservation) { v.Subscription = "s2" }), []want{{w, "one_subscription", "policy:exo-na"}}},
		"one region":          {vault(func(v *roll.VaultObservation) { v.Location = "westeurope" }), []want{{w, "one_region", "policy:exo-na"}}},
		"paired regions":      {vault(func(v *roll.VaultObservation) { v.Location, v.Paired = "northeurope", []string{"westeurope"} }), []want{{w, "paired_regions", "policy:exo-na"}}},
		"a trial":             {vault(func(v *roll.VaultObservation) { v.Quota = "FreeTrial_2014-09-01" }), []want{{w, "subscription_not_paid", exoA}}},
		"a developer's":       {vault(func(v *roll.VaultObservation) { v.Quota = "MSDNDevTest_2014-09-01" }), []want{{w, "subscription_not_paid", exoA}}},
		"past due":            {vault(func(v *roll.VaultObservation) { v.SubscriptionState = "PastDue" }), []want{{w, "subscription_not_enabled", exoA}}},
		"soft delete off":     {vault(func(v *roll.VaultObservation) { v.SoftDelete = new(false) }), []want{{w, "soft_delete_off", exoA}}},
		"89 days":             {vault(func(v *roll.VaultObservation) { v.RetentionDays = new(89) }), []want{{w, "retention_days", exoA}}},
		"no purge protection": {vault(func(v *roll.VaultObservation) { v.PurgeProtection = new(false) }), []want{{w, "purge_protection_off", exoA}}},
		"standard":            {vault(func(v *roll.VaultObservation) { v.SKU = "standard" }), []want{{w, "standard_vault", exoA}}},
		"no retention":        {vault(func(v *roll.VaultObservation) { v.Retention = "NotRegistered" }), []want{{w, "retention_period_off", exoA}}},
		"retention unseen":    {vault(func(v *roll.VaultObservation) { v.Retention, v.RetentionTrouble = "", no }), []want{{n, "retention_period_not_checked", exoA}}},
		"no lock":             {vault(func(v *roll.VaultObservation) { v.Locks = nil }), []want{{w, "no_delete_lock", exoA}}},
		"locks unseen":        {vault(func(v *roll.VaultObservation) { v.Locks, v.LocksTrouble = nil, no }), []want{{n, "locks_not_checked", exoA}}},
		"firewall": {vault(func(v *roll.VaultObservation) {
			v.Network = &roll.VaultNetwork{DefaultAction: "Deny", Bypass: "None", PublicAccess: "Enabled"}
		}), []want{{e, "vault_firewall_denies_microsoft", exoA}}},
		"private only": {vault(func(v *roll.VaultObservation) {
			v.Network = &roll.VaultNetwork{DefaultAction: "Allow", Bypass: "None", PublicAccess: "Disabled"}
		}), []want{{e, "vault_firewall_denies_microsoft", exoA}}},
		"firewall with bypass": {vault(func(v *roll.VaultObservation) {
			v.Network = &roll.VaultNetwork{DefaultAction: "Deny", Bypass: "AzureServices", PublicAccess: "Disabled"}
		}), nil},
		"network unseen":                    {vault(func(v *roll.VaultObservation) { v.Network = nil }), []want{{n, "network_not_checked", exoA}}},
		"service without wrap":              {without("sp-exo", roll.MayWrap), []want{{e, "service_principal_denied", exoA}}},
		"service without get":               {without("sp-exo", roll.MayGet), []want{{e, "service_principal_denied", exoA}}},
		"another service without":           {without("sp-spo", use...), nil},
		"service through a group":           {all(without("sp-exo", use...), grant(roll.VaultGrant{Principal: "g", May: use, Unsure: true})), []want{{n, "service_principal_not_checked", exoA}}},
		"a group with less":                 {all(without("sp-exo", use...), grant(roll.VaultGrant{Principal: "g", May: use[:2], Unsure: true})), []want{{e, "service_principal_denied", exoA}}},
		"service in capitals":               {func(x *tenant) { x.inv.Azure.ServicePrincipals.Exchange = "SP-EXO" }, nil},
		"service not declared":              {func(x *tenant) { x.inv.Azure.ServicePrincipals.Exchange = "" }, []want{{n, "service_principal_not_checked", exoA}, {n, "service_principal_not_checked", exoB}}},
		"grants unseen":                     {vault(func(v *roll.VaultObservation) { v.Grants, v.GrantsTrouble = nil, no }), []want{{n, "credential_not_checked", exoA}, {n, "service_principal_not_checked", exoA}}},
		"own rights":                        {without("self", roll.MayCreate), []want{{e, "credential_lacks_rights", exoA}}},
		"own rights, where nothing is made": {all(without("self", roll.MayCreate), func(x *tenant) { x.req.Policies, x.req.Keys = nil, []roll.KeyRequest{{ID: "exo-b"}} }), nil},
		"own rights through a group":        {all(without("self", roll.MayCreate), grant(roll.VaultGrant{Principal: "g", May: []roll.KeyRight{roll.MayCreate}, Unsure: true})), []want{{n, "credential_not_checked", exoA}}},
		"own right to delete":               {grant(roll.VaultGrant{Principal: "self", May: []roll.KeyRight{roll.MayPurge}}), []want{{w, "credential_may_delete", exoA}}},
		"self unknown":                      {func(x *tenant) { x.obs.Self = "" }, []want{{n, "credential_not_checked", exoA}, {n, "credential_not_checked", exoB}}},
		"one administrator": {func(x *tenant) {
			for _, k := range []string{"exo-a", "exo-b"} {
				x.vault(k, func(v *roll.VaultObservation) {
					v.Grants = append(v.Grants, roll.VaultGrant{Principal: "ada", Manages: true})
				})
			}
		}, []want{{w, "same_administrator", "policy:exo-na"}}},
		"an administrator of one": {grant(roll.VaultGrant{Principal: "ada", Manages: true}), nil},
		"vault unseen":            {func(x *tenant) { delete(x.obs.Vaults, "contoso-exo-a.vault.azure.net") }, []want{{n, "vault_not_checked", exoA}}},
		"vault in trouble":        {vault(func(v *roll.VaultObservation) { *v = roll.VaultObservation{Trouble: no} }), []want{{n, "vault_not_checked", exoA}}},
		"nothing granted":         {func(x *tenant) { x.obs.Vaults, x.obs.VaultsTrouble = nil, no }, []want{{n, "vault_not_checked", exoA}, {n, "vault_not_checked", exoB}}},
	} {
		t.Run(name, func(t *testing.T) {
			x := &tenant{inv: contoso(), obs: healthy(contoso()), req: request(contoso(), "exo-na")}
			plain := build(t, x.inv, x.req, x.obs)
			c.do(x)
			p := build(t, x.inv, x.req, x.obs)
			var got []want
			for _, f := range p.Findings {
				got = append(got, want{f.Level, f.Code, f.Subject})
				if f.Seen == "" || f.Remedy == "" || f.Passing != (f.Level != e) {
					t.Errorf("%s: %+v", f.Code, f)
				}
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("findings %v, want %v", got, c.want)
			}
			// What Resource Manager shows changes no plan that can begin.
			if len(p.Errors()) == 0 && len(x.req.Keys) == 0 && p.Hash != plain.Hash {
				t.Error("another hash")
			}
		})
	}
}

// One vault for the keys of two policies.
func TestSharedVault(t *testing.T) {
	x := &tenant{inv: contoso(), req: request(contoso(), "exo-na")}
	x.inv.Keys[0].VaultURL = x.inv.Keys[2].VaultURL
	x.obs = healthy(x.inv)
	p := build(t, x.inv, x.req, x.obs)
	if len(p.Findings) != 1 || p.Findings[0].Code != "vault_shared" || p.Findings[0].Level != roll.LevelWarning {
		t.Errorf("findings %+v", p.Findings)
	}
}
