package jobs_test

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/keyroll/keyroll/internal/roll"
	"github.com/keyroll/keyroll/internal/sim"
)

// takeover is how long after a kill a roll may stand before another process
// has taken its step over.
const takeover = 15 * time.Second

// builtIn is where the server of the kill tests was built, "" if it was not.
var builtIn string

// unbuild takes it away at the end of all tests.
func unbuild() {
	if builtIn != "" {
		_ = os.RemoveAll(builtIn)
	}
}

// built is the real server, built once for all tests of this package.
var built = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "keyroll-kill-")
	if err != nil {
		return "", err
	}
	builtIn = dir
	path := filepath.Join(dir, "server")
	out, err := exec.Command("go", "build", "-o", path, "../../cmd/server").CombinedOutput()
	if err != nil {
		return "", &buildError{string(out), err}
	}
	return path, nil
})

type buildError struct {
	out string
	err error
}

func (e *buildError) Error() string { return e.err.Error() + "\n" + e.out }

// process is a `server serve` of the house's own, as a child.
type process struct {
	t    *testing.T
	cmd  *exec.Cmd
	log  *bytes.Buffer
	done chan error
}

// serve starts the real server as a process of its own and waits until its
// worker lives.
func (h *house) serve(settings ...string) *process {
	h.t.Helper()
	bin, err := built()
	must(h.t, err)
	before := h.workers()
	p := &process{t: h.t, log: &bytes.Buffer{}, done: make(chan error, 1)}
	p.cmd = exec.Command(bin, "serve")
	p.cmd.Env = append(foreign(os.Environ()),
		"KEYROLL_DATABASE_URL="+h.url, "KEYROLL_LISTEN=127.0.0.1:0", "KEYROLL_CREDENTIALS_FILE="+filepath.Join(h.dir, "credentials.json"),
		"KEYROLL_DIAL_MAP="+h.sim.DialMap(), "KEYROLL_EXTRA_CA_FILE="+filepath.Join(h.dir, "ca.pem"), "KEYROLL_ALLOW_SIMULATOR=true",
		"KEYROLL_KEY_VAULT_CALL=2s", "KEYROLL_EXCHANGE_CALL=2s", "KEYROLL_SHAREPOINT_CALL=2s", "KEYROLL_READ_CALL=5s",
		"KEYROLL_KEY_VAULT_SETTLE=1s", "KEYROLL_EXCHANGE_SETTLE=1s", "KEYROLL_SHAREPOINT_SETTLE=1s",
		"KEYROLL_SHAREPOINT_POLL=200ms", "KEYROLL_SHAREPOINT_DWELL=500ms")
	p.cmd.Env = append(p.cmd.Env, settings...)
	p.cmd.Stdout, p.cmd.Stderr = p.log, p.log
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	must(h.t, p.cmd.Start())
	go func() { p.done <- p.cmd.Wait() }()
	h.t.Cleanup(func() { _ = p.cmd.Process.Kill() })
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for limit := time.After(30 * time.Second); ; {
		if h.workers() > before {
			return p
		}
		select {
		case <-tick.C:
		case err := <-p.done:
			h.t.Fatalf("serve ended: %v\n%s", err, p.log)
		case <-limit:
			h.t.Fatalf("serve has no worker\n%s", p.log)
		}
	}
}

// foreign leaves out the settings of this test run: serve refuses those it does not know.
func foreign(environ []string) []string {
	return slices.DeleteFunc(environ, func(kv string) bool { return strings.HasPrefix(kv, "KEYROLL_") })
}

func (h *house) workers() int {
	h.t.Helper()
	st, err := h.st.Stats(context.Background())
	must(h.t, err)
	return st.Workers
}

// kill ends the process as a power cut would.
func (p *process) kill() {
	p.t.Helper()
	must(p.t, p.cmd.Process.Kill())
	<-p.done
}

