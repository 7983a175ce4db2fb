package sim_test

import (
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/keyroll/keyroll/internal/sim"
)

// control calls the control API over plain HTTP.
func (b *bench) control(method, path, body string) (int, map[string]any) {
	b.t.Helper()
	req, err := http.NewRequestWithContext(b.t.Context(), method, b.srv.ControlURL+path, strings.NewReader(body))
	if err != nil {
		b.t.Fatal(err)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		b.t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	raw, err := io.ReadAll(res.Body)
	if err != nil {
		b.t.Fatal(err)
	}
	var out map[string]any
	_ = json.Unmarshal(raw, &out)
	return res.StatusCode, out
}

func TestControlRoutes(t *testing.T) {
	b := start(t)
	cert, _ := json.Marshal(string(appPair().cert))
	const key = `"vault":"contoso-exo-a","key":"Contoso-EXO-A-Key001"`
	for _, tc := range []struct {
		method, path, body string
		status             int
	}{
		{"GET", "/healthz", "", 200},
		{"GET", "/state", "", 200},
		{"GET", "/witness", "", 200},
		{"GET", "/faults", "", 200},
		{"POST", "/keys/stranger", "{" + key + `,"tags":{"a":"b"}}`, 201},
		{"POST", "/keys/disable", "{" + key + `,"version":"","enabled":false}`, 204},
		{"POST", "/keys/disable", `{"vault":"x","key":"y"}`, 404},
		{"POST", "/keys/soft-delete", "{" + key + "}", 204},
		{"POST", "/keys/rotation-policy", "{" + key + `,"policy":{"expiry_time":"P2Y"}}`, 204},
		{"POST", "/sharepoint/roll-by-hand", `{"tenant":"contoso.com","geo":"NAM","slot":"primary"}`, 204},
		{"POST", "/sharepoint/roll-by-hand", `{"tenant":"contoso.com","geo":"NAM","slot":"secondary"}`, 409},
		{"POST", "/sharepoint/settings", `{"tenant":"contoso.com","uri_change":"start","sites_per_second":10}`, 204},
		{"POST", "/sharepoint/settings", `{"tenant":"contoso.com","sites_per_second":0}`, 409},
		{"POST", "/permissions", `{"tenant":"contoso.com","keyvault":{"*":true},"exchange":"app_role","sharepoint":true,"service":{"contoso-exo-a":false}}`, 204},
		{"POST", "/permissions", `{"tenant":"contoso.com","exchange":"all"}`, 400},
		{"POST", "/policies", `{"tenant":"contoso.com","policy":{"name":"P","guid":"11111111-2222-4333-8444-555555555555","workload":"exchange","azure_key_ids":[]}}`, 204},
		{"POST", "/apps", `{"client_id":"11111111-2222-4333-8444-555555555555","certificate":` + string(cert) + `}`, 204},
		{"POST", "/trap", `{"on":true}`, 204},
		{"POST", "/advance", `{"seconds":10}`, 204},
		{"POST", "/advance", `{"seconds":-1}`, 409},
		{"POST", "/advance", `{"second":10}`, 400},
		{"POST", "/faults", `{"mode":"explode"}`, 400},
		{"DELETE", "/faults/f9", "", 404},
	} {
		if status, out := b.control(tc.method, tc.path, tc.body); status != tc.status {
			t.Errorf("%s %s %s: %d %v, want %d", tc.method, tc.path, tc.body, status, out, tc.status)
		}
	}
}

func TestControlFaults(t *testing.T) {
	b := start(t)
	b.token(vaultScope)
	status, f := b.control("POST", "/faults", `{"service":"keyvault","operation":"create_key","mode":"hold","count":1}`)
	id, _ := f["id"].(string)
	if status != 201 || id == "" {
		t.Fatalf("%d %v", status, f)
	}
	if status, _ = b.control("GET", "/faults/"+id+"?wait=1ms", ""); status != 408 {
		t.Errorf("not fired yet: %d", status)
	}
	done := make(chan int, 1)
	go func() { done <- b.tryCreate() }()
	if status, f = b.control("GET", "/faults/"+id+"?wait=30s&fired=1", ""); status != 200 || f["held"] != 1.0 {
		t.Errorf("%d %v", status, f)
	}
	if status, _ = b.control("POST", "/faults/"+id+"/release", ""); status != 204 || <-done != 200 {
		t.Errorf("release: %d", status)
	}
	if status, _ = b.control("DELETE", "/faults/"+id, ""); status != 204 {
		t.Errorf("delete: %d", status)
	}
	_, report := b.control("GET", "/witness", "")
	effects := report["effects"].([]any)
	tenant := report["tenants"].(map[string]any)[tenantID].(map[string]any)
	if len(effects) != 1 || effects[0].(map[string]any)["by"] != "api" ||
		tenant["versions_created"].(map[string]any)["contoso-spo-a/"+keyA] != 1.0 || tenant["overlaps"] != 0.0 {
		t.Errorf("witness: %v", report)
	}
	_, state := b.control("GET", "/state", "")
	if len(state["tenants"].([]any)[0].(map[string]any)["keys"].([]any)) != 6 {
		t.Errorf("state: %v", state)
	}
}

func TestAppAddedWhileRunning(t *testing.T) {
	b := start(t, func(s *sim.Seed) { s.Apps = nil })
	if r := b.askToken(tenantID); r.status != 400 {
		t.Errorf("before: %d", r.status)
	}
	if err := b.w.AllowCertificate(clientID, appPair().cert); err != nil {
		t.Fatal(err)
	}
	if r := b.create(vaultA, keyA); r.status != 200 {
		t.Errorf("after: %d %s", r.status, r.raw)
	}
}
