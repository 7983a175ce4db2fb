package msapi

import (
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// maxMessage is the length, in characters, to which foreign text is cut.
const maxMessage = 300

// secretLike matches what must never reach a log or a page even if a service
// echoes it: bearer tokens, JWTs, assertions and other long opaque strings.
var secretLike = regexp.MustCompile(`(?i)bearer\s+[^\s"',;]+|eyJ[A-Za-z0-9_\-.]{16,}|` +
	`(?:client_assertion|client_secret|access_token|refresh_token|assertion|password|sig)["']?\s*[=:]\s*["']?[^\s"',;&]+|` +
	`[A-Za-z0-9_\-+/]{80,}=*`)

// Sanitize makes foreign text fit to be shown: one line, no control
// characters, nothing that looks like a secret, at most 300 characters.
func Sanitize(s string) string {
	if len(s) > 16<<10 {
		s = s[:16<<10]
	}
	s = strings.ToValidUTF8(s, "")
	s = strings.Map(func(r rune) rune {
		switch {
		case unicode.IsSpace(r):
			return ' '
		case !unicode.IsPrint(r):
			return -1
		}
		return r
	}, s)
	s = secretLike.ReplaceAllString(strings.Join(strings.Fields(s), " "), "[redacted]")
	if r := []rune(s); len(r) > maxMessage {
		s = string(r[:maxMessage-1]) + "…"
	}
	return s
}

// Token cuts a foreign code or id down to something that can be a field.
func Token(s string) string {
	s = strings.ReplaceAll(Sanitize(s), " ", "_")
	if r := []rune(s); len(r) > 128 {
		s = string(r[:128])
	}
	return s
}

// maxRetryAfter bounds what a service can make us wait: longer is a mistake
// or an attack, and a halted roll is seen while a sleeping one is not.
const maxRetryAfter = 24 * time.Hour

// RetryAfter reads Retry-After, as seconds or as an HTTP date; 0 where it is
// missing or cannot be understood. Against a date, the answer's own Date
// header is the clock, so that a difference between clocks does not matter.
func RetryAfter(h http.Header, now time.Time) time.Duration {
	v := strings.TrimSpace(h.Get("Retry-After"))
	if v == "" {
		return 0
	}
	if secs, err := strconv.ParseInt(v, 10, 64); err == nil {
		return clampWait(time.Duration(min(max(secs, 0), int64(maxRetryAfter/time.Second))) * time.Second)
	}
	at, err := http.ParseTime(v)
	if err != nil {
		return 0
	}
	if date, err := http.ParseTime(h.Get("Date")); err == nil {
		now = date
	}
	return clampWait(at.Sub(now))
}

func clampWait(d time.Duration) time.Duration { return min(max(d, 0), maxRetryAfter) }

// RequestID finds Microsoft's id of a call; each service has its own header.
func RequestID(h http.Header) string {
	for _, name := range []string{"x-ms-request-id", "request-id", "SPRequestGuid", "x-ms-correlation-request-id"} {
		if v := h.Get(name); v != "" {
			return Token(v)
		}
	}
	return ""
}
