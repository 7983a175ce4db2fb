package devpg

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
)

const (
	startLimit   = 90 * time.Second // crash recovery of a kept directory included
	fastStopTime = 10 * time.Second // for a fast shutdown, before an immediate one
	quitTime     = 6 * time.Second  // the postmaster itself kills its children after 5 s
	pollEvery    = 20 * time.Millisecond
)

// Server is one running PostgreSQL. Its methods may be called concurrently.
type Server struct {
	opts  Options
	owner owner
	place *place
	bin   binaries

	mu      sync.Mutex // guards proc and stopped
	proc    *process
	stopped bool
}

// Start finds or fetches PostgreSQL, makes the cluster if there is none yet,
// and returns when the server accepts connections. ctx bounds the start, not
// the life of the server; that ends with Stop or with this process.
func Start(ctx context.Context, o Options) (*Server, error) {
	o = o.withDefaults()
	return start(ctx, o, systemFinder(o.Progress))
}

func start(ctx context.Context, o Options, f finder) (_ *Server, err error) {
	began := time.Now()
	s := &Server{opts: o.withDefaults(), owner: f.owner}
	sweepLeftovers(s.owner)
	if s.place, err = openPlace(o.Dir, s.owner); err != nil {
		return nil, fmt.Errorf("preparing the directory of PostgreSQL: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.place.close())
		}
	}()
	if f.major, err = s.place.major(); err != nil {
		return nil, err
	}
	if s.bin, err = f.find(ctx); err != nil {
		return nil, fmt.Errorf("finding PostgreSQL: %w", err)
	}
	if f.major == 0 {
		if err = s.initCluster(ctx); err != nil {
			return nil, fmt.Errorf("making a PostgreSQL cluster: %w", err)
		}
	} else if err = s.place.awaitPrevious(ctx); err != nil {
		return nil, err
	}
	if err = s.launch(ctx); err != nil {
		return nil, fmt.Errorf("starting PostgreSQL: %w", err)
	}
	s.opts.Logger.Info("postgres started", "version", s.bin.version, "source", s.bin.source,
		"pid", s.PID(), "duration_ms", time.Since(began).Milliseconds())
	return s, nil
}

// URL addresses a database of the server over its Unix socket; there is no TCP.
func (s *Server) URL(database string) string { return socketURL(s.place.socket, database) }

// Version is the server's version, such as "17.10".
func (s *Server) Version() string { return s.bin.version }

// Source says where the server's programs were found or fetched.
func (s *Server) Source() string { return s.bin.source }

// PID is the process id of the server (the postmaster), for tests that kill it.
func (s *Server) PID() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.proc.pid
}

// CreateDatabase makes a database unless it exists already.
func (s *Server) CreateDatabase(ctx context.Context, name string) error {
	return createDatabase(ctx, s.URL("postgres"), name)
}

// Restart stops the server as a crash would (immediate shutdown) and starts it
// again on the same data and the same URL: the fault "Postgres restarts".
func (s *Server) Restart(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped {
		return errors.New("restarting PostgreSQL: it is stopped")
	}
	if err := s.proc.end(ctx, syscall.SIGQUIT); err != nil {
		return fmt.Errorf("restarting PostgreSQL: %w", err)
	}
	if err := s.place.awaitPrevious(ctx); err != nil {
		return err
	}
	return s.launchLocked(ctx)
}

// Stop ends the server and removes a temporary directory. Kept data gets a
// fast shutdown with its checkpoint; data about to be removed gets none. If ctx
// ends first, the server is still made to go, the hard way. A second Stop does
// nothing.
func (s *Server) Stop(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped {
		return nil
	}
	s.stopped = true
	sig := syscall.SIGINT
	if s.place.temporary {
		sig = syscall.SIGQUIT
	}
	err := errors.Join(s.proc.end(ctx, sig), s.place.close())
	s.opts.Logger.Info("postgres stopped", "pid", s.proc.pid)
	if err != nil {
		return fmt.Errorf("stopping PostgreSQL: %w", err)
	}
	return nil
}

