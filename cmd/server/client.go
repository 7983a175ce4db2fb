package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strings"
	"time"

	"github.com/keyroll/keyroll/internal/api"
)

// client calls the HTTP API as any client would, with one person's token.
type client struct {
	base  string
	token Secret
	hc    *http.Client
}

func newClient(base, token string) *client {
	return &client{base: base, token: NewSecret(token), hc: &http.Client{Timeout: 30 * time.Second}}
}

// apiError is a problem that the API answered with.
type apiError struct {
	call    string
	problem api.Problem
}

func (e *apiError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %d %s", e.call, e.problem.Status, e.problem.Title)
	if e.problem.Detail != "" {
		b.WriteString(": " + e.problem.Detail)
	}
	for _, f := range e.problem.Errors {
		fmt.Fprintf(&b, "\n  %s%s: %s", f.Pointer, f.Name, f.Detail)
	}
	for _, f := range e.problem.Findings {
		fmt.Fprintf(&b, "\n  %s (%s): %s; %s", f.Code, f.Subject, f.Seen, f.Remedy)
	}
	fmt.Fprintf(&b, "\n  %s (request %s)", e.problem.NextAction, e.problem.RequestID)
	return b.String()
}

// call sends in as JSON (nil for none) with headers, given as name and value in
// turn, and decodes the answer into out. It returns the answer's ETag.
func (c *client) call(ctx context.Context, method, path string, in, out any, headers ...string) (etag string, err error) {
	var body io.Reader
	if in != nil {
		raw, err := json.Marshal(in)
		if err != nil {
			return "", err
		}
		body = bytes.NewReader(raw)
	}
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, body)
	if err != nil {
		return "", err
	}
	req.Header.Set("Authorization", "Bearer "+c.token.Reveal())
	if in != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i+1 < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	resp, err := c.hc.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(io.LimitReader(resp.Body, 16<<20))
	if err != nil {
		return "", fmt.Errorf("%s %s: %w", method, path, err)
	}
	if resp.StatusCode >= 300 {
		return "", refused(method+" "+path, resp, raw)
	}
	if err := json.Unmarshal(raw, out); err != nil {
		return "", fmt.Errorf("%s %s: %w", method, path, err)
	}
	return resp.Header.Get("ETag"), nil
}

func refused(call string, resp *http.Response, raw []byte) error {
	e := &apiError{call: call}
	kind, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	if kind != "application/problem+json" || json.Unmarshal(raw, &e.problem) != nil {
		return fmt.Errorf("%s: %s", call, resp.Status)
	}
	return e
}
