package control_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/keyroll/keyroll/internal/access"
	"github.com/keyroll/keyroll/internal/control"
	"github.com/keyroll/keyroll/internal/roll"
	"github.com/keyroll/keyroll/internal/sim"
)

func (h *house) discover() control.Discovery {
	h.t.Helper()
	d, err := h.ctl.Discover(h.t.Context(), paul(), h.inv.TenantID)
	must(h.t, err)
	return d
}

// brief is a discovery in short: what stands, then what was not checked.
func brief(d control.Discovery) string {
	var out []string
	for _, row := range d.Standing.Drift {
		out = append(out, row.Code+" "+row.Subject)
	}
	for _, n := range d.Standing.NotChecked {
		out = append(out, "? "+n.Code+" "+n.Subject)
	}
	return strings.Join(out, ", ")
}

// What changes at Microsoft is seen, stands until it is in order again, and
// looking at it has no effect there.
func TestDiscover(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.declare()
	want := func(what, want string) {
		t.Helper()
		if got := brief(h.discover()); got != want {
			t.Errorf("%s: %q, want %q", what, got, want)
		}
	}
	want("in order", "")
	seed := sim.ContosoSeed().Tenants[0].Exchange.Policies
	at := slices.IndexFunc(seed, func(p sim.Policy) bool { return p.Name == "NA Mailboxes" })
	changed := seed[at]
	no := false
	changed.Name, changed.Enabled = "EU Mailboxes", &no
	must(t, h.sim.World.PutPolicy(sim.ContosoTenant, changed))
	want("renamed and disabled", "policy_disabled policy:exo-na, policy_renamed policy:exo-na")
	must(t, h.sim.World.PutPolicy(sim.ContosoTenant, seed[at]))
	want("in order again", "")

	v, err := h.sim.World.StrangerVersion("contoso-exo-a", "Contoso-EXO-A-Key001", nil)
	must(t, err)
	d := h.discover()
	if brief(d) != "key_newer_version key:exo-a" || !strings.Contains(d.Standing.Drift[0].Seen, v) {
		t.Errorf("a stranger's version: %+v", d.Standing.Drift)
	}
	_, err = h.sim.World.AddFault(sim.Fault{Service: sim.ServiceKeyVault, Mode: sim.ModeThrottle, Params: sim.FaultParams{RetryAfter: 60}})
	must(t, err)
	d = h.discover()
	if d.Passing == nil || d.Standing.ComparedAt.After(*d.Standing.LookedAt) || d.Standing.ComparedAt.Equal(*d.Standing.LookedAt) {
		t.Errorf("throttled: passing %v, looked at %v, compared %v", d.Passing, d.Standing.LookedAt, d.Standing.ComparedAt)
	}
	if got := brief(d); !strings.HasPrefix(got, "key_newer_version key:exo-a, ? throttled key:exo-a") || strings.Count(got, "?") != 6 {
		t.Errorf("throttled: %q", got)
	}
	for _, e := range h.sim.World.Witness() {
		if e.By == "api" {
			t.Errorf("looking had an effect: %+v", e)
		}
	}
	report, err := h.st.VerifyAudit(t.Context(), nil)
	must(t, err)
	if !report.OK() {
		t.Errorf("audit: %+v", report)
	}
}

// A declaration with its slots swapped is told as such: rolled as declared, it
// would put one key into both.
func TestDiscoverSwappedSlots(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.inv.Policies[2].Primary, h.inv.Policies[2].Secondary = "spo-b", "spo-a"
	h.declare()
	if got := brief(h.discover()); got != "slots_swapped policy:spo" {
		t.Errorf("%q", got)
	}
}

