package pgtest_test

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/keyroll/keyroll/internal/pgtest"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

var migrations atomic.Int32

// migrate leaves its connection open, as a careless one would.
func migrate(ctx context.Context, url string) error {
	migrations.Add(1)
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return err
	}
	_, err = conn.Exec(ctx, "CREATE TABLE note (n int PRIMARY KEY); INSERT INTO note VALUES (1)")
	return err
}

func connect(t *testing.T, url string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn
}

func count(t *testing.T, conn *pgx.Conn, sql string) (n int) {
	t.Helper()
	if err := conn.QueryRow(t.Context(), sql).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

// Every clone has the schema, nobody sees another's rows, and the migrator ran
// once for all.
func TestOpenIsolates(t *testing.T) {
	t.Run("group", func(t *testing.T) {
		for i := range 8 {
			t.Run(fmt.Sprint(i), func(t *testing.T) {
				t.Parallel()
				began := time.Now()
				conn := connect(t, pgtest.Open(t, migrate))
				t.Logf("open after %v", time.Since(began).Round(time.Millisecond))
				if _, err := conn.Exec(t.Context(), "INSERT INTO note VALUES ($1)", 100+i); err != nil {
					t.Fatal(err)
				}
				if n := count(t, conn, "SELECT count(*) FROM note"); n != 2 {
					t.Errorf("%d notes, want the template's and ours", n)
				}
			})
		}
	})
	if n := migrations.Load(); n != 1 {
		t.Errorf("migrated %d times", n)
	}
	conn := connect(t, pgtest.OpenEmpty(t))
	if n := count(t, conn, "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'"); n != 0 {
		t.Errorf("an empty database has %d tables", n)
	}
	// Ours alone: the eight clones are dropped.
	var name string
	if err := conn.QueryRow(t.Context(), "SELECT substring(current_database() FROM '^keyroll_test_[a-z0-9]+_')").Scan(&name); err != nil {
		t.Fatal(err)
	}
	if n := count(t, conn, "SELECT count(*) FROM pg_database WHERE datname ~ '^"+name+"[0-9]+$'"); n != 1 {
		t.Errorf("%d clones in this process, want 1", n)
	}
}

func BenchmarkOpen(b *testing.B) {
	for b.Loop() {
		pgtest.Open(b, migrate)
	}
}

// A migrator that fails says why in every test, and is not tried again.
func TestMigratorFails(t *testing.T) {
	for range 2 {
		r := &recorder{TB: t}
		func() {
			defer func() { _ = recover() }()
			pgtest.Open(r, broken)
		}()
		if !r.failed {
			t.Error("opened in spite of a failed migration")
		}
	}
	if n := brokenRuns.Load(); n != 1 {
		t.Errorf("the broken migrator ran %d times", n)
	}
}

var brokenRuns atomic.Int32

func broken(context.Context, string) error {
	brokenRuns.Add(1)
	return errors.New("broken")
}

// recorder notes a Fatal in place of ending the test.
type recorder struct {
	testing.TB
	failed bool
}

func (r *recorder) Fatal(...any) {
	r.failed = true
	panic("fatal")
}
