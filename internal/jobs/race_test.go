package jobs_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/keyroll/keyroll/internal/control"
	"github.com/keyroll/keyroll/internal/jobs"
	"github.com/keyroll/keyroll/internal/roll"
	"github.com/keyroll/keyroll/internal/sim"
	"github.com/keyroll/keyroll/internal/store"
)

// TestClaimOverAnUnseenClaim: between a lane's look at the roll and its claim
// another process claims the step, makes a version, loses the answer and dies.
// The claim then meets an intent that the lane never saw; it must settle it.
func TestClaimOverAnUnseenClaim(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.declare()
	r := h.requestKey("exo-a")
	h.approve(r.ID)
	const vault = "contoso-exo-a"
	throttle := sim.Fault{Service: "keyvault", Operation: sim.OpCreateKey, Mode: sim.ModeThrottle, Count: 1}
	h.fault(throttle)
	first := h.peer(unwatched())
	ctx, cancel := context.WithCancel(t.Context())
	end := first.drive(ctx, r.ID)
	r = h.await(r.ID, "throttled", func(r roll.Roll) bool { return stepOf(r, roll.CreateKeyVersion, "exo-a").Error != nil })
	cancel()
	end()
	if stepOf(r, roll.CreateKeyVersion, "exo-a").IntentOpen {
		t.Errorf("a refused call left its intent open\n%s", show(r))
	}
	h.until(*stepOf(r, roll.CreateKeyVersion, "exo-a").NextAttemptAt)

	slow, quicker := h.peer(unwatched()), h.peer(unwatched())
	meanwhile := func() {
		h.fault(sim.Fault{Service: "keyvault", Operation: sim.OpCreateKey, Vault: vault, Mode: sim.ModeApplyAndLose, Count: 1})
		h.fault(sim.Fault{Service: "keyvault", Operation: sim.OpListVersions, Vault: vault, Mode: sim.ModeThrottle, Count: 1})
		ctx, cancel := context.WithCancel(context.Background())
		end := quicker.drive(ctx, r.ID)
		open := h.await(r.ID, "open, with nobody at it", func(r roll.Roll) bool {
			s := stepOf(r, roll.CreateKeyVersion, "exo-a")
			return s.State == roll.StepReady && s.IntentOpen
		})
		cancel()
		end()
		h.until(*stepOf(open, roll.CreateKeyVersion, "exo-a").NextAttemptAt)
	}
	slow.sql.before.Store(&meanwhile)
	slow.drive(t.Context(), r.ID)()
	if r = h.ended(r.ID); r.State != roll.Succeeded {
		t.Fatalf("ended %s\n%s", r.State, show(r))
	}
	h.check(r)
}

// TestLongCallHoldsUpNothing: a call that takes its time keeps no other step
// of the roll from its next attempt, without a sweeper's help.
func TestLongCallHoldsUpNothing(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.declare()
	r := h.request("exo-na")
	h.approve(r.ID)
	held := h.fault(sim.Fault{Service: "keyvault", Operation: sim.OpCreateKey, Vault: "contoso-exo-a", Mode: sim.ModeHold, Count: 1})
	h.fault(sim.Fault{Service: "keyvault", Operation: sim.OpCreateKey, Vault: "contoso-exo-b", Mode: sim.ModeThrottle, Count: 1})
	cfg := quick()
	cfg.CallKeyVault = time.Minute
	cfg.Stale = time.Minute // nobody beats for this driver
	end := h.peer(cfg).drive(t.Context(), r.ID)
	h.fired(held)
	r = h.await(r.ID, "half made", func(r roll.Roll) bool {
		return stepOf(r, roll.CreateKeyVersion, "exo-b").State == roll.StepSucceeded
	})
	if s := stepOf(r, roll.CreateKeyVersion, "exo-a"); s.State != roll.StepRunning {
		t.Errorf("the held step is %s", s.State)
	}
	must(t, h.sim.World.ReleaseFault(held))
	end()
	h.check(h.ended(r.ID))
}

