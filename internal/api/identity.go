package api

import (
	"context"
	"fmt"
	"net/http"
	"strings"

	"github.com/keyroll/keyroll/internal/access"
)

// Authenticator tells who presents a token.
type Authenticator interface {
	// Authenticate returns the token's principal, and access.ErrUnknownToken
	// where the token is unknown, revoked or expired. Any other error is a fault.
	// It is called with secrets of the right form only, must compare by their
	// hash, and must not log or keep them. It may be called any number of times.
	Authenticate(ctx context.Context, secret string) (access.Principal, error)
}

// identify finds out who sends the request, and refuses it where the contract
// wants a token, or where the permission table does not allow the route's act.
// It runs before anything else of the request is looked at.
func identify(auth Authenticator) func(http.Handler) http.Handler {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			ex := exchangeOf(r.Context())
			if ex.op.open {
				next.ServeHTTP(w, r)
				return
			}
			secret, err := bearerOf(r)
			if err != nil {
				writeProblem(w, r, err)
				return
			}
			if ex.principal, err = auth.Authenticate(r.Context(), secret); err != nil {
				ex.principal = access.Principal{}
				writeProblem(w, r, fmt.Errorf("telling who presents the token: %w", err))
				return
			}
			if err := access.Allowed(ex.principal, ex.op.action); err != nil {
				writeProblem(w, r, err)
				return
			}
			next.ServeHTTP(w, r)
		})
	}
}

// bearerOf reads the token from the Authorization header.
func bearerOf(r *http.Request) (string, error) {
	values := r.Header.Values("Authorization")
	if len(values) == 0 {
		return "", refuse(ProblemCodeUnauthenticated, "the header Authorization is missing")
	}
	scheme, secret, _ := strings.Cut(values[0], " ")
	if len(values) > 1 || !strings.EqualFold(scheme, "Bearer") {
		return "", refuse(ProblemCodeUnauthenticated, "the header Authorization must be given once, as: Bearer and an API token")
	}
	secret = strings.TrimSpace(secret)
	if _, ok := access.ParseToken(secret); !ok {
		return "", refuse(ProblemCodeUnauthenticated, "an API token is krp_ and 43 characters")
	}
	return secret, nil
}
