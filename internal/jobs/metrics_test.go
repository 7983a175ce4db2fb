package jobs_test

import (
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/keyroll/keyroll/internal/jobs"
	"github.com/keyroll/keyroll/internal/roll"
	"github.com/keyroll/keyroll/internal/sim"
)

// scrape gathers one metric family as "labels value" lines.
func scrape(t *testing.T, e *jobs.Estate, name string) []string {
	t.Helper()
	reg := prometheus.NewRegistry()
	reg.MustRegister(e)
	families, err := reg.Gather()
	must(t, err)
	var out []string
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		for _, m := range f.GetMetric() {
			var labels []string
			for _, l := range m.GetLabel() {
				labels = append(labels, l.GetName()+"="+l.GetValue())
			}
			out = append(out, strings.Join(labels, ","))
		}
	}
	return out
}

// TestStuckRollIsSeen: a SharePoint operation that stands still shows up with
// its roll, tenant, workload, step and reason once its bound is past, and not before.
func TestStuckRollIsSeen(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.declare()
	h.work(quick())
	_, err := h.sim.World.AddFault(sim.Fault{Service: "sharepoint", Operation: sim.OpRollKey, Mode: sim.ModeRollingForever, Params: sim.FaultParams{Percent: 40}})
	must(t, err)
	r := h.request("spo")
	h.approve(r.ID)
	r = h.await(r.ID, "rolling", func(r roll.Roll) bool {
		s := step(r, roll.SharePointAwait)
		return s.Percent != nil && *s.Percent >= 40
	})
	const name = "keyroll_stuck_roll_info"
	if got := scrape(t, jobs.NewEstate(h.st, roll.DefaultBounds()), name); len(got) != 0 {
		t.Errorf("stuck within its bound: %v", got)
	}
	tight := roll.Bounds{Exchange: time.Millisecond, SharePoint: time.Millisecond, SharePointNoProgress: time.Millisecond}
	h.await(r.ID, "stuck", func(r roll.Roll) bool { return len(r.Stuck(h.st.Now(), tight)) > 0 })
	want := "reason_code=no_progress,roll=" + r.ID + ",step=sharepoint_await,tenant=" + h.inv.TenantID + ",workload=sharepoint"
	if got := scrape(t, jobs.NewEstate(h.st, tight), name); len(got) != 1 || got[0] != want {
		t.Errorf("got %v, want [%s]", got, want)
	}
	if got := scrape(t, jobs.NewEstate(h.st, tight), "keyroll_sharepoint_leases_held"); len(got) != 1 {
		t.Errorf("leases held: %v", got)
	}
}

// TestMetricsLint: names, help texts and units as Prometheus wants them.
func TestMetricsLint(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	for _, c := range []prometheus.Collector{jobs.NewEstate(h.st, roll.DefaultBounds())} {
		problems, err := testutil.CollectAndLint(c)
		must(t, err)
		for _, p := range problems {
			t.Errorf("%s: %s", p.Metric, p.Text)
		}
	}
	reg := prometheus.NewRegistry()
	jobs.NewMetrics(reg).Observe("keyvault", "get_key", 200, "ok", time.Second, true)
	problems, err := testutil.GatherAndLint(reg)
	must(t, err)
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
}

// TestScrapeWithoutDatabase: a scrape says that it could not read, instead of failing.
func TestScrapeWithoutDatabase(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.pool.Close()
	if got := scrape(t, jobs.NewEstate(h.st, roll.DefaultBounds()), "keyroll_rolls"); len(got) != 0 {
		t.Errorf("figures without a database: %v", got)
	}
	if got := scrape(t, jobs.NewEstate(h.st, roll.DefaultBounds()), "keyroll_database_up"); len(got) != 1 {
		t.Errorf("keyroll_database_up: %v", got)
	}
}

// value gathers one series' value; -1 where there is none.
func value(t *testing.T, e *jobs.Estate, name, labels string) float64 {
	t.Helper()
	reg := prometheus.NewRegistry()
	reg.MustRegister(e)
	families, err := reg.Gather()
	must(t, err)
	for _, f := range families {
		for _, m := range f.GetMetric() {
			var list []string
			for _, l := range m.GetLabel() {
				list = append(list, l.GetName()+"="+l.GetValue())
			}
			if f.GetName() == name && strings.Join(list, ",") == labels {
				return m.GetGauge().GetValue()
			}
		}
	}
	return -1
}
