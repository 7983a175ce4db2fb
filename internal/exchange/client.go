// Package exchange reads the data encryption policies of Exchange Online and
// of multi-workload, and refreshes them, through the REST interface that
// Microsoft's own PowerShell module uses (InvokeCommand). Microsoft does not
// document that interface for others; the supported alternative is the module.
//
// Nothing is retried, and nothing here can ask for a data purge: a request is
// made of the structs in request.go, none of which has such a parameter. Nor
// can it assign a policy: the assignment is only read.
package exchange

import (
	"context"
	"fmt"
	"net/http"
	"strings"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"

	"github.com/keyroll/keyroll/internal/msapi"
	"github.com/keyroll/keyroll/internal/roll"
)

// The operations, as they stand in errors and metrics.
const (
	opList       = "get_policies"
	opGet        = "get_policy"
	opRefresh    = "refresh_policy"
	opMailbox    = "get_mailbox_statistics"
	opAssignment = "get_policy_assignment"
	opTest       = "test_policy"
)

// Client speaks to one tenant's Exchange Online. Safe for concurrent use.
type Client struct {
	cloud    msapi.Cloud
	tenantID string
	api      *msapi.Client
}

// New makes a client for the tenant with this Entra tenant GUID.
func New(cloud msapi.Cloud, tenantID string, cred azcore.TokenCredential, hc *http.Client, opts ...msapi.Option) *Client {
	return &Client{
		cloud: cloud, tenantID: tenantID,
		api: msapi.NewClient(msapi.ServiceExchange, cloud.ExchangeURL+"/.default", cred, hc, opts...),
	}
}

// Policies reads all policies of the workload.
func (c *Client) Policies(ctx context.Context, w roll.Workload) ([]roll.PolicyObservation, error) {
	return c.policies(ctx, opList, w, getParameters{})
}

// Policy reads the policy with this GUID; Found is false where there is none.
//
// Exchange answers a Get whose identity it does not know with ALL policies, so
// what comes back counts only if its own GUID is the one asked for.
func (c *Client) Policy(ctx context.Context, w roll.Workload, guid string) (roll.PolicyObservation, error) {
	absent := roll.PolicyObservation{Workload: w, GUID: guid}
	want, ok := normalGUID(guid)
	if !ok {
		return absent, msapi.Invalid(msapi.ServiceExchange, opGet, "a policy is asked for by its GUID")
	}
	all, err := c.policies(ctx, opGet, w, getParameters{Identity: want})
	if e, isErr := msapi.AsError(err); isErr && e.Kind == msapi.KindNotFound && strings.Contains(e.InnerCode, "ManagementObjectNotFound") {
		return absent, nil
	}
	if err != nil {
		return absent, err
	}
	for _, p := range all {
		if p.GUID == want {
			return p, nil
		}
	}
	return absent, nil
}

func (c *Client) policies(ctx context.Context, op string, w roll.Workload, p getParameters) ([]roll.PolicyObservation, error) {
	cmdlet, err := cmdletFor("Get-", w, op)
	if err != nil {
		return nil, err
	}
	call := c.call(op, cmdlet, p, "")
	ans, err := c.invoke(ctx, call)
	if err != nil {
		return nil, err
	}
	out := make([]roll.PolicyObservation, 0, len(ans.objects))
	seen := map[string]bool{}
	for _, o := range ans.objects {
		obs, err := o.policy(w)
		if err != nil {
			return nil, c.api.Unreadable(call, ans.reply, "property_not_understood", err.Error())
		}
		if obs.GUID != "" && seen[obs.GUID] {
			return nil, c.api.Unreadable(call, ans.reply, "duplicate_policy", "two policies have the GUID "+obs.GUID)
		}
		seen[obs.GUID] = true
		out = append(out, obs)
	}
	return out, nil
}

// Receipt is what Exchange said to a refresh that it took. It promises that
// the request was accepted and nothing about when it takes effect.
type Receipt = roll.Receipt

// Refresh makes the policy take up the newest versions of its keys. Taking it
// twice does no harm: the policy reads the same newest versions again.
func (c *Client) Refresh(ctx context.Context, w roll.Workload, guid, opID string) (Receipt, error) {
	want, ok := normalGUID(guid)
	if !ok {
		return Receipt{}, msapi.Invalid(msapi.ServiceExchange, opRefresh, "a policy is refreshed by its GUID")
	}
	cmdlet, err := cmdletFor("Set-", w, opRefresh)
	if err != nil {
		return Receipt{}, err
	}
	call := c.call(opRefresh, cmdlet, refreshParameters{Identity: want, Refresh: true, Confirm: false}, opID)
	call.Mutating = true
	ans, err := c.invoke(ctx, call)
	if err != nil {
		return Receipt{}, err
	}
	out := Receipt{Warnings: ans.warnings, RequestID: msapi.RequestID(ans.reply.Header), At: c.api.Now().UTC()}
	for _, w := range ans.warnings {
		if !KnownHarmless(w) {
			out.Unknown = append(out.Unknown, w)
		}
	}
	return out, nil
}

// MailboxPolicyID reads a mailbox's DataEncryptionPolicyID, "" where it shows none.
func (c *Client) MailboxPolicyID(ctx context.Context, mailbox string) (string, error) {
	if strings.TrimSpace(mailbox) == "" {
		return "", msapi.Invalid(msapi.ServiceExchange, opMailbox, "no mailbox is named")
	}
	call := c.call(opMailbox, "Get-MailboxStatistics", mailboxParameters{Identity: mailbox}, "")
	ans, err := c.invoke(ctx, call)
	if err != nil {
		return "", err
	}
	if n := len(ans.objects); n != 1 {
		return "", c.api.Unreadable(call, ans.reply, "not_one_mailbox", fmt.Sprintf("asked for one mailbox, got %d", n))
	}
	id, err := ans.objects[0].text("DataEncryptionPolicyID")
	if err != nil {
		return "", c.api.Unreadable(call, ans.reply, "property_not_understood", err.Error())
	}
	if g, ok := normalGUID(id); ok {
		id = g
	}
	if id == "00000000-0000-0000-0000-000000000000" {
		return "", nil
	}
	return id, nil
}

func cmdletFor(verb string, w roll.Workload, op string) (string, error) {
	switch w {
	case roll.Exchange:
		return verb + "DataEncryptionPolicy", nil
	case roll.MultiWorkload:
		return verb + "M365DataAtRestEncryptionPolicy", nil
	case roll.SharePoint:
	}
	return "", msapi.Invalid(msapi.ServiceExchange, op, fmt.Sprintf("workload %q has no policies in Exchange", w))
}
