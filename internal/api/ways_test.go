package api_test

import (
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/keyroll/keyroll/internal/api"
	"github.com/keyroll/keyroll/internal/roll"
	"github.com/keyroll/keyroll/internal/sim"
)

// reach brings a roll, requested by rex, into a situation of
// docs/state_machine.md, over the simulators.
func (h *house) reach(situation string) api.Roll {
	h.t.Helper()
	ask := func(more map[string]any) api.Roll {
		return answer[api.Roll](h.t, h.send("rex", body(more), uuid.NewString()), 202)
	}
	fault := func(f sim.Fault) string {
		id, err := h.sim.World.AddFault(f)
		must(h.t, err)
		return id
	}
	named := func(ids ...string) map[string]any {
		var list []any
		for _, id := range ids {
			list = append(list, map[string]any{"id": id})
		}
		return map[string]any{"keys": list}
	}
	refuse := sim.Fault{Service: "keyvault", Operation: sim.OpCreateKey, Vault: "contoso-exo-a", Mode: sim.ModeRefuse, Params: sim.FaultParams{Status: 403}}
	slow := 0.001
	rolling := func(keys ...string) api.Roll {
		must(h.t, h.sim.World.SetSharePoint(sim.SharePointSettings{Tenant: sim.ContosoTenant, SitesPerSecond: &slow}))
		r := ask(named(keys...))
		h.approve(r.ID)
		h.work()
		return h.await(r.ID, "rolling", func(r api.Roll) bool { return strings.Contains(asJSON(h.t, r.Steps), `"seen":"Rolling"`) })
	}
	switch situation {
	case roll.InApproval:
		return ask(named("spo-a"))
	case roll.InSecondApproval:
		more := named("spo-a")
		more["emergency"] = map[string]any{"reason": "a key may be in the wrong hands"}
		return h.approve(ask(more).ID)
	case roll.InSchedule:
		more := named("spo-a")
		more["start_at"] = time.Now().Add(time.Hour).UTC().Format(time.RFC3339)
		return h.approve(ask(more).ID)
	case roll.InRun:
		return h.approve(ask(named("spo-a")).ID)
	case roll.InHands:
		r := h.approve(ask(named("exo-a")).ID)
		h.work()
		return h.await(r.ID, "at its manual step", func(r api.Roll) bool { return manualStep(r) != nil })
	case roll.InFlightRun:
		return rolling("spo-a")
	case roll.InHalt:
		fault(refuse)
		r := ask(named("exo-a"))
		h.approve(r.ID)
		h.work()
		return h.awaitState(r.ID, api.RollStateNeedsAttention)
	case roll.InHaltFlight:
		put := fault(sim.Fault{Service: "keyvault", Operation: sim.OpCreateKey, Vault: "contoso-exo-a", Mode: sim.ModeThrottle})
		r := rolling("exo-a", "spo-a")
		fault(refuse)
		must(h.t, h.sim.World.RemoveFault(put))
		return h.awaitState(r.ID, api.RollStateNeedsAttention)
	case roll.InHaltUnproven:
		off, fast := false, 1e9
		must(h.t, h.sim.World.SetSharePoint(sim.SharePointSettings{Tenant: sim.ContosoTenant, URIVersion: &off, SitesPerSecond: &fast}))
		fault(sim.Fault{Service: "sharepoint", Operation: sim.OpRollKey, Mode: sim.ModeApplyAndLose, Count: 1})
		r := ask(named("spo-a"))
		h.approve(r.ID)
		h.work()
		return h.awaitState(r.ID, api.RollStateNeedsAttention)
	case roll.InCancel:
		r := rolling("spo-a")
		return answer[api.Roll](h.t, h.as("olga", "POST", rollPath(r.ID)+"/cancel", why), 200)
	case roll.InSuccess:
		r := ask(named("exo-a"))
		h.approve(r.ID)
		h.work()
		return h.awaitState(r.ID, api.RollStateSucceeded)
	case roll.InAbandoned:
		r := h.approve(ask(named("exo-a")).ID)
		h.as("olga", "POST", rollPath(r.ID)+"/abandon", why)
		h.as("rita", "POST", rollPath(r.ID)+"/abandon", why)
		return h.get(r.ID)
	case roll.InCancelled:
		return answer[api.Roll](h.t, h.as("olga", "POST", rollPath(ask(named("exo-a")).ID)+"/cancel", why), 200)
	case roll.InRejected:
		r := ask(named("exo-a"))
		return answer[api.Roll](h.t, h.as("paul", "POST", rollPath(r.ID)+"/reject", why, "If-Match", tag(r)), 200)
	}
	h.t.Fatalf("nobody knows how to reach %q", situation)
	return api.Roll{}
}

