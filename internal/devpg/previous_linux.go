package devpg

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// postgresIn lists the live PostgreSQL processes that work in dir: every one
// of them, postmaster or backend, has it as its working directory. Where /proc
// hides that (a container without CAP_SYS_PTRACE), the postmaster's own lock
// file has to do; PostgreSQL itself then refuses while a backend lives.
func postgresIn(dir string) []int {
	var pids []int
	recorded := recordedPID(dir)
	procs, _ := filepath.Glob("/proc/[0-9]*")
	for _, proc := range procs {
		pid, err := strconv.Atoi(filepath.Base(proc))
		if err != nil || !isPostgres(proc) {
			continue
		}
		cwd, err := os.Readlink(filepath.Join(proc, "cwd"))
		if cwd == dir || errors.Is(err, os.ErrPermission) && pid == recorded {
			pids = append(pids, pid)
		}
	}
	return pids
}

// isPostgres is false for a zombie: it holds nothing, and a container without
// an init may never reap it.
func isPostgres(proc string) bool {
	b, err := os.ReadFile(filepath.Join(proc, "stat"))
	if err != nil {
		return false
	}
	_, rest, ok := strings.Cut(string(b), " (")
	name, state, ok2 := strings.Cut(rest, ") ")
	return ok && ok2 && name == "postgres" && state != "" && state[0] != 'Z' && state[0] != 'X'
}

// recordedPID reads the first line of postmaster.pid; 0 if there is none.
func recordedPID(dir string) int {
	b, err := os.ReadFile(filepath.Join(dir, "postmaster.pid"))
	if err != nil {
		return 0
	}
	first, _, _ := strings.Cut(string(b), "\n")
	pid, _ := strconv.Atoi(strings.TrimSpace(first))
	return pid
}

// dropStalePID removes postmaster.pid when its pid now belongs to a program
// that is not PostgreSQL. PostgreSQL clears a file whose pid is free by itself,
// but refuses to start if the pid lives again, as it does after a reboot and in
// a container. We hold the directory's lock and saw no server in it.
func (p *place) dropStalePID() error {
	dir := p.data(false)
	pid := recordedPID(dir)
	proc := filepath.Join("/proc", strconv.Itoa(pid))
	if _, err := os.Stat(proc); pid == 0 || err != nil {
		return nil
	}
	if isPostgres(proc) {
		return nil // another directory's server, or hidden: let PostgreSQL judge
	}
	return os.Remove(filepath.Join(dir, "postmaster.pid"))
}
