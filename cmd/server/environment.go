package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/url"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/keyroll/keyroll/internal/devpg"
	"github.com/keyroll/keyroll/internal/sim"
)

// surroundings are what the demo and dev run: Postgres, the simulators, and
// the service as serve runs it, in this process.
type surroundings struct {
	tell *teller
	// dir holds the files of the simulators.
	dir      string
	database string // URL
	sims     *simulators
	service  *service
	undo     []func(ctx context.Context) error
}

// wants says what the surroundings are to be.
type wants struct {
	// dir keeps all files; "" is a temporary directory.
	dir string
	// databaseURL names a server on which a database of its own is made, and
	// dropped in the end; "" starts a server.
	databaseURL string
	// listen is the service's address.
	listen string
	seed   sim.Seed
	log    *slog.Logger
}

// stopLimit bounds how long everything may take to end.
const stopLimit = 40 * time.Second

// build starts everything. What fails has been taken down again.
func build(ctx context.Context, t *teller, w wants) (_ *surroundings, err error) {
	s := &surroundings{tell: t}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.end(ctx))
		}
	}()
	if s.dir = w.dir; s.dir == "" {
		if s.dir, err = os.MkdirTemp("", "keyroll-demo-"); err != nil {
			return nil, err
		}
		s.undo = append(s.undo, func(context.Context) error { return os.RemoveAll(s.dir) })
	}
	if err := t.do("starting PostgreSQL", func(say func(string)) (string, error) {
		if w.databaseURL != "" {
			return s.borrowDatabase(ctx, w.databaseURL)
		}
		return s.startPostgres(ctx, w, say)
	}); err != nil {
		return nil, err
	}
	if err := t.do("starting the simulators", func(func(string)) (string, error) {
		s.sims, err = startSimulators(context.WithoutCancel(ctx), sim.Options{Seed: w.seed, Logger: w.log}, s.dir)
		if err != nil {
			return "", err
		}
		s.undo = append(s.undo, func(context.Context) error { return s.sims.Close() })
		return "Simulators of Entra, Key Vault, Exchange and SharePoint", nil
	}); err != nil {
		return nil, err
	}
	return s, t.do("starting Keyroll", func(func(string)) (string, error) { return s.startKeyroll(ctx, w) })
}

// end takes everything down, in reverse.
func (s *surroundings) end(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopLimit)
	defer cancel()
	var errs []error
	for i := len(s.undo) - 1; i >= 0; i-- {
		errs = append(errs, s.undo[i](ctx))
	}
	s.undo = nil
	return errors.Join(errs...)
}

func (s *surroundings) startPostgres(ctx context.Context, w wants, say func(string)) (string, error) {
	o := devpg.Options{Progress: say, Logger: w.log, NoFsync: w.dir == ""}
	if w.dir != "" {
		o.Dir = w.dir + "/postgres"
	}
	pg, err := devpg.Start(ctx, o)
	if err != nil {
		return "", err
	}
	s.undo = append(s.undo, pg.Stop)
	if err := pg.CreateDatabase(ctx, "keyroll"); err != nil {
		return "", err
	}
	s.database = pg.URL("keyroll")
	return "PostgreSQL " + pg.Version() + " from " + pg.Source(), nil
}

// borrowDatabase makes a database on a server that was given, and drops it in
// the end. The role keyroll_app belongs to the whole server and stays.
func (s *surroundings) borrowDatabase(ctx context.Context, server string) (string, error) {
	cfg, err := pgx.ParseConfig(server)
	if err != nil {
		return "", errors.New("--database-url is not a PostgreSQL connection URL")
	}
	name := "keyroll_demo_" + strings.ToLower(rand.Text()[:10])
	quoted := pgx.Identifier{name}.Sanitize()
	do := func(ctx context.Context, sql string) error {
		conn, err := pgx.ConnectConfig(ctx, cfg.Copy())
		if err != nil {
			return fmt.Errorf("connecting to --database-url: %w", err)
		}
		defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
		_, err = conn.Exec(ctx, sql)
		return err
	}
	if s.database, err = withDatabase(server, name); err != nil {
		return "", err
	}
	if err := do(ctx, "CREATE DATABASE "+quoted+" TEMPLATE template0"); err != nil {
		return "", fmt.Errorf("making a database: %w", err)
	}
	s.undo = append(s.undo, func(ctx context.Context) error {
		if err := do(ctx, "DROP DATABASE IF EXISTS "+quoted+" WITH (FORCE)"); err != nil {
			return fmt.Errorf("dropping database %s: %w", name, err)
		}
		return nil
	})
	return "Database " + name + " on the server that you gave", nil
}

