package sim_test

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/keyroll/keyroll/internal/sim"
)

const secondDEP = "11111111-2222-4333-8444-555555555555"

func values(r response) []map[string]any {
	list, _ := r.json["value"].([]any)
	var out []map[string]any
	for _, v := range list {
		out = append(out, v.(map[string]any))
	}
	return out
}

func TestAssignmentIsAnEffect(t *testing.T) {
	b := start(t)
	second := sim.Policy{Name: "Second", GUID: secondDEP, Workload: sim.WorkloadMulti}
	if err := b.w.PutPolicy(tenantID, second); err != nil {
		t.Fatal(err)
	}
	assigned := func() any { return values(b.cmdlet(sim.OpGetM365Assignment, nil))[0]["Guid"] }
	if got := assigned(); got != m365DEP {
		t.Fatalf("at the beginning %v", got)
	}
	for name, params := range map[string]map[string]any{
		"unknown policy": {"DataEncryptionPolicy": "none"}, "no policy": {}, "an Exchange policy": {"DataEncryptionPolicy": exoDEP},
		"unknown parameter": {"DataEncryptionPolicy": "Second", "Identity": "x"}} {
		if r := b.cmdlet(sim.OpSetM365Assignment, params); r.status < 400 {
			t.Errorf("%s: %d", name, r.status)
		}
	}
	if r := b.cmdlet(sim.OpSetM365Assignment, map[string]any{"DataEncryptionPolicy": "Second"}); r.status != 200 || assigned() != secondDEP {
		t.Errorf("%d %s, assigned %v", r.status, r.raw, assigned())
	}
	applied := 0
	for _, e := range b.w.Witness() {
		if e.Operation == sim.OpSetM365Assignment && e.Applied {
			applied++
			if e.Target != secondDEP || e.End.IsZero() {
				t.Errorf("witness: %+v", e)
			}
		}
	}
	if applied != 1 {
		t.Errorf("%d assignments in the witness log", applied)
	}
	yes := true
	if err := b.w.SetExchange(sim.ExchangeSettings{Tenant: "contoso.com", AssignmentByName: &yes}); err != nil {
		t.Fatal(err)
	}
	if o := values(b.cmdlet(sim.OpGetM365Assignment, nil))[0]; o["DataEncryptionPolicy"] != "Second" || o["Guid"] == secondDEP {
		t.Errorf("by name: %v", o)
	}
}

func TestPolicyTest(t *testing.T) {
	b := start(t)
	test := func(identity string) response {
		return b.cmdlet(sim.OpTestM365DEP, map[string]any{"Identity": identity})
	}
	if got := values(test(m365DEP)); len(got) != 1 || got[0]["Result"] != "Success" || got[0]["Guid"] != m365DEP {
		t.Errorf("healthy: %v", got)
	}
	if err := b.w.SetPermission(sim.Permission{Tenant: tenantID, Service: map[string]bool{"contoso-m365-b": false}}); err != nil {
		t.Fatal(err)
	}
	if got := values(test("Contoso_Global")); len(got) != 1 || got[0]["Result"] != "Failure" || !strings.Contains(got[0]["Detail"].(string), "contoso-m365-b") {
		t.Errorf("vault denied: %v", got)
	}
	odd := sim.Policy{Name: "Second", GUID: secondDEP, Workload: sim.WorkloadMulti, Test: &sim.PolicyTest{Result: "Partly", Detail: "hm"}}
	if err := b.w.PutPolicy(tenantID, odd); err != nil {
		t.Fatal(err)
	}
	if got := values(test(secondDEP)); len(got) != 1 || got[0]["Result"] != "Partly" || got[0]["Detail"] != "hm" {
		t.Errorf("by the seed: %v", got)
	}
	if got := values(test("no such policy")); len(got) != 2 {
		t.Errorf("an unknown identity is all policies: %v", got)
	}
	yes := true
	if err := b.w.SetExchange(sim.ExchangeSettings{Tenant: tenantID, NoTestCmdlet: &yes}); err != nil {
		t.Fatal(err)
	}
	if r := test(m365DEP); r.status != 403 || !bytes.Equal(r.raw, make([]byte, 64)) {
		t.Errorf("without the cmdlet: %d %q", r.status, r.raw)
	}
}

