package jobs_test

import (
	"slices"
	"testing"
	"time"

	"github.com/keyroll/keyroll/internal/roll"
	"github.com/keyroll/keyroll/internal/sim"
)

// TestAdoptedNotBefore: a version whose nbf is to come is adopted, the plan
// says so, and nothing takes it up before that time.
func TestAdoptedNotBefore(t *testing.T) {
	t.Parallel()
	for key, policy := range map[string]string{"exo-a": sim.OpSetDEP, "spo-a": sim.OpRollKey} {
		t.Run(key, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t)
			h.declare()
			nbf := h.st.Now().Add(20 * time.Second).UTC().Truncate(time.Second)
			k, _ := h.inv.KeyByID(key)
			v, err := h.gw.Vault(h.inv, k)
			must(t, err)
			latest, err := v.Get(t.Context(), k.Name, "")
			must(t, err)
			made, err := v.Create(t.Context(), k.Name, roll.SpecFrom(latest, 0, &nbf), "by-hand")
			must(t, err)
			r := h.requestWith(h.ctl, roll.Request{Keys: []roll.KeyRequest{{ID: key, Version: made.Version}}})
			if !slices.ContainsFunc(r.Plan.Findings, func(f roll.Finding) bool {
				return f.Code == "adopt_not_before" && f.Level == roll.LevelWarning && f.Subject == "key:"+key
			}) || len(r.Plan.Errors()) > 0 {
				t.Errorf("findings %+v", r.Plan.Findings)
			}
			h.work(quick())
			h.approve(r.ID)
			h.await(r.ID, "with its version adopted", func(r roll.Roll) bool { return step(r, roll.CreateKeyVersion).State == roll.StepSucceeded })
			if r = h.ended(r.ID); r.State != roll.Succeeded || r.Keys[0].NewVersion != made.Version || !r.Keys[0].Adopted || r.Round != 1 {
				t.Fatalf("ended %s\n%s", r.State, show(r))
			}
			h.check(r)
			uses := 0
			for _, e := range h.sim.World.Witness() {
				if e.Operation == policy {
					if uses++; e.Start.Before(nbf) {
						t.Errorf("%s at %s, before %s", e.Operation, e.Start, nbf)
					}
				}
			}
			if uses != 1 {
				t.Errorf("%d calls that put the version to use", uses)
			}
		})
	}
}

// TestAdoptedExpiry: a version with an expiry is not adopted: the plan has the
// error, once, and nothing is sent.
func TestAdoptedExpiry(t *testing.T) {
	t.Parallel()
	var version string
	h := newHouse(t, func(s *sim.Seed, _ *roll.Inventory) {
		k := &seedVault(s, "contoso-exo-a").Keys[0]
		next := k.Versions[len(k.Versions)-1]
		next.Version, next.Created = "00000000000000000000000000000e0e", next.Created.Add(time.Hour)
		next.Expires = new(time.Now().AddDate(1, 0, 0).UTC().Truncate(time.Second))
		k.Versions, version = append(k.Versions, next), next.Version
	})
	h.declare()
	p, err := h.ctl.Plan(t.Context(), requester(), roll.Request{TenantID: h.inv.TenantID, Keys: []roll.KeyRequest{{ID: "exo-a", Version: version}}})
	must(t, err)
	var got []string
	for _, f := range p.Errors() {
		got = append(got, f.Code+" "+f.Subject)
	}
	if !slices.Equal(got, []string{"key_has_expiry key:exo-a"}) {
		t.Errorf("errors %v", got)
	}
	// The same version, disabled: one finding, not two.
	must(t, h.sim.World.SetEnabled("contoso-exo-a", "Contoso-EXO-A-Key001", version, false))
	p, err = h.ctl.Plan(t.Context(), requester(), roll.Request{TenantID: h.inv.TenantID, Keys: []roll.KeyRequest{{ID: "exo-a", Version: version}}})
	must(t, err)
	if n := len(slices.DeleteFunc(p.Errors(), func(f roll.Finding) bool { return f.Code != "key_disabled" })); n != 1 {
		t.Errorf("%d of key_disabled: %+v", n, p.Findings)
	}
	if n := h.applied(sim.OpSetDEP) + h.applied(sim.OpCreateKey); n != 0 {
		t.Errorf("%d effects", n)
	}
}
