package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/routers"
	"github.com/getkin/kin-openapi/routers/gorillamux"

	"github.com/keyroll/keyroll"
	"github.com/keyroll/keyroll/internal/access"
)

// actionExtension names in openapi.yaml what a route needs leave for.
const actionExtension = "x-keyroll-action"

// streamExtension names the media type that a route streams for as long as it
// takes, beside or in place of an answer within RequestTimeout.
const streamExtension = "x-keyroll-stream"

// patienceExtension gives the seconds that a route may take where its reads are
// slow: a runbook job that asks SharePoint or Exchange takes minutes.
const patienceExtension = "x-keyroll-patience-seconds"

// contract is openapi.yaml, loaded: which routes there are, what each takes and
// who may use it. The middlewares ask it; nothing about a route is said twice.
type contract struct {
	doc    *openapi3.T
	router routers.Router
}

// operation is one route of the contract, as the middlewares need it.
type operation struct {
	id     string
	path   string
	action access.Action
	// open routes need no token: health, metrics and the contract.
	open bool
	// streams is the media type of the route's stream, "" where it has none;
	// onlyStreams says that it has no other answer.
	streams     string
	onlyStreams bool
	// patience is how long the route's answer may take.
	patience time.Duration
	route    *routers.Route
	params   map[string]string
}

func loadContract() (*contract, error) {
	ctx := context.Background()
	loader := &openapi3.Loader{Context: ctx}
	doc, err := loader.LoadFromData(keyroll.OpenAPI)
	if err != nil {
		return nil, fmt.Errorf("reading the contract: %w", err)
	}
	// A test checks the examples; here that would only cost a second at each start.
	if err := doc.Validate(ctx, openapi3.DisableExamplesValidation()); err != nil {
		return nil, fmt.Errorf("checking the contract: %w", err)
	}
	// From here on the library checks values by its own validator instead of
	// its JSON Schema 2020-12 one, which compiles each schema for each request
	// and knows less about where an error is. Of 3.1 the contract uses lists of
	// types with null, which both understand.
	doc.OpenAPI = "3.0.3"
	// Host and base path are the proxy's business.
	doc.Servers = nil
	router, err := gorillamux.NewRouter(doc)
	if err != nil {
		return nil, fmt.Errorf("routing by the contract: %w", err)
	}
	c := &contract{doc: doc, router: router}
	return c, c.checkActions()
}

// checkActions refuses a contract in which a route has no known action and is
// not open: such a route would be denied to all, or worse.
func (c *contract) checkActions() error {
	known := map[access.Action]bool{}
	for _, r := range access.Rules() {
		known[r.Action] = true
	}
	for path, item := range c.doc.Paths.Map() {
		for method, op := range item.Operations() {
			o := newOperation(path, op)
			if o.open == (o.action != "") || (!o.open && !known[o.action]) {
				return fmt.Errorf("checking the contract: %s %s: %s %q", method, path, actionExtension, o.action)
			}
		}
	}
	return nil
}

func newOperation(path string, op *openapi3.Operation) *operation {
	o := &operation{id: op.OperationID, path: path, patience: RequestTimeout, open: op.Security != nil && len(*op.Security) == 0}
	if name, ok := op.Extensions[actionExtension].(string); ok {
		o.action = access.Action(name)
	}
	if s, ok := op.Extensions[patienceExtension].(float64); ok {
		o.patience = time.Duration(s) * time.Second
	}
	if kind, ok := op.Extensions[streamExtension].(string); ok {
		ok := op.Responses.Status(http.StatusOK)
		o.streams, o.onlyStreams = kind, ok != nil && len(ok.Value.Content) == 1
	}
	return o
}

// find returns the operation that the request is for; the error is a
// *requestError with route_not_found or method_not_allowed.
func (c *contract) find(r *http.Request) (*operation, error) {
	// No path of ours needs an escape. Refusing them keeps both routers, this
	// one and chi, from reading one path in two ways.
	if r.URL.RawPath != "" {
		return nil, refuse(ProblemCodeRouteNotFound, "no route has an escaped path")
	}
	route, params, err := c.router.FindRoute(r)
	switch {
	case errors.Is(err, routers.ErrMethodNotAllowed):
		return nil, refuse(ProblemCodeMethodNotAllowed, "this path takes "+c.methods(r))
	case err != nil:
		return nil, refuse(ProblemCodeRouteNotFound, "there is no such path")
	}
	o := newOperation(route.Path, route.Operation)
	o.route, o.params = route, params
	return o, nil
}

// methods lists what the path takes, in the form of the Allow header.
func (c *contract) methods(r *http.Request) string {
	var out []string
	for _, m := range []string{http.MethodGet, http.MethodPost, http.MethodPut} {
		probe := r.Clone(r.Context())
		probe.Method = m
		if _, _, err := c.router.FindRoute(probe); err != nil {
			continue
		}
		out = append(out, m)
		if m == http.MethodGet {
			out = append(out, http.MethodHead)
		}
	}
	return strings.Join(out, ", ")
}
