package keyvault

import (
	"context"
	"net/http"
	"sync"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"

	"github.com/keyroll/keyroll/internal/msapi"
)

// record is what happened on the wire during one call. The SDK hands a call's
// context through to the transport and nothing else, so it travels there: data
// of the call, not a dependency.
type record struct {
	mutating bool

	mu     sync.Mutex
	sent   bool // a request with a token went out
	flight msapi.Flight
}

type recordKey struct{}

func withRecord(ctx context.Context, r *record) context.Context {
	return context.WithValue(ctx, recordKey{}, r)
}

// note keeps the last flight. The first request to a vault carries neither
// token nor body (it asks for the challenge) and so cannot change anything.
func (r *record) note(f msapi.Flight, authorized bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.flight = f
	r.sent = r.sent || authorized && f.Sent
}

func (r *record) state() (msapi.Flight, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.flight, r.sent
}

func (r *record) status() int {
	f, _ := r.state()
	return f.Status
}

// transporter sends the SDK's requests, each once.
type transporter struct{ hc *http.Client }

// Do implements policy.Transporter.
func (t transporter) Do(req *http.Request) (*http.Response, error) {
	rec, ok := req.Context().Value(recordKey{}).(*record)
	if !ok {
		rec = &record{}
	}
	resp, flight := msapi.Send(t.hc, req, rec.mutating)
	rec.note(flight, req.Header.Get("Authorization") != "")
	return resp, flight.Err
}

// tokens gives the credential's failures the one type, before the SDK wraps
// them and they look like failures of the vault.
type tokens struct{ cred azcore.TokenCredential }

// GetToken implements azcore.TokenCredential.
func (t tokens) GetToken(ctx context.Context, opts policy.TokenRequestOptions) (azcore.AccessToken, error) {
	tk, err := t.cred.GetToken(ctx, opts)
	if err != nil {
		return azcore.AccessToken{}, msapi.TokenError(err, "get_token", time.Now())
	}
	return tk, nil
}
