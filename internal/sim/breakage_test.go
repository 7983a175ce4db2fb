package sim_test

import (
	"encoding/base64"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/keyroll/keyroll/internal/sim"
)

func TestConnectionReset(t *testing.T) {
	for mode, made := range map[string]int{sim.ModeReset: 0, sim.ModeApplyAndReset: 1} {
		b := start(t)
		b.token(vaultScope)
		add(t, b, sim.Fault{Operation: sim.OpCreateKey, Mode: mode, Count: 1})
		// A connection of its own: nothing may be sent again behind our back.
		b.client.Transport.(*http.Transport).DisableKeepAlives = true
		_, err := b.try(http.MethodPost, vaultA+"/keys/"+keyA+"/create"+apiV, createBody, "Authorization", "Bearer "+b.token(vaultScope))
		if !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("%s: %v", mode, err)
		}
		if n := b.w.VersionsCreated("contoso-spo-a", keyA); n != made {
			t.Errorf("%s: %d versions made", mode, n)
		}
		if e := b.w.Witness()[0]; e.Answered || e.Applied != (made == 1) {
			t.Errorf("%s: %+v", mode, e)
		}
	}
	// The mode that closes does not reset.
	b := start(t)
	b.token(vaultScope)
	add(t, b, sim.Fault{Operation: sim.OpCreateKey, Mode: sim.ModeLoseBefore, Count: 1})
	if _, err := b.try(http.MethodPost, vaultA+"/keys/"+keyA+"/create"+apiV, createBody, "Authorization", "Bearer "+b.token(vaultScope)); !errors.Is(err, io.EOF) {
		t.Errorf("lose_before: %v", err)
	}
}

func TestHTMLPage(t *testing.T) {
	b := start(t)
	for service, ask := range map[string]func() response{
		sim.ServiceKeyVault: func() response { return b.create(vaultA, keyA) },
		sim.ServiceExchange: func() response { return b.cmdlet(sim.OpGetDEP, nil) },
		sim.ServiceSharePoint: func() response {
			return b.send(http.MethodPost, "https://contoso-admin.sharepoint.com/_api/contextinfo", "", "Authorization", "Bearer "+b.token(spoScope))
		},
		sim.ServiceEntra: func() response { return b.askToken(tenantID) },
	} {
		ask() // its token comes before the fault
		add(t, b, sim.Fault{Service: service, Mode: sim.ModeHTMLPage, Count: 1})
		r := ask()
		if r.status != 503 || !strings.HasPrefix(r.header.Get("Content-Type"), "text/html") || !strings.Contains(string(r.raw), "Service Unavailable</h2>") {
			t.Errorf("%s: %d %v %s", service, r.status, r.header, r.raw)
		}
	}
	add(t, b, sim.Fault{Mode: sim.ModeHTMLPage, Count: 1, Params: sim.FaultParams{Status: 200, Message: "<b>Sign in"}})
	if r := b.create(vaultA, keyA); r.status != 200 || !strings.Contains(string(r.raw), "&lt;b&gt;Sign in") {
		t.Errorf("status 200: %d %s", r.status, r.raw)
	}
	if n := b.w.VersionsCreated("contoso-spo-a", keyA); n != 1 {
		t.Errorf("%d versions made, one of them before the faults", n)
	}
}

