package api_test

import (
	"context"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/google/go-cmp/cmp"

	"github.com/keyroll/keyroll"
	"github.com/keyroll/keyroll/internal/access"
	"github.com/keyroll/keyroll/internal/api"
	"github.com/keyroll/keyroll/internal/roll"
	"github.com/keyroll/keyroll/internal/store"
)

const (
	tenantBody = `{"name":"Contoso","cloud":"public","credential":"contoso","keys":[],"policies":[]}`
	rollBody   = `{"tenant_id":"` + someTenant + `","policies":["spo"],"keys":[{"type":"root","id":"exo-a","version":"new","key_not_before":null}],` +
		`"reason":{"code":"compliance_requirement","text":"annual, control 8.24","ticket":{"source":"servicenow","id":"CHG0031337"}},"start_at":null,"plan_hash":"` + someHash + `"}`
	reasonBody = `{"reason":"the change was withdrawn"}`
)

// goodRequests has one request for each operation that the contract takes.
func goodRequests() map[string][]string {
	rollPath, tenantPath := "/v1/rolls/"+someRoll, "/v1/tenants/"+someTenant
	return map[string][]string{
		"listTenants":            {"GET", "/v1/tenants?limit=10&include_retired=true", ""},
		"getTenant":              {"GET", tenantPath, ""},
		"putTenant":              {"PUT", tenantPath, tenantBody, "If-None-Match", "*"},
		"retireTenant":           {"POST", tenantPath + "/retire", reasonBody},
		"discoverTenant":         {"POST", tenantPath + "/discover", ""},
		"getTenantChecklist":     {"GET", tenantPath + "/checklist", ""},
		"getTenantDrift":         {"GET", tenantPath + "/drift", ""},
		"listKeyVersions":        {"GET", tenantPath + "/key-versions?key=spo-a&state=enabled", ""},
		"listTenantChanges":      {"GET", tenantPath + "/changes?state=pending", ""},
		"getTenantChange":        {"GET", tenantPath + "/changes/" + someRoll, ""},
		"approveTenantChange":    {"POST", tenantPath + "/changes/" + someRoll + "/approve", `{"hash":"` + someHash + `","comment":"agreed"}`},
		"rejectTenantChange":     {"POST", tenantPath + "/changes/" + someRoll + "/reject", reasonBody},
		"listBackups":            {"GET", tenantPath + "/backups?limit=5", ""},
		"attestBackup":           {"POST", tenantPath + "/backups", `{"vault_url":"https://contoso-exo-a.vault.azure.net","key":"exo-a","taken_at":"2026-01-31T08:00:00Z","note":"safe"}`},
		"releaseSharePointLease": {"POST", tenantPath + "/sharepoint-lease/release", `{"reason":"the operation ended","scope":"geo:NAM"}`},
		"createPlan":             {"POST", "/v1/plans", `{"tenant_id":"` + someTenant + `","policies":["spo"]}`},
		"createRoll":             {"POST", "/v1/rolls", rollBody, "Idempotency-Key", "k-1"},
		"listRolls": {"GET", "/v1/rolls?limit=100&tenant_id=" + someTenant + "&state=running&key=spo-a&ticket=CHG1&actor=alice%40contoso.com" +
			"&since=2026-01-01T00:00:00Z&until=2026-02-01T00:00:00%2B01:00", ""},
		"getRoll":         {"GET", rollPath, ""},
		"listRollEvents":  {"GET", rollPath + "/events", ""},
		"approveRoll":     {"POST", rollPath + "/approve", `{"plan_hash":"` + someHash + `","comment":"fine"}`, "If-Match", `"7"`},
		"rejectRoll":      {"POST", rollPath + "/reject", reasonBody, "If-Match", `"7"`},
		"cancelRoll":      {"POST", rollPath + "/cancel", reasonBody},
		"retryRoll":       {"POST", rollPath + "/retry", ""},
		"reportStep":      {"POST", rollPath + "/steps/3/report", `{"outcome":"done","note":"as shown","ran_at":"2026-01-31T08:00:00Z"}`},
		"replanRoll":      {"POST", rollPath + "/replan", `{"strangers":"adopt"}`},
		"abandonRoll":     {"POST", rollPath + "/abandon", reasonBody},
		"getRollEvidence": {"GET", rollPath + "/evidence", ""},
		"exportRolls":     {"GET", "/v1/exports/rolls?state=succeeded&since=2026-01-01T00:00:00Z", ""},
		"exportAudit":     {"GET", "/v1/exports/audit?tenant_id=" + someTenant + "&roll_id=" + someRoll, ""},
		"exportKeyAges":   {"GET", "/v1/exports/key-ages?not_rolled_for_days=365", ""},
		"listKeyAges":     {"GET", "/v1/reports/key-ages?not_rolled_for_days=365&limit=10", ""},
		"getHealth":       {"GET", "/healthz?probe=1", ""},
		"getReadiness":    {"GET", "/readyz", ""},
		"getMetrics":      {"GET", "/metrics", ""},
		"getContract":     {"GET", "/openapi.yaml", ""},
	}
}