func (s *Server) launch(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.launchLocked(ctx)
}

// launchLocked starts the postmaster and waits until it answers; a postmaster
// that does not is ended before the error returns.
func (s *Server) launchLocked(ctx context.Context) error {
	log, err := s.place.newLog()
	if err != nil {
		return err
	}
	defer log.Close() // the child has its own descriptor
	data, err := s.place.dataFor(s.owner)
	if err != nil {
		return err
	}
	defer data.close()
	cmd := s.owner.command(filepath.Join(s.bin.dir, "postgres"), append([]string{"-D", data.path}, s.settings()...)...)
	cmd.ExtraFiles = data.files
	cmd.Stdout, cmd.Stderr = log, log
	// An immediate shutdown, should this process die: the postmaster takes its
	// children along and removes its socket. SIGKILL would leave the socket.
	cmd.SysProcAttr.Pdeathsig = syscall.SIGQUIT
	if s.proc, err = spawn(cmd); err != nil {
		return err
	}
	if err := s.awaitReady(ctx); err != nil {
		_ = s.proc.end(context.WithoutCancel(ctx), syscall.SIGQUIT)
		return fmt.Errorf("%w%s", err, s.place.logTail())
	}
	return nil
}

func (s *Server) awaitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	var last error
	for {
		select {
		case <-s.proc.done:
			return fmt.Errorf("postgres ended during its start (%v)", s.proc.err)
		case <-ctx.Done():
			return errors.Join(fmt.Errorf("waiting for postgres to accept connections: %w", ctx.Err()), last)
		case <-tick.C:
			if last = s.ping(ctx); last == nil {
				return nil
			}
		}
	}
}

func (s *Server) ping(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	conn, err := pgx.Connect(ctx, s.URL("postgres"))
	if err != nil {
		return err
	}
	return conn.Close(ctx)
}

// settings are those of a small machine with many short-lived connections.
func (s *Server) settings() []string {
	set := map[string]string{
		"port":                    "5432", // the name of the socket; nothing listens on TCP
		"listen_addresses":        "",
		"unix_socket_directories": s.place.socket,
		"unix_socket_permissions": "0700",
		"max_connections":         "200",
		"shared_buffers":          "32MB",
		"timezone":                "UTC",
		"log_timezone":            "UTC",
		"log_line_prefix":         "%m [%p] %d ",
		"jit":                     "off", // costs more than it saves on short statements
	}
	if s.opts.NoFsync {
		// synchronous_commit stays on: without fsync it costs one write to the
		// page cache, and it is what lets a commit survive a killed server.
		set["fsync"], set["full_page_writes"] = "off", "off"
	}
	for name, value := range s.opts.Settings {
		set[name] = value
	}
	var args []string
	for name, value := range set {
		args = append(args, "--"+name+"="+value)
	}
	slices.Sort(args)
	return args
}

// initCluster makes the cluster beside its final name and renames it, so that
// a crash here leaves a data.new, which the next Start removes, and never half
// a cluster under the name "data".
func (s *Server) initCluster(ctx context.Context) error {
	s.opts.Progress("preparing a PostgreSQL " + s.bin.version + " data directory")
	if err := s.place.newCluster(s.owner); err != nil {
		return err
	}
	data, err := s.place.dataFor(s.owner)
	if err != nil {
		return err
	}
	defer data.close()
	// "trust" is safe here: the only way in is a socket in a directory with
	// mode 0700. "peer" would refuse root, whose server runs as another user.
	args := []string{
		"-D", data.path, "-U", superuser, "--auth=trust",
		"--encoding=UTF8", "--locale=C.UTF-8", "--no-instructions",
	}
	if s.opts.NoFsync {
		args = append(args, "--no-sync")
	}
	cmd := s.owner.command(filepath.Join(s.bin.dir, "initdb"), args...)
	cmd.ExtraFiles = data.files
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := runToEnd(ctx, cmd); err != nil {
		return fmt.Errorf("running initdb: %w\n%s", err, strings.TrimSpace(out.String()))
	}
	return os.Rename(s.place.data(true), s.place.data(false))
}
