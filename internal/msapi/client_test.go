package msapi_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/keyroll/keyroll/internal/msapi"
	"github.com/keyroll/keyroll/internal/msapi/msapitest"
)

const host = "api.service.example"

var change = msapi.Call{Operation: "change", Method: http.MethodPost, URL: "https://" + host + "/x", Body: []byte("body"), OpID: "op-1", Mutating: true}

type observed struct {
	Operation string
	Status    int
	Kind      string
	Throttled bool
}

// client starts a server and gives a client of it and what it told its observer.
func client(t *testing.T, h http.HandlerFunc) (*msapi.Client, *msapitest.Server, *[]observed) {
	t.Helper()
	srv := msapitest.Start(t, h, host)
	var seen []observed
	c := msapi.NewClient("exchange", "scope/.default", msapitest.Token("t0ken"), srv.HTTP,
		msapi.WithObserver(func(_, op string, status int, kind string, _ time.Duration, throttled bool) {
			seen = append(seen, observed{op, status, kind, throttled})
		}))
	return c, srv, &seen
}

func TestRequestOnTheWire(t *testing.T) {
	c, srv, seen := client(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("fine")) })
	call := change
	call.Header = http.Header{"X-Own": {"1"}, "Idempotency-Key": {"never"}}
	reply, err := c.Do(t.Context(), call, nil)
	if err != nil || string(reply.Body) != "fine" {
		t.Fatalf("%q, %v", reply.Body, err)
	}
	want := []msapitest.Request{{Method: "POST", Host: host, URI: "/x", Body: []byte("body"), Header: http.Header{
		"Accept-Encoding": {"gzip"}, "Authorization": {"Bearer t0ken"}, "Content-Length": {"4"},
		"Client-Request-Id": {"op-1"}, "X-Ms-Client-Request-Id": {"op-1"}, "Return-Client-Request-Id": {"true"},
		"User-Agent": {"NONISV|Keyroll|Keyroll/1.0"}, "X-Own": {"1"},
	}}}
	if diff := cmp.Diff(want, srv.Seen()); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]observed{{"change", 200, "ok", false}}, *seen); diff != "" {
		t.Error(diff)
	}
}

func TestStatusBecomesKind(t *testing.T) {
	for _, tt := range []struct {
		status       int
		kind         msapi.Kind
		maybeApplied bool
	}{
		{302, msapi.KindProtocol, false}, {400, msapi.KindRejected, false}, {401, msapi.KindUnauthorized, false},
		{403, msapi.KindForbidden, false}, {404, msapi.KindNotFound, false}, {408, msapi.KindUnavailable, true},
		{409, msapi.KindConflict, false}, {412, msapi.KindRejected, false}, {429, msapi.KindThrottled, false},
		{500, msapi.KindUnavailable, true}, {503, msapi.KindUnavailable, true}, {504, msapi.KindUnavailable, true},
	} {
		t.Run(fmt.Sprint(tt.status), func(t *testing.T) {
			c, srv, seen := client(t, func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Location", "https://elsewhere.example/")
				w.Header().Set("Retry-After", "17")
				w.Header().Set("request-id", "ms-1")
				w.WriteHeader(tt.status)
			})
			_, err := c.Do(t.Context(), change, nil)
			got, ok := msapi.AsError(err)
			want := &msapi.Error{Service: "exchange", Operation: "change", Status: tt.status, Kind: tt.kind, MaybeApplied: tt.maybeApplied,
				RetryAfter: 17 * time.Second, RequestID: "ms-1", ClientRequestID: "op-1"}
			if diff := cmp.Diff(want, got, cmpopts.IgnoreUnexported(msapi.Error{})); !ok || diff != "" {
				t.Error(diff)
			}
			if n := len(srv.Seen()); n != 1 {
				t.Errorf("%d requests on the wire, want 1", n)
			}
			if diff := cmp.Diff([]observed{{"change", tt.status, string(tt.kind), true}}, *seen); diff != "" {
				t.Error(diff)
			}
			read := change
			read.Mutating = false
			_, err = c.Do(t.Context(), read, nil)
			if e, _ := msapi.AsError(err); e == nil || e.MaybeApplied {
				t.Errorf("a read cannot have applied: %v", err)
			}
		})
	}
}

