package msapitest

import (
	"bytes"
	"io"
	"net/http"
)

// Canned is a client without a network: every request gets what it holds. For
// fuzzing, where a socket would be most of the work and all of the noise.
type Canned struct {
	Status int
	Body   []byte
	// Challenge is the WWW-Authenticate of the answer to a request without a token.
	Challenge string
}

// Client gives the http.Client. What Canned holds may change between requests.
func (c *Canned) Client() *http.Client { return &http.Client{Transport: c} }

// RoundTrip implements http.RoundTripper.
func (c *Canned) RoundTrip(r *http.Request) (*http.Response, error) {
	resp := &http.Response{StatusCode: c.Status, Request: r, Header: http.Header{},
		ProtoMajor: 1, ProtoMinor: 1, Body: io.NopCloser(bytes.NewReader(c.Body))}
	if c.Challenge != "" && r.Header.Get("Authorization") == "" {
		resp.StatusCode, resp.Body = http.StatusUnauthorized, http.NoBody
		resp.Header.Set("WWW-Authenticate", c.Challenge)
	}
	return resp, nil
}
