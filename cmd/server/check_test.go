package main

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"github.com/keyroll/keyroll/internal/api"
	"github.com/keyroll/keyroll/internal/sim"
)

// declared serves long enough to declare Contoso, changed, and stops.
func (h *house) declared(change func(*api.TenantDeclaration)) {
	h.t.Helper()
	s := h.serve()
	d := contosoDeclaration()
	change(&d)
	ada := h.person(s, "ada@contoso.com", "admin")
	_, err := ada.call(h.t.Context(), "PUT", "/v1/tenants/"+sim.ContosoTenant, d, &api.Tenant{}, "If-None-Match", "*")
	must(h.t, err)
	s.stop()
}

type checked struct {
	OK     bool
	Counts map[string]int
	Lines  []checkLine
}

func (h *house) check(args ...string) (int, checked) {
	h.t.Helper()
	code, stdout, stderr := shell(h.t.Context(), h.environ, append([]string{"check", "--json"}, args...)...)
	var out checked
	if err := json.Unmarshal([]byte(stdout), &out); err != nil {
		h.t.Fatalf("check --json: %v\n%s%s", err, stdout, stderr)
	}
	return code, out
}

// of lists the lines of a status as "code subject".
func (c checked) of(status string) []string {
	var out []string
	for _, l := range c.Lines {
		if l.Status == status {
			out = append(out, strings.TrimSpace(l.Code+" "+l.Subject))
		}
	}
	return out
}

// rows counts what is in every table but the queue's own, with what counts versions.
func (h *house) rows() map[string]string {
	h.t.Helper()
	conn, err := pgx.Connect(h.t.Context(), h.database)
	must(h.t, err)
	defer func() { _ = conn.Close(h.t.Context()) }()
	found, err := conn.Query(h.t.Context(), `SELECT table_name FROM information_schema.tables WHERE table_schema = 'public' AND table_type = 'BASE TABLE' ORDER BY 1`)
	must(h.t, err)
	names, err := pgx.CollectRows(found, pgx.RowTo[string])
	must(h.t, err)
	out := map[string]string{}
	for _, name := range names {
		var n string
		must(h.t, conn.QueryRow(h.t.Context(), fmt.Sprintf(`SELECT count(*) || ' ' || coalesce(md5(string_agg(t::text, ',' ORDER BY t::text)), '') FROM %s t`, pgx.Identifier{name}.Sanitize())).Scan(&n))
		out[name] = n
	}
	if len(out) < 20 {
		h.t.Fatalf("only %d tables", len(out))
	}
	return out
}

// Five faults of a tenant, each of another kind and at another service, are
// all named, with what to do; and nothing is changed by that.
func TestCheckNamesFiveFaults(t *testing.T) {
	t.Parallel()
	h := newHouse(t, nil)
	h.declared(func(d *api.TenantDeclaration) {
		d.Policies[1].GUID = "11111111-0000-4000-8000-000000000009"                                     // 1: there is no such policy
		d.Policies[2].Primary, d.Policies[2].Secondary = d.Policies[2].Secondary, d.Policies[2].Primary // 2: swapped
	})
	world := h.sims.World
	must(t, world.SetEnabled("contoso-m365-a", "Contoso-M365-A-Key001", "", false))                                     // 3
	must(t, world.SetRotationPolicy("contoso-exo-b", "Contoso-EXO-B-Key001", &sim.RotationPolicy{ExpiryTime: "P2Y"}))   // 4
	must(t, world.SetVaultAzure("contoso-spo-b", func(v *sim.VaultAzure) { v.Denied = []string{sim.SharePointAppID} })) // 5
	witness, rows := world.Witness(), h.rows()
	code, out := h.check()
	// With the wrong GUID goes that the real policy is declared by nobody.
	want := []string{"key_disabled key:m-a", "undeclared_policy_uses_key key:exo-a", "rotation_policy_expiry key:exo-b", "undeclared_policy_uses_key key:exo-b",
		"service_principal_denied vault:contoso-spo-b.vault.azure.net", "policy_missing policy:exo-na", "sharepoint_slot_mismatch policy:spo"}
	if diff := cmp.Diff(want, out.of(checkError)); diff != "" || code != exitFailed || out.OK {
		t.Errorf("code %d, errors (-want +got):\n%s", code, diff)
	}
	for _, l := range out.Lines {
		if l.Seen == "" || l.Status != checkOK && l.Remedy == "" {
			t.Errorf("says too little: %+v", l)
		}
	}
	if diff := cmp.Diff(witness, world.Witness()); diff != "" || len(world.Violations()) > 0 {
		t.Errorf("effects at Microsoft: %s\n%v", diff, world.Violations())
	}
	if diff := cmp.Diff(rows, h.rows()); diff != "" {
		t.Errorf("the database changed:\n%s", diff)
	}
	// The table says the same to people.
	code, stdout, _ := shell(t.Context(), h.environ, "check")
	for _, w := range append(want, "7 errors", "Nothing was changed") {
		if w, _, _ := strings.Cut(w, " key"); code != exitFailed || !strings.Contains(stdout, strings.Fields(w)[0]) {
			t.Errorf("code %d; the table says nothing of %s:\n%s", code, w, stdout)
		}
	}
}

