package api_test

import (
	"net/http/httptest"
	"time"

	"github.com/google/uuid"

	"github.com/keyroll/keyroll/internal/api"
	"github.com/keyroll/keyroll/internal/sim"
)

const tenantPath = "/v1/tenants/" + sim.ContosoTenant

// contoso is the declaration that fits the simulators' seed.
func contoso() api.TenantDeclaration {
	guid := map[string]string{}
	for _, p := range sim.ContosoSeed().Tenants[0].Exchange.Policies {
		guid[p.Name] = p.GUID
	}
	key := func(id, vault, name string) api.Key {
		return api.Key{ID: id, VaultURL: "https://" + vault + ".vault.azure.net", Name: name}
	}
	return api.TenantDeclaration{
		Name: "Contoso", Cloud: "public", Credential: "contoso", Labels: map[string]string{"tier": "gold"},
		SharePoint: api.SharePointSettings{MinGap: "0s", Geos: []api.Geo{{ID: "NAM", AdminURL: "https://contoso-admin.sharepoint.com"}}},
		Keys: []api.Key{
			key("m-a", "contoso-m365-a", "Contoso-M365-A-Key001"), key("m-b", "contoso-m365-b", "Contoso-M365-B-Key001"),
			key("exo-a", "contoso-exo-a", "Contoso-EXO-A-Key001"), key("exo-b", "contoso-exo-b", "Contoso-EXO-B-Key001"),
			key("spo-a", "contoso-spo-a", "Contoso-SPO-A-Key001"), key("spo-b", "contoso-spo-b", "Contoso-SPO-B-Key001"),
		},
		Policies: []api.Policy{
			{ID: "global", Workload: "multi-workload", Name: "Contoso_Global", GUID: guid["Contoso_Global"], Keys: []string{"m-a", "m-b"}},
			{ID: "exo-na", Workload: "exchange", Name: "NA Mailboxes", GUID: guid["NA Mailboxes"], Keys: []string{"exo-a", "exo-b"}},
			{ID: "spo", Workload: "sharepoint", Geo: "NAM", Primary: "spo-a", Secondary: "spo-b"},
		},
	}
}

// declare declares Contoso.
func (h *house) declare() api.Tenant {
	h.t.Helper()
	return answer[api.Tenant](h.t, h.as("ada", "PUT", tenantPath, contoso(), "If-None-Match", "*"), 201)
}

// body is a roll request.
func body(more map[string]any) map[string]any {
	out := map[string]any{"tenant_id": sim.ContosoTenant, "reason": map[string]any{"code": "compliance_requirement", "text": "annual, control 8.24"}}
	for k, v := range more {
		out[k] = v
	}
	return out
}

func policies(ids ...string) map[string]any { return body(map[string]any{"policies": ids}) }

func keys(ids ...string) map[string]any {
	var list []any
	for _, id := range ids {
		list = append(list, map[string]any{"id": id})
	}
	return body(map[string]any{"keys": list})
}

// request asks for a roll in rita's name.
func (h *house) request(body any) api.Roll {
	h.t.Helper()
	return answer[api.Roll](h.t, h.send("rita", body, uuid.NewString()), 202)
}

func (h *house) send(who string, body any, key string) *httptest.ResponseRecorder {
	h.t.Helper()
	return h.as(who, "POST", "/v1/rolls", body, "Idempotency-Key", key)
}

func rollPath(id string) string { return "/v1/rolls/" + id }

func (h *house) get(id string) api.Roll {
	h.t.Helper()
	return answer[api.Roll](h.t, h.as("aud", "GET", rollPath(id), nil), 200)
}

// approve approves the roll as it stands, in paul's name.
func (h *house) approve(id string) api.Roll {
	h.t.Helper()
	r := h.get(id)
	return answer[api.Roll](h.t, h.as("paul", "POST", rollPath(id)+"/approve", map[string]any{"plan_hash": r.PlanHash}, "If-Match", tag(r)), 200)
}

func tag(r api.Roll) string { return api.FormatETag(r.Version) }

// await reads the roll until cond holds.
func (h *house) await(id, what string, cond func(api.Roll) bool) api.Roll {
	h.t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	limit := time.After(30 * time.Second)
	for {
		r := h.get(id)
		if cond(r) {
			return r
		}
		select {
		case <-tick.C:
		case <-limit:
			h.t.Fatalf("the roll never was %s: %+v", what, r)
		}
	}
}

func (h *house) awaitState(id string, s api.RollState) api.Roll {
	h.t.Helper()
	return h.await(id, string(s), func(r api.Roll) bool { return r.State == s })
}
