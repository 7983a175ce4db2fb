package sim_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"

	"github.com/keyroll/keyroll/internal/sim"
)

func add(t *testing.T, b *bench, f sim.Fault) string {
	t.Helper()
	id, err := b.w.AddFault(f)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// tryCreate makes a key version and reports the status, or 0 for no answer.
func (b *bench) tryCreate() int {
	r, err := b.try(http.MethodPost, vaultA+"/keys/"+keyA+"/create"+apiV, createBody,
		"Authorization", "Bearer "+b.token(vaultScope), "Content-Type", "application/json")
	if err != nil {
		return 0
	}
	return r.status
}

func TestFaultsOfOneCall(t *testing.T) {
	for _, tc := range []struct {
		mode      string
		params    sim.FaultParams
		status    int // 0: the connection is closed
		made      int // versions over the API
		strangers int
	}{
		{sim.ModeRefuse, sim.FaultParams{Status: 403, Code: "Forbidden/ForbiddenByFirewall"}, 403, 0, 0},
		{sim.ModeRefuse, sim.FaultParams{}, 503, 0, 0},
		{sim.ModeThrottle, sim.FaultParams{RetryAfter: 7}, 429, 0, 0},
		{sim.ModeLoseBefore, sim.FaultParams{}, 0, 0, 0},
		{sim.ModeApplyAndLose, sim.FaultParams{}, 0, 1, 0},
		{sim.ModeErrorAfter, sim.FaultParams{}, 500, 1, 0},
		{sim.ModeStrangerBefore, sim.FaultParams{}, 200, 1, 1},
		{sim.ModeStrangerAfter, sim.FaultParams{}, 200, 1, 1},
		{sim.ModeDelay, sim.FaultParams{Seconds: 0.001}, 200, 1, 0},
	} {
		t.Run(tc.mode, func(t *testing.T) {
			b := start(t)
			id := add(t, b, sim.Fault{Service: sim.ServiceKeyVault, Operation: sim.OpCreateKey, Vault: "contoso-spo-a", Key: keyA, Mode: tc.mode, Params: tc.params, Count: 1})
			if got := b.tryCreate(); got != tc.status {
				t.Errorf("status %d, want %d", got, tc.status)
			}
			if err := b.w.WaitFault(t.Context(), id); err != nil {
				t.Error(err)
			}
			if n := b.w.VersionsCreated("contoso-spo-a", keyA); n != tc.made {
				t.Errorf("%d versions made, want %d", n, tc.made)
			}
			if n := len(b.w.KeyVersions("contoso-spo-a", keyA)); n != 2+tc.made+tc.strangers {
				t.Errorf("%d versions in the vault", n)
			}
			for _, e := range b.w.Witness() {
				if e.By == "api" && (e.Applied != (tc.made > 0) || e.Answered != (tc.status > 0)) {
					t.Errorf("witness: %+v", e)
				}
			}
			if n := b.w.Requests(sim.ServiceKeyVault, sim.OpCreateKey); n != 1 {
				t.Errorf("%d requests on the wire", n)
			}
			if got := b.tryCreate(); got != 200 {
				t.Errorf("after the fault: %d", got)
			}
		})
	}
}

func TestStrangerOrder(t *testing.T) {
	b := start(t)
	add(t, b, sim.Fault{Operation: sim.OpSetDEP, Vault: "contoso-exo-a", Mode: sim.ModeStrangerBefore, Count: 1})
	add(t, b, sim.Fault{Operation: sim.OpSetDEP, Vault: "contoso-exo-b", Mode: sim.ModeStrangerAfter, Count: 1})
	b.cmdlet(sim.OpSetDEP, map[string]any{"Identity": exoDEP, "Refresh": true, "Confirm": false})
	taken := b.w.PolicyVersions(tenantID, exoDEP)
	for vault, upTaken := range map[string]bool{"contoso-exo-a": true, "contoso-exo-b": false} {
		for id, version := range taken {
			versions := b.w.KeyVersions(vault, keyOf(vault))
			if len(versions) != 3 {
				t.Fatalf("%s: %d versions", vault, len(versions))
			}
			if last := versions[2]; id+"/"+last.Version == last.ID && (version == last.Version) != upTaken {
				t.Errorf("%s: taken up %s", vault, version)
			}
		}
	}
}

func keyOf(vault string) string {
	if vault == "contoso-exo-a" {
		return exoKey
	}
	return "Contoso-EXO-B-Key001"
}

func TestHold(t *testing.T) {
	for _, tc := range []struct {
		mode     string
		heldMade int // versions while the request is held
	}{{sim.ModeHold, 0}, {sim.ModeHoldAfter, 1}} {
		b := start(t)
		id := add(t, b, sim.Fault{Operation: sim.OpEffect, Mode: tc.mode, Count: 1})
		done := make(chan int, 1)
		b.token(vaultScope)
		go func() { done <- b.tryCreate() }()
		if err := b.w.WaitFault(t.Context(), id); err != nil {
			t.Fatal(err)
		}
		if n := b.w.VersionsCreated("contoso-spo-a", keyA); n != tc.heldMade || b.w.Faults()[0].Held != 1 {
			t.Errorf("%s: %d versions while held, %+v", tc.mode, n, b.w.Faults())
		}
		if err := b.w.ReleaseFault(id); err != nil {
			t.Fatal(err)
		}
		if status := <-done; status != 200 || b.w.VersionsCreated("contoso-spo-a", keyA) != 1 {
			t.Errorf("%s: %d after the release", tc.mode, status)
		}
	}
}

// A client that gives up does not take its request back.
func TestHeldCallLandsLate(t *testing.T) {
	b := start(t)
	hold := add(t, b, sim.Fault{Operation: sim.OpCreateKey, Mode: sim.ModeHold, Count: 1})
	landed := add(t, b, sim.Fault{Operation: sim.OpCreateKey, Mode: sim.ModeHoldAfter, Count: 1})
	ctx, cancel := context.WithCancel(t.Context())
	token := b.token(vaultScope)
	done := make(chan error, 1)
	go func() {
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, vaultA+"/keys/"+keyA+"/create"+apiV, strings.NewReader(createBody))
		if err == nil {
			req.Header.Set("Authorization", "Bearer "+token)
			var res *http.Response
			if res, err = b.client.Do(req); err == nil {
				err = res.Body.Close()
			}
		}
		done <- err
	}()
	if err := b.w.WaitFault(t.Context(), hold); err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	if err := b.w.ReleaseFault(hold); err != nil {
		t.Fatal(err)
	}
	if err := b.w.WaitFault(t.Context(), landed); err != nil {
		t.Errorf("the held request never reached its effect: %v", err)
	}
	if e := b.w.Witness()[0]; !e.Applied || e.Answered || b.w.VersionsCreated("contoso-spo-a", keyA) != 1 {
		t.Errorf("witness: %+v", e)
	}
}

