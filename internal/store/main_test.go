package store_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/keyroll/keyroll/internal/jobs"
	"github.com/keyroll/keyroll/internal/pgtest"
	"github.com/keyroll/keyroll/internal/store"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

func migrate(ctx context.Context, url string) error { return store.Migrate(ctx, url, jobs.Schema{}) }

// recorder is an Enqueuer that remembers what it was asked for, whether or not
// the transaction committed; err makes it fail.
type recorder struct {
	mu    sync.Mutex
	wakes []store.Wake
	err   error
}

func (r *recorder) EnqueueTx(_ context.Context, _ pgx.Tx, wakes []store.Wake) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.err != nil {
		return r.err
	}
	r.wakes = append(r.wakes, wakes...)
	return nil
}

func (r *recorder) fail(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.err = err
}

func (r *recorder) taken() []store.Wake {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := r.wakes
	r.wakes = nil
	return out
}

// bench is a database of its own with a store over it that has the service's
// rights, and a connection with the owner's, for looking and for foul play.
type bench struct {
	t    testing.TB
	url  string
	pool *pgxpool.Pool
	st   *store.Store
	jobs *recorder
	root *pgxpool.Pool
}

func newBench(t testing.TB, options ...func(*store.Options)) *bench {
	t.Helper()
	b := &bench{t: t, url: pgtest.Open(t, migrate), jobs: &recorder{}}
	b.st, b.pool = b.another(options...)
	b.root = openRoot(t, b.url)
	return b
}

// openRoot opens a pool with the rights of the schema's owner.
func openRoot(t testing.TB, url string) *pgxpool.Pool {
	t.Helper()
	pool, err := pgxpool.New(t.Context(), url)
	must(t, err)
	t.Cleanup(pool.Close)
	return pool
}

// another opens one more store over the same database: another process.
func (b *bench) another(options ...func(*store.Options)) (*store.Store, *pgxpool.Pool) {
	b.t.Helper()
	o := store.Options{Role: "keyroll_app"}
	for _, f := range options {
		f(&o)
	}
	pool, err := store.OpenPool(b.t.Context(), b.url, o)
	must(b.t, err)
	b.t.Cleanup(pool.Close)
	st := store.New(pool, b.jobs)
	must(b.t, st.Ping(b.t.Context()))
	return st, pool
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantErr(t testing.TB, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("error %v, want %v", err, want)
	}
}

// exec runs SQL with the owner's rights.
func (b *bench) exec(sql string, args ...any) {
	b.t.Helper()
	_, err := b.root.Exec(b.t.Context(), sql, args...)
	must(b.t, err)
}

// one reads a single value with the owner's rights.
func one[T any](b *bench, sql string, args ...any) T {
	b.t.Helper()
	var v T
	must(b.t, b.root.QueryRow(b.t.Context(), sql, args...).Scan(&v))
	return v
}

// written counts what a transition writes.
func (b *bench) written() string {
	b.t.Helper()
	return one[string](b, `SELECT format('rolls %s steps %s audit %s pending %s events %s ledger %s approvals %s keys %s',
	  (SELECT string_agg(id || ':' || version || ':' || state || ':' || md5(data::text || coalesce(wake_at::text, '')), ',' ORDER BY id) FROM rolls),
	  (SELECT md5(string_agg(roll_id || ':' || n || ':' || state || ':' || data::text, ',' ORDER BY roll_id, n)) FROM steps),
	  (SELECT count(*) FROM audit_entries), (SELECT count(*) FROM audit_pending), (SELECT count(*) FROM events),
	  (SELECT count(*) FROM key_versions), (SELECT count(*) FROM approvals), (SELECT count(*) FROM roll_keys WHERE open))`)
}

// verified holds the whole log against the rows, and fails on any problem.
func (b *bench) verified() {
	b.t.Helper()
	rep, err := b.st.VerifyAudit(b.t.Context(), nil)
	must(b.t, err)
	for _, p := range rep.Problems {
		b.t.Errorf("audit: %s", p)
	}
}

func sqlState(err error) string {
	var pg interface{ SQLState() string }
	if errors.As(err, &pg) {
		return pg.SQLState()
	}
	return fmt.Sprint(err)
}

func newID() string { return uuid.NewString() }

// eventually polls without sleeping longer than a tick; for what another
// goroutine or PostgreSQL itself does in its own time.
func eventually(t testing.TB, what string, cond func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	limit := time.After(20 * time.Second)
	for !cond() {
		select {
		case <-tick.C:
		case <-limit:
			t.Fatalf("never: %s", what)
		}
	}
}
