// Package pgtest gives each test a PostgreSQL database of its own.
//
// A test package declares
//
//	func TestMain(m *testing.M) { pgtest.Main(m) }
//
// and its tests call Open or OpenEmpty, in parallel if they like. The first
// call starts one server for the whole process (internal/devpg, in a temporary
// directory, without fsync), and migrates one template database per Migrator;
// every test gets a clone. With KEYROLL_TEST_DATABASE_URL the databases are
// made, under unique names, on that server instead.
//
// A test process that is killed takes its own server with it. On a server that
// was given by URL it leaves databases named keyroll_test_*, which may be
// dropped.
package pgtest

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/keyroll/keyroll/internal/devpg"
	"go.uber.org/goleak"
)

// urlEnv names a server to use in place of a fresh one. Its role must be
// allowed to create databases.
const urlEnv = "KEYROLL_TEST_DATABASE_URL"

const (
	startLimit   = 3 * time.Minute // a download included
	migrateLimit = 2 * time.Minute
	adminLimit   = time.Minute
)

// Migrator brings an empty database to the schema under test, and closes every
// connection that it opened. It must be a top-level function: templates are
// told apart by it.
type Migrator = func(ctx context.Context, url string) error

// suite is the server of this process and its templates. It is package state
// on purpose: the testing package has no other place that outlives a test.
type suite struct {
	mu        sync.Mutex // serialises CREATE and DROP DATABASE too
	running   bool       // inside Run
	tried     bool
	err       error         // of the start
	server    *devpg.Server // nil on a server given by URL
	admin     admin
	templates map[uintptr]template
	prefix    string // of every database of this process
	made      int
}

type template struct {
	name string
	err  error
}

var current suite

// Main runs the tests, stops the server, fails on leaked goroutines, and exits.
func Main(m *testing.M, options ...goleak.Option) { goleak.VerifyTestMain(runner{m}, options...) }

type runner struct{ m *testing.M }

func (r runner) Run() int { return Run(r.m) }

// Run runs the tests and then stops the server or drops the templates. It is
// for a TestMain with needs of its own; others call Main.
func Run(m *testing.M) int {
	current.mu.Lock()
	current.running = true
	current.mu.Unlock()
	code := m.Run()
	if err := current.shut(); err != nil {
		fmt.Fprintln(os.Stderr, "pgtest:", err)
		return max(code, 1)
	}
	return code
}

// Open returns the URL of a fresh database with the migrator's schema. It is
// dropped at the end of the test.
func Open(t testing.TB, migrate Migrator) (url string) {
	t.Helper()
	return current.open(t, func() (string, error) { return current.template(migrate) })
}

// OpenEmpty returns the URL of a fresh database with nothing in it.
func OpenEmpty(t testing.TB) (url string) {
	t.Helper()
	return current.open(t, func() (string, error) { return "template0", nil })
}

func (s *suite) open(t testing.TB, from func() (string, error)) string {
	t.Helper()
	name, err := s.clone(from)
	if err != nil { // never a skip: a green run without a database proves nothing
		t.Fatal("pgtest: ", err)
	}
	t.Cleanup(func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		ctx, cancel := context.WithTimeout(context.Background(), adminLimit)
		defer cancel()
		if err := s.admin.drop(ctx, name); err != nil {
			t.Error("pgtest: ", err)
		}
	})
	return s.admin.url(name)
}

func (s *suite) clone(from func() (string, error)) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.start(); err != nil {
		return "", err
	}
	tmpl, err := from()
	if err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(context.Background(), adminLimit)
	defer cancel()
	s.made++
	name := fmt.Sprintf("%s_%d", s.prefix, s.made)
	return name, s.admin.create(ctx, name, tmpl)
}

// start runs once; a failure stands for every later test.
func (s *suite) start() error {
	if !s.running {
		return errors.New("the package needs: func TestMain(m *testing.M) { pgtest.Main(m) }")
	}
	if s.tried {
		return s.err
	}
	s.tried = true
	s.templates = map[uintptr]template{}
	s.prefix = "keyroll_test_" + strings.ToLower(rand.Text()[:10])
	if given := os.Getenv(urlEnv); given != "" {
		s.admin, s.err = adminFor(given)
		return s.err
	}
	ctx, cancel := context.WithTimeout(context.Background(), startLimit)
	defer cancel()
	s.server, s.err = devpg.Start(ctx, devpg.Options{
		NoFsync:  true,
		Progress: func(line string) { fmt.Fprintln(os.Stderr, "pgtest:", line) },
		// Autovacuum would connect to a template just when it is cloned.
		Settings: map[string]string{"autovacuum": "off", "wal_level": "minimal", "max_wal_senders": "0"},
	})
	if s.err == nil {
		s.admin, s.err = adminFor(s.server.URL("postgres"))
	}
	return s.err
}

// template migrates once per migrator; a failure stands for every later test.
func (s *suite) template(migrate Migrator) (string, error) {
	id := reflect.ValueOf(migrate).Pointer()
	if t, ok := s.templates[id]; ok {
		return t.name, t.err
	}
	t := template{name: fmt.Sprintf("%s_template%d", s.prefix, len(s.templates))}
	ctx, cancel := context.WithTimeout(context.Background(), migrateLimit)
	defer cancel()
	if t.err = s.admin.create(ctx, t.name, "template0"); t.err == nil {
		if t.err = migrate(ctx, s.admin.url(t.name)); t.err != nil {
			t.err = fmt.Errorf("migrating the template: %w", t.err)
		} else {
			t.err = s.admin.freeze(ctx, t.name)
		}
	}
	s.templates[id] = t
	return t.name, t.err
}

// shut ends what start began. The templates of our own server go with it.
func (s *suite) shut() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.running = false
	ctx, cancel := context.WithTimeout(context.Background(), adminLimit)
	defer cancel()
	if s.server != nil {
		return s.server.Stop(ctx)
	}
	var errs []error
	for _, t := range s.templates {
		errs = append(errs, s.admin.drop(ctx, t.name))
	}
	return errors.Join(errs...)
}
