package jobs_test

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/keyroll/keyroll/internal/access"
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
		CallAutomation: 5 * time.Second, SettleAutomation: 300 * time.Millisecond, PollRunbook: 50 * time.Millisecond,
		Poll: 50 * time.Millisecond, QueueCheck: 200 * time.Millisecond, Dwell: 200 * time.Millisecond,
		BackoffBase: 50 * time.Millisecond, BackoffMax: 500 * time.Millisecond, Lane: 20 * time.Second,
	}
}

// unwatched is for a driver for which nobody beats: its idea of the time does
// not grow stale however slow the machine is.
func unwatched() jobs.Config {
	cfg := quick()
	cfg.Stale = time.Minute
	return cfg
}

// house is a whole Keyroll without its HTTP API: a database of its own, the
// simulators over their real socket, and as many workers as a test starts.
type house struct {
	t    *testing.T
	url  string
	pool *pgxpool.Pool
	sim  *sim.Server
	st   *store.Store
	gw   *survey.Gateway
	ctl  *control.Control
	inv  roll.Inventory
	dir  string // credentials.json, app.pem, ca.pem
}

func newHouse(t *testing.T, change ...func(*sim.Seed, *roll.Inventory)) *house {
	t.Helper()
	ctx := t.Context()
	h := &house{t: t, url: pgtest.Open(t, migrate), inv: contoso()}
	app, err := appCertificate()
	must(t, err)
	cert, key := app[0], app[1]
	seed := sim.ContosoSeed()
	seed.AllowCertificate(sim.ContosoClientID, cert)
	seed.Tenants[0].SharePoint.SitesPerSecond = 2000
	for _, f := range change {
		f(&seed, &h.inv)
	}
	h.sim, err = sim.Start(context.Background(), sim.Options{Seed: seed, SigningKey: signingKey()})
	must(t, err)
	t.Cleanup(func() { _ = h.sim.Close() })

	dir := t.TempDir()
	h.dir = dir
	must(t, os.WriteFile(filepath.Join(dir, "ca.pem"), h.sim.CAPEM(), 0o600))
	must(t, os.WriteFile(filepath.Join(dir, "app.pem"), slices.Concat(cert, key), 0o600))
	creds := filepath.Join(dir, "credentials.json")
	must(t, os.WriteFile(creds, []byte(`{"contoso":{"kind":"client_certificate","client_id":"`+sim.ContosoClientID+`","certificate_path":"app.pem"}}`), 0o600))
	all, err := msapi.ReadCredentials(creds)
	must(t, err)
	dial, err := msapi.ParseDialMap(h.sim.DialMap())
	must(t, err)
	hc, err := msapi.HTTPClient(dial, h.sim.CAPEM())
	must(t, err)
	t.Cleanup(hc.CloseIdleConnections)
	h.gw = survey.NewGateway(all, hc, msapi.WithClouds(h.clouds(seed)))

	h.pool, err = store.OpenPool(ctx, h.url, store.Options{Role: "keyroll_app"})
	must(t, err)
	t.Cleanup(h.pool.Close)
	queue, err := jobs.NewQueue(h.pool, quietLog())
	must(t, err)
	h.st = store.New(h.pool, queue)
	must(t, h.st.Ping(ctx))
	h.ctl = control.New(h.st, h.gw, control.Config{Simulated: true})
	return h
}

