package msapi

import (
	"errors"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// The services, as they stand in Error.Service and in metrics.
const (
	ServiceEntra      = "entra"
	ServiceKeyVault   = "keyvault"
	ServiceExchange   = "exchange"
	ServiceSharePoint = "sharepoint"
	ServiceLogs       = "log_analytics"
	// ServiceResourceManager is Azure Resource Manager, with whatever provider
	// stands behind it.
	ServiceResourceManager = "resource_manager"
	// ServiceAutomation is Azure Automation, and the cmdlets that its runbooks run.
	ServiceAutomation = "automation"
)

// Kind says what a failed call means to the one who made it. The set is closed.
type Kind string

// The kinds. The strings are label values of metrics.
const (
	KindThrottled    Kind = "throttled"    // 429: come back later
	KindUnavailable  Kind = "unavailable"  // 5xx, timeout, connection, concurrency limit, transient marker
	KindUnauthorized Kind = "unauthorized" // 401: the service does not take the token
	KindForbidden    Kind = "forbidden"    // 403: a role, a policy or a firewall is in the way
	KindNotFound     Kind = "not_found"    // 404, or the service's own word for it
	KindConflict     Kind = "conflict"     // 409: the state of the thing does not allow it
	KindRejected     Kind = "rejected"     // other 4xx, ErrorInfo, error of a cmdlet, or refused before sending
	KindProtocol     Kind = "protocol"     // the answer cannot be understood
	KindToken        Kind = "token"        // Entra refused the credential
)

// Error is the one error of all calls to Microsoft. Its texts may be shown and
// stored: they hold no token and no body.
type Error struct {
	Service   string // entra, keyvault, exchange, sharepoint, resource_manager, automation
	Operation string // what was asked for, snake_case
	Status    int    // HTTP status; 0 where there was no answer
	Code      string // the service's code, or ours where it gave none
	InnerCode string // the service's more precise code
	Message   string // at most 300 characters, one line
	// RetryAfter is how long the service asks to be left alone; 0 if it does not say.
	RetryAfter time.Duration
	// RequestID is Microsoft's id of the call; ClientRequestID is ours.
	RequestID       string
	ClientRequestID string
	Kind            Kind
	// MaybeApplied is true where a changing request may have reached the
	// service and what became of it is not known. False means: known not to
	// have been sent, or clearly refused.
	MaybeApplied bool

	err error
}

// Error gives service, operation, kind, then what is known, always in this order.
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(e.Service + " " + e.Operation + ": " + string(e.Kind))
	for _, f := range []struct{ key, value string }{
		{"status", statusText(e.Status)}, {"code", e.Code}, {"inner", e.InnerCode}, {"request_id", e.RequestID},
	} {
		if f.value != "" {
			b.WriteString(" " + f.key + "=" + f.value)
		}
	}
	if e.MaybeApplied {
		b.WriteString(" maybe_applied=true")
	}
	if e.Message != "" {
		b.WriteString(": " + e.Message)
	}
	return b.String()
}

func statusText(status int) string {
	if status == 0 {
		return ""
	}
	return strconv.Itoa(status)
}

// Unwrap gives the cause: a context error, a network error, an SDK's error.
// The cause's own text may hold more than may be shown; log the Error.
func (e *Error) Unwrap() error { return e.err }

// WithCause sets what Unwrap gives.
func (e *Error) WithCause(err error) *Error {
	e.err = err
	return e
}

// Retryable says whether the same call can succeed later without anybody's
// doing. It does not say that a retry is safe: see MaybeApplied.
func (e *Error) Retryable() bool {
	return e.Kind == KindThrottled || e.Kind == KindUnavailable
}

// Throttled says whether the service asked for fewer calls: a 429, or any
// answer that came with a time to wait.
func (e *Error) Throttled() bool {
	return e.Kind == KindThrottled || e.RetryAfter > 0
}

// AsError finds the *Error in an error chain.
func AsError(err error) (*Error, bool) {
	var e *Error
	ok := errors.As(err, &e)
	return e, ok
}

// Invalid is the error of a call that was not sent because its arguments
// cannot be right.
func Invalid(service, operation, message string) *Error {
	return &Error{Service: service, Operation: operation, Kind: KindRejected,
		Code: "invalid_argument", Message: Sanitize(message)}
}

// KindOfStatus maps an HTTP status that is not a success. A redirect is a
// protocol matter: nobody here follows one blindly.
func KindOfStatus(status int) Kind {
	switch {
	case status == http.StatusTooManyRequests:
		return KindThrottled
	case status == http.StatusRequestTimeout, status >= 500:
		return KindUnavailable
	case status == http.StatusUnauthorized:
		return KindUnauthorized
	case status == http.StatusForbidden:
		return KindForbidden
	case status == http.StatusNotFound:
		return KindNotFound
	case status == http.StatusConflict:
		return KindConflict
	case status >= 400:
		return KindRejected
	}
	return KindProtocol
}

// maybeApplied says what a status leaves open about a changing request: a
// timeout or a server error may come after the effect, and a success whose
// answer cannot be read certainly may. A redirect or another 4xx is a refusal.
func maybeApplied(status int) bool {
	return status == http.StatusRequestTimeout || status >= 500 || (status >= 200 && status < 300)
}

// Refusal makes an Error of an answer, by its status and headers. The caller
// adds what it reads from the body.
func Refusal(service string, call Call, status int, h http.Header, now time.Time) *Error {
	return &Error{
		Service: service, Operation: call.Operation, Status: status, Kind: KindOfStatus(status),
		RetryAfter: RetryAfter(h, now), RequestID: RequestID(h), ClientRequestID: call.OpID,
		MaybeApplied: call.Mutating && maybeApplied(status),
	}
}
