package msapi

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"sync/atomic"
)

// maxBody is how much of an answer is read. The largest honest one, a list of
// policies or key versions, is far below.
const maxBody = 4 << 20

// errTooLong is the cause of an answer longer than maxBody.
var errTooLong = errors.New("the answer is longer than 4 MiB")

// Flight is what is known of one request after it was sent, or not.
type Flight struct {
	// Sent says that the request's headers went out: from here on the service
	// may have acted, whatever comes back.
	Sent   bool
	Status int
	Body   []byte
	// Err is why there is no usable answer; nil if there is one.
	Err error
}

// Send sends a request once, follows no redirect, and reads the answer to its
// end. The response's body can be read again. On failure the response is nil.
//
// net/http repeats some requests by itself: a mutating one loses its GetBody
// here, and with that the means to be sent a second time.
func Send(hc *http.Client, req *http.Request, mutating bool) (*http.Response, Flight) {
	var sent atomic.Bool
	trace := &httptrace.ClientTrace{
		WroteHeaders: func() { sent.Store(true) },
		WroteRequest: func(info httptrace.WroteRequestInfo) {
			if info.Err == nil {
				sent.Store(true)
			}
		},
	}
	req = req.WithContext(httptrace.WithClientTrace(req.Context(), trace))
	if mutating {
		req.GetBody = nil
	}
	once := *hc
	once.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	resp, err := once.Do(req)
	if err != nil {
		return nil, Flight{Sent: sent.Load(), Err: err}
	}
	f := Flight{Sent: true, Status: resp.StatusCode}
	f.Body, err = readBody(resp.Body)
	// A refusal whose body is cut off or mislabelled is a refusal all the same
	// (Exchange answers 403 with NULs that claim to be gzip).
	if err != nil && resp.StatusCode < 400 {
		f.Err = err
		return nil, f
	}
	resp.Body = io.NopCloser(bytes.NewReader(f.Body))
	return resp, f
}

func readBody(rc io.ReadCloser) ([]byte, error) {
	body, err := io.ReadAll(io.LimitReader(rc, maxBody+1))
	if closeErr := rc.Close(); err == nil {
		err = closeErr
	}
	if len(body) > maxBody {
		return body[:maxBody], errTooLong
	}
	return body, err
}

// Failure is the Error of a flight without a usable answer.
func (f Flight) Failure(service, operation string, mutating bool) *Error {
	e := &Error{
		Service: service, Operation: operation, Status: f.Status, Kind: KindUnavailable,
		MaybeApplied: mutating && f.Sent, err: f.Err,
	}
	var dns *net.DNSError
	var op *net.OpError
	var timeout net.Error
	switch {
	case errors.Is(f.Err, errTooLong):
		e.Kind, e.Code, e.Message = KindProtocol, "answer_too_long", f.Err.Error()
	case errors.Is(f.Err, context.Canceled):
		e.Code, e.Message = "cancelled", "the call was cancelled before the service answered"
	case errors.Is(f.Err, context.DeadlineExceeded), errors.As(f.Err, &timeout) && timeout.Timeout():
		e.Code, e.Message = "timeout", "the service did not answer in time"
	case errors.As(f.Err, &dns):
		e.Code, e.Message = "dns", Sanitize(fmt.Sprintf("the host %s cannot be resolved", dns.Name))
	case isTLS(f.Err):
		e.Code, e.Message = "tls", Sanitize("the service's certificate is not trusted: "+innermost(f.Err).Error())
	case errors.As(f.Err, &op) && op.Op == "dial":
		e.Code, e.Message = "connect", Sanitize("cannot connect: "+op.Err.Error())
	default:
		e.Code, e.Message = "connection_lost", Sanitize("the connection was lost: "+innermost(f.Err).Error())
	}
	return e
}

// innermost is the cause at the end of a chain: net/http wraps its errors in
// text that repeats the whole URL.
func innermost(err error) error {
	for {
		next := errors.Unwrap(err)
		if next == nil {
			return err
		}
		err = next
	}
}
