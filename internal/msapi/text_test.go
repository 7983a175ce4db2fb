package msapi_test

import (
	"net/http"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/keyroll/keyroll/internal/msapi"
)

func TestSanitize(t *testing.T) {
	jwt := "eyJhbGciOiJSUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.c2lnbmF0dXJl"
	for in, want := range map[string]string{
		"plain":                                 "plain",
		"two\r\n  lines\x00\x1b[31m":            "two lines[31m",
		"got " + jwt + " there":                 "got [redacted] there",
		"Authorization: Bearer abc.def":         "Authorization: [redacted]",
		"client_secret=hush&x=1":                "[redacted]&x=1",
		"\"client_assertion\":\"abc\"":          "\"[redacted]\"",
		"A key with (name/id) K was not found.": "A key with (name/id) K was not found.",
	} {
		if got := msapi.Sanitize(in); got != want {
			t.Errorf("Sanitize(%q) = %q, want %q", in, got, want)
		}
	}
}

func FuzzSanitize(f *testing.F) {
	f.Add("a\x00b\n\u2028c")
	f.Add(strings.Repeat("é ", 400))
	f.Fuzz(func(t *testing.T, s string) {
		got := msapi.Sanitize(s)
		if n := utf8.RuneCountInString(got); n > 300 {
			t.Errorf("%d characters", n)
		}
		if i := strings.IndexFunc(got, func(r rune) bool { return r != ' ' && !unicode.IsPrint(r) }); i >= 0 {
			t.Errorf("%q holds a character that cannot be shown", got)
		}
	})
}

func TestRetryAfter(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	at := now.Add(90 * time.Second).Format(http.TimeFormat)
	for _, tt := range []struct {
		retryAfter, date string
		want             time.Duration
	}{
		{"", "", 0},
		{"7", "", 7 * time.Second},
		{" 7 ", "", 7 * time.Second},
		{"-7", "", 0},
		{"999999999999", "", 24 * time.Hour},
		{"soon", "", 0},
		{at, "", 90 * time.Second},
		{at, now.Add(60 * time.Second).Format(http.TimeFormat), 30 * time.Second},
		{now.Add(-time.Hour).Format(http.TimeFormat), "", 0},
	} {
		h := http.Header{}
		h.Set("Retry-After", tt.retryAfter)
		h.Set("Date", tt.date)
		if got := msapi.RetryAfter(h, now); got != tt.want {
			t.Errorf("Retry-After %q, Date %q: got %v, want %v", tt.retryAfter, tt.date, got, tt.want)
		}
	}
}
