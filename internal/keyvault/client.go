// Package keyvault reads root keys from Azure Key Vault and gives them new
// versions. It can do nothing else: no method here deletes, disables, re-dates
// or restores a version, and none of the SDK's that do is linked.
//
// Nothing is retried. A create whose answer is lost may have made a version;
// whether it did is found by the tag that each created version carries.
package keyvault

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"strings"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/runtime"
	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azkeys"

	"github.com/keyroll/keyroll/internal/msapi"
)

// OpTag is the tag by which a version names the operation that made it.
const OpTag = "keyroll-op"

// The operations, as they stand in errors and metrics.
const (
	opCreate         = "create_key"
	opGet            = "get_key"
	opVersions       = "list_versions"
	opRotationPolicy = "get_rotation_policy"
	opDeleted        = "get_deleted_key"
)

// Client speaks to one vault. Safe for concurrent use.
//
// It holds five methods of an azkeys.Client and never the client itself:
// where a program can reach a value by reflection (html/template does), the
// linker keeps all of its methods, DeleteKey and its kin among them.
type Client struct {
	host           string
	create         func(context.Context, string, azkeys.CreateKeyParameters, *azkeys.CreateKeyOptions) (azkeys.CreateKeyResponse, error)
	get            func(context.Context, string, string, *azkeys.GetKeyOptions) (azkeys.GetKeyResponse, error)
	versions       func(string, *azkeys.ListKeyPropertiesVersionsOptions) *runtime.Pager[azkeys.ListKeyPropertiesVersionsResponse]
	rotationPolicy func(context.Context, string, *azkeys.GetKeyRotationPolicyOptions) (azkeys.GetKeyRotationPolicyResponse, error)
	deleted        func(context.Context, string, *azkeys.GetDeletedKeyOptions) (azkeys.GetDeletedKeyResponse, error)
	opts           msapi.Options
}

// New makes a client for the vault at vaultURL. Whether the vault is in the
// tenant's cloud is for the caller to check (msapi.Cloud.CheckVaultURL); that
// a token goes to the vault's own domain only is checked at each challenge.
func New(vaultURL string, cred azcore.TokenCredential, hc *http.Client, opts ...msapi.Option) (*Client, error) {
	u, err := msapi.Origin(vaultURL)
	if err != nil {
		return nil, fmt.Errorf("vault URL: %w", err)
	}
	if cred == nil {
		// azkeys takes a missing credential for "send no token".
		return nil, errors.New("a vault client needs a credential")
	}
	host := strings.ToLower(u.Hostname())
	az, err := azkeys.NewClient("https://"+host, tokens{cred}, &azkeys.ClientOptions{
		ClientOptions: azcore.ClientOptions{
			Transport: transporter{hc},
			// azcore repeats POST too: one create made four versions when its
			// answers were lost.
			Retry:     policy.RetryOptions{MaxRetries: -1},
			Telemetry: policy.TelemetryOptions{ApplicationID: "Keyroll/1.0"},
		},
	})
	if err != nil {
		return nil, fmt.Errorf("making a client for vault %s: %w", host, err)
	}
	return &Client{
		host:           host,
		create:         az.CreateKey,
		get:            az.GetKey,
		versions:       az.NewListKeyPropertiesVersionsPager,
		rotationPolicy: az.GetKeyRotationPolicy,
		deleted:        az.GetDeletedKey,
		opts:           msapi.NewOptions(opts...),
	}, nil
}

// keyName is what Key Vault takes for a key's name. Anything else could change
// the path of the request.
var keyName = regexp.MustCompile(`^[0-9A-Za-z-]{1,127}$`)

// call runs one SDK call under the rules that all of them share: a deadline,
// no retry, one report to the observer, one type of error.
func (c *Client) call(ctx context.Context, call msapi.Call, name string, run func(context.Context) error) (err error) {
	if !keyName.MatchString(name) {
		return msapi.Invalid(msapi.ServiceKeyVault, call.Operation,
			"a key's name has 1 to 127 letters, digits and hyphens")
	}
	start := c.opts.Now()
	ctx, cancel := msapi.EnsureDeadline(ctx)
	defer cancel()
	rec := &record{mutating: call.Mutating}
	ctx = policy.WithRetryOptions(withRecord(ctx, rec), policy.RetryOptions{MaxRetries: -1})
	if call.OpID != "" {
		ctx = policy.WithHTTPHeader(ctx, http.Header{"x-ms-client-request-id": {call.OpID}})
	}
	defer func() {
		// The SDK's challenge policy panics on a challenge without a tenant.
		if p := recover(); p != nil {
			err = rec.unreadable(call, fmt.Errorf("the SDK cannot read the vault's answer: %v", p))
		}
		c.opts.Report(msapi.ServiceKeyVault, call.Operation, rec.status(), start, err)
	}()
	if err := run(ctx); err != nil {
		return c.explain(call, rec, err)
	}
	return nil
}
