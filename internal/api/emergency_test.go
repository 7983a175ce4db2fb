package api_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/keyroll/keyroll/internal/api"
)

// A declaration's calendar is shown as it was given, and one that says nothing
// useful is refused at its member.
func TestCalendarOfADeclaration(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	first := h.declare()
	with := func(list ...any) api.TenantDeclaration {
		d := contoso()
		for _, item := range list {
			switch v := item.(type) {
			case api.Window:
				d.Windows = append(d.Windows, v)
			case api.Freeze:
				d.Freezes = append(d.Freezes, v)
			}
		}
		return d
	}
	w := api.Window{Days: []api.WindowDays{"sat", "sun"}, Start: "22:00", Duration: "8h", Zone: "Europe/Berlin"}
	f := api.Freeze{From: time.Now().UTC().Truncate(time.Second), To: time.Now().Add(time.Hour).UTC().Truncate(time.Second), Reason: "year-end"}
	bad := w
	bad.Zone = "Mars/Olympus"
	short := w
	short.Duration = "10s"
	back := f
	back.From, back.To = f.To, f.From
	for pointer, item := range map[string]any{"/windows/0/zone": bad, "/windows/0/duration": short, "/freezes/0/to": back} {
		p := refused(t, h.as("ada", "PUT", tenantPath, with(item), "If-Match", api.FormatETag(first.Version)), 422, api.ProblemCodeUnprocessable)
		if len(p.Errors) != 1 || p.Errors[0].Pointer != pointer {
			t.Errorf("%s: %+v", pointer, p.Errors)
		}
	}
	refused(t, h.as("ada", "PUT", tenantPath, strings.Replace(asJSON(t, with(w)), "sat", "Sat", 1), "If-Match", api.FormatETag(first.Version)), 400, api.ProblemCodeInvalidRequest)
	done := answer[api.Tenant](t, h.as("ada", "PUT", tenantPath, with(w, f), "If-Match", api.FormatETag(first.Version)), 200)
	if got := done.Declaration; len(got.Windows) != 1 || got.Windows[0].Duration != "8h0m0s" || len(got.Freezes) != 1 || got.Freezes[0] != f {
		t.Errorf("declared %+v %+v", got.Windows, got.Freezes)
	}
}

// An emergency shows itself everywhere, and takes two people.
func TestEmergency(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.declare()
	want := body(map[string]any{"policies": []string{"spo"}, "emergency": map[string]any{"reason": "a key may be in the wrong hands"}})
	refused(t, h.send("rita", body(map[string]any{"policies": []string{"spo"}, "emergency": map[string]any{"reason": ""}}), uuid.NewString()), 400, api.ProblemCodeInvalidRequest)
	plan := answer[api.Plan](t, h.as("rita", "POST", "/v1/plans", want), 200)
	ordinary := answer[api.Plan](t, h.as("rita", "POST", "/v1/plans", policies("spo")), 200)
	if !plan.Emergency || ordinary.Emergency || plan.Hash == ordinary.Hash {
		t.Fatalf("plans %v %v", plan.Emergency, ordinary.Emergency)
	}
	want["plan_hash"] = plan.Hash
	r := answer[api.Roll](t, h.send("rex", want, uuid.NewString()), 202)
	if !r.Emergency || r.EmergencyReason == "" || r.ApprovalsNeeded != 2 || !strings.Contains(r.NextAction, "two people") || !strings.Contains(r.NextAction, "0 of 2") {
		t.Fatalf("made %+v: %q", r.Emergency, r.NextAction)
	}
	approve := rollPath(r.ID) + "/approve"
	good := map[string]any{"plan_hash": r.PlanHash}
	refused(t, h.as("rex", "POST", approve, good, "If-Match", tag(r)), 403, api.ProblemCodeSamePerson)
	r = answer[api.Roll](t, h.as("paul", "POST", approve, good, "If-Match", tag(r)), 200)
	if r.State != api.RollStateAwaitingApproval || len(r.Approvals) != 1 || !strings.Contains(r.NextAction, "1 of 2") {
		t.Fatalf("%s after one approval: %q", r.State, r.NextAction)
	}
	if again := answer[api.Roll](t, h.as("paul", "POST", approve, good, "If-Match", tag(r)), 200); again.Version != r.Version || len(again.Approvals) != 1 {
		t.Errorf("approved twice by one person: version %d, %d approvals", again.Version, len(again.Approvals))
	}
	list := answer[api.RollList](t, h.as("aud", "GET", "/v1/rolls", nil), 200)
	if len(list.Items) != 1 || !list.Items[0].Emergency {
		t.Errorf("the list does not show it: %+v", list.Items)
	}
	events := answer[api.RollEventList](t, h.as("aud", "GET", rollPath(r.ID)+"/events", nil), 200)
	if last := events.Items[len(events.Items)-1]; !strings.Contains(asJSON(t, last), "wrong hands") {
		t.Errorf("the audit log does not say why: %s", asJSON(t, last))
	}
}

func asJSON(t *testing.T, v any) string {
	t.Helper()
	raw, err := json.Marshal(v)
	must(t, err)
	return string(raw)
}
