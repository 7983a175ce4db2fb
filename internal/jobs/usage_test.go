package jobs_test

import (
	"strings"
	"testing"
	"time"

	"github.com/keyroll/keyroll/internal/jobs"
	"github.com/keyroll/keyroll/internal/roll"
	"github.com/keyroll/keyroll/internal/sim"
	"github.com/keyroll/keyroll/internal/store"
)

const workspace = "2f1d6a3c-8b0e-4a57-9c1d-7e5b40c3a9d2"

// withLog declares where the vaults' log is; what happens there can be read delay later.
func withLog(delay time.Duration) func(*sim.Seed, *roll.Inventory) {
	return func(s *sim.Seed, inv *roll.Inventory) {
		s.Tenants[0].Logs = &sim.Logs{WorkspaceID: workspace, DelaySeconds: delay.Seconds()}
		inv.Diagnostics = &roll.Diagnostics{WorkspaceID: workspace}
	}
}

func looking() jobs.Config {
	cfg := quick()
	cfg.Evidence = 100 * time.Millisecond
	return cfg
}

// improved waits until the policy's evidence is in_use.
func (h *house) improved(id, policy string) roll.Roll {
	h.t.Helper()
	return h.await(id, policy+" in use", func(r roll.Roll) bool { e, _, _ := r.CurrentEvidence(policy); return e == roll.InUse })
}

// looked waits until the policy's log has been looked into, and answers with the watch.
func (h *house) looked(id, policy string, cond func(store.EvidenceWatch) bool) store.EvidenceWatch {
	h.t.Helper()
	var out store.EvidenceWatch
	h.eventually("a look into the log", func() bool {
		all, err := h.st.EvidenceWatches(h.t.Context(), id)
		must(h.t, err)
		for _, w := range all {
			if w.PolicyID == policy && w.LookedAt != nil && cond(w) {
				out = w
				return true
			}
		}
		return false
	})
	return out
}

// TestLogShowsUseBeforeTheEnd: where the log shows it at once, the roll ends in_use.
func TestLogShowsUseBeforeTheEnd(t *testing.T) {
	t.Parallel()
	h := newHouse(t, withLog(0))
	h.declare()
	h.work(looking())
	r := h.request("global", "exo-na")
	h.approve(r.ID)
	r = h.ended(r.ID)
	if r.Outcome != roll.InUse {
		t.Errorf("outcome %s\n%s", r.Outcome, show(r))
	}
	if _, source := r.PolicyEvidence("global"); !strings.Contains(source, roll.MultiWorkload.AppID()) {
		t.Errorf("source %q", source)
	}
	if len(r.Later) > 0 {
		t.Errorf("found later: %+v", r.Later)
	}
	h.check(r)
}

// TestLogShowsUseAfterTheEnd: the roll ends accepted and stays so in its
// history; hours later the log shows the wraps, once, with audit entry and event.
func TestLogShowsUseAfterTheEnd(t *testing.T) {
	t.Parallel()
	h := newHouse(t, withLog(2*time.Hour))
	h.declare()
	h.work(looking())
	h.work(looking())
	r := h.request("exo-na")
	h.approve(r.ID)
	r = h.ended(r.ID)
	if r.Outcome != roll.Accepted {
		t.Fatalf("outcome %s before the log arrived", r.Outcome)
	}
	w := h.looked(r.ID, "exo-na", func(store.EvidenceWatch) bool { return true })
	if w.Trouble != "" || w.Until.Sub(*r.EndedAt) < 71*time.Hour {
		t.Errorf("watch %+v", w)
	}
	h.sim.World.Advance(3 * time.Hour)
	now := h.improved(r.ID, "exo-na")
	if end, _ := now.PolicyEvidence("exo-na"); now.State != roll.Succeeded || now.Outcome != roll.Accepted || end != roll.Accepted || now.CurrentOutcome() != roll.InUse || len(now.Later) != 1 {
		t.Errorf("outcome %s, now %s, later %+v", now.Outcome, now.CurrentOutcome(), now.Later)
	}
	if n := h.outgoing("roll.evidence_improved"); n != 1 {
		t.Errorf("%d events", n)
	}
	events, err := h.st.RollEvents(t.Context(), r.ID, 0, 1)
	must(t, err)
	if got := events[0].Entry.Events[0]; got.Type != "evidence_seen" || got.Detail["policy"] != "exo-na" {
		t.Errorf("newest audit entry %+v", got)
	}
	h.check(now)
}

