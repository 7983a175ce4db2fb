package sharepoint_test

import (
	"testing"

	"github.com/keyroll/keyroll/internal/msapi"
	"github.com/keyroll/keyroll/internal/msapi/msapitest"
	"github.com/keyroll/keyroll/internal/roll"
	"github.com/keyroll/keyroll/internal/sharepoint"
	"github.com/keyroll/keyroll/internal/sim"
)

const (
	simVault = "contoso-spo-a"
	simKey   = "Contoso-SPO-A-Key001"
)

// simulated starts Contoso and gives a client that gets its tokens with a
// client certificate, as in production.
func simulated(t *testing.T) (*sharepoint.Client, *sim.World) {
	t.Helper()
	c, w, _ := simulatedAt(t, func(*sim.Seed) {})
	return c, w
}

// simulatedAt is simulated with a change of the seed, and makes clients for
// further geos.
func simulatedAt(t *testing.T, change func(*sim.Seed)) (*sharepoint.Client, *sim.World, func(adminURL string) *sharepoint.Client) {
	t.Helper()
	seed := sim.ContosoSeed()
	change(&seed)
	cert, key, err := sim.NewAppCertificate("sharepoint test")
	if err != nil {
		t.Fatal(err)
	}
	seed.AllowCertificate(sim.ContosoClientID, cert)
	srv, err := sim.Start(t.Context(), sim.Options{Seed: seed})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = srv.Close() })
	cred, hc := msapitest.Connect(t, srv.DialMap(), srv.CAPEM(),
		msapitest.App{ClientID: sim.ContosoClientID, Cert: cert, Key: key}, sim.ContosoTenant, public(t))
	connect := func(adminURL string) *sharepoint.Client {
		c, err := sharepoint.New(public(t), adminURL, cred, hc)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	return connect("https://" + admin), srv.World, connect
}

// newVersion makes a version that SharePoint can be rolled to.
func newVersion(t *testing.T, w *sim.World) string {
	t.Helper()
	v, err := w.StrangerVersion(simVault, simKey, nil)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestRollAgainstFaults(t *testing.T) {
	for _, tt := range []struct {
		mode                  string
		params                sim.FaultParams
		kind                  msapi.Kind
		maybeApplied, applied bool
	}{
		{sim.ModeThrottle, sim.FaultParams{RetryAfter: 3}, msapi.KindThrottled, false, false},
		{sim.ModeLoseBefore, sim.FaultParams{}, msapi.KindUnavailable, true, false},
		{sim.ModeApplyAndLose, sim.FaultParams{}, msapi.KindUnavailable, true, true},
		{sim.ModeErrorAfter, sim.FaultParams{}, msapi.KindUnavailable, true, true},
	} {
		t.Run(tt.mode, func(t *testing.T) {
			c, w := simulated(t)
			if _, err := w.AddFault(sim.Fault{Service: sim.ServiceSharePoint, Operation: sim.OpRollKey, Mode: tt.mode, Params: tt.params}); err != nil {
				t.Fatal(err)
			}
			_, err := c.Roll(t.Context(), roll.Primary, simVault, simKey, newVersion(t, w), "op-1")
			if e, ok := msapi.AsError(err); !ok || e.Kind != tt.kind || e.MaybeApplied != tt.maybeApplied {
				t.Errorf("got %v", err)
			}
			if n := w.Requests(sim.ServiceSharePoint, sim.OpRollKey); n != 1 {
				t.Errorf("%d requests on the wire, want 1", n)
			}
			obs, err := c.Status(t.Context())
			if err != nil || (obs.Status == roll.Rolling) != tt.applied {
				t.Errorf("%+v, %v", obs, err)
			}
		})
	}
}

func TestStatusAgainstTheSimulator(t *testing.T) {
	c, w := simulated(t)
	id, err := w.AddFault(sim.Fault{Service: sim.ServiceSharePoint, Mode: sim.ModeStatus, Params: sim.FaultParams{Status: 9}})
	if err != nil {
		t.Fatal(err)
	}
	if obs, err := c.Status(t.Context()); err != nil || obs.Status != 9 {
		t.Errorf("%+v, %v", obs, err)
	}
	if err := w.RemoveFault(id); err != nil {
		t.Fatal(err)
	}
	if err := w.SetPermission(sim.Permission{Tenant: sim.ContosoTenant, SharePoint: new(false)}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Status(t.Context()); kindOf(err) != msapi.KindForbidden {
		t.Errorf("got %v", err)
	}
}