// TestManyJobsForOneRoll: surplus jobs in one process and in another drive
// nothing twice.
func TestManyJobsForOneRoll(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.declare()
	r := h.request("global", "exo-na", "spo")
	h.approve(r.ID)
	one, two := h.peer(unwatched()), h.peer(unwatched())
	defer one.live()()
	defer two.live()()
	var wg sync.WaitGroup
	for range 10 {
		for _, p := range []*peer{one, two} {
			wg.Go(func() {
				if _, err := p.d.Drive(context.Background(), r.ID); err != nil {
					t.Errorf("drive: %v", err)
				}
			})
		}
	}
	wg.Wait()
	if r = h.ended(r.ID); r.State != roll.Succeeded {
		t.Fatalf("ended %s\n%s", r.State, show(r))
	}
	h.check(r)
	for service, ops := range map[string]map[string]int{"keyvault": {sim.OpCreateKey: 6}, "exchange": {sim.OpSetDEP: 1, sim.OpSetM365DEP: 1}, "sharepoint": {sim.OpRollKey: 2}} {
		for op, want := range ops {
			if got := h.sim.World.Requests(service, op); got != want {
				t.Errorf("%d requests of %s, want %d", got, op, want)
			}
		}
	}
}

// TestJobEndsInMidCall: the job's time is up while a call is under way; what
// the call did is found by the next job.
func TestJobEndsInMidCall(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, policy, service, op string }{
		{"create", "exo-na", "keyvault", sim.OpCreateKey},
		{"refresh", "exo-na", "exchange", sim.OpSetDEP},
		{"sharepoint roll", "spo", "sharepoint", sim.OpRollKey},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t)
			h.declare()
			r := h.request(c.policy)
			h.approve(r.ID)
			held := h.fault(sim.Fault{Service: c.service, Operation: c.op, Mode: sim.ModeHoldAfter, Count: 1})
			p := h.peer(unwatched())
			ctx, cancel := context.WithCancel(t.Context())
			end := p.drive(ctx, r.ID)
			h.fired(held)
			cancel()
			end()
			must(t, h.sim.World.ReleaseFault(held))
			r, err := h.st.Roll(t.Context(), r.ID)
			must(t, err)
			for _, s := range r.Steps {
				if s.State == roll.StepRunning {
					t.Errorf("step %d was left running: its end was not recorded\n%s", s.N, show(r))
				}
			}
			h.work(quick())
			if r = h.ended(r.ID); r.State != roll.Succeeded {
				t.Fatalf("ended %s\n%s", r.State, show(r))
			}
			h.check(r)
			if c.policy == "spo" && h.sim.World.SharePointOperations(h.inv.TenantID) != 2 {
				t.Errorf("%d SharePoint operations", h.sim.World.SharePointOperations(h.inv.TenantID))
			}
		})
	}
}

// TestDrainBeginsNothing: what is under way ends and is recorded, and the step
// after it is left to another process.
func TestDrainBeginsNothing(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.declare()
	r := h.requestKey("exo-a")
	h.approve(r.ID)
	held := h.fault(sim.Fault{Service: "keyvault", Operation: sim.OpCreateKey, Mode: sim.ModeHold, Count: 1})
	p := h.peer(quick())
	end := p.drive(t.Context(), r.ID)
	h.fired(held)
	p.d.Drain()
	must(t, h.sim.World.ReleaseFault(held))
	end()
	r, err := h.st.Roll(t.Context(), r.ID)
	must(t, err)
	if a, b := stepOf(r, roll.CreateKeyVersion, "exo-a"), step(r, roll.RefreshPolicy); a.State != roll.StepSucceeded || b.StartedAt != nil {
		t.Errorf("after the drain create is %s, refresh %s\n%s", a.State, b.State, show(r))
	}
	h.work(quick())
	h.check(h.ended(r.ID))
}

