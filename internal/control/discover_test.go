package control_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/keyroll/keyroll/internal/access"
	"github.com/keyroll/keyroll/internal/control"
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
