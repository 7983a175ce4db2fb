// Package arm reads what Azure Resource Manager shows of a tenant's vaults to
// an identity with the role Reader: how they are set up, who may do what with
// their keys, locks and subscriptions. It only ever sends GET.
//
// Nothing is retried. A next page is fetched only from the same host, since the
// token goes along.
package arm

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"

	"github.com/keyroll/keyroll/internal/msapi"
)

// The operations, as they stand in errors and metrics.
const (
	opSubscriptions = "list_subscriptions"
	opVaults        = "list_vaults"
	opAssignments   = "list_role_assignments"
	opDefinition    = "get_role_definition"
	opLocks         = "list_locks"
	opFeature       = "get_feature"
	opLocations     = "list_locations"
)

// Client speaks to a cloud's Resource Manager. Safe for concurrent use.
type Client struct {
	base  string
	scope string
	cred  azcore.TokenCredential
	api   *msapi.Client
}

// New makes a client for the cloud's Resource Manager.
func New(cloud msapi.Cloud, cred azcore.TokenCredential, hc *http.Client, opts ...msapi.Option) *Client {
	scope := cloud.ResourceManager + "/.default"
	return &Client{base: cloud.ResourceManager, scope: scope, cred: cred,
		api: msapi.NewClient(msapi.ServiceResourceManager, scope, cred, hc, opts...)}
}

// Self is the object id of the identity whose token is used: what grants name
// it by. Entra calls the token opaque, so that a token without it, or in
// another form, is "" and no error.
func (c *Client) Self(ctx context.Context) (string, error) {
	ctx, cancel := msapi.EnsureDeadline(ctx)
	defer cancel()
	tk, err := c.cred.GetToken(ctx, policy.TokenRequestOptions{Scopes: []string{c.scope}})
	if err != nil {
		return "", msapi.TokenError(err, "get_token", c.api.Now())
	}
	parts := strings.Split(tk.Token, ".")
	if len(parts) != 3 {
		return "", nil
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return "", nil //nolint:nilerr // another form of token is none that says who it is for
	}
	var claims struct {
		ObjectID string `json:"oid"`
	}
	if json.Unmarshal(payload, &claims) != nil {
		return "", nil
	}
	return claims.ObjectID, nil
}

// maxPages bounds a list: a longer chain of pages is a loop.
const maxPages = 200

// get reads one document.
func (c *Client) get(ctx context.Context, op, address string, into any) error {
	call := msapi.Call{Operation: op, Method: http.MethodGet, URL: address, Header: http.Header{"Accept": {"application/json"}}}
	_, err := c.api.Do(ctx, call, func(r msapi.Reply) *msapi.Error {
		if r.Status != http.StatusOK {
			return c.refused(call, r)
		}
		if json.Unmarshal(r.Body, into) != nil {
			return c.api.Unreadable(call, r, "unreadable_answer", "Resource Manager's answer is not the document that was asked for")
		}
		return nil
	})
	return err
}

func (c *Client) refused(call msapi.Call, r msapi.Reply) *msapi.Error {
	e := c.api.Refusal(call, r)
	var doc struct {
		Error struct{ Code, Message string }
	}
	if json.Unmarshal(r.Body, &doc) == nil {
		e.Code, e.Message = msapi.Sanitize(doc.Error.Code), msapi.Sanitize(doc.Error.Message)
	}
	return e
}

// list reads all pages of a list.
func list[T any](ctx context.Context, c *Client, op, path, version string, query ...string) ([]T, error) {
	address := c.base + path + "?api-version=" + version
	for _, q := range query {
		address += "&" + q
	}
	var out []T
	for range maxPages {
		var page struct {
			Value    []T    `json:"value"`
			NextLink string `json:"nextLink"`
		}
		if err := c.get(ctx, op, address, &page); err != nil {
			return nil, err
		}
		out = append(out, page.Value...)
		if page.NextLink == "" {
			return out, nil
		}
		if !c.own(page.NextLink) {
			return nil, protocol(op, "the next page is on another host")
		}
		address = page.NextLink
	}
	return nil, protocol(op, "the list has no end")
}

func protocol(op, message string) error {
	return &msapi.Error{Service: msapi.ServiceResourceManager, Operation: op, Kind: msapi.KindProtocol, Code: "unreadable_answer", Message: message}
}

func (c *Client) own(link string) bool {
	u, err := url.Parse(link)
	base, baseErr := url.Parse(c.base)
	return err == nil && baseErr == nil && u.Scheme == "https" && u.User == nil && strings.EqualFold(u.Host, base.Host)
}

// segment is a part of a path that came from an answer: it must not change
// where the token goes.
func segment(op, s string) error {
	if !strings.HasPrefix(s, "/subscriptions/") || strings.ContainsAny(s, "?#%\\ \x00") || strings.Contains(s, "..") || strings.Contains(s, "//") {
		return protocol(op, fmt.Sprintf("%q is not the id of a resource", msapi.Sanitize(s)))
	}
	return nil
}