// clouds are those of the seed's own, by way of the file that an operator writes.
func (h *house) clouds(seed sim.Seed) msapi.Clouds {
	h.t.Helper()
	if len(seed.Clouds) == 0 {
		return msapi.Clouds{}
	}
	file := map[string]map[string]any{}
	for _, c := range seed.Clouds {
		file[c.Name] = map[string]any{"authority": "https://" + c.Logins[0], "vault_suffix": c.Vault, "hsm_suffix": c.HSM,
			"exchange_url": "https://" + c.Exchange, "exchange_redirects": c.ExchangeRedirects, "sharepoint_admin_suffix": c.SharePointAdmin,
			"resource_manager": "https://" + c.ResourceManager, "log_analytics_url": "https://logs." + c.Name + ".example", "portal_url": "https://portal." + c.Name + ".example"}
	}
	text, err := json.Marshal(file)
	must(h.t, err)
	path := filepath.Join(h.dir, "clouds.json")
	must(h.t, os.WriteFile(path, text, 0o600))
	out, err := msapi.ReadClouds(path)
	must(h.t, err)
	return out
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

// work starts a process's worth of workers; the returned function stops it
// gracefully. It also runs at the test's end.
func (h *house) work(cfg jobs.Config) (stop func()) {
	h.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	d := jobs.NewDriver(h.st, jobs.Through(h.gw), cfg, uuid.NewString(), quietLog(), jobs.NewMetrics(prometheus.NewRegistry()))
	ready, lived := make(chan struct{}), make(chan error, 1)
	go func() { lived <- d.Live(ctx, ready) }()
	select {
	case <-ready:
	case err := <-lived:
		h.t.Fatalf("heartbeat: %v", err)
	}
	client, err := jobs.NewClient(h.pool, d, quietLog())
	must(h.t, err)
	must(h.t, client.Start(ctx))
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		d.Drain()
		end, done := context.WithTimeout(context.Background(), 20*time.Second)
		defer done()
		must(h.t, client.Stop(end))
		cancel()
		must(h.t, <-lived)
	}
	h.t.Cleanup(stop)
	return stop
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// People of Contoso.
func requester() access.Principal { return person("rita", access.Requester, access.Operator) }
func approver() access.Principal  { return person("arno", access.Approver, access.Operator) }
func admin() access.Principal     { return person("ada", access.Admin) }

func person(name string, roles ...access.Role) access.Principal {
	return access.Principal{TokenID: uuid.NewString(), Subject: name + "@contoso.com", Kind: access.Person, Roles: roles}
}

func contoso() roll.Inventory {
	seed := sim.ContosoSeed()
	guid := map[string]string{}
	for _, p := range seed.Tenants[0].Exchange.Policies {
		guid[p.Name] = p.GUID
	}
	key := func(id, vault, name string) roll.Key {
		return roll.Key{ID: id, VaultURL: "https://" + vault + ".vault.azure.net", Name: name}
	}
	return roll.Inventory{TenantID: sim.ContosoTenant, Name: "Contoso", Cloud: "public", Credential: "contoso",
		SharePoint: roll.SharePointSettings{Geos: []roll.Geo{{ID: "NAM", AdminURL: "https://contoso-admin.sharepoint.com"}}},
		Keys: []roll.Key{
			key("m-a", "contoso-m365-a", "Contoso-M365-A-Key001"), key("m-b", "contoso-m365-b", "Contoso-M365-B-Key001"),
			key("exo-a", "contoso-exo-a", "Contoso-EXO-A-Key001"), key("exo-b", "contoso-exo-b", "Contoso-EXO-B-Key001"),
			key("spo-a", "contoso-spo-a", "Contoso-SPO-A-Key001"), key("spo-b", "contoso-spo-b", "Contoso-SPO-B-Key001"),
		},
		Policies: []roll.Policy{
			{ID: "global", Workload: roll.MultiWorkload, Name: "Contoso_Global", GUID: guid["Contoso_Global"], Keys: []string{"m-a", "m-b"}},
			{ID: "exo-na", Workload: roll.Exchange, Name: "NA Mailboxes", GUID: guid["NA Mailboxes"], Keys: []string{"exo-a", "exo-b"}, SampleMailboxes: []string{"vip@contoso.com"}},
			{ID: "spo", Workload: roll.SharePoint, Geo: "NAM", Primary: "spo-a", Secondary: "spo-b"},
		}}
}

// declare declares the tenant, by two people where that takes them.
func (h *house) declare() {
	h.t.Helper()
	_, err := h.ctl.Declare(h.t.Context(), admin(), h.inv, 0)
	var pending *control.ChangePending
	if errors.As(err, &pending) {
		_, err = h.ctl.ApproveChange(h.t.Context(), person("bea", access.Admin, access.Approver), h.inv.TenantID, pending.Change.ID, pending.Change.Hash, "")
	}
	must(h.t, err)
}

// request asks for a roll of the policies, and returns it.
func (h *house) request(policies ...string) roll.Roll {
	h.t.Helper()
	var made roll.Roll
	_, err := h.ctl.Request(h.t.Context(), requester(), roll.Request{TenantID: h.inv.TenantID, Policies: policies,
		Reason: roll.Reason{Code: "compliance_requirement", Text: "annual"}}, control.Idempotency{Key: uuid.NewString(), BodyHash: []byte("x"),
		Render: func(r roll.Roll) (store.Answer, error) { made = r; return store.Answer{Status: 202}, nil }})
	must(h.t, err)
	return made
}

// approve approves the roll as it stands.
func (h *house) approve(id string) {
	h.t.Helper()
	r, err := h.st.Roll(h.t.Context(), id)
	must(h.t, err)
	_, err = h.ctl.Approve(h.t.Context(), approver(), id, r.Version, r.Plan.Hash, "")
	must(h.t, err)
}

// await reads the roll until cond holds, and fails with the roll's last state
// when that takes longer than half a minute.
func (h *house) await(id string, what string, cond func(roll.Roll) bool) roll.Roll {
	h.t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	limit := time.After(30 * time.Second)
	for {
		r, err := h.st.Roll(context.Background(), id)
		must(h.t, err)
		if cond(r) {
			return r
		}
		select {
		case <-tick.C:
		case <-limit:
			h.t.Fatalf("roll never was %s:\n%s", what, show(r))
		}
	}
}

func (h *house) ended(id string) roll.Roll {
	h.t.Helper()
	return h.await(id, "at its end", func(r roll.Roll) bool { return r.State.Final() })
}

func (h *house) halted(id string) roll.Roll {
	h.t.Helper()
	return h.await(id, "halted", func(r roll.Roll) bool { return r.State == roll.NeedsAttention })
}
