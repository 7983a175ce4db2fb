package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"

	"github.com/keyroll/keyroll/migrations"
)

// migrationLock is the advisory lock that keeps two migrations apart: "keyroll" in ASCII.
const migrationLock = 0x6b6579726f6c6c

// QueueSchema migrates and checks the job queue's own tables. The job queue's
// package implements it: this one does not know the queue.
type QueueSchema interface {
	Migrate(ctx context.Context, pool *pgxpool.Pool) error
	// Behind says what is missing; "" when the schema is the newest.
	Behind(ctx context.Context, pool *pgxpool.Pool) (string, error)
}

// Migrate brings the database to the newest schema: the queue's tables, then
// ours, then the rights of the service's role. It may run in several processes
// at once; all but one wait. Running it again changes nothing.
func Migrate(ctx context.Context, url string, queue QueueSchema) error {
	// A change of a large table takes its time.
	patient := func(c *pgxpool.Config) { c.ConnConfig.RuntimeParams["statement_timeout"] = "0" }
	pool, err := OpenPool(ctx, url, Options{MaxConns: 4, Configure: patient})
	if err != nil {
		return err
	}
	defer pool.Close()
	conn, err := pool.Acquire(ctx)
	if err != nil {
		return fmt.Errorf("connecting to the database: %w", err)
	}
	defer conn.Release()
	// A session lock on a connection of its own: it ends with the connection,
	// so that a migration that dies leaves no lock behind.
	if _, err := conn.Exec(ctx, `SET lock_timeout = 0`); err != nil {
		return fmt.Errorf("preparing the migration: %w", err)
	}
	if _, err := conn.Exec(ctx, `SELECT pg_advisory_lock($1)`, int64(migrationLock)); err != nil {
		return fmt.Errorf("waiting for another migration: %w", err)
	}
	defer func() {
		_, _ = conn.Exec(context.WithoutCancel(ctx), `SELECT pg_advisory_unlock($1); `, int64(migrationLock))
	}()
	if err := queue.Migrate(ctx, pool); err != nil {
		return fmt.Errorf("migrating the job queue: %w", err)
	}
	if err := withProvider(pool, func(p *goose.Provider) error {
		_, err := p.Up(ctx)
		return err
	}); err != nil {
		return fmt.Errorf("migrating the schema: %w", err)
	}
	_, err = conn.Exec(ctx, grantQueue)
	if err != nil {
		return fmt.Errorf("granting the queue's tables to keyroll_app: %w", err)
	}
	return nil
}

// grantQueue gives the service's role the queue's tables, which are made
// outside our migrations.
const grantQueue = `DO $$
DECLARE t text;
BEGIN
  FOR t IN SELECT tablename FROM pg_tables WHERE schemaname = current_schema() AND tablename LIKE 'river\_%' LOOP
    EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON %I TO keyroll_app', t);
  END LOOP;
  EXECUTE 'REVOKE INSERT, UPDATE, DELETE, TRUNCATE ON goose_db_version FROM keyroll_app';
  EXECUTE 'GRANT SELECT ON goose_db_version TO keyroll_app';
  EXECUTE 'GRANT USAGE, SELECT ON ALL SEQUENCES IN SCHEMA ' || quote_ident(current_schema()) || ' TO keyroll_app';
END $$`

// CheckSchema returns an error that names the mend when the schema is not the newest.
func CheckSchema(ctx context.Context, pool *pgxpool.Pool, queue QueueSchema) error {
	behind, err := queue.Behind(ctx, pool)
	if err != nil {
		return fmt.Errorf("checking the job queue's schema: %w", err)
	}
	if behind != "" {
		return fmt.Errorf("the job queue's schema is %s: run \"server migrate\", or set KEYROLL_AUTO_MIGRATE=true", behind)
	}
	return withProvider(pool, func(p *goose.Provider) error {
		have, want, err := p.GetVersions(ctx)
		if err != nil {
			return fmt.Errorf("reading the schema's version: %w", err)
		}
		if have < want {
			return fmt.Errorf("the database schema is at version %d, this program needs %d: run \"server migrate\", or set KEYROLL_AUTO_MIGRATE=true", have, want)
		}
		return nil
	})
}

func withProvider(pool *pgxpool.Pool, f func(*goose.Provider) error) (err error) {
	var db *sql.DB = stdlib.OpenDBFromPool(pool)
	defer func() { err = errors.Join(err, db.Close()) }()
	p, err := goose.NewProvider(goose.DialectPostgres, db, migrations.Files)
	if err != nil {
		return fmt.Errorf("reading the migrations: %w", err)
	}
	return f(p)
}
