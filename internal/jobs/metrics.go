package jobs

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/keyroll/keyroll/internal/msapi"
	"github.com/keyroll/keyroll/internal/roll"
	"github.com/keyroll/keyroll/internal/store"
)

// Metrics are the collectors of this package. All label sets are closed; ages
// are given as the Unix time since when.
type Metrics struct {
	attempts  *prometheus.CounterVec
	outcomes  *prometheus.CounterVec
	ended     *prometheus.CounterVec
	sweeps    prometheus.Counter
	heartbeat prometheus.Gauge
	calls     *prometheus.HistogramVec
	throttled *prometheus.CounterVec
	looks     *prometheus.CounterVec
	strangers prometheus.Counter
}

// NewMetrics makes the collectors and registers them.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	m := &Metrics{
		attempts: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "keyroll_step_attempts_total",
			Help: "Attempts of steps, by kind of step and by the event that ended the attempt."}, []string{"kind", "event"}),
		outcomes: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "keyroll_steps_ended_total",
			Help: "Steps that ended, by kind and final state."}, []string{"kind", "state"}),
		ended: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "keyroll_rolls_ended_total",
			Help: "Rolls that ended, by final state and outcome (the weakest evidence over their policies)."}, []string{"state", "outcome"}),
		sweeps: prometheus.NewCounter(prometheus.CounterOpts{Name: "keyroll_rolls_swept_total",
			Help: "Rolls that nobody drove and that the sweeper took up."}),
		heartbeat: prometheus.NewGauge(prometheus.GaugeOpts{Name: "keyroll_worker_heartbeat_timestamp_seconds",
			Help: "When the database last answered this process's heartbeat."}),
		calls: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "keyroll_microsoft_call_duration_seconds",
			Help: "Duration of calls to Microsoft, by service, operation and how they ended.", Buckets: []float64{.05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 300, 900}}, []string{"service", "operation", "kind"}),
		throttled: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "keyroll_microsoft_throttled_total",
			Help: "Answers by which Microsoft asked for fewer calls, by service."}, []string{"service"}),
		looks: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "keyroll_ledger_looks_total",
			Help: "Looks at keys of the ledger, by whether the vault answered."}, []string{"result"}),
		strangers: prometheus.NewCounter(prometheus.CounterOpts{Name: "keyroll_ledger_versions_found_total",
			Help: "Key versions that the watch of the ledger found and that no roll made."}),
	}
	for _, result := range []string{"answered", "unread"} {
		m.looks.WithLabelValues(result)
	}
	reg.MustRegister(m.attempts, m.outcomes, m.ended, m.sweeps, m.heartbeat, m.calls, m.throttled, m.looks, m.strangers)
	return m
}

// Observe is told of every call to Microsoft.
func (m *Metrics) Observe(service, operation string, _ int, kind string, d time.Duration, throttled bool) {
	m.calls.WithLabelValues(service, operation, kind).Observe(d.Seconds())
	if throttled {
		m.throttled.WithLabelValues(service).Inc()
	}
}

var _ msapi.Observer = (&Metrics{}).Observe

func (m *Metrics) attempt(s roll.Step, ev roll.Event) {
	m.attempts.WithLabelValues(string(s.Kind), ev.Type()).Inc()
}

// moved counts what a transition ended.
func (m *Metrics) moved(before, after roll.Roll, _ []roll.Event) {
	for i, s := range after.Steps {
		if s.State.Final() && (i >= len(before.Steps) || !before.Steps[i].State.Final()) {
			m.outcomes.WithLabelValues(string(s.Kind), string(s.State)).Inc()
		}
	}
	if after.State.Final() && !before.State.Final() {
		m.ended.WithLabelValues(string(after.State), string(after.Outcome)).Inc()
	}
}

func (m *Metrics) beat(st *store.Store) {
	m.heartbeat.Set(float64(st.Now().Add(-st.Clock().Age()).Unix()))
}

func (m *Metrics) looked(c store.LedgerChange) {
	m.looks.WithLabelValues("answered").Inc()
	m.strangers.Add(float64(c.Strangers))
}

func (m *Metrics) unread() { m.looks.WithLabelValues("unread").Inc() }

func (m *Metrics) swept(n int) { m.sweeps.Add(float64(n)) }

// stuckSeries bounds keyroll_stuck_roll_info, the one metric with open labels.
const stuckSeries = 100

// openLimit bounds how many open rolls a scrape reads; the ones that have
// stood still longest come first.
const openLimit = 2000

// Estate collects figures from the database at each scrape: what is open now,
// and what stands still.
type Estate struct {
	store  *store.Store
	bounds roll.Bounds

	up, open, active, started, progress, stuck, queueDepth, queueOldest, leases, leaseOldest, workers *prometheus.Desc

	violations, unwell, verified       *prometheus.Desc
	drift, driftUnchecked, driftOldest *prometheus.Desc
}

