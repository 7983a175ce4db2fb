package jobs_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/keyroll/keyroll/internal/roll"
	"github.com/keyroll/keyroll/internal/sim"
)

const hsmDomain = "managedhsm.azure.net"

// inHSM moves the vaults of the seed into Managed HSMs under a domain, and the
// declaration with them.
func inHSM(domain string, vaults ...string) func(*sim.Seed, *roll.Inventory) {
	return func(s *sim.Seed, inv *roll.Inventory) {
		var hosts []string
		for _, name := range vaults {
			seedVault(s, name).ManagedHSM = true
			hosts = append(hosts, "https://"+name+".vault.azure.net", "https://"+name+"."+domain)
		}
		rewrite(strings.NewReplacer(hosts...), &s.Tenants[0])
		rewrite(strings.NewReplacer(hosts...), inv)
	}
}

// TestWholeRollInManagedHSM: Exchange and multi-workload policies name their
// keys by URI, so a Managed HSM is like any vault there, from challenge to end.
func TestWholeRollInManagedHSM(t *testing.T) {
	t.Parallel()
	h := newHouse(t, inHSM(hsmDomain, "contoso-exo-a", "contoso-exo-b", "contoso-m365-a", "contoso-m365-b"))
	h.declare()
	h.work(quick())
	r := h.request("exo-na", "global")
	h.approve(r.ID)
	if r = h.ended(r.ID); r.State != roll.Succeeded || r.Outcome != roll.Accepted || len(r.Keys) != 4 {
		t.Fatalf("ended %s, %s\n%s", r.State, r.Outcome, show(r))
	}
	h.check(r)
	h.taken(r)
	obs, err := h.gw.Survey(t.Context(), h.inv)
	must(t, err)
	for _, k := range r.Keys {
		if seen := obs.Keys[k.ID]; !strings.HasSuffix(k.VaultURL, "."+hsmDomain) || !seen.ManagedHSM || seen.Latest.Version != k.NewVersion {
			t.Errorf("key %s at %s: HSM %t, newest %s, made %s", k.ID, k.VaultURL, seen.ManagedHSM, seen.Latest.Version, k.NewVersion)
		}
	}
}

// TestManagedHSMIsFull: a key with 100 versions gets no other, so the plan has
// an error; the roll cannot be approved and nothing is sent. With 99 it goes.
func TestManagedHSMIsFull(t *testing.T) {
	t.Parallel()
	for n, want := range map[int]roll.Level{99: roll.LevelWarning, 100: roll.LevelError} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			t.Parallel()
			h := newHouse(t, inHSM(hsmDomain, "contoso-exo-a"), func(s *sim.Seed, _ *roll.Inventory) {
				k := &seedVault(s, "contoso-exo-a").Keys[0]
				first := k.Versions[0]
				for i := len(k.Versions); i < n; i++ {
					older := first
					older.Version, older.Created = fmt.Sprintf("%032x", 0xabc000+i), first.Created.Add(-time.Duration(i)*time.Hour)
					k.Versions = slices.Insert(k.Versions, 0, older)
				}
			})
			h.declare()
			p, err := h.ctl.Plan(t.Context(), requester(), roll.Request{TenantID: h.inv.TenantID, Keys: []roll.KeyRequest{{ID: "exo-a"}}})
			must(t, err)
			code := map[roll.Level]string{roll.LevelWarning: "hsm_versions_many", roll.LevelError: "hsm_version_limit"}[want]
			if !slices.ContainsFunc(p.Findings, func(f roll.Finding) bool {
				return f.Code == code && f.Level == want && f.Subject == "key:exo-a" && strings.Contains(f.Seen, fmt.Sprint(n))
			}) {
				t.Errorf("findings %+v", p.Findings)
			}
			if (len(p.Errors()) > 0) != (want == roll.LevelError) {
				t.Errorf("errors %+v", p.Errors())
			}
			if want == roll.LevelError {
				if h.sim.World.Requests(sim.ServiceKeyVault, sim.OpCreateKey) != 0 {
					t.Error("a version was asked for")
				}
				return
			}
			h.work(quick())
			r := h.requestKey("exo-a")
			h.approve(r.ID)
			if r = h.ended(r.ID); r.State != roll.Succeeded {
				t.Errorf("ended %s\n%s", r.State, show(r))
			}
			h.check(r)
		})
	}
}

// TestSharePointInManagedHSM: by hand and by runbook the cmdlet names the key
// by its URI, to the roll's end; also in a cloud of the operator's own, whose
// hosts do not say what they are. By CSOM it cannot be named.
func TestSharePointInManagedHSM(t *testing.T) {
	t.Parallel()
	const ownDomain = "keys.airgap.example"
	airgap := worlds()[4]
	airgap.own[0].HSM = ownDomain
	for _, c := range []struct {
		name, domain string
		via          roll.Transport
		changes      []func(*sim.Seed, *roll.Inventory)
	}{
		{"by hand", hsmDomain, roll.Manual, []func(*sim.Seed, *roll.Inventory){byHand}},
		{"by runbook", hsmDomain, roll.Automation, []func(*sim.Seed, *roll.Inventory){byRunbook}},
		{"by hand, in an own cloud", ownDomain, roll.Manual, []func(*sim.Seed, *roll.Inventory){in(airgap), byHand}},
		{"by CSOM", hsmDomain, roll.Native, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t, append([]func(*sim.Seed, *roll.Inventory){inHSM(c.domain, "contoso-spo-a", "contoso-spo-b")}, c.changes...)...)
			h.declare()
			if c.via == roll.Native {
				p, err := h.ctl.Plan(t.Context(), requester(), roll.Request{TenantID: h.inv.TenantID, Policies: []string{"spo"}})
				must(t, err)
				var got []string
				for _, f := range p.Errors() {
					got = append(got, f.Code+" "+f.Subject)
				}
				if !slices.Equal(got, []string{"managed_hsm_not_nameable key:spo-a", "managed_hsm_not_nameable key:spo-b"}) {
					t.Errorf("errors %v", got)
				}
				return
			}
			h.work(quick())
			r := h.request("spo")
			h.approve(r.ID)
			if c.via == roll.Manual {
				s := h.offered(r.ID)
				if want := "Update-SPODataEncryptionPolicy -KeyVaultUri https://contoso-spo-a." + c.domain + "/keys/Contoso-SPO-A-Key001/"; !strings.HasPrefix(s.Offer.Line, want) {
					t.Fatalf("the line is %q", s.Offer.Line)
				}
				h.hands(r.ID)
			}
			if r = h.ended(r.ID); r.State != roll.Succeeded || r.Outcome != roll.Confirmed {
				t.Fatalf("ended %s, %s\n%s", r.State, r.Outcome, show(r))
			}
			for _, s := range r.Plan.Steps {
				if s.Kind == roll.SharePointRollKey && (!s.Params.ByURI || s.Params.Transport != c.via) {
					t.Errorf("planned %+v", s.Params)
				}
			}
			h.check(r)
			h.taken(r)
		})
	}
}
