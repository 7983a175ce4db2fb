package jobs_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/keyroll/keyroll/internal/access"
	"github.com/keyroll/keyroll/internal/control"
	"github.com/keyroll/keyroll/internal/jobs"
	"github.com/keyroll/keyroll/internal/roll"
	"github.com/keyroll/keyroll/internal/sim"
)

// late is a configuration whose calls end before what they began.
func late(call, settle time.Duration) jobs.Config {
	c := quick()
	c.CallKeyVault, c.CallExchange, c.CallSharePoint = call, call, call
	c.SettleKeyVault, c.SettleExchange, c.SettleSharePoint = settle, settle, settle
	return c
}

// TestEffectLandsAfterTheCall: the call's time is up, and only then does its
// effect land, before the intent's deadline. It is found, not repeated.
func TestEffectLandsAfterTheCall(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, key, service, op, look string
		uriVersion                   bool
		// slow: the look that is under way when the effect lands shows the time
		// before it, and arrives after the deadline.
		slow  bool
		calls int
	}{
		{"create", "exo-a", "keyvault", sim.OpCreateKey, sim.OpListVersions, true, false, 1},
		{"create, and a list that is out of date", "exo-a", "keyvault", sim.OpCreateKey, sim.OpListVersions, true, true, 1},
		{"refresh", "exo-a", "exchange", sim.OpSetDEP, "", true, false, 2},
		{"sharepoint roll", "spo-a", "sharepoint", sim.OpRollKey, sim.OpGetStatus, true, false, 1},
		{"sharepoint roll, and a status that is out of date", "spo-a", "sharepoint", sim.OpRollKey, sim.OpGetStatus, false, true, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t, func(s *sim.Seed, _ *roll.Inventory) { s.Tenants[0].SharePoint.URIVersion = &c.uriVersion })
			h.declare()
			h.rate(100) // slow enough to be seen
			r := h.requestKey(c.key)
			h.approve(r.ID)
			held := h.fault(sim.Fault{Service: c.service, Operation: c.op, Mode: sim.ModeHold, Count: 1})
			cfg := late(2*time.Second, 700*time.Millisecond)
			h.work(cfg)
			h.fired(held)
			open := h.openIntent(r.ID)
			if c.slow {
				look := h.fault(sim.Fault{Service: c.service, Operation: c.look, Mode: sim.ModeHoldAfter, Count: 1})
				h.fired(look)
				must(t, h.sim.World.ReleaseFault(held))
				h.await(r.ID, "applied", func(roll.Roll) bool { return h.applied(c.op) == 1 })
				h.until(open.IntentDeadline.Add(50 * time.Millisecond))
				must(t, h.sim.World.ReleaseFault(look))
			} else {
				h.until(*open.RunUntil)
				h.await(r.ID, "without an answer", func(r roll.Roll) bool {
					s, _ := r.StepByN(open.N)
					return s.State != roll.StepRunning && s.IntentOpen
				})
				must(t, h.sim.World.ReleaseFault(held))
			}
			if r = h.ended(r.ID); r.State != roll.Succeeded {
				t.Fatalf("ended %s\n%s", r.State, show(r))
			}
			h.check(r)
			if got := h.applied(c.op); got != c.calls {
				t.Errorf("%s took effect %d times, want %d\n%s", c.op, got, c.calls, show(r))
			}
		})
	}
}

// openIntent is the step of the roll whose intent is open.
func (h *house) openIntent(id string) (open roll.Step) {
	h.t.Helper()
	h.await(id, "with an open intent", func(r roll.Roll) bool {
		for _, s := range r.Steps {
			if s.IntentOpen {
				open = s
				return true
			}
		}
		return false
	})
	return open
}

// applied counts how often an operation took effect for the API.
func (h *house) applied(op string) int {
	n := 0
	for _, e := range h.sim.World.Witness() {
		if e.Operation == op && e.Applied && e.By == "api" {
			n++
		}
	}
	return n
}

