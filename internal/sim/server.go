package sim

import (
	"context"
	"crypto/rsa"
	"crypto/tls"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"
)

// Options are what Start needs. Addresses default to a free loopback port.
type Options struct {
	Seed        Seed
	Scenario    *Scenario // nil: nothing goes wrong by itself. Its Seed is for Seed
	Addr        string    // of the TLS listener that is all of Microsoft
	ControlAddr string    // of the plain listener of the control API
	Logger      *slog.Logger
	SigningKey  *rsa.PrivateKey // of Entra's tokens; nil: one of this world's own. RSA keys are slow to make
}

// Server is a world behind two listeners.
type Server struct {
	Addr       string // host:port of the TLS listener
	ControlURL string // http://host:port
	World      *World

	ca        *authority
	servers   []*http.Server
	serving   sync.WaitGroup
	stop      func() bool // detaches the server from Start's context
	closeOnce sync.Once
	closeErr  error
}

// Start serves a world until ctx ends or Close is called.
func Start(ctx context.Context, o Options) (*Server, error) {
	world, err := New(o.Seed)
	if err != nil {
		return nil, fmt.Errorf("making the world: %w", err)
	}
	if o.SigningKey != nil {
		world.signing = func() (*rsa.PrivateKey, error) { return o.SigningKey, nil }
	}
	if o.Logger != nil {
		world.Logger = o.Logger
	}
	if o.Scenario != nil {
		if err := o.Scenario.Play(world); err != nil {
			return nil, fmt.Errorf("playing scenario %s: %w", o.Scenario.Name, err)
		}
	}
	ca, err := newAuthority(world.serves)
	if err != nil {
		return nil, err
	}
	var lc net.ListenConfig
	ln, err := lc.Listen(ctx, "tcp", or(o.Addr, "127.0.0.1:0"))
	if err != nil {
		return nil, fmt.Errorf("listening for Microsoft: %w", err)
	}
	control, err := lc.Listen(ctx, "tcp", or(o.ControlAddr, "127.0.0.1:0"))
	if err != nil {
		_ = ln.Close()
		return nil, fmt.Errorf("listening for control: %w", err)
	}
	s := &Server{Addr: ln.Addr().String(), ControlURL: "http://" + control.Addr().String(), World: world, ca: ca}
	// HTTP/1.1 only: a lost answer is a closed connection, not a reset stream.
	s.serve(tls.NewListener(ln, &tls.Config{MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"},
		GetCertificate: ca.certificate}), world.Handler())
	s.serve(control, world.ControlHandler())
	s.stop = context.AfterFunc(ctx, func() { _ = s.shut() })
	return s, nil
}

func (s *Server) serve(ln net.Listener, h http.Handler) {
	srv := &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second,
		ErrorLog: log.New(logWriter{s.World.Logger}, "", 0)}
	s.servers = append(s.servers, srv)
	s.serving.Go(func() {
		if err := srv.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
			s.World.Logger.Error("simulator stopped serving", "err", err)
		}
	})
}

// logWriter turns net/http's complaints, mostly about clients that hung up,
// into debug lines.
type logWriter struct{ logger *slog.Logger }

func (l logWriter) Write(b []byte) (int, error) {
	l.logger.Debug("simulator connection", "detail", strings.TrimSpace(string(b)))
	return len(b), nil
}

// CAPEM is the certificate authority that clients must trust.
func (s *Server) CAPEM() []byte { return append([]byte(nil), s.ca.pem...) }

// DialMap tells a client which hosts are here: "host suffix=address", comma
// separated.
func (s *Server) DialMap() string {
	var out []string
	for _, suffix := range s.World.dialSuffixes() {
		out = append(out, suffix+"="+s.Addr)
	}
	// Plain HTTP, as on a real machine, and so at the control API's address.
	out = append(out, instanceMetadata+"="+strings.TrimPrefix(s.ControlURL, "http://"))
	return strings.Join(out, ",")
}

// Close stops both listeners and drops every connection, held ones too.
func (s *Server) Close() error {
	s.stop()
	return s.shut()
}

func (s *Server) shut() error {
	s.closeOnce.Do(func() {
		s.World.Close()
		var errs []error
		for _, srv := range s.servers {
			errs = append(errs, srv.Close())
		}
		s.serving.Wait()
		s.closeErr = errors.Join(errs...)
	})
	return s.closeErr
}
