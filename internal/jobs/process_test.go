package jobs_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/riverqueue/river"

	"github.com/keyroll/keyroll/internal/jobs"
	"github.com/keyroll/keyroll/internal/roll"
	"github.com/keyroll/keyroll/internal/sim"
	"github.com/keyroll/keyroll/internal/store"
)

// peer is a process of its own as far as the database can tell: a pool, a
// store with its clock, and a driver. Without live it neither beats nor sweeps.
type peer struct {
	t    *testing.T
	pool *pgxpool.Pool
	st   *store.Store
	d    *jobs.Driver
	sql  *statements
	dead atomic.Bool // nothing reaches the database any more
}

// statements counts what a peer sends to the database, and lets a test act
// just before a batch (a transition) goes out.
type statements struct {
	n      atomic.Int64
	before atomic.Pointer[func()] // called once, then forgotten
}

func (s *statements) TraceQueryStart(ctx context.Context, _ *pgx.Conn, _ pgx.TraceQueryStartData) context.Context {
	s.n.Add(1)
	return ctx
}
func (s *statements) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}
func (s *statements) TraceBatchStart(ctx context.Context, _ *pgx.Conn, _ pgx.TraceBatchStartData) context.Context {
	s.n.Add(1)
	if f := s.before.Swap(nil); f != nil {
		(*f)()
	}
	return ctx
}
func (s *statements) TraceBatchQuery(context.Context, *pgx.Conn, pgx.TraceBatchQueryData) {}
func (s *statements) TraceBatchEnd(context.Context, *pgx.Conn, pgx.TraceBatchEndData)     {}

// peer makes one; through may put something between it and Microsoft.
func (h *house) peer(cfg jobs.Config, through ...func(jobs.Tenants) jobs.Tenants) *peer {
	h.t.Helper()
	p := &peer{t: h.t, sql: &statements{}}
	var err error
	p.pool, err = store.OpenPool(context.Background(), h.url, store.Options{Role: "keyroll_app", MaxConns: 8,
		Configure: func(c *pgxpool.Config) {
			c.ConnConfig.Tracer = p.sql
			c.BeforeConnect = func(context.Context, *pgx.ConnConfig) error { return p.alive() }
			c.PrepareConn = func(context.Context, *pgx.Conn) (bool, error) { err := p.alive(); return err == nil, err }
		}})
	must(h.t, err)
	h.t.Cleanup(p.pool.Close)
	queue, err := jobs.NewQueue(p.pool, quietLog())
	must(h.t, err)
	p.st = store.New(p.pool, queue)
	must(h.t, p.st.Ping(context.Background()))
	tenants := jobs.Through(h.gw)
	for _, f := range through {
		tenants = f(tenants)
	}
	p.d = jobs.NewDriver(p.st, tenants, cfg, uuid.NewString(), quietLog(), jobs.NewMetrics(prometheus.NewRegistry()))
	return p
}

// drive drives the roll until it is told to stop or nothing is left to do at
// once; the returned function waits for its end.
func (p *peer) drive(ctx context.Context, id string) (end func()) {
	p.t.Helper()
	done := make(chan error, 1)
	go func() {
		_, err := p.d.Drive(ctx, id)
		done <- err
	}()
	return func() {
		p.t.Helper()
		select {
		case err := <-done:
			if err != nil && ctx.Err() == nil {
				p.t.Errorf("drive: %v", err)
			}
		case <-time.After(30 * time.Second):
			p.t.Fatal("drive did not end")
		}
	}
}

var errDead = errors.New("this process is dead")

func (p *peer) alive() error {
	if p.dead.Load() {
		return errDead
	}
	return nil
}

// live lets the peer beat, sweep and work jobs. kill ends all of it at once:
// nothing is drained, every context is cut, and what calls under way have done
// is not recorded.
func (p *peer) live() (kill func()) {
	p.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ready, lived := make(chan struct{}), make(chan error, 1)
	go func() { lived <- p.d.Live(ctx, ready) }()
	select {
	case <-ready:
	case err := <-lived:
		cancel()
		p.t.Fatalf("heartbeat: %v", err)
	}
	client, err := jobs.NewClient(p.pool, p.d, quietLog())
	must(p.t, err)
	must(p.t, client.Start(ctx))
	kill = func() {
		p.dead.Store(true)
		cancel()
		p.d.Drain() // what a dead process begins: nothing
		stop(client)
		<-lived // whatever it says: the database may be gone
	}
	return kill
}

func stop(client *river.Client[pgx.Tx]) {
	end, done := context.WithTimeout(context.Background(), 20*time.Second)
	defer done()
	_ = client.StopAndCancel(end)
}

// cut ends every connection to the house's database but the caller's.
func (h *house) cut() {
	ctx := context.Background()
	conn, err := pgx.Connect(ctx, h.url)
	if err != nil {
		return // the test's end has dropped it
	}
	defer func() { _ = conn.Close(ctx) }()
	_, _ = conn.Exec(ctx, `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()`)
}

// fault arms a fault and returns its id.
func (h *house) fault(f sim.Fault) string {
	h.t.Helper()
	id, err := h.sim.World.AddFault(f)
	must(h.t, err)
	return id
}

func (h *house) fired(id string) {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	must(h.t, h.sim.World.WaitFault(ctx, id))
}

// until waits for a time of the database's clock.
func (h *house) until(at time.Time) {
	h.t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for h.st.Now().Before(at) {
		<-tick.C
	}
}

func stepOf(r roll.Roll, k roll.StepKind, key string) roll.Step {
	for _, s := range r.Steps {
		if s.Kind == k && s.Round == r.Round && s.Key == key {
			return s
		}
	}
	return roll.Step{}
}