func hasOpenIntent(r roll.Roll) bool {
	for _, s := range r.Steps {
		if s.IntentOpen {
			return true
		}
	}
	return false
}

// cutting ends every connection to the database in the middle of calls.
type cutting struct {
	jobs.Tenants
	mu   sync.Mutex
	left int
	cut  func()
}

func (c *cutting) Policy(ctx context.Context, inv roll.Inventory, p roll.Policy, via roll.Transport) (roll.PolicyObservation, map[string]roll.KeyObservation, error) {
	c.now()
	return c.Tenants.Policy(ctx, inv, p, via)
}

func (c *cutting) Survey(ctx context.Context, inv roll.Inventory) (roll.Observation, error) {
	c.now()
	return c.Tenants.Survey(ctx, inv)
}

func (c *cutting) now() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.left > 0 {
		c.left--
		c.cut()
	}
}

// TestConnectionsCut: the database ends all connections in the middle of
// steps; what could not be recorded is settled, and nothing happens twice.
func TestConnectionsCut(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.declare()
	p := h.peer(unwatched(), func(t jobs.Tenants) jobs.Tenants { return &cutting{Tenants: t, left: 4, cut: h.cut} })
	r := h.request("exo-na", "spo")
	h.approve(r.ID)
	defer p.live()()
	r = h.endedDespiteCuts(r.ID)
	if r.State != roll.Succeeded {
		t.Fatalf("ended %s\n%s", r.State, show(r))
	}
	h.check(r)
}

// endedDespiteCuts is ended for a database that throws its readers out.
func (h *house) endedDespiteCuts(id string) roll.Roll {
	h.t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	limit := time.After(30 * time.Second)
	for {
		r, err := h.st.Roll(context.Background(), id)
		if err == nil && r.State.Final() {
			return r
		}
		select {
		case <-tick.C:
		case <-limit:
			h.t.Fatalf("roll never ended (%v):\n%s", err, show(r))
		}
	}
}

// TestNoEffectWithoutHeartbeat: a process that has not heard from the database
// for too long claims nothing; and if that happens to it after the last look
// before a call, it does not call.
func TestNoEffectWithoutHeartbeat(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, key     string
		service, look string // the last look before the call
		after         int    // looks of that kind before it
		effect        string
	}{
		{"create", "exo-a", "keyvault", sim.OpGetKey, 2, sim.OpCreateKey},
		{"refresh", "exo-a", "exchange", sim.OpGetDEP, 2, sim.OpSetDEP},
		{"sharepoint roll", "spo-a", "sharepoint", sim.OpGetStatus, 2, sim.OpRollKey},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t)
			h.declare()
			r := h.requestKey(c.key)
			h.approve(r.ID)
			held := h.fault(sim.Fault{Service: c.service, Operation: c.look, Vault: vaultOf(h, c.service, c.key), Mode: sim.ModeHold, Count: 1, After: c.after})
			cfg := quick()
			cfg.Stale = 1500 * time.Millisecond
			p := h.peer(cfg)
			ctx, cancel := context.WithCancel(t.Context())
			end := p.drive(ctx, r.ID)
			h.fired(held)
			h.stale(p, cfg)
			must(t, h.sim.World.ReleaseFault(held))
			r = h.await(r.ID, "stopped for want of a heartbeat", func(r roll.Roll) bool {
				for _, s := range r.Steps {
					if s.Error != nil && s.Error.Code == "heartbeat_stale" {
						return true
					}
				}
				return false
			})
			if n := h.sim.World.Requests(c.service, c.effect); n != 0 {
				t.Errorf("%d calls of %s without a heartbeat", n, c.effect)
			}
			if hasOpenIntent(r) {
				t.Errorf("an intent was left open although nothing was called\n%s", show(r))
			}
			cancel()
			end()
			// Nor does it claim anything now.
			before := r.Version
			ctx, cancel = context.WithTimeout(t.Context(), 300*time.Millisecond)
			defer cancel()
			p.drive(ctx, r.ID)()
			if r, _ = h.st.Roll(t.Context(), r.ID); r.Version != before {
				t.Errorf("version %d, want %d: it claimed a step\n%s", r.Version, before, show(r))
			}
			must(t, p.st.Ping(t.Context()))
			h.work(quick())
			h.check(h.ended(r.ID))
		})
	}
}

