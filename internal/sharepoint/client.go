// Package sharepoint reads the Customer Key status of a SharePoint geo and
// rolls one of its two keys, with the client object model (CSOM) calls that
// stand behind Microsoft's cmdlets. The calls are public; that the cmdlets use
// them is inferred, so a tenant's status probe must succeed before a roll.
//
// Nothing is retried: whether a roll whose answer was lost has begun is read
// from the status.
package sharepoint

import (
	"context"
	"fmt"
	"net/http"
	"regexp"
	"strings"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"

	"github.com/keyroll/keyroll/internal/msapi"
	"github.com/keyroll/keyroll/internal/roll"
)

// The operations, as they stand in errors and metrics.
const (
	opStatus = "get_status"
	opRoll   = "roll_key"
)

// Client speaks to the admin site of one geo. Safe for concurrent use.
type Client struct {
	adminURL string
	api      *msapi.Client
}

// New makes a client for the admin site at adminURL, which must belong to the cloud.
func New(cloud msapi.Cloud, adminURL string, cred azcore.TokenCredential, hc *http.Client, opts ...msapi.Option) (*Client, error) {
	if err := cloud.CheckAdminURL(adminURL); err != nil {
		return nil, err
	}
	u, err := msapi.Origin(adminURL)
	if err != nil {
		return nil, err
	}
	base := "https://" + strings.ToLower(u.Hostname())
	return &Client{
		adminURL: base,
		api:      msapi.NewClient(msapi.ServiceSharePoint, base+"/.default", cred, hc, opts...),
	}, nil
}

// Status reads the state of the geo's Customer Key. It changes nothing.
func (c *Client) Status(ctx context.Context) (roll.SharePointObservation, error) {
	return c.query(ctx, c.call(opStatus, statusRequest(), ""))
}

// A key's and a vault's name, and a version, as SharePoint takes them.
var (
	vaultName  = regexp.MustCompile(`^[0-9A-Za-z-]{1,63}$`)
	keyName    = regexp.MustCompile(`^[0-9A-Za-z-]{1,127}$`)
	keyVersion = regexp.MustCompile(`^[0-9a-fA-F]{32}$`)
)

// Roll begins to move the slot to the version of the key and returns the
// status that SharePoint answers with. It is asynchronous there, and it is not
// idempotent: SharePoint refuses a second one while the first runs.
func (c *Client) Roll(ctx context.Context, slot roll.Slot, vault, key, version, opID string) (roll.SharePointObservation, error) {
	number, ok := map[roll.Slot]int{roll.Primary: 0, roll.Secondary: 1}[slot]
	switch {
	case !ok:
		return roll.SharePointObservation{}, msapi.Invalid(msapi.ServiceSharePoint, opRoll, fmt.Sprintf("%q is not a slot", slot))
	case !vaultName.MatchString(vault):
		return roll.SharePointObservation{}, msapi.Invalid(msapi.ServiceSharePoint, opRoll, "a vault is named by its short name, not by its URL")
	case !keyName.MatchString(key):
		return roll.SharePointObservation{}, msapi.Invalid(msapi.ServiceSharePoint, opRoll, "this is not the name of a key")
	case !keyVersion.MatchString(version):
		return roll.SharePointObservation{}, msapi.Invalid(msapi.ServiceSharePoint, opRoll, "a key version has 32 hex digits")
	}
	call := c.call(opRoll, rollRequest(number, vault, key, version), opID)
	call.Mutating = true
	return c.query(ctx, call)
}

// RollURI sends nothing: no method of SharePoint's is known that takes a URI.
func (c *Client) RollURI(context.Context, roll.Slot, string, string) (roll.SharePointObservation, error) {
	return roll.SharePointObservation{}, msapi.Invalid(msapi.ServiceSharePoint, opRoll, "a vault is named by its short name, which a Managed HSM has not")
}

func (c *Client) call(op, body, opID string) msapi.Call {
	h := http.Header{}
	h.Set("Content-Type", "text/xml")
	h.Set("Accept", "application/json")
	return msapi.Call{
		Operation: op, Method: http.MethodPost, Header: h, Body: []byte(body), OpID: opID,
		URL: c.adminURL + "/_vti_bin/client.svc/ProcessQuery",
	}
}

func (c *Client) query(ctx context.Context, call msapi.Call) (roll.SharePointObservation, error) {
	var obs roll.SharePointObservation
	_, err := c.api.Do(ctx, call, func(r msapi.Reply) (e *msapi.Error) {
		obs, e = c.read(call, r)
		return e
	})
	return obs, err
}
