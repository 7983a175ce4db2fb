package api_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/keyroll/keyroll/internal/access"
	"github.com/keyroll/keyroll/internal/api"
	"github.com/keyroll/keyroll/internal/control"
	"github.com/keyroll/keyroll/internal/roll"
	"github.com/keyroll/keyroll/internal/store"
)

// lines are the log lines of a bench.
func lines(t *testing.T, b *bench) []map[string]any {
	t.Helper()
	var out []map[string]any
	for _, line := range strings.Split(strings.TrimSpace(b.log.String()), "\n") {
		var m map[string]any
		if err := json.Unmarshal([]byte(line), &m); err != nil {
			t.Fatalf("log line %q: %v", line, err)
		}
		out = append(out, m)
	}
	return out
}

func TestOneLineForEachRequest(t *testing.T) {
	b := newBench(t)
	rec := b.call("GET", "/v1/rolls/"+someRoll, "", "X-Request-Id", "ticket-4711")
	if got := rec.Header().Get("X-Request-Id"); got != "ticket-4711" {
		t.Errorf("X-Request-Id = %q", got)
	}
	logged := lines(t, b)
	if len(logged) != 1 {
		t.Fatalf("%d lines", len(logged))
	}
	got := logged[0]
	if _, ok := got["duration_ms"].(float64); !ok {
		t.Errorf("duration_ms = %v", got["duration_ms"])
	}
	delete(got, "time")
	delete(got, "duration_ms")
	want := map[string]any{
		"level": "INFO", "msg": "request served", "method": "GET", "route": "/v1/rolls/{roll_id}", "status": 200.0,
		"bytes": float64(rec.Body.Len()), "request_id": "ticket-4711", "subject": "alice@contoso.com",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("line (-want +got):\n%s", diff)
	}
}

func TestProbesAreQuiet(t *testing.T) {
	b := newBench(t)
	b.call("GET", "/healthz", "", "Authorization", "")
	if got := lines(t, b)[0]["level"]; got != "DEBUG" {
		t.Errorf("level of /healthz = %v", got)
	}
}

func TestBadRequestIDsAreReplaced(t *testing.T) {
	b := newBench(t)
	for _, sent := range []string{"short", strings.Repeat("x", 65), "with space 123", "<script>alert", ""} {
		if got := b.call("GET", "/healthz", "", "X-Request-Id", sent).Header().Get("X-Request-Id"); got == sent || len(got) != 36 {
			t.Errorf("X-Request-Id %q became %q", sent, got)
		}
	}
}

func TestSecurityHeaders(t *testing.T) {
	b := newBench(t)
	for _, path := range []string{"/healthz", "/v1/rolls", "/nowhere", "/openapi.yaml"} {
		h := b.call("GET", path, "").Header()
		if h.Get("Cache-Control") != "no-store" || h.Get("X-Content-Type-Options") != "nosniff" || h.Get("Content-Security-Policy") == "" {
			t.Errorf("%s: headers %v", path, h)
		}
	}
}

// What is not known is a bare 500: the cause stands in the log, once, and not in the answer.
func TestUnknownErrorIsBare(t *testing.T) {
	b := newBench(t)
	b.stub.fail = func() error { return errors.New("reading roll: ERROR: relation \"rolls\" (SQLSTATE 42P01)") }
	rec := b.call("GET", "/v1/rolls/"+someRoll, "")
	p := problem(t, rec)
	if rec.Code != 500 || p.Detail != "" || strings.Contains(rec.Body.String(), "SQLSTATE") || rec.Header().Get("ETag") != "" {
		t.Errorf("answer %d %v %s", rec.Code, rec.Header(), rec.Body)
	}
	if logged := lines(t, b); len(logged) != 1 || logged[0]["level"] != "ERROR" || !strings.Contains(fmt.Sprint(logged[0]["error"]), "42P01") {
		t.Errorf("logged %v", logged)
	}
}

