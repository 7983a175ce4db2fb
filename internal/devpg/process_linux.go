package devpg

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"time"
)

// serverID is the user (nobody) that runs PostgreSQL when we are root, since
// PostgreSQL refuses to be root.
const serverID = 65534

// owner is who runs PostgreSQL and so owns its files.
type owner struct {
	uid  int
	drop bool // we are root: change to uid
}

func currentOwner() owner {
	if os.Geteuid() == 0 {
		return owner{uid: serverID, drop: true}
	}
	return owner{uid: os.Geteuid()}
}

// command prepares a program of PostgreSQL: as the owner, in a process group
// of its own so that Ctrl-C reaches us and not the database, and with a small
// environment so that no PG* variable of the caller has an effect.
func (o owner) command(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(name, args...)
	cmd.Dir = "/" // the caller's directory may be closed to the owner
	cmd.Env = []string{"PATH=/usr/local/bin:/usr/bin:/bin", "LC_ALL=C.UTF-8", "LC_MESSAGES=C", "TZ=UTC"}
	if v := os.Getenv("LD_LIBRARY_PATH"); v != "" {
		cmd.Env = append(cmd.Env, "LD_LIBRARY_PATH="+v)
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if o.drop {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(o.uid), Gid: serverID}
	}
	return cmd
}

// give makes the owner the owner of path.
func (o owner) give(path string) error {
	if !o.drop {
		return nil
	}
	return os.Lchown(path, o.uid, serverID)
}

// process is a child that is watched until it ends.
type process struct {
	pid    int
	handle *os.Process   // signals by pidfd, so never another's process
	done   chan struct{} // closed once the child is reaped
	err    error         // how it ended; read after done
}

// spawn starts the child on a thread that stays until the child has ended: the
// kernel sends Pdeathsig when the THREAD that forked dies, and Go ends idle
// threads at will.
func spawn(cmd *exec.Cmd) (*process, error) {
	p := &process{done: make(chan struct{})}
	started := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		if err := cmd.Start(); err != nil {
			started <- err
			return
		}
		p.pid, p.handle = cmd.Process.Pid, cmd.Process
		started <- nil
		p.err = cmd.Wait()
		close(p.done)
	}()
	if err := <-started; err != nil {
		return nil, err
	}
	return p, nil
}

// end signals the child and waits, more firmly as time or ctx runs out. The
// child is gone when end returns nil; it may be called on an ended child.
func (p *process) end(ctx context.Context, sig syscall.Signal) error {
	stages := []struct {
		sig  syscall.Signal
		wait time.Duration
	}{{sig, fastStopTime}, {syscall.SIGQUIT, quitTime}, {syscall.SIGKILL, quitTime}}
	for i, stage := range stages {
		if p.ended() {
			return nil
		}
		if err := p.handle.Signal(stage.sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
			return fmt.Errorf("signalling postgres (pid %d): %w", p.pid, err)
		}
		wait, cancel := context.WithTimeout(context.WithoutCancel(ctx), stage.wait)
		giveUp := ctx.Done()
		if i > 0 {
			giveUp = nil // ctx hurries the polite stage only
		}
		select {
		case <-p.done:
		case <-wait.Done():
		case <-giveUp:
		}
		cancel()
	}
	if !p.ended() {
		return fmt.Errorf("postgres (pid %d) did not end", p.pid)
	}
	return nil
}

func (p *process) ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// runToEnd runs a short child to its end, or kills it when ctx ends first.
func runToEnd(ctx context.Context, cmd *exec.Cmd) error {
	p, err := spawn(cmd)
	if err != nil {
		return err
	}
	select {
	case <-p.done:
		return p.err
	case <-ctx.Done():
		_ = syscall.Kill(-p.pid, syscall.SIGKILL) // its whole group
		<-p.done
		return ctx.Err()
	}
}