// perform does an act of a person; nil where it is none.
func (h *house) perform(act string, r api.Roll) *httptest.ResponseRecorder {
	h.t.Helper()
	p := rollPath(r.ID)
	r = h.get(r.ID)
	approve := map[string]any{"plan_hash": r.PlanHash}
	step := max(r.Attention.Step, 1)
	switch act {
	case roll.ActApprove:
		who := "paul"
		for _, a := range r.Approvals {
			if a.By == "paul@contoso.com" && r.State == api.RollStateAwaitingApproval {
				who = "pia"
			}
		}
		if len(r.Approvals) > 0 && r.State != api.RollStateAwaitingApproval {
			who = "pia" // who approved already is told so
		}
		return h.as(who, "POST", p+"/approve", approve, "If-Match", tag(r))
	case roll.ActApproveOwn:
		return h.as("rex", "POST", p+"/approve", approve, "If-Match", tag(r))
	case roll.ActReject:
		return h.as("paul", "POST", p+"/reject", why, "If-Match", tag(r))
	case roll.ActCancel:
		return h.as("olga", "POST", p+"/cancel", why)
	case roll.ActRetry:
		return h.as("olga", "POST", p+"/retry", nil)
	case roll.ActAssume:
		return h.as("olga", "POST", p+"/retry", map[string]any{"step_id": step, "assume": "applied"})
	case roll.ActReplan:
		return h.as("olga", "POST", p+"/replan", nil)
	case roll.ActReport, roll.ActReportNot:
		if s := manualStep(r); s != nil {
			step = s.N
		}
		outcome := map[string]string{roll.ActReport: "done", roll.ActReportNot: "not_done"}[act]
		return h.as("olga", "POST", p+"/steps/"+strconv.Itoa(step)+"/report", map[string]any{"outcome": outcome})
	case roll.ActAbandon:
		return h.as("olga", "POST", p+"/abandon", why)
	}
	return nil
}

// TestEveryActInEverySituation holds the API against the table that
// docs/state_machine.md shows: each situation is reached over the simulators,
// each act of a person is done in it, and the answer's code, the state and the
// attention after it are those of the table.
func TestEveryActInEverySituation(t *testing.T) {
	t.Parallel()
	ways, err := roll.Ways()
	must(t, err)
	bySituation := map[string][]roll.Way{}
	for _, w := range ways {
		bySituation[w.Situation] = append(bySituation[w.Situation], w)
	}
	for situation, rows := range bySituation {
		t.Run(situation, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t)
			if situation == roll.InHands {
				h.byHand()
			} else {
				h.declare()
			}
			r := h.reach(situation)
			if string(r.State) != string(rows[0].State) {
				t.Fatalf("reached %s, want %s", r.State, rows[0].State)
			}
			before := h.get(r.ID)
			for _, w := range rows {
				if w.Refused == "" && !w.Already {
					continue
				}
				rec := h.perform(w.Act, r)
				switch {
				case rec == nil:
				case w.Already && rec.Code != 200:
					t.Errorf("%s: %d, although it has happened: %s", w.Act, rec.Code, rec.Body)
				case w.Refused != "":
					want := api.ProblemOf(&roll.TransitionError{Code: w.Refused})
					if got := problem(t, rec); got.Code != want.Code || rec.Code != want.Status || got.NextAction == "" {
						t.Errorf("%s: %d %s (%s), want %d %s", w.Act, rec.Code, got.Code, got.Detail, want.Status, want.Code)
					}
				}
			}
			if now := h.get(r.ID); now.State != before.State || now.Attention.Code != before.Attention.Code || len(now.Approvals) != len(before.Approvals) {
				t.Errorf("refused acts changed the roll: %s to %s", before.State, now.State)
			}
			// One that changes something, the last of the table's that can be done.
			for i := len(rows) - 1; i >= 0; i-- {
				w := rows[i]
				if w.Refused != "" || w.Already {
					continue
				}
				rec := h.perform(w.Act, r)
				if rec == nil {
					continue
				}
				if rec.Code != 200 && rec.Code != 202 {
					t.Fatalf("%s: %d %s", w.Act, rec.Code, rec.Body)
				}
				if now := h.get(r.ID); w.Act == roll.ActAbandon && (string(now.State) != string(w.Next) || now.Abandon.By == "") {
					t.Errorf("%s: %s, want %s", w.Act, now.State, w.Next)
				} else if w.Act != roll.ActAbandon && answerState(t, rec) != string(w.Next) {
					t.Errorf("%s: %s, want %s", w.Act, answerState(t, rec), w.Next)
				}
				break
			}
		})
	}
}

func answerState(t *testing.T, rec *httptest.ResponseRecorder) string {
	t.Helper()
	return string(answer[api.Roll](t, rec, rec.Code).State)
}