func TestErrorIn200(t *testing.T) {
	b := start(t)
	add(t, b, sim.Fault{Service: sim.ServiceKeyVault, Operation: sim.OpCreateKey, Mode: sim.ModeErrorIn200, Count: 1, Params: sim.FaultParams{Code: "Conflict/Inner"}})
	add(t, b, sim.Fault{Service: sim.ServiceExchange, Operation: sim.OpSetDEP, Mode: sim.ModeErrorIn200, Count: 1})
	add(t, b, sim.Fault{Service: sim.ServiceSharePoint, Operation: sim.OpGetStatus, Mode: sim.ModeErrorIn200, Count: 1})
	if r := b.create(vaultA, keyA); r.status != 200 || r.path("error", "code") != "Conflict" || r.path("error", "innererror", "code") != "Inner" {
		t.Errorf("Key Vault: %d %s", r.status, r.raw)
	}
	if r := b.cmdlet(sim.OpSetDEP, map[string]any{"Identity": exoDEP, "Refresh": true, "Confirm": false}); r.status != 200 || r.path("error", "innererror", "internalexception", "type") == nil {
		t.Errorf("Exchange: %d %s", r.status, r.raw)
	}
	if r := b.query(statusXML); r.status != 200 || r.errType != "Microsoft.SharePoint.Client.ServerException" {
		t.Errorf("SharePoint: %+v", r)
	}
	for _, e := range b.w.Witness() {
		if e.Applied {
			t.Errorf("an error and yet applied: %+v", e)
		}
	}
	add(t, b, sim.Fault{Service: sim.ServiceEntra, Mode: sim.ModeErrorIn200, Count: 1})
	if r := b.askToken(tenantID); r.status != 200 || r.json["error"] == nil || r.json["access_token"] != nil {
		t.Errorf("Entra: %d %s", r.status, r.raw)
	}
}

func TestListingLag(t *testing.T) {
	b := start(t)
	listed := func() int {
		r := b.vault(http.MethodGet, vaultA+"/keys/"+keyA+"/versions"+apiV, "")
		return len(r.json["value"].([]any))
	}
	add(t, b, sim.Fault{Operation: sim.OpListVersions, Mode: sim.ModeListingLag, Params: sim.FaultParams{Seconds: 30}})
	made := b.create(vaultA, keyA).path("key", "kid")
	if got := listed(); got != 2 {
		t.Errorf("at once: %d versions", got)
	}
	if r := b.vault(http.MethodGet, vaultA+"/keys/"+keyA+apiV, ""); r.path("key", "kid") != made {
		t.Errorf("the key itself lags: %s", r.raw)
	}
	b.w.Advance(30 * time.Second)
	if got := listed(); got != 3 {
		t.Errorf("after 30 s: %d versions", got)
	}
	_ = b.w.RemoveFault("f1")
	add(t, b, sim.Fault{Operation: sim.OpListVersions, Mode: sim.ModeListingLag, Params: sim.FaultParams{Requests: 2}})
	b.create(vaultA, keyA)
	for i, want := range []int{3, 3, 4, 4} {
		if got := listed(); got != want {
			t.Errorf("list %d: %d versions, want %d", i, got, want)
		}
	}
}

func TestStatusRegress(t *testing.T) {
	b := start(t)
	b.query(statusXML)
	version := b.newVersion("contoso-spo-a", keyA)
	b.query(rollXML("0", "contoso-spo-a", keyA, version))
	b.w.Advance(1500 * time.Millisecond)
	b.query(statusXML)
	b.w.Advance(time.Hour)
	if s := b.query(statusXML).result; s["Status"] != 2.0 || !strings.HasSuffix(s["PrimaryKeyVaultUri"].(string), version) {
		t.Fatalf("at the end: %v", s)
	}
	add(t, b, sim.Fault{Mode: sim.ModeStatusRegress, Count: 1})
	add(t, b, sim.Fault{Mode: sim.ModeStatusRegress, After: 1, Count: 1, Params: sim.FaultParams{Back: 9}})
	if s := b.query(statusXML).result; s["Status"] != 3.0 || s["RegistrationProgress"] != 50.0 {
		t.Errorf("one change back: %v", s)
	}
	if s := b.query(statusXML).result; s["Status"] != 2.0 || strings.HasSuffix(s["PrimaryKeyVaultUri"].(string), version) {
		t.Errorf("as far back as it goes: %v", s)
	}
	if s := b.query(statusXML).result; s["Status"] != 2.0 || !strings.HasSuffix(s["PrimaryKeyVaultUri"].(string), version) {
		t.Errorf("after the fault: %v", s)
	}
}