func TestPanicIsA500(t *testing.T) {
	b := newBench(t)
	b.stub.fail = func() error { panic("index out of range") }
	rec := b.call("GET", "/v1/rolls/"+someRoll, "")
	if p := problem(t, rec); rec.Code != 500 || p.Code != api.ProblemCodeInternal || strings.Contains(rec.Body.String(), "range") {
		t.Errorf("answer %d %s", rec.Code, rec.Body)
	}
	if logged := lines(t, b); len(logged) != 1 || logged[0]["level"] != "ERROR" || !strings.Contains(fmt.Sprint(logged[0]["stack"]), "stub_test.go") {
		t.Errorf("logged %v", logged)
	}
}

// After the head is out a panic must not look like the end of a good answer.
func TestPanicInsideAnAnswerBreaksItOff(t *testing.T) {
	var log bytes.Buffer
	h, err := api.New(api.Config{
		Handlers: &stub{}, Authenticator: &keyring{}, Log: slog.New(slog.NewTextHandler(&log, nil)),
		Metrics: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, "half of it")
			_ = http.NewResponseController(w).Flush()
			panic("the other half")
		}),
	})
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(h)
	defer srv.Close()
	resp, err := srv.Client().Get(srv.URL + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if body, err := io.ReadAll(resp.Body); err == nil {
		t.Errorf("the client took %q for a whole answer", body)
	}
	srv.Close()
	if !strings.Contains(log.String(), "the other half") {
		t.Errorf("log: %s", &log)
	}
}

func TestKnownErrors(t *testing.T) {
	b := newBench(t)
	faulty := roll.Plan{Hash: someHash, TenantID: someTenant, Findings: []roll.Finding{{Code: "key_disabled", Level: roll.LevelError, Seen: "x", Remedy: "y"}}}
	for name, c := range map[string]struct {
		err    error
		status int
		code   api.ProblemCode
		says   string
	}{
		"invalid":          {&roll.InvalidError{Pointer: "/keys/0/id", Detail: "not declared"}, 422, api.ProblemCodeUnprocessable, `"pointer":"/keys/0/id"`},
		"availability key": {&roll.AvailabilityKeyError{Policy: "exo", Workload: roll.Exchange}, 422, api.ProblemCodeAvailabilityKey, "creating a new policy makes a new one"},
		"wrong state":      {&roll.TransitionError{Code: roll.RefusedState, Detail: "it has ended"}, 409, api.ProblemCodeWrongState, "it has ended"},
		"in flight":        {&roll.TransitionError{Code: roll.RefusedInFlight}, 409, api.ProblemCodeOperationInFlight, ""},
		"unproven":         {&roll.TransitionError{Code: roll.RefusedUnproven}, 409, api.ProblemCodeOperationUnproven, ""},
		"step state":       {&roll.TransitionError{Code: roll.RefusedStepState}, 409, api.ProblemCodeWrongState, ""},
		"own approval":     {&roll.TransitionError{Code: roll.RefusedOwnApproval}, 403, api.ProblemCodeSamePerson, ""},
		"same person":      {&roll.TransitionError{Code: roll.RefusedSamePerson}, 403, api.ProblemCodeSamePerson, ""},
		"service":          {&roll.TransitionError{Code: roll.RefusedServiceActor}, 403, api.ProblemCodeSamePerson, ""},
		"plan changed":     {&roll.TransitionError{Code: roll.RefusedPlanChanged}, 409, api.ProblemCodePlanChanged, ""},
		"plan has errors":  {&roll.TransitionError{Code: roll.RefusedPlanHasErrors}, 422, api.ProblemCodePlanHasErrors, ""},
		"no such step":     {&roll.TransitionError{Code: roll.RefusedNoSuchStep}, 404, api.ProblemCodeNotFound, ""},
		"stale epoch":      {&roll.TransitionError{Code: roll.RefusedStaleEpoch}, 500, api.ProblemCodeInternal, ""},
		"plan errors":      {&control.PlanErrors{Plan: faulty}, 422, api.ProblemCodePlanHasErrors, `"findings":[{"code":"key_disabled"`},
		"new plan":         {&control.PlanChanged{Plan: faulty}, 409, api.ProblemCodePlanChanged, `"plan":{"can_run":false`},
		"version":          {&control.VersionError{Have: 3, Want: 2}, 412, api.ProblemCodeVersionMismatch, "version 3"},
		"retired":          {control.ErrRetired, 409, api.ProblemCodeTenantRetired, ""},
		"strangers":        {&control.ErrStrangers{Findings: faulty.Findings}, 422, api.ProblemCodeStrangersUndecided, `"findings":[`},
		"unreadable":       {&control.UnreadableKeys{Findings: faulty.Findings}, 422, api.ProblemCodeKeysUnreadable, `"findings":[`},
		"microsoft":        {&control.UnavailableError{Err: context.DeadlineExceeded}, 503, api.ProblemCodeUnavailable, "reading what Microsoft has"},
		"open roll":        {&store.OpenRollError{RollID: someRoll, Subject: "key a"}, 409, api.ProblemCodeRollOpen, `"roll_id":"` + someRoll},
		"open rolls":       {store.ErrOpenRolls, 409, api.ProblemCodeRollOpen, ""},
		"key taken":        {&store.KeyTakenError{}, 409, api.ProblemCodeKeyTaken, ""},
		"lease free":       {store.ErrLeaseFree, 409, api.ProblemCodeLeaseFree, ""},
		"second person":    {store.ErrSamePerson, 403, api.ProblemCodeSamePerson, ""},
		"key reused":       {store.ErrKeyReused, 422, api.ProblemCodeIdempotencyKeyReused, ""},
		"key running":      {store.ErrKeyRunning, 409, api.ProblemCodeIdempotencyKeyInUse, ""},
		"stale":            {store.ErrStale, 409, api.ProblemCodeConflict, ""},
		"not found":        {store.ErrNotFound, 404, api.ProblemCodeNotFound, ""},
		"change stale":     {&control.ChangeEnded{Change: store.TenantChange{ID: someRoll, State: store.ChangeStale}}, 409, api.ProblemCodeChangeStale, "is stale"},
		"change ended":     {&control.ChangeEnded{Change: store.TenantChange{ID: someRoll, State: store.ChangeExpired}}, 409, api.ProblemCodeWrongState, "is expired"},
		"denied":           {access.Allowed(access.Principal{}, access.ApproveRoll), 403, api.ProblemCodeForbidden, "role approver"},
	} {
		t.Run(name, func(t *testing.T) {
			b.stub.fail = func() error { return fmt.Errorf("making the plan: %w", c.err) }
			rec := b.call("POST", "/v1/rolls/"+someRoll+"/approve", `{"plan_hash":"`+someHash+`"}`, "If-Match", `"7"`)
			if p := problem(t, rec); rec.Code != c.status || p.Code != c.code || !strings.Contains(rec.Body.String(), c.says) {
				t.Errorf("answer %d %s", rec.Code, rec.Body)
			}
		})
	}
}