// TestOnlyWrapsCount: unwraps, other applications, old versions and older
// wraps raise nothing, however many there are; the right wraps then do.
func TestOnlyWrapsCount(t *testing.T) {
	t.Parallel()
	const never = 1e9 // seconds until the world's own lines arrive
	h := newHouse(t, withLog(never*time.Second))
	h.declare()
	h.work(looking())
	r := h.request("exo-na")
	h.approve(r.ID)
	r = h.ended(r.ID)
	if r.Outcome != roll.Accepted {
		t.Fatalf("outcome %s", r.Outcome)
	}
	now := h.sim.World.CurrentTime()
	line := func(k roll.RollKey, op, app, version string, at time.Time) {
		key := roll.Key{VaultURL: k.VaultURL, Name: k.Name}
		// Written so that it arrives now.
		must(t, h.sim.World.WriteLog(sim.ContosoTenant, sim.LogLine{At: at, Arrives: now, Operation: op, AppID: app, Key: key.URI(version)}))
	}
	for _, k := range r.Keys {
		line(k, sim.LogUnwrap, roll.Exchange.AppID(), k.NewVersion, now)
		line(k, sim.LogWrap, roll.SharePoint.AppID(), k.NewVersion, now)
		line(k, sim.LogWrap, roll.Exchange.AppID(), k.OldVersion, now)
		line(k, sim.LogWrap, roll.Exchange.AppID(), k.NewVersion, now.Add(-24*time.Hour))
	}
	line(r.Keys[0], sim.LogWrap, roll.Exchange.AppID(), r.Keys[0].NewVersion, now)
	after := h.st.Now()
	w := h.looked(r.ID, "exo-na", func(w store.EvidenceWatch) bool { return w.LookedAt.After(after) })
	seen, err := h.st.Roll(t.Context(), r.ID)
	must(t, err)
	if e, source, _ := seen.CurrentEvidence("exo-na"); e != roll.Accepted || w.Trouble != "" {
		t.Errorf("evidence %s: %s (%s)", e, source, w.Trouble)
	}
	line(r.Keys[1], sim.LogWrap, roll.Exchange.AppID(), r.Keys[1].NewVersion, now)
	h.check(h.improved(r.ID, "exo-na"))
}

// TestUnreadableLogChangesNothing: a log that may not be read is said, raises
// nothing and fails nothing; when it can be read, what it shows counts.
func TestUnreadableLogChangesNothing(t *testing.T) {
	t.Parallel()
	h := newHouse(t, withLog(0), func(s *sim.Seed, _ *roll.Inventory) { s.Tenants[0].Logs.Denied = true })
	h.declare()
	h.work(looking())
	r := h.request("exo-na")
	h.approve(r.ID)
	r = h.ended(r.ID)
	if r.State != roll.Succeeded || r.Outcome != roll.Accepted || !strings.Contains(strings.Join(step(r, roll.Verify).Result.Warnings, " "), "could not be read") {
		t.Errorf("ended %s, outcome %s, verify %+v", r.State, r.Outcome, step(r, roll.Verify).Result)
	}
	if w := h.looked(r.ID, "exo-na", func(w store.EvidenceWatch) bool { return w.Trouble != "" }); !strings.Contains(w.Trouble, "forbidden") {
		t.Errorf("watch %+v", w)
	}
	must(t, h.sim.World.SetLogs(sim.ContosoTenant, sim.Logs{WorkspaceID: workspace}))
	h.check(h.improved(r.ID, "exo-na"))
}

