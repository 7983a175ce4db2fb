package api

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strings"
)

// maxBody bounds a request's body in bytes.
const maxBody = 64 << 10

// guardBody reads the body and refuses what no schema can refuse: too large a
// body, another media type, more or less than one JSON value, deep nesting,
// members given twice or in two spellings. encoding/json would take the last of
// two such members, and a proxy or a log in front of us perhaps the first.
func guardBody(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		declared := exchangeOf(r.Context()).op.route.Operation.RequestBody
		if declared == nil {
			r.Body, r.ContentLength = http.NoBody, 0 // a body means nothing here
			next.ServeHTTP(w, r)
			return
		}
		body, err := readBody(w, r)
		if err == nil {
			err = checkBody(r, body, declared.Value.Required)
		}
		if err != nil {
			writeProblem(w, r, err)
			return
		}
		exchangeOf(r.Context()).body = body
		r.Body = http.NoBody
		if len(body) > 0 {
			r.Body = io.NopCloser(bytes.NewReader(body))
		}
		r.ContentLength = int64(len(body))
		next.ServeHTTP(w, r)
	})
}

func readBody(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	if r.Body == nil || r.Body == http.NoBody {
		return nil, nil
	}
	if r.ContentLength > maxBody {
		w.Header().Set("Connection", "close") // rather than read what is refused
		return nil, refuse(ProblemCodeBodyTooLarge, fmt.Sprintf("it has %d bytes", r.ContentLength))
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		return nil, refuse(ProblemCodeBodyTooLarge, "")
	case err != nil:
		return nil, refuse(ProblemCodeMalformedBody, "the body ended before its length")
	}
	return body, nil
}

func checkBody(r *http.Request, body []byte, required bool) error {
	if len(body) == 0 {
		if required {
			return refuseMember(ProblemCodeInvalidRequest, "", "this route needs a JSON object as its body")
		}
		return nil
	}
	if err := checkMediaType(r.Header.Values("Content-Type")); err != nil {
		return err
	}
	return scanJSON(body)
}

func checkMediaType(values []string) error {
	if len(values) != 1 {
		return refuse(ProblemCodeUnsupportedMediaType, "the header Content-Type must be given once")
	}
	media, params, err := mime.ParseMediaType(values[0])
	if err != nil || media != "application/json" {
		return refuse(ProblemCodeUnsupportedMediaType, "")
	}
	if charset, ok := params["charset"]; ok && !strings.EqualFold(charset, "utf-8") {
		return refuse(ProblemCodeUnsupportedMediaType, "the charset must be utf-8")
	}
	return nil
}
