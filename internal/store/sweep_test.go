package store_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/keyroll/keyroll/internal/roll"
	"github.com/keyroll/keyroll/internal/store"
)

// swept sweeps once and says how many jobs were inserted.
func (b *bench) swept(st *store.Store) int {
	b.t.Helper()
	b.jobs.taken()
	n, err := st.Sweep(b.t.Context(), 10*time.Second)
	must(b.t, err)
	if w := b.jobs.taken(); len(w) != n {
		b.t.Errorf("%d swept, %d jobs", n, len(w))
	}
	return n
}

func TestSweep(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	inv := b.declare(inventory("a"))
	r := b.read(b.create(inv, "exo-na").ID)
	want := func(what string, n int) {
		t.Helper()
		if got := b.swept(b.st); got != n {
			t.Errorf("%s: %d swept, want %d", what, got, n)
		}
	}
	late := func(d string) {
		b.exec(`UPDATE rolls SET wake_at = clock_timestamp() - $1::interval, swept_at = swept_at - '0 s'::interval WHERE ended_at IS NULL`, d)
	}
	late("4 s")
	want("not late enough", 0)
	late("6 s")
	want("late", 1)
	want("swept a moment ago", 0)
	if d := one[float64](b, `SELECT extract(epoch FROM wake_at - clock_timestamp())::float8 FROM rolls`); d < 25 || d > 31 {
		t.Errorf("put off by %v s", d)
	}

	// A running step whose worker shows no sign of life; the wake-up is far off.
	h, err := b.st.NewHeart(t.Context(), "w1")
	must(t, err)
	r, _ = b.begin(r, roll.Preflight, "")
	want("worker alive", 0)
	b.exec(`UPDATE workers SET beat_at = clock_timestamp() - '11 s'::interval`)
	want("worker silent", 1)
	b.exec(`UPDATE workers SET beat_at = clock_timestamp() - '2 minutes'::interval`)
	want("swept a moment ago", 0)
	again := func(d string) { b.exec(`UPDATE rolls SET swept_at = swept_at - $1::interval`, d) }
	again("29 s")
	want("29 s after the last", 0)
	again("2 s")
	want("31 s after the last", 1)
	// The job of that sweep died with the worker that took it, before anything moved.
	h2, err := b.st.NewHeart(t.Context(), "w3")
	must(t, err)
	want("another worker lives", 0)
	b.exec(`UPDATE workers SET beat_at = clock_timestamp() - '11 s'::interval WHERE id = 'w3'`)
	b.exec(`UPDATE rolls SET swept_at = clock_timestamp() - '12 s'::interval`)
	want("a worker died after the sweep", 1)
	want("and it was swept since", 0)
	must(t, h2.Stop(t.Context()))
	// Whoever took it over died as well: it moved, so it need not wait.
	r = b.apply(r, roll.Begun{N: 1, Worker: "w2", RunFor: time.Minute, Takeover: true})
	want("taken over, silent again", 1)
	must(t, h.Beat(t.Context()))
	must(t, h.Stop(t.Context()))
	again("31 s")
	want("worker gone on purpose", 1)

	// No job, nothing put off.
	again("31 s")
	before := b.written()
	b.jobs.fail(fmt.Errorf("planted"))
	if n, err := b.st.Sweep(t.Context(), 10*time.Second); err == nil || n != 0 {
		t.Errorf("swept %d, %v", n, err)
	}
	b.jobs.fail(nil)
	if b.written() != before {
		t.Error("a sweep without jobs put rolls off")
	}
	b.apply(r, roll.GiveUp{By: rita})
	b.apply(b.read(r.ID), roll.GiveUp{By: arno})
	again("31 s")
	want("ended", 0)
}

// gate lets two sweeps stand in their transactions at once.
type gate struct {
	recorder
	once   sync.Once
	inside chan struct{}
	open   chan struct{}
}

func (g *gate) EnqueueTx(ctx context.Context, tx pgx.Tx, w []store.Wake) error {
	g.once.Do(func() { close(g.inside) })
	<-g.open
	return g.recorder.EnqueueTx(ctx, tx, w)
}

