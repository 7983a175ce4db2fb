package sim

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Codes that a fault's params may name for Exchange in place of an exception
// type. Each is an answer that others have seen there and Microsoft does not
// document. The transient ones need no code of their own: name the exception
// ("CmdletProxyNotAvailableFailure", "ServerBusyException",
// "TransientException", "BackendCommunicationException") and status 400.
const (
	// CodeNoRole is what an unknown cmdlet and a missing role have in common:
	// 403 and a body of NUL bytes.
	CodeNoRole = "NoRole"
	// CodeNoRoleGzip is the same with a claim to be compressed, which is not true.
	CodeNoRoleGzip = "NoRoleGzip"
	// CodeConcurrency is the plain text about concurrent requests, with any status.
	CodeConcurrency = "Concurrency"
)

const concurrencyText = "You have reached the maximum number of concurrent requests per tenant. Please wait and try again"

// exchangeRefusal is a fault's refusal in Exchange's words.
func exchangeRefusal(status int, code, message string) answer {
	switch code {
	case CodeNoRole, CodeNoRoleGzip:
		return nulBody(code == CodeNoRoleGzip)
	case CodeConcurrency:
		return textAnswer(status, concurrencyText)
	}
	return exchangeError(status, code, message)
}

// noRole is what comes back for a missing role or an unknown cmdlet.
func (t *tenant) noRole() answer { return nulBody(t.exo.NULBodyGzip) }

func nulBody(claimsGzip bool) answer {
	ans := answer{status: http.StatusForbidden, body: make([]byte, 64), header: http.Header{"Content-Type": {"application/json"}}}
	if claimsGzip {
		ans.header.Set("Content-Encoding", "gzip")
	}
	return ans
}

// dress adds the budget that comes with an answer of the tenant's Exchange.
func (t *tenant) dress(ans answer, now time.Time) answer {
	if t.exo.RateLimit > 0 {
		t.exoCalls++
		ans.header.Set("Rate-Limit-Limit", strconv.Itoa(t.exo.RateLimit))
		ans.header.Set("Rate-Limit-Remaining", strconv.Itoa(max(0, t.exo.RateLimit-t.exoCalls)))
		ans.header.Set("Rate-Limit-Reset", now.Add(5*time.Minute).UTC().Format(time.RFC3339))
	}
	return ans
}

// redirectOf is the host to which the tenant's requests are sent on, or "".
func (w *World) redirectOf(t *tenant) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return t.exo.RedirectHost
}

// redirect sends a request on to a regional host, on the port that only the
// service itself can use. The token is not looked at: a front end does not.
func redirect(rw http.ResponseWriter, r *http.Request, host string) {
	to := url.URL{Scheme: "https", Host: host + ":446", Path: r.URL.Path, RawQuery: r.URL.RawQuery}
	rw.Header().Set("Location", to.String())
	rw.WriteHeader(http.StatusFound)
}

// isAstray reports whether a seed lets Exchange redirect to host although it
// is none of Exchange's own.
func (w *World) isAstray(host string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.ContainsFunc(w.tenants, func(t *tenant) bool {
		return t.exo.RedirectHost == host && host != "" && !t.cloud.regional(host)
	})
}

// astray answers where nobody may go. Who does has followed a redirect that
// leads away from Microsoft.
func (w *World) astray(rw http.ResponseWriter, r *http.Request, host string) {
	now := w.lock()
	defer w.mu.Unlock()
	for _, t := range w.tenants {
		if t.exo.RedirectHost == host {
			detail := "a request followed a redirect to " + host
			if r.Header.Get("Authorization") != "" {
				detail += " and gave the token away"
			}
			w.violation(&call{service: ServiceExchange, op: OpRedirected, tenant: t, target: host}, detail, now)
		}
	}
	rw.WriteHeader(http.StatusNoContent)
}

// OpRedirected is, in violations, a request that followed a redirect astray.
const OpRedirected = "redirected"

// ExchangeSettings changes how a tenant's Exchange looks and behaves; nil
// members stay as they are. The members are those of the seed.
type ExchangeSettings struct {
	Tenant           string   `json:"tenant"`
	RefreshSeconds   *float64 `json:"refresh_seconds,omitempty"`
	RedirectHost     *string  `json:"redirect_host,omitempty"`
	NULBodyGzip      *bool    `json:"nul_body_gzip,omitempty"`
	NoTestCmdlet     *bool    `json:"no_test_cmdlet,omitempty"`
	AssignmentByName *bool    `json:"assignment_by_name,omitempty"`
	WarningsInHeader *bool    `json:"warnings_in_header,omitempty"`
	RateLimit        *int     `json:"rate_limit,omitempty"`
}

// SetExchange changes a tenant's Exchange while the world runs.
func (w *World) SetExchange(s ExchangeSettings) error {
	w.lock()
	defer w.mu.Unlock()
	t := w.tenantOf(s.Tenant)
	if t == nil {
		return fmt.Errorf("tenant %q: %w", s.Tenant, ErrUnknown)
	}
	if s.RedirectHost != nil {
		if err := checkRedirectHost(*s.RedirectHost); err != nil {
			return err
		}
	}
	if s.RefreshSeconds != nil {
		t.refresh = seconds(*s.RefreshSeconds)
	}
	set(&t.exo.RedirectHost, s.RedirectHost)
	set(&t.exo.NULBodyGzip, s.NULBodyGzip)
	set(&t.exo.NoTestCmdlet, s.NoTestCmdlet)
	set(&t.exo.AssignmentByName, s.AssignmentByName)
	set(&t.exo.WarningsInHeader, s.WarningsInHeader)
	set(&t.exo.RateLimit, s.RateLimit)
	return nil
}

func checkRedirectHost(host string) error {
	if strings.ContainsAny(host, ":/@ ") || strings.ToLower(host) != host {
		return fmt.Errorf("redirect_host %q is not a host name in lower case, without a port", host)
	}
	return nil
}
