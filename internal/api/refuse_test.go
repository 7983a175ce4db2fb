package api_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/keyroll/keyroll/internal/api"
)

// where is what a refusal names: place, pointer or name.
func where(p api.Problem) []string {
	out := []string{}
	for _, e := range p.Errors {
		out = append(out, string(e.In)+" "+e.Pointer+e.Name)
	}
	return out
}

func nested(depth int) string {
	return `{"reason":` + strings.Repeat("[", depth) + strings.Repeat("]", depth) + "}"
}

// Bodies that no handler may see, each with the member that the answer names.
func TestBodiesRefused(t *testing.T) {
	cancel := "/v1/rolls/" + someRoll + "/cancel"
	rolls := "/v1/rolls"
	wrong := func(old, replacement string) string {
		if !strings.Contains(rollBody, old) {
			t.Fatalf("rollBody has no %s", old)
		}
		return strings.Replace(rollBody, old, replacement, 1)
	}
	cases := map[string]struct {
		path, body string
		status     int
		code       api.ProblemCode
		names      []string
	}{
		"empty":                {cancel, "", 400, api.ProblemCodeInvalidRequest, []string{"body "}},
		"spaces":               {cancel, "  ", 400, api.ProblemCodeMalformedBody, []string{"body "}},
		"not JSON":             {cancel, `reason=x`, 400, api.ProblemCodeMalformedBody, []string{"body "}},
		"cut off":              {cancel, `{"reason":"x"`, 400, api.ProblemCodeMalformedBody, []string{"body "}},
		"cut off inside":       {cancel, `{"reason":{"a":[1,`, 400, api.ProblemCodeMalformedBody, []string{"body /reason/a/1"}},
		"two values":           {cancel, `{"reason":"x"}{"reason":"y"}`, 400, api.ProblemCodeMalformedBody, []string{"body "}},
		"trailing rubbish":     {cancel, `{"reason":"x"} ;`, 400, api.ProblemCodeMalformedBody, []string{"body "}},
		"trailing comma":       {cancel, `{"reason":"x",}`, 400, api.ProblemCodeMalformedBody, []string{"body "}},
		"not UTF-8":            {cancel, "{\"reason\":\"\xff\"}", 400, api.ProblemCodeMalformedBody, []string{"body "}},
		"byte order mark":      {cancel, "\ufeff{\"reason\":\"x\"}", 400, api.ProblemCodeMalformedBody, []string{"body "}},
		"NUL in a value":       {cancel, `{"reason":"a\u0000b"}`, 400, api.ProblemCodeMalformedBody, []string{"body /reason"}},
		"NUL in a name":        {cancel, `{"rea\u0000son":"x"}`, 400, api.ProblemCodeMalformedBody, []string{"body /rea\x00son"}},
		"too deep":             {cancel, nested(32), 400, api.ProblemCodeMalformedBody, []string{"body /reason" + strings.Repeat("/0", 31)}},
		"deep enough to scan":  {cancel, nested(31), 400, api.ProblemCodeInvalidRequest, []string{"body /reason"}},
		"a list":               {cancel, `[]`, 400, api.ProblemCodeInvalidRequest, []string{"body "}},
		"null":                 {cancel, `null`, 400, api.ProblemCodeInvalidRequest, []string{"body "}},
		"missing":              {cancel, `{}`, 400, api.ProblemCodeInvalidRequest, []string{"body /reason"}},
		"null member":          {cancel, `{"reason":null}`, 400, api.ProblemCodeInvalidRequest, []string{"body /reason"}},
		"empty member":         {cancel, `{"reason":""}`, 400, api.ProblemCodeInvalidRequest, []string{"body /reason"}},
		"other type":           {cancel, `{"reason":1e400}`, 400, api.ProblemCodeInvalidRequest, []string{"body /reason"}},
		"blank":                {cancel, `{"reason":" \t"}`, 400, api.ProblemCodeInvalidRequest, []string{"body /reason"}},
		"too long":             {cancel, `{"reason":"` + strings.Repeat("ä", 2001) + `"}`, 400, api.ProblemCodeInvalidRequest, []string{"body /reason"}},
		"unknown":              {cancel, `{"reason":"x","force":true}`, 400, api.ProblemCodeInvalidRequest, []string{"body /force"}},
		"two unknown":          {cancel, `{"reason":"x","a/b":1,"~":2}`, 400, api.ProblemCodeInvalidRequest, []string{"body /a~1b", "body /~0"}},
		"twice":                {cancel, `{"reason":"x","reason":"y"}`, 400, api.ProblemCodeDuplicateMember, []string{"body /reason"}},
		"twice by escape":      {cancel, `{"reason":"x","re\u0061son":"y"}`, 400, api.ProblemCodeDuplicateMember, []string{"body /reason"}},
		"other case as well":   {cancel, `{"reason":"x","Reason":"y"}`, 400, api.ProblemCodeDuplicateMember, []string{"body /Reason"}},
		"long s as well":       {cancel, `{"reason":"x","rea` + "\u017f" + `on":"y"}`, 400, api.ProblemCodeDuplicateMember, []string{"body /rea\u017fon"}},
		"other case alone":     {cancel, `{"REASON":"x"}`, 400, api.ProblemCodeInvalidRequest, []string{"body /REASON", "body /reason"}},
		"oversized":            {cancel, `{"reason":"` + strings.Repeat("x", 64<<10) + `"}`, 413, api.ProblemCodeBodyTooLarge, []string{}},
		"bad tenant id":        {rolls, wrong(someTenant, "contoso"), 400, api.ProblemCodeInvalidRequest, []string{"body /tenant_id"}},
		"upper-case tenant id": {rolls, wrong(someTenant, strings.ToUpper(someTenant)), 400, api.ProblemCodeInvalidRequest, []string{"body /tenant_id"}},
		"tenant id and more":   {rolls, wrong(someTenant, someTenant+`\n`), 400, api.ProblemCodeInvalidRequest, []string{"body /tenant_id"}},
		"bad reason code":      {rolls, wrong("compliance_requirement", "because"), 400, api.ProblemCodeInvalidRequest, []string{"body /reason/code"}},
		"bad key type":         {rolls, wrong(`"root"`, `"leaf"`), 400, api.ProblemCodeInvalidRequest, []string{"body /keys/0/type"}},
		"bad version":          {rolls, wrong(`"new"`, `"newest"`), 400, api.ProblemCodeInvalidRequest, []string{"body /keys/0/version"}},
		"bad time":             {rolls, wrong(`"start_at":null`, `"start_at":"2026-02-30T00:00:00Z"`), 400, api.ProblemCodeInvalidRequest, []string{"body /start_at"}},
		"bad hash":             {rolls, wrong(someHash, "sha256:00"), 400, api.ProblemCodeInvalidRequest, []string{"body /plan_hash"}},
		"unknown inside":       {rolls, wrong(`"type":"root"`, `"type":"root","delete":true`), 400, api.ProblemCodeInvalidRequest, []string{"body /keys/0/delete"}},
		"twice inside":         {rolls, wrong(`"type":"root"`, `"type":"root","type":"availability"`), 400, api.ProblemCodeDuplicateMember, []string{"body /keys/0/type"}},
		"all at once":          {rolls, `{"tenant_id":1,"reason":{"code":"x"}}`, 400, api.ProblemCodeInvalidRequest, []string{"body /reason/code", "body /reason/text", "body /tenant_id"}},
		"step not a number":    {"/v1/rolls/" + someRoll + "/retry", `{"step_id":1.5}`, 400, api.ProblemCodeInvalidRequest, []string{"body /step_id"}},
		"step zero":            {"/v1/rolls/" + someRoll + "/retry", `{"step_id":0}`, 400, api.ProblemCodeInvalidRequest, []string{"body /step_id"}},
		"step beyond numbers":  {"/v1/rolls/" + someRoll + "/retry", `{"step_id":1e999}`, 400, api.ProblemCodeInvalidRequest, []string{"body /step_id"}},
	}
	b := newBench(t)
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			b.stub.calls = 0
			rec := b.call("POST", c.path, c.body, "Content-Type", "", "Content-Type", "application/json", "Idempotency-Key", "k")
			p := problem(t, rec)
			if rec.Code != c.status || p.Code != c.code {
				t.Errorf("answer %d %s, want %d %s: %s", rec.Code, p.Code, c.status, c.code, rec.Body)
			}
			if diff := cmp.Diff(c.names, where(p)); diff != "" {
				t.Errorf("named (-want +got):\n%s", diff)
			}
			for _, e := range p.Errors {
				if e.Detail == "" || strings.Contains(e.Detail, "not what openapi.yaml says") {
					t.Errorf("%s%s: no help in %q", e.Pointer, e.Name, e.Detail)
				}
			}
			if b.stub.calls > 0 {
				t.Error("the handler saw the request")
			}
		})
	}
}

