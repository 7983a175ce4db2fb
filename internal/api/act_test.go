package api_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/keyroll/keyroll/internal/api"
	"github.com/keyroll/keyroll/internal/sim"
)

const why = `{"reason":"the change was withdrawn"}`

// Who may approve, which plan, and as what it was read.
func TestApproval(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.declare()
	r := answer[api.Roll](t, h.send("rex", policies("spo"), uuid.NewString()), 202)
	approve := rollPath(r.ID) + "/approve"
	good := map[string]any{"plan_hash": r.PlanHash, "comment": "read and understood"}
	refused(t, h.as("rex", "POST", approve, good, "If-Match", tag(r)), 403, api.ProblemCodeSamePerson)
	for _, who := range []string{"rita", "ada", "aud", "robot"} {
		refused(t, h.as(who, "POST", approve, good, "If-Match", tag(r)), 403, api.ProblemCodeForbidden)
	}
	p := refused(t, h.as("paul", "POST", approve, map[string]any{"plan_hash": someHash}, "If-Match", tag(r)), 409, api.ProblemCodePlanChanged)
	if p.Plan.Hash != r.PlanHash {
		t.Errorf("the problem has plan %q", p.Plan.Hash)
	}
	refused(t, h.as("paul", "POST", approve, good), 428, api.ProblemCodePreconditionRequired)
	refused(t, h.as("paul", "POST", approve, good, "If-Match", `"2"`), 412, api.ProblemCodeVersionMismatch)
	if now := h.get(r.ID); now.Version != 1 || len(now.Approvals) != 0 {
		t.Fatalf("a refused approval left version %d", now.Version)
	}
	done := answer[api.Roll](t, h.as("paul", "POST", approve, good, "If-Match", tag(r)), 200)
	if done.State != api.RollStateRunning || len(done.Approvals) != 1 || done.Approvals[0].By != "paul@contoso.com" || done.Approvals[0].Comment != "read and understood" {
		t.Fatalf("approved: %s %+v", done.State, done.Approvals)
	}
	// The tag that was read is stale now, even for what has happened already ...
	refused(t, h.as("paul", "POST", approve, good, "If-Match", tag(r)), 412, api.ProblemCodeVersionMismatch)
	// ... and with the new one, saying it again changes nothing.
	again := answer[api.Roll](t, h.as("paul", "POST", approve, good, "If-Match", tag(done)), 200)
	if diff := cmp.Diff(done.Approvals, again.Approvals); again.Version != done.Version || diff != "" {
		t.Errorf("approved twice: version %d %s", again.Version, diff)
	}
	refused(t, h.as("paul", "POST", rollPath(r.ID)+"/reject", why, "If-Match", tag(done)), 409, api.ProblemCodeWrongState)
}

func TestReject(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.declare()
	r := answer[api.Roll](t, h.send("rex", policies("spo"), uuid.NewString()), 202)
	reject := rollPath(r.ID) + "/reject"
	refused(t, h.as("rex", "POST", reject, why, "If-Match", tag(r)), 403, api.ProblemCodeSamePerson)
	refused(t, h.as("robot", "POST", reject, why, "If-Match", tag(r)), 403, api.ProblemCodeForbidden)
	refused(t, h.as("paul", "POST", reject, why, "If-Match", `"9"`), 412, api.ProblemCodeVersionMismatch)
	done := answer[api.Roll](t, h.as("paul", "POST", reject, why, "If-Match", tag(r)), 200)
	if done.State != api.RollStateRejected || done.EndNote != "the change was withdrawn" || done.EndedAt.IsZero() || done.Outcome != "" {
		t.Errorf("rejected: %+v", done)
	}
	refused(t, h.as("paul", "POST", rollPath(r.ID)+"/approve", map[string]any{"plan_hash": r.PlanHash}, "If-Match", tag(done)), 409, api.ProblemCodeWrongState)
	h.request(policies("spo")) // its keys are free again
	// The act that ended it may be said again.
	if again := answer[api.Roll](t, h.as("paul", "POST", reject, why, "If-Match", tag(done)), 200); again.Version != done.Version {
		t.Errorf("version %d", again.Version)
	}
}

func TestCancel(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.declare()
	r := h.request(policies("spo"))
	cancel := rollPath(r.ID) + "/cancel"
	refused(t, h.as("paul", "POST", cancel, why), 403, api.ProblemCodeForbidden)
	first := h.as("olga", "POST", cancel, why)
	if done := answer[api.Roll](t, first, 200); done.State != api.RollStateCancelled || done.EndCode != "cancelled" || first.Header().Get("ETag") != tag(done) {
		t.Errorf("cancelled: %+v", done)
	}
	// Once more is no error, and changes nothing.
	if again := h.as("rita", "POST", cancel, why); again.Body.String() != first.Body.String() {
		t.Errorf("cancelled twice: %s", again.Body)
	}
	refused(t, h.as("olga", "POST", rollPath(r.ID)+"/retry", nil), 409, api.ProblemCodeWrongState)
	refused(t, h.as("olga", "POST", rollPath(r.ID)+"/replan", nil), 409, api.ProblemCodeWrongState)
	refused(t, h.as("olga", "POST", rollPath(r.ID)+"/abandon", why), 409, api.ProblemCodeWrongState)
}