func TestLostAnswers(t *testing.T) {
	for _, tt := range []struct {
		name         string
		handler      http.HandlerFunc
		code         string
		kind         msapi.Kind
		maybeApplied bool
	}{
		{"connection lost after the request", msapitest.Drop, "connection_lost", msapi.KindUnavailable, true},
		{"connection lost in the answer", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", "100")
			_, _ = w.Write([]byte("half"))
			_ = http.NewResponseController(w).Flush()
			msapitest.Drop(w, r)
		}, "connection_lost", msapi.KindUnavailable, true},
		{"answer too long", func(w http.ResponseWriter, _ *http.Request) {
			_, _ = w.Write(make([]byte, 5<<20))
		}, "answer_too_long", msapi.KindProtocol, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, srv, _ := client(t, tt.handler)
			_, err := c.Do(t.Context(), change, nil)
			e, ok := msapi.AsError(err)
			if !ok || e.Kind != tt.kind || e.Code != tt.code || e.MaybeApplied != tt.maybeApplied || errors.Unwrap(e) == nil {
				t.Errorf("got %v", err)
			}
			if n := len(srv.Seen()); n != 1 {
				t.Errorf("%d requests on the wire, want 1", n)
			}
		})
	}
}

func TestTimeoutAfterSending(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	c, _, _ := client(t, func(_ http.ResponseWriter, r *http.Request) {
		cancel()
		<-r.Context().Done()
	})
	_, err := c.Do(ctx, change, nil)
	if e, ok := msapi.AsError(err); !ok || e.Kind != msapi.KindUnavailable || e.Code != "cancelled" || !e.MaybeApplied || !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func TestNotSent(t *testing.T) {
	srv := msapitest.Start(t, func(http.ResponseWriter, *http.Request) {}, host)
	closed, err := msapi.HTTPClient(map[string]string{host: "127.0.0.1:1"}, srv.CA)
	if err != nil {
		t.Fatal(err)
	}
	stranger, err := msapi.HTTPClient(srv.DialMap, nil)
	if err != nil {
		t.Fatal(err)
	}
	ended, cancel := context.WithDeadline(t.Context(), time.Now().Add(-time.Second))
	defer cancel()
	for _, tt := range []struct {
		name string
		ctx  context.Context
		hc   *http.Client
		cred msapitest.NoToken
		kind msapi.Kind
		code string
	}{
		{"nobody listens", t.Context(), closed, msapitest.NoToken{}, msapi.KindUnavailable, "connect"},
		{"certificate of a stranger", t.Context(), stranger, msapitest.NoToken{}, msapi.KindUnavailable, "tls"},
		{"no time left", ended, srv.HTTP, msapitest.NoToken{}, msapi.KindUnavailable, "timeout"},
		{"no token", t.Context(), srv.HTTP, msapitest.NoToken{Err: errors.New("no way")}, msapi.KindToken, "token_not_acquired"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := msapi.NewClient("exchange", "s", msapitest.Token("t"), tt.hc)
			if tt.cred.Err != nil {
				c = msapi.NewClient("exchange", "s", tt.cred, tt.hc)
			}
			_, err := c.Do(tt.ctx, change, nil)
			if e, ok := msapi.AsError(err); !ok || e.Kind != tt.kind || e.Code != tt.code || e.MaybeApplied {
				t.Errorf("got %v", err)
			}
		})
	}
	if n := len(srv.Seen()); n != 0 {
		t.Errorf("%d requests on the wire, want none", n)
	}
}

func TestErrorText(t *testing.T) {
	e := &msapi.Error{Service: "keyvault", Operation: "create_key", Kind: msapi.KindForbidden, Status: 403, Code: "Forbidden",
		InnerCode: "ForbiddenByRbac", RequestID: "r-1", Message: "Caller is not authorized."}
	if got, want := e.Error(), "keyvault create_key: forbidden status=403 code=Forbidden inner=ForbiddenByRbac request_id=r-1: Caller is not authorized."; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	e = &msapi.Error{Service: "exchange", Operation: "refresh_policy", Kind: msapi.KindUnavailable, MaybeApplied: true}
	if got, want := e.Error(), "exchange refresh_policy: unavailable maybe_applied=true"; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if !e.Retryable() || (&msapi.Error{Kind: msapi.KindForbidden}).Retryable() {
		t.Error("retryable are throttled and unavailable only")
	}
	if got := msapi.Invalid("a", "b", strings.Repeat("x ", 400)); len([]rune(got.Message)) != 300 {
		t.Errorf("message has %d characters", len([]rune(got.Message)))
	}
}

func TestHTTPClientRefusesAnEmptyCA(t *testing.T) {
	if _, err := msapi.HTTPClient(nil, []byte("not PEM")); err == nil {
		t.Error("want an error")
	}
	hc, err := msapi.HTTPClient(nil, nil)
	if err != nil || hc.Transport.(*http.Transport).Proxy == nil {
		t.Errorf("without a dial map the environment's proxy is used: %v", err)
	}
	hc, err = msapi.HTTPClient(map[string]string{"a.b": "127.0.0.1:1"}, nil)
	if err != nil || hc.Transport.(*http.Transport).Proxy != nil {
		t.Errorf("with a dial map no proxy is used: %v", err)
	}
}
