package keyvault_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/keyroll/keyroll/internal/keyvault"
	"github.com/keyroll/keyroll/internal/msapi"
	"github.com/keyroll/keyroll/internal/msapi/msapitest"
)

// The one that must not happen: a create whose answer is lost is sent again by
// the SDK or by net/http, and the key has two new versions.
func TestLostAnswerIsOneRequest(t *testing.T) {
	for _, tt := range []struct {
		name, code string
		kind       msapi.Kind
		answer     http.HandlerFunc
	}{
		{"connection lost", "connection_lost", msapi.KindUnavailable, msapitest.Drop},
		{"lost within the answer", "connection_lost", msapi.KindUnavailable, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", "5000")
			_, _ = w.Write([]byte(bundle[:50]))
			_ = http.NewResponseController(w).Flush()
			msapitest.Drop(w, r)
		}},
		{"500", "", msapi.KindUnavailable, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) }},
		{"not JSON", "answer_not_understood", msapi.KindProtocol, func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("fine")) }},
		{"no key in it", "answer_not_understood", msapi.KindProtocol, func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("{}")) }},
		{"another key", "answer_not_understood", msapi.KindProtocol, func(w http.ResponseWriter, _ *http.Request) {
			_, _ = w.Write([]byte(strings.Replace(bundle, "/keys/k/", "/keys/other/", 1)))
		}},
		{"too long", "answer_too_long", msapi.KindProtocol, func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(make([]byte, 5<<20)) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, srv := client(t, challenged(tt.answer))
			_, err := create(t.Context(), c)
			e, ok := msapi.AsError(err)
			if !ok || !e.MaybeApplied || e.Kind != tt.kind || e.Code != tt.code || e.ClientRequestID != "op-1" {
				t.Errorf("got %v", err)
			}
			if n := len(authorized(srv)); n != 1 {
				t.Errorf("%d creates on the wire, want 1", n)
			}
		})
	}
}

func TestDeadlineAfterSending(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	c, srv := client(t, challenged(func(_ http.ResponseWriter, r *http.Request) {
		cancel()
		<-r.Context().Done()
	}))
	_, err := create(ctx, c)
	if e, ok := msapi.AsError(err); !ok || !e.MaybeApplied || e.Code != "cancelled" || !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if n := len(authorized(srv)); n != 1 {
		t.Errorf("%d creates on the wire, want 1", n)
	}
}

// What goes wrong before a request with a token is out cannot have an effect.
func TestNothingApplied(t *testing.T) {
	header := func(v string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("WWW-Authenticate", v)
			w.WriteHeader(http.StatusUnauthorized)
		}
	}
	entra := &msapi.Error{Service: msapi.ServiceEntra, Operation: "get_token", Kind: msapi.KindToken, Code: "AADSTS700027"}
	for _, tt := range []struct {
		name, service string
		kind          msapi.Kind
		answer        http.HandlerFunc
		noToken       error
	}{
		{"challenge lost", "keyvault", msapi.KindUnavailable, msapitest.Drop, nil},
		{"challenge of another domain", "keyvault", msapi.KindProtocol, header(`Bearer authorization="https://login.microsoftonline.com/t", resource="https://evil.example"`), nil},
		{"challenge without a tenant", "keyvault", msapi.KindProtocol, header(`Bearer authorization="https:", resource="https://vault.azure.net"`), nil},
		{"no challenge", "keyvault", msapi.KindUnauthorized, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(401) }, nil},
		{"token refused", "keyvault", msapi.KindUnauthorized, header(challenge), nil},
		{"Entra refuses", "entra", msapi.KindToken, header(challenge), entra},
		{"no token", "entra", msapi.KindToken, header(challenge), errors.New("no way")},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, srv := client(t, tt.answer)
			if tt.noToken != nil {
				var err error
				if c, err = keyvault.New("https://"+vaultHost, msapitest.NoToken{Err: tt.noToken}, srv.HTTP); err != nil {
					t.Fatal(err)
				}
			}
			_, err := create(t.Context(), c)
			if e, ok := msapi.AsError(err); !ok || e.MaybeApplied || e.Kind != tt.kind || e.Service != tt.service {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestObserver(t *testing.T) {
	var got []string
	c, _ := client(t, says(429, `{}`), msapi.WithObserver(func(service, op string, status int, kind string, _ time.Duration, throttled bool) {
		if status != 429 || !throttled {
			t.Errorf("status %d, throttled %v", status, throttled)
		}
		got = append(got, service+" "+op+" "+kind)
	}))
	_, _ = c.Get(t.Context(), "k", "")
	if diff := cmp.Diff([]string{"keyvault get_key throttled"}, got); diff != "" {
		t.Error(diff)
	}
}

func FuzzAnswers(f *testing.F) {
	f.Add([]byte(bundle))
	f.Add([]byte(`{"value":[` + item("a", 1) + `],"nextLink":null}`))
	f.Add([]byte(`{"error":{"code":null,"innererror":{"innererror":{}}}}`))
	f.Add([]byte(`{"key":{"kid":"x"},"attributes":{"created":-1}}`))
	f.Add([]byte(`{"lifetimeActions":[null,{}]}`))
	canned := &msapitest.Canned{Challenge: challenge}
	c, err := keyvault.New("https://"+vaultHost, msapitest.Token("t0ken"), canned.Client())
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		canned.Body = data
		for _, canned.Status = range []int{200, 403} {
			_, err1 := c.Get(t.Context(), "k", "")
			_, err2 := c.Versions(t.Context(), "k")
			_, err3 := c.RotationPolicy(t.Context(), "k")
			for _, err := range []error{err1, err2, err3} {
				if err != nil && kindOf(err) == "" {
					t.Errorf("not an *msapi.Error: %v", err)
				}
			}
		}
	})
}