// TestKillInEveryStep kills the server in the middle of each kind of step: a
// call held before its effect, or its answer held after it. Another process,
// there already or started afterwards, brings the roll to its end.
func TestKillInEveryStep(t *testing.T) {
	if testing.Short() {
		t.Skip("kills real processes")
	}
	for _, c := range []struct {
		name, policy string
		fault        sim.Fault
		replica      bool
		// defaults: with the heartbeat's own settings, for the takeover's figure;
		// the others are quicker, to the same effect.
		defaults bool
	}{
		{"preflight", "exo-na", sim.Fault{Service: "keyvault", Operation: sim.OpGetKey, Mode: sim.ModeHold, Count: 1}, false, false},
		{"create, before the effect", "exo-na", sim.Fault{Service: "keyvault", Operation: sim.OpCreateKey, Mode: sim.ModeHold, Count: 1}, false, false},
		{"create, after the effect", "exo-na", sim.Fault{Service: "keyvault", Operation: sim.OpCreateKey, Mode: sim.ModeHoldAfter, Count: 1}, true, true},
		{"refresh, before the effect", "exo-na", sim.Fault{Service: "exchange", Operation: sim.OpSetDEP, Mode: sim.ModeHold, Count: 1}, true, false},
		{"refresh, after the effect", "exo-na", sim.Fault{Service: "exchange", Operation: sim.OpSetDEP, Mode: sim.ModeHoldAfter, Count: 1}, false, false},
		{"multi-workload refresh, after the effect", "global", sim.Fault{Service: "exchange", Operation: sim.OpSetM365DEP, Mode: sim.ModeHoldAfter, Count: 1}, true, false},
		{"verify", "exo-na", sim.Fault{Service: "exchange", Operation: sim.OpGetDEP, Mode: sim.ModeHold, Count: 1, After: 4}, true, false},
		{"sharepoint create, after the effect", "spo", sim.Fault{Service: "keyvault", Operation: sim.OpCreateKey, Vault: "contoso-spo-b", Mode: sim.ModeHoldAfter, Count: 1}, false, false},
		{"sharepoint roll, before the effect", "spo", sim.Fault{Service: "sharepoint", Operation: sim.OpRollKey, Mode: sim.ModeHold, Count: 1}, true, false},
		{"sharepoint roll, after the effect", "spo", sim.Fault{Service: "sharepoint", Operation: sim.OpRollKey, Mode: sim.ModeHoldAfter, Count: 1}, false, true},
		{"sharepoint await", "spo", sim.Fault{Service: "sharepoint", Operation: sim.OpGetStatus, Mode: sim.ModeHold, Count: 1, After: 4}, true, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t)
			h.declare()
			r := h.request(c.policy)
			id, err := h.sim.World.AddFault(c.fault)
			must(t, err)
			heart := []string{"KEYROLL_HEARTBEAT=300ms", "KEYROLL_WORKER_STALE=1s", "KEYROLL_WORKER_SILENCE=2s", "KEYROLL_SWEEP=200ms"}
			if c.defaults {
				heart = nil
			}
			first := h.serve(heart...)
			h.approve(r.ID)
			must(t, h.sim.World.WaitFault(t.Context(), id))
			if c.replica {
				h.serve(heart...)
			}
			r, err = h.st.Roll(t.Context(), r.ID)
			must(t, err)
			first.kill()
			killed := time.Now()
			must(t, h.sim.World.ReleaseFault(id))
			if !c.replica {
				h.serve(heart...)
			}
			h.takenOver(r, killed)
			r = h.ended(r.ID)
			if r.State != roll.Succeeded {
				t.Fatalf("ended %s\n%s", r.State, show(r))
			}
			h.check(r)
			if c.policy == "spo" && h.sim.World.SharePointOperations(h.inv.TenantID) != 2 {
				t.Errorf("%d SharePoint operations, want 2", h.sim.World.SharePointOperations(h.inv.TenantID))
			}
			t.Logf("at its end %.1f s after the kill", r.EndedAt.Sub(killed).Seconds())
		})
	}
}

// takenOver waits until another process has written to the roll.
func (h *house) takenOver(before roll.Roll, killed time.Time) {
	h.t.Helper()
	h.await(before.ID, "taken over", func(r roll.Roll) bool { return r.Version > before.Version })
	took := time.Since(killed)
	h.t.Logf("taken over %.1f s after the kill", took.Seconds())
	if took > takeover {
		h.t.Errorf("taken over after %s, want within %s", took, takeover)
	}
}

