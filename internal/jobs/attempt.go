package jobs

import (
	"context"
	"fmt"
	"log/slog"
	"runtime/debug"
	"strings"
	"time"

	"github.com/keyroll/keyroll/internal/roll"
	"github.com/keyroll/keyroll/internal/store"
)

// attempt is one attempt of one step. settle says that an intent of an earlier
// attempt is open: what became of it is found out before anything is called.
type attempt struct {
	d      *Driver
	inv    roll.Inventory
	roll   roll.Roll
	step   roll.Step
	settle bool
	poll   bool // a look at a waiting step, without a claim: nothing may be called
	due    bool // the open intent's deadline had passed before this claim
	ended  bool // and so what it may have done is done: a halt closes it
}

func stack() string { return string(debug.Stack()) }

func (a *attempt) now() time.Time { return a.d.store.Now() }

// do runs the attempt and returns the event that records its end.
func (a *attempt) do(ctx context.Context) roll.Event {
	start := time.Now()
	ev := a.dispatch(ctx)
	a.d.metrics.attempt(a.step, ev)
	a.d.log.LogAttrs(ctx, slog.LevelInfo, "step attempt", slog.String("roll", a.roll.ID), slog.String("tenant", a.roll.TenantID),
		slog.Int("step", a.step.N), slog.String("kind", string(a.step.Kind)), slog.Int("attempt", a.step.Attempt),
		slog.Int64("epoch", a.step.Epoch), slog.String("op_id", a.step.OpID), slog.Bool("settle", a.settle),
		slog.String("event", ev.Type()), slog.Int64("duration_ms", time.Since(start).Milliseconds()))
	return ev
}

func (a *attempt) dispatch(ctx context.Context) roll.Event {
	if a.roll.State != roll.Running && !a.settle && a.step.Kind != roll.SharePointAwait {
		// A claim of a worker that is gone, in a roll that has stopped: let go.
		return roll.WillRetry{N: a.step.N, Epoch: a.step.Epoch, At: a.now()}
	}
	// The declaration is read at every attempt: it may have been edited since
	// the plan, and what is declared now is what the rules are held against.
	t, err := a.d.store.Tenant(ctx, a.roll.TenantID)
	if err != nil {
		return roll.WillRetry{N: a.step.N, Epoch: a.step.Epoch, At: a.now().Add(a.d.cfg.BackoffBase), Code: "database",
			Detail: "the tenant's declaration could not be read", NotApplied: !a.settle}
	}
	a.inv = t.Inventory
	if a.poll && roll.ForCalendar(a.step.WaitingFor) {
		return a.calendarChanged()
	}
	if a.step.IntentOpen && !a.settle && !a.poll {
		if ev := a.shut(a.inv); ev != nil {
			return ev
		}
	}
	switch a.step.Kind {
	case roll.Preflight:
		return a.preflight(ctx)
	case roll.CreateKeyVersion:
		return a.create(ctx)
	case roll.RefreshPolicy:
		return a.refresh(ctx)
	case roll.SharePointRollKey:
		return a.rollKey(ctx)
	case roll.SharePointAwait:
		return a.await(ctx)
	case roll.Verify:
		return a.verify(ctx)
	}
	return a.halt("unknown_step", fmt.Sprintf("this version of Keyroll does not know steps of kind %q", a.step.Kind), "upgrade every replica, then retry")
}

// Events of this step.
func (a *attempt) done(res roll.Result) roll.Event {
	return roll.Done{N: a.step.N, Epoch: a.step.Epoch, Result: res}
}

// halt stops before anything was called: an intent of this attempt is closed
// as one that did nothing; an older one stays open unless it can land no more.
func (a *attempt) halt(code, detail, action string) roll.Event {
	return roll.Halted{N: a.step.N, Epoch: a.step.Epoch, Code: code, Detail: detail, Action: action, NotApplied: !a.settle, OpEnded: a.ended}
}

func (a *attempt) fault(f *roll.Fault) roll.Event { return a.halt(f.Code, f.Seen, f.Remedy) }

// later tries the step again at a time, leaving an open intent open.
func (a *attempt) later(at time.Time, code, detail string) roll.Event {
	return roll.WillRetry{N: a.step.N, Epoch: a.step.Epoch, At: at, Code: code, Detail: detail}
}

