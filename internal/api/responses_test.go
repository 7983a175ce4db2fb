package api_test

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"
	"github.com/getkin/kin-openapi/routers/gorillamux"

	"github.com/keyroll/keyroll"
)

// loadContract loads openapi.yaml by itself, so that a mistake of the package's
// own loading cannot hide.
func loadContract(t *testing.T) (*openapi3.T, routers.Router) {
	t.Helper()
	loader := openapi3.NewLoader()
	doc, err := loader.LoadFromData(keyroll.OpenAPI)
	if err != nil {
		t.Fatal(err)
	}
	// As the server does: the library's own validator of values is faster than
	// its JSON Schema one and says more exactly where an error is.
	doc.OpenAPI = "3.0.3"
	doc.Servers = nil
	router, err := gorillamux.NewRouter(doc)
	if err != nil {
		t.Fatal(err)
	}
	return doc, router
}

// ValidateResponses returns a handler that serves as h does and fails the test
// where an answer is not as openapi.yaml says: status, headers, media type, and
// body. Where there is no such route, the answer must be a problem.
func ValidateResponses(t *testing.T, h http.Handler) http.Handler {
	t.Helper()
	doc, router := loadContract(t)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked := r.Clone(r.Context())
		rec := httptest.NewRecorder()
		h.ServeHTTP(rec, r)
		if err := checkResponse(doc, router, asked, rec); err != nil {
			t.Errorf("%s %s answers %d, not as openapi.yaml says: %v\n%s", asked.Method, asked.URL, rec.Code, err, rec.Body)
		}
		for name, values := range rec.Header() {
			w.Header()[name] = values
		}
		w.WriteHeader(rec.Code)
		_, _ = w.Write(rec.Body.Bytes())
	})
}

func checkResponse(doc *openapi3.T, router routers.Router, r *http.Request, rec *httptest.ResponseRecorder) error {
	if r.Method == http.MethodHead {
		r.Method = http.MethodGet
	}
	route, params, err := router.FindRoute(r)
	if err != nil || r.URL.RawPath != "" {
		return checkNoRoute(doc, r, rec)
	}
	return openapi3filter.ValidateResponse(r.Context(), &openapi3filter.ResponseValidationInput{
		RequestValidationInput: &openapi3filter.RequestValidationInput{Request: r, PathParams: params, Route: route},
		Status:                 rec.Code,
		Header:                 rec.Header(),
		Body:                   io.NopCloser(bytes.NewReader(rec.Body.Bytes())),
		Options:                &openapi3filter.Options{IncludeResponseStatus: true, MultiError: true},
	})
}

// checkNoRoute holds an answer outside of the contract to its NotFound response.
func checkNoRoute(doc *openapi3.T, r *http.Request, rec *httptest.ResponseRecorder) error {
	responses := openapi3.NewResponses(openapi3.WithStatus(rec.Code, doc.Components.Responses["NotFound"]))
	return openapi3filter.ValidateResponse(r.Context(), &openapi3filter.ResponseValidationInput{
		RequestValidationInput: &openapi3filter.RequestValidationInput{
			Request: r,
			Route:   &routers.Route{Spec: doc, Operation: &openapi3.Operation{Responses: responses}},
		},
		Status: rec.Code,
		Header: rec.Header(),
		Body:   io.NopCloser(bytes.NewReader(rec.Body.Bytes())),
	})
}
