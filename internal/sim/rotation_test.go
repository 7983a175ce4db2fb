package sim_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/keyroll/keyroll/internal/sim"
)

func rotate(t *testing.T, p sim.RotationPolicy) func(*sim.Seed) {
	return func(s *sim.Seed) { vaultNamed(t, s, "contoso-spo-a").Keys[0].RotationPolicy = &p }
}

func every(text string) []sim.RotationAction {
	return []sim.RotationAction{{Action: "Rotate", TimeAfterCreate: text}}
}

func TestRotationPolicyMakesVersions(t *testing.T) {
	b := start(t, rotate(t, sim.RotationPolicy{ExpiryTime: "P1Y", Actions: every("P90D")}))
	begin := b.w.CurrentTime()
	if n := len(b.w.KeyVersions("contoso-spo-a", keyA)); n != 2 {
		t.Fatalf("%d versions at the start", n)
	}
	b.w.Advance(90*24*time.Hour - time.Second)
	if n := len(b.w.KeyVersions("contoso-spo-a", keyA)); n != 2 {
		t.Errorf("%d versions a second early", n)
	}
	b.w.Advance(time.Second + 90*24*time.Hour)
	made := b.w.KeyVersions("contoso-spo-a", keyA)
	if len(made) != 4 {
		t.Fatalf("%d versions after 180 days", len(made))
	}
	for i, v := range made[2:] {
		due := begin.AddDate(0, 0, 90*(i+1))
		if v.By != "policy" || v.Created != due.Unix() || v.Expires == nil || *v.Expires != due.AddDate(1, 0, 0).Unix() {
			t.Errorf("version %d: %+v", i, v)
		}
	}
	if n := b.w.VersionsCreated("contoso-spo-a", keyA); n != 0 {
		t.Errorf("the vault's own versions count as a client's: %d", n)
	}
	if e := b.w.Witness(); len(e) != 2 || e[0].By != "policy" || !e[0].Applied {
		t.Errorf("witness: %+v", e)
	}
	// Microsoft 365 does not follow by itself.
	if geo := b.w.State().Tenants[0].Geos[0]; geo.PrimaryVersion != made[1].Version {
		t.Errorf("the slot holds %s", geo.PrimaryVersion)
	}
}

func TestRotationBeforeExpiry(t *testing.T) {
	ends := time.Date(2026, 12, 23, 12, 0, 0, 0, time.UTC)
	b := start(t, rotate(t, sim.RotationPolicy{ExpiryTime: "P60D", Actions: []sim.RotationAction{{Action: "Rotate", TimeBeforeExpiry: "P7D"}}}),
		func(s *sim.Seed) { vaultNamed(t, s, "contoso-spo-a").Keys[0].Versions[1].Expires = &ends })
	b.w.Advance(ends.AddDate(0, 0, -7).Sub(b.w.CurrentTime()))
	made := b.w.KeyVersions("contoso-spo-a", keyA)
	if len(made) != 3 || made[2].Created != ends.AddDate(0, 0, -7).Unix() {
		t.Errorf("%+v", made)
	}
}

// Which new versions get an expiry is assumed: all of them, unless the seed
// says that rotations alone do.
func TestRotationPolicyStampsExpiry(t *testing.T) {
	for stamps, want := range map[string]bool{"": true, "all": true, "rotations": false} {
		b := start(t, rotate(t, sim.RotationPolicy{ExpiryTime: "P2Y", Stamps: stamps}))
		r := b.create(vaultA, keyA)
		exp, stamped := r.path("attributes", "exp").(float64)
		if stamped != want || stamped && int64(exp) != b.w.CurrentTime().AddDate(2, 0, 0).Unix() {
			t.Errorf("stamps %q: %s", stamps, r.raw)
		}
	}
	b := start(t, rotate(t, sim.RotationPolicy{ExpiryTime: "P2Y"}))
	if r := b.vault(http.MethodPost, vaultA+"/keys/"+keyA+"/create"+apiV, `{"kty":"RSA-HSM","attributes":{"exp":1900000000}}`); r.path("attributes", "exp") != 1900000000.0 {
		t.Errorf("an expiry of the client's own: %s", r.raw)
	}
}

func TestRotationPolicyIsChecked(t *testing.T) {
	b := start(t, managedHSM)
	for _, tc := range []struct {
		vault, key string
		policy     sim.RotationPolicy
		want       string
	}{
		{"contoso-spo-a", keyA, sim.RotationPolicy{Actions: every("P7D")}, ""},
		{"contoso-spo-a", keyA, sim.RotationPolicy{Actions: every("P6D")}, "every 7 days at most"},
		{"contoso-hsm", "Root", sim.RotationPolicy{Actions: every("P27D")}, "every 28 days at most"},
		{"contoso-spo-a", keyA, sim.RotationPolicy{ExpiryTime: "2 years"}, "is not a duration"},
		{"contoso-spo-a", keyA, sim.RotationPolicy{ExpiryTime: "P0D"}, "no time at all"},
		{"contoso-spo-a", keyA, sim.RotationPolicy{Actions: []sim.RotationAction{{Action: "Turn", TimeAfterCreate: "P90D"}}}, "not Rotate or Notify"},
		{"contoso-spo-a", keyA, sim.RotationPolicy{Actions: []sim.RotationAction{{Action: "Rotate"}}}, "one of them"},
		{"contoso-spo-a", keyA, sim.RotationPolicy{Actions: append(every("P90D"), every("P80D")...)}, "another action Rotate"},
		{"contoso-spo-a", keyA, sim.RotationPolicy{Actions: []sim.RotationAction{{Action: "Rotate", TimeBeforeExpiry: "P9D"}}}, "needs expiry_time"},
		{"contoso-spo-a", keyA, sim.RotationPolicy{Stamps: "some"}, "is not all or rotations"},
	} {
		err := b.w.SetRotationPolicy(tc.vault, tc.key, &tc.policy)
		if (err == nil) != (tc.want == "") || err != nil && !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%+v: %v", tc.policy, err)
		}
	}
}
