// Package automation runs Keyroll's runbooks in a customer's Azure Automation
// account through the Job REST API of Azure Resource Manager: Microsoft's own
// cmdlets, where its native interfaces cannot be used. A job's name is chosen
// by the caller and is the operation's id, so that a lost answer is settled by
// asking for the job of that name; a name is never sent twice.
//
// Nothing is retried, and no parameter of a job is a secret: Azure keeps and
// shows them. The scripts are under deploy/runbook, their contract is in
// docs/transports.md.
package automation

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"

	"github.com/keyroll/keyroll/internal/msapi"
	"github.com/keyroll/keyroll/internal/roll"
)

// apiVersion of the Job REST API; the runbooks need nothing newer.
const apiVersion = "2019-06-01"

// The operations, as they stand in errors and metrics. A job's own operation
// names what its runbook does.
const (
	opAccount = "get_account"
	opStart   = "start_job"
	opJob     = "get_job"
	opOutput  = "get_job_output"
)

// Client speaks to one Automation account. Safe for concurrent use.
type Client struct {
	base  string // URL of the account
	runOn string
	api   *msapi.Client
}

var accountID = regexp.MustCompile(`^(?i)/subscriptions/[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}/resourceGroups/[0-9A-Za-z._()-]{0,89}[0-9A-Za-z_()-]/providers/Microsoft\.Automation/automationAccounts/[0-9A-Za-z-]{6,50}$`)

// CheckAccount says whether this is the resource id of an Automation account.
func CheckAccount(id string) error {
	if !accountID.MatchString(id) {
		return fmt.Errorf("%q is not the resource id of an Automation account: /subscriptions/…/resourceGroups/…/providers/Microsoft.Automation/automationAccounts/…", id)
	}
	return nil
}

// New makes a client for the account in the cloud's Resource Manager.
func New(cloud msapi.Cloud, account roll.AutomationAccount, cred azcore.TokenCredential, hc *http.Client, opts ...msapi.Option) (*Client, error) {
	if err := CheckAccount(account.Account); err != nil {
		return nil, err
	}
	return &Client{base: cloud.ResourceManager + account.Account, runOn: account.RunOn,
		api: msapi.NewClient(msapi.ServiceAutomation, cloud.ResourceManager+"/.default", cred, hc, opts...)}, nil
}

// Job is one run of a runbook.
type Job struct {
	// Name is a GUID of the caller's, and what the runbook must say back.
	Name string
	// Runbook and its Parameters; RequestId is added.
	Runbook    string
	Parameters map[string]string
	// Operation is what the runbook does, snake_case; Mutating, that it changes something.
	Operation string
	Mutating  bool
}

// Outcome is what became of a job.
type Outcome struct {
	// Found: there is a job of the name. Ended: it can change nothing any more.
	// Stuck: it stands still until a person resumes or stops it.
	Found, Ended, Stuck bool
	// State is the service's word.
	State string
	// EndedAt is when the job ended, by the service's clock; zero where it does not say.
	EndedAt time.Time
	// Result is what the runbook returned where it did what it should.
	Result json.RawMessage
	// Failed is why it did not: a job that failed, an output that cannot be
	// read, or the cmdlet's own error. MaybeApplied is true in it unless the
	// runbook says that the changing cmdlet had not been called.
	Failed *msapi.Error
}

// Account reads the account: a look that starts nothing.
func (c *Client) Account(ctx context.Context) error {
	call := c.call(opAccount, http.MethodGet, "")
	_, err := c.api.Do(ctx, call, func(r msapi.Reply) *msapi.Error {
		if r.Status == http.StatusOK {
			return nil
		}
		return c.refused(call, r)
	})
	return err
}

// Start sends the job. It is not idempotent; an error for which MaybeApplied
// holds may have started it, which Outcome tells.
func (c *Client) Start(ctx context.Context, j Job) error {
	parameters := map[string]string{"RequestId": j.Name}
	for k, v := range j.Parameters {
		parameters[k] = v
	}
	body, err := json.Marshal(map[string]any{"properties": map[string]any{
		"runbook": map[string]string{"name": j.Runbook}, "parameters": parameters, "runOn": c.runOn}})
	if err != nil {
		return msapi.Invalid(msapi.ServiceAutomation, opStart, "the job's parameters cannot be encoded")
	}
	call := c.call(opStart, http.MethodPut, "/jobs/"+j.Name)
	call.Body, call.OpID, call.Mutating = body, j.Name, j.Mutating
	call.Header.Set("Content-Type", "application/json")
	_, err = c.api.Do(ctx, call, func(r msapi.Reply) *msapi.Error {
		switch {
		case r.Status == http.StatusOK, r.Status == http.StatusCreated:
			return nil
		case r.Status == http.StatusConflict:
			// There is a job of this name: an earlier call of ours that was lost.
			e := c.refused(call, r)
			e.Kind, e.MaybeApplied = msapi.KindUnavailable, j.Mutating
			return e
		}
		return c.refused(call, r)
	})
	return err
}

