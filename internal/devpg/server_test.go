//go:build linux

package devpg_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/keyroll/keyroll/internal/devpg"
	"golang.org/x/sys/unix"
)

// start starts a server that the test stops, or skips where none can be had.
func start(t *testing.T, o devpg.Options) *devpg.Server {
	t.Helper()
	s, err := devpg.Start(t.Context(), o)
	if errors.Is(err, devpg.ErrNotFound) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Stop(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return s
}

func query[T any](t *testing.T, url, sql string) T {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	var v T
	if err := conn.QueryRow(t.Context(), sql).Scan(&v); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return v
}

func TestTemporaryServer(t *testing.T) {
	began := time.Now()
	s := start(t, devpg.Options{NoFsync: true, Settings: map[string]string{"work_mem": "7MB"}})
	t.Logf("ready in %v from %s", time.Since(began).Round(time.Millisecond), s.Source())

	for range 2 { // the second finds it made
		if err := s.CreateDatabase(t.Context(), `odd "name"`); err != nil {
			t.Fatal(err)
		}
	}
	if got := query[string](t, s.URL(`odd "name"`), "SELECT current_database() || ' ' || current_user"); got != `odd "name" keyroll` {
		t.Errorf("database and user: %s", got)
	}
	for name, want := range map[string]string{
		"listen_addresses": "", "server_encoding": "UTF8", "lc_ctype": "C.UTF-8",
		"max_connections": "200", "fsync": "off", "work_mem": "7MB", "timezone": "UTC",
	} {
		if got := query[string](t, s.URL("postgres"), "SHOW "+name); got != want {
			t.Errorf("%s = %q, want %q", name, got, want)
		}
	}
	info, err := os.Stat(s.SocketDir())
	if err != nil || info.Mode().Perm() != 0o700 || len(s.SocketDir()) >= 100 {
		t.Errorf("socket directory %s: %v, %v", s.SocketDir(), info, err)
	}

	for range 2 {
		if err := s.Stop(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := os.Stat(s.Home()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the temporary directory is still there: %v", err)
	}
}

func TestServerIsNotRoot(t *testing.T) {
	s := start(t, devpg.Options{NoFsync: true})
	var st unix.Stat_t
	if err := unix.Stat(filepath.Join("/proc", itoa(s.PID())), &st); err != nil {
		t.Fatal(err)
	}
	want := os.Geteuid()
	if want == 0 {
		want = 65534
	}
	if int(st.Uid) != want {
		t.Errorf("postgres runs as uid %d, want %d", st.Uid, want)
	}
	if pgid, err := unix.Getpgid(s.PID()); err != nil || pgid == unix.Getpgrp() {
		t.Errorf("postgres shares our process group: Ctrl-C would reach it (%v)", err)
	}
}

func TestRestartKeepsRowsAndURL(t *testing.T) {
	s := start(t, devpg.Options{NoFsync: true})
	before := s.PID()
	exec1(t, s.URL("postgres"), "CREATE TABLE kept AS SELECT 41 AS n")
	if err := s.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := query[int](t, s.URL("postgres"), "SELECT n FROM kept"); got != 41 || s.PID() == before {
		t.Errorf("after the restart: %d, pid %d then %d", got, before, s.PID())
	}
}

// The directory lies under one that is closed to the server's user, as a
// checkout in root's home is.
func TestKeptDirectory(t *testing.T) {
	closed := filepath.Join(t.TempDir(), "closed")
	if err := os.Mkdir(closed, 0o700); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(closed, "dev")
	s := start(t, devpg.Options{Dir: dir})
	if got := query[string](t, s.URL("postgres"), "SHOW fsync"); got != "on" {
		t.Errorf("fsync = %s in a kept directory", got)
	}
	exec1(t, s.URL("postgres"), "CREATE TABLE kept AS SELECT 42 AS n")

	_, err := devpg.Start(t.Context(), devpg.Options{Dir: dir})
	if !errors.Is(err, devpg.ErrInUse) || !strings.Contains(err.Error(), itoa(os.Getpid())) {
		t.Errorf("a second start on the directory: %v, want ErrInUse with our pid", err)
	}
	if err := s.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}

	// A lock file whose pid now belongs to another program must not stop us.
	stale := filepath.Join(dir, "data", "postmaster.pid")
	if err := os.WriteFile(stale, []byte(itoa(os.Getpid())+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	s = start(t, devpg.Options{Dir: dir})
	if got := query[int](t, s.URL("postgres"), "SELECT n FROM kept"); got != 42 {
		t.Errorf("kept row: %d", got)
	}
}

func TestStartFailureTellsTheLog(t *testing.T) {
	_, err := devpg.Start(t.Context(), devpg.Options{NoFsync: true, Settings: map[string]string{"shared_buffers": "nonsense"}})
	if errors.Is(err, devpg.ErrNotFound) {
		t.Skip(err)
	}
	if err == nil || !strings.Contains(err.Error(), "shared_buffers") {
		t.Errorf("want the log's own words, got: %v", err)
	}
}

// startHelper starts a process that has a server, and returns how to kill it.
func startHelper(t *testing.T, dir string) (hello, func()) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), helperEnv+"="+dir)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	kill := func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		_ = in.Close()
	}
	var h hello
	if err := json.NewDecoder(out).Decode(&h); err != nil {
		kill()
		t.Fatalf("the helper said nothing: %v", err)
	}
	go func() { _, _ = io.Copy(io.Discard, out) }()
	return h, kill
}

func TestDeadParentLeavesNoServer(t *testing.T) {
	start(t, devpg.Options{NoFsync: true}) // skips where there is no PostgreSQL
	h, kill := startHelper(t, "")
	t.Cleanup(func() { _ = os.RemoveAll(filepath.Dir(h.Socket)) })
	fd, err := unix.PidfdOpen(h.PID, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	kill()
	awaitExit(t, fd)
	if left, _ := filepath.Glob(h.Socket + "/.s.*"); len(left) != 0 {
		t.Errorf("sockets left: %v", left)
	}

	// What is left is files; the next start removes them once they are old.
	old := time.Now().Add(-time.Hour)
	if err := os.Chtimes(filepath.Dir(h.Socket), old, old); err != nil {
		t.Fatal(err)
	}
	devpg.SweepLeftovers()
	if _, err := os.Stat(filepath.Dir(h.Socket)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the leftover directory was not swept: %v", err)
	}
}

func TestKeptDirectorySurvivesKill9(t *testing.T) {
	start(t, devpg.Options{NoFsync: true})
	dir := t.TempDir()
	h, kill := startHelper(t, dir)
	exec1(t, h.URL, "CREATE TABLE kept AS SELECT 43 AS n")
	t.Cleanup(func() { _ = os.RemoveAll(filepath.Dir(h.Socket)) })
	kill()
	// At once: the old server may still be on its way out.
	s := start(t, devpg.Options{Dir: dir})
	if got := query[int](t, s.URL("postgres"), "SELECT n FROM kept"); got != 43 {
		t.Errorf("kept row: %d", got)
	}
}

// The postmaster dies before its parent, and so leaves no orderly end.
func TestKilledPostmasterRecovers(t *testing.T) {
	dir := t.TempDir()
	s := start(t, devpg.Options{Dir: dir})
	exec1(t, s.URL("postgres"), "CREATE TABLE kept AS SELECT 44 AS n")
	if err := unix.Kill(s.PID(), unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err := s.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := query[int](t, s.URL("postgres"), "SELECT n FROM kept"); got != 44 {
		t.Errorf("kept row: %d", got)
	}
}
