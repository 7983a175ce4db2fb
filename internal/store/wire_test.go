package store_test

import (
	"context"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/keyroll/keyroll/internal/roll"
	"github.com/keyroll/keyroll/internal/store"
)

// wire counts round trips: a write that follows a read begins a new one.
type wire struct {
	net.Conn
	n       *atomic.Int64
	waiting atomic.Bool
}

func (w *wire) Write(p []byte) (int, error) {
	if !w.waiting.Swap(true) {
		w.n.Add(1)
	}
	return w.Conn.Write(p)
}

func (w *wire) Read(p []byte) (int, error) {
	n, err := w.Conn.Read(p)
	if n > 0 {
		w.waiting.Store(false)
	}
	return n, err
}

func counted(trips *atomic.Int64) func(*store.Options) {
	return func(o *store.Options) {
		o.MaxConns = 1
		o.Configure = func(c *pgxpool.Config) {
			// A ping of a connection that was idle is no part of a transition.
			c.ShouldPing = func(context.Context, pgxpool.ShouldPingParams) bool { return false }
			dial := c.ConnConfig.DialFunc
			c.ConnConfig.DialFunc = func(ctx context.Context, network, addr string) (net.Conn, error) {
				conn, err := dial(ctx, network, addr)
				if err != nil {
					return nil, err
				}
				return &wire{Conn: conn, n: trips}, nil
			}
		}
	}
}

// The usual transition is one round trip, guard, steps, audit entry and events
// included; so is a stale one, which commits nothing.
func TestTransitionIsOneRoundTrip(t *testing.T) {
	t.Parallel()
	var trips atomic.Int64
	b := newBench(t, counted(&trips))
	inv := b.declare(inventory("a"))
	warm := b.create(inv, "global")
	b.through(b.read(warm.ID)) // statements are prepared once a connection

	r := b.read(b.create(inv, "exo-na").ID)
	count := func(what string, want int64, f func()) {
		t.Helper()
		trips.Store(0)
		f()
		if n := trips.Load(); n != want {
			t.Errorf("%s: %d round trips, want %d", what, n, want)
		}
	}
	count("a ping", 1, func() { must(t, b.st.Ping(t.Context())) })
	n := b.stepOf(r, roll.Preflight, "").N
	old := r
	count("claim", 1, func() { r = b.apply(r, roll.Begun{N: n, Worker: "w1", RunFor: time.Minute}) })
	count("end and next claim", 1, func() {
		c := b.stepOf(r, roll.CreateKeyVersion, "exo-a").N
		r = b.apply(r, roll.Done{N: n, Epoch: 1, Result: roll.Result{}}, roll.Begun{N: c, Worker: "w1", RunFor: time.Minute, Settle: time.Minute})
	})
	count("end with a ledger entry", 1, func() {
		s := b.stepOf(r, roll.CreateKeyVersion, "exo-a")
		r = b.apply(r, roll.Done{N: s.N, Epoch: s.Epoch, Result: wellDone(r, s)})
	})
	before := b.written()
	count("stale", 1, func() {
		if _, err := b.st.TransitionAt(t.Context(), old, roll.Begun{N: n, Worker: "w2", RunFor: time.Minute}); err == nil {
			t.Error("a stale claim succeeded")
		}
	})
	if after := b.written(); after != before {
		t.Errorf("a stale claim changed something:\n%s\n%s", before, after)
	}
	b.verified()
}