// TestTwoFaults: a lost answer, and something else before it is settled.
func TestTwoFaults(t *testing.T) {
	t.Parallel()
	lost := func(service, op string) sim.Fault {
		return sim.Fault{Service: service, Operation: op, Mode: sim.ModeApplyAndLose, Count: 1}
	}
	const vaultA, keyA = "contoso-exo-a", "Contoso-EXO-A-Key001"
	for _, c := range []struct {
		name, key string
		first     sim.Fault
		// then happens when the answer is lost and nobody has looked yet.
		then func(h *house)
		// halt is the code with which the roll stops, "" where it does not.
		halt string
		mend func(h *house)
		way  string
		op   string // whose effects are counted
		want int
	}{
		{name: "create lost, lists throttled", key: "exo-a", first: lost("keyvault", sim.OpCreateKey),
			then: fault(sim.Fault{Service: "keyvault", Operation: sim.OpListVersions, Mode: sim.ModeThrottle, Count: 2}), op: sim.OpCreateKey, want: 1},
		{name: "create lost, permission removed", key: "exo-a", first: lost("keyvault", sim.OpCreateKey),
			then: func(h *house) { h.permit(vaultA, false) }, halt: "keyvault_forbidden",
			mend: func(h *house) { h.permit(vaultA, true) }, way: "retry", op: sim.OpCreateKey, want: 1},
		{name: "create lost, key declared elsewhere", key: "exo-a", first: lost("keyvault", sim.OpCreateKey),
			then: func(h *house) { h.redeclare(swapKeys(h.inv, "exo-a", "m-a"), 1) }, halt: "declaration_changed",
			mend: func(h *house) { h.redeclare(h.inv, 2) }, way: "retry", op: sim.OpCreateKey, want: 1},
		{name: "create lost, stranger's version", key: "exo-a", first: lost("keyvault", sim.OpCreateKey),
			then: func(h *house) {
				_, err := h.sim.World.StrangerVersion(vaultA, keyA, nil)
				must(h.t, err)
			}, halt: roll.CodeStranger, mend: nothing, way: control.StrangersAdopt, op: sim.OpCreateKey, want: 1},
		{name: "refresh lost, stranger's version", key: "exo-a", first: lost("exchange", sim.OpSetDEP),
			then: func(h *house) {
				_, err := h.sim.World.StrangerVersion(vaultA, keyA, nil)
				must(h.t, err)
			}, halt: roll.CodeStranger, mend: nothing, way: control.StrangersAdopt, op: sim.OpCreateKey, want: 1},
		{name: "refresh lost, role removed", key: "exo-a", first: lost("exchange", sim.OpSetDEP),
			then: fault(sim.Fault{Service: "exchange", Operation: sim.OpGetDEP, Mode: sim.ModeRefuse, Count: 1, Params: sim.FaultParams{Status: 403, Code: "Microsoft.Exchange.Configuration.Authorization.CmdletAccessDeniedException"}}),
			halt: "exchange_forbidden", mend: nothing, way: "retry", op: sim.OpSetDEP, want: 2},
		{name: "refresh lost, policy disabled", key: "exo-a", first: lost("exchange", sim.OpSetDEP),
			then: func(h *house) { putExo(h, func(p *sim.Policy) { p.Enabled = no() }) }, halt: "policy_disabled",
			mend: func(h *house) { putExo(h, func(p *sim.Policy) { p.Enabled = yes() }) }, way: "retry", op: sim.OpSetDEP, want: 2},
		{name: "roll never arrived, the other slot rolled by hand", key: "spo-a",
			first: sim.Fault{Service: "sharepoint", Operation: sim.OpRollKey, Mode: sim.ModeLoseBefore, Count: 1},
			then: func(h *house) {
				must(h.t, h.sim.World.RollByHand(h.inv.TenantID, "NAM", "secondary", sim.Slot{}))
			}, op: sim.OpRollKey, want: 1},
		{name: "roll never arrived, the same slot rolled by hand to our version", key: "spo-a",
			first: sim.Fault{Service: "sharepoint", Operation: sim.OpRollKey, Mode: sim.ModeLoseBefore, Count: 1},
			then: func(h *house) {
				must(h.t, h.sim.World.RollByHand(h.inv.TenantID, "NAM", "primary", sim.Slot{}))
			}, op: sim.OpRollKey, want: 0},
		{name: "roll taken and lost, status throttled", key: "spo-a", first: lost("sharepoint", sim.OpRollKey),
			then: fault(sim.Fault{Service: "sharepoint", Operation: sim.OpGetStatus, Mode: sim.ModeThrottle, Count: 2}), op: sim.OpRollKey, want: 1},
		{name: "roll taken and lost, permission removed", key: "spo-a", first: lost("sharepoint", sim.OpRollKey),
			then: fault(sim.Fault{Service: "sharepoint", Operation: sim.OpGetStatus, Mode: sim.ModeRefuse, Count: 1, Params: sim.FaultParams{Status: 403}}),
			halt: "sharepoint_forbidden", mend: nothing, way: "retry", op: sim.OpRollKey, want: 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t)
			h.declare()
			h.rate(300)
			r := h.requestKey(c.key)
			h.approve(r.ID)
			first := h.fault(c.first)
			// The process that lost the answer ends before it looks again.
			ctx, cancel := context.WithCancel(t.Context())
			wait := h.fault(sim.Fault{Service: c.first.Service, Operation: lookAfter(c.first.Operation), After: looksBefore(c.first.Operation), Mode: sim.ModeHold, Count: 1})
			end := h.peer(unwatched()).drive(ctx, r.ID)
			h.fired(first)
			h.openIntent(r.ID)
			cancel()
			end()
			must(t, h.sim.World.RemoveFault(wait))
			c.then(h)
			h.work(quick())
			if c.halt != "" {
				r = h.halted(r.ID)
				if r.Attention.Code != c.halt {
					t.Fatalf("attention %+v, want %s\n%s", r.Attention, c.halt, show(r))
				}
				c.mend(h)
				if c.way != "retry" {
					r = h.await(r.ID, "settled", func(r roll.Roll) bool { return !r.Unsettled() })
				}
				h.goOn(r, c.way)
			}
			if r = h.ended(r.ID); r.State != roll.Succeeded {
				t.Fatalf("ended %s\n%s", r.State, show(r))
			}
			h.check(r)
			if got := h.applied(c.op); got != c.want {
				t.Errorf("%s took effect %d times, want %d\n%s", c.op, got, c.want, show(r))
			}
			h.leaseIsFree()
		})
	}
}

