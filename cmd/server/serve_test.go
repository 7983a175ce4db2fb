package main

import (
	"context"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/keyroll/keyroll/internal/api"
	"github.com/keyroll/keyroll/internal/sim"
)

// A roll of everything, through the HTTP API, over the simulators' sockets:
// what the log, the metrics and the witness say afterwards.
func TestServeRollsToTheEnd(t *testing.T) {
	t.Parallel()
	h := newHouse(t, nil)
	s := h.serve()
	rita, r := h.approved(s, "global", "exo-na", "spo")
	r = await(t, rita, r.ID, "at its end", func(r api.Roll) bool { return !r.EndedAt.IsZero() })
	if r.State != api.RollStateSucceeded || r.Outcome != api.EvidenceAccepted || !r.Simulated {
		t.Fatalf("roll: %s %s, simulated %t\n%s", r.State, r.Outcome, r.Simulated, s.logs)
	}
	seen, err := witnessed(t.Context(), h.sims.ControlURL)
	must(t, err)
	for _, k := range r.Keys {
		if n := createdIn(seen.Tenants[r.TenantID], vaultName(k.VaultURL)+"/"+k.Name); n != 1 {
			t.Errorf("%d versions of %s were made", n, k.Name)
		}
	}
	checkMetrics(t, s.url)
	checkPage(t, s.url)
	if code, stdout, stderr := shell(t.Context(), []string{"KEYROLL_LISTEN=" + strings.TrimPrefix(s.url, "http://")}, "healthcheck"); code != exitDone || stdout != "ok\n" {
		t.Errorf("healthcheck: code %d, %s", code, stderr)
	}
	s.stop()
	if code, _, stderr := shell(t.Context(), nil, "healthcheck", "--url", s.url+"/readyz"); code != exitFailed || !strings.Contains(stderr, "does not answer") {
		t.Errorf("healthcheck of a server that has ended: code %d, %s", code, stderr)
	}
	if code, stdout, _ := shell(t.Context(), h.environ, "audit", "verify"); code != exitDone {
		t.Errorf("audit verify: %s", stdout)
	}
	for _, secret := range []string{rita.token.Reveal(), "PRIVATE KEY", "Bearer ", "eyJ"} {
		if strings.Contains(s.logs.String(), secret) {
			t.Errorf("the log shows %q", clip(secret, 12))
		}
	}
}

// checkMetrics: what alerts and dashboards are built on is there, in the text format.
func checkMetrics(t *testing.T, url string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url+"/metrics", nil)
	must(t, err)
	req.Header.Set("Accept", "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily")
	resp, err := http.DefaultClient.Do(req)
	must(t, err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	must(t, err)
	if kind := resp.Header.Get("Content-Type"); !strings.HasPrefix(kind, "text/plain") {
		t.Errorf("metrics come as %s", kind)
	}
	for _, want := range []string{
		"keyroll_build_info{version=", "keyroll_simulated 1\n", "keyroll_database_up 1\n", "keyroll_workers_alive 1\n",
		`keyroll_rolls{state="running",workload="sharepoint"} 0`, `keyroll_rolls_ended_total{outcome="accepted",state="succeeded"} 1`,
		`keyroll_step_attempts_total{event="step_succeeded",kind="create_key_version"} 6`,
		`keyroll_steps_ended_total{kind="create_key_version",state="succeeded"} 6`, `keyroll_steps_active{kind="sharepoint_await"} 0`,
		`keyroll_microsoft_call_duration_seconds_count{kind="ok",operation="create_key",service="keyvault"} 6`,
		"keyroll_sharepoint_queue_depth 0\n", "keyroll_sharepoint_leases_held 0\n", "keyroll_rolls_swept_total",
		"keyroll_worker_heartbeat_timestamp_seconds", "\ngo_goroutines", "\nprocess_start_time_seconds",
	} {
		if !strings.Contains(string(body), want) {
			t.Errorf("metrics lack %s", want)
		}
	}
	if t.Failed() {
		t.Logf("%s", body)
	}
}

