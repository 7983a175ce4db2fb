package keyvault_test

import (
	"testing"

	"github.com/keyroll/keyroll/internal/keyvault"
	"github.com/keyroll/keyroll/internal/msapi"
	"github.com/keyroll/keyroll/internal/msapi/msapitest"
	"github.com/keyroll/keyroll/internal/sim"
)

const (
	simVault = "contoso-exo-a"
	simKey   = "Contoso-EXO-A-Key001"
)

// simulated starts Contoso and gives a client of one of its vaults that gets
// its tokens with a client certificate, as in production.
func simulated(t *testing.T) (*keyvault.Client, *sim.World) {
	t.Helper()
	seed := sim.ContosoSeed()
	cert, key, err := sim.NewAppCertificate("keyvault test")
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
	c, err := keyvault.New("https://"+simVault+"."+cloud.VaultSuffix, cred, hc)
	if err != nil {
		t.Fatal(err)
	}
	return c, srv.World
}

// Each way in which a create can fail, and what is left behind: the tag finds
// the version if and only if there is one.
func TestCreateAgainstFaults(t *testing.T) {
	for _, tt := range []struct {
		mode         string
		params       sim.FaultParams
		kind         msapi.Kind
		maybeApplied bool
		made         int
	}{
		{sim.ModeRefuse, sim.FaultParams{Status: 403, Code: "Forbidden/ForbiddenByFirewall"}, msapi.KindForbidden, false, 0},
		{sim.ModeThrottle, sim.FaultParams{RetryAfter: 3}, msapi.KindThrottled, false, 0},
		{sim.ModeLoseBefore, sim.FaultParams{}, msapi.KindUnavailable, true, 0},
		{sim.ModeApplyAndLose, sim.FaultParams{}, msapi.KindUnavailable, true, 1},
		{sim.ModeErrorAfter, sim.FaultParams{}, msapi.KindUnavailable, true, 1},
	} {
		t.Run(tt.mode, func(t *testing.T) {
			c, w := simulated(t)
			if _, err := w.AddFault(sim.Fault{Service: sim.ServiceKeyVault, Operation: sim.OpCreateKey, Mode: tt.mode, Params: tt.params}); err != nil {
				t.Fatal(err)
			}
			_, err := c.Create(t.Context(), simKey, keyvault.CreateSpec{Kty: "RSA-HSM", Size: 3072}, "op-1")
			if e, ok := msapi.AsError(err); !ok || e.Kind != tt.kind || e.MaybeApplied != tt.maybeApplied {
				t.Errorf("got %v", err)
			}
			if n := w.Requests(sim.ServiceKeyVault, sim.OpCreateKey); n != 1 {
				t.Errorf("%d creates on the wire, want 1", n)
			}
			found := 0
			all, err := c.Versions(t.Context(), simKey)
			for _, v := range all {
				if v.Tags[keyvault.OpTag] == "op-1" {
					found++
				}
			}
			if err != nil || found != tt.made || w.VersionsCreated(simVault, simKey) != tt.made {
				t.Errorf("%d versions found by tag, want %d (%v)", found, tt.made, err)
			}
		})
	}
}