// lookAfter is the read with which a lost answer is settled, and looksBefore
// how many of its kind the roll makes before the effect.
func lookAfter(op string) string {
	switch op {
	case sim.OpCreateKey:
		return sim.OpListVersions
	case sim.OpRollKey:
		return sim.OpGetStatus
	}
	return sim.OpGetDEP
}

func looksBefore(op string) int {
	if op == sim.OpCreateKey {
		return 6 // preflight, one for each key
	}
	return 3 // preflight, before the call, and once more
}

func (h *house) redeclare(inv roll.Inventory, version int64) {
	h.t.Helper()
	_, err := h.ctl.Declare(context.Background(), admin(), inv, version)
	var pending *control.ChangePending
	if errors.As(err, &pending) {
		_, err = h.ctl.ApproveChange(h.t.Context(), person("bea", access.Admin, access.Approver), inv.TenantID, pending.Change.ID, pending.Change.Hash, "")
	}
	must(h.t, err)
}

// swapKeys declares two keys under each other's id; the policies stay as
// they are at Microsoft.
func swapKeys(inv roll.Inventory, a, b string) roll.Inventory {
	out := inv
	out.Keys, out.Policies = slices.Clone(inv.Keys), slices.Clone(inv.Policies)
	other := map[string]string{a: b, b: a}
	for i := range out.Keys {
		if id, ok := other[out.Keys[i].ID]; ok {
			out.Keys[i].ID = id
		}
	}
	for i := range out.Policies {
		out.Policies[i].Keys = slices.Clone(inv.Policies[i].Keys)
		for j, id := range out.Policies[i].Keys {
			if o, ok := other[id]; ok {
				out.Policies[i].Keys[j] = o
			}
		}
	}
	return out
}

func (h *house) permit(vault string, yes bool) {
	h.t.Helper()
	must(h.t, h.sim.World.SetPermission(sim.Permission{Tenant: h.inv.TenantID, KeyVault: map[string]bool{vault: yes}}))
}