func TestExpiredAndRevokedTokens(t *testing.T) {
	for _, tc := range []struct {
		mode   string
		second int // the status of the next call with the same token
	}{{sim.ModeExpireToken, 200}, {sim.ModeRevokeTokens, 401}} {
		b := start(t)
		old := b.token(vaultScope)
		add(t, b, sim.Fault{Service: sim.ServiceKeyVault, Mode: tc.mode, Count: 1})
		r := b.create(vaultA, keyA)
		if r.status != 401 || !strings.Contains(r.header.Get("WWW-Authenticate"), "resource=") || b.w.Witness()[0].Applied {
			t.Fatalf("%s: %d %v", tc.mode, r.status, r.header)
		}
		again := b.create(vaultA, keyA)
		if again.status != tc.second {
			t.Errorf("%s: the second call: %d", tc.mode, again.status)
		}
		if tc.second == 401 {
			_, claims, _ := strings.Cut(again.header.Get("WWW-Authenticate"), `claims="`)
			if raw, err := base64.StdEncoding.DecodeString(strings.Trim(claims, `"`)); err != nil || !strings.Contains(string(raw), "nbf") {
				t.Errorf("claims %q: %v", raw, err)
			}
			// Another service refuses the old ones too, in its own words.
			if r := b.cmdlet(sim.OpGetDEP, nil); r.status != 200 {
				t.Errorf("a token issued later: %d", r.status)
			}
		}
		delete(b.tokens, vaultScope)
		if b.token(vaultScope) == old {
			t.Fatal("no new token")
		}
		if r := b.create(vaultA, keyA); r.status != 200 {
			t.Errorf("%s: with a new token: %d %s", tc.mode, r.status, r.raw)
		}
	}
}

func TestRefusedTokenInEachService(t *testing.T) {
	b := start(t)
	b.cmdlet(sim.OpGetDEP, nil)
	b.query(statusXML)
	add(t, b, sim.Fault{Mode: sim.ModeExpireToken, Service: sim.ServiceExchange, Count: 1})
	add(t, b, sim.Fault{Mode: sim.ModeExpireToken, Service: sim.ServiceSharePoint, Count: 1})
	if r := b.cmdlet(sim.OpGetDEP, nil); r.status != 401 || !strings.Contains(r.header.Get("WWW-Authenticate"), "invalid_token") {
		t.Errorf("Exchange: %d %v", r.status, r.header)
	}
	if r := b.query(statusXML); r.status != 401 {
		t.Errorf("SharePoint: %+v", r)
	}
	if status, _ := b.control(http.MethodPost, "/tokens/revoke", `{"tenant":"contoso.com"}`); status != 204 {
		t.Errorf("control: %d", status)
	}
	if r := b.cmdlet(sim.OpGetDEP, nil); r.status != 401 {
		t.Errorf("Exchange after a revocation: %d", r.status)
	}
	if r := b.query(statusXML); r.status != 401 {
		t.Errorf("SharePoint after a revocation: %+v", r)
	}
}

// hits tells which of n calls a fault with a probability meets.
func hits(t *testing.T, seed uint64, probability float64, n int) []bool {
	b := start(t, func(s *sim.Seed) { s.RandomSeed = seed })
	add(t, b, sim.Fault{Service: sim.ServiceKeyVault, Mode: sim.ModeRefuse, Probability: probability})
	var out []bool
	for range n {
		out = append(out, b.vault(http.MethodGet, vaultA+"/keys"+apiV, "").status == 503)
	}
	return out
}

