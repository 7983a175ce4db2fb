package arm_test

import (
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/keyroll/keyroll/internal/arm"
	"github.com/keyroll/keyroll/internal/msapi"
	"github.com/keyroll/keyroll/internal/msapi/msapitest"
	"github.com/keyroll/keyroll/internal/roll"
	"github.com/keyroll/keyroll/internal/sim"
)

// Exercise is what holds for an identity with Reader on at least one
// subscription with a vault of the given host. It reads only.
func Exercise(t *testing.T, c *arm.Client, host string) {
	ctx := t.Context()
	subs, err := c.Subscriptions(ctx)
	if err != nil || len(subs) == 0 {
		t.Fatalf("subscriptions: %v, %v", subs, err)
	}
	var roles arm.Roles
	found := false
	for _, s := range subs {
		if s.ID == "" || s.State == "" {
			t.Errorf("a subscription says too little: %+v", s)
		}
		vaults, err := c.Vaults(ctx, s.ID)
		if err != nil {
			t.Fatalf("vaults of %s: %v", s.ID, err)
		}
		locks, err := c.Locks(ctx, s.ID)
		if err != nil {
			t.Errorf("locks of %s: %v", s.ID, err)
		}
		if state, err := c.Retention(ctx, s.ID); err != nil || state == "" {
			t.Errorf("retention of %s: %q, %v", s.ID, state, err)
		}
		if _, err := c.Pairs(ctx, s.ID); err != nil {
			t.Errorf("regions of %s: %v", s.ID, err)
		}
		for _, v := range vaults {
			if v.Host != host {
				continue
			}
			found = true
			if v.ID == "" || v.Location == "" || v.SKU == "" || v.SoftDelete == nil && !v.HSM || v.PurgeProtection == nil {
				t.Errorf("vault %+v", v)
			}
			if grants, err := c.Grants(ctx, v.ID, &roles); err != nil || len(grants) == 0 && v.ByRoles {
				t.Errorf("grants of %s: %v, %v", v.ID, grants, err)
			}
			t.Logf("locks that hold for %s: %v", v.Host, arm.LocksOn(locks, v.ID))
		}
	}
	if !found {
		t.Errorf("no vault %s was found", host)
	}
	if self, err := c.Self(ctx); err != nil || self == "" {
		t.Errorf("the token says not who it is for: %q, %v", self, err)
	}
}

func simulated(t *testing.T) (*arm.Client, *sim.World) {
	t.Helper()
	seed := sim.ContosoSeed()
	cert, key, err := sim.NewAppCertificate("arm test")
	if err != nil {
		t.Fatal(err)
	}
	seed.AllowCertificate(sim.ContosoClientID, cert)
	srv, err := sim.Start(t.Context(), sim.Options{Seed: seed})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = srv.Close() })
	cloud, err := msapi.CloudByName(msapi.CloudPublic)
	if err != nil {
		t.Fatal(err)
	}
	cred, hc := msapitest.Connect(t, srv.DialMap(), srv.CAPEM(),
		msapitest.App{ClientID: sim.ContosoClientID, Cert: cert, Key: key}, sim.ContosoTenant, cloud)
	return arm.New(cloud, cred, hc), srv.World
}

const someVault = "contoso-exo-a.vault.azure.net"

func TestExerciseSimulator(t *testing.T) {
	c, w := simulated(t)
	Exercise(t, c, someVault)
	if n := w.Report().Requests[sim.ServiceResourceManager]; n["list_vaults"] < 4 {
		t.Errorf("pages were not turned: %v", n)
	}
	if len(w.Witness()) != 0 || len(w.Violations()) != 0 {
		t.Errorf("effects %v, violations %v", w.Witness(), w.Violations())
	}
}

// TestExerciseLive reads a live tenant's subscriptions; it has no way to write.
func TestExerciseLive(t *testing.T) {
	l := msapitest.LiveTenant(t)
	host := strings.TrimSuffix(strings.TrimPrefix(strings.ToLower(l.Var(t, "VAULT_URL")), "https://"), "/")
	Exercise(t, arm.New(l.Cloud, l.Credential, l.HTTP), host)
}

