// Package api is the HTTP API: openapi.yaml brought to life.
//
// A request passes, in this order: observe (request id, log line, panics), the
// route, who sends it and whether they may, the body guard, validation against
// the contract, and only then its handler. Every error becomes a problem in
// problem.go. Handlers implement StrictServerInterface, which is generated.
package api

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"github.com/go-chi/chi/v5"

	"github.com/keyroll/keyroll"
)

// Limits of a server that listens for this API. A header, a body or an answer
// that takes longer is given up, so that slow clients cannot use up connections.
const (
	ReadHeaderTimeout = 5 * time.Second
	ReadTimeout       = 15 * time.Second
	WriteTimeout      = 30 * time.Second
	IdleTimeout       = 60 * time.Second
	MaxHeaderBytes    = 16 << 10
	// RequestTimeout ends the context of a request while there is still time to
	// answer with a problem. A route whose reads may be runbook jobs has more
	// (x-keyroll-patience-seconds in the contract).
	RequestTimeout = 25 * time.Second
)

// Harden sets the limits on a server.
func Harden(srv *http.Server) {
	srv.ReadHeaderTimeout = ReadHeaderTimeout
	srv.ReadTimeout = ReadTimeout
	srv.WriteTimeout = WriteTimeout
	srv.IdleTimeout = IdleTimeout
	srv.MaxHeaderBytes = MaxHeaderBytes
}

// Config is what the API needs from outside.
type Config struct {
	// Handlers does the acts.
	Handlers StrictServerInterface
	// Authenticator tells who presents a token.
	Authenticator Authenticator
	// Metrics answers /metrics.
	Metrics http.Handler
	// Log takes one line for each request.
	Log *slog.Logger
}

// New returns the handler of all routes of the contract. A path that the
// contract does not have is answered with a problem, so mount other pages in
// front of it. An error says what of the contract or of c is wrong.
func New(c Config) (http.Handler, error) {
	if c.Handlers == nil || c.Authenticator == nil || c.Metrics == nil || c.Log == nil {
		return nil, fmt.Errorf("making the API: every field of Config is needed")
	}
	contract, err := loadContract()
	if err != nil {
		return nil, err
	}
	r := chi.NewRouter()
	r.Use(observe(c.Log), secure, contract.locate, limitTime, identify(c.Authenticator), guardBody, validate)
	// locate has answered these; here only a route that nobody serves ends up.
	r.NotFound(unserved)
	r.MethodNotAllowed(unserved)
	r.Method(http.MethodGet, "/metrics", c.Metrics)
	r.Get("/openapi.yaml", serveContract)
	strict := NewStrictHandlerWithOptions(c.Handlers, nil, StrictHTTPServerOptions{
		RequestErrorHandlerFunc:  writeUnbound,
		ResponseErrorHandlerFunc: writeProblem,
	})
	return HandlerWithOptions(strict, ChiServerOptions{BaseRouter: r, ErrorHandlerFunc: writeUnbound}), nil
}

// secure sets the headers that keep a browser from doing more with an answer
// than showing it, and caches from keeping it.
func secure(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Cache-Control", "no-store")
		h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Strict-Transport-Security", "max-age=31536000")
		h.Set("X-Content-Type-Options", "nosniff")
		next.ServeHTTP(w, r)
	})
}

// limitTime ends a request in time for a problem; a stream has its own limits.
func limitTime(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ex := exchangeOf(r.Context())
		if ex.streaming = wantsStream(r, ex.op, ex.head); ex.streaming {
			next.ServeHTTP(w, r)
			return
		}
		if ex.op.patience > RequestTimeout {
			// The server's own bound on the answer would come first.
			if err := http.NewResponseController(w).SetWriteDeadline(time.Now().Add(ex.op.patience + writePatience)); err != nil && !errors.Is(err, http.ErrNotSupported) {
				writeProblem(w, r, fmt.Errorf("giving a slow route its time: %w", err))
				return
			}
		}
		ctx, cancel := context.WithTimeout(r.Context(), ex.op.patience)
		defer cancel()
		next.ServeHTTP(w, r.WithContext(ctx))
	})
}

// locate finds the route. A HEAD is served as its GET; net/http leaves the body out.
func (c *contract) locate(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodHead {
			r = r.WithContext(r.Context())
			r.Method = http.MethodGet
			exchangeOf(r.Context()).head = true
		}
		op, err := c.find(r)
		if err != nil {
			if allow := c.methods(r); allow != "" {
				w.Header().Set("Allow", allow)
			}
			writeProblem(w, r, err)
			return
		}
		exchangeOf(r.Context()).op = op
		next.ServeHTTP(w, r)
	})
}

func unserved(w http.ResponseWriter, r *http.Request) {
	writeProblem(w, r, fmt.Errorf("the contract has this route and nobody serves it"))
}

// writeUnbound answers a request that passed validation and yet could not be
// bound to the generated types: the contract and the types disagree with the
// client on something, so the client is told and the log has the cause.
func writeUnbound(w http.ResponseWriter, r *http.Request, err error) {
	writeProblem(w, r, fmt.Errorf("%w: %w", refuse(ProblemCodeInvalidRequest, "a value could not be read"), err))
}

func serveContract(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/yaml")
	if _, err := w.Write(keyroll.OpenAPI); err != nil {
		exchangeOf(r.Context()).err = fmt.Errorf("writing the contract: %w", err)
	}
}