// TestKillWhileQueued: the waiter's process dies in the queue, and the
// holder's in the middle of its operation; both rolls end, in order.
func TestKillWhileQueued(t *testing.T) {
	if testing.Short() {
		t.Skip("kills real processes")
	}
	t.Parallel()
	h := newHouse(t)
	h.declare()
	p := h.serve()
	first, second := h.holding()
	p.kill()
	killed := time.Now()
	h.rate(2000)
	h.endOperation()
	h.serve()
	first, second = h.ended(first.ID), h.ended(second.ID)
	if first.State != roll.Succeeded || second.State != roll.Succeeded {
		t.Fatalf("ended %s and %s\n%s%s", first.State, second.State, show(first), show(second))
	}
	if a, b := step(first, roll.SharePointAwait).EndedAt, step(second, roll.SharePointRollKey).StartedAt; b.Before(*a) {
		t.Errorf("the second operation began before the first ended")
	}
	t.Logf("both at their end %.1f s after the kill", second.EndedAt.Sub(killed).Seconds())
	h.check(first)
	h.check(second)
	h.leaseIsFree()
}

// TestZombie: a process is stopped in the middle of a call for longer than
// others wait for it, its work is taken over, and then it goes on. Nothing that
// it still does is recorded, and nothing happens twice.
func TestZombie(t *testing.T) {
	if testing.Short() {
		t.Skip("stops real processes")
	}
	t.Parallel()
	h := newHouse(t)
	h.declare()
	r := h.request("exo-na")
	id, err := h.sim.World.AddFault(sim.Fault{Service: "keyvault", Operation: sim.OpCreateKey, Mode: sim.ModeHoldAfter, Count: 1})
	must(t, err)
	first := h.serve()
	h.approve(r.ID)
	must(t, h.sim.World.WaitFault(t.Context(), id))
	r, err = h.st.Roll(t.Context(), r.ID)
	must(t, err)
	must(t, first.cmd.Process.Signal(syscall.SIGSTOP))
	stopped := time.Now()
	h.serve()
	h.takenOver(r, stopped)
	must(t, h.sim.World.ReleaseFault(id))
	must(t, first.cmd.Process.Signal(syscall.SIGCONT))
	if r = h.ended(r.ID); r.State != roll.Succeeded {
		t.Fatalf("ended %s\n%s", r.State, show(r))
	}
	h.check(r)
}

// TestDrain: SIGTERM in the middle of a call lets it end and records it; the
// process exits with 0, and another one goes on.
func TestDrain(t *testing.T) {
	if testing.Short() {
		t.Skip("starts real processes")
	}
	t.Parallel()
	h := newHouse(t)
	h.declare()
	r := h.request("exo-na")
	id, err := h.sim.World.AddFault(sim.Fault{Service: "keyvault", Operation: sim.OpCreateKey, Mode: sim.ModeHold, Count: 1})
	must(t, err)
	p := h.serve()
	h.approve(r.ID)
	must(t, h.sim.World.WaitFault(t.Context(), id))
	must(t, p.cmd.Process.Signal(syscall.SIGTERM))
	must(t, h.sim.World.ReleaseFault(id))
	select {
	case err := <-p.done:
		if err != nil {
			t.Errorf("serve ended with %v\n%s", err, p.log)
		}
	case <-time.After(20 * time.Second):
		t.Fatalf("serve did not end\n%s", p.log)
	}
	r, err = h.st.Roll(t.Context(), r.ID)
	must(t, err)
	for _, s := range r.Steps {
		if s.State == roll.StepRunning || s.IntentOpen {
			t.Errorf("step %d was left %s, intent open %v", s.N, s.State, s.IntentOpen)
		}
	}
	h.serve()
	if r = h.ended(r.ID); r.State != roll.Succeeded {
		t.Fatalf("ended %s\n%s", r.State, show(r))
	}
	h.check(r)
}