func TestSweepsAtOnceAndTheirLimit(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.many(1200, 1200)
	g := &gate{inside: make(chan struct{}), open: make(chan struct{})}
	first := store.New(b.pool, g)
	must(t, first.Ping(t.Context()))
	var wg sync.WaitGroup
	got := make([]int, 2)
	wg.Go(func() {
		n, err := first.Sweep(t.Context(), 10*time.Second)
		if err != nil {
			t.Error(err)
		}
		got[0] = n
	})
	<-g.inside
	got[1] = b.swept(b.st) // the first holds its rows
	close(g.open)
	wg.Wait()
	if got[0] != 500 || got[1] != 500 {
		t.Errorf("swept %v, want 500 each", got)
	}
	var mu sync.Mutex
	rest := 0
	for range 4 {
		wg.Go(func() {
			n, err := b.st.Sweep(t.Context(), 10*time.Second)
			if err != nil {
				t.Error(err)
			}
			mu.Lock()
			rest += n
			mu.Unlock()
		})
	}
	wg.Wait()
	if rest != 200 {
		t.Errorf("%d left for the others, want 200", rest)
	}
	seen := map[string]int{}
	for _, w := range append(g.taken(), b.jobs.taken()...) {
		seen[w.RollID]++
	}
	for id, n := range seen {
		if n != 1 {
			t.Errorf("roll %s was enqueued %d times", id, n)
		}
	}
}

// many makes n rolls by copying one, as cheaply as can be. The first late of
// them run, are a minute late, and their worker is gone; the others have ended.
func (b *bench) many(n, late int) roll.Inventory {
	b.t.Helper()
	inv := b.declare(inventory("a"))
	r := b.create(inv, "global", "exo-na")
	b.exec(`INSERT INTO rolls (id, tenant_id, version, state, outcome, plan_hash, requester, wake_at, plan, data, audit_chain, created_at, updated_at, progress_at, ended_at)
	  SELECT gen_random_uuid(), tenant_id, 1, CASE WHEN i <= $3 THEN 'running' ELSE 'succeeded' END, 'accepted', plan_hash, requester,
	    CASE WHEN i <= $3 THEN clock_timestamp() - '1 minute'::interval END, '{}', '{}', audit_chain, created_at, updated_at, progress_at, CASE WHEN i > $3 THEN now() END
	  FROM rolls, generate_series(1, $1::int) i WHERE id = $2`, n, r.ID, late)
	b.exec(`INSERT INTO steps (roll_id, n, kind, state, epoch, worker_id, data) SELECT r.id, s.n, s.kind, CASE WHEN r.ended_at IS NULL AND s.n = 1 THEN 'running' ELSE 'succeeded' END, 1, 'w1', '{}'
	  FROM rolls r, steps s WHERE s.roll_id = $1 AND r.id <> $1`, r.ID)
	b.apply(b.read(r.ID), roll.Cancel{By: rita})
	b.exec(`ANALYZE`)
	return inv
}

// Whatever has ended costs the sweeper nothing.
func TestSweepReadsIndexesOnly(t *testing.T) {
	t.Parallel()
	for _, late := range []int{20, 1000} {
		b := newBench(t)
		b.many(10_000, late)
		for what, q := range store.SweepQueries(b.st.Now()) {
			rows, err := b.root.Query(t.Context(), `EXPLAIN (ANALYZE, COSTS off) `+q.SQL, q.Args...)
			must(t, err)
			plan, err := pgx.CollectRows(rows, pgx.RowTo[string])
			must(t, err)
			text := strings.Join(plan, "\n")
			if strings.Contains(text, "Seq Scan on rolls") || strings.Contains(text, "Seq Scan on steps") {
				t.Errorf("%s, %d late:\n%s", what, late, text)
			}
			t.Logf("%s, %d late of 10,000: %s", what, late, plan[len(plan)-1])
		}
	}
}
