package automation

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/keyroll/keyroll/internal/msapi"
)

// maxOutput is more than any honest runbook writes: fifty policies with their keys.
const maxOutput = 256 << 10

// line is the contract of the runbooks' output: one line of JSON, schema 1.
type line struct {
	Schema    int             `json:"schema"`
	RequestID string          `json:"requestId"`
	OK        *bool           `json:"ok"`
	Result    json.RawMessage `json:"result"`
	Error     *struct {
		Type    string `json:"type"`
		Message string `json:"message"`
		// Called: the cmdlet that changes something had been called.
		Called *bool `json:"called"`
	} `json:"error"`
}

// output reads what a job that has completed wrote. What cannot be read leaves
// open what the job did.
func (c *Client) output(ctx context.Context, j Job, out Outcome) (Outcome, error) {
	call := c.call(opOutput, http.MethodGet, "/jobs/"+j.Name+"/output")
	call.Header.Set("Accept", "text/plain")
	reply, err := c.api.Do(ctx, call, func(r msapi.Reply) *msapi.Error {
		if r.Status == http.StatusOK || r.Status == http.StatusNotFound {
			return nil // a job without output
		}
		return c.refused(call, r)
	})
	if err != nil {
		return Outcome{}, err
	}
	body := reply.Body
	if reply.Status != http.StatusOK {
		body = nil
	}
	l, err := parse(body, j.Name)
	switch {
	case err != nil:
		out.Failed = &msapi.Error{Service: msapi.ServiceAutomation, Operation: j.Operation, Kind: msapi.KindProtocol, Code: "output_not_understood",
			Message: msapi.Sanitize("the runbook's output breaks its contract: " + err.Error()), ClientRequestID: j.Name, MaybeApplied: j.Mutating}
	case l.Error != nil:
		out.Failed = &msapi.Error{Service: msapi.ServiceAutomation, Operation: j.Operation, Kind: kindOf(l.Error.Type), Code: "cmdlet_failed",
			InnerCode: msapi.Token(l.Error.Type), Message: msapi.Sanitize(l.Error.Message), ClientRequestID: j.Name, MaybeApplied: j.Mutating && *l.Error.Called}
	default:
		out.Result = l.Result
	}
	return out, nil
}

// parse reads the one line and holds it against the contract. The runbook must
// say back whose request it answered: an output of another job proves nothing.
func parse(body []byte, requestID string) (line, error) {
	var l line
	if len(body) > maxOutput {
		return l, fmt.Errorf("it is longer than %d bytes", maxOutput)
	}
	text := bytes.TrimSpace(bytes.TrimPrefix(body, []byte("\xef\xbb\xbf")))
	switch {
	case len(text) == 0:
		return l, errors.New("there is none")
	case bytes.ContainsAny(text, "\r\n"):
		return l, errors.New("it has more than one line")
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&l); err != nil {
		return l, errors.New("it is not the JSON that was agreed on")
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return l, errors.New("something follows the JSON")
	}
	switch {
	case l.Schema != 1:
		return l, fmt.Errorf("its schema is %d, not 1: runbook and Keyroll are of different releases", l.Schema)
	case !strings.EqualFold(l.RequestID, requestID):
		return l, errors.New("it answers another request")
	case l.OK == nil:
		return l, errors.New("it says not whether all went well")
	case *l.OK && (l.Error != nil || len(l.Result) == 0):
		return l, errors.New("it says ok, with an error or without a result")
	case !*l.OK && (l.Error == nil || l.Error.Called == nil || l.Error.Type == ""):
		return l, errors.New("it says not ok, and not why, or not whether the cmdlet was called")
	}
	if *l.OK {
		return l, nil
	}
	l.Result = nil
	return l, nil
}

// kindOf reads what little an exception's type tells.
func kindOf(exception string) msapi.Kind {
	for end, kind := range map[string]msapi.Kind{
		"TransientException": msapi.KindUnavailable, "ServerBusyException": msapi.KindUnavailable, "TimeoutException": msapi.KindUnavailable,
		"OverBudgetException": msapi.KindThrottled, "UnauthorizedAccessException": msapi.KindForbidden, "CmdletAccessDeniedException": msapi.KindForbidden,
		"ManagementObjectNotFoundException": msapi.KindNotFound,
	} {
		if strings.HasSuffix(exception, end) {
			return kind
		}
	}
	return msapi.KindRejected
}

// Decode reads a result into v and refuses members that v does not know.
func Decode(raw json.RawMessage, v any) error {
	d := json.NewDecoder(bytes.NewReader(raw))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return &msapi.Error{Service: msapi.ServiceAutomation, Operation: opOutput, Kind: msapi.KindProtocol, Code: "result_not_understood",
			Message: "the runbook's result is not what was agreed on: runbook and Keyroll may be of different releases"}
	}
	return nil
}
