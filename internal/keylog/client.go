// Package keylog reads Key Vault's diagnostic log out of a Log Analytics
// workspace: which application wrapped and unwrapped with which key version.
// It asks one question and changes nothing.
//
// A vault sends its log there only where its diagnostic settings say so, and
// it arrives some minutes late. What the columns hold for a call that named
// its key without a version was not verified against Microsoft: a line whose
// key has no version counts for nothing here.
package keylog

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"

	"github.com/keyroll/keyroll/internal/msapi"
	"github.com/keyroll/keyroll/internal/roll"
)

// opUses is the operation, as it stands in errors and metrics.
const opUses = "query_key_uses"

// Client speaks to one workspace. Safe for concurrent use.
type Client struct {
	url string
	api *msapi.Client
}

var workspaceID = regexp.MustCompile(`^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`)

// CheckWorkspace says whether this is the id of a Log Analytics workspace.
func CheckWorkspace(id string) error {
	if !workspaceID.MatchString(id) {
		return fmt.Errorf("%q is not the id of a Log Analytics workspace: the GUID that its overview page calls Workspace ID, in lower case", id)
	}
	return nil
}

// New makes a client for the workspace in the cloud.
func New(cloud msapi.Cloud, workspace string, cred azcore.TokenCredential, hc *http.Client, opts ...msapi.Option) (*Client, error) {
	if err := CheckWorkspace(workspace); err != nil {
		return nil, err
	}
	if cloud.LogAnalyticsURL == "" || cloud.LogAnalyticsScope == "" {
		return nil, fmt.Errorf("cloud %q has no host for Log Analytics", cloud.Name)
	}
	return &Client{url: cloud.LogAnalyticsURL + "/v1/workspaces/" + workspace + "/query",
		api: msapi.NewClient(msapi.ServiceLogs, cloud.LogAnalyticsScope, cred, hc, opts...)}, nil
}

// safeName is what may stand in a query as part of a key's identifier.
var safeName = regexp.MustCompile(`^[0-9A-Za-z.-]{1,253}$`)

// query is the question: both tables that a vault's diagnostic settings may
// write to, whichever of them exists.
func query(refs []roll.KeyRef, since time.Time) (string, error) {
	ids := make([]string, 0, len(refs))
	for _, r := range refs {
		if !safeName.MatchString(r.Host) || !safeName.MatchString(r.Name) || !safeName.MatchString(r.Version) {
			return "", fmt.Errorf("key %s/%s/%s cannot stand in a query", r.Host, r.Name, r.Version)
		}
		ids = append(ids, `"https://`+r.Host+"/keys/"+r.Name+"/"+r.Version+`"`)
	}
	return `let since = datetime(` + since.UTC().Format("2006-01-02T15:04:05.000Z") + `);
let keys = dynamic([` + strings.Join(ids, ", ") + `]);
union isfuzzy=true
 (AZKVAuditLogs
  | where TimeGenerated >= since and OperationName in ("KeyWrap", "KeyUnwrap") and HttpStatusCode == 200
  | project at = TimeGenerated, operation = OperationName, app = tostring(Identity.claim.appid), key = tostring(Id)),
 (AzureDiagnostics
  | where TimeGenerated >= since and ResourceProvider == "MICROSOFT.KEYVAULT" and OperationName in ("KeyWrap", "KeyUnwrap")
  | where column_ifexists("httpStatusCode_d", real(null)) == 200
  | project at = TimeGenerated, operation = OperationName, app = tostring(column_ifexists("identity_claim_appid_g", "")), key = tostring(column_ifexists("id_s", "")))
| where key in~ (keys)
| summarize first = min(at), calls = count() by operation, app, key`, nil
}

