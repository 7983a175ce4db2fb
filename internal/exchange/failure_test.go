package exchange_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/keyroll/keyroll/internal/exchange"
	"github.com/keyroll/keyroll/internal/msapi"
	"github.com/keyroll/keyroll/internal/msapi/msapitest"
	"github.com/keyroll/keyroll/internal/roll"
)

func cmdletError(code, detail string) string {
	return `{"error":{"code":"` + code + `","message":"Error executing cmdlet","details":[{"code":"Client","target":"","message":"` + detail + `"}],` +
		`"innererror":{"message":"outer","type":"Outer","internalexception":{"message":"inner text","type":"Inner.Type"}}},"@adminapi.warnings":[]}`
}

const concurrency = "You have reached the maximum number of concurrent requests per tenant. Please wait and try again"

func TestFailures(t *testing.T) {
	for _, tt := range []struct {
		name   string
		status int
		body   string
		want   msapi.Error
	}{
		{"cmdlet error", 400, cmdletError("BadRequest", "Ex6F9304|Some.ParameterBindingException|No such parameter | really"),
			msapi.Error{Kind: msapi.KindRejected, Code: "BadRequest", InnerCode: "Some.ParameterBindingException", Message: "No such parameter | really"}},
		{"details without pipes", 400, cmdletError("BadRequest", "Just text"),
			msapi.Error{Kind: msapi.KindRejected, Code: "BadRequest", InnerCode: "Inner.Type", Message: "Just text"}},
		{"no details", 400, `{"error":{"code":"BadRequest","message":"Invalid Operation","innererror":{"internalException":{"message":"inner text","type":"Inner.Type"}}}}`,
			msapi.Error{Kind: msapi.KindRejected, Code: "BadRequest", InnerCode: "Inner.Type", Message: "inner text"}},
		{"outer only", 400, `{"error":{"code":"BadRequest","message":"Invalid Operation"}}`,
			msapi.Error{Kind: msapi.KindRejected, Code: "BadRequest", Message: "Invalid Operation"}},
		{"not found as 400", 400, cmdletError("BadRequest", "Ex|X.ManagementObjectNotFoundException|none"),
			msapi.Error{Kind: msapi.KindNotFound, Code: "BadRequest", InnerCode: "X.ManagementObjectNotFoundException", Message: "none"}},
		{"no role", 403, strings.Repeat("\x00", 64),
			msapi.Error{Kind: msapi.KindForbidden, Code: "no_role_or_no_cmdlet", Message: "Exchange does not let the application run this cmdlet: it lacks the role, or the cmdlet is unknown"}},
		{"401", 401, "", msapi.Error{Kind: msapi.KindUnauthorized, Message: "Exchange gave no reason"}},
		{"concurrency, plain text", 400, concurrency, msapi.Error{Kind: msapi.KindUnavailable, Code: "concurrency_limit", Message: concurrency}},
		{"concurrency with 200", 200, concurrency, msapi.Error{Kind: msapi.KindUnavailable, Code: "concurrency_limit", Message: concurrency}},
		{"concurrency with 503", 503, concurrency, msapi.Error{Kind: msapi.KindUnavailable, Code: "concurrency_limit", Message: concurrency}},
		{"busy with 400", 400, cmdletError("BadRequest", "Ex|X.ServerBusyException|later"),
			msapi.Error{Kind: msapi.KindUnavailable, Code: "BadRequest", InnerCode: "X.ServerBusyException", Message: "later"}},
		{"no proxy", 400, `CmdletProxyNotAvailableFailure`,
			msapi.Error{Kind: msapi.KindUnavailable, Code: "CmdletProxyNotAvailableFailure", Message: "CmdletProxyNotAvailableFailure"}},
		{"back end lost", 400, cmdletError("BadRequest", "Ex|X.BackendCommunicationException|gone"),
			msapi.Error{Kind: msapi.KindUnavailable, Code: "BadRequest", InnerCode: "X.BackendCommunicationException", Message: "gone", MaybeApplied: true}},
		{"429", 429, "", msapi.Error{Kind: msapi.KindThrottled, Message: "Exchange gave no reason"}},
		{"500", 500, "<html>oops</html>", msapi.Error{Kind: msapi.KindUnavailable, Message: "the answer is neither JSON nor text", MaybeApplied: true}},
		{"error in a 200", 200, cmdletError("BadRequest", "Ex|X.SomeException|no"),
			msapi.Error{Kind: msapi.KindRejected, Code: "BadRequest", InnerCode: "X.SomeException", Message: "no"}},
		{"200 and HTML", 200, "<html>", msapi.Error{Kind: msapi.KindProtocol, Code: "answer_not_understood", Message: "the answer is neither JSON nor text", MaybeApplied: true}},
		{"200 truncated", 200, `{"@odata.nextLink":"x"}`,
			msapi.Error{Kind: msapi.KindProtocol, Code: "truncated", Message: "Exchange sent only the first page of the answer", MaybeApplied: true}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, srv := client(t, func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Retry-After", "5")
				if tt.status == 403 {
					w.Header().Set("Content-Encoding", "gzip") // it is not
				}
				says(tt.status, tt.body)(w, r)
			})
			_, err := refresh(t.Context(), c)
			got, _ := msapi.AsError(err)
			tt.want.Service, tt.want.Operation, tt.want.Status = "exchange", "refresh_policy", tt.status
			tt.want.ClientRequestID, tt.want.RetryAfter = "op-1", 5*time.Second
			if diff := cmp.Diff(&tt.want, got, cmpopts.IgnoreUnexported(msapi.Error{})); diff != "" {
				t.Error(diff)
			}
			if n := len(srv.Seen()); n != 1 {
				t.Errorf("%d requests on the wire, want 1", n)
			}
			if _, err = c.Policies(t.Context(), roll.Exchange); err == nil {
				t.Error("a read took it for a success")
			} else if e, _ := msapi.AsError(err); e.MaybeApplied {
				t.Error("a read cannot have applied")
			}
		})
	}
}

