package exchange

import (
	"encoding/json"
	"net/http"

	"github.com/keyroll/keyroll/internal/msapi"
)

// parameters are those of one cmdlet. Those below are all there are: a
// purge, a change of a policy's keys, or an assignment cannot be written down.
type parameters interface{ parameters() }

type getParameters struct {
	// An empty Identity means all policies and is left out; it is never sent
	// as an empty string, which some cmdlets take for "any".
	Identity string `json:"Identity,omitempty"`
}

type refreshParameters struct {
	Identity string
	Refresh  bool
	// Confirm false lets the cmdlet run where nobody can answer its question.
	Confirm bool
}

type mailboxParameters struct {
	Identity string
}

type testParameters struct {
	Identity string
}

type noParameters struct{}

func (testParameters) parameters()    {}
func (noParameters) parameters()      {}
func (getParameters) parameters()     {}
func (refreshParameters) parameters() {}
func (mailboxParameters) parameters() {}

type envelope struct {
	CmdletInput struct {
		CmdletName string
		Parameters parameters
	}
}

// call puts a cmdlet into the envelope.
func (c *Client) call(op, cmdlet string, p parameters, opID string) msapi.Call {
	var e envelope
	e.CmdletInput.CmdletName, e.CmdletInput.Parameters = cmdlet, p
	body, err := json.Marshal(e)
	if err != nil {
		panic("exchange: the request types cannot fail to encode: " + err.Error())
	}
	h := http.Header{}
	h.Set("Content-Type", "application/json; charset=utf-8")
	h.Set("Accept", "application/json")
	// Exchange answers 403 with a body that only claims to be compressed.
	h.Set("Accept-Encoding", "identity")
	h.Set("Prefer", "odata.maxpagesize=1000")
	h.Set("X-ResponseFormat", "json")
	h.Set("X-CmdletName", cmdlet)
	h.Set("X-ClientApplication", "Keyroll")
	// Where the tenant's organisation mailbox lives, the request is served.
	h.Set("X-AnchorMailbox", "APP:SystemMailbox{bb558c35-97f1-4cb9-8ff7-d53741dc928c}@"+c.tenantID)
	return msapi.Call{
		Operation: op, Method: http.MethodPost, Header: h, Body: body, OpID: opID,
		URL: c.cloud.ExchangeURL + "/adminapi/beta/" + c.tenantID + "/InvokeCommand",
	}
}
