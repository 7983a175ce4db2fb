package msapi

import (
	"bytes"
	"context"
	"net/http"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
)

// UserAgent is the form in which SharePoint wants callers decorated, so that
// it throttles them by name and not as strangers. We use it everywhere.
const UserAgent = "NONISV|Keyroll|Keyroll/1.0"

// DefaultTimeout ends a call whose context has no deadline. Callers set their
// own; this one only keeps a forgotten one from hanging for ever.
const DefaultTimeout = 5 * time.Minute

// Observer is told of every call once, when its end is known. kind is "ok" or
// a Kind; throttled says that the service asked for fewer calls.
type Observer func(service, operation string, status int, kind string, d time.Duration, throttled bool)

// KindOK is what an Observer gets for a call that succeeded.
const KindOK = "ok"

// Options are what the connectors have in common. Make them with NewOptions.
type Options struct {
	Observe Observer
	Now     func() time.Time
	// Clouds are those that a tenant's declaration may name.
	Clouds Clouds
}

// Option changes Options.
type Option func(*Options)

// WithObserver sets who is told of each call.
func WithObserver(o Observer) Option { return func(opts *Options) { opts.Observe = o } }

// WithClock sets the clock, for tests.
func WithClock(now func() time.Time) Option { return func(opts *Options) { opts.Now = now } }

// WithClouds adds the operator's own clouds to the table.
func WithClouds(c Clouds) Option { return func(opts *Options) { opts.Clouds = c } }

// NewOptions gives the defaults, changed by opts.
func NewOptions(opts ...Option) Options {
	o := Options{Observe: func(string, string, int, string, time.Duration, bool) {}, Now: time.Now}
	for _, opt := range opts {
		opt(&o)
	}
	return o
}

// Report tells the Observer how a call that began at start has ended.
func (o Options) Report(service, operation string, status int, start time.Time, err error) {
	kind, throttled := KindOK, false
	if err != nil {
		kind = string(KindProtocol)
		if e, ok := AsError(err); ok {
			kind, throttled = string(e.Kind), e.Throttled()
			status = e.Status
		}
	}
	o.Observe(service, operation, status, kind, o.Now().Sub(start), throttled)
}

// Client makes authorised calls to one service with one credential.
type Client struct {
	service string
	scope   string
	cred    azcore.TokenCredential
	hc      *http.Client
	opts    Options
}

// NewClient makes a Client. scope is what tokens are asked for, such as
// "https://outlook.office365.com/.default".
func NewClient(service, scope string, cred azcore.TokenCredential, hc *http.Client, opts ...Option) *Client {
	return &Client{service: service, scope: scope, cred: cred, hc: hc, opts: NewOptions(opts...)}
}

// Call is one request.
type Call struct {
	Operation string // for errors and metrics, snake_case
	Method    string
	URL       string
	Header    http.Header
	Body      []byte
	// OpID travels as client request id, and as nothing else: an
	// Idempotency-Key would make net/http replay the request by itself.
	OpID string
	// Mutating says that the request changes something, so that a lost answer
	// leaves open whether it did.
	Mutating bool
}

// Reply is the service's answer, read to its end.
type Reply struct {
	Status int
	Header http.Header
	Body   []byte
}

// Now is the client's clock.
func (c *Client) Now() time.Time { return c.opts.Now() }

// Refusal makes an Error of a reply, by its status and headers.
func (c *Client) Refusal(call Call, r Reply) *Error {
	return Refusal(c.service, call, r.Status, r.Header, c.opts.Now())
}

// Unreadable is the error of a reply that cannot be understood.
func (c *Client) Unreadable(call Call, r Reply, code, message string) *Error {
	e := c.Refusal(call, r)
	e.Kind, e.Code, e.Message = KindProtocol, code, Sanitize(message)
	return e
}

// Do sends the call once and reads the answer. judge turns an answer into an
// error, or into nil if the answer is one to work with; without judge each
// status other than 2xx is an error. Every error is an *Error.
func (c *Client) Do(ctx context.Context, call Call, judge func(Reply) *Error) (Reply, error) {
	start := c.opts.Now()
	reply, err := c.do(ctx, call, judge)
	c.opts.Report(c.service, call.Operation, reply.Status, start, err)
	return reply, err
}

func (c *Client) do(ctx context.Context, call Call, judge func(Reply) *Error) (Reply, error) {
	ctx, cancel := EnsureDeadline(ctx)
	defer cancel()
	tk, err := c.cred.GetToken(ctx, policy.TokenRequestOptions{Scopes: []string{c.scope}})
	if err != nil {
		return Reply{}, TokenError(err, call.Operation, c.opts.Now())
	}
	req, err := http.NewRequestWithContext(ctx, call.Method, call.URL, bytes.NewReader(call.Body))
	if err != nil {
		return Reply{}, Invalid(c.service, call.Operation, "the URL of the request cannot be parsed")
	}
	c.dress(req, call, tk.Token)
	resp, flight := Send(c.hc, req, call.Mutating)
	if flight.Err != nil {
		e := flight.Failure(c.service, call.Operation, call.Mutating)
		e.ClientRequestID = call.OpID
		return Reply{Status: e.Status}, e
	}
	reply := Reply{Status: resp.StatusCode, Header: resp.Header, Body: flight.Body}
	if refused, ok := c.cred.(interface{ Refused() }); ok && reply.Status == http.StatusUnauthorized {
		refused.Refused()
	}
	if judge == nil {
		judge = func(r Reply) *Error {
			if r.Status >= 200 && r.Status < 300 {
				return nil
			}
			return c.Refusal(call, r)
		}
	}
	if e := judge(reply); e != nil {
		return reply, e
	}
	return reply, nil
}

func (c *Client) dress(req *http.Request, call Call, tk string) {
	for name, values := range call.Header {
		req.Header[http.CanonicalHeaderKey(name)] = values
	}
	req.Header.Set("Authorization", "Bearer "+tk)
	req.Header.Set("User-Agent", UserAgent)
	if call.OpID != "" {
		req.Header.Set("client-request-id", call.OpID)
		req.Header.Set("x-ms-client-request-id", call.OpID)
		req.Header.Set("return-client-request-id", "true")
	}
	req.Header.Del("Idempotency-Key")
}

// EnsureDeadline gives a context that ends: the given one, or one that ends
// after DefaultTimeout.
func EnsureDeadline(ctx context.Context) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, DefaultTimeout)
}
