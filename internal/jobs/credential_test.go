package jobs_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/uuid"

	"github.com/keyroll/keyroll/internal/control"
	"github.com/keyroll/keyroll/internal/msapi"
	"github.com/keyroll/keyroll/internal/roll"
	"github.com/keyroll/keyroll/internal/sim"
	"github.com/keyroll/keyroll/internal/survey"
)

const workload = "system:serviceaccount:keyroll:keyroll"

// asApp gives the app of the seed another client id, and no certificate: the
// library caches tokens of managed identities by id for the whole process.
func asApp(id string, change func(*sim.App)) func(*sim.Seed, *roll.Inventory) {
	return func(s *sim.Seed, _ *roll.Inventory) {
		s.Apps[0].ClientID, s.Apps[0].Certificates = id, nil
		change(&s.Apps[0])
	}
}

// credential replaces the house's certificate by another credential.
func (h *house) credential(entry string) {
	h.t.Helper()
	path := filepath.Join(h.dir, "credentials.json")
	must(h.t, os.WriteFile(path, []byte(`{"contoso":`+entry+`}`), 0o600))
	all, err := msapi.ReadCredentials(path)
	must(h.t, err)
	dial, err := msapi.ParseDialMap(h.sim.DialMap())
	must(h.t, err)
	hc, err := msapi.HTTPClient(dial, h.sim.CAPEM())
	must(h.t, err)
	h.t.Cleanup(hc.CloseIdleConnections)
	h.gw = survey.NewGateway(all, hc)
	h.ctl = control.New(h.st, h.gw, control.Config{Simulated: true})
}

// token writes what Kubernetes would write for the workload.
func (h *house) token(id string) {
	h.t.Helper()
	text, err := h.sim.World.FederatedToken(id, workload)
	must(h.t, err)
	must(h.t, os.WriteFile(filepath.Join(h.dir, "federated.jwt"), []byte(text), 0o600))
}

// whole rolls the SharePoint and the Exchange policy, to their end.
func (h *house) whole() {
	h.t.Helper()
	h.declare()
	h.work(quick())
	r := h.request("exo-na", "spo")
	h.approve(r.ID)
	if r = h.ended(r.ID); r.State != roll.Succeeded {
		h.t.Errorf("ended %s\n%s", r.State, show(r))
	}
	h.check(r)
}

// A whole roll as each kind of credential that is not a certificate.
func TestRollByWorkloadIdentity(t *testing.T) {
	t.Parallel()
	id := uuid.NewString()
	h := newHouse(t, asApp(id, func(a *sim.App) { a.Federated = []sim.Federated{{Issuer: sim.TestIssuer, Subject: workload}} }))
	h.token(id)
	h.credential(`{"kind":"workload_identity","client_id":"` + id + `","token_file":"federated.jwt"}`)
	h.whole()
}

func TestRollByManagedIdentity(t *testing.T) {
	t.Parallel()
	id := uuid.NewString()
	h := newHouse(t, asApp(id, func(a *sim.App) {
		a.ManagedIdentity = &sim.ManagedIdentity{Tenant: sim.ContosoTenant, ObjectID: sim.ObjectID(sim.ContosoTenant, id)}
	}))
	h.credential(`{"kind":"managed_identity","tenant_id":"` + sim.ContosoTenant + `","client_id":"` + id + `"}`)
	h.whole()
	if h.sim.World.Requests(sim.ServiceEntra, sim.OpManagedIdentity) == 0 || h.sim.World.Requests(sim.ServiceEntra, sim.OpToken) != 0 {
		t.Error("the tokens came by another way")
	}
}

func TestRollByManagedIdentityAsAssertion(t *testing.T) {
	t.Parallel()
	id := uuid.NewString()
	object := sim.ObjectID(sim.ContosoTenant, id)
	h := newHouse(t, asApp(id, func(a *sim.App) {
		a.ManagedIdentity = &sim.ManagedIdentity{Tenant: sim.ContosoTenant, ObjectID: object}
		a.Federated = []sim.Federated{{Issuer: "https://login.microsoftonline.com/" + sim.ContosoTenant + "/v2.0", Subject: object}}
	}))
	h.credential(`{"kind":"workload_identity","client_id":"` + id + `","assertion":"managed_identity","identity_client_id":"` + id + `"}`)
	h.whole()
	if h.sim.World.Requests(sim.ServiceEntra, sim.OpManagedIdentity) == 0 || h.sim.World.Requests(sim.ServiceEntra, sim.OpToken) == 0 {
		t.Error("the tokens came by another way")
	}
}

// TestTokenFileIsReread: what the file holds when a token is needed is what is
// sent. One that Entra refuses stops the roll; put right, it goes on without a
// reload.
func TestTokenFileIsReread(t *testing.T) {
	t.Parallel()
	id := uuid.NewString()
	h := newHouse(t, asApp(id, func(a *sim.App) { a.Federated = []sim.Federated{{Issuer: sim.TestIssuer, Subject: workload}} }))
	h.token(id)
	h.credential(`{"kind":"workload_identity","client_id":"` + id + `","token_file":"federated.jwt"}`)
	h.declare()
	h.fault(sim.Fault{Service: "exchange", Operation: sim.OpSetDEP, Mode: sim.ModeRevokeTokens, Count: 1})
	held := h.fault(sim.Fault{Service: "keyvault", Operation: sim.OpCreateKey, Mode: sim.ModeHoldAfter, Count: 1})
	h.work(quick())
	r := h.requestKey("exo-a")
	h.approve(r.ID)
	h.fired(held)
	must(t, os.WriteFile(filepath.Join(h.dir, "federated.jwt"), []byte("aaa.bbb.ccc"), 0o600))
	must(t, h.sim.World.ReleaseFault(held))
	// The first halt is Exchange's own; the retry needs a token, and reads the file.
	r = h.halted(r.ID)
	version := r.Version
	h.goOnRetry(r)
	r = h.await(r.ID, "halted again", func(r roll.Roll) bool { return r.State == roll.NeedsAttention && r.Version > version+1 })
	if !strings.Contains(r.Attention.Detail, "AADSTS50027") {
		t.Errorf("attention %+v", r.Attention)
	}
	if n := h.applied(sim.OpSetDEP); n != 0 {
		t.Errorf("%d refreshes", n)
	}
	h.token(id)
	h.goOnRetry(r)
	if r = h.ended(r.ID); r.State != roll.Succeeded {
		t.Errorf("ended %s\n%s", r.State, show(r))
	}
	h.check(r)
}