// Run sends the job and waits for its end, as long as ctx lasts. A job that
// has not ended by then is an error with code job_running; it goes on.
func (c *Client) Run(ctx context.Context, j Job) (json.RawMessage, error) {
	ctx, cancel := msapi.EnsureDeadline(ctx)
	defer cancel()
	if err := c.Start(ctx, j); err != nil {
		return nil, err
	}
	for pause := firstPause; ; pause = min(pause*3/2, lastPause) {
		out, err := c.Outcome(ctx, j)
		switch {
		case err != nil && ctx.Err() == nil && retryable(err):
			// A look that failed says nothing about the job.
		case err != nil && ctx.Err() == nil:
			return nil, unknown(err, j)
		case err == nil && out.Ended && out.Failed != nil:
			return nil, out.Failed
		case err == nil && out.Ended:
			return out.Result, nil
		case err == nil && out.Stuck:
			return nil, c.running(j, out.State)
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return nil, c.running(j, out.State)
		}
	}
}

// A job takes a minute in Azure and milliseconds in a simulator: the first
// looks come quickly, later ones do not press.
const (
	firstPause = 100 * time.Millisecond
	lastPause  = 10 * time.Second
)

func retryable(err error) bool {
	e, ok := msapi.AsError(err)
	return ok && e.Retryable()
}

// unknown is a failed look at a job that was started: what it does is open.
func unknown(err error, j Job) error {
	e, ok := msapi.AsError(err)
	if !ok {
		return err
	}
	open := *e
	open.MaybeApplied = j.Mutating
	return &open
}

func (c *Client) running(j Job, state string) *msapi.Error {
	return &msapi.Error{Service: msapi.ServiceAutomation, Operation: j.Operation, Kind: msapi.KindUnavailable, Code: "job_running",
		Message: msapi.Sanitize("the runbook job is " + state + " and has not ended"), ClientRequestID: j.Name, MaybeApplied: j.Mutating}
}

// Outcome reads what became of the job. An error means that this is not known.
func (c *Client) Outcome(ctx context.Context, j Job) (Outcome, error) {
	call := c.call(opJob, http.MethodGet, "/jobs/"+j.Name)
	absent := false
	reply, err := c.api.Do(ctx, call, func(r msapi.Reply) *msapi.Error {
		if absent = r.Status == http.StatusNotFound; absent || r.Status == http.StatusOK {
			return nil
		}
		return c.refused(call, r)
	})
	if absent {
		// Nothing proves the job's absence but an account that is there.
		return Outcome{}, c.Account(ctx)
	}
	if err != nil {
		return Outcome{}, err
	}
	var doc struct {
		Properties struct {
			Status    string `json:"status"`
			Exception string `json:"exception"`
			EndTime   string `json:"endTime"`
		} `json:"properties"`
	}
	if err := json.Unmarshal(reply.Body, &doc); err != nil || doc.Properties.Status == "" {
		return Outcome{}, c.api.Unreadable(call, reply, "job_not_understood", "the answer is not a job")
	}
	out := Outcome{Found: true, State: msapi.Token(doc.Properties.Status)}
	if at, err := time.Parse(time.RFC3339Nano, doc.Properties.EndTime); err == nil {
		out.EndedAt = at.UTC()
	}
	switch doc.Properties.Status {
	case "Completed":
		out.Ended = true
		return c.output(ctx, j, out)
	case "Failed", "Stopped":
		out.Ended = true
		out.Failed = &msapi.Error{Service: msapi.ServiceAutomation, Operation: j.Operation, Kind: msapi.KindRejected, Code: "job_" + strings.ToLower(out.State),
			Message: msapi.Sanitize("the runbook job ended as " + out.State + ": " + doc.Properties.Exception), ClientRequestID: j.Name, MaybeApplied: j.Mutating}
	case "Suspended", "Blocked":
		out.Stuck = true
	}
	// New, Activating, Running, Removing and whatever else comes: it may still act.
	return out, nil
}

func (c *Client) call(op, method, path string) msapi.Call {
	h := http.Header{}
	h.Set("Accept", "application/json")
	return msapi.Call{Operation: op, Method: method, URL: c.base + path + "?api-version=" + apiVersion, Header: h}
}

// refused reads Resource Manager's error document.
func (c *Client) refused(call msapi.Call, r msapi.Reply) *msapi.Error {
	e := c.api.Refusal(call, r)
	var doc struct {
		Error struct {
			Code    string `json:"code"`
			Message string `json:"message"`
		} `json:"error"`
	}
	if json.Unmarshal(r.Body, &doc) == nil {
		e.Code, e.Message = msapi.Token(doc.Error.Code), msapi.Sanitize(doc.Error.Message)
	}
	return e
}