// The same for a declaration.
func TestDeclarationsRefused(t *testing.T) {
	key := `{"id":"a","vault_url":"https://a.vault.azure.net","name":"A"}`
	b := newBench(t)
	with := func(member string) string { return strings.Replace(tenantBody, `{`, `{`+member+`,`, 1) }
	for name, c := range map[string]struct{ body, at string }{
		"window":         {with(`"windows":[{"days":["sat"],"start":"25:00","duration":"8h","zone":"UTC"}]`), "body /windows/0/start"},
		"veto":           {with(`"vetoes":{"rotation_policy_expiry":"ignore"}`), "body /vetoes/rotation_policy_expiry"},
		"gap":            {with(`"sharepoint":{"min_gap":"a day"}`), "body /sharepoint/min_gap"},
		"negative gap":   {with(`"sharepoint":{"min_gap":"-1h"}`), "body /sharepoint/min_gap"},
		"admin url":      {with(`"sharepoint":{"geos":[{"id":"NAM","admin_url":"http://x-admin.sharepoint.com"}]}`), "body /sharepoint/geos/0/admin_url"},
		"vault url":      {strings.Replace(tenantBody, `"keys":[]`, `"keys":[`+strings.Replace(key, "https://a.", "https://u:p@a.", 1)+`]`, 1), "body /keys/0/vault_url"},
		"vault path":     {strings.Replace(tenantBody, `"keys":[]`, `"keys":[`+strings.Replace(key, ".net", ".net/keys", 1)+`]`, 1), "body /keys/0/vault_url"},
		"key id":         {strings.Replace(tenantBody, `"keys":[]`, `"keys":[`+strings.Replace(key, `"a"`, `"A key"`, 1)+`]`, 1), "body /keys/0/id"},
		"workload":       {strings.Replace(tenantBody, `"policies":[]`, `"policies":[{"id":"p","workload":"teams"}]`, 1), "body /policies/0/workload"},
		"labels in case": {with(`"labels":{"Tier":"gold","tier":"silver"}`), "body /labels/tier"},
		"label":          {with(`"labels":{"tier":1}`), "body /labels/tier"},
		"cloud":          {strings.Replace(tenantBody, "public", "Public Cloud", 1), "body /cloud"},
	} {
		t.Run(name, func(t *testing.T) {
			rec := b.call("PUT", "/v1/tenants/"+someTenant, c.body, "If-None-Match", "*")
			p := problem(t, rec)
			if diff := cmp.Diff([]string{c.at}, where(p)); rec.Code != 400 || diff != "" {
				t.Errorf("answer %d %s", rec.Code, diff)
			}
		})
	}
}

