package api_test

import (
	"fmt"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/keyroll/keyroll/internal/api"
	"github.com/keyroll/keyroll/internal/sim"
)

func TestIdempotency(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.declare()
	first := h.send("rita", policies("spo"), "key-1")
	made := answer[api.Roll](t, first, 202)
	if got := first.Header().Get("Location"); got != rollPath(made.ID) || first.Header().Get("ETag") != tag(made) {
		t.Errorf("Location %q, ETag %s", got, first.Header().Get("ETag"))
	}
	again := h.send("rita", policies("spo"), "key-1")
	if again.Body.String() != first.Body.String() || again.Code != 202 || again.Header().Get("Location") != first.Header().Get("Location") {
		t.Errorf("the replay differs: %d %s", again.Code, again.Body)
	}
	if first.Header().Get("Idempotency-Replayed") != "false" || again.Header().Get("Idempotency-Replayed") != "true" {
		t.Errorf("Idempotency-Replayed: %v then %v", first.Header(), again.Header())
	}
	refused(t, h.send("rita", policies("exo-na"), "key-1"), 422, api.ProblemCodeIdempotencyKeyReused)
	// Not even a space may differ: the key stands for every byte.
	refused(t, h.send("rita", " "+first.Body.String()[:0]+`{"tenant_id":"`+sim.ContosoTenant+`","policies":["spo"],"reason":{"code":"other","text":"x"}}`, "key-1"), 422, api.ProblemCodeIdempotencyKeyReused)
	// A refused request leaves its key free.
	refused(t, h.send("rita", policies("nope"), "key-2"), 422, api.ProblemCodeUnprocessable)
	answer[api.Roll](t, h.send("rita", policies("exo-na"), "key-2"), 202)
	// Keys belong to their sender.
	refused(t, h.send("rex", policies("spo"), "key-1"), 409, api.ProblemCodeRollOpen)
	if n := len(h.rolls("")); n != 2 {
		t.Errorf("%d rolls", n)
	}
}

// Twenty at once with one key make one roll.
func TestConcurrentIdempotency(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.declare()
	answers := make([]*httptest.ResponseRecorder, 20)
	var wait sync.WaitGroup
	for i := range answers {
		wait.Add(1)
		go func() {
			defer wait.Done()
			answers[i] = h.send("rita", policies("spo"), "the-key")
		}()
	}
	wait.Wait()
	last := h.send("rita", policies("spo"), "the-key")
	fresh := 0
	for _, a := range answers {
		switch {
		case a.Code == 409:
			refused(t, a, 409, api.ProblemCodeIdempotencyKeyInUse)
		case a.Code != 202 || a.Body.String() != last.Body.String():
			t.Errorf("answer %d %s", a.Code, a.Body)
		case a.Header().Get("Idempotency-Replayed") == "false":
			fresh++
		}
	}
	if n := len(h.rolls("")); n != 1 || fresh != 1 {
		t.Errorf("%d rolls, %d answers that were not replayed", n, fresh)
	}
}

// rolls reads all pages of the list, in pages of three.
func (h *house) rolls(query string) (ids []string) {
	h.t.Helper()
	cursor := ""
	for {
		page := answer[api.RollList](h.t, h.as("aud", "GET", "/v1/rolls?limit=3"+query+cursor, nil), 200)
		for _, r := range page.Items {
			ids = append(ids, r.ID)
			if r.NextAction == "" || len(r.Workloads) == 0 {
				h.t.Errorf("summary %+v", r)
			}
		}
		if page.NextCursor == "" {
			return ids
		}
		cursor = "&cursor=" + url.QueryEscape(page.NextCursor)
	}
}

func TestSecondRollIsRefused(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.declare()
	first := h.request(policies("exo-na"))
	for name, second := range map[string]map[string]any{"same policy": policies("exo-na"), "one of its keys": keys("exo-b"), "and another": policies("spo", "exo-na")} {
		if p := refused(t, h.send("rex", second, uuid.NewString()), 409, api.ProblemCodeRollOpen); p.RollID != first.ID {
			t.Errorf("%s: roll_id %q, want %s", name, p.RollID, first.ID)
		}
	}
	h.request(policies("spo"))
}

func TestAvailabilityKey(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.declare()
	for policy, says := range map[string]string{
		"exo-na": "creating a new policy makes a new one", "spo": "forest level", "global": "documents nothing", "": "Multi-workload",
	} {
		key := map[string]any{"type": "availability"}
		if policy != "" {
			key["policy"] = policy
		}
		wanted := body(map[string]any{"keys": []any{key}})
		for _, rec := range []*httptest.ResponseRecorder{h.send("rita", wanted, uuid.NewString()), h.as("rita", "POST", "/v1/plans", wanted)} {
			if p := refused(t, rec, 422, api.ProblemCodeAvailabilityKey); !strings.Contains(p.Detail, says) || !strings.Contains(p.Detail, "own internal schedule") {
				t.Errorf("policy %q: %s", policy, p.Detail)
			}
		}
	}
	if w := h.sim.World.Witness(); len(w) != 0 {
		t.Errorf("effects at Microsoft: %+v", w)
	}
}

