// Package store holds all SQL of Keyroll: the rolls and their only writer
// (Transition), the SharePoint lease and its queue, the audit log, the ledger,
// the declarations, the tokens, and the schema's migration.
//
// What it promises: a change of state, its audit entry, its outgoing events
// and the job that follows commit in one transaction, or none of them does; a
// writer that read an older version commits nothing.
package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/keyroll/keyroll/internal/roll"
)

// Wake asks for a job that drives a roll.
type Wake struct {
	RollID string
	Kind   roll.StepKind
	At     time.Time
}

// Enqueuer inserts jobs in the caller's transaction: the store decides that a
// job is wanted, the job queue's package knows how to insert one. It must not
// commit, and after an error the caller rolls back.
type Enqueuer interface {
	EnqueueTx(ctx context.Context, tx pgx.Tx, wakes []Wake) error
}

// Store is a connection to the database. It is safe for concurrent use.
type Store struct {
	pool  *pgxpool.Pool
	enq   Enqueuer
	clock *Clock
}

// Options of Open.
type Options struct {
	// MaxConns bounds the pool; 0 means 16.
	MaxConns int32
	// Role is taken by every connection (SET ROLE), so that the service holds
	// no more rights than keyroll_app has; "" keeps the login's own.
	Role string
	// Configure may change the pool's configuration, for tests and tracing.
	Configure func(*pgxpool.Config)
}

// OpenPool opens a connection pool as the service uses it.
func OpenPool(ctx context.Context, url string, o Options) (*pgxpool.Pool, error) {
	cfg, err := pgxpool.ParseConfig(url)
	if err != nil {
		return nil, fmt.Errorf("reading the database URL: %w", errors.New("it is not a PostgreSQL connection string"))
	}
	cfg.MaxConns = o.MaxConns
	if cfg.MaxConns == 0 {
		cfg.MaxConns = 16
	}
	cfg.ConnConfig.RuntimeParams["application_name"] = "keyroll"
	cfg.ConnConfig.RuntimeParams["statement_timeout"] = "30000"
	cfg.ConnConfig.RuntimeParams["lock_timeout"] = "10000"
	cfg.ConnConfig.RuntimeParams["idle_in_transaction_session_timeout"] = "30000"
	// The locks of the lease and of the ledger rest on each statement having a
	// snapshot of its own, whatever the server's default is.
	cfg.ConnConfig.RuntimeParams["default_transaction_isolation"] = "read committed"
	if o.Role != "" {
		cfg.ConnConfig.RuntimeParams["role"] = o.Role
	}
	cfg.AfterConnect = func(_ context.Context, conn *pgx.Conn) error {
		inUTC(conn)
		return nil
	}
	if o.Configure != nil {
		o.Configure(cfg)
	}
	pool, err := pgxpool.NewWithConfig(ctx, cfg)
	if err != nil {
		return nil, fmt.Errorf("opening the database: %w", err)
	}
	return pool, nil
}

// inUTC makes the connection read times in UTC, wherever the machine stands.
func inUTC(conn *pgx.Conn) {
	conn.TypeMap().RegisterType(&pgtype.Type{Name: "timestamptz", OID: pgtype.TimestamptzOID, Codec: &pgtype.TimestamptzCodec{ScanLocation: time.UTC}})
}

// New makes a store over a pool. enq inserts jobs.
func New(pool *pgxpool.Pool, enq Enqueuer) *Store {
	return &Store{pool: pool, enq: enq, clock: newClock()}
}

// Clock is the store's idea of database time.
func (s *Store) Clock() *Clock { return s.clock }

// Now is database time as the clock knows it.
func (s *Store) Now() time.Time { return s.clock.Now() }

// Ping asks the database for its time and sets the clock by it.
func (s *Store) Ping(ctx context.Context) error {
	var now time.Time
	if err := s.pool.QueryRow(ctx, `SELECT clock_timestamp()`).Scan(&now); err != nil {
		return fmt.Errorf("asking the database for its time: %w", err)
	}
	s.clock.Set(now)
	return nil
}

// Errors that callers branch on.
var (
	// ErrNotFound: no such row for this caller.
	ErrNotFound = errors.New("not found")
	// ErrStale: the row has changed since it was read.
	ErrStale = errors.New("changed by somebody else meanwhile")
	// ErrRetired: the tenant has been retired; there is none to work with.
	ErrRetired = fmt.Errorf("the tenant is retired: %w", ErrNotFound)
	// ErrExists: what was to be made is there already.
	ErrExists = errors.New("exists already")
)

// OpenRollError: another open roll has the key or the policy (rule 10).
type OpenRollError struct{ RollID, Subject string }

func (e *OpenRollError) Error() string {
	return fmt.Sprintf("roll %s is open for %s", e.RollID, e.Subject)
}

// SQLSTATEs of the schema's own refusals, and of PostgreSQL's that matter here.
const (
	stateStale   = "KR409"
	stateUnique  = "23505"
	stateForeign = "23503"
)

func sqlState(err error) string {
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		return pg.Code
	}
	return ""
}

func constraint(err error) string {
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		return pg.ConstraintName
	}
	return ""
}

// rollbackPatience bounds a rollback on a connection that may be dead.
const rollbackPatience = 5 * time.Second

// inTx runs f in a transaction. An error of f rolls back and is returned as it is.
func (s *Store) inTx(ctx context.Context, f func(tx pgx.Tx) error) error {
	tx, err := s.pool.Begin(ctx)
	if err != nil {
		return fmt.Errorf("beginning a transaction: %w", err)
	}
	// After a commit this does nothing; the context may be over by then.
	defer func() {
		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), rollbackPatience)
		defer cancel()
		_ = tx.Rollback(end)
	}()
	if err := f(tx); err != nil {
		return err
	}
	if err := tx.Commit(ctx); err != nil {
		return fmt.Errorf("committing: %w", err)
	}
	return nil
}

// send runs a batch and returns its first error.
func send(ctx context.Context, db interface {
	SendBatch(context.Context, *pgx.Batch) pgx.BatchResults
}, b *pgx.Batch) error {
	return db.SendBatch(ctx, b).Close()
}
