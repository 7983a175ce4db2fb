package jobs_test

import (
	"slices"
	"testing"

	"github.com/keyroll/keyroll/internal/control"
	"github.com/keyroll/keyroll/internal/roll"
	"github.com/keyroll/keyroll/internal/sim"
	"github.com/keyroll/keyroll/internal/store"
)

// seedVault finds a vault of the seed, to change it.
func seedVault(s *sim.Seed, name string) *sim.Vault {
	for i := range s.Tenants[0].Vaults {
		if v := &s.Tenants[0].Vaults[i]; v.Name == name {
			return v
		}
	}
	return nil
}

// oldPlatform puts the versions of exo-a on HSM platform 1; new ones are made
// on the platform given.
func oldPlatform(made string) func(*sim.Seed, *roll.Inventory) {
	return func(s *sim.Seed, _ *roll.Inventory) {
		v := seedVault(s, "contoso-exo-a")
		v.NewHSMPlatform, v.Keys[0].HSMPlatform = made, "1"
	}
}

// ledgerOf gives the platforms that the ledger shows of a key's versions.
func (h *house) ledgerOf(key string) map[string]string {
	h.t.Helper()
	rows, err := h.st.Ledger(h.t.Context(), h.inv.TenantID, store.LedgerPage{KeyID: key, Limit: 100})
	must(h.t, err)
	out := map[string]string{}
	for _, l := range rows {
		out[l.Version] = l.HSMPlatform
	}
	return out
}

// TestLargerSize: a size that was asked for is made, in Exchange and in
// SharePoint, and nothing else of the predecessor changes.
func TestLargerSize(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.declare()
	h.work(quick())
	r := h.requestWith(h.ctl, roll.Request{Keys: []roll.KeyRequest{{ID: "exo-a", Size: 4096}, {ID: "spo-b", Size: 4096}}})
	h.approve(r.ID)
	if r = h.ended(r.ID); r.State != roll.Succeeded {
		t.Fatalf("ended %s\n%s", r.State, show(r))
	}
	h.check(r)
	obs, err := h.gw.Survey(t.Context(), h.inv)
	must(t, err)
	for _, rk := range r.Keys {
		made := obs.Keys[rk.ID].Latest
		if made.Version != rk.NewVersion || made.Size != 4096 || made.Kty != "RSA-HSM" || !slices.Equal(made.KeyOps, []string{"wrapKey", "unwrapKey"}) {
			t.Errorf("key %s: %+v", rk.ID, made)
		}
	}
	// The next version copies the larger one without being asked.
	r = h.requestKey("exo-a")
	h.approve(r.ID)
	r = h.ended(r.ID)
	obs, err = h.gw.Survey(t.Context(), h.inv)
	must(t, err)
	if made := obs.Keys["exo-a"].Latest; r.State != roll.Succeeded || made.Size != 4096 {
		t.Errorf("ended %s, %d bits", r.State, made.Size)
	}
}

// TestLargerVersionIsAdopted by a request that says so, and by no other.
func TestLargerVersionIsAdopted(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.declare()
	h.work(quick())
	v := h.larger("exo-a", 4096) // the one version that is made here
	plan := func(size int) roll.Plan {
		p, err := h.ctl.Plan(t.Context(), requester(), roll.Request{TenantID: h.inv.TenantID,
			Keys: []roll.KeyRequest{{ID: "exo-a", Version: v, Size: size}}})
		must(t, err)
		return p
	}
	for size, want := range map[int]string{0: "version_differs", 3072: "version_differs", 4096: ""} {
		p := plan(size)
		if got := slices.ContainsFunc(p.Errors(), func(f roll.Finding) bool { return f.Code == "version_differs" }); got != (want != "") {
			t.Errorf("size %d: findings %+v", size, p.Findings)
		}
	}
	r := h.requestWith(h.ctl, roll.Request{Keys: []roll.KeyRequest{{ID: "exo-a", Version: v, Size: 4096}}})
	h.approve(r.ID)
	if r = h.ended(r.ID); r.State != roll.Succeeded || h.applied(sim.OpCreateKey) != 1 || r.Keys[0].NewVersion != v {
		t.Errorf("ended %s, %d created\n%s", r.State, h.applied(sim.OpCreateKey), show(r))
	}
}

