package api_test

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/keyroll/keyroll/internal/access"
	"github.com/keyroll/keyroll/internal/api"
	"github.com/keyroll/keyroll/internal/control"
	"github.com/keyroll/keyroll/internal/jobs"
	"github.com/keyroll/keyroll/internal/msapi"
	"github.com/keyroll/keyroll/internal/pgtest"
	"github.com/keyroll/keyroll/internal/roll"
	"github.com/keyroll/keyroll/internal/sim"
	"github.com/keyroll/keyroll/internal/store"
	"github.com/keyroll/keyroll/internal/survey"
)

func migrate(ctx context.Context, url string) error { return store.Migrate(ctx, url, jobs.Schema{}) }

// quick is a configuration in which nothing waits longer than a test should.
func quick() jobs.Config {
	return jobs.Config{
		Heartbeat: 100 * time.Millisecond, Silent: time.Second, Stale: 2 * time.Second, Sweep: 100 * time.Millisecond,
		CallKeyVault: 3 * time.Second, CallExchange: 3 * time.Second, CallSharePoint: 3 * time.Second, CallRead: 5 * time.Second,
		SettleKeyVault: 300 * time.Millisecond, SettleExchange: 300 * time.Millisecond, SettleSharePoint: 300 * time.Millisecond,
		Poll: 50 * time.Millisecond, QueueCheck: 200 * time.Millisecond, Dwell: 200 * time.Millisecond,
		BackoffBase: 50 * time.Millisecond, BackoffMax: 500 * time.Millisecond, Lane: 20 * time.Second,
	}
}

// house is the API over real handlers, a database of its own and simulators
// behind their real socket; every answer is checked against the contract.
type house struct {
	t       *testing.T
	sim     *sim.Server
	st      *store.Store
	gw      *survey.Gateway
	handler http.Handler
	// raw is the handler without the check of its answers, which ends them first.
	raw    http.Handler
	hub    *api.Hub
	url    string // of the database, with its owner's rights
	tokens map[string]string
	// shut closes the database's pool; workers makes the client of a driver.
	shut    func()
	workers func(*jobs.Driver) (runner, error)
}

type runner interface {
	Start(context.Context) error
	Stop(context.Context) error
}

// People, by first name. Rex may ask for a roll and approve one: not the same.
func people() map[string]access.Principal {
	person := func(name string, roles ...access.Role) access.Principal {
		return access.Principal{Subject: name + "@contoso.com", Kind: access.Person, Roles: roles}
	}
	return map[string]access.Principal{
		"rita": person("rita", access.Requester, access.Operator), "rex": person("rex", access.Requester, access.Approver),
		"paul": person("paul", access.Approver), "pia": person("pia", access.Approver), "olga": person("olga", access.Operator), "ada": person("ada", access.Admin), "bea": person("bea", access.Admin), "aud": person("aud", access.Auditor),
		"robot": {Subject: "portal", Kind: access.Service, Roles: access.Roles()},
	}
}

func newHouse(t *testing.T) *house {
	t.Helper()
	ctx := t.Context()
	h := &house{t: t, tokens: map[string]string{}, url: pgtest.Open(t, migrate)}
	h.startMicrosoft()
	pool, err := store.OpenPool(ctx, h.url, store.Options{Role: "keyroll_app"})
	must(t, err)
	h.shut = pool.Close
	h.workers = func(d *jobs.Driver) (runner, error) { return jobs.NewClient(pool, d, quietLog()) }
	t.Cleanup(h.shut)
	queue, err := jobs.NewQueue(pool, quietLog())
	must(t, err)
	h.st = store.New(pool, queue)
	must(t, h.st.Ping(ctx))
	for name, p := range people() {
		token := access.NewToken()
		must(t, h.st.CreateToken(ctx, store.Token{ID: uuid.NewString(), Name: name, Prefix: token.Prefix, Principal: p}, token.Hash, roll.Keyroll()))
		h.tokens[name] = token.Secret
	}
	h.hub = api.NewHub(h.st, prometheus.NewRegistry(), quietLog(), 0)
	h.raw, err = api.New(api.Config{
		Handlers: api.NewHandlers(api.Deps{
			Control: control.New(h.st, h.gw, control.Config{Simulated: true}), Store: h.st, Hub: h.hub, Ready: h.st.Ping,
			Bounds: roll.DefaultBounds(), Simulated: true,
		}),
		Authenticator: api.NewAuthenticator(h.st),
		Metrics:       promhttp.HandlerFor(prometheus.NewRegistry(), promhttp.HandlerOpts{}), Log: quietLog(),
	})
	must(t, err)
	h.handler = ValidateResponses(t, h.raw)
	return h
}

