package sim_test

import (
	"bytes"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/keyroll/keyroll/internal/sim"
)

func TestGetPolicies(t *testing.T) {
	b := start(t)
	for _, tc := range []struct {
		cmdlet, identity string
		guid             string
		count            int
	}{
		{sim.OpGetDEP, "NA Mailboxes", exoDEP, 1},
		{sim.OpGetDEP, strings.ToUpper(exoDEP), exoDEP, 1},
		{sim.OpGetDEP, "", exoDEP, 1},
		{sim.OpGetM365DEP, "Contoso_Global", m365DEP, 1},
		{sim.OpGetM365DEP, "no such policy", m365DEP, 2}, // ALL of them
		{sim.OpGetM365Assignment, "", m365DEP, 1},
	} {
		if tc.count == 2 {
			if err := b.w.PutPolicy(tenantID, sim.Policy{Name: "Second", GUID: "11111111-2222-4333-8444-555555555555", Workload: sim.WorkloadMulti}); err != nil {
				t.Fatal(err)
			}
		}
		r := b.cmdlet(tc.cmdlet, map[string]any{"Identity": tc.identity})
		value, _ := r.json["value"].([]any)
		if r.status != 200 || len(value) != tc.count {
			t.Errorf("%s %q: %d %s", tc.cmdlet, tc.identity, r.status, r.raw)
			continue
		}
		p := value[0].(map[string]any)
		if p["Guid"] != tc.guid || p["Enabled"] != true || len(p["AzureKeyIDs"].([]any)) != 2 || p["Guid@odata.type"] == nil || p["PermanentDataPurgeRequested"] != false {
			t.Errorf("%s %q: %v", tc.cmdlet, tc.identity, p)
		}
	}
}

func TestRefresh(t *testing.T) {
	b := start(t)
	made := b.create(exoVault, exoKey).path("key", "kid").(string)
	version := made[strings.LastIndex(made, "/")+1:]
	mailbox := func() any {
		r := b.cmdlet(sim.OpGetMailboxStatistics, map[string]any{"Identity": "vip@contoso.com"})
		return r.json["value"].([]any)[0].(map[string]any)["DataEncryptionPolicyID"]
	}
	if got := b.w.PolicyVersions(tenantID, exoDEP)[exoVault+"/keys/"+exoKey]; got == version {
		t.Error("taken up before the refresh")
	}
	r := b.cmdlet(sim.OpSetDEP, map[string]any{"Identity": "NA Mailboxes", "Refresh": true, "Confirm": false})
	if value, ok := r.json["value"].([]any); r.status != 200 || !ok || len(value) != 0 {
		t.Fatalf("refresh: %d %s", r.status, r.raw)
	}
	if got := b.w.PolicyVersions(tenantID, exoDEP)[exoVault+"/keys/"+exoKey]; got != version {
		t.Errorf("taken up %s, want %s", got, version)
	}
	e := b.w.Witness()[1]
	if e.Operation != sim.OpSetDEP || e.Target != exoDEP || e.OperationID != "exo-op" || len(e.Versions) != 2 || e.Versions[0] != made || !e.Applied {
		t.Errorf("witness: %+v", e)
	}
	if mailbox() != exoDEP {
		t.Error("DataEncryptionPolicyID changed at once")
	}
	b.w.Advance(2 * time.Second)
	if mailbox() == exoDEP {
		t.Error("DataEncryptionPolicyID did not change after refresh_seconds")
	}
	if r := b.cmdlet(sim.OpSetM365DEP, map[string]any{"Identity": m365DEP, "Refresh": true}); r.status != 200 {
		t.Errorf("multi-workload needs no Confirm: %d %s", r.status, r.raw)
	}
}