// halted brings a roll of exo-na to a halt before its second key has a version.
func (h *house) halted(f sim.Fault) api.Roll {
	h.t.Helper()
	_, err := h.sim.World.AddFault(f)
	must(h.t, err)
	r := h.request(policies("exo-na"))
	h.approve(r.ID)
	h.work()
	r = h.awaitState(r.ID, api.RollStateNeedsAttention)
	if r.Attention.Code == "" || r.Attention.NextAction == "" || !strings.Contains(r.NextAction, rollPath(r.ID)+"/retry") {
		h.t.Fatalf("attention %+v, next action %q", r.Attention, r.NextAction)
	}
	return r
}

func forbidden() sim.Fault {
	return sim.Fault{
		Service: "keyvault", Operation: sim.OpCreateKey, Vault: "contoso-exo-a", Mode: sim.ModeRefuse, Count: 1,
		Params: sim.FaultParams{Status: 403},
	}
}

func TestRetry(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.declare()
	r := h.halted(forbidden())
	retry := rollPath(r.ID) + "/retry"
	refused(t, h.as("olga", "POST", retry, `{"step_id":77}`), 404, api.ProblemCodeNotFound)
	refused(t, h.as("paul", "POST", retry, nil), 403, api.ProblemCodeForbidden)
	answer[api.Roll](t, h.as("olga", "POST", retry, map[string]any{"step_id": r.Attention.Step}), 200)
	h.awaitState(r.ID, api.RollStateSucceeded)
	if n := h.sim.World.VersionsCreated("contoso-exo-a", "Contoso-EXO-A-Key001"); n != 1 {
		t.Errorf("%d versions were made", n)
	}
}

// Somebody else's version: the way out is a new plan, which needs a new approval.
func TestReplanWithStranger(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.declare()
	r := h.halted(sim.Fault{Service: "keyvault", Operation: sim.OpCreateKey, Vault: "contoso-exo-a", Mode: sim.ModeStrangerAfter, Count: 1})
	if r.Attention.Code != "stranger_key_version" {
		t.Fatalf("attention %+v", r.Attention)
	}
	replan := rollPath(r.ID) + "/replan"
	for _, undecided := range []any{nil, "{}"} {
		if p := refused(t, h.as("rita", "POST", replan, undecided), 422, api.ProblemCodeStrangersUndecided); len(p.Findings) != 1 || p.Findings[0].Subject != "key:exo-a" {
			t.Errorf("findings %+v", p.Findings)
		}
	}
	refused(t, h.as("rita", "POST", replan, `{"strangers":"delete"}`), 400, api.ProblemCodeInvalidRequest)
	next := answer[api.Roll](t, h.as("rita", "POST", replan, `{"strangers":"adopt"}`), 200)
	if next.State != api.RollStateAwaitingApproval || next.PlanHash == r.PlanHash || len(next.Approvals) != 0 || next.PlannedBy != "rita@contoso.com" {
		t.Fatalf("replanned: %s %s %+v", next.State, next.PlanHash, next.Approvals)
	}
	refused(t, h.as("paul", "POST", rollPath(r.ID)+"/approve", map[string]any{"plan_hash": r.PlanHash}, "If-Match", tag(next)), 409, api.ProblemCodePlanChanged)
	h.approve(r.ID)
	r = h.awaitState(r.ID, api.RollStateSucceeded)
	if len(r.LeftBehind) != 1 || r.LeftBehind[0].Key != "exo-a" || !strings.Contains(r.NextAction, "left_behind") {
		t.Errorf("left behind %+v, next action %q", r.LeftBehind, r.NextAction)
	}
}

func TestAbandonByTwo(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.declare()
	r := h.halted(forbidden())
	abandon := rollPath(r.ID) + "/abandon"
	refused(t, h.as("robot", "POST", abandon, why), 403, api.ProblemCodeForbidden)
	first := answer[api.AbandonResult](t, h.as("olga", "POST", abandon, why), 202)
	if !first.AbandonPending || first.By != "olga@contoso.com" || first.Roll.State != api.RollStateNeedsAttention || !strings.Contains(first.Roll.NextAction, "a second person confirms") {
		t.Fatalf("first call: %+v", first)
	}
	refused(t, h.as("olga", "POST", abandon, why), 403, api.ProblemCodeSamePerson)
	second := answer[api.AbandonResult](t, h.as("paul", "POST", abandon, why), 200)
	if second.AbandonPending || second.By != first.By || second.Roll.State != api.RollStateFailed || second.Roll.EndCode != "abandoned" {
		t.Fatalf("second call: %+v", second)
	}
	again := answer[api.AbandonResult](t, h.as("olga", "POST", abandon, why), 200)
	if again.Roll.Version != second.Roll.Version || again.AbandonPending {
		t.Errorf("third call: %+v", again)
	}
}