// What the tenant has not granted is not checked, with its reason.
func TestDiscoverWithoutRights(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.declare()
	none, no := "none", false
	must(t, h.sim.World.SetPermission(sim.Permission{Tenant: sim.ContosoTenant, Exchange: &none, SharePoint: &no}))
	got := brief(h.discover())
	if want := "? unauthorized assignment, ? forbidden policy:spo, ? unauthorized workload:exchange, ? unauthorized workload:multi-workload"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

// Discovering calls Microsoft: a reader may not, a retired tenant is not asked.
func TestDiscoverRefused(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.declare()
	var denied *access.Denied
	if _, err := h.ctl.Discover(t.Context(), person("rob", access.Auditor), h.inv.TenantID); !errors.As(err, &denied) {
		t.Errorf("a %s: %v", access.Auditor, err)
	}
	_, err := h.ctl.Retire(t.Context(), admin(), h.inv.TenantID, "gone")
	must(t, err)
	if _, err := h.ctl.Discover(t.Context(), paul(), h.inv.TenantID); !errors.Is(err, control.ErrRetired) {
		t.Errorf("a retired tenant: %v", err)
	}
}

// The checklist goes by what Resource Manager shows: done with Reader, missing
// where a service may not wrap, unknown once Keyroll may read nothing there.
func TestChecklistByResourceManager(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.inv.Azure.ServicePrincipals = roll.ServicePrincipals{Exchange: sim.ObjectID(sim.ContosoTenant, sim.ExchangeAppID),
		SharePoint: sim.ObjectID(sim.ContosoTenant, sim.SharePointAppID), MultiWorkload: sim.ObjectID(sim.ContosoTenant, sim.MultiWorkloadAppID)}
	h.declare()
	// states are by line, of all vaults but those named, which come with their own.
	states := func(apart ...string) map[string]roll.GrantState {
		t.Helper()
		if d := h.discover(); d.Passing != nil || len(d.Comparison.Drift)+len(d.Comparison.NotChecked) > 0 {
			t.Fatalf("%v: %s", d.Passing, brief(d))
		}
		_, list, err := h.ctl.Checklist(t.Context(), paul(), h.inv.TenantID)
		must(t, err)
		out := map[string]roll.GrantState{}
		for _, g := range list {
			vault, ok := strings.CutPrefix(g.Subject, "vault:")
			if !ok {
				continue
			}
			name, _, _ := strings.Cut(vault, ".")
			id := g.ID
			if slices.Contains(apart, name) {
				id = name + " " + g.ID
			}
			if before, ok := out[id]; ok && before != g.State {
				t.Errorf("%s is %s at %s (%s), and %s elsewhere", g.ID, g.State, name, g.Seen, before)
			}
			out[id] = g.State
		}
		return out
	}
	want := func(what string, got map[string]roll.GrantState, keyroll, bounds, services, network, reader roll.GrantState) {
		t.Helper()
		prefix := ""
		if strings.HasPrefix(what, "contoso-") {
			prefix = what + " "
		}
		for id, w := range map[string]roll.GrantState{"vault_keyroll": keyroll, "vault_keyroll_no_delete": bounds, "vault_microsoft365": services, "vault_network": network, "vault_reader": reader} {
			if got[prefix+id] != w {
				t.Errorf("%s: %s is %q, want %q", what, id, got[prefix+id], w)
			}
		}
	}
	const u, d, m = roll.GrantUnknown, roll.GrantDone, roll.GrantMissing
	want("with Reader", states(), d, d, d, d, d)

	world := h.sim.World
	azure := func(vault string, change func(*sim.VaultAzure)) {
		t.Helper()
		must(t, world.SetVaultAzure(vault, change))
	}
	azure("contoso-exo-a", func(v *sim.VaultAzure) { v.Denied = []string{sim.ExchangeAppID} })
	azure("contoso-exo-b", func(v *sim.VaultAzure) { v.AccessPolicies, v.Denied = true, []string{sim.ExchangeAppID} })
	azure("contoso-m365-a", func(v *sim.VaultAzure) { v.DefaultAction, v.Bypass = "Deny", "None" })
	azure("contoso-m365-b", func(v *sim.VaultAzure) { v.Officer = true })
	azure("contoso-spo-a", func(v *sim.VaultAzure) { v.Invisible = true })
	got := states("contoso-exo-a", "contoso-exo-b", "contoso-m365-a", "contoso-m365-b", "contoso-spo-a")
	want("contoso-exo-a", got, d, d, m, d, d)
	want("contoso-exo-b", got, d, d, m, d, d)
	want("contoso-m365-a", got, d, d, d, m, d)
	want("contoso-m365-b", got, d, m, d, d, d)
	want("contoso-spo-a", got, u, u, u, u, m)
	want("the other", got, d, d, d, d, d)

	must(t, world.SetPermission(sim.Permission{Tenant: sim.ContosoTenant, ARM: new("none")}))
	want("without Reader", states(), u, u, u, u, m)
	for _, e := range world.Witness() {
		if e.By == "api" {
			t.Errorf("looking had an effect: %+v", e)
		}
	}
}

// A tenant with SharePoint alone: Exchange is not asked, which is shown and is
// no failure.
func TestDiscoverNotAsked(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.inv.Policies, h.inv.Keys = h.inv.Policies[2:], h.inv.Keys[4:]
	h.declare()
	if got := brief(h.discover()); got != "? not_asked workload:exchange, ? not_asked workload:multi-workload" {
		t.Errorf("%q", got)
	}
	st, err := h.st.DriftStats(t.Context())
	must(t, err)
	if st.NotChecked != 0 {
		t.Errorf("%d things not checked", st.NotChecked)
	}
	must(t, h.sim.World.SetPermission(sim.Permission{Tenant: sim.ContosoTenant, SharePoint: new(false)}))
	h.discover()
	if st, err = h.st.DriftStats(t.Context()); err != nil || st.NotChecked != 1 {
		t.Errorf("SharePoint refuses: %d things not checked, %v", st.NotChecked, err)
	}
}
