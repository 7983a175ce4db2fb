package api_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"

	"github.com/keyroll/keyroll/internal/access"
	"github.com/keyroll/keyroll/internal/api"
)

func TestUnauthenticated(t *testing.T) {
	b := newBench(t)
	good := access.NewToken().Secret // of the right form, and unknown
	for name, header := range map[string]string{
		"missing": "", "no scheme": good, "basic": "Basic " + good, "no token": "Bearer ", "not ours": "Bearer eyJhbGciOi",
		"unknown": "Bearer " + good, "two tokens": "Bearer " + good + " " + good,
	} {
		t.Run(name, func(t *testing.T) {
			// The body is bad as well: who asks comes first.
			rec := b.call("POST", "/v1/rolls", "{", "Authorization", "", "Authorization", header)
			p := problem(t, rec)
			if rec.Code != 401 || p.Code != api.ProblemCodeUnauthenticated || rec.Header().Get("WWW-Authenticate") != `Bearer realm="keyroll"` {
				t.Errorf("answer %d %s %v", rec.Code, p.Code, rec.Header())
			}
			if strings.Contains(rec.Body.String(), good) || strings.Contains(b.log.String(), good) {
				t.Error("the token is told on")
			}
		})
	}
}

func TestTwoAuthorizationHeaders(t *testing.T) {
	b := newBench(t)
	if rec := b.call("GET", "/v1/rolls", "", "Authorization", "Bearer "+b.token); rec.Code != 401 {
		t.Errorf("two Authorization headers: %d", rec.Code)
	}
}

func TestSchemeInAnyCase(t *testing.T) {
	b := newBench(t)
	if rec := b.call("GET", "/v1/rolls", "", "Authorization", "", "Authorization", "bearer "+b.token); rec.Code != 200 {
		t.Errorf("bearer in lower case: %d", rec.Code)
	}
}

// A store that cannot be asked is not an unknown token.
func TestAuthenticatorFails(t *testing.T) {
	b := newBench(t)
	b.keys.fail = errors.New("dial tcp 10.0.0.7:5432: connection refused")
	rec := b.call("GET", "/v1/rolls", "")
	if p := problem(t, rec); rec.Code != 500 || p.Code != api.ProblemCodeInternal || strings.Contains(rec.Body.String(), "5432") {
		t.Errorf("answer %d %s", rec.Code, rec.Body)
	}
	b.keys.fail = context.DeadlineExceeded
	rec = b.call("GET", "/v1/rolls", "")
	if p := problem(t, rec); rec.Code != 503 || p.Code != api.ProblemCodeUnavailable || rec.Header().Get("Retry-After") == "" {
		t.Errorf("answer %d %s", rec.Code, rec.Body)
	}
}

// Every operation × role × kind: the answer is 403 exactly where the table of
// permissions says so, and then the handler has seen nothing.
func TestPermissionsOfEveryRoute(t *testing.T) {
	b := newBench(t)
	requests, cells := goodRequests(), 0
	eachOperation(t, func(_, _ string, op *openapi3.Operation) {
		q := requests[op.OperationID]
		name, secured := op.Extensions["x-keyroll-action"].(string)
		for _, kind := range access.Kinds() {
			for _, role := range access.Roles() {
				cells++
				p := access.Principal{Subject: "bob", Kind: kind, Roles: []access.Role{role}}
				b.token, b.stub.calls = b.mint(p), 0
				rec := b.call(q[0], q[1], q[2], q[3:]...)
				allowed := !secured || access.Allowed(p, access.Action(name)) == nil
				switch {
				case allowed && rec.Code >= 300:
					t.Errorf("%s by %s %s: %d %s", op.OperationID, kind, role, rec.Code, rec.Body)
				case !allowed && (rec.Code != 403 || b.stub.calls > 0):
					t.Errorf("%s by %s %s: %d after %d calls, want 403", op.OperationID, kind, role, rec.Code, b.stub.calls)
				}
			}
		}
	})
	t.Logf("%d cells", cells)
}

func TestDeniedSaysWhoMay(t *testing.T) {
	b := newBench(t)
	b.token = b.mint(access.Principal{Subject: "portal", Kind: access.Service, Roles: access.Roles()})
	rec := b.call("POST", "/v1/rolls/"+someRoll+"/reject", "not even JSON")
	p := problem(t, rec)
	if p.Code != api.ProblemCodeForbidden || p.NextAction != "Ask somebody who has a person's token with the role approver." {
		t.Errorf("problem %+v", p)
	}
}