// The SharePoint queue, and the lease taken away by two people.
func TestQueueAndLeaseRelease(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.declare()
	release := tenantPath + "/sharepoint-lease/release"
	refused(t, h.as("olga", "POST", release, why), 409, api.ProblemCodeLeaseFree)
	refused(t, h.as("olga", "POST", release, `{"reason":"x","scope":"geo:EUR"}`), 404, api.ProblemCodeNotFound)
	_, err := h.sim.World.AddFault(sim.Fault{Service: "sharepoint", Operation: sim.OpRollKey, Mode: sim.ModeRollingForever, Params: sim.FaultParams{Percent: 40}})
	must(t, err)
	h.work()
	first, second := h.request(keys("spo-a")), h.request(keys("spo-b"))
	h.approve(first.ID)
	first = h.await(first.ID, "rolling", func(r api.Roll) bool { return strings.Contains(r.NextAction, "40%") })
	if q := first.SharePointQueue; q.Holder != first.ID || q.Position != 0 || q.Scope != "tenant" {
		t.Errorf("the holder shows %+v", q)
	}
	h.approve(second.ID)
	second = h.await(second.ID, "queued", func(r api.Roll) bool { return r.SharePointQueue.Position == 1 })
	if q := second.SharePointQueue; q.Holder != first.ID || !strings.Contains(second.NextAction, "queue at place 1") || second.Stuck || second.NextAttemptAt.IsZero() {
		t.Errorf("the waiter shows %+v, next action %q", q, second.NextAction)
	}
	refused(t, h.as("robot", "POST", release, why), 403, api.ProblemCodeForbidden)
	refused(t, h.as("paul", "POST", release, why), 403, api.ProblemCodeForbidden)
	asked := answer[api.LeaseRelease](t, h.as("olga", "POST", release, why), 202)
	if !asked.ReleasePending || asked.RollID != first.ID || asked.RequestedBy != "olga@contoso.com" || asked.RequestedAt.IsZero() || asked.ConfirmedBy != "" {
		t.Errorf("asked: %+v", asked)
	}
	refused(t, h.as("olga", "POST", release, why), 403, api.ProblemCodeSamePerson)
	done := answer[api.LeaseRelease](t, h.as("ada", "POST", release, why), 200)
	if done.ReleasePending || done.RollID != first.ID || done.RequestedBy != "olga@contoso.com" || done.ConfirmedBy != "ada@contoso.com" || !strings.Contains(done.NextAction, second.ID) {
		t.Errorf("released: %+v", done)
	}
	// Both calls stand among the roll's events, by whom they were.
	page := answer[api.RollEventList](t, h.as("aud", "GET", rollPath(first.ID)+"/events?limit=100", nil), 200)
	by := map[string]string{}
	for _, e := range page.Items {
		if e.RollVersion == 0 {
			by[e.Types[0]] = e.Actor
		}
	}
	if diff := cmp.Diff(map[string]string{"release_requested": "olga@contoso.com", "released": "ada@contoso.com"}, by); diff != "" {
		t.Errorf("events of the lease:\n%s", diff)
	}
	h.await(second.ID, "holding the lease", func(r api.Roll) bool { return r.SharePointQueue.Holder == r.ID })
}

func TestUnknownThings(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.declare()
	other, gone := "/v1/tenants/"+someTenant, rollPath(someRoll)
	for _, c := range [][]string{
		{"aud", "GET", gone, ""}, {"aud", "GET", gone + "/events", ""}, {"olga", "POST", gone + "/cancel", why}, {"olga", "POST", gone + "/retry", ""},
		{"olga", "POST", gone + "/replan", ""}, {"olga", "POST", gone + "/abandon", why}, {"paul", "POST", gone + "/reject", why},
		{"paul", "POST", gone + "/approve", `{"plan_hash":"` + someHash + `"}`},
		{"aud", "GET", other, ""}, {"aud", "GET", other + "/key-versions", ""}, {"ada", "POST", other + "/retire", why},
		{"olga", "POST", other + "/sharepoint-lease/release", why}, {"paul", "POST", "/v1/plans", `{"tenant_id":"` + someTenant + `","policies":["spo"]}`},
		{"rita", "POST", "/v1/rolls", rollBody},
	} {
		t.Run(c[1]+" "+c[2], func(t *testing.T) {
			refused(t, h.as(c[0], c[1], c[2], c[3], "If-Match", `"1"`, "Idempotency-Key", "k"), 404, api.ProblemCodeNotFound)
		})
	}
}