// Uses asks who used these key versions since the moment. refs must not be
// empty. Every line is held against the question again: what was not asked
// for, or is older, is left out.
func (c *Client) Uses(ctx context.Context, refs []roll.KeyRef, since time.Time) ([]roll.KeyUse, error) {
	q, err := query(refs, since)
	if err != nil {
		return nil, msapi.Invalid(msapi.ServiceLogs, opUses, err.Error())
	}
	body, err := json.Marshal(map[string]string{"query": q})
	if err != nil {
		return nil, msapi.Invalid(msapi.ServiceLogs, opUses, "the query cannot be encoded")
	}
	call := msapi.Call{Operation: opUses, Method: http.MethodPost, URL: c.url, Header: http.Header{"Content-Type": {"application/json"}}, Body: body}
	reply, err := c.api.Do(ctx, call, func(r msapi.Reply) *msapi.Error { return c.judge(call, r) })
	if err != nil {
		return nil, err
	}
	uses, err := read(reply.Body)
	if err != nil {
		return nil, c.api.Unreadable(call, reply, "answer_not_understood", err.Error())
	}
	return slices.DeleteFunc(uses, func(u roll.KeyUse) bool {
		return u.First.Before(since) || !slices.ContainsFunc(refs, func(r roll.KeyRef) bool { return r.SameKey(u.Ref) && strings.EqualFold(r.Version, u.Ref.Version) })
	}), nil
}

// judge reads the error document; one may come under status 200 too, with part
// of an answer, which is no answer here.
func (c *Client) judge(call msapi.Call, r msapi.Reply) *msapi.Error {
	var doc struct {
		Error *struct {
			Code    string `json:"code"`
			Message string `json:"message"`
			Inner   struct {
				Code string `json:"code"`
			} `json:"innererror"`
		} `json:"error"`
	}
	readable := json.Unmarshal(r.Body, &doc) == nil
	if r.Status == http.StatusOK && readable && doc.Error == nil {
		return nil
	}
	if r.Status == http.StatusOK && !readable {
		return c.api.Unreadable(call, r, "answer_not_understood", "the answer is not JSON")
	}
	e := c.api.Refusal(call, r)
	if r.Status == http.StatusOK {
		e.Kind = msapi.KindUnavailable // partial results: ask again later
	}
	if doc.Error != nil {
		e.Code, e.InnerCode, e.Message = msapi.Token(doc.Error.Code), msapi.Token(doc.Error.Inner.Code), msapi.Sanitize(doc.Error.Message)
	}
	return e
}

// read reads the table of the answer by its columns' names.
func read(body []byte) ([]roll.KeyUse, error) {
	var doc struct {
		Tables []struct {
			Columns []struct {
				Name string `json:"name"`
			} `json:"columns"`
			Rows [][]any `json:"rows"`
		} `json:"tables"`
	}
	if err := json.Unmarshal(body, &doc); err != nil || len(doc.Tables) == 0 {
		return nil, fmt.Errorf("the answer has no table")
	}
	at := map[string]int{}
	for i, c := range doc.Tables[0].Columns {
		at[c.Name] = i
	}
	for _, name := range []string{"operation", "app", "key", "first", "calls"} {
		if _, ok := at[name]; !ok {
			return nil, fmt.Errorf("the answer has no column %s", name)
		}
	}
	var out []roll.KeyUse
	for _, row := range doc.Tables[0].Rows {
		if len(row) < len(doc.Tables[0].Columns) {
			return nil, fmt.Errorf("a row of the answer is too short")
		}
		text := func(name string) string { s, _ := row[at[name]].(string); return s }
		first, err := time.Parse(time.RFC3339Nano, text("first"))
		if err != nil {
			return nil, fmt.Errorf("a row of the answer has no time")
		}
		ref, ok := roll.ParseKeyURI(text("key"))
		if !ok || ref.Version == "" {
			continue
		}
		calls, _ := row[at["calls"]].(float64)
		out = append(out, roll.KeyUse{Operation: text("operation"), AppID: strings.ToLower(text("app")), Ref: ref, First: first.UTC(), Calls: int64(calls)})
	}
	return out, nil
}