// larger makes a version of a key by hand, of another size.
func (h *house) larger(key string, bits int) string {
	h.t.Helper()
	k, _ := h.inv.KeyByID(key)
	v, err := h.gw.Vault(h.inv, k)
	must(h.t, err)
	latest, err := v.Get(h.t.Context(), k.Name, "")
	must(h.t, err)
	made, err := v.Create(h.t.Context(), k.Name, roll.SpecFrom(latest, bits, nil), "by-hand")
	must(h.t, err)
	return made.Version
}

// TestHSMMigration: the new version is on the new platform, and the ledger
// tells the platforms apart.
func TestHSMMigration(t *testing.T) {
	t.Parallel()
	h := newHouse(t, oldPlatform("2"))
	h.declare()
	h.work(quick())
	r := h.requestWith(h.ctl, roll.Request{Keys: []roll.KeyRequest{{ID: "exo-a"}}, Reason: roll.Reason{Code: roll.ReasonHSMMigration, Text: "FIPS 140-3"}})
	if !slices.ContainsFunc(r.Plan.Findings, func(f roll.Finding) bool { return f.Code == "hsm_platform_old" }) {
		t.Errorf("findings %+v", r.Plan.Findings)
	}
	h.approve(r.ID)
	if r = h.ended(r.ID); r.State != roll.Succeeded {
		t.Fatalf("ended %s\n%s", r.State, show(r))
	}
	h.check(r)
	for version, platform := range h.ledgerOf("exo-a") {
		if want := map[bool]string{true: "2", false: "1"}[version == r.Keys[0].NewVersion]; platform != want {
			t.Errorf("version %s: platform %q, want %q", version, platform, want)
		}
	}
}

// TestHSMMigrationWithoutEffect: a new version that is on the old platform
// stops the roll before a policy takes it up. The person who replans adopts
// it, under a plan that says so; nothing is made twice.
func TestHSMMigrationWithoutEffect(t *testing.T) {
	t.Parallel()
	h := newHouse(t, oldPlatform("1"))
	h.declare()
	h.work(quick())
	r := h.requestWith(h.ctl, roll.Request{Keys: []roll.KeyRequest{{ID: "exo-a"}}, Reason: roll.Reason{Code: roll.ReasonHSMMigration, Text: "FIPS 140-3"}})
	h.approve(r.ID)
	r = h.halted(r.ID)
	if r.Attention.Code != "hsm_platform_unchanged" || r.Attention.Action == "" || h.applied(sim.OpSetDEP) != 0 {
		t.Fatalf("attention %+v, %d refreshes", r.Attention, h.applied(sim.OpSetDEP))
	}
	// Looked at again it is what it is, and no other is made.
	h.goOnRetry(r)
	version := r.Version
	r = h.await(r.ID, "halted again", func(r roll.Roll) bool { return r.State == roll.NeedsAttention && r.Version > version+1 })
	if n := h.applied(sim.OpCreateKey); n != 1 || r.Attention.Code != "hsm_platform_unchanged" {
		t.Errorf("%d versions created, attention %+v", n, r.Attention)
	}
	r, err := h.ctl.Replan(t.Context(), requester(), r.ID, control.StrangersAdopt)
	must(t, err)
	if !slices.ContainsFunc(r.Plan.Findings, func(f roll.Finding) bool { return f.Code == "hsm_platform_unchanged" && f.Level == roll.LevelWarning }) {
		t.Errorf("the new plan does not say that the platform stays: %+v", r.Plan.Findings)
	}
	h.approve(r.ID)
	if r = h.ended(r.ID); r.State != roll.Succeeded {
		t.Errorf("ended %s\n%s", r.State, show(r))
	}
	h.check(r)
}
