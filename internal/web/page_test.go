package web_test

import (
	"crypto/sha256"
	"encoding/base64"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"

	"github.com/keyroll/keyroll/internal/web"
)

func get(t *testing.T, info web.Info) *httptest.ResponseRecorder {
	t.Helper()
	page, err := web.Page(info)
	if err != nil {
		t.Fatal(err)
	}
	rec := httptest.NewRecorder()
	page.ServeHTTP(rec, httptest.NewRequestWithContext(t.Context(), "GET", "/", nil))
	return rec
}

// The policy lets the browser use the page's one style sheet, by its digest,
// and nothing else; so the page must not have anything else.
func TestPageKeepsItsPolicy(t *testing.T) {
	rec := get(t, web.Info{Version: "v1"})
	style := regexp.MustCompile(`(?s)<style>(.*)</style>`).FindStringSubmatch(rec.Body.String())
	if len(style) != 2 {
		t.Fatalf("no style sheet in:\n%s", rec.Body)
	}
	sum := sha256.Sum256([]byte(style[1]))
	policy := rec.Header().Get("Content-Security-Policy")
	if !strings.Contains(policy, "default-src 'none'; style-src 'sha256-"+base64.StdEncoding.EncodeToString(sum[:])+"';") {
		t.Errorf("the policy does not allow the style sheet: %s", policy)
	}
	for _, refused := range []string{"<script", "<img", "<form", "<iframe", " style=", " onclick", "http:", "https:"} {
		if strings.Contains(rec.Body.String(), refused) {
			t.Errorf("the page has %q, which its policy refuses or which leaves the server", refused)
		}
	}
}

func TestPageSaysWhatIsSimulated(t *testing.T) {
	if body := get(t, web.Info{Version: "v1"}).Body.String(); strings.Contains(body, "Simulated:") {
		t.Errorf("it calls itself simulated:\n%s", body)
	}
	body := get(t, web.Info{Version: "<v2>", Simulated: true}).Body.String()
	if !strings.Contains(body, "Simulated:") || !strings.Contains(body, "Version &lt;v2&gt;") {
		t.Errorf("page:\n%s", body)
	}
}
