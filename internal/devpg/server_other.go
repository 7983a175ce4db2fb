//go:build !linux

package devpg

import "context"

// Server is a running PostgreSQL; on this operating system there is none.
type Server struct{}

// Start returns ErrUnsupported.
func Start(context.Context, Options) (*Server, error) { return nil, ErrUnsupported }

// URL addresses a database of the server.
func (*Server) URL(database string) string { return socketURL("", database) }

// PID is the process id of the server.
func (*Server) PID() int { return 0 }

// Version is the server's version.
func (*Server) Version() string { return "" }

// Source says where the server's programs came from.
func (*Server) Source() string { return "" }

// CreateDatabase returns ErrUnsupported.
func (*Server) CreateDatabase(ctx context.Context, name string) error { return ErrUnsupported }

// Restart returns ErrUnsupported.
func (*Server) Restart(context.Context) error { return ErrUnsupported }

// Stop does nothing.
func (*Server) Stop(context.Context) error { return nil }
