package control_test

import (
	"testing"

	"github.com/keyroll/keyroll/internal/roll"
	"github.com/keyroll/keyroll/internal/sim"
)

// Resource Manager holds up no plan and makes no other one of it, whatever
// ails it; and what it did not show is said, vault by vault. What it shows to
// be in the way of the roll is an error.
func TestPlanAndResourceManager(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.inv.Azure.ServicePrincipals = roll.ServicePrincipals{Exchange: sim.ObjectID(sim.ContosoTenant, sim.ExchangeAppID),
		SharePoint: sim.ObjectID(sim.ContosoTenant, sim.SharePointAppID), MultiWorkload: sim.ObjectID(sim.ContosoTenant, sim.MultiWorkloadAppID)}
	h.declare()
	plan := func() roll.Plan {
		t.Helper()
		p, err := h.ctl.Plan(t.Context(), paul(), roll.Request{TenantID: h.inv.TenantID, Policies: []string{"exo-na"}})
		must(t, err)
		return p
	}
	sound := plan()
	// All that is to be said of a tenant in order is that nobody has attested a backup.
	if len(sound.Findings) != 2 || sound.Findings[0].Code != "backup_due" || sound.Findings[1].Code != "backup_due" {
		t.Errorf("a tenant in order: %+v", sound.Findings)
	}
	said := func(p roll.Plan, level roll.Level, code string) int {
		n := 0
		for _, f := range p.Findings {
			if f.Level == level && f.Code == code {
				n++
			}
		}
		return n
	}
	for name, fault := range map[string]sim.Fault{
		"throttled":        {Mode: sim.ModeThrottle},
		"lost":             {Mode: sim.ModeLoseBefore},
		"no vaults listed": {Operation: sim.OpListVaults, Mode: sim.ModeRefuse, Params: sim.FaultParams{Status: 503, Code: "ServerBusy"}},
		"not understood":   {Mode: sim.ModeHTMLPage},
	} {
		fault.Service = sim.ServiceResourceManager
		id, err := h.sim.World.AddFault(fault)
		must(t, err)
		p := plan()
		if p.Hash != sound.Hash || len(p.Errors()) != 0 || said(p, roll.LevelNotChecked, "vault_not_checked") != 2 {
			t.Errorf("%s: %s %+v", name, p.Hash, p.Findings)
		}
		must(t, h.sim.World.RemoveFault(id))
	}
	id, err := h.sim.World.AddFault(sim.Fault{Service: sim.ServiceResourceManager, Operation: sim.OpListAssignments, Mode: sim.ModeRefuse,
		Params: sim.FaultParams{Status: 403, Code: "AuthorizationFailed"}})
	must(t, err)
	if p := plan(); p.Hash != sound.Hash || said(p, roll.LevelNotChecked, "service_principal_not_checked") != 2 || said(p, roll.LevelNotChecked, "credential_not_checked") != 2 {
		t.Errorf("grants unseen: %+v", p.Findings)
	}
	must(t, h.sim.World.RemoveFault(id))
	must(t, h.sim.World.SetVaultAzure("contoso-exo-a", func(v *sim.VaultAzure) {
		v.Denied, v.DefaultAction, v.Bypass = []string{sim.ExchangeAppID}, "Deny", "None"
		v.PurgeUnprotected, v.Unlocked, v.RetentionDays = true, true, 30
	}))
	p := plan()
	if len(p.Errors()) != 2 || said(p, roll.LevelError, "service_principal_denied") != 1 || said(p, roll.LevelError, "vault_firewall_denies_microsoft") != 1 || p.Hash == sound.Hash {
		t.Errorf("in the way: %+v", p.Errors())
	}
	for _, code := range []string{"purge_protection_off", "no_delete_lock", "retention_days"} {
		if said(p, roll.LevelWarning, code) != 1 {
			t.Errorf("nothing of %s: %+v", code, p.Findings)
		}
	}
	if w := h.sim.World.Witness(); len(w) != 0 {
		t.Errorf("effects: %v", w)
	}
}