// TestSlotWithoutVersion: where SharePoint shows its keys without a version, a
// whole roll ends accepted, never confirmed, and each slot is rolled once.
func TestSlotWithoutVersion(t *testing.T) {
	t.Parallel()
	for _, lost := range []bool{false, true} {
		h := newHouse(t, func(s *sim.Seed, _ *roll.Inventory) { s.Tenants[0].SharePoint.URIVersion = no() })
		h.declare()
		h.rate(300)
		if lost {
			h.fault(sim.Fault{Service: "sharepoint", Operation: sim.OpRollKey, Mode: sim.ModeApplyAndLose, Count: 2})
		}
		h.work(quick())
		r := h.request("spo")
		h.approve(r.ID)
		r = h.ended(r.ID)
		if r.State != roll.Succeeded || r.Outcome != roll.Accepted {
			t.Fatalf("lost %v: ended %s, outcome %s\n%s", lost, r.State, r.Outcome, show(r))
		}
		h.check(r)
		if n := h.applied(sim.OpRollKey); n != 2 {
			t.Errorf("lost %v: %d operations, want 2", lost, n)
		}
	}
}

// TestRegisteredTooEarly: SharePoint shows Registered for a moment after it
// took the roll, and the slot names the new version from the roll's beginning.
// That is not the end.
func TestRegisteredTooEarly(t *testing.T) {
	t.Parallel()
	for _, uriVersion := range []bool{true, false} {
		h := newHouse(t, func(s *sim.Seed, _ *roll.Inventory) {
			s.Tenants[0].SharePoint.URIVersion, s.Tenants[0].SharePoint.URIChange = &uriVersion, "start"
		})
		h.declare()
		h.rate(100)
		r := h.requestKey("spo-a")
		h.approve(r.ID)
		// Preflight, twice before the call: then the first two looks of the await,
		// and one more when Rolling has been seen.
		h.fault(sim.Fault{Service: "sharepoint", Operation: sim.OpGetStatus, After: 3, Mode: sim.ModeStatus, Count: 2, Params: sim.FaultParams{Status: sim.StatusRegistered}})
		h.fault(sim.Fault{Service: "sharepoint", Operation: sim.OpGetStatus, After: 7, Mode: sim.ModeStatus, Count: 1, Params: sim.FaultParams{Status: sim.StatusRegistered}})
		h.work(quick())
		if r = h.ended(r.ID); r.State != roll.Succeeded {
			t.Fatalf("ended %s\n%s", r.State, show(r))
		}
		for _, e := range h.sim.World.Witness() {
			if e.Operation == sim.OpRollKey && (e.End.IsZero() || step(r, roll.SharePointAwait).EndedAt.Before(e.End)) {
				t.Errorf("uri version %v: taken for done before its end\n%s", uriVersion, show(r))
			}
		}
		h.check(r)
	}
}

// TestActsOnOpenIntents: while nobody knows what became of a call, a replan is
// refused, a cancel watches it to its end, and an abandon by two people ends
// our watch.
func TestActsOnOpenIntents(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, key, service, op string }{
		{"create", "exo-a", "keyvault", sim.OpCreateKey},
		{"refresh", "exo-a", "exchange", sim.OpSetDEP},
		{"sharepoint roll", "spo-a", "sharepoint", sim.OpRollKey},
	} {
		for _, act := range []string{"cancel", "abandon"} {
			t.Run(c.name+", "+act, func(t *testing.T) {
				t.Parallel()
				h := newHouse(t)
				h.declare()
				h.rate(300)
				r := h.requestKey(c.key)
				h.approve(r.ID)
				held := h.fault(sim.Fault{Service: c.service, Operation: c.op, Mode: sim.ModeHold, Count: 1})
				h.work(late(500*time.Millisecond, 1500*time.Millisecond))
				h.fired(held)
				open := h.openIntent(r.ID)
				h.until(*open.RunUntil)
				if act == "abandon" {
					_, err := h.ctl.Abandon(t.Context(), requester(), r.ID, "no hope")
					must(t, err)
					if r, err = h.ctl.Abandon(t.Context(), approver(), r.ID, "none"); err != nil || r.State != roll.Failed || r.EndCode != "abandoned" {
						t.Fatalf("after two abandons %s, %s: %v", r.State, r.EndCode, err)
					}
					must(t, h.sim.World.ReleaseFault(held))
					leases, err := h.st.Leases(t.Context(), h.inv.TenantID)
					must(t, err)
					if held := leases[0].Holder == r.ID; held != (c.service == "sharepoint") {
						t.Errorf("an abandon freed the lease over an operation under way, or kept it without one: holder %q", leases[0].Holder)
					}
					return
				}
				if _, err := h.ctl.Replan(t.Context(), requester(), r.ID, control.StrangersAdopt); !refusedAs(err, roll.RefusedState, roll.RefusedInFlight) {
					t.Errorf("replan over an open intent: %v", err)
				}
				_, err := h.ctl.Cancel(t.Context(), requester(), r.ID, "stop")
				must(t, err)
				must(t, h.sim.World.ReleaseFault(held))
				if r = h.ended(r.ID); r.State != roll.Cancelled {
					t.Fatalf("ended %s\n%s", r.State, show(r))
				}
				if n := h.sim.World.Requests(c.service, c.op); n != 1 {
					t.Errorf("%d calls, want 1", n)
				}
				if c.service == "keyvault" && len(r.LeftBehind) != 1 {
					t.Errorf("left behind %v", r.LeftBehind)
				}
				if n := h.sim.World.Overlaps(h.inv.TenantID); n != 0 {
					t.Errorf("%d overlaps", n)
				}
				h.leaseIsFree()
			})
		}
	}
}