func eachOperation(t *testing.T, f func(method, path string, op *openapi3.Operation)) {
	t.Helper()
	doc, _ := loadContract(t)
	for path, item := range doc.Paths.Map() {
		for method, op := range item.Operations() {
			f(method, path, op)
		}
	}
}

// Every route of the contract is served, and answers as the contract says.
func TestEveryRouteIsServed(t *testing.T) {
	requests, b := goodRequests(), newBench(t)
	eachOperation(t, func(_, _ string, op *openapi3.Operation) {
		t.Run(op.OperationID, func(t *testing.T) {
			q, ok := requests[op.OperationID]
			if !ok {
				t.Fatal("goodRequests has no request for it")
			}
			if rec := b.call(q[0], q[1], q[2], q[3:]...); rec.Code >= 300 {
				t.Errorf("status %d: %s", rec.Code, rec.Body)
			}
		})
	})
}

func TestContractIsServedAsItIs(t *testing.T) {
	rec := newBench(t).call("GET", "/openapi.yaml", "", "Authorization", "")
	if !slices.Equal(rec.Body.Bytes(), keyroll.OpenAPI) {
		t.Error("/openapi.yaml is not the contract")
	}
}

// What every route owes its clients.
func TestEveryOperationIsComplete(t *testing.T) {
	eachOperation(t, func(method, path string, op *openapi3.Operation) {
		if op.Summary == "" || len(op.Tags) == 0 {
			t.Errorf("%s: summary or tags missing", op.OperationID)
		}
		statuses := []string{"500"}
		if strings.HasPrefix(path, "/v1/") {
			statuses = append(statuses, "400", "401", "403", "503")
		}
		if op.RequestBody != nil {
			statuses = append(statuses, "413", "415")
		}
		if strings.Contains(path, "{") && method != http.MethodPut {
			statuses = append(statuses, "404")
		}
		for _, s := range statuses {
			if op.Responses.Value(s) == nil {
				t.Errorf("%s: no response %s", op.OperationID, s)
			}
		}
		for status, ref := range op.Responses.Map() {
			if ref.Value.Headers["X-Request-Id"] == nil {
				t.Errorf("%s %s: no X-Request-Id", op.OperationID, status)
			}
		}
	})
}

// The document is valid OpenAPI 3.1, its examples included.
func TestContractIsValid(t *testing.T) {
	doc, err := openapi3.NewLoader().LoadFromData(keyroll.OpenAPI)
	if err != nil {
		t.Fatal(err)
	}
	if doc.OpenAPI != "3.1.0" {
		t.Errorf("openapi: %s", doc.OpenAPI)
	}
	if err := doc.Validate(context.Background()); err != nil {
		t.Error(err)
	}
}

// Objects of the contract are closed, but for the few whose members are free.
func TestSchemasAreClosed(t *testing.T) {
	doc, _ := loadContract(t)
	for name, ref := range doc.Components.Schemas {
		s := ref.Value
		typed := s.AdditionalProperties.Schema != nil && s.MaxProps != nil // a map, of what the contract says
		if s.Type.Includes("object") && !typed && (s.AdditionalProperties.Has == nil || *s.AdditionalProperties.Has) {
			t.Errorf("schema %s is open", name)
		}
		for member, m := range s.Properties {
			if m.Value.Description == "" && m.Ref == "" && s.Description == "" {
				t.Errorf("%s.%s: nothing says what it is", name, member)
			}
		}
	}
}

// A closed list of words in the contract is the list that the code keeps.
func TestWordsAreThoseOfTheCode(t *testing.T) {
	doc, _ := loadContract(t)
	for name, want := range map[string][]string{
		"RollState":         words(roll.States()),
		"StepState":         words(roll.StepStates()),
		"StepKind":          words(roll.StepKinds()),
		"Workload":          words(roll.Workloads()),
		"Evidence":          words([]roll.Evidence{roll.Confirmed, roll.InUse, roll.Accepted, roll.Attested, roll.Unknown}),
		"ReasonCode":        roll.ReasonCodes(),
		"Slot":              words([]roll.Slot{roll.Primary, roll.Secondary}),
		"ProblemCode":       api.ProblemCodes(),
		"TenantChangeState": store.ChangeStates(),
		"FindingLevel":      words(roll.Levels()),
	} {
		var got []string
		for _, v := range doc.Components.Schemas[name].Value.Enum {
			got = append(got, v.(string))
		}
		slices.Sort(got)
		slices.Sort(want)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-code +contract):\n%s", name, diff)
		}
	}
}

func words[T ~string](in []T) []string {
	out := make([]string, len(in))
	for i, v := range in {
		out[i] = string(v)
	}
	return out
}

// Every action of the permission table stands at a route, and the other way round.
func TestEveryActionHasARoute(t *testing.T) {
	used := map[string]bool{}
	eachOperation(t, func(_, _ string, op *openapi3.Operation) {
		if name, ok := op.Extensions["x-keyroll-action"].(string); ok {
			used[name] = true
		}
	})
	for _, rule := range access.Rules() {
		if !used[string(rule.Action)] {
			t.Errorf("no route is for %s", rule.Action)
		}
		delete(used, string(rule.Action))
	}
	if len(used) > 0 {
		t.Errorf("the table does not know %v", used)
	}
}
