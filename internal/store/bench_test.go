package store_test

import (
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/keyroll/keyroll/internal/roll"
	"github.com/keyroll/keyroll/internal/store"
)

// TestThroughput prints, with -v, what a transition costs beside the bare
// one-row INSERT of the same run. Nothing is asserted: machines differ.
func TestThroughput(t *testing.T) {
	if testing.Short() || !testing.Verbose() {
		t.Skip("it only prints")
	}
	b := newBench(t)
	b.exec(`CREATE TABLE bare (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, data jsonb NOT NULL)`)
	b.exec(`GRANT ALL ON bare TO keyroll_app`)
	inv := b.declare(geoInventory("a", 8))
	const span = 400 * time.Millisecond
	for _, conns := range []int{1, 8} {
		st, pool := b.another(func(o *store.Options) { o.MaxConns = int32(conns) })
		rolls := make([]roll.Roll, conns)
		for i := range conns {
			rolls[i] = b.read(b.create(inv, inv.Policies[i].ID).ID)
		}
		var bare, moved []float64
		for range 5 {
			bare = append(bare, rate(conns, span, func(int) { insertBare(t, pool) }))
			moved = append(moved, rate(conns, span, func(i int) { rolls[i] = move(t, st, rolls[i]) }))
		}
		for _, r := range rolls {
			if r.Steps[0].State == roll.StepRunning {
				r = move(t, st, r)
			}
			b.apply(r, roll.Cancel{By: rita})
		}
		slices.Sort(bare)
		slices.Sort(moved)
		t.Logf("%d connection(s): %.0f transitions/s, %.0f bare INSERTs/s, ratio %.2f (medians of 5)", conns, moved[2], bare[2], moved[2]/bare[2])
	}
}

func insertBare(t *testing.T, pool *pgxpool.Pool) {
	if _, err := pool.Exec(t.Context(), `INSERT INTO bare (data) VALUES ($1)`, []byte(`{"a":1}`)); err != nil {
		t.Error(err)
	}
}

// move claims a step, or lets it go again.
func move(t *testing.T, st *store.Store, r roll.Roll) roll.Roll {
	var ev roll.Event = roll.Begun{N: 1, Worker: "w", RunFor: time.Minute}
	if s := r.Steps[0]; s.State == roll.StepRunning {
		ev = roll.WillRetry{N: 1, Epoch: s.Epoch, At: st.Now()}
	}
	next, err := st.Transition(t.Context(), r, ev)
	if err != nil {
		t.Error(fmt.Errorf("%s: %w", ev.Type(), err))
		return r
	}
	return next
}

// rate runs f on n goroutines for the span and says how often a second.
func rate(n int, span time.Duration, f func(i int)) float64 {
	var count atomic.Int64
	var wg sync.WaitGroup
	begun := time.Now()
	for i := range n {
		wg.Go(func() {
			for time.Since(begun) < span {
				f(i)
				count.Add(1)
			}
		})
	}
	wg.Wait()
	return float64(count.Load()) / time.Since(begun).Seconds()
}