func refusedAs(err error, codes ...string) bool {
	var refused *roll.TransitionError
	if !errors.As(err, &refused) {
		return false
	}
	for _, c := range codes {
		if refused.Code == c {
			return true
		}
	}
	return false
}

// TestLeaseTakenAwayInFlight: two people release the lease while an operation
// is under way. The operation is watched to its end; the next one halts, and a
// retry asks for the lease again.
func TestLeaseTakenAwayInFlight(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.declare()
	h.rate(0.001)
	h.work(quick())
	r := h.request("spo")
	h.approve(r.ID)
	r = h.await(r.ID, "rolling", func(r roll.Roll) bool {
		for _, s := range r.Steps {
			if s.Kind == roll.SharePointAwait && s.Seen == "Rolling" {
				return true
			}
		}
		return false
	})
	scope := step(r, roll.SharePointLease).Params.Scope
	done, _, err := h.ctl.ReleaseLease(t.Context(), requester(), h.inv.TenantID, scope, "stuck")
	if err != nil || done {
		t.Fatalf("first release: %v %v", done, err)
	}
	done, _, err = h.ctl.ReleaseLease(t.Context(), admin(), h.inv.TenantID, scope, "stuck indeed")
	if err != nil || !done {
		t.Fatalf("second release: %v %v", done, err)
	}
	h.rate(2000)
	h.endOperation()
	r = h.halted(r.ID)
	if r.Attention.Code != "lease_lost" || r.Attention.Action == "" {
		t.Fatalf("attention %+v\n%s", r.Attention, show(r))
	}
	if n := h.sim.World.Requests("sharepoint", sim.OpRollKey); n != 1 {
		t.Errorf("%d roll requests without the lease", n)
	}
	h.goOnRetry(r)
	if r = h.ended(r.ID); r.State != roll.Succeeded {
		t.Fatalf("ended %s\n%s", r.State, show(r))
	}
	h.check(r)
	h.leaseIsFree()
}

// TestSlotChangedUnderUs: our operation ends, and somebody puts the old version
// back before anybody has looked. That is no end of ours; a replan rolls again.
func TestSlotChangedUnderUs(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.declare()
	h.rate(0.001)
	cfg := quick()
	cfg.Poll = 1500 * time.Millisecond
	h.work(cfg)
	r := h.requestKey("spo-a")
	h.approve(r.ID)
	r = h.await(r.ID, "rolling", func(r roll.Roll) bool { return step(r, roll.SharePointAwait).Seen == "Rolling" })
	h.endOperation()
	h.rate(1e9)
	k, _ := r.KeyByID("spo-a")
	must(t, h.sim.World.RollByHand(h.inv.TenantID, "NAM", "primary", sim.Slot{Vault: "contoso-spo-a", Key: k.Name, Version: k.OldVersion}))
	if r = h.halted(r.ID); r.Attention.Code != "sharepoint_slot_unchanged" {
		t.Fatalf("attention %+v\n%s", r.Attention, show(r))
	}
	r, err := h.ctl.Replan(t.Context(), requester(), r.ID, "")
	must(t, err)
	h.approve(r.ID)
	r = h.ended(r.ID)
	h.check(r)
	if n := h.sim.World.SharePointOperations(h.inv.TenantID); r.State != roll.Succeeded || n != 2 {
		t.Errorf("ended %s after %d operations, want succeeded after 2\n%s", r.State, n, show(r))
	}
	h.leaseIsFree()
}