// NewEstate makes the collector; register it once per process.
func NewEstate(st *store.Store, b roll.Bounds) *Estate {
	d := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("keyroll_"+name, help, labels, nil)
	}
	return &Estate{store: st, bounds: b,
		up:          d("database_up", "1 when the figures of this scrape could be read from the database, else 0."),
		open:        d("rolls", "Open rolls by state and workload. A roll over several workloads counts once in each.", "state", "workload"),
		active:      d("steps_active", "Steps that are running or waiting, by kind.", "kind"),
		started:     d("step_started_timestamp_seconds", "When the longest-running open step of the kind began.", "kind"),
		progress:    d("step_last_progress_timestamp_seconds", "Oldest last progress (change of status or percent) among the open steps of the workload.", "workload"),
		stuck:       d("stuck_roll_info", "1 for each roll that stands still beyond its workload's bound; at most 100 series.", "roll", "tenant", "workload", "step", "reason_code"),
		queueDepth:  d("sharepoint_queue_depth", "Rolls that wait for the right to change SharePoint keys."),
		queueOldest: d("sharepoint_queue_oldest_timestamp_seconds", "Since when the first roll in a SharePoint queue waits."),
		leases:      d("sharepoint_leases_held", "SharePoint leases that are held."),
		leaseOldest: d("sharepoint_lease_held_since_timestamp_seconds", "Since when the oldest SharePoint lease is held."),
		workers:     d("workers_alive", "Processes with a sign of life in the last ten seconds."),
		violations:  d("ledger_violations", "Promises of the ledger that are broken now, by code.", "code"),
		unwell:      d("ledger_versions_unwell", "Key versions of the ledger that were last seen in this state; each must be enabled.", "state"),
		verified:    d("ledger_oldest_verified_timestamp_seconds", "When the vault of the key that has gone unread longest last answered, by whether its tenant is retired.", "tenants"),

		drift:          d("drift_items", "Differences between declarations and what Microsoft has that stand now, by code.", "code"),
		driftUnchecked: d("drift_not_checked_items", "What the last comparisons of the tenants could not check."),
		driftOldest:    d("drift_compared_timestamp_seconds", "Oldest last complete comparison among the tenants; one that was never compared counts from its declaration."),
	}
}

// Describe implements prometheus.Collector.
func (e *Estate) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{e.up, e.open, e.active, e.started, e.progress, e.stuck, e.queueDepth, e.queueOldest, e.leases, e.leaseOldest, e.workers, e.violations, e.unwell, e.verified, e.drift, e.driftUnchecked, e.driftOldest} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (e *Estate) Collect(ch chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	st, err := e.store.Stats(ctx)
	var open []roll.Roll
	if err == nil {
		open, err = e.store.OpenRolls(ctx, openLimit)
	}
	var ledger store.LedgerStats
	if err == nil {
		ledger, err = e.store.LedgerStats(ctx)
	}
	var drift store.DriftStats
	if err == nil {
		drift, err = e.store.DriftStats(ctx)
	}
	if err != nil {
		gauge(e.up, 0)
		return
	}
	gauge(e.up, 1)
	gauge(e.queueDepth, float64(st.QueueDepth))
	gauge(e.leases, float64(st.LeasesHeld))
	gauge(e.workers, float64(st.Workers))
	since := func(d *prometheus.Desc, t *time.Time, labels ...string) {
		if t != nil {
			gauge(d, float64(t.Unix()), labels...)
		}
	}
	since(e.queueOldest, st.QueueOldest)
	since(e.leaseOldest, st.LeaseOldest)
	since(e.verified, ledger.OldestActive, "active")
	since(e.verified, ledger.OldestRetired, "retired")
	for _, code := range roll.LedgerCodes() {
		gauge(e.violations, float64(ledger.Violations[code]), code)
	}
	for _, state := range roll.VersionStates() {
		if state != roll.VersionEnabled {
			gauge(e.unwell, float64(ledger.Unwell[state]), state)
		}
	}
	for _, code := range roll.DriftCodes() {
		gauge(e.drift, float64(drift.Items[code]), code)
	}
	gauge(e.driftUnchecked, float64(drift.NotChecked))
	since(e.driftOldest, drift.Oldest)
	e.rolls(gauge, since, open)
}

func (e *Estate) rolls(gauge func(*prometheus.Desc, float64, ...string), since func(*prometheus.Desc, *time.Time, ...string), open []roll.Roll) {
	now := e.store.Now()
	count := map[[2]string]int{}
	active := map[roll.StepKind]int{}
	started := map[roll.StepKind]*time.Time{}
	progress := map[roll.Workload]*time.Time{}
	older := func(a, b *time.Time) *time.Time {
		if a == nil || b != nil && b.Before(*a) {
			return b
		}
		return a
	}
	series := 0
	for _, r := range open {
		for _, w := range r.Workloads() {
			count[[2]string{string(r.State), string(w)}]++
		}
		for _, s := range r.Steps {
			if s.State != roll.StepRunning && s.State != roll.StepWaiting && s.State != roll.StepNeedsAttention {
				continue
			}
			active[s.Kind]++
			started[s.Kind] = older(started[s.Kind], s.StartedAt)
			if w := r.WorkloadOf(s); !roll.Patient(s.WaitingFor) {
				progress[w] = older(progress[w], s.ProgressAt)
			}
		}
		for _, still := range r.Stuck(now, e.bounds) {
			if series < stuckSeries {
				series++
				gauge(e.stuck, 1, r.ID, r.TenantID, string(still.Workload), string(still.Kind), still.Code)
			}
			break // one series a roll: the first step that stands still
		}
	}
	states := []roll.State{roll.AwaitingApproval, roll.Scheduled, roll.Running, roll.NeedsAttention, roll.Cancelling}
	for _, state := range states {
		for _, w := range roll.Workloads() {
			gauge(e.open, float64(count[[2]string{string(state), string(w)}]), string(state), string(w))
		}
	}
	for _, k := range roll.StepKinds() {
		gauge(e.active, float64(active[k]), string(k))
		since(e.started, started[k], string(k))
	}
	for _, w := range roll.Workloads() {
		since(e.progress, progress[w], string(w))
	}
}