func TestExchangeOddities(t *testing.T) {
	b := start(t, func(s *sim.Seed) {
		e := &s.Tenants[0].Exchange
		e.Warnings, e.WarningsInHeader, e.RateLimit, e.NULBodyGzip = []string{"slow", "slower"}, true, 3, true
	})
	b.client.Transport.(*http.Transport).DisableCompression = true
	set := map[string]any{"Identity": exoDEP, "Refresh": true, "Confirm": false}
	r := b.cmdlet(sim.OpSetDEP, set)
	if list, _ := r.json["@adminapi.warnings"].([]any); r.status != 200 || len(list) != 0 || strings.Join(r.header.Values("X-Warnings"), "|") != "slow|slower" {
		t.Errorf("warnings: %d %v %s", r.status, r.header, r.raw)
	}
	for want := range strings.FieldsSeq("1 0 0") {
		r = b.cmdlet(sim.OpGetDEP, nil)
		if h := r.header; h.Get("Rate-Limit-Limit") != "3" || h.Get("Rate-Limit-Remaining") != want || h.Get("Rate-Limit-Reset") != "2026-11-23T12:05:00Z" || r.status != 200 {
			t.Errorf("budget %s: %d %v", want, r.status, h)
		}
	}
	if r = b.cmdlet("Get-Everything", nil); r.status != 403 || r.header.Get("Content-Encoding") != "gzip" || !bytes.Equal(r.raw, make([]byte, 64)) {
		t.Errorf("unknown cmdlet: %d %v %q", r.status, r.header, r.raw)
	}
	for _, tc := range []struct {
		code   string
		status int
		want   string
	}{
		{sim.CodeNoRole, 0, "\x00\x00\x00\x00"},
		{sim.CodeConcurrency, 400, "You have reached the maximum number of concurrent requests per tenant. Please wait and try again"},
		{sim.CodeConcurrency, 200, "You have reached the maximum number"},
		{"CmdletProxyNotAvailableFailure", 400, "|CmdletProxyNotAvailableFailure|"},
	} {
		if _, err := b.w.AddFault(sim.Fault{Service: sim.ServiceExchange, Mode: sim.ModeRefuse, Count: 1, Params: sim.FaultParams{Status: tc.status, Code: tc.code}}); err != nil {
			t.Fatal(err)
		}
		if r := b.cmdlet(sim.OpGetDEP, nil); !strings.Contains(string(r.raw), tc.want) || tc.status != 0 && r.status != tc.status {
			t.Errorf("%s: %d %q", tc.code, r.status, r.raw)
		}
	}
}

func TestExchangeRedirects(t *testing.T) {
	const regional, evil = "eurprd01.prod.outlook.com", "outlook.evil.example"
	b := start(t)
	b.client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	redirectTo := func(host string) {
		t.Helper()
		if err := b.w.SetExchange(sim.ExchangeSettings{Tenant: tenantID, RedirectHost: &host}); err != nil {
			t.Fatal(err)
		}
	}
	post := func(host string) response {
		body, _ := json.Marshal(map[string]any{"CmdletInput": map[string]any{"CmdletName": sim.OpGetDEP, "Parameters": map[string]any{}}})
		return b.send(http.MethodPost, "https://"+host+"/adminapi/beta/"+tenantID+"/InvokeCommand", string(body), "Authorization", "Bearer "+b.token(exoScope))
	}
	redirectTo(regional)
	r := post("outlook.office365.com")
	if want := "https://" + regional + ":446/adminapi/beta/" + tenantID + "/InvokeCommand"; r.status != 302 || r.header.Get("Location") != want {
		t.Errorf("got %d to %s, want %s", r.status, r.header.Get("Location"), want)
	}
	if n := b.w.Requests(sim.ServiceExchange, sim.OpGetDEP); n != 0 {
		t.Errorf("%d cmdlets ran at the host that redirects", n)
	}
	if r := post(regional); r.status != 200 || len(values(r)) != 1 {
		t.Errorf("at the regional host: %d %s", r.status, r.raw)
	}
	redirectTo(evil)
	if r := post("outlook.office365.com"); !strings.HasPrefix(r.header.Get("Location"), "https://"+evil+":446/") {
		t.Errorf("astray: %d %v", r.status, r.header)
	}
	post(evil)
	if v := b.w.Violations(); len(v) != 1 || v[0].Operation != sim.OpRedirected || !strings.Contains(v[0].Detail, "gave the token away") {
		t.Errorf("violations: %+v", v)
	}
	for _, bad := range []string{"host:446", "https://x", "Host.example"} {
		if err := b.w.SetExchange(sim.ExchangeSettings{Tenant: tenantID, RedirectHost: &bad}); err == nil {
			t.Errorf("redirect host %q was taken", bad)
		}
	}
	rec := httptest.NewRecorder()
	b.w.ControlHandler().ServeHTTP(rec, httptest.NewRequest(http.MethodPost, "/exchange/settings", strings.NewReader(`{"tenant":"contoso.com","redirect_host":""}`)))
	if r := post("outlook.office365.com"); rec.Code != 204 || r.status != 200 {
		t.Errorf("over the control API: %d, then %d", rec.Code, r.status)
	}
}
