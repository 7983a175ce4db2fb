package jobs_test

import (
	"context"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/keyroll/keyroll/internal/control"
	"github.com/keyroll/keyroll/internal/jobs"
	"github.com/keyroll/keyroll/internal/roll"
	"github.com/keyroll/keyroll/internal/sim"
	"github.com/keyroll/keyroll/internal/store"
)

// requestKey asks for a roll of one key.
func (h *house) requestKey(id string) roll.Roll {
	h.t.Helper()
	var made roll.Roll
	_, err := h.ctl.Request(h.t.Context(), requester(), roll.Request{TenantID: h.inv.TenantID, Keys: []roll.KeyRequest{{Type: roll.RootKey, ID: id}},
		Reason: roll.Reason{Code: "compliance_requirement", Text: "annual"}}, control.Idempotency{Key: uuid.NewString(), BodyHash: []byte("x"),
		Render: func(r roll.Roll) (store.Answer, error) { made = r; return store.Answer{Status: 202}, nil }})
	must(h.t, err)
	return made
}

func step(r roll.Roll, k roll.StepKind) roll.Step {
	for _, s := range r.Steps {
		if s.Kind == k && s.Round == r.Round {
			return s
		}
	}
	return roll.Step{}
}

// rate sets how fast SharePoint rolls from now on.
func (h *house) rate(sitesPerSecond float64) {
	h.t.Helper()
	must(h.t, h.sim.World.SetSharePoint(sim.SharePointSettings{Tenant: h.inv.TenantID, SitesPerSecond: &sitesPerSecond}))
}

func (h *house) leaseIsFree() {
	h.t.Helper()
	leases, err := h.st.Leases(context.Background(), h.inv.TenantID)
	must(h.t, err)
	for _, l := range leases {
		if l.Holder != "" || len(l.Queue) > 0 {
			h.t.Errorf("lease %s is held by %q, queue %v", l.Scope, l.Holder, l.Queue)
		}
	}
}

// holding brings a first roll to its SharePoint operation and a second one
// into the queue behind it.
func (h *house) holding() (first, second roll.Roll) {
	h.t.Helper()
	h.rate(0.001)
	first = h.requestKey("spo-a")
	h.approve(first.ID)
	first = h.await(first.ID, "rolling", func(r roll.Roll) bool { return step(r, roll.SharePointAwait).Seen == "Rolling" })
	second = h.requestKey("spo-b")
	h.approve(second.ID)
	second = h.await(second.ID, "in the queue", func(r roll.Roll) bool {
		s := step(r, roll.SharePointLease)
		return s.WaitingFor == roll.WaitQueue && s.Position == 1
	})
	return first, second
}

// endOperation lets SharePoint's operation under way end.
func (h *house) endOperation() { h.sim.World.Advance(1000 * time.Hour) }

func TestRollsQueueForSharePoint(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.declare()
	cfg := quick()
	cfg.QueueCheck = time.Hour // the hand-over wakes the heir; nothing else does
	h.work(cfg)
	first, second := h.holding()
	h.rate(2000)
	h.endOperation()
	first, second = h.ended(first.ID), h.ended(second.ID)
	if first.State != roll.Succeeded || second.State != roll.Succeeded {
		t.Fatalf("ended %s and %s\n%s", first.State, second.State, show(second))
	}
	if a, b := step(first, roll.SharePointAwait).EndedAt, step(second, roll.SharePointRollKey).StartedAt; b.Before(*a) {
		t.Errorf("the second operation began at %s, the first ended at %s", b, a)
	}
	h.check(first)
	h.check(second)
	h.leaseIsFree()
}

func TestCancelOfWaiterLeavesTheQueue(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.declare()
	h.work(quick())
	first, second := h.holding()
	_, err := h.ctl.Cancel(t.Context(), requester(), second.ID, "not today")
	must(t, err)
	second = h.ended(second.ID)
	if second.State != roll.Cancelled || len(second.LeftBehind) != 0 {
		t.Errorf("ended %s, left behind %v", second.State, second.LeftBehind)
	}
	h.rate(2000)
	h.endOperation()
	h.check(h.ended(first.ID))
	h.leaseIsFree()
}

// TestCancelOfHolderIsWatchedToTheEnd: an operation under way keeps the lease
// although its roll is cancelled, and then hands it on.
func TestCancelOfHolderIsWatchedToTheEnd(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.declare()
	h.work(quick())
	first, second := h.holding()
	first, err := h.ctl.Cancel(t.Context(), requester(), first.ID, "stop")
	must(t, err)
	if first.State != roll.Cancelling {
		t.Fatalf("after cancel %s", first.State)
	}
	leases, err := h.st.Leases(t.Context(), h.inv.TenantID)
	must(t, err)
	if leases[0].Holder != first.ID {
		t.Errorf("the lease went to %q while an operation was under way", leases[0].Holder)
	}
	h.rate(2000)
	h.endOperation()
	first, second = h.ended(first.ID), h.ended(second.ID)
	if first.State != roll.Cancelled || second.State != roll.Succeeded {
		t.Errorf("ended %s and %s\n%s", first.State, second.State, show(first))
	}
	if len(first.LeftBehind) != 0 {
		t.Errorf("left behind %v although SharePoint took the version up", first.LeftBehind)
	}
	h.check(second)
	h.leaseIsFree()
}