// A tenant in order; then without what Resource Manager shows, without
// Exchange, and without an identity.
func TestCheckOfATenantInOrder(t *testing.T) {
	t.Parallel()
	h := newHouse(t, nil)
	h.declared(func(*api.TenantDeclaration) {})
	world := h.sims.World
	code, out := h.check("--tenant", "contoso")
	if code != exitDone || !out.OK || len(out.Lines) != out.Counts[checkOK] || len(out.Lines) < 20 {
		t.Errorf("code %d: %+v", code, out)
	}
	must(t, world.SetPermission(sim.Permission{Tenant: sim.ContosoTenant, ARM: new("none")}))
	code, out = h.check()
	if n := len(out.of("not_checked")); code != exitDone || n != 6 || out.Counts[checkWarning] != 0 {
		t.Errorf("without Reader: code %d, %d not checked: %v", code, n, out.Counts)
	}
	must(t, world.SetPermission(sim.Permission{Tenant: sim.ContosoTenant, Exchange: new("none")}))
	code, out = h.check()
	if diff := cmp.Diff([]string{"policy_unreadable policy:global", "policy_unreadable policy:exo-na"}, out.of(checkError)); code != exitFailed || diff != "" {
		t.Errorf("without Exchange: code %d\n%s", code, diff)
	}
	_, err := world.AddFault(sim.Fault{Service: sim.ServiceEntra, Operation: sim.OpToken, Mode: sim.ModeRefuse, Params: sim.FaultParams{Code: "AADSTS53003"}})
	must(t, err)
	if code, out = h.check(); code != exitFailed || len(out.of(checkError)) < 5 || out.of(checkError)[0] != "token_refused token:Key Vault" {
		t.Errorf("without an identity: code %d %v", code, out.of(checkError))
	}
	if code, _, stderr := shell(t.Context(), h.environ, "check", "--tenant", "fabrikam"); code != exitUsage || !strings.Contains(stderr, "fabrikam") {
		t.Errorf("of nobody: code %d %s", code, stderr)
	}
}

// What is wrong with the installation is told in the same form.
func TestCheckOfAnInstallation(t *testing.T) {
	t.Parallel()
	h := newHouse(t, map[string]string{"DATABASE_URL": "postgres://nobody@127.0.0.1:1/x"})
	if code, out := h.check(); code != exitFailed || len(out.of(checkError)) != 1 || out.of(checkError)[0] != "database_unusable database" {
		t.Errorf("code %d: %+v", code, out)
	}
	h = newHouse(t, map[string]string{"SHAREPOINT_POL": "1s"})
	if code, out := h.check(); code != exitFailed || out.of(checkError)[0] != "setting_invalid configuration" || !strings.Contains(out.Lines[0].Seen, "SHAREPOINT_POLL") {
		t.Errorf("code %d: %+v", code, out)
	}
}
