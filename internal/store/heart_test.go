package store_test

import (
	"context"
	"math"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/keyroll/keyroll/internal/store"
)

func TestHeart(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	st := store.New(b.pool, b.jobs)
	if st.Clock().Age() != time.Duration(math.MaxInt64) {
		t.Fatalf("age %v before the first answer", st.Clock().Age())
	}
	h, err := st.NewHeart(t.Context(), "w1")
	must(t, err)
	if st.Clock().Age() > 5*time.Second {
		t.Errorf("age %v after a beat", st.Clock().Age())
	}
	silent := func(want bool) {
		t.Helper()
		m, err := b.st.SilentWorkers(t.Context(), []string{"w1", "w1", "nobody"}, 10*time.Second)
		must(t, err)
		if m["w1"] != want || !m["nobody"] || len(m) != 2 {
			t.Errorf("silent: %v", m)
		}
	}
	silent(false)
	b.exec(`UPDATE workers SET beat_at = beat_at - '11 s'::interval`)
	silent(true)

	// Its connection dies: the next beat makes another.
	pid := h.Conn().PgConn().PID()
	kill := func() {
		t.Helper()
		b.exec(`SELECT pg_terminate_backend($1)`, h.Conn().PgConn().PID())
		eventually(t, "the backend is gone", func() bool {
			return one[int](b, `SELECT count(*) FROM pg_stat_activity WHERE pid = $1`, h.Conn().PgConn().PID()) == 0
		})
	}
	kill()
	must(t, h.Beat(t.Context()))
	if h.Conn().PgConn().PID() == pid {
		t.Error("the same connection")
	}
	silent(false)
	// A beat whose time is over fails, and the one after it does not.
	over, cancel := context.WithCancel(t.Context())
	cancel()
	if err := h.Beat(over); err == nil {
		t.Error("a beat without time succeeded")
	}
	must(t, h.Beat(t.Context()))
	// Stop takes the row away, even over a connection that has died.
	kill()
	must(t, h.Stop(t.Context()))
	if n := one[int](b, `SELECT count(*) FROM workers`); n != 0 {
		t.Errorf("%d rows after a stop", n)
	}
	silent(true)
	b.exec(`INSERT INTO workers (id, started_at, beat_at) VALUES ('old', now(), clock_timestamp() - '61 min'::interval), ('new', now(), clock_timestamp())`)
	must(t, b.st.PruneWorkers(t.Context()))
	if id := one[string](b, `SELECT string_agg(id, ' ') FROM workers`); id != "new" {
		t.Errorf("left: %s", id)
	}
	stats, err := b.st.Stats(t.Context())
	must(t, err)
	if stats.Workers != 1 {
		t.Errorf("%+v", stats)
	}
}

// The clock is the database's, in UTC and microseconds, and does not go back.
func TestClock(t *testing.T) {
	t.Parallel()
	st := store.New(nil, nil)
	c := st.Clock()
	far := time.Date(2031, 5, 6, 7, 8, 9, 123456789, time.FixedZone("x", 3600))
	c.Set(far)
	if now := c.Now(); now.Before(far.Truncate(time.Microsecond)) || now.Sub(far) > time.Second || now.Location() != time.UTC || now.Nanosecond()%1000 != 0 {
		t.Errorf("now %v after %v", now, far)
	}
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			last := time.Time{}
			for n := range 2000 {
				// Answers that were under way for longer than the one before.
				c.Set(far.Add(-time.Duration((n*i)%1000) * time.Millisecond))
				now := c.Now()
				if now.Before(last) {
					t.Errorf("went back from %v to %v", last, now)
					return
				}
				last = now
			}
		})
	}
	wg.Wait()
	// A database that was set back for good is followed.
	c.Set(far.Add(-time.Hour))
	if now := c.Now(); now.After(far.Add(-59 * time.Minute)) {
		t.Errorf("now %v stands still", now)
	}
	// The machine's own time is no measure of the first answer.
	fresh := store.New(nil, nil).Clock()
	ahead := fresh.Now()
	fresh.Set(ahead.Add(-time.Second))
	if !fresh.Now().Before(ahead) {
		t.Error("the first answer was not taken")
	}
}

// Times are read in UTC wherever the machine stands, and statements have
// snapshots of their own whatever the server's default is.
func TestConnectionSettings(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.exec(`DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET default_transaction_isolation = ''repeatable read''', current_database());
	  EXECUTE format('ALTER DATABASE %I SET timezone = ''Asia/Kolkata''', current_database()); END $$`)
	_, pool := b.another(func(o *store.Options) {
		o.Configure = func(c *pgxpool.Config) { c.MaxConns = 2 }
	})
	var level, user string
	var at time.Time
	must(t, pool.QueryRow(t.Context(), `SELECT current_setting('transaction_isolation'), current_user::text, now()`).Scan(&level, &user, &at))
	if level != "read committed" || user != "keyroll_app" || at.Location() != time.UTC {
		t.Errorf("%s, %s, %v", level, user, at.Location())
	}
}
