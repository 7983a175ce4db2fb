package store_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/keyroll/keyroll/internal/roll"
	"github.com/keyroll/keyroll/internal/store"
)

func upper(s string) string { return strings.ToUpper(s) }

// bells wake whoever drives a roll when a job for it is inserted, while the
// inserting transaction is still open: the sharpest moment there is.
type bells struct {
	mu sync.Mutex
	by map[string]chan struct{}
}

func (b *bells) of(id string) chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.by[id] == nil {
		b.by[id] = make(chan struct{}, 1)
	}
	return b.by[id]
}

func (b *bells) ring(id string) {
	select {
	case b.of(id) <- struct{}{}:
	default:
	}
}

func (b *bells) EnqueueTx(_ context.Context, _ pgx.Tx, wakes []store.Wake) error {
	for _, w := range wakes {
		b.ring(w.RollID)
	}
	return nil
}

// race is many rolls of one tenant after one lease. Most waiters only
// move when they are woken: one that is forgotten keeps the test from ending.
// The others ask again and again, as drivers do too: they meet the hand-over.
type race struct {
	*bench
	inv     roll.Inventory
	bells   *bells
	stores  []*store.Store
	inside  atomic.Int32
	granted atomic.Int32
	waited  atomic.Int32
	cancels atomic.Int32
}

// lost says that somebody else was first, which is no error here.
func lost(err error) bool {
	var refused *roll.TransitionError
	return errors.Is(err, store.ErrStale) || errors.Is(err, roll.ErrAlreadyApplied) || errors.As(err, &refused)
}

func (x *race) transition(st *store.Store, r roll.Roll, evs ...roll.Event) bool {
	_, err := st.Transition(x.t.Context(), r, evs...)
	if err != nil && !lost(err) {
		x.t.Errorf("%s: %v (%s)", evs[0].Type(), err, sqlState(err))
	}
	return err == nil
}