// Paths, queries and headers that no handler may see.
func TestRequestsRefused(t *testing.T) {
	roll, tenant := "/v1/rolls/"+someRoll, "/v1/tenants/"+someTenant
	b := newBench(t)
	approval := `{"plan_hash":"` + someHash + `"}`
	for name, c := range map[string]struct {
		request []string
		status  int
		code    api.ProblemCode
		names   []string
	}{
		"bad roll id":        {[]string{"GET", "/v1/rolls/42", ""}, 400, api.ProblemCodeInvalidRequest, []string{"path roll_id"}},
		"upper-case roll id": {[]string{"GET", "/v1/rolls/" + strings.ToUpper(someRoll), ""}, 400, api.ProblemCodeInvalidRequest, []string{"path roll_id"}},
		"bad tenant id":      {[]string{"GET", "/v1/tenants/contoso", ""}, 400, api.ProblemCodeInvalidRequest, []string{"path tenant_id"}},
		"escaped path":       {[]string{"GET", "/v1/rolls/" + someRoll + "%2Fevents", ""}, 404, api.ProblemCodeRouteNotFound, nil},
		"escaped letter":     {[]string{"GET", "/v1/%72olls", ""}, 404, api.ProblemCodeRouteNotFound, nil},
		"slash at the end":   {[]string{"GET", "/v1/rolls/", ""}, 404, api.ProblemCodeRouteNotFound, nil},
		"no such path":       {[]string{"GET", "/v2/rolls", ""}, 404, api.ProblemCodeRouteNotFound, nil},
		"no such act":        {[]string{"POST", roll + "/delete", "{}"}, 404, api.ProblemCodeRouteNotFound, nil},
		"bad cursor":         {[]string{"GET", "/v1/rolls?cursor=AAAA", ""}, 400, api.ProblemCodeBadCursor, []string{"query cursor"}},
		"cursor not base64":  {[]string{"GET", "/v1/rolls?cursor=%20", ""}, 400, api.ProblemCodeBadCursor, []string{"query cursor"}},
		"empty cursor":       {[]string{"GET", "/v1/rolls?cursor=", ""}, 400, api.ProblemCodeInvalidRequest, []string{"query cursor"}},
		"limit too high":     {[]string{"GET", "/v1/rolls?limit=101", ""}, 400, api.ProblemCodeInvalidRequest, []string{"query limit"}},
		"limit zero":         {[]string{"GET", "/v1/rolls?limit=0", ""}, 400, api.ProblemCodeInvalidRequest, []string{"query limit"}},
		"limit in words":     {[]string{"GET", "/v1/rolls?limit=ten", ""}, 400, api.ProblemCodeInvalidRequest, []string{"query limit"}},
		"unknown state":      {[]string{"GET", "/v1/rolls?state=done", ""}, 400, api.ProblemCodeInvalidRequest, []string{"query state"}},
		"bad time":           {[]string{"GET", "/v1/rolls?since=yesterday", ""}, 400, api.ProblemCodeInvalidRequest, []string{"query since"}},
		"unknown query":      {[]string{"GET", "/v1/rolls?status=x", ""}, 400, api.ProblemCodeInvalidRequest, []string{"query status"}},
		"query in case":      {[]string{"GET", "/v1/rolls?Limit=1", ""}, 400, api.ProblemCodeInvalidRequest, []string{"query Limit"}},
		"query twice":        {[]string{"GET", "/v1/rolls?limit=1&limit=2", ""}, 400, api.ProblemCodeInvalidRequest, []string{"query limit"}},
		"query malformed":    {[]string{"GET", "/v1/rolls?limit=%zz", ""}, 400, api.ProblemCodeInvalidRequest, nil},
		"NUL in a query":     {[]string{"GET", "/v1/rolls?actor=a%00b", ""}, 400, api.ProblemCodeInvalidRequest, []string{"query actor"}},
		"no idempotency key": {[]string{"POST", "/v1/rolls", rollBody}, 400, api.ProblemCodeIdempotencyKeyRequired, nil},
		"long key":           {[]string{"POST", "/v1/rolls", rollBody, "Idempotency-Key", strings.Repeat("k", 129)}, 400, api.ProblemCodeInvalidRequest, []string{"header Idempotency-Key"}},
		"two keys":           {[]string{"POST", "/v1/rolls", rollBody, "Idempotency-Key", "a", "Idempotency-Key", "b"}, 400, api.ProblemCodeInvalidRequest, []string{"header Idempotency-Key"}},
		"approve unbound":    {[]string{"POST", roll + "/approve", approval}, 428, api.ProblemCodePreconditionRequired, nil},
		"approve any":        {[]string{"POST", roll + "/approve", approval, "If-Match", "*"}, 400, api.ProblemCodeInvalidRequest, []string{"header If-Match"}},
		"approve weak":       {[]string{"POST", roll + "/approve", approval, "If-Match", `W/"7"`}, 400, api.ProblemCodeInvalidRequest, []string{"header If-Match"}},
		"approve a list":     {[]string{"POST", roll + "/approve", approval, "If-Match", `"7", "8"`}, 400, api.ProblemCodeInvalidRequest, []string{"header If-Match"}},
		"approve bare":       {[]string{"POST", roll + "/approve", approval, "If-Match", `7`}, 400, api.ProblemCodeInvalidRequest, []string{"header If-Match"}},
		"reject unbound":     {[]string{"POST", roll + "/reject", reasonBody}, 428, api.ProblemCodePreconditionRequired, nil},
		"put unbound":        {[]string{"PUT", tenant, tenantBody}, 428, api.ProblemCodePreconditionRequired, nil},
		"put both":           {[]string{"PUT", tenant, tenantBody, "If-Match", `"1"`, "If-None-Match", "*"}, 400, api.ProblemCodeInvalidRequest, []string{"header If-None-Match"}},
		"put none of a tag":  {[]string{"PUT", tenant, tenantBody, "If-None-Match", `"1"`}, 400, api.ProblemCodeInvalidRequest, []string{"header If-None-Match"}},
		"form":               {[]string{"POST", roll + "/cancel", "reason=x", "Content-Type", "", "Content-Type", "application/x-www-form-urlencoded"}, 415, api.ProblemCodeUnsupportedMediaType, nil},
		"no media type":      {[]string{"POST", roll + "/cancel", reasonBody, "Content-Type", ""}, 415, api.ProblemCodeUnsupportedMediaType, nil},
		"two media types":    {[]string{"POST", roll + "/cancel", reasonBody, "Content-Type", "text/plain"}, 415, api.ProblemCodeUnsupportedMediaType, nil},
		"other charset":      {[]string{"POST", roll + "/cancel", reasonBody, "Content-Type", "", "Content-Type", "application/json; charset=latin1"}, 415, api.ProblemCodeUnsupportedMediaType, nil},
	} {
		t.Run(name, func(t *testing.T) {
			b.stub.calls = 0
			rec := b.call(c.request[0], c.request[1], c.request[2], c.request[3:]...)
			p := problem(t, rec)
			if rec.Code != c.status || p.Code != c.code {
				t.Errorf("answer %d %s, want %d %s: %s", rec.Code, p.Code, c.status, c.code, rec.Body)
			}
			if diff := cmp.Diff(append([]string{}, c.names...), where(p)); diff != "" {
				t.Errorf("named (-want +got):\n%s", diff)
			}
			if b.stub.calls > 0 {
				t.Error("the handler saw the request")
			}
		})
	}
}