// What a plan or a request cannot be, each with the member that is wrong.
func TestRequestsThatCannotBe(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.declare()
	some := strings.Repeat("0a", 16)
	for name, c := range map[string]struct {
		more    map[string]any
		pointer string
	}{
		"nothing named":    {nil, "/keys"},
		"unknown policy":   {map[string]any{"policies": []string{"spo", "nope"}}, "/policies/1"},
		"unknown key":      {map[string]any{"keys": []any{map[string]any{"id": "nope"}}}, "/keys/0/id"},
		"no id":            {map[string]any{"keys": []any{map[string]any{}}}, "/keys/0/id"},
		"key twice":        {map[string]any{"keys": []any{map[string]any{"id": "m-a"}, map[string]any{"id": "m-a"}}}, "/keys/1/id"},
		"adopted with nbf": {map[string]any{"keys": []any{map[string]any{"id": "m-a", "version": some, "key_not_before": "2030-01-01T00:00:00Z"}}}, "/keys/0/key_not_before"},
	} {
		for _, rec := range []*httptest.ResponseRecorder{h.send("rita", body(c.more), uuid.NewString()), h.as("rita", "POST", "/v1/plans", body(c.more))} {
			p := refused(t, rec, 422, api.ProblemCodeUnprocessable)
			if len(p.Errors) != 1 || p.Errors[0].Pointer != c.pointer {
				t.Errorf("%s: %+v", name, p.Errors)
			}
		}
	}
}

// A plan with errors, and a plan that has changed, answer with the plan.
func TestPlanRefusals(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.declare()
	p := refused(t, h.send("rita", body(map[string]any{"policies": []string{"spo"}, "plan_hash": someHash}), uuid.NewString()), 409, api.ProblemCodePlanChanged)
	if !p.Plan.CanRun || p.Plan.Hash == someHash {
		t.Errorf("plan %+v", p.Plan)
	}
	h.request(body(map[string]any{"policies": []string{"spo"}, "plan_hash": p.Plan.Hash}))
	must(t, h.sim.World.SetEnabled("contoso-exo-a", "Contoso-EXO-A-Key001", "", false))
	p = refused(t, h.send("rita", policies("exo-na"), uuid.NewString()), 422, api.ProblemCodePlanHasErrors)
	if len(p.Findings) == 0 || p.Findings[0].Code != "key_disabled" || p.Findings[0].Remedy == "" || p.Plan.CanRun {
		t.Errorf("findings %+v", p.Findings)
	}
	if plan := answer[api.Plan](t, h.as("paul", "POST", "/v1/plans", map[string]any{"tenant_id": sim.ContosoTenant, "policies": []string{"exo-na"}}), 200); plan.CanRun {
		t.Error("a plan with errors can run")
	}
}

// Microsoft not answering is no fault of the client's.
func TestMicrosoftUnavailable(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.declare()
	_, err := h.sim.World.AddFault(sim.Fault{Service: "keyvault", Operation: sim.OpGetKey, Mode: sim.ModeThrottle, Params: sim.FaultParams{RetryAfter: 1}})
	must(t, err)
	rec := h.as("rita", "POST", "/v1/plans", policies("spo"))
	if p := refused(t, rec, 503, api.ProblemCodeUnavailable); rec.Header().Get("Retry-After") == "" || !strings.Contains(p.Detail, "reading what Microsoft has") {
		t.Errorf("%v %s", rec.Header(), p.Detail)
	}
}

func TestListOfRolls(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.declare()
	var made []string
	var times []time.Time
	for i := range 7 {
		wanted, who := policies("spo"), "rita"
		if i%2 == 0 {
			wanted, who = keys("exo-a"), "rex"
			wanted["reason"] = map[string]any{"code": "other", "text": "x", "ticket": map[string]any{"source": "jira", "id": fmt.Sprintf("OPS-%d", i)}}
		}
		r := answer[api.Roll](t, h.send(who, wanted, uuid.NewString()), 202)
		made, times = append([]string{r.ID}, made...), append(times, r.RequestedAt)
		if i < 6 {
			answer[api.Roll](t, h.as("olga", "POST", rollPath(r.ID)+"/cancel", map[string]any{"reason": "not today"}), 200)
		}
	}
	pick := func(want ...int) (ids []string) {
		for _, i := range want {
			ids = append(ids, made[i])
		}
		return ids
	}
	stamp := func(t time.Time) string { return url.QueryEscape(t.Format(time.RFC3339Nano)) }
	for query, want := range map[string][]string{
		"": made, "&state=awaiting_approval": pick(0), "&state=cancelled": made[1:], "&key=exo-a": pick(0, 2, 4, 6), "&key=spo-b": pick(1, 3, 5),
		"&actor=rex%40contoso.com": pick(0, 2, 4, 6), "&actor=nobody": nil, "&ticket=OPS-4": pick(2), "&tenant_id=" + sim.ContosoTenant: made, "&tenant_id=" + someTenant: nil,
		"&since=" + stamp(times[5]): pick(0, 1), "&until=" + stamp(times[1]): pick(6), "&since=" + stamp(times[2]) + "&until=" + stamp(times[4]): pick(3, 4),
		"&state=cancelled&key=exo-a": pick(2, 4, 6),
	} {
		if got := h.rolls(query); strings.Join(got, " ") != strings.Join(want, " ") {
			t.Errorf("%s: %v, want %v", query, got, want)
		}
	}
	page := answer[api.RollList](t, h.as("aud", "GET", "/v1/rolls?limit=2", nil), 200)
	refused(t, h.as("aud", "GET", "/v1/rolls?state=cancelled&cursor="+page.NextCursor, nil), 400, api.ProblemCodeBadCursor)
	// A cursor of the right form whose id no list of ours can give.
	forged := api.WriteCursor(api.Position{At: someTime, ID: "42"}, "rolls", "", "", "", "", "", "", "")
	refused(t, h.as("aud", "GET", "/v1/rolls?cursor="+forged, nil), 400, api.ProblemCodeBadCursor)
}
