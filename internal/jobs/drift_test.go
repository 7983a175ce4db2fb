package jobs_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/keyroll/keyroll/internal/jobs"
	"github.com/keyroll/keyroll/internal/roll"
	"github.com/keyroll/keyroll/internal/sim"
	"github.com/keyroll/keyroll/internal/store"
)

// due makes it the tenant's turn to be compared.
func (h *house) due() {
	h.t.Helper()
	_, err := h.pool.Exec(h.t.Context(), `UPDATE tenant_comparisons SET next_at = now() - interval '1 minute'`)
	must(h.t, err)
}

// compared waits until the tenant's drift is as wanted.
func (h *house) compared(what string, cond func(store.TenantDrift) bool) store.TenantDrift {
	h.t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	limit := time.After(time.Minute)
	for {
		d, err := h.st.TenantDrift(context.Background(), h.inv.TenantID)
		must(h.t, err)
		if cond(d) {
			return d
		}
		select {
		case <-tick.C:
		case <-limit:
			h.t.Fatalf("the comparison never was %s: %+v", what, d)
		}
	}
}

func drifts(d store.TenantDrift) string {
	var out []string
	for _, row := range d.Drift {
		out = append(out, row.Code+" "+row.Subject)
	}
	return strings.Join(out, ", ")
}

// TestTenantsAreCompared: when a tenant's turn comes it is compared, what
// differs is an event and a metric, and its next turn is put off. A failure
// that will pass clears nothing and brings the next turn forward.
func TestTenantsAreCompared(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.declare()
	_, err := h.sim.World.StrangerVersion("contoso-exo-a", "Contoso-EXO-A-Key001", nil)
	must(t, err)
	cfg := quick()
	cfg.CallRead = 20 * time.Second
	h.work(cfg)
	h.due()
	d := h.compared("done", func(d store.TenantDrift) bool { return d.ComparedAt != nil })
	if drifts(d) != "key_newer_version key:exo-a" {
		t.Errorf("drift: %s", drifts(d))
	}
	if wait := d.NextAt.Sub(*d.ComparedAt); wait < 5*time.Hour || wait > 7*time.Hour {
		t.Errorf("the next turn is in %s", wait)
	}
	var events string
	must(t, h.pool.QueryRow(t.Context(), `SELECT string_agg(type, ' ') FROM events WHERE roll_id IS NULL AND type LIKE 'tenant.drift%'`).Scan(&events))
	if events != "tenant.drift_detected" {
		t.Errorf("events: %s", events)
	}
	estate := jobs.NewEstate(h.st, roll.DefaultBounds())
	if got := scrape(t, estate, "keyroll_drift_items"); len(got) != len(roll.DriftCodes()) {
		t.Errorf("series: %v", got)
	}
	if got := value(t, estate, "keyroll_drift_items", "code=key_newer_version"); got != 1 {
		t.Errorf("keyroll_drift_items is %v", got)
	}
	if got := value(t, estate, "keyroll_drift_compared_timestamp_seconds", ""); got != float64(d.ComparedAt.Unix()) {
		t.Errorf("compared %v, want %v", got, d.ComparedAt.Unix())
	}

	_, err = h.sim.World.AddFault(sim.Fault{Service: sim.ServiceKeyVault, Mode: sim.ModeThrottle, Params: sim.FaultParams{RetryAfter: 1}})
	must(t, err)
	h.due()
	d = h.compared("cut short", func(now store.TenantDrift) bool { return now.LookedAt.After(*d.LookedAt) })
	if drifts(d) != "key_newer_version key:exo-a" || len(d.NotChecked) != 6 {
		t.Errorf("throttled: %+v", d)
	}
	if wait := d.NextAt.Sub(*d.LookedAt); wait > 10*time.Minute {
		t.Errorf("after a failure the next turn is in %s", wait)
	}
}

// TestRollIsNoDrift: while a roll does its work a comparison finds nothing,
// however often it looks, and nothing after it.
func TestRollIsNoDrift(t *testing.T) {
	t.Parallel()
	h := newHouse(t, func(s *sim.Seed, inv *roll.Inventory) { s.Tenants[0].SharePoint.SitesPerSecond = 200 })
	h.declare()
	h.work(quick())
	r := h.request("global", "exo-na", "spo")
	h.approve(r.ID)
	looks := 0
	h.await(r.ID, "at its end", func(r roll.Roll) bool {
		d, err := h.ctl.Discover(t.Context(), admin(), h.inv.TenantID)
		must(t, err)
		looks++
		if len(d.Comparison.Drift) > 0 {
			t.Fatalf("look %d found %+v\n%s", looks, d.Comparison.Drift, show(r))
		}
		return r.State.Final()
	})
	d, err := h.ctl.Discover(t.Context(), admin(), h.inv.TenantID)
	must(t, err)
	if looks < 3 || len(d.Comparison.Drift)+len(d.Comparison.NotChecked) > 0 {
		t.Errorf("after the roll, at look %d: %+v", looks, d.Comparison)
	}
	var events int
	must(t, h.pool.QueryRow(t.Context(), `SELECT count(*) FROM events WHERE roll_id IS NULL AND type LIKE 'tenant.drift%'`).Scan(&events))
	if events != 0 {
		t.Errorf("%d events about drift", events)
	}
}