// A handler that waits too long is told so in time to answer.
func TestRequestsEndInTime(t *testing.T) {
	b, ends := newBench(t), false
	h, err := api.New(api.Config{
		Handlers: b.stub, Authenticator: b.keys, Log: slog.New(slog.DiscardHandler),
		Metrics: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { _, ends = r.Context().Deadline() }),
	})
	if err != nil {
		t.Fatal(err)
	}
	h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/metrics", nil))
	if !ends {
		t.Error("the context of a request has no deadline")
	}
	var srv http.Server
	api.Harden(&srv)
	if srv.ReadHeaderTimeout == 0 || srv.ReadTimeout == 0 || srv.IdleTimeout == 0 || srv.MaxHeaderBytes == 0 || srv.WriteTimeout <= api.RequestTimeout {
		t.Errorf("limits %+v", &srv)
	}
}

func TestConfigIsComplete(t *testing.T) {
	if _, err := api.New(api.Config{}); err == nil {
		t.Error("an empty Config was taken")
	}
}

// Each code has one row, and each row makes a problem with all its parts.
func TestProblemTable(t *testing.T) {
	seen := map[string]bool{}
	for _, code := range api.ProblemCodes() {
		p := api.NewProblem(api.ProblemCode(code), "detail")
		if seen[code] || string(p.Code) != code || p.Title == "" || p.NextAction == "" || p.Status < 400 || p.Detail != "detail" {
			t.Errorf("%s: %+v", code, p)
		}
		seen[code] = true
	}
	if p := api.NewProblem("no such code", ""); p.Code != api.ProblemCodeInternal {
		t.Errorf("an unknown code makes %+v", p)
	}
}