// withDatabase is the URL with another database.
func withDatabase(server, name string) (string, error) {
	u, err := url.Parse(server)
	if err != nil || !strings.HasPrefix(u.Scheme, "postgres") {
		return "", errors.New("--database-url must be a URL: postgres://USER@HOST/DATABASE")
	}
	u.Path = "/" + name
	q := u.Query()
	q.Del("dbname")
	u.RawQuery = q.Encode()
	return u.String(), nil
}

// startKeyroll runs the service by the settings that serve reads, so that
// what is shown here is what production does.
func (s *surroundings) startKeyroll(ctx context.Context, w wants) (string, error) {
	env := map[string]string{}
	set := maps.Clone(quickSettings)
	maps.Copy(set, s.sims.settings())
	set["DATABASE_URL"], set["AUTO_MIGRATE"], set["LISTEN"] = s.database, "true", w.listen
	for name, value := range set {
		env[envPrefix+name] = value
	}
	cfg, err := readConfig(env)
	if err != nil {
		return "", err
	}
	if s.service, err = startService(ctx, cfg, w.log); err != nil {
		return "", err
	}
	s.undo = append(s.undo, s.service.stop)
	return "Keyroll at " + s.service.url, nil
}

// quickSettings make what takes Microsoft days take seconds.
var quickSettings = map[string]string{
	"HEARTBEAT": "500ms", "WORKER_STALE": "6s", "WORKER_SILENCE": "10s", "SWEEP": "250ms",
	"SHAREPOINT_POLL": "250ms", "SHAREPOINT_QUEUE_CHECK": "250ms", "SHAREPOINT_DWELL": "1s",
	"KEY_VAULT_CALL": "10s", "KEY_VAULT_SETTLE": "2s", "EXCHANGE_CALL": "10s", "EXCHANGE_SETTLE": "2s",
	"SHAREPOINT_CALL": "10s", "SHAREPOINT_SETTLE": "2s", "AUTOMATION_CALL": "30s", "AUTOMATION_SETTLE": "2s", "AUTOMATION_POLL": "250ms", "READ_CALL": "15s", "MAILBOX_CHECK": "1s", "EVIDENCE_CHECK": "5s", "LEDGER_CHECK": "15s", "LEDGER_RATE": "10", "LEDGER_PAUSE": "50ms",
	"BACKOFF_BASE": "250ms", "BACKOFF_MAX": "5s", "SHUTDOWN_GRACE": "15s", "WORKERS": "10",
}

// freeOr returns the address where nothing listens on it, else a free port.
func freeOr(address string) string {
	ln, err := net.Listen("tcp", address)
	if err != nil {
		return "127.0.0.1:0"
	}
	_ = ln.Close()
	return address
}

// tail keeps the last lines that were written to it, to show why something failed.
type tail struct {
	mu    sync.Mutex
	lines []string
}

const tailLines = 30

// Write takes one log line.
func (t *tail) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.lines = append(t.lines, string(b))
	if len(t.lines) > tailLines {
		t.lines = t.lines[len(t.lines)-tailLines:]
	}
	return len(b), nil
}

func (t *tail) show(w io.Writer) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.lines) > 0 {
		fmt.Fprintf(w, "\nThe last %d log lines:\n%s", len(t.lines), strings.Join(t.lines, ""))
	}
}
