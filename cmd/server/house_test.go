package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/keyroll/keyroll/internal/api"
	"github.com/keyroll/keyroll/internal/jobs"
	"github.com/keyroll/keyroll/internal/pgtest"
	"github.com/keyroll/keyroll/internal/sim"
	"github.com/keyroll/keyroll/internal/store"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

func migrate(ctx context.Context, url string) error { return store.Migrate(ctx, url, jobs.Schema{}) }

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// environOf writes settings as an environment.
func environOf(settings map[string]string) []string {
	var out []string
	for _, name := range slices.Sorted(maps.Keys(settings)) {
		out = append(out, envPrefix+name+"="+settings[name])
	}
	return out
}

// shell runs a command to its end, as the shell would.
func shell(ctx context.Context, environ []string, args ...string) (code int, stdout, stderr string) {
	var out, errs bytes.Buffer
	err := run(ctx, args, environ, &out, &errs)
	code = exitCode(err, &errs)
	return code, out.String(), errs.String()
}

// lines keeps what is written and wakes those who wait for more.
type lines struct {
	mu   sync.Mutex
	text bytes.Buffer
	more chan struct{}
}

func newLines() *lines { return &lines{more: make(chan struct{}, 1)} }

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	select {
	case l.more <- struct{}{}:
	default:
	}
	return l.text.Write(b)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// house is a database and the simulators, for servers to be started on.
type house struct {
	t        *testing.T
	database string
	sims     *simulators
	environ  []string
}

// newHouse also takes changes of the settings and of the world.
func newHouse(t *testing.T, set map[string]string, change ...func(*sim.Seed)) *house {
	t.Helper()
	h := &house{t: t, database: pgtest.Open(t, migrate)}
	seed := sim.ContosoSeed()
	seed.Tenants[0].SharePoint.SitesPerSecond = 2000
	for _, f := range change {
		f(&seed)
	}
	var err error
	h.sims, err = startSimulators(context.Background(), sim.Options{Seed: seed}, t.TempDir())
	must(t, err)
	t.Cleanup(func() { must(t, h.sims.Close()) })
	all := maps.Clone(quickSettings)
	maps.Copy(all, h.sims.settings())
	maps.Copy(all, map[string]string{"DATABASE_URL": h.database, "LISTEN": "127.0.0.1:0", "SHAREPOINT_POLL": "50ms", "HEARTBEAT": "100ms", "LOG_LEVEL": "debug"})
	maps.Copy(all, set)
	h.environ = environOf(all)
	return h
}

// served is a server that runs.
type served struct {
	t    *testing.T
	url  string
	logs *lines
	end  context.CancelFunc
	done chan error
}

// serve runs "server serve" until its stop is called, at the latest at the test's end.
func (h *house) serve() *served {
	h.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	s := &served{t: h.t, logs: newLines(), end: cancel, done: make(chan error, 1)}
	go func() { s.done <- run(ctx, []string{"serve"}, h.environ, s.logs, s.logs) }()
	for s.url == "" {
		select {
		case <-s.logs.more:
			s.url = servingURL(s.logs.String())
		case err := <-s.done:
			cancel()
			h.t.Fatalf("serve ended: %v\n%s", err, s.logs)
		}
	}
	h.t.Cleanup(func() {
		if s.end != nil {
			s.stop()
		}
	})
	return s
}

// servingURL finds the address in the log.
func servingURL(text string) string {
	for line := range strings.SplitSeq(text, "\n") {
		var entry struct{ Msg, URL string }
		if json.Unmarshal([]byte(line), &entry) == nil && entry.Msg == "serving" {
			return entry.URL
		}
	}
	return ""
}

// stop ends it as SIGTERM does, and expects that it ends well.
func (s *served) stop() {
	s.t.Helper()
	s.end()
	s.end = nil
	select {
	case err := <-s.done:
		must(s.t, err)
	case <-time.After(30 * time.Second):
		s.t.Fatalf("the server did not end:\n%s", s.logs)
	}
}

// person makes a token by the command and returns a client with it.
func (h *house) person(s *served, subject, roles string) *client {
	h.t.Helper()
	code, secret, stderr := shell(h.t.Context(), h.environ, "token", "create", "--kind", "person", "--subject", subject, "--roles", roles)
	if code != exitDone {
		h.t.Fatalf("token create: %s", stderr)
	}
	return newClient(s.url, strings.TrimSpace(secret))
}

// approved declares Contoso and has a roll of the policies approved.
func (h *house) approved(s *served, policies ...string) (rita *client, r api.Roll) {
	h.t.Helper()
	ctx := h.t.Context()
	rita = h.person(s, "rita@contoso.com", "requester,operator")
	arno, ada := h.person(s, "arno@contoso.com", "approver"), h.person(s, "ada@contoso.com", "admin")
	_, err := declareContoso(ctx, ada)
	must(h.t, err)
	want := contosoRoll()
	want.Policies = policies
	etag, err := rita.call(ctx, "POST", "/v1/rolls", want, &r, "Idempotency-Key", "first")
	must(h.t, err)
	_, err = arno.call(ctx, "POST", "/v1/rolls/"+r.ID+"/approve", api.ApproveRequest{PlanHash: r.PlanHash}, &r, "If-Match", etag)
	must(h.t, err)
	return rita, r
}

// eventually asks until cond holds.
func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	limit := time.After(30 * time.Second)
	for !cond() {
		select {
		case <-tick.C:
		case <-limit:
			t.Fatalf("it never came to be: %s", what)
		}
	}
}

// await reads the roll until cond holds.
func await(t *testing.T, as *client, id, what string, cond func(api.Roll) bool) (r api.Roll) {
	t.Helper()
	eventually(t, what, func() bool {
		_, err := as.call(t.Context(), "GET", "/v1/rolls/"+id, nil, &r)
		must(t, err)
		return cond(r)
	})
	return r
}

// status asks a URL without a token.
func status(t *testing.T, url string) (int, error) {
	t.Helper()
	resp, err := http.Get(url)
	if err != nil {
		return 0, err
	}
	return resp.StatusCode, errors.Join(resp.Body.Close())
}
