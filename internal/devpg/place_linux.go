package devpg

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	runPrefix = "keyroll-pg-"
	// The kernel allows 107 bytes for the path of a socket; the directory
	// gets "/keyroll-pg-4294967295/s/.s.PGSQL.5432" after it.
	maxTempPath = 60
)

// place is where one server lives. The run directory is short and temporary
// and has the socket; home has the lock, the log and the data, and is the run
// directory itself for a temporary server.
type place struct {
	home      string
	run       string
	socket    string
	temporary bool
	locks     []*os.File // released by close, or by our death
}

func openPlace(dir string, o owner) (_ *place, err error) {
	p := &place{temporary: dir == ""}
	defer func() {
		if err != nil {
			err = errors.Join(err, p.close())
		}
	}()
	if !p.temporary {
		if p.home, err = filepath.Abs(dir); err != nil {
			return nil, err
		}
		if err = os.MkdirAll(p.home, 0o755); err != nil {
			return nil, err
		}
		if err = p.lock(p.home); err != nil {
			return nil, err
		}
	}
	base, err := tempBase(o)
	if err != nil {
		return nil, err
	}
	if p.run, err = os.MkdirTemp(base, runPrefix); err != nil { // mode 0700
		return nil, err
	}
	if p.temporary {
		p.home = p.run
	}
	p.socket = filepath.Join(p.run, "s")
	if err = p.lock(p.run); err != nil {
		return nil, err
	}
	if err = os.Mkdir(p.socket, 0o700); err != nil {
		return nil, err
	}
	return p, errors.Join(o.give(p.socket), o.give(p.run))
}

// tempBase is a directory for temporary files that is short enough for sockets
// and open to the server's user.
func tempBase(o owner) (string, error) {
	for _, dir := range []string{os.TempDir(), "/tmp", "/var/tmp"} {
		if dir, err := filepath.Abs(dir); err == nil && len(dir) <= maxTempPath && (!o.drop || enterable(dir)) {
			if info, err := os.Stat(dir); err == nil && info.IsDir() {
				return dir, nil
			}
		}
	}
	return "", fmt.Errorf("no temporary directory is open to uid %d and shorter than %d bytes: set TMPDIR", o.uid, maxTempPath)
}

// enterable says whether any user may go through every directory of path.
func enterable(path string) bool {
	for {
		info, err := os.Stat(path)
		if err != nil || info.Mode().Perm()&0o001 == 0 {
			return false
		}
		parent := filepath.Dir(path)
		if parent == path {
			return true
		}
		path = parent
	}
}

// lock takes dir for this process. The kernel releases it with our death, so
// a lock that is held always means a live process.
func (p *place) lock(dir string) error {
	f, err := tryLock(filepath.Join(dir, "lock"))
	if errors.Is(err, unix.EWOULDBLOCK) {
		holder, _ := os.ReadFile(filepath.Join(dir, "lock"))
		return fmt.Errorf("%w: process %s already runs PostgreSQL in %s; stop it, or choose another directory",
			ErrInUse, strings.TrimSpace(string(holder)), dir)
	}
	if err != nil {
		return err
	}
	p.locks = append(p.locks, f)
	if err := f.Truncate(0); err != nil {
		return err
	}
	_, err = fmt.Fprintln(f, os.Getpid())
	return err
}

func tryLock(path string) (*os.File, error) {
	// NOFOLLOW: a leftover belongs to "nobody", who must not aim us elsewhere.
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// close removes the run directory and then lets the locks go.
func (p *place) close() error {
	var errs []error
	if p.run != "" {
		errs = append(errs, os.RemoveAll(p.run))
	}
	for _, f := range p.locks {
		errs = append(errs, f.Close())
	}
	return errors.Join(errs...)
}

// data is the cluster's directory; fresh means one that is still being made.
func (p *place) data(fresh bool) string {
	if fresh {
		return filepath.Join(p.home, "data.new")
	}
	return filepath.Join(p.home, "data")
}

func (p *place) newCluster(o owner) error {
	dir := p.data(true)
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	return o.give(dir)
}

// major is the version that made the cluster, which alone can read it; 0 if
// there is no cluster yet.
func (p *place) major() (int, error) {
	b, err := os.ReadFile(filepath.Join(p.data(false), "PG_VERSION"))
	if errors.Is(err, os.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		return 0, fmt.Errorf("reading the version of the cluster in %s: %w", p.home, err)
	}
	return n, nil
}

// dataRef is a name of the data directory that the server's user can open.
type dataRef struct {
	path  string
	files []*os.File
}

func (d dataRef) close() {
	for _, f := range d.files {
		_ = f.Close()
	}
}

// dataFor names the data directory for the owner. If a directory above it is
// closed to the owner (a checkout under /root), the child inherits the open
// directory and reaches it as /proc/self/fd/3, which needs no permission above.
func (p *place) dataFor(o owner) (dataRef, error) {
	dir := p.data(false)
	if _, err := os.Stat(dir); err != nil {
		dir = p.data(true)
	}
	if !o.drop || p.temporary || enterable(p.home) {
		return dataRef{path: dir}, nil
	}
	f, err := os.Open(dir)
	if err != nil {
		return dataRef{}, err
	}
	return dataRef{path: "/proc/self/fd/3", files: []*os.File{f}}, nil
}

// newLog keeps the log of the run before, which may tell of a crash.
func (p *place) newLog() (*os.File, error) {
	path := filepath.Join(p.home, "postgres.log")
	if err := os.Rename(path, path+".1"); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	return os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
}

// logTail is the end of the server's log, for an error message.
func (p *place) logTail() string {
	f, err := os.Open(filepath.Join(p.home, "postgres.log"))
	if err != nil {
		return ""
	}
	defer f.Close()
	const most = 2000
	if info, err := f.Stat(); err == nil && info.Size() > most {
		_, _ = f.Seek(-most, io.SeekEnd)
	}
	b, _ := io.ReadAll(f)
	return "\nlog of postgres:\n" + strings.TrimSpace(string(b))
}

// sweepLeftovers removes the run directories of processes that were killed:
// ours by owner, their lock free, and not just being made.
func sweepLeftovers(o owner) {
	base, err := tempBase(o)
	if err != nil {
		return
	}
	dirs, _ := filepath.Glob(filepath.Join(base, runPrefix+"*"))
	for _, dir := range dirs {
		var st unix.Stat_t
		if unix.Lstat(dir, &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFDIR || int(st.Uid) != o.uid ||
			time.Since(time.Unix(st.Mtim.Unix())) < time.Minute {
			continue
		}
		if f, err := tryLock(filepath.Join(dir, "lock")); err == nil {
			_ = os.RemoveAll(dir)
			f.Close()
		}
	}
}

// awaitPrevious waits for a server whose process has died and that is still on
// its way out, then removes a lock file of PostgreSQL that cannot be true.
func (p *place) awaitPrevious(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, fastStopTime)
	defer cancel()
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		pids := postgresIn(p.data(false))
		if len(pids) == 0 {
			return p.dropStalePID()
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w: PostgreSQL (pid %d) still runs on %s and was not started by a live Keyroll; stop it first",
				ErrInUse, pids[0], p.data(false))
		case <-tick.C:
		}
	}
}
