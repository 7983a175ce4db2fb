package api

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"time"

	"github.com/keyroll/keyroll/internal/access"
	"github.com/keyroll/keyroll/internal/control"
	"github.com/keyroll/keyroll/internal/roll"
	"github.com/keyroll/keyroll/internal/store"
)

// Deps is what the handlers work with.
type Deps struct {
	// Control does the acts, Store is read.
	Control *control.Control
	Store   *store.Store
	// Hub feeds streams of events; nil where this process has none.
	Hub *Hub
	// Ready says whether requests can be served; nil means that they can. Its
	// error is logged and not shown.
	Ready func(context.Context) error
	// Bounds say when a roll counts as stuck.
	Bounds roll.Bounds
	// Simulated: Microsoft is played by simulators.
	Simulated bool
}

// NewHandlers returns the handlers of every route of the contract.
func NewHandlers(d Deps) StrictServerInterface {
	return &handlers{Deps: d, build: buildVersion()}
}

// handlers turn requests into acts of control and reads of the store, and what
// comes back into the contract's types. They return errors as they are:
// problem.go alone turns them into answers.
type handlers struct {
	Deps
	build string
}

func (h *handlers) now() time.Time { return h.Store.Now() }

// GetHealth says that the process is alive, and nothing about the database.
func (h *handlers) GetHealth(context.Context, GetHealthRequestObject) (GetHealthResponseObject, error) {
	return GetHealth200JSONResponse{Status: HealthStatusOk, Version: h.build, Simulated: h.Simulated}, nil
}

// GetReadiness says whether requests can be served.
func (h *handlers) GetReadiness(ctx context.Context, _ GetReadinessRequestObject) (GetReadinessResponseObject, error) {
	if h.Ready != nil {
		if err := h.Ready(ctx); err != nil {
			return nil, fmt.Errorf("%w: %w", refuse(ProblemCodeUnavailable, "this process cannot serve requests now; its log says why"), err)
		}
	}
	return GetReadiness200JSONResponse{Status: HealthStatusOk, Version: h.build, Simulated: h.Simulated}, nil
}

// buildVersion is the module's version, or the revision it was built from.
func buildVersion() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return ""
	}
	if v := info.Main.Version; v != "" && v != "(devel)" {
		return v
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			return s.Value
		}
	}
	return ""
}

// NewAuthenticator knows the API tokens of the store.
func NewAuthenticator(st *store.Store) Authenticator { return tokens{st} }

type tokens struct{ store *store.Store }

func (t tokens) Authenticate(ctx context.Context, secret string) (access.Principal, error) {
	token, ok := access.ParseToken(secret)
	if !ok {
		return access.Principal{}, access.ErrUnknownToken
	}
	p, err := t.store.PrincipalByHash(ctx, token.Hash)
	if errors.Is(err, store.ErrNotFound) {
		return access.Principal{}, access.ErrUnknownToken
	}
	return p, err
}