func vaultOf(h *house, service, key string) string {
	if service != "keyvault" {
		return ""
	}
	k, _ := h.inv.KeyByID(key)
	return k.VaultName()
}

func (h *house) stale(p *peer, cfg jobs.Config) {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for p.st.Clock().Age() <= cfg.Stale {
		<-tick.C
	}
}

// TestWaitingRollIsQuiet: a roll that waits in place asks the database
// nothing, and one that waits longer gives its job up.
func TestWaitingRollIsQuiet(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.declare()
	h.rate(0.001)
	r := h.requestKey("spo-a")
	h.approve(r.ID)
	cfg := quick()
	cfg.Poll, cfg.ShortWait, cfg.Stale = 1500*time.Millisecond, 2*time.Second, time.Hour
	p := h.peer(cfg)
	ctx, cancel := context.WithCancel(t.Context())
	end := p.drive(ctx, r.ID)
	h.await(r.ID, "rolling", func(r roll.Roll) bool { return step(r, roll.SharePointAwait).Seen == "Rolling" })
	before, from := p.sql.n.Load(), time.Now()
	h.until(h.st.Now().Add(time.Second))
	if n := p.sql.n.Load() - before; n > 4 {
		t.Errorf("%d statements in %s by a roll that waits", n, time.Since(from))
	}
	cancel()
	end()
	cfg.Poll = time.Hour
	q := h.peer(cfg)
	h.until(h.st.Now().Add(600 * time.Millisecond)) // past the look that is due
	wake, err := q.d.Drive(t.Context(), r.ID)
	must(t, err)
	if wake.IsZero() {
		t.Errorf("the roll wants never to be driven again")
	}
}

// TestStartTimeAndApprovalExpiry: what time does, it does after a restart too.
func TestStartTimeAndApprovalExpiry(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.declare()
	start := h.st.Now().Add(2 * time.Second)
	later := h.requestWith(h.ctl, roll.Request{Policies: []string{"exo-na"}, StartAt: &start})
	h.approve(later.ID)
	impatient := control.New(h.st, h.gw, control.Config{ApprovalPatience: time.Second, Simulated: true})
	expires := h.requestWith(impatient, roll.Request{Policies: []string{"global"}})
	h.peer(quick()).live()()
	if r, _ := h.st.Roll(t.Context(), later.ID); r.State != roll.Scheduled {
		t.Fatalf("before its time the roll is %s", r.State)
	}
	h.work(quick())
	later, expires = h.ended(later.ID), h.ended(expires.ID)
	if s := step(later, roll.Preflight).StartedAt; later.State != roll.Succeeded || s.Before(start) || s.Sub(start) > 10*time.Second {
		t.Errorf("ended %s, began %s after its time", later.State, s.Sub(start))
	}
	if expires.State != roll.Cancelled || expires.EndCode != "approval_expired" {
		t.Errorf("not approved: %s, %s", expires.State, expires.EndCode)
	}
	h.check(later)
}

func (h *house) requestWith(ctl *control.Control, req roll.Request) roll.Roll {
	h.t.Helper()
	req.TenantID = h.inv.TenantID
	if req.Reason.Code == "" {
		req.Reason = roll.Reason{Code: "compliance_requirement", Text: "annual"}
	}
	var made roll.Roll
	_, err := ctl.Request(h.t.Context(), requester(), req, control.Idempotency{Key: uuid.NewString(), BodyHash: []byte("x"),
		Render: func(r roll.Roll) (store.Answer, error) { made = r; return store.Answer{Status: 202}, nil }})
	must(h.t, err)
	return made
}
