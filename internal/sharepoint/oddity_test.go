package sharepoint_test

import (
	"testing"
	"time"

	"github.com/keyroll/keyroll/internal/msapi"
	"github.com/keyroll/keyroll/internal/roll"
	"github.com/keyroll/keyroll/internal/sharepoint"
	"github.com/keyroll/keyroll/internal/sim"
)

func settings(t *testing.T, w *sim.World, s sim.SharePointSettings) {
	t.Helper()
	s.Tenant = sim.ContosoTenant
	if err := w.SetSharePoint(s); err != nil {
		t.Fatal(err)
	}
}

func status(t *testing.T, c *sharepoint.Client) roll.SharePointObservation {
	t.Helper()
	obs, err := c.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return obs
}

// However the key URIs are written, they name the key and its version.
func TestFormsOfURIs(t *testing.T) {
	c, w := simulated(t)
	versions := w.KeyVersions(simVault, simKey)
	want := roll.KeyRef{Host: simVault + ".vault.azure.net", Name: simKey, Version: versions[len(versions)-1].Version}
	for _, withVersion := range []bool{true, false} {
		if !withVersion {
			want.Version = ""
		}
		for _, form := range []string{"plain", "trailing_slash", "upper_case", "port"} {
			settings(t, w, sim.SharePointSettings{URIVersion: &withVersion, SharePointOddities: sim.SharePointOddities{URIForm: form}})
			got, ok := roll.ParseKeyURI(status(t, c).PrimaryURI)
			if !ok || !got.SameKey(want) || got.Version != want.Version {
				t.Errorf("%s: %+v, want %+v", form, got, want)
			}
		}
	}
}

func TestFormsOfProgress(t *testing.T) {
	c, w := simulated(t)
	if _, err := c.Roll(t.Context(), roll.Primary, simVault, simKey, newVersion(t, w), "op-1"); err != nil {
		t.Fatal(err)
	}
	for form, wanted := range map[string]bool{"value": true, "null": false, "absent": false} {
		settings(t, w, sim.SharePointSettings{SharePointOddities: sim.SharePointOddities{ProgressForm: form}})
		if obs := status(t, c); obs.Status != roll.Rolling || (obs.Percent != nil) != wanted {
			t.Errorf("%s: %+v", form, obs)
		}
	}
}

func TestEveryStatus(t *testing.T) {
	c, w := simulated(t)
	for _, want := range []roll.SharePointStatus{roll.Unregistered, roll.Registering, roll.Registered, roll.Recovering} {
		settings(t, w, sim.SharePointSettings{Status: new(want.String()), Progress: new(25.0)})
		obs := status(t, c)
		if underWay := want == roll.Registering || want == roll.Recovering; obs.Status != want || (obs.Percent != nil) != underWay {
			t.Errorf("%s: %+v", want, obs)
		}
		if want == roll.Registered {
			continue
		}
		_, err := c.Roll(t.Context(), roll.Primary, simVault, simKey, newVersion(t, w), "op-1")
		if e, ok := msapi.AsError(err); !ok || e.Kind != msapi.KindRejected || e.MaybeApplied || e.Status != 200 {
			t.Errorf("a roll while %s: %v", want, err)
		}
	}
}

// Each geo has a status, keys and a token of its own.
func TestGeos(t *testing.T) {
	for _, rollsPer := range []string{"geo", "tenant"} {
		nam, w, connect := simulatedAt(t, func(s *sim.Seed) {
			s.Tenants[0].AddGeo("EUR")
			s.Tenants[0].SharePoint.RollsPer = rollsPer
		})
		eur := connect("https://contosoeur-admin.sharepoint.com")
		before := status(t, eur)
		if ref, ok := roll.ParseKeyURI(before.PrimaryURI); !ok || ref.Host != "contoso-eur-a.vault.azure.net" {
			t.Fatalf("%+v", before)
		}
		if _, err := nam.Roll(t.Context(), roll.Primary, simVault, simKey, newVersion(t, w), "op-1"); err != nil {
			t.Fatal(err)
		}
		if a, b := status(t, nam), status(t, eur); a.Status != roll.Rolling || b.Status != roll.Registered || b.PrimaryURI != before.PrimaryURI {
			t.Errorf("NAM %+v, EUR %+v", a, b)
		}
		v, err := w.StrangerVersion("contoso-eur-a", "Contoso-EUR-A-Key001", nil)
		if err != nil {
			t.Fatal(err)
		}
		_, err = eur.Roll(t.Context(), roll.Primary, "contoso-eur-a", "Contoso-EUR-A-Key001", v, "op-2")
		if e, refused := msapi.AsError(err); refused != (rollsPer == "tenant") || refused && (e.Kind != msapi.KindRejected || e.MaybeApplied) {
			t.Errorf("one roll per %s: %v", rollsPer, err)
		}
	}
}

// What a credential by secret meets, and what throttling and pages look like.
func TestRefusalsOfSimulator(t *testing.T) {
	for _, tt := range []struct {
		name         string
		fault        sim.Fault
		kind         msapi.Kind
		retryAfter   time.Duration
		maybeApplied bool
	}{
		{"429", sim.Fault{Mode: sim.ModeThrottle, Params: sim.FaultParams{RetryAfter: 7}}, msapi.KindThrottled, 7 * time.Second, false},
		{"503", sim.Fault{Mode: sim.ModeThrottle, Params: sim.FaultParams{Status: 503, RetryAfter: 7}}, msapi.KindUnavailable, 7 * time.Second, true},
		{"page with 503", sim.Fault{Mode: sim.ModeHTMLPage}, msapi.KindUnavailable, 0, true},
		{"page with 200", sim.Fault{Mode: sim.ModeHTMLPage, Params: sim.FaultParams{Status: 200}}, msapi.KindProtocol, 0, true},
		{"ErrorInfo", sim.Fault{Mode: sim.ModeErrorIn200}, msapi.KindRejected, 0, false},
		{"401", sim.Fault{Mode: sim.ModeExpireToken}, msapi.KindUnauthorized, 0, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, w := simulated(t)
			tt.fault.Service, tt.fault.Operation = sim.ServiceSharePoint, sim.OpRollKey
			if _, err := w.AddFault(tt.fault); err != nil {
				t.Fatal(err)
			}
			_, err := c.Roll(t.Context(), roll.Primary, simVault, simKey, newVersion(t, w), "op-1")
			e, _ := msapi.AsError(err)
			if e == nil || e.Kind != tt.kind || e.RetryAfter != tt.retryAfter || e.MaybeApplied != tt.maybeApplied {
				t.Errorf("%+v", e)
			}
			if obs := status(t, c); obs.Status != roll.Registered {
				t.Errorf("an operation began: %+v", obs)
			}
		})
	}
}
