package main

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/keyroll/keyroll/internal/api"
	"github.com/keyroll/keyroll/internal/sim"
)

// TestDiscoverFirstSetUp: what is proposed for a tenant that nobody has
// declared is taken by PUT as it is, and nothing differs then; once somebody
// changes Microsoft's side, the command says so. It changes nothing itself.
func TestDiscoverFirstSetUp(t *testing.T) {
	t.Parallel()
	h := newHouse(t, nil)
	ctx := t.Context()
	args := []string{"discover", "--tenant", sim.ContosoTenant, "--credential", "contoso", "--admin-url", "NAM=https://contoso-admin.sharepoint.com", "--name", "Contoso"}
	code, proposed, told := shell(ctx, h.environ, args...)
	if code != exitDone {
		t.Fatalf("exit %d: %s", code, told)
	}
	if !strings.Contains(told, "proposed: 3 policies, 6 keys with") || strings.Contains(told, "error:") {
		t.Errorf("told: %s", told)
	}
	s := h.serve()
	ada := h.person(s, "ada@contoso.com", "admin")
	var tenant api.Tenant
	_, err := ada.call(ctx, "PUT", "/v1/tenants/"+sim.ContosoTenant, json.RawMessage(proposed), &tenant, "If-None-Match", "*")
	must(t, err)
	var d api.Discovery
	_, err = ada.call(ctx, "POST", "/v1/tenants/"+sim.ContosoTenant+"/discover", nil, &d)
	must(t, err)
	if len(d.Drift)+len(d.NotChecked) != 0 || len(d.Observed.Policies) != 2 || len(d.Observed.Keys) != 6 {
		t.Errorf("the proposal differs from Microsoft: %+v", d)
	}
	if code, out, told := shell(ctx, h.environ, "discover", "--tenant", sim.ContosoTenant); code != exitDone || out != "" || !strings.Contains(told, "nothing differs") {
		t.Errorf("exit %d: %s%s", code, out, told)
	}

	_, err = h.sims.World.StrangerVersion("contoso-exo-a", "Contoso-EXO-A-Key001", nil)
	must(t, err)
	code, out, told := shell(ctx, h.environ, "discover", "--tenant", sim.ContosoTenant)
	if code != exitFailed || !strings.Contains(out, "key_newer_version  key:contoso-exo-a.contoso-exo-a-key001") || !strings.Contains(told, "1 difference(s), 0 thing(s) not checked") {
		t.Errorf("exit %d: %s%s", code, out, told)
	}
	code, out, _ = shell(ctx, h.environ, "discover", "--tenant", sim.ContosoTenant, "--json")
	var asJSON struct {
		Drift []struct{ Code string } `json:"drift"`
	}
	if err := json.Unmarshal([]byte(out), &asJSON); err != nil || code != exitFailed || len(asJSON.Drift) != 1 {
		t.Errorf("exit %d, %v: %s", code, err, out)
	}
	for _, e := range h.sims.World.Witness() {
		if e.By == "api" {
			t.Errorf("discovering had an effect: %+v", e)
		}
	}
}

// TestDiscoverIncomplete: what cannot be read is told, and the exit code says
// that the proposal is not whole.
func TestDiscoverIncomplete(t *testing.T) {
	t.Parallel()
	h := newHouse(t, nil)
	no, none := false, "none"
	must(t, h.sims.World.SetPermission(sim.Permission{Tenant: sim.ContosoTenant, Exchange: &none, SharePoint: &no}))
	code, out, told := shell(t.Context(), h.environ, "discover", "--tenant", sim.ContosoTenant, "--credential", "contoso", "--admin-url", "https://contoso-admin.sharepoint.com")
	if code != exitFailed || !strings.Contains(told, "policies_unreadable") || !strings.Contains(told, "sharepoint_unreadable") || !strings.Contains(told, "3 error(s)") {
		t.Errorf("exit %d: %s", code, told)
	}
	if !strings.Contains(out, `"id": "contoso"`) {
		t.Errorf("the geo is not proposed: %s", out)
	}
	if !strings.Contains(told, "still to be done: exchange_app_role exchange") || !strings.Contains(told, "still to be done: sharepoint_app_role geo:contoso") {
		t.Errorf("what is to be granted: %s", told)
	}
	code, out, _ = shell(t.Context(), h.environ, "discover", "--tenant", sim.ContosoTenant, "--credential", "contoso", "--admin-url", "https://contoso-admin.sharepoint.com", "--checklist")
	if code != exitDone || !strings.Contains(out, "[missing] exchange_role_group exchange") || !strings.Contains(out, "Add-RoleGroupMember -Identity 'Keyroll' -Member "+sim.ContosoClientID) {
		t.Errorf("checklist: exit %d: %s", code, out)
	}
	for name, args := range map[string][]string{
		"no tenant":     {"discover"},
		"no credential": {"discover", "--tenant", sim.ContosoTenant, "--admin-url", "https://contoso-admin.sharepoint.com"},
		"odd geo":       {"discover", "--tenant", sim.ContosoTenant, "--credential", "contoso", "--admin-url", "N A=https://contoso-admin.sharepoint.com"},
	} {
		if code, _, told := shell(t.Context(), h.environ, args...); code != exitUsage {
			t.Errorf("%s: exit %d: %s", name, code, told)
		}
	}
	if code, _, told := shell(t.Context(), h.environ, "discover", "--tenant", sim.ContosoTenant); code != exitFailed || !strings.Contains(told, "is not declared") {
		t.Errorf("not declared: exit %d: %s", code, told)
	}
}

// With SharePoint alone Exchange is not asked: the table says so, and the exit
// code is that of a tenant in order.
func TestDiscoverSharePointAlone(t *testing.T) {
	t.Parallel()
	h := newHouse(t, nil)
	h.declared(func(d *api.TenantDeclaration) {
		d.Policies = d.Policies[2:]
		d.Keys = slices.DeleteFunc(d.Keys, func(k api.Key) bool { return k.ID != d.Policies[0].Primary && k.ID != d.Policies[0].Secondary })
	})
	code, out, told := shell(t.Context(), h.environ, "discover", "--tenant", sim.ContosoTenant)
	if code != exitDone || strings.Count(out, "not checked: not_asked") != 2 {
		t.Errorf("exit %d: %s%s", code, out, told)
	}
}