func (h *house) startMicrosoft() {
	h.t.Helper()
	app, err := appCertificate()
	must(h.t, err)
	cert, key := app[0], app[1]
	seed := sim.ContosoSeed()
	seed.AllowCertificate(sim.ContosoClientID, cert)
	seed.Tenants[0].SharePoint.SitesPerSecond = 2000
	h.sim, err = sim.Start(context.Background(), sim.Options{Seed: seed, SigningKey: signingKey()})
	must(h.t, err)
	h.t.Cleanup(func() { _ = h.sim.Close() })
	dir := h.t.TempDir()
	must(h.t, os.WriteFile(filepath.Join(dir, "app.pem"), slices.Concat(cert, key), 0o600))
	creds := filepath.Join(dir, "credentials.json")
	must(h.t, os.WriteFile(creds, []byte(`{"contoso":{"kind":"client_certificate","client_id":"`+sim.ContosoClientID+`","certificate_path":"app.pem"}}`), 0o600))
	all, err := msapi.ReadCredentials(creds)
	must(h.t, err)
	dial, err := msapi.ParseDialMap(h.sim.DialMap())
	must(h.t, err)
	hc, err := msapi.HTTPClient(dial, h.sim.CAPEM())
	must(h.t, err)
	h.t.Cleanup(hc.CloseIdleConnections)
	h.gw = survey.NewGateway(all, hc)
}

// appCertificate is the application's, one for all tests: RSA keys are slow to make.
var appCertificate = sync.OnceValues(func() ([2][]byte, error) {
	cert, key, err := sim.NewAppCertificate("keyroll")
	return [2][]byte{cert, key}, err
})

// signingKey signs the tokens of all worlds, for the same reason.
var signingKey = sync.OnceValue(func() *rsa.PrivateKey {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	return key
})

func quietLog() *slog.Logger {
	if os.Getenv("KEYROLL_TEST_LOG") != "" {
		return slog.New(slog.NewTextHandler(os.Stderr, nil))
	}
	return slog.New(slog.DiscardHandler)
}

// work starts workers until the test's end.
func (h *house) work() {
	h.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	d := jobs.NewDriver(h.st, jobs.Through(h.gw), quick(), uuid.NewString(), quietLog(), jobs.NewMetrics(prometheus.NewRegistry()))
	ready, lived := make(chan struct{}), make(chan error, 1)
	go func() { lived <- d.Live(ctx, ready) }()
	select {
	case <-ready:
	case err := <-lived:
		h.t.Fatalf("heartbeat: %v", err)
	}
	client, err := h.workers(d)
	must(h.t, err)
	must(h.t, client.Start(ctx))
	h.t.Cleanup(func() {
		d.Drain()
		end, done := context.WithTimeout(context.Background(), 20*time.Second)
		defer done()
		must(h.t, client.Stop(end))
		cancel()
		must(h.t, <-lived)
	})
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// as sends one request in somebody's name; header pairs follow the body, which
// is sent as it is if it is a string, else as JSON.
func (h *house) as(who, method, path string, body any, headers ...string) *httptest.ResponseRecorder {
	h.t.Helper()
	text, ok := body.(string)
	if !ok && body != nil {
		raw, err := json.Marshal(body)
		must(h.t, err)
		text = string(raw)
	}
	r := httptest.NewRequest(method, path, strings.NewReader(text))
	if who != "" {
		r.Header.Set("Authorization", "Bearer "+h.tokens[who])
	}
	if text != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i+1 < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	rec := httptest.NewRecorder()
	h.handler.ServeHTTP(rec, r)
	return rec
}

// answer reads an answer of the wanted status.
func answer[T any](t testing.TB, rec *httptest.ResponseRecorder, status int) (out T) {
	t.Helper()
	if rec.Code != status {
		t.Fatalf("answer %d, want %d: %s", rec.Code, status, rec.Body)
	}
	must(t, json.Unmarshal(rec.Body.Bytes(), &out))
	return out
}

// refused holds an answer to a status and a problem code.
func refused(t *testing.T, rec *httptest.ResponseRecorder, status int, code api.ProblemCode) api.Problem {
	t.Helper()
	p := problem(t, rec)
	if rec.Code != status || p.Code != code {
		t.Fatalf("answer %d %s, want %d %s: %s", rec.Code, p.Code, status, code, rec.Body)
	}
	return p
}
