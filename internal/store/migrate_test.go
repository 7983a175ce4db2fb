package store_test

import (
	"context"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/keyroll/keyroll/internal/jobs"
	"github.com/keyroll/keyroll/internal/pgtest"
	"github.com/keyroll/keyroll/internal/roll"
	"github.com/keyroll/keyroll/internal/store"
)

func TestMigrate(t *testing.T) {
	t.Parallel()
	dsn := pgtest.OpenEmpty(t)
	root := openRoot(t, dsn)
	check := func() error { return store.CheckSchema(t.Context(), root, jobs.Schema{}) }
	mend := func(err error) {
		t.Helper()
		if err == nil || !strings.Contains(err.Error(), `"server migrate"`) {
			t.Errorf("error %v names no mend", err)
		}
	}
	mend(check())
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			if err := migrate(t.Context(), dsn); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	must(t, check())
	must(t, migrate(t.Context(), dsn))
	must(t, check())

	// The service asks with its own rights.
	pool, err := store.OpenPool(t.Context(), dsn, store.Options{Role: "keyroll_app"})
	must(t, err)
	defer pool.Close()
	must(t, store.CheckSchema(t.Context(), pool, jobs.Schema{}))
	_, err = root.Exec(t.Context(), `UPDATE goose_db_version SET version_id = version_id - 1 WHERE version_id = (SELECT max(version_id) FROM goose_db_version)`)
	must(t, err)
	mend(store.CheckSchema(t.Context(), pool, jobs.Schema{}))
	_, err = root.Exec(t.Context(), `DELETE FROM river_migration WHERE version = (SELECT max(version) FROM river_migration)`)
	must(t, err)
	mend(store.CheckSchema(t.Context(), pool, jobs.Schema{}))
}

// A migration waits for another without holding anything up for ever, and ends
// when its caller gives up.
func TestMigrateGivesUp(t *testing.T) {
	t.Parallel()
	dsn := pgtest.OpenEmpty(t)
	root := openRoot(t, dsn)
	conn, err := root.Acquire(t.Context())
	must(t, err)
	defer conn.Release()
	_, err = conn.Exec(t.Context(), `SELECT pg_advisory_lock($1)`, int64(0x6b6579726f6c6c))
	must(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- migrate(ctx, dsn) }()
	eventually(t, "the migration waits", func() bool {
		var n int
		must(t, conn.QueryRow(t.Context(), `SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'advisory'`).Scan(&n))
		return n == 1
	})
	cancel()
	select {
	case err := <-ended:
		if err == nil {
			t.Error("no error")
		}
	case <-time.After(10 * time.Second):
		t.Error("it went on waiting")
	}
}

// An owner who is no superuser can migrate and then serve with less rights.
func TestMigrateAsOrdinaryOwner(t *testing.T) {
	t.Parallel()
	dsn := pgtest.OpenEmpty(t)
	root := openRoot(t, dsn)
	owner := "keyroll_test_owner_" + strings.ReplaceAll(newID(), "-", "")[:12]
	exec := func(sql string) {
		t.Helper()
		_, err := root.Exec(t.Context(), sql)
		must(t, err)
	}
	exec(`CREATE ROLE ` + owner + ` LOGIN CREATEROLE PASSWORD 'x'`)
	exec(`DO $$ BEGIN EXECUTE format('ALTER DATABASE %I OWNER TO ` + owner + `', current_database()); END $$`)
	t.Cleanup(func() {
		pool, err := pgxpool.New(context.Background(), dsn)
		must(t, err)
		defer pool.Close()
		_, err = pool.Exec(context.Background(), `DROP OWNED BY `+owner+` CASCADE; DO $$ BEGIN EXECUTE format('ALTER DATABASE %I OWNER TO CURRENT_USER', current_database()); END $$; DROP ROLE `+owner)
		must(t, err)
	})
	as := asUser(dsn, owner)
	if err := migrate(t.Context(), as); err != nil {
		t.Fatal(err)
	}
	pool, err := store.OpenPool(t.Context(), as, store.Options{Role: "keyroll_app"})
	must(t, err)
	defer pool.Close()
	b := &bench{t: t, url: as, pool: pool, root: root, jobs: &recorder{}}
	b.st = store.New(pool, b.jobs)
	must(t, b.st.Ping(t.Context()))
	r := b.through(b.read(b.create(b.declare(inventory("a")), "exo-na").ID))
	if r.State != roll.Succeeded {
		t.Errorf("state %s", r.State)
	}
}

// asUser is the connection string for another login.
func asUser(dsn, user string) string {
	u, err := url.Parse(dsn)
	if err != nil || !strings.HasPrefix(u.Scheme, "postgres") {
		return dsn + " user=" + user + " password=x"
	}
	u.User = url.UserPassword(user, "x")
	q := u.Query()
	q.Del("user")
	u.RawQuery = q.Encode()
	return u.String()
}

// The queue's own client works with the service's rights.
func TestGrantsCoverTheQueue(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	queue, err := jobs.NewQueue(b.pool, discard())
	must(t, err)
	st := store.New(b.pool, queue)
	must(t, st.Ping(t.Context()))
	inv := b.declare(inventory("a"))
	r, fx := b.fresh(inv, false, "exo-na")
	must(t, st.CreateRoll(t.Context(), r, fx, nil))
	b.exec(`UPDATE rolls SET wake_at = now() - '1 minute'::interval`)
	n, err := st.Sweep(t.Context(), time.Second)
	must(t, err)
	if jobs := one[int](b, `SELECT count(*) FROM river_job`); n != 1 || jobs != 2 {
		t.Errorf("%d swept, %d jobs", n, jobs)
	}
	// Every table, sequence and statement kind that the service uses.
	if missing := one[string](b, `SELECT coalesce(string_agg(c.relname, ' '), '') FROM pg_class c WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p')
	  AND NOT (has_table_privilege('keyroll_app', c.oid, 'SELECT'))`); missing != "" {
		t.Errorf("cannot read: %s", missing)
	}
	if missing := one[string](b, `SELECT coalesce(string_agg(c.relname, ' '), '') FROM pg_class c WHERE c.relnamespace = 'public'::regnamespace AND c.relname NOT LIKE 'goose%'
	  AND CASE WHEN c.relkind = 'S' THEN NOT has_sequence_privilege('keyroll_app', c.oid, 'USAGE') ELSE false END`); missing != "" {
		t.Errorf("cannot count: %s", missing)
	}
}