// drive takes one roll from its request to its end.
func (x *race) drive(st *store.Store, policy string, cancel int, asks bool) {
	ctx := x.t.Context()
	r, fx := x.fresh(x.inv, false, policy)
	if err := st.CreateRoll(ctx, r, fx, nil); err != nil {
		x.t.Error(err)
		return
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	queued, woken := make(chan struct{}), make(chan struct{})
	ended := make(chan struct{})
	defer close(ended)
	var onceQueued, onceWoken sync.Once
	wg.Go(func() {
		switch cancel {
		case 1: // at any moment from the beginning on
		case 2: // when it stands in the queue
			select {
			case <-queued:
			case <-ended:
				return
			}
		case 3: // when it is being handed the lease
			select {
			case <-woken:
			case <-ended:
				return
			}
		default:
			return
		}
		if now, err := st.Roll(ctx, r.ID); err == nil && x.transition(st, now, roll.Cancel{By: rita}) {
			x.cancels.Add(1)
		}
		x.bells.ring(r.ID)
	})
	for {
		now, err := st.Roll(ctx, r.ID)
		if err != nil {
			x.t.Error(err)
			return
		}
		if now.State.Final() {
			return
		}
		if x.step(st, now) {
			onceQueued.Do(func() { close(queued) })
			if asks {
				select {
				case <-x.bells.of(r.ID):
					onceWoken.Do(func() { close(woken) })
				default:
				}
				continue
			}
			select {
			case <-x.bells.of(r.ID):
				onceWoken.Do(func() { close(woken) })
			case <-ctx.Done():
				return
			}
		}
	}
}

// step does the next thing of a roll; it says whether the roll waits now.
func (x *race) step(st *store.Store, r roll.Roll) (waits bool) {
	get := func(k roll.StepKind) roll.Step { return x.stepOf(r, k, "") }
	begun := func(s roll.Step) roll.Begun {
		return roll.Begun{N: s.N, Worker: "w", RunFor: time.Minute, Settle: time.Minute}
	}
	pre, lease, create, op := get(roll.Preflight), get(roll.SharePointLease), get(roll.CreateKeyVersion), get(roll.SharePointRollKey)
	switch {
	case op.State == roll.StepRunning:
		// Only now does it matter that nobody else is here.
		if n := x.inside.Add(1); n != 1 {
			x.t.Errorf("%d operations at once", n)
		}
		if ok, err := st.HoldsLease(x.t.Context(), r.TenantID, "tenant", r.ID); err != nil || !ok {
			x.t.Errorf("an operation without the lease (%v)", err)
		}
		x.inside.Add(-1)
		x.transition(st, r, roll.Halted{N: op.N, Epoch: op.Epoch, Code: "enough", Detail: "enough", NotApplied: true})
	case r.State == roll.NeedsAttention:
		x.transition(st, r, roll.Cancel{By: arno})
	case pre.State == roll.StepReady:
		x.transition(st, r, begun(pre))
	case pre.State == roll.StepRunning:
		x.transition(st, r, roll.Done{N: pre.N, Epoch: pre.Epoch})
	case lease.State == roll.StepReady:
		x.transition(st, r, begun(lease))
	case lease.State == roll.StepRunning, lease.State == roll.StepWaiting:
		next, err := st.TakeLease(x.t.Context(), r, lease.N, lease.Epoch, time.Hour)
		if err != nil {
			if !lost(err) {
				x.t.Errorf("lease: %v (%s)", err, sqlState(err))
			}
			return false
		}
		s := next.Steps[lease.N-1]
		if s.State == roll.StepSucceeded {
			x.granted.Add(1)
			return false
		}
		if s.Position < 1 || s.Position > len(x.inv.Policies) {
			x.t.Errorf("position %d", s.Position)
		}
		x.waited.Add(1)
		return true
	case create.State == roll.StepReady:
		x.transition(st, r, begun(create))
	case create.State == roll.StepRunning:
		x.transition(st, r, roll.Done{N: create.N, Epoch: create.Epoch, Result: roll.Result{Version: strings.ReplaceAll(r.ID, "-", "")}})
	case op.State == roll.StepReady:
		x.transition(st, r, begun(op))
	default:
		x.t.Errorf("roll %s stands still in %s: lease %s, create %s, op %s", r.ID, r.State, lease.State, create.State, op.State)
	}
	return false
}

// Taking, leaving, cancelling and being handed the lease at the same moment:
// never two holders, never a lost waiter, never a deadlock, always in order.
func TestLeaseUnderRace(t *testing.T) {
	t.Parallel()
	const lanes, rounds = 12, 18
	b := newBench(t)
	x := &race{bench: b, inv: b.declare(geoInventory("a", lanes)), bells: &bells{by: map[string]chan struct{}{}}}
	for range 3 {
		_, pool := b.another(func(o *store.Options) { o.MaxConns = 8 })
		st := store.New(pool, x.bells)
		must(t, st.Ping(t.Context()))
		x.stores = append(x.stores, st)
	}
	// FIFO, held by the database itself: who gets the lease is the head of the queue.
	b.exec(`CREATE FUNCTION test_fifo() RETURNS trigger LANGUAGE plpgsql AS $$
	DECLARE head uuid;
	BEGIN
	  SELECT roll_id INTO head FROM sharepoint_queue WHERE tenant_id = NEW.tenant_id AND scope = NEW.scope ORDER BY place LIMIT 1;
	  IF NEW.holder IS NOT NULL AND NEW.holder IS DISTINCT FROM OLD.holder AND head IS DISTINCT FROM NEW.holder AND head IS NOT NULL THEN
	    RAISE EXCEPTION 'out of order' USING ERRCODE = 'KR999';
	  END IF;
	  IF NEW.holder IS NULL AND head IS NOT NULL THEN
	    RAISE EXCEPTION 'freed with a waiter' USING ERRCODE = 'KR998';
	  END IF;
	  RETURN NEW;
	END $$`)
	b.exec(`CREATE TRIGGER test_fifo BEFORE UPDATE ON sharepoint_leases FOR EACH ROW EXECUTE FUNCTION test_fifo()`)

	var wg sync.WaitGroup
	begun := time.Now()
	for lane := range lanes {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(1, uint64(lane)))
			for range rounds {
				cancel := 0
				if n := rng.IntN(6); n < 4 {
					cancel = n
				}
				x.drive(x.stores[rng.IntN(len(x.stores))], x.inv.Policies[lane].ID, cancel, lane%3 == 1)
			}
		})
	}
	all := make(chan struct{})
	go func() { wg.Wait(); close(all) }()
	select {
	case <-all:
	case <-time.After(3 * time.Minute):
		t.Fatalf("a waiter was lost: %+v", b.lease(x.inv))
	}
	if l := b.lease(x.inv); l.Holder != "" || len(l.Queue) != 0 {
		t.Errorf("at the end: %+v", l)
	}
	if n := one[int](b, `SELECT count(*) FROM rolls WHERE ended_at IS NULL OR in_flight`); n != 0 {
		t.Errorf("%d rolls not at rest", n)
	}
	b.verified()
	t.Logf("%d rolls in %v: granted %d, waited %d, cancelled %d", lanes*rounds, time.Since(begun).Round(time.Millisecond), x.granted.Load(), x.waited.Load(), x.cancels.Load())
}
