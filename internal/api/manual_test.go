package api_test

import (
	"strconv"
	"strings"
	"testing"

	"github.com/keyroll/keyroll/internal/api"
	"github.com/keyroll/keyroll/internal/sim"
)

// byHand declares Contoso with Exchange refreshed by hand, which takes two people.
func (h *house) byHand() {
	h.t.Helper()
	d := contoso()
	d.Transports.Exchange = "manual"
	c := answer[api.TenantChange](h.t, h.as("ada", "PUT", tenantPath, d, "If-None-Match", "*"), 202)
	answer[api.Tenant](h.t, h.as("bea", "POST", tenantPath+"/changes/"+c.ID+"/approve", `{"hash":"`+c.Hash+`"}`), 200)
}

// TestManualStep: the roll shows the line, a person runs it and says so, and
// nobody else's word is taken.
func TestManualStep(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.byHand()
	tenant := answer[api.Tenant](t, h.as("aud", "GET", tenantPath, nil), 200)
	got := map[string]string{}
	for _, p := range tenant.Transports {
		got[p.Place] = string(p.Transport) + " read by " + string(p.Reads)
		if p.Why == "" || p.ProbedAt.IsZero() || p.Documented != (p.Transport == "manual") {
			t.Errorf("transport %+v", p)
		}
	}
	if got["exchange"] != "manual read by invoke_command" || got["sharepoint/NAM"] != "csom read by csom" || tenant.Declaration.Transports.Exchange != "manual" {
		t.Errorf("transports %v, declared %+v", got, tenant.Declaration.Transports)
	}
	r := h.request(policies("exo-na"))
	h.approve(r.ID)
	h.work()
	r = h.await(r.ID, "at its manual step", func(r api.Roll) bool { return manualStep(r) != nil })
	s := manualStep(r)
	guid := contoso().Policies[1].GUID
	if s.Manual.Line != "Set-DataEncryptionPolicy -Identity "+guid+" -Refresh -Confirm:$false" || s.Transport != "manual" || !strings.Contains(r.NextAction, s.Manual.Line) {
		t.Errorf("shown %+v, next action %q", s.Manual, r.NextAction)
	}
	report := "/steps/" + strconv.Itoa(s.N) + "/report"
	const done = `{"outcome":"done","note":"as shown"}`
	refused(t, h.as("robot", "POST", rollPath(r.ID)+report, done), 403, api.ProblemCodeForbidden)
	refused(t, h.as("paul", "POST", rollPath(r.ID)+report, done), 403, api.ProblemCodeForbidden)
	refused(t, h.as("olga", "POST", rollPath(r.ID)+"/steps/1/report", done), 409, api.ProblemCodeWrongState)
	refused(t, h.as("olga", "POST", rollPath(r.ID)+"/steps/99/report", done), 404, api.ProblemCodeNotFound)
	refused(t, h.as("olga", "POST", rollPath(r.ID)+report, `{"outcome":"done","ran_at":"2020-01-01T00:00:00Z"}`), 422, api.ProblemCodeUnprocessable)
	refused(t, h.as("olga", "POST", rollPath(r.ID)+report, `{"outcome":"perhaps"}`), 400, api.ProblemCodeInvalidRequest)
	refused(t, h.as("rita", "POST", rollPath(r.ID)+"/replan", nil), 409, api.ProblemCodeWrongState)
	if err := h.sim.World.RefreshByHand(sim.ContosoTenant, guid); err != nil {
		t.Fatal(err)
	}
	answer[api.Roll](t, h.as("olga", "POST", rollPath(r.ID)+report, done), 200)
	r = h.awaitState(r.ID, api.RollStateSucceeded)
	if r.Outcome != api.EvidenceAttested || !strings.Contains(r.Policies[0].EvidenceSource, "olga@contoso.com") {
		t.Errorf("outcome %s, evidence from %q", r.Outcome, r.Policies[0].EvidenceSource)
	}
	said := false
	for _, e := range answer[api.RollEventList](t, h.as("aud", "GET", rollPath(r.ID)+"/events?limit=100", nil), 200).Items {
		for _, typ := range e.Types {
			said = said || typ == "manual_step_reported" && e.Actor == "olga@contoso.com"
		}
	}
	if !said {
		t.Error("the audit log does not name who reported")
	}
	// Said once, it is said.
	refused(t, h.as("rita", "POST", rollPath(r.ID)+report, done), 409, api.ProblemCodeWrongState)
}

func manualStep(r api.Roll) *api.Step {
	for _, s := range r.Steps {
		if s.WaitingFor == "manual_step" {
			return &s
		}
	}
	return nil
}