// notApplied closes the open intent as one that did nothing, and goes on at once.
func (a *attempt) notApplied() roll.Event {
	return roll.WillRetry{N: a.step.N, Epoch: a.step.Epoch, At: a.now(), NotApplied: true}
}

// deadlinePassed says whether an effect of the open intent can land no more.
func (a *attempt) deadlinePassed() bool {
	return a.due || a.step.IntentDeadline == nil || !a.now().Before(*a.step.IntentDeadline)
}

func (a *attempt) deadline() time.Time {
	if a.step.IntentDeadline == nil {
		return a.now()
	}
	return *a.step.IntentDeadline
}

// mayAct is asked just before a call that changes something: this process must
// have heard from the database lately, or others may have taken its work over.
func (a *attempt) mayAct() bool { return a.d.store.Clock().Age() <= a.d.cfg.Stale }

func (a *attempt) tooStale() roll.Event {
	return roll.WillRetry{N: a.step.N, Epoch: a.step.Epoch, At: a.now().Add(a.d.cfg.Heartbeat), Code: "heartbeat_stale",
		Detail: "this process has not heard from the database lately, so it begins no effect", NotApplied: !a.settle}
}

// key is a declared key; it must be where the plan saw it.
func (a *attempt) key(id string) (roll.Key, *roll.Fault) {
	k, ok := a.inv.KeyByID(id)
	pk, _ := a.roll.Plan.KeyByID(id)
	if !ok || !k.Ref().SameKey(roll.Key{VaultURL: pk.VaultURL, Name: pk.Name}.Ref()) {
		return k, &roll.Fault{Code: "declaration_changed", Seen: "key " + id + " is declared otherwise than when the plan was made", Remedy: "replan"}
	}
	return k, nil
}

// policy is a declared policy; it must still be the one that was planned: the
// plan that people approved names it by its GUID, and one person may edit that.
func (a *attempt) policy() (roll.Policy, *roll.Fault) {
	p, ok := a.inv.PolicyByID(a.step.Policy)
	if !ok {
		return p, &roll.Fault{Code: "declaration_changed", Seen: "policy " + a.step.Policy + " is not declared any more", Remedy: "declare it again and retry, or replan"}
	}
	for _, planned := range a.roll.Plan.Policies {
		if planned.ID == p.ID && (planned.Workload != p.Workload || !strings.EqualFold(planned.GUID, p.GUID)) {
			return p, &roll.Fault{Code: "declaration_changed", Seen: "policy " + p.ID + " is declared otherwise than when the plan was made", Remedy: "declare it as it was and retry, or replan"}
		}
	}
	return p, nil
}

// preflight makes the plan again, from what Microsoft shows now.
func (a *attempt) preflight(ctx context.Context) roll.Event {
	obs, err := a.d.tenants.Survey(ctx, a.inv)
	if err != nil {
		return a.failed(err)
	}
	var keys []roll.KeyRequest
	for _, k := range a.roll.Plan.Keys {
		keys = append(keys, k.Again())
	}
	if err := a.d.store.NoteTransports(ctx, a.inv, obs.Transports); err != nil {
		return a.later(a.now().Add(a.d.cfg.BackoffBase), "database", "the chosen transports could not be written")
	}
	if obs.Unproven, err = a.d.store.UnprovenOperations(ctx, a.inv.TenantID); err != nil {
		return a.later(a.now().Add(a.d.cfg.BackoffBase), "database", "the operations of earlier rolls could not be read")
	}
	plan, err := roll.Build(a.inv, roll.Resolved{Request: a.roll.Request, Keys: keys}, obs, a.now())
	if err != nil {
		return a.failed(err)
	}
	if err := a.d.store.RecordLedger(ctx, a.inv, obs, store.OriginStranger); err != nil {
		return a.later(a.now().Add(a.d.cfg.BackoffBase), "database", "the ledger could not be written")
	}
	if bad := plan.Errors(); len(bad) > 0 {
		return roll.Halted{N: a.step.N, Epoch: a.step.Epoch, Code: "preflight_" + bad[0].Code, Detail: bad[0].Seen,
			Action: bad[0].Remedy + "; then retry", Findings: plan.Findings}
	}
	if plan.Hash != a.roll.Plan.Hash {
		return roll.PlanChanged{N: a.step.N, Epoch: a.step.Epoch, Plan: plan}
	}
	return a.done(roll.Result{Source: "survey"})
}
