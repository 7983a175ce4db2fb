package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os/user"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/keyroll/keyroll/internal/jobs"
	"github.com/keyroll/keyroll/internal/roll"
	"github.com/keyroll/keyroll/internal/store"
)

// openPool opens the database as the service uses it, and refuses one whose
// schema is not the newest.
func openPool(ctx context.Context, url Secret, role string, conns int32) (*pgxpool.Pool, error) {
	return openPoolWith(ctx, url, store.Options{Role: role, MaxConns: conns})
}

// readOnly makes every transaction of a pool one that the database lets write nothing.
func readOnly(cfg *pgxpool.Config) {
	cfg.ConnConfig.RuntimeParams["default_transaction_read_only"] = "on"
}

func openPoolWith(ctx context.Context, url Secret, o store.Options) (*pgxpool.Pool, error) {
	pool, err := store.OpenPool(ctx, url.Reveal(), o)
	if err != nil {
		return nil, err
	}
	if err := explainRole(pool.Ping(ctx), o.Role); err != nil {
		pool.Close()
		return nil, err
	}
	if err := store.CheckSchema(ctx, pool, jobs.Schema{}); err != nil {
		pool.Close()
		return nil, err
	}
	return pool, nil
}

// explainRole says what to do about a role that cannot be taken: that is how a
// database without our schema, or a login without the right, first shows.
func explainRole(err error, role string) error {
	if err == nil {
		return nil
	}
	var pg *pgconn.PgError
	if errors.As(err, &pg) && role != "" {
		switch pg.Code {
		case "22023": // invalid_parameter_value: the role does not exist
			return fmt.Errorf("the database has no role %q, so its schema is missing: run \"server migrate\", or set KEYROLL_AUTO_MIGRATE=true", role)
		case "42501": // insufficient_privilege
			return fmt.Errorf("the database login may not take the role %q: as its administrator, run GRANT %s TO the login", role, role)
		}
	}
	return fmt.Errorf("connecting to the database: %w", err)
}

// databaseFlags are those of every command that works on the database.
type databaseFlags struct{ url, role string }

func (d *databaseFlags) declare(flags *flag.FlagSet) {
	flags.StringVar(&d.url, "database-url", "", "`URL` of the database (default: KEYROLL_DATABASE_URL)")
}

// resolve takes the environment where a flag was not given.
func (d *databaseFlags) resolve(p *program) error {
	if d.url == "" {
		d.url = p.env[envPrefix+"DATABASE_URL"]
	}
	if d.url == "" {
		return misused("which database? Set KEYROLL_DATABASE_URL, or give --database-url postgres://USER@HOST/DATABASE")
	}
	d.role = p.env[envPrefix+"DATABASE_ROLE"]
	if d.role == "" {
		d.role = "keyroll_app"
	}
	return nil
}

// open opens the store. It cannot make jobs: these commands drive no roll.
func (d *databaseFlags) open(ctx context.Context, p *program) (*store.Store, func(), error) {
	if err := d.resolve(p); err != nil {
		return nil, nil, err
	}
	pool, err := openPool(ctx, NewSecret(d.url), d.role, 4)
	if err != nil {
		return nil, nil, err
	}
	st := store.New(pool, nil)
	if err := st.Ping(ctx); err != nil {
		pool.Close()
		return nil, nil, err
	}
	return st, pool.Close, nil
}

// operator is who uses a command on the database: whoever the operating system
// says. Nobody has checked that, so the audit log calls it the system.
func operator() roll.Actor {
	name := "unknown"
	if u, err := user.Current(); err == nil && u.Username != "" {
		name = u.Username
	}
	return roll.Actor{Subject: "command line: " + name, Kind: roll.System}
}
