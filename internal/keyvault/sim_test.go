package keyvault_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/keyroll/keyroll/internal/keyvault"
	"github.com/keyroll/keyroll/internal/msapi"
	"github.com/keyroll/keyroll/internal/msapi/msapitest"
	"github.com/keyroll/keyroll/internal/roll"
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

// Exercise is what holds for any vault with a key called name that the
// credential may read and give new versions.
func Exercise(t *testing.T, c *keyvault.Client, name, opID string) {
	ctx := t.Context()
	before, err := c.Versions(ctx, name)
	if err != nil || len(before) == 0 {
		t.Fatalf("%d versions, %v", len(before), err)
	}
	old, err := c.Get(ctx, name, "")
	if err != nil {
		t.Fatal(err)
	}
	made, err := c.Create(ctx, name, keyvault.CreateSpec{Kty: old.Kty, Size: old.Size, KeyOps: old.KeyOps, Tags: old.Tags}, opID)
	if err != nil {
		t.Fatal(err)
	}
	if made.Version == old.Version || made.Tags[keyvault.OpTag] != opID || !made.Enabled || made.Expires != nil {
		t.Errorf("made %+v", made)
	}
	same := func(v roll.KeyVersion) roll.KeyVersion {
		return roll.KeyVersion{Kty: v.Kty, Size: v.Size, KeyOps: v.KeyOps, RecoveryLevel: v.RecoveryLevel, RecoverableDays: v.RecoverableDays}
	}
	if diff := cmp.Diff(same(old), same(made)); diff != "" {
		t.Error(diff)
	}
	newest, err := c.Get(ctx, name, "")
	if diff := cmp.Diff(made, newest); err != nil || diff != "" {
		t.Error(err, diff)
	}
	again, err := c.Get(ctx, name, old.Version)
	if diff := cmp.Diff(old, again); err != nil || diff != "" {
		t.Error(err, diff)
	}
	after, err := c.Versions(ctx, name)
	if err != nil || len(after) != len(before)+1 || after[len(after)-1].Tags[keyvault.OpTag] != opID {
		t.Errorf("%+v, %v", after, err)
	}
	if _, err := c.RotationPolicy(ctx, name); err != nil {
		t.Error(err)
	}
	if _, err := c.Get(ctx, "keyroll-no-such-key", ""); kindOf(err) != msapi.KindNotFound {
		t.Errorf("a key that is not there: %v", err)
	}
}

func TestExerciseSimulator(t *testing.T) {
	c, w := simulated(t)
	Exercise(t, c, simKey, "6f1d1f52-0000-5000-8000-000000000001")
	if n := w.VersionsCreated(simVault, simKey); n != 1 {
		t.Errorf("%d versions made, want 1", n)
	}
	if v := w.Violations(); len(v) != 0 {
		t.Errorf("violations: %+v", v)
	}
	for _, e := range w.Witness() {
		if e.RequestID != "6f1d1f52-0000-5000-8000-000000000001" {
			t.Errorf("the vault saw request id %q", e.RequestID)
		}
	}
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