func TestLostAnswer(t *testing.T) {
	c, srv := client(t, msapitest.Drop)
	_, err := refresh(t.Context(), c)
	if e, ok := msapi.AsError(err); !ok || e.Kind != msapi.KindUnavailable || !e.MaybeApplied || len(srv.Seen()) != 1 {
		t.Errorf("got %v after %d requests", err, len(srv.Seen()))
	}
}

func TestRedirects(t *testing.T) {
	for _, tt := range []struct {
		name, location string
		status         int
		hosts          []string
		code           string
	}{
		{"regional", "https://" + regional + path + "?r=1", 302, []string{exo, regional}, ""},
		{"port 446", "https://" + regional + ":446" + path, 302, []string{exo, regional}, ""},
		{"308", "https://" + regional + path, 308, []string{exo, regional}, ""},
		{"same host", path, 307, []string{exo, exo}, ""},
		{"elsewhere", "https://evil.example" + path, 302, []string{exo}, "redirect_refused"},
		{"look-alike", "https://evil-outlook.office365.com.evil.example" + path, 302, []string{exo}, "redirect_refused"},
		{"no TLS", "http://" + regional + path, 302, []string{exo}, "redirect_refused"},
		{"other port", "https://" + regional + ":8443" + path, 302, []string{exo}, "redirect_refused"},
		{"user", "https://u@" + regional + path, 302, []string{exo}, "redirect_refused"},
		{"nowhere", "", 302, []string{exo}, "redirect_refused"},
		{"again", "https://" + regional + "/again", 302, []string{exo, regional}, "redirect_again"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			first := true
			c, srv := client(t, func(w http.ResponseWriter, r *http.Request) {
				if first || r.URL.Path == "/again" {
					first = false
					w.Header().Set("Location", tt.location)
					w.WriteHeader(tt.status)
				}
			})
			_, err := refresh(t.Context(), c)
			if e, _ := msapi.AsError(err); tt.code == "" && err != nil || tt.code != "" && (e == nil || e.Code != tt.code || e.Kind != msapi.KindProtocol || e.MaybeApplied) {
				t.Errorf("got %v", err)
			}
			var hosts []string
			for _, r := range srv.Seen() {
				hosts = append(hosts, strings.TrimSuffix(r.Host, ":446"))
				if r.Method != "POST" || len(r.Body) == 0 || r.Header.Get("Authorization") != "Bearer t0ken" {
					t.Errorf("%s %s without body or token", r.Method, r.Host)
				}
			}
			if diff := cmp.Diff(tt.hosts, hosts); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func FuzzAnswers(f *testing.F) {
	f.Add(200, []byte(onePolicy))
	f.Add(400, []byte(cmdletError("BadRequest", "a|b|c")))
	f.Add(403, []byte("\x00\x00"))
	f.Add(200, []byte(`{"value":[{"Guid":"x","guid":1,"AzureKeyIDs":[{}],"Enabled":"x"}],"@adminapi.warnings":"w"}`))
	canned := &msapitest.Canned{}
	c := exchange.New(public(f), tenant, msapitest.Token("t0ken"), canned.Client())
	f.Fuzz(func(t *testing.T, code int, data []byte) {
		if code < 200 || code > 599 || code == 204 || code == 304 {
			code = 200
		}
		canned.Status, canned.Body = code, data
		_, err1 := c.Policies(t.Context(), roll.Exchange)
		got, err2 := c.Policy(t.Context(), roll.MultiWorkload, guid)
		_, err3 := refresh(t.Context(), c)
		for _, err := range []error{err1, err2, err3} {
			if err != nil && kindOf(err) == "" {
				t.Errorf("not an *msapi.Error: %v", err)
			}
		}
		if got.Found && got.GUID != guid {
			t.Errorf("found %q", got.GUID)
		}
	})
}
