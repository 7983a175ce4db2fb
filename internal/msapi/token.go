package msapi

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptrace"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
)

// tokenTimeout bounds the getting of one token. It is well below the time that
// a step has, so that a slow Entra is seen as slow and not as a slow service.
const tokenTimeout = 30 * time.Second

// acquire gets a token and, where that fails, finds out whether Entra
// answered at all: azidentity drops the cause of a lost connection, and "Entra
// says no" and "Entra is not there" need different hands.
func acquire(ctx context.Context, cred azcore.TokenCredential, opts policy.TokenRequestOptions) (azcore.AccessToken, error) {
	ctx, cancel := context.WithTimeout(ctx, tokenTimeout)
	defer cancel()
	var asked, answered atomic.Bool
	traced := httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		// Getting a token may take several requests; the last one tells.
		GetConn:              func(string) { asked.Store(true); answered.Store(false) },
		GotFirstResponseByte: func() { answered.Store(true) },
	})
	tk, err := cred.GetToken(traced, opts)
	if err == nil {
		return tk, nil
	}
	e := TokenError(err, "get_token", time.Now())
	switch {
	case ctx.Err() != nil:
		e.Kind, e.Code = KindUnavailable, "timeout"
		if errors.Is(ctx.Err(), context.Canceled) {
			e.Code = "cancelled"
		}
	case e.Status == 0 && asked.Load() && !answered.Load():
		e.Kind, e.Code = KindUnavailable, "connection_lost"
	}
	return azcore.AccessToken{}, e
}

// TokenError makes the *Error of a token that was not had. An *Error in the
// chain stays what it is, under its own operation.
func TokenError(err error, operation string, now time.Time) *Error {
	if e, ok := AsError(err); ok {
		return e
	}
	e := &Error{Service: ServiceEntra, Operation: operation, Kind: KindToken, Code: "token_not_acquired", err: err}
	var failed *azidentity.AuthenticationFailedError
	if !errors.As(err, &failed) || failed.RawResponse == nil {
		e.Message = Sanitize(err.Error())
		if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
			e.Kind = KindUnavailable
		}
		return e
	}
	resp := failed.RawResponse
	e.Status, e.RetryAfter, e.RequestID = resp.StatusCode, RetryAfter(resp.Header, now), RequestID(resp.Header)
	switch k := KindOfStatus(resp.StatusCode); {
	case k == KindThrottled, k == KindUnavailable:
		e.Kind = k
	case resp.StatusCode == http.StatusGone:
		// What a machine's managed identity endpoint answers while it is updated.
		e.Kind = KindUnavailable
	}
	e.readEntra(resp)
	return e
}

// readEntra reads Entra's error body: its AADSTS code says what is wrong with
// the credential, the OAuth code only that something is.
func (e *Error) readEntra(resp *http.Response) {
	e.Message = "Entra answered " + strconv.Itoa(resp.StatusCode)
	if resp.Body == nil {
		return
	}
	raw, err := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	if err != nil {
		return
	}
	var body struct {
		Error       string `json:"error"`
		Description string `json:"error_description"`
		TraceID     string `json:"trace_id"`
	}
	if json.Unmarshal(raw, &body) != nil || body.Error == "" {
		return
	}
	e.Code = Token(body.Error)
	if code, text, ok := strings.Cut(body.Description, ":"); ok && strings.HasPrefix(code, "AADSTS") {
		e.Code, e.InnerCode, body.Description = Token(code), Token(body.Error), strings.TrimSpace(text)
	}
	// What follows the first line repeats the ids and the time.
	line, _, _ := strings.Cut(body.Description, "\n")
	e.Message = Sanitize(line)
	if e.RequestID == "" {
		e.RequestID = Token(body.TraceID)
	}
}