func TestFaultCountsAndScope(t *testing.T) {
	b := start(t)
	id := add(t, b, sim.Fault{Service: sim.ServiceKeyVault, Tenant: "contoso.com", Mode: sim.ModeRefuse, After: 1, Count: 2})
	var got []int
	for range 4 {
		got = append(got, b.tryCreate())
	}
	if want := [4]int{200, 503, 503, 200}; [4]int(got) != want {
		t.Errorf("%v, want %v", got, want)
	}
	if f := b.w.Faults()[0]; f.ID != id || f.Fired != 2 {
		t.Errorf("%+v", f)
	}
	add(t, b, sim.Fault{Vault: "contoso-spo-b", Mode: sim.ModeRefuse})
	add(t, b, sim.Fault{Service: sim.ServiceEntra, Operation: sim.OpToken, Mode: sim.ModeThrottle})
	if b.tryCreate() != 200 {
		t.Error("a fault of another vault fired")
	}
	if r := b.askToken(tenantID); r.status != 429 || r.header.Get("Retry-After") != "1" {
		t.Errorf("token: %d", r.status)
	}
	for _, f := range []sim.Fault{{Mode: "explode"}, {Mode: sim.ModeHold, Operation: "creat_key"}, {Mode: sim.ModeHold, Service: "x"},
		{Mode: sim.ModeHold, Vault: "x"}, {Mode: sim.ModeHold, Tenant: "x"}, {Mode: sim.ModeHold, Count: -1}} {
		if _, err := b.w.AddFault(f); err == nil {
			t.Errorf("%+v was accepted", f)
		}
	}
}

func TestFaultsSpeakTheServicesLanguage(t *testing.T) {
	b := start(t)
	const text = "You have reached the maximum number of concurrent requests per tenant. Please wait and try again"
	add(t, b, sim.Fault{Service: sim.ServiceExchange, Mode: sim.ModeRefuse, Count: 1, Params: sim.FaultParams{Status: 400, Body: text}})
	if r := b.cmdlet(sim.OpGetDEP, nil); r.status != 400 || string(r.raw) != text {
		t.Errorf("plain text: %d %s", r.status, r.raw)
	}
	add(t, b, sim.Fault{Service: sim.ServiceExchange, Mode: sim.ModeThrottle, Count: 1})
	if r := b.cmdlet(sim.OpGetDEP, nil); r.status != 429 || r.path("error", "details") == nil {
		t.Errorf("throttle: %d %s", r.status, r.raw)
	}
	add(t, b, sim.Fault{Service: sim.ServiceSharePoint, Mode: sim.ModeRefuse, Count: 1, Params: sim.FaultParams{Status: 200, Code: "Microsoft.Online.SharePoint.Common.SpoException"}})
	if r := b.query(statusXML); r.errType != "Microsoft.Online.SharePoint.Common.SpoException" {
		t.Errorf("error info: %+v", r)
	}
}

func TestWaitFaultEnds(t *testing.T) {
	b := start(t)
	id := add(t, b, sim.Fault{Mode: sim.ModeHold})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := b.w.WaitFault(ctx, id); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if err := b.w.WaitFault(t.Context(), "f99"); !errors.Is(err, sim.ErrNoFault) {
		t.Error(err)
	}
	b.w.Close()
	if err := b.w.WaitFault(t.Context(), id); err == nil {
		t.Error("the wait outlived the world")
	}
}

// Closing the server drops what a fault holds.
func TestCloseDropsHeldCalls(t *testing.T) {
	b := start(t)
	b.token(vaultScope)
	id := add(t, b, sim.Fault{Operation: sim.OpCreateKey, Mode: sim.ModeHold})
	done := make(chan int, 1)
	go func() { done <- b.tryCreate() }()
	if err := b.w.WaitFault(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	if err := b.srv.Close(); err != nil {
		t.Error(err)
	}
	if status := <-done; status != 0 || b.w.VersionsCreated("contoso-spo-a", keyA) != 0 {
		t.Errorf("status %d", status)
	}
}
