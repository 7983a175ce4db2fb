package jobs_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/keyroll/keyroll/internal/roll"
	"github.com/keyroll/keyroll/internal/sim"
)

// What Microsoft's services may do that nobody documents is no reason for a
// roll to stop, and none to do anything twice.
func TestRollAgainstOddities(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*sim.Tenant){
		"Exchange redirects": func(s *sim.Tenant) { s.Exchange.RedirectHost = "eurprd01.prod.outlook.com" },
		"Exchange says it in headers": func(s *sim.Tenant) {
			s.Exchange.Warnings, s.Exchange.WarningsInHeader, s.Exchange.RateLimit = []string{"Micro delay applied. Actual delay 5 msecs"}, true, 1
		},
		"SharePoint shouts": func(s *sim.Tenant) {
			s.SharePoint.URIForm, s.SharePoint.ProgressForm = "upper_case", "absent"
		},
		"SharePoint writes slashes": func(s *sim.Tenant) {
			s.SharePoint.URIForm, s.SharePoint.ProgressForm = "trailing_slash", "null"
		},
		"SharePoint writes ports": func(s *sim.Tenant) { s.SharePoint.URIForm = "port" },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t, func(s *sim.Seed, _ *roll.Inventory) { change(&s.Tenants[0]) })
			h.declare()
			h.work(quick())
			r := h.request("global", "exo-na", "spo")
			h.approve(r.ID)
			r = h.ended(r.ID)
			if r.State != roll.Succeeded || r.Outcome != roll.Accepted {
				t.Errorf("ended %s, outcome %s; want succeeded, accepted\n%s", r.State, r.Outcome, show(r))
			}
			if e, _ := r.PolicyEvidence("spo"); e != roll.Confirmed {
				t.Errorf("SharePoint's evidence is %s", e)
			}
			h.check(r)
			applied := map[string]int{}
			for _, e := range h.sim.World.Witness() {
				applied[e.Operation]++
			}
			for _, op := range []string{sim.OpSetDEP, sim.OpSetM365DEP} {
				if applied[op] != 1 {
					t.Errorf("%s was sent %d times", op, applied[op])
				}
			}
		})
	}
}

// secondGeo adds the geo EUR with two keys and a policy, to both sides.
func secondGeo(lease, rollsPer string) func(*sim.Seed, *roll.Inventory) {
	return func(s *sim.Seed, inv *roll.Inventory) {
		s.Tenants[0].AddGeo("EUR")
		s.Tenants[0].SharePoint.RollsPer = rollsPer
		inv.SharePoint.Lease = lease
		inv.SharePoint.Geos = append(inv.SharePoint.Geos, roll.Geo{ID: "EUR", AdminURL: "https://contosoeur-admin.sharepoint.com"})
		for _, letter := range []string{"a", "b"} {
			inv.Keys = append(inv.Keys, roll.Key{ID: "eur-" + letter, VaultURL: "https://contoso-eur-" + letter + ".vault.azure.net",
				Name: "Contoso-EUR-" + strings.ToUpper(letter) + "-Key001"})
		}
		inv.Policies = append(inv.Policies, roll.Policy{ID: "spo-eur", Workload: roll.SharePoint, Geo: "EUR", Primary: "eur-a", Secondary: "eur-b"})
	}
}

// Two geos: four key operations, one at a time in the tenant, or in the geo
// where the declaration and SharePoint agree on that.
func TestRollOfTwoGeos(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		lease, rollsPer string
		mayOverlap      bool
	}{
		{roll.LeasePerTenant, "tenant", false},
		{roll.LeasePerTenant, "geo", false},
		{roll.LeasePerGeo, "geo", true},
	} {
		t.Run("lease per "+tt.lease+", rolls per "+tt.rollsPer, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t, secondGeo(tt.lease, tt.rollsPer))
			h.declare()
			h.work(quick())
			r := h.request("spo", "spo-eur")
			h.approve(r.ID)
			r = h.ended(r.ID)
			if r.State != roll.Succeeded || r.Outcome != roll.Confirmed {
				t.Errorf("ended %s, outcome %s\n%s", r.State, r.Outcome, show(r))
			}
			w := h.sim.World
			if n := w.Overlaps(h.inv.TenantID); n != 0 && !tt.mayOverlap {
				t.Errorf("%d operations overlapped", n)
			}
			sent := map[string]int{}
			for _, e := range w.Witness() {
				if e.Operation == sim.OpRollKey {
					if sent[e.Target]++; !e.Applied {
						t.Errorf("SharePoint refused %s", e.Target)
					}
				}
			}
			for _, target := range []string{"NAM/primary", "NAM/secondary", "EUR/primary", "EUR/secondary"} {
				if sent[target] != 1 {
					t.Errorf("%s was asked for %d times", target, sent[target])
				}
			}
			if v := w.Violations(); len(v) > 0 {
				t.Errorf("violations: %+v", v)
			}
		})
	}
}

// A declaration says that geos roll side by side and SharePoint says that they
// do not: its refusal halts the roll with SharePoint's own words, and retries
// bring it to its end without a second operation in any slot.
func TestGeosThatMayNotRollSideBySide(t *testing.T) {
	t.Parallel()
	h := newHouse(t, secondGeo(roll.LeasePerGeo, "tenant"))
	h.declare()
	h.work(quick())
	r := h.request("spo", "spo-eur")
	h.approve(r.ID)
	halts := 0
	for {
		r = h.await(r.ID, "at its end or halted", func(r roll.Roll) bool { return r.State.Final() || r.State == roll.NeedsAttention })
		if r.State.Final() {
			break
		}
		if a := r.Attention; a.Code != "sharepoint_rejected" || !strings.Contains(a.Detail, "in state Rolling") {
			t.Fatalf("halted for another reason: %+v", a)
		}
		if halts++; halts > 8 {
			t.Fatalf("halted again and again:\n%s", show(r))
		}
		h.sim.World.Advance(time.Hour) // whatever rolls is done
		_, err := h.ctl.Retry(context.Background(), requester(), r.ID, 0)
		must(t, err)
	}
	if halts == 0 || r.State != roll.Succeeded || r.Outcome != roll.Confirmed {
		t.Errorf("%d halts, ended %s, outcome %s\n%s", halts, r.State, r.Outcome, show(r))
	}
	applied := map[string]int{}
	for _, e := range h.sim.World.Witness() {
		if e.Operation == sim.OpRollKey && e.Applied {
			applied[e.Target]++
		}
	}
	for _, target := range []string{"NAM/primary", "NAM/secondary", "EUR/primary", "EUR/secondary"} {
		if applied[target] != 1 {
			t.Errorf("%s was rolled %d times", target, applied[target])
		}
	}
	h.check(r)
}