func TestRefreshErrors(t *testing.T) {
	b := start(t)
	off, on := map[string]bool{"*": false}, map[string]bool{"*": true}
	exception := func(r response) string {
		details, _ := r.path("error", "details").([]any)
		if len(details) == 0 {
			return string(r.raw)
		}
		return strings.Split(details[0].(map[string]any)["message"].(string), "|")[1]
	}
	good := map[string]any{"Identity": "NA Mailboxes", "Refresh": true, "Confirm": false}
	for _, tc := range []struct {
		name    string
		arrange func() error
		params  map[string]any
		want    string
	}{
		{"unknown identity", nil, map[string]any{"Identity": "nobody", "Refresh": true, "Confirm": false}, "ManagementObjectNotFoundException"},
		{"no confirmation", nil, map[string]any{"Identity": "NA Mailboxes", "Refresh": true}, "PSInvalidOperationException"},
		{"nothing to do", nil, map[string]any{"Identity": "NA Mailboxes", "Confirm": false}, "ParameterBindingException"},
		{"purge", nil, map[string]any{"Identity": "NA Mailboxes", "PermanentDataPurgeRequested": true}, "CmdletAccessDeniedException"},
		{"vault denies", func() error { return b.w.SetPermission(sim.Permission{Tenant: tenantID, Service: off}) }, good, "AzureKeyVaultAccessException"},
		{"key disabled", func() error {
			_ = b.w.SetPermission(sim.Permission{Tenant: tenantID, Service: on})
			return b.w.SetEnabled("contoso-exo-b", "Contoso-EXO-B-Key001", "", false)
		}, good, "AzureKeyVaultAccessException"},
	} {
		if tc.arrange != nil {
			if err := tc.arrange(); err != nil {
				t.Fatal(err)
			}
		}
		r := b.cmdlet(sim.OpSetDEP, tc.params)
		if r.status < 400 || !strings.HasSuffix(exception(r), tc.want) || r.path("error", "message") != "Error executing cmdlet" {
			t.Errorf("%s: %d %s", tc.name, r.status, r.raw)
		}
	}
	if v := b.w.Violations(); len(v) != 1 || v[0].Target != exoDEP {
		t.Errorf("violations: %+v", v)
	}
	for _, e := range b.w.Witness() {
		if e.Service == sim.ServiceExchange && e.Applied {
			t.Errorf("applied: %+v", e)
		}
	}
}

func TestExchangePermissions(t *testing.T) {
	b := start(t)
	for _, tc := range []struct {
		grant  string
		status int
	}{{"app_role", 403}, {"none", 401}, {"full", 200}} {
		if err := b.w.SetPermission(sim.Permission{Tenant: tenantID, Exchange: &tc.grant}); err != nil {
			t.Fatal(err)
		}
		r := b.cmdlet(sim.OpGetDEP, map[string]any{})
		if r.status != tc.status || tc.status == 403 && len(bytes.Trim(r.raw, "\x00")) != 0 {
			t.Errorf("%s: %d %q", tc.grant, r.status, r.raw)
		}
	}
	if r := b.cmdlet("Get-Unknown", nil); r.status != 403 || len(bytes.Trim(r.raw, "\x00")) != 0 {
		t.Errorf("unknown cmdlet: %d %q", r.status, r.raw)
	}
	r := b.send(http.MethodPost, "https://outlook.office365.com/adminapi/v1.0/"+tenantID+"/InvokeCommand", "{}")
	if r.status != 405 {
		t.Errorf("v1.0: %d", r.status)
	}
}

func TestExchangeWarnings(t *testing.T) {
	b := start(t, func(s *sim.Seed) { s.Tenants[0].Exchange.Warnings = []string{"from the seed"} })
	add(t, b, sim.Fault{Mode: sim.ModeWarning, Params: sim.FaultParams{Warning: "from a fault"}, Count: 1})
	r := b.cmdlet(sim.OpSetDEP, map[string]any{"Identity": exoDEP, "Refresh": true, "Confirm": false})
	if w, _ := r.json["@adminapi.warnings"].([]any); len(w) != 2 || w[0] != "from the seed" || w[1] != "from a fault" {
		t.Errorf("warnings: %s", r.raw)
	}
}
