package pgtest

import (
	"context"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

// admin makes and drops databases on one server. Each act has a connection of
// its own: a cancelled context closes the connection it ran on.
type admin struct{ base string }

func adminFor(base string) (admin, error) {
	if _, err := pgx.ParseConfig(base); err != nil {
		return admin{}, fmt.Errorf("reading the database URL: %w", err)
	}
	return admin{base}, nil
}

// url addresses another database of the server. A connection string is either
// a URL or a list of words, in which the last word for dbname counts.
func (a admin) url(database string) string {
	if u, err := url.Parse(a.base); err == nil && strings.HasPrefix(u.Scheme, "postgres") {
		u.Path = "/" + database
		q := u.Query()
		q.Del("dbname")
		u.RawQuery = q.Encode()
		return u.String()
	}
	return a.base + " dbname=" + database
}

func (a admin) with(ctx context.Context, what string, do func(*pgx.Conn) error) error {
	conn, err := pgx.Connect(ctx, a.base)
	if err == nil {
		err = do(conn)
		_ = conn.Close(context.WithoutCancel(ctx))
	}
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

// create clones by copying files: it needs two checkpoints, which cost nothing
// without fsync, and writes no WAL for the copy.
func (a admin) create(ctx context.Context, name, template string) error {
	return a.with(ctx, "creating database "+name, func(conn *pgx.Conn) error {
		_, err := conn.Exec(ctx, fmt.Sprintf("CREATE DATABASE %s TEMPLATE %s STRATEGY file_copy", name, template))
		return err
	})
}

// drop ends whatever is still connected; a test may leave a pool to its own
// cleanup, which runs before or after this.
func (a admin) drop(ctx context.Context, name string) error {
	return a.with(ctx, "dropping database "+name, func(conn *pgx.Conn) error {
		_, err := conn.Exec(ctx, "DROP DATABASE IF EXISTS "+name+" WITH (FORCE)")
		return err
	})
}

// freeze closes a template to connections and waits for the last to be gone: a
// clone fails while anyone is connected, and a backend outlives its client's
// Close by a moment.
func (a admin) freeze(ctx context.Context, name string) error {
	return a.with(ctx, "freezing template "+name, func(conn *pgx.Conn) error {
		if _, err := conn.Exec(ctx, "ALTER DATABASE "+name+" ALLOW_CONNECTIONS false"); err != nil {
			return err
		}
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for {
			var open int
			err := conn.QueryRow(ctx, `SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = $1`, name).Scan(&open)
			if err != nil || open == 0 {
				return err
			}
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-tick.C:
			}
		}
	})
}