func checkPage(t *testing.T, url string) {
	t.Helper()
	resp, err := http.Get(url + "/")
	must(t, err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	must(t, err)
	if resp.StatusCode != http.StatusOK || !strings.Contains(string(body), "<h1>Keyroll</h1>") || !strings.Contains(string(body), "simulated") {
		t.Errorf("page: %s\n%s", resp.Status, body)
	}
	if policy := resp.Header.Get("Content-Security-Policy"); !strings.Contains(policy, "default-src 'none'") {
		t.Errorf("page's policy: %s", policy)
	}
}

// SIGTERM while SharePoint is at work: the server ends well and soon, and the
// next one finishes the roll without beginning anything twice.
func TestServeDrainsAndAnotherFinishes(t *testing.T) {
	t.Parallel()
	h := newHouse(t, nil, func(seed *sim.Seed) { seed.Tenants[0].SharePoint.SitesPerSecond = 200 })
	first := h.serve()
	rita, r := h.approved(first, "spo")
	await(t, rita, r.ID, "watching SharePoint", func(r api.Roll) bool {
		return slices.ContainsFunc(r.Steps, func(s api.Step) bool { return s.Percent != nil && s.State == api.StepStateWaiting })
	})
	first.stop()
	if _, err := status(t, first.url+"/readyz"); err == nil {
		t.Error("a server that has ended still answers")
	}
	second := h.serve()
	rita.base = second.url
	r = await(t, rita, r.ID, "at its end", func(r api.Roll) bool { return !r.EndedAt.IsZero() })
	seen, err := witnessed(t.Context(), h.sims.ControlURL)
	must(t, err)
	got := seen.Tenants[r.TenantID]
	if r.State != api.RollStateSucceeded || got.SharePointOperations != 2 || got.Overlaps != 0 {
		t.Errorf("roll %s, witness %+v", r.State, got)
	}
}

// A load balancer is told before connections are refused.
func TestServeIsUnreadyBeforeItEnds(t *testing.T) {
	t.Parallel()
	h := newHouse(t, map[string]string{"DRAIN_DELAY": "5s"})
	s := h.serve()
	if code, err := status(t, s.url+"/readyz"); err != nil || code != http.StatusOK {
		t.Fatalf("readyz: %d, %v", code, err)
	}
	s.end()
	eventually(t, "unready", func() bool {
		code, err := status(t, s.url+"/readyz")
		must(t, err)
		return code == http.StatusServiceUnavailable
	})
	if code, err := status(t, s.url+"/healthz"); err != nil || code != http.StatusOK {
		t.Errorf("healthz while draining: %d, %v", code, err)
	}
	if code, _, stderr := shell(t.Context(), nil, "healthcheck", "--url", s.url+"/readyz"); code != exitFailed || !strings.Contains(stderr, "503") {
		t.Errorf("healthcheck while draining: code %d, %s", code, stderr)
	}
}

// A call under way may take its grace, and is cut off after it.
func TestServeCutsOffAfterItsGrace(t *testing.T) {
	t.Parallel()
	h := newHouse(t, map[string]string{"SHUTDOWN_GRACE": "100ms"})
	fault, err := h.sims.World.AddFault(sim.Fault{Service: sim.ServiceKeyVault, Operation: sim.OpCreateKey, Mode: sim.ModeHold, Count: 1})
	must(t, err)
	s := h.serve()
	h.approved(s, "spo")
	must(t, h.sims.World.WaitFault(t.Context(), fault))
	s.stop()
	if !strings.Contains(s.logs.String(), "calls under way are cut off") {
		t.Errorf("log:\n%s", s.logs)
	}
	must(t, h.sims.World.ReleaseFault(fault))
}

func TestServeReadsCredentialsAgain(t *testing.T) {
	h := newHouse(t, nil) // not parallel: a signal reaches all of the process
	s := h.serve()
	path := h.sims.file(fileCredentials)
	good, err := os.ReadFile(path)
	must(t, err)
	must(t, os.WriteFile(path, []byte("{}"), 0o600))
	must(t, syscall.Kill(os.Getpid(), syscall.SIGHUP))
	eventually(t, "refused", func() bool { return strings.Contains(s.logs.String(), "reloading credentials failed") })
	must(t, os.WriteFile(path, []byte(strings.Replace(string(good), "contoso", "other", 1)), 0o600))
	must(t, syscall.Kill(os.Getpid(), syscall.SIGHUP))
	eventually(t, "reloaded", func() bool { return strings.Contains(s.logs.String(), `"names":["other"]`) })
}

// What keeps a server from starting is said, without its secrets.
func TestServeDoesNotStart(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	settings := goodSettings(t)
	maps.Copy(settings, map[string]string{"DATABASE_URL": "postgres://u:" + canary + "@127.0.0.1:1/k?sslmode=disable"})
	if code, stdout, stderr := shell(ctx, environOf(settings), "serve"); code != exitFailed || !strings.Contains(stderr, "connecting to the database") || strings.Contains(stdout+stderr, canary) {
		t.Errorf("without a database: code %d, %s", code, stderr)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer ln.Close()
	h := newHouse(t, map[string]string{"LISTEN": ln.Addr().String()})
	if code, _, stderr := shell(ctx, h.environ, "serve"); code != exitFailed || !strings.Contains(stderr, "KEYROLL_LISTEN") {
		t.Errorf("on a port that is taken: code %d, %s", code, stderr)
	}
}

func TestSim(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "it's here")
	certificate := ""
	for range 2 { // the second start keeps the certificate
		ctx, cancel := context.WithCancel(t.Context())
		out, done := newLines(), make(chan error, 1)
		go func() {
			done <- run(ctx, []string{"sim", "--listen", "127.0.0.1:0", "--control", "127.0.0.1:0", "--out", dir}, nil, out, out)
		}()
		eventually(t, "serving", func() bool { return strings.Contains(out.String(), "Ctrl-C") })
		for name, mode := range map[string]os.FileMode{fileCA: 0o644, fileApp: 0o600, fileCredentials: 0o600, fileEnv: 0o644} {
			info, err := os.Stat(filepath.Join(dir, name))
			must(t, err)
			if info.Mode() != mode {
				t.Errorf("%s has mode %v", name, info.Mode())
			}
		}
		env, err := os.ReadFile(filepath.Join(dir, fileEnv))
		must(t, err)
		for _, want := range []string{"\nKEYROLL_ALLOW_SIMULATOR='true'\n", "\nKEYROLL_DIAL_MAP='", "it'\\''s here/ca.pem'\n"} {
			if !strings.Contains(string(env), want) {
				t.Errorf("%q is not in:\n%s", want, env)
			}
		}
		app, err := os.ReadFile(filepath.Join(dir, fileApp))
		must(t, err)
		if certificate == "" {
			certificate = string(app)
		} else if certificate != string(app) {
			t.Error("the second start made another certificate")
		}
		cancel()
		must(t, <-done)
	}
	left, err := filepath.Glob(filepath.Join(dir, ".*"))
	must(t, err)
	if len(left) > 0 {
		t.Errorf("left over: %v", left)
	}
}

func TestReachable(t *testing.T) {
	t.Parallel()
	for listen, want := range map[string]string{"": "127.0.0.1:8080", "0.0.0.0:9000": "127.0.0.1:9000", ":9000": "127.0.0.1:9000", "[::]:9000": "127.0.0.1:9000",
		"10.0.0.5:9000": "10.0.0.5:9000", "127.0.0.1:9000": "127.0.0.1:9000"} {
		if got := ownAddress(listen); got != want {
			t.Errorf("%q is reached at %s, want %s", listen, got, want)
		}
	}
}
