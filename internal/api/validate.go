package api

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"sort"
	"strings"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
)

// validate checks path, query, headers and body against the contract, so that a
// handler sees only what openapi.yaml allows.
func validate(next http.Handler) http.Handler {
	options := &openapi3filter.Options{
		// All that is wrong is told at once.
		MultiError: true,
		// identify has done this.
		AuthenticationFunc: openapi3filter.NoopAuthenticationFunc,
		// Defaults are the handlers' business; a request stays as it was sent.
		SkipSettingDefaults: true,
		// The strict handler binds this value, by exact member names.
		KeepValidatedValue: true,
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		op := exchangeOf(r.Context()).op
		if op.open {
			// These take nothing, and probes like to add parameters of their own.
			next.ServeHTTP(w, r)
			return
		}
		err := checkParameters(op, r)
		if err == nil {
			err = openapi3filter.ValidateRequest(r.Context(), &openapi3filter.RequestValidationInput{
				Request: r, PathParams: op.params, Route: op.route, Options: options,
			})
			err = convert(err)
		}
		if err != nil {
			writeProblem(w, r, err)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// checkParameters refuses what the library lets pass: query parameters that
// the route does not know, and parameters or headers given more than once.
func checkParameters(op *operation, r *http.Request) error {
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return &requestError{code: ProblemCodeInvalidRequest, detail: "the query string is not well-formed"}
	}
	declared := map[string][]string{}
	for _, list := range []openapi3.Parameters{op.route.PathItem.Parameters, op.route.Operation.Parameters} {
		for _, ref := range list {
			declared[ref.Value.In] = append(declared[ref.Value.In], ref.Value.Name)
		}
	}
	var errs []ProblemError
	for name, values := range query {
		detail := ""
		switch {
		case !slices.Contains(declared[openapi3.ParameterInQuery], name):
			detail = "unknown parameter: leave it out; known are: " + listed(declared[openapi3.ParameterInQuery])
		case len(values) > 1:
			detail = "given more than once: give it once"
		}
		if detail != "" {
			errs = append(errs, ProblemError{In: ProblemErrorInQuery, Name: name, Detail: detail})
		}
	}
	for _, name := range declared[openapi3.ParameterInHeader] {
		if len(r.Header.Values(name)) > 1 {
			errs = append(errs, ProblemError{In: ProblemErrorInHeader, Name: name, Detail: "given more than once: give it once"})
		}
	}
	if len(errs) == 0 {
		return nil
	}
	sortErrors(errs)
	return &requestError{code: ProblemCodeInvalidRequest, errs: errs}
}

func listed(names []string) string {
	if len(names) == 0 {
		return "none"
	}
	return strings.Join(names, ", ")
}

func sortErrors(errs []ProblemError) {
	sort.SliceStable(errs, func(i, j int) bool {
		return errs[i].Pointer+errs[i].Name < errs[j].Pointer+errs[j].Name
	})
}

// convert turns the library's errors into one *requestError that names each
// member. An error of another kind is returned as it is: a fault of ours.
func convert(err error) error {
	if err == nil {
		return nil
	}
	var errs []ProblemError
	for _, one := range flatten(err) {
		var bad *openapi3filter.RequestError
		if !errors.As(one, &bad) {
			return fmt.Errorf("checking the request: %w", err)
		}
		if code := missingHeader(bad); code != "" {
			return refuse(code, "the header "+bad.Parameter.Name+" is missing")
		}
		errs = append(errs, explain(bad)...)
	}
	sortErrors(errs)
	errs = slices.Compact(errs)
	return &requestError{code: ProblemCodeInvalidRequest, errs: errs}
}

// missingHeader gives the two headers whose absence has a code of its own.
func missingHeader(bad *openapi3filter.RequestError) ProblemCode {
	if bad.Parameter == nil || !errors.Is(bad.Err, openapi3filter.ErrInvalidRequired) {
		return ""
	}
	switch bad.Parameter.Name {
	case "If-Match":
		return ProblemCodePreconditionRequired
	case "Idempotency-Key":
		return ProblemCodeIdempotencyKeyRequired
	}
	return ""
}

func flatten(err error) []error {
	if many, ok := err.(openapi3.MultiError); ok { //nolint:errorlint // the library returns it bare
		var out []error
		for _, one := range many {
			out = append(out, flatten(one)...)
		}
		return out
	}
	return []error{err}
}