// TestHandOverAgainstCancel: the holder ends while the head of its queue is
// cancelled and others wait; nobody is lost and nothing stays held.
func TestHandOverAgainstCancel(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.declare()
	h.work(quick())
	first, second := h.holding()
	h.rate(2000)
	var wg sync.WaitGroup
	wg.Go(h.endOperation)
	wg.Go(func() {
		if _, err := h.ctl.Cancel(context.Background(), requester(), second.ID, "race"); err != nil {
			t.Errorf("cancel: %v", err)
		}
	})
	wg.Wait()
	first, second = h.ended(first.ID), h.ended(second.ID)
	if first.State != roll.Succeeded || (second.State != roll.Cancelled && second.State != roll.Succeeded) {
		t.Errorf("ended %s and %s", first.State, second.State)
	}
	third := h.requestKey("spo-b")
	h.approve(third.ID)
	if third = h.ended(third.ID); third.State != roll.Succeeded {
		t.Errorf("a later roll ended %s\n%s", third.State, show(third))
	}
	if n := h.sim.World.Overlaps(h.inv.TenantID); n != 0 {
		t.Errorf("%d overlaps", n)
	}
	h.leaseIsFree()
}

// TestTwoProcessesShareTheWork: rolls of several tenants, two drivers on one
// database; both take part, and every roll is right.
func TestTwoProcessesShareTheWork(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.declare()
	cfg := quick()
	cfg.Lane = 50 * time.Millisecond // so that work changes hands
	h.work(cfg)
	h.work(cfg)
	var rolls []roll.Roll
	for _, p := range []string{"global", "exo-na", "spo"} {
		r := h.request(p)
		h.approve(r.ID)
		rolls = append(rolls, r)
	}
	for _, r := range rolls {
		r = h.ended(r.ID)
		if r.State != roll.Succeeded {
			t.Fatalf("ended %s\n%s", r.State, show(r))
		}
		h.check(r)
	}
}

// TestShortLanesLoseNothing: every job is cut short, again and again, after it
// has gone on to later steps; the roll ends as if it had not been.
func TestShortLanesLoseNothing(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.declare()
	cfg := quick()
	cfg.Lane = time.Millisecond
	h.work(cfg)
	r := h.request("global", "exo-na", "spo")
	h.approve(r.ID)
	if r = h.ended(r.ID); r.State != roll.Succeeded {
		t.Fatalf("ended %s\n%s", r.State, show(r))
	}
	h.check(r)
}

// shaky panics in the first calls of Policy, which a refresh makes after its
// roll has gone on from the creates.
type shaky struct {
	jobs.Tenants
	mu     sync.Mutex
	panics int
}

func (s *shaky) Policy(ctx context.Context, inv roll.Inventory, p roll.Policy, via roll.Transport) (roll.PolicyObservation, map[string]roll.KeyObservation, error) {
	s.mu.Lock()
	n := s.panics
	s.panics--
	s.mu.Unlock()
	if n > 0 {
		panic("a fault of Keyroll")
	}
	return s.Tenants.Policy(ctx, inv, p, via)
}

func (h *house) workWith(t jobs.Tenants, cfg jobs.Config) {
	h.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	d := jobs.NewDriver(h.st, t, cfg, uuid.NewString(), quietLog(), jobs.NewMetrics(prometheus.NewRegistry()))
	ready, lived := make(chan struct{}), make(chan error, 1)
	go func() { lived <- d.Live(ctx, ready) }()
	<-ready
	client, err := jobs.NewClient(h.pool, d, quietLog())
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

func TestPanicsLoseNothing(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.declare()
	h.workWith(&shaky{Tenants: jobs.Through(h.gw), panics: 3}, quick())
	r := h.request("exo-na", "spo")
	h.approve(r.ID)
	if r = h.ended(r.ID); r.State != roll.Succeeded {
		t.Fatalf("ended %s\n%s", r.State, show(r))
	}
	h.check(r)
}

func TestPanicsWithoutEndHalt(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.declare()
	h.workWith(&shaky{Tenants: jobs.Through(h.gw), panics: 1 << 30}, quick())
	r := h.request("exo-na")
	h.approve(r.ID)
	r = h.halted(r.ID)
	if r.Attention.Code != "step_crashed" || r.Attention.Action == "" {
		t.Errorf("attention %+v", r.Attention)
	}
	h.check(r)
}

// TestCancelListsWhatIsLeftBehind: versions that no policy took up are named,
// and the next plan offers to adopt them.
func TestCancelListsWhatIsLeftBehind(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.declare()
	h.work(quick())
	r := h.request("spo")
	id, err := h.sim.World.AddFault(sim.Fault{Service: "keyvault", Operation: sim.OpCreateKey, Vault: "contoso-spo-a", Mode: sim.ModeHoldAfter, Count: 1})
	must(t, err)
	h.approve(r.ID)
	must(t, h.sim.World.WaitFault(t.Context(), id))
	r, err = h.ctl.Cancel(t.Context(), requester(), r.ID, "stop")
	must(t, err)
	if r.State != roll.Cancelling {
		t.Fatalf("after cancel %s", r.State)
	}
	must(t, h.sim.World.ReleaseFault(id))
	r = h.ended(r.ID)
	if r.State != roll.Cancelled || len(r.LeftBehind) != 1 || r.LeftBehind[0].Key != "spo-a" {
		t.Fatalf("ended %s, left behind %+v\n%s", r.State, r.LeftBehind, show(r))
	}
	if n := h.sim.World.Requests("sharepoint", sim.OpRollKey); n != 0 {
		t.Errorf("%d roll requests after the cancel", n)
	}
	plan, err := h.ctl.Plan(t.Context(), requester(), roll.Request{TenantID: h.inv.TenantID, Policies: []string{"spo"}, Reason: roll.Reason{Code: "other", Text: "x"}})
	must(t, err)
	if !slices.ContainsFunc(plan.Findings, func(f roll.Finding) bool { return f.Code == "version_left_behind" }) {
		t.Errorf("the next plan does not offer the version: %+v", plan.Findings)
	}
	h.leaseIsFree()
}