func TestProbability(t *testing.T) {
	first, again, other := hits(t, 7, 0.3, 200), hits(t, 7, 0.3, 200), hits(t, 8, 0.3, 200)
	n := 0
	for _, hit := range first {
		if hit {
			n++
		}
	}
	if n < 35 || n > 85 {
		t.Errorf("%d of 200 at a probability of 0.3", n)
	}
	if !slices.Equal(first, again) {
		t.Error("the same seed and requests, another outcome")
	}
	if slices.Equal(first, other) {
		t.Error("another seed, the same outcome")
	}
	if all := hits(t, 1, 1, 5); slices.Contains(all, false) {
		t.Errorf("probability 1: %v", all)
	}
}

func TestFaultsInTime(t *testing.T) {
	b := start(t)
	add(t, b, sim.Fault{Service: sim.ServiceKeyVault, Mode: sim.ModeRefuse, At: 60, Lasts: 30})
	for _, step := range []struct {
		advance time.Duration
		want    int
	}{{0, 200}, {59 * time.Second, 200}, {time.Second, 503}, {29 * time.Second, 503}, {time.Second, 200}} {
		b.w.Advance(step.advance)
		if got := b.vault(http.MethodGet, vaultA+"/keys"+apiV, "").status; got != step.want {
			t.Errorf("after %v more: %d, want %d", step.advance, got, step.want)
		}
	}
}

func TestEntraFailures(t *testing.T) {
	b := start(t)
	for _, tc := range []struct {
		params sim.FaultParams
		status int
		code   string
		number float64
	}{
		{sim.FaultParams{Code: "AADSTS53003"}, 400, "access_denied", 53003},
		{sim.FaultParams{Code: "AADSTS700027"}, 401, "invalid_client", 700027},
		{sim.FaultParams{Code: "AADSTS700016"}, 400, "unauthorized_client", 700016},
		{sim.FaultParams{Code: "AADSTS90002"}, 400, "invalid_request", 90002},
		{sim.FaultParams{Code: "AADSTS7", Status: 418}, 418, "temporarily_unavailable", 7},
		{sim.FaultParams{}, 503, "temporarily_unavailable", 90033},
	} {
		add(t, b, sim.Fault{Service: sim.ServiceEntra, Operation: sim.OpToken, Mode: sim.ModeRefuse, Count: 1, Params: tc.params})
		r := b.askToken(tenantID)
		if r.status != tc.status || r.json["error"] != tc.code || r.json["error_codes"].([]any)[0] != tc.number {
			t.Errorf("%+v: %d %s", tc.params, r.status, r.raw)
		}
	}
}

func TestThrottleWithoutRetryAfter(t *testing.T) {
	b := start(t)
	add(t, b, sim.Fault{Mode: sim.ModeThrottle, Service: sim.ServiceKeyVault, Count: 1, Params: sim.FaultParams{RetryAfter: -1}})
	if r := b.create(vaultA, keyA); r.status != 429 || r.header.Get("Retry-After") != "" {
		t.Errorf("%d %v", r.status, r.header)
	}
}

func TestFaultsThatCannotBe(t *testing.T) {
	b := start(t)
	for _, tc := range []struct {
		fault sim.Fault
		want  string
	}{
		{sim.Fault{Mode: "explode"}, "there are refuse, throttle"},
		{sim.Fault{Mode: sim.ModeDelay, Params: sim.FaultParams{Percent: 4}}, "does not read percent; it reads seconds"},
		{sim.Fault{Mode: sim.ModeHold, Params: sim.FaultParams{Percent: 4}}, "reads no params"},
		{sim.Fault{Mode: sim.ModeReset, Probability: 1.5}, "between 0 and 1"},
		{sim.Fault{Mode: sim.ModeReset, At: -1}, "between 0 and 1000000000"},
		{sim.Fault{Mode: sim.ModeReset, Key: "nothing"}, `unknown key "nothing"`},
		{sim.Fault{Mode: sim.ModeReset, Vault: "contoso-spo-a", Key: exoKey}, "unknown key"},
	} {
		if _, err := b.w.AddFault(tc.fault); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%+v: %v", tc.fault, err)
		}
	}
}
