package keyvault

import (
	"context"
	"encoding/json"
	"errors"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"

	"github.com/keyroll/keyroll/internal/msapi"
)

// explain makes the one error of a failed SDK call. In order: what we said
// ourselves (the token's failure too), the vault's refusal, the network, and
// what is left is an answer that the SDK could not read.
func (c *Client) explain(call msapi.Call, rec *record, err error) error {
	if e, ok := msapi.AsError(err); ok {
		return e
	}
	var refused *azcore.ResponseError
	if errors.As(err, &refused) && refused.RawResponse != nil {
		flight, _ := rec.state()
		e := msapi.Refusal(msapi.ServiceKeyVault, call, refused.StatusCode, refused.RawResponse.Header, c.opts.Now())
		e.Code = msapi.Token(refused.ErrorCode)
		readError(e, flight.Body)
		return e.WithCause(err)
	}
	flight, sent := rec.state()
	if flight.Err == nil && (errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled)) {
		flight.Err = err
	}
	if flight.Err != nil {
		flight.Sent = sent
		e := flight.Failure(msapi.ServiceKeyVault, call.Operation, call.Mutating)
		e.ClientRequestID = call.OpID
		return e
	}
	return rec.unreadable(call, err)
}

// unreadable is the error of an answer that is no refusal and makes no sense.
func (r *record) unreadable(call msapi.Call, err error) *msapi.Error {
	flight, sent := r.state()
	e := &msapi.Error{
		Service: msapi.ServiceKeyVault, Operation: call.Operation, Status: flight.Status,
		Kind: msapi.KindProtocol, Code: "answer_not_understood", Message: msapi.Sanitize(err.Error()),
		ClientRequestID: call.OpID, MaybeApplied: call.Mutating && sent,
	}
	return e.WithCause(err)
}

// readError reads {"error":{"code","message","innererror":{"code"}}}. The SDK
// leaves the inner code, which tells a firewall from a missing role, in the body.
func readError(e *msapi.Error, body []byte) {
	var doc struct {
		Error struct {
			Code    string `json:"code"`
			Message string `json:"message"`
			Inner   struct {
				Code string `json:"code"`
			} `json:"innererror"`
		} `json:"error"`
	}
	if json.Unmarshal(body, &doc) != nil {
		return
	}
	if doc.Error.Code != "" {
		e.Code = msapi.Token(doc.Error.Code)
	}
	e.InnerCode, e.Message = msapi.Token(doc.Error.Inner.Code), msapi.Sanitize(doc.Error.Message)
}
