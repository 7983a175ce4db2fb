// Package web is the page that a person meets at the service's address. Until
// the page for operators comes, it says what this is and where to go on.
package web

import (
	"bytes"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"fmt"
	"html/template"
	"net/http"
	"strconv"
)

//go:embed page.html
var pageHTML string

//go:embed page.css
var pageCSS string

// Info is what the page shows.
type Info struct {
	Version string
	// URL is where clients reach the service; "" where that is not known.
	URL string
	// Simulated: Microsoft is played by simulators.
	Simulated bool
}

// Page returns the handler of the page. It is made once: nothing on it changes.
func Page(info Info) (http.Handler, error) {
	t, err := template.New("page").Parse(pageHTML)
	if err != nil {
		return nil, fmt.Errorf("parsing the page: %w", err)
	}
	var body bytes.Buffer
	if err := t.Execute(&body, struct {
		Info
		CSS template.CSS
	}{info, template.CSS(pageCSS)}); err != nil {
		return nil, fmt.Errorf("making the page: %w", err)
	}
	// The one style sheet is allowed by its digest; nothing else is.
	sum := sha256.Sum256([]byte(pageCSS))
	policy := "default-src 'none'; style-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) +
		"'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		h := w.Header()
		h.Set("Content-Type", "text/html; charset=utf-8")
		h.Set("Content-Length", strconv.Itoa(body.Len()))
		h.Set("Content-Security-Policy", policy)
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Cache-Control", "no-cache")
		_, _ = w.Write(body.Bytes()) // a client that has gone is no business of ours
	}), nil
}
