package api_test

import (
	"strings"
	"testing"

	"github.com/keyroll/keyroll/internal/api"
)

// A declaration that weakens is answered with what waits, and takes effect by
// the second person's call.
func TestTenantChange(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.declare()
	weak := contoso()
	weak.Approval, weak.Vetoes = "not_required", api.Vetoes{"rotation_policy_expiry": "warning", "software_key": "error"}
	rec := h.as("ada", "PUT", tenantPath, weak, "If-Match", `"1"`)
	c := answer[api.TenantChange](t, rec, 202)
	at := tenantPath + "/changes/" + c.ID
	if rec.Header().Get("Location") != at || len(c.Weakens) != 2 || c.Weakens[0].Pointer != "/approval" || c.RequestedBy != "ada@contoso.com" || !strings.Contains(c.NextAction, at+"/approve") {
		t.Errorf("it waits as %v %+v", rec.Header(), c)
	}
	if now := answer[api.Tenant](t, h.as("aud", "GET", tenantPath, nil), 200); now.Version != 1 || now.Declaration.Approval != "required" {
		t.Errorf("the tenant is %+v", now)
	}
	yes := `{"hash":"` + c.Hash + `"}`
	refused(t, h.as("ada", "POST", at+"/approve", yes), 403, api.ProblemCodeSamePerson)
	refused(t, h.as("robot", "POST", at+"/approve", yes), 403, api.ProblemCodeForbidden)
	refused(t, h.as("paul", "POST", at+"/approve", yes), 403, api.ProblemCodeForbidden)
	refused(t, h.as("bea", "POST", at+"/approve", `{"hash":"`+someHash+`"}`), 422, api.ProblemCodeUnprocessable)
	done := answer[api.Tenant](t, h.as("bea", "POST", at+"/approve", yes), 200)
	if done.Version != 2 || done.Declaration.Approval != "not_required" || done.Declaration.Vetoes["software_key"] != "error" {
		t.Errorf("confirmed: %+v", done)
	}
	refused(t, h.as("bea", "POST", at+"/reject", why), 409, api.ProblemCodeWrongState)
	read := answer[api.TenantChange](t, h.as("aud", "GET", at, nil), 200)
	list := answer[api.TenantChangeList](t, h.as("aud", "GET", tenantPath+"/changes?state=approved", nil), 200)
	if read.State != "approved" || read.DecidedBy != "bea@contoso.com" || len(list.Items) != 1 || list.Items[0].ID != c.ID {
		t.Errorf("read: %+v, listed %d", read, len(list.Items))
	}
	// Two wait, one is confirmed: the other is overtaken.
	for _, name := range []string{"one", "two"} {
		weak.Credential, weak.Name, weak.Vetoes = "contoso", name, nil
		weak.SharePoint.Lease = "geo"
		answer[api.TenantChange](t, h.as("ada", "PUT", tenantPath, weak, "If-Match", `"2"`), 202)
	}
	waiting := answer[api.TenantChangeList](t, h.as("aud", "GET", tenantPath+"/changes?state=pending&limit=1", nil), 200)
	rest := answer[api.TenantChangeList](t, h.as("aud", "GET", tenantPath+"/changes?state=pending&limit=1&cursor="+waiting.NextCursor, nil), 200)
	for i, want := range []struct {
		c      api.TenantChange
		status int
	}{{waiting.Items[0], 200}, {rest.Items[0], 409}} {
		rec := h.as("bea", "POST", tenantPath+"/changes/"+want.c.ID+"/approve", `{"hash":"`+want.c.Hash+`"}`)
		if rec.Code != want.status {
			t.Errorf("change %d answers %d: %s", i, rec.Code, rec.Body)
		}
		if want.status == 409 {
			refused(t, rec, 409, api.ProblemCodeChangeStale)
		}
	}
	refused(t, h.as("aud", "GET", "/v1/tenants/"+someTenant+"/changes", nil), 404, api.ProblemCodeNotFound)
	refused(t, h.as("aud", "GET", "/v1/tenants/"+someTenant+"/changes/"+c.ID, nil), 404, api.ProblemCodeNotFound)
}