// TestSharePointWithoutVersionsRises: where the slots name no version, the
// evidence is accepted, and the log alone can raise it: before the end where it
// comes at once, after it where it comes later.
func TestSharePointWithoutVersionsRises(t *testing.T) {
	t.Parallel()
	for name, delay := range map[string]time.Duration{"before the end": 0, "after the end": 2 * time.Hour} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t, withLog(delay), func(s *sim.Seed, _ *roll.Inventory) { s.Tenants[0].SharePoint.URIVersion = no() })
			h.declare()
			h.work(looking())
			r := h.request("spo")
			h.approve(r.ID)
			r = h.ended(r.ID)
			want, later := roll.InUse, 0
			if delay > 0 {
				want, later = roll.Accepted, 1
			}
			if r.State != roll.Succeeded || r.Outcome != want {
				t.Fatalf("ended %s, outcome %s\n%s", r.State, r.Outcome, show(r))
			}
			if delay > 0 {
				after := h.st.Now()
				h.looked(r.ID, "spo", func(w store.EvidenceWatch) bool { return w.LookedAt.After(after) })
				h.sim.World.Advance(3 * time.Hour)
			}
			now := h.improved(r.ID, "spo")
			_, source, _ := now.CurrentEvidence("spo")
			if now.Outcome != want || now.CurrentOutcome() != roll.InUse || len(now.Later) != later || !strings.Contains(source, roll.SharePoint.AppID()) ||
				h.outgoing("roll.evidence_improved") != later {
				t.Errorf("outcome %s, now %s by %q, later %+v", now.Outcome, now.CurrentOutcome(), source, now.Later)
			}
			h.check(now)
		})
	}
}

// TestPolicyTestProvesNothing: what Microsoft's own test says is kept beside
// the evidence; one that fails is a warning, one that is not there a word.
func TestPolicyTestProvesNothing(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		fault   *sim.Fault
		service map[string]bool
		want    roll.TestVerdict
		says    *sim.PolicyTest
		warns   string // "" no warning
	}{
		"healthy":   {want: roll.TestHealthy},
		"not there": {fault: &sim.Fault{Service: "exchange", Operation: sim.OpTestM365DEP, Mode: sim.ModeRefuse, Params: sim.FaultParams{Status: 403, Body: strings.Repeat("\x00", 64)}}, want: roll.TestNotAvailable},
		"broken":    {fault: &sim.Fault{Service: "exchange", Operation: sim.OpTestM365DEP, Mode: sim.ModeRefuse, Params: sim.FaultParams{Status: 500}}, want: roll.TestNotAvailable},
		"unhealthy": {says: &sim.PolicyTest{Result: "Failure", Detail: "the key vault refused a wrap"}, want: roll.TestUnhealthy, warns: "failed: the key vault refused a wrap"},
		"unclear":   {says: &sim.PolicyTest{Result: "Partly", Detail: "some of it"}, want: roll.TestUnclear, warns: "cannot be told: some of it"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t, withLog(2*time.Hour), func(s *sim.Seed, _ *roll.Inventory) {
				for i := range s.Tenants[0].Exchange.Policies {
					s.Tenants[0].Exchange.Policies[i].Test = c.says
				}
			})
			h.declare()
			if c.fault != nil {
				_, err := h.sim.World.AddFault(*c.fault)
				must(t, err)
			}
			h.work(quick())
			r := h.request("global")
			h.approve(r.ID)
			r = h.ended(r.ID)
			v := step(r, roll.Verify)
			if r.State != roll.Succeeded || r.Outcome != roll.Accepted || v.Result.Test == nil || v.Result.Test.Verdict != c.want || v.Result.Test.At.IsZero() {
				t.Errorf("ended %s, outcome %s, test %+v", r.State, r.Outcome, v.Result.Test)
			}
			if said := strings.Join(v.Result.Warnings, " "); (said != "") != (c.warns != "") || !strings.Contains(said, c.warns) ||
				c.warns != "" && !strings.Contains(said, "Test-M365DataAtRestEncryptionPolicy") {
				t.Errorf("warnings %q", v.Result.Warnings)
			}
			h.check(r)
		})
	}
}
