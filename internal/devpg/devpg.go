// Package devpg runs one PostgreSQL server as a child process, for the demo,
// for development and for tests. It is never part of production: there the
// database has an address of its own.
//
// It finds the server's programs on the machine or fetches them (finder.go),
// makes a cluster, and keeps the server for as long as this process lives. A
// process that dies, even by kill -9, takes its server with it; what then stays
// behind is files only: a kept directory, which the next Start recovers, or a
// temporary one, which the next Start removes.
//
// The launcher is for Linux. Elsewhere Start says so and names the way round:
// a database URL.
package devpg

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// Errors that a caller may want to tell apart with errors.Is.
var (
	// ErrUnsupported: the launcher does not exist for this operating system.
	ErrUnsupported = errors.New("starting PostgreSQL is supported on Linux only; give a database with --database-url (tests: KEYROLL_TEST_DATABASE_URL)")
	// ErrInUse: another live process runs a server on the same directory.
	ErrInUse = errors.New("data directory is in use")
	// ErrNotFound: no usable PostgreSQL was found, nor could one be fetched.
	ErrNotFound = errors.New("no usable PostgreSQL found")
	// ErrIntegrity: a downloaded archive is not the one pinned in the source.
	ErrIntegrity = errors.New("archive does not match its pinned SHA-512")
)

// superuser is the only role of a cluster that Start makes.
const superuser = "keyroll"

// Options say where and how the server runs. The zero value is a temporary
// server with durable writes.
type Options struct {
	// Dir keeps the data from one run to the next. Empty: a temporary
	// directory, removed by Stop.
	Dir string
	// Logger gets one line per start and stop; nil is silent.
	Logger *slog.Logger
	// Progress gets one human line per slow part ("downloading PostgreSQL
	// 17.10 (24 MB)"); nil is silent.
	Progress func(string)
	// NoFsync trades durability for speed: committed rows survive the death of
	// any process, but not of the machine. For tests and throw-away data.
	NoFsync bool
	// Settings are added to the server's configuration and win over the
	// defaults of this package.
	Settings map[string]string
}

func (o Options) withDefaults() Options {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Progress == nil {
		o.Progress = func(string) {}
	}
	return o
}

// socketURL addresses a database over a Unix socket, in the form that pgx and
// libpq both read.
func socketURL(socketDir, database string) string {
	u := url.URL{Scheme: "postgres", User: url.User(superuser), Path: "/" + database}
	u.RawQuery = url.Values{"host": {socketDir}, "port": {"5432"}, "sslmode": {"disable"}}.Encode()
	return u.String()
}

// createDatabase is idempotent, since a kept directory has the database of the
// run before.
func createDatabase(ctx context.Context, adminURL, name string) error {
	conn, err := pgx.Connect(ctx, adminURL)
	if err != nil {
		return fmt.Errorf("creating database %q: %w", name, err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	_, err = conn.Exec(ctx, "CREATE DATABASE "+pgx.Identifier{name}.Sanitize())
	var pgErr *pgconn.PgError
	if errors.As(err, &pgErr) && pgErr.Code == "42P04" { // duplicate_database
		return nil
	}
	if err != nil {
		return fmt.Errorf("creating database %q: %w", name, err)
	}
	return nil
}