// grants reads a vault's, by roles or by access policies as it goes.
func grants(t *testing.T, c *arm.Client, host string) map[string]roll.VaultGrant {
	t.Helper()
	subs, err := c.Subscriptions(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]roll.VaultGrant{}
	for _, s := range subs {
		vaults, err := c.Vaults(t.Context(), s.ID)
		if err != nil {
			t.Fatal(err)
		}
		for _, v := range vaults {
			if v.Host != host {
				continue
			}
			list := v.Grants
			if v.ByRoles {
				if list, err = c.Grants(t.Context(), v.ID, &arm.Roles{}); err != nil {
					t.Fatal(err)
				}
			}
			for _, g := range list {
				out[g.Principal] = g
			}
		}
	}
	return out
}

// Rights are those that the role or the access policy gives, whichever holds.
func TestGrants(t *testing.T) {
	c, w := simulated(t)
	exchange, self := sim.ObjectID(sim.ContosoTenant, sim.ExchangeAppID), sim.ObjectID(sim.ContosoTenant, sim.ContosoClientID)
	use := []roll.KeyRight{roll.MayGet, roll.MayWrap, roll.MayUnwrap}
	has := func(g roll.VaultGrant, want ...roll.KeyRight) bool {
		for _, r := range want {
			if !slices.Contains(g.May, r) {
				return false
			}
		}
		return true
	}
	change := func(f func(*sim.VaultAzure)) {
		if err := w.SetVaultAzure("contoso-exo-a", f); err != nil {
			t.Fatal(err)
		}
	}
	for _, policies := range []bool{false, true} {
		change(func(v *sim.VaultAzure) { *v = sim.VaultAzure{AccessPolicies: policies} })
		g := grants(t, c, someVault)
		if !has(g[exchange], use...) || has(g[exchange], roll.MayCreate) || !has(g[self], roll.MayGet, roll.MayList, roll.MayCreate) || has(g[self], roll.MayDelete) || g[exchange].Unsure {
			t.Errorf("access policies %v: %+v", policies, g)
		}
		change(func(v *sim.VaultAzure) { v.Denied, v.Officer = []string{sim.ExchangeAppID}, true })
		if g := grants(t, c, someVault); len(g[exchange].May) != 0 || !has(g[self], roll.MayDelete) {
			t.Errorf("access policies %v, denied: %+v", policies, g)
		}
	}
	change(func(v *sim.VaultAzure) { *v = sim.VaultAzure{Group: "g", Owners: []string{"o"}} })
	if g := grants(t, c, someVault); !g["g"].Unsure || !g["o"].Manages || len(g["o"].May) != 0 {
		t.Errorf("a group and an owner: %+v", g)
	}
}

func TestNothingGranted(t *testing.T) {
	c, w := simulated(t)
	if err := w.SetPermission(sim.Permission{Tenant: sim.ContosoTenant, ARM: new("none")}); err != nil {
		t.Fatal(err)
	}
	_, err := c.Subscriptions(t.Context())
	if e, ok := msapi.AsError(err); !ok || e.Kind != msapi.KindForbidden || e.Code != "AuthorizationFailed" {
		t.Errorf("without a grant: %v", err)
	}
}

// A next page on another host would take the token along.
func TestPagesStayOnTheHost(t *testing.T) {
	for name, next := range map[string]string{
		"another host": "https://evil.example/subscriptions", "a user": "https://management.azure.com@evil.example/x", "plain": "http://management.azure.com/x",
	} {
		srv := msapitest.Start(t, func(w http.ResponseWriter, r *http.Request) {
			if strings.HasSuffix(r.URL.Path, "/token") || r.Host != "management.azure.com" {
				t.Errorf("%s: a request to %s%s", name, r.Host, r.URL.Path)
			}
			_, _ = w.Write([]byte(`{"value":[],"nextLink":"` + next + `"}`))
		}, "management.azure.com", "evil.example")
		cloud, err := msapi.CloudByName(msapi.CloudPublic)
		if err != nil {
			t.Fatal(err)
		}
		c := arm.New(cloud, msapitest.Token("t"), srv.HTTP)
		_, err = c.Subscriptions(t.Context())
		if e, ok := msapi.AsError(err); !ok || e.Kind != msapi.KindProtocol {
			t.Errorf("%s: %v", name, err)
		}
	}
}
