package exchange

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"strings"

	"github.com/keyroll/keyroll/internal/msapi"
)

// answer is a cmdlet's success.
type answer struct {
	reply    msapi.Reply
	objects  []properties
	warnings []string
}

// invoke sends a cmdlet, follows one redirect to a regional host, and reads
// the answer.
func (c *Client) invoke(ctx context.Context, call msapi.Call) (answer, error) {
	var ans answer
	var to string
	judge := func(r msapi.Reply) (e *msapi.Error) {
		if !isRedirect(r.Status) {
			ans, e = c.read(call, r)
			return e
		}
		if to != "" {
			return c.api.Unreadable(call, r, "redirect_again", "Exchange redirects a second time")
		}
		if to = c.region(call.URL, r.Header.Get("Location")); to == "" {
			return c.api.Unreadable(call, r, "redirect_refused", "Exchange redirects to a host that is not one of its own in this cloud")
		}
		return nil
	}
	if _, err := c.api.Do(ctx, call, judge); err != nil || to == "" {
		return ans, err
	}
	// A POST again, with its body and the token: net/http would make it a GET.
	call.URL = to
	_, err := c.api.Do(ctx, call, judge)
	return ans, err
}

func isRedirect(status int) bool {
	switch status {
	case http.StatusMovedPermanently, http.StatusFound, http.StatusSeeOther, http.StatusTemporaryRedirect, http.StatusPermanentRedirect:
		return true
	}
	return false
}

// region checks where a redirect leads: https, and a host of Exchange's own,
// since the token goes along; "" if it leads elsewhere. Port 446 is the
// service's inner one; from outside the same host answers on 443.
func (c *Client) region(from, location string) string {
	base, err := url.Parse(from)
	if err != nil || location == "" {
		return ""
	}
	u, err := base.Parse(location)
	if err != nil || u.Scheme != "https" || u.User != nil {
		return ""
	}
	switch u.Port() {
	case "", "443", "446":
	default:
		return ""
	}
	host := strings.ToLower(u.Hostname())
	for _, domain := range c.cloud.ExchangeRedirects {
		if host == domain || strings.HasSuffix(host, "."+domain) {
			u.Host = host
			return u.String()
		}
	}
	return ""
}

// document is the envelope of success and failure alike.
type document struct {
	Value    json.RawMessage `json:"value"`
	NextLink string          `json:"@odata.nextLink"`
	Warnings json.RawMessage `json:"@adminapi.warnings"`
	Error    *failure        `json:"error"`
}

// read makes an answer of a reply, or the error that it is.
func (c *Client) read(call msapi.Call, r msapi.Reply) (answer, *msapi.Error) {
	var doc document
	body := strings.TrimSpace(string(r.Body))
	readable := body == "" || json.Unmarshal(r.Body, &doc) == nil
	if r.Status < 200 || r.Status >= 300 || doc.Error != nil || !readable {
		return answer{}, c.failed(call, r, doc.Error, readable)
	}
	if doc.NextLink != "" {
		// The pages behind it are said not to be readable, and a part of the
		// policies taken for all of them would be worse than none.
		return answer{}, c.api.Unreadable(call, r, "truncated", "Exchange sent only the first page of the answer")
	}
	ans := answer{reply: r, warnings: warnings(doc.Warnings, r.Header)}
	if len(doc.Value) > 0 {
		if err := json.Unmarshal(doc.Value, &ans.objects); err != nil {
			var one properties
			if json.Unmarshal(doc.Value, &one) != nil {
				return answer{}, c.api.Unreadable(call, r, "value_not_understood", "the answer's value is not a list of objects")
			}
			ans.objects = []properties{one}
		}
	}
	return ans, nil
}

// warnings collects what the cmdlet warned of, from the body and the header.
func warnings(raw json.RawMessage, h http.Header) []string {
	var list []string
	if json.Unmarshal(raw, &list) != nil && len(raw) > 0 {
		list = []string{string(raw)}
	}
	for _, v := range h.Values("X-Warnings") {
		var many []string
		if json.Unmarshal([]byte(v), &many) != nil {
			many = []string{v}
		}
		list = append(list, many...)
	}
	var out []string
	seen := map[string]bool{}
	for _, w := range list {
		if w = msapi.Sanitize(w); w != "" && !seen[w] {
			seen[w] = true
			out = append(out, w)
		}
	}
	return out
}

// harmless are the beginnings of warnings that say nothing about the policy.
// Any other warning is for a human to read before the roll goes on, so an
// entry here needs a documented meaning.
//
//   - "Micro delay applied": the throttling policy has slowed the session down.
var harmless = [...]string{"micro delay applied"}

// KnownHarmless says whether a warning may be passed over.
func KnownHarmless(warning string) bool {
	w := strings.ToLower(strings.TrimSpace(warning))
	w = strings.TrimSpace(strings.TrimPrefix(w, "warning:"))
	for _, start := range harmless {
		if strings.HasPrefix(w, start) {
			return true
		}
	}
	return false
}