func TestMethodNotAllowed(t *testing.T) {
	b := newBench(t)
	for path, allow := range map[string]string{
		"/v1/rolls": "GET, HEAD, POST", "/v1/rolls/" + someRoll: "GET, HEAD", "/v1/tenants/" + someTenant: "GET, HEAD, PUT", "/healthz": "GET, HEAD",
	} {
		rec := b.call(http.MethodDelete, path, "")
		if p := problem(t, rec); rec.Code != 405 || p.Code != api.ProblemCodeMethodNotAllowed || rec.Header().Get("Allow") != allow {
			t.Errorf("DELETE %s: %d, Allow %q, want %q", path, rec.Code, rec.Header().Get("Allow"), allow)
		}
	}
	if rec := b.call(http.MethodHead, "/v1/rolls/"+someRoll, ""); rec.Code != 200 || rec.Header().Get("ETag") != `"7"` {
		t.Errorf("HEAD of a roll: %d %v", rec.Code, rec.Header())
	}
}

// What passes reaches the handler as it was sent.
func TestGoodRequestArrives(t *testing.T) {
	b := newBench(t)
	rec := b.call("POST", "/v1/rolls", rollBody, "Idempotency-Key", "k-1", "Content-Type", "", "Content-Type", "application/json; charset=UTF-8")
	if rec.Code != 202 || rec.Header().Get("Location") != "/v1/rolls/"+someRoll {
		t.Fatalf("answer %d %v %s", rec.Code, rec.Header(), rec.Body)
	}
	want := api.CreateRollRequestObject{Params: api.CreateRollParams{IdempotencyKey: "k-1"}, Body: &api.RollRequest{
		TenantID: someTenant, Policies: []string{"spo"}, PlanHash: someHash,
		Keys: []api.KeyRequest{{Type: "root", ID: "exo-a", Version: "new"}},
		Reason: api.Reason{
			Code: "compliance_requirement", Text: "annual, control 8.24",
			Ticket: api.Ticket{Source: "servicenow", ID: "CHG0031337"},
		},
	}}
	if diff := cmp.Diff(want, b.stub.last); diff != "" {
		t.Errorf("request (-want +got):\n%s", diff)
	}
}
