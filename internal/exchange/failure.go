package exchange

import (
	"bytes"
	"strings"

	"github.com/keyroll/keyroll/internal/msapi"
)

// failure is the error member of an answer. Its own message is always the
// same; what happened stands in the details or in the inner error.
type failure struct {
	Code    string `json:"code"`
	Message string `json:"message"`
	Details []struct {
		Message string `json:"message"`
	} `json:"details"`
	InnerError struct {
		Message           string   `json:"message"`
		Type              string   `json:"type"`
		InternalException internal `json:"internalexception"`
	} `json:"innererror"`
}

type internal struct {
	Message string `json:"message"`
	Type    string `json:"type"`
}

// explain finds the .NET exception type and the text for people.
func (f *failure) explain() (exception, message string) {
	if len(f.Details) > 0 {
		// "Ex6F9304|Namespace.SomeException|What happened"
		if parts := strings.SplitN(f.Details[0].Message, "|", 3); len(parts) == 3 {
			return strings.TrimSpace(parts[1]), parts[2]
		}
		if f.Details[0].Message != "" {
			return f.InnerError.InternalException.Type, f.Details[0].Message
		}
	}
	if i := f.InnerError.InternalException; i.Message != "" || i.Type != "" {
		return i.Type, i.Message
	}
	if f.InnerError.Message != "" {
		return f.InnerError.Type, f.InnerError.Message
	}
	return "", f.Message
}

// failed makes the error of an answer that is no success. The HTTP status
// tells little: most failures are 400, 403 or 404, whatever they are.
func (c *Client) failed(call msapi.Call, r msapi.Reply, f *failure, readable bool) *msapi.Error {
	e := c.api.Refusal(call, r)
	ok := r.Status >= 200 && r.Status < 300
	all := string(r.Body)
	switch {
	case f != nil:
		exception, message := f.explain()
		e.Code, e.InnerCode, e.Message = msapi.Token(f.Code), msapi.Token(exception), msapi.Sanitize(message)
	case r.Status == 403 && len(bytes.Trim(r.Body, "\x00 \r\n\t")) == 0:
		e.Code = "no_role_or_no_cmdlet"
		e.Message = "Exchange does not let the application run this cmdlet: it lacks the role, or the cmdlet is unknown"
	case readable:
		e.Message = "Exchange gave no reason"
	case isText(r):
		e.Message = msapi.Sanitize(all)
	default:
		e.Message = "the answer is neither JSON nor text"
	}
	if x := r.Header.Get("X-ExceptionType"); e.InnerCode == "" && x != "" {
		e.InnerCode = msapi.Token(x)
	}
	switch {
	case strings.Contains(all, "maximum number of concurrent requests"):
		e.Kind, e.Code, e.MaybeApplied = msapi.KindUnavailable, "concurrency_limit", false
	case e.Status < 500 && transient(e, all, call.Mutating):
	case f != nil && strings.Contains(e.InnerCode, "ManagementObjectNotFound"):
		e.Kind, e.MaybeApplied = msapi.KindNotFound, false
	case ok && f != nil:
		// A success that holds an error is the cmdlet's refusal.
		e.Kind, e.MaybeApplied = msapi.KindRejected, false
	case ok:
		e.Kind, e.Code = msapi.KindProtocol, "answer_not_understood"
	}
	return e
}

// transient recognises failures that pass by themselves although the status
// says otherwise. Where the front end lost its back end, the cmdlet may have run.
func transient(e *msapi.Error, body string, mutating bool) bool {
	if e.Status == 401 || e.Status == 429 {
		return false
	}
	for _, m := range []struct {
		marker     string
		mayHaveRun bool
	}{
		{"CmdletProxyNotAvailableFailure", false},
		{"ServerBusyException", false},
		{"BackendCommunicationException", true},
		{"TransientException", true},
	} {
		if strings.Contains(body, m.marker) || strings.Contains(e.InnerCode, m.marker) {
			e.Kind = msapi.KindUnavailable
			if e.Code == "" {
				e.Code = m.marker
			}
			e.MaybeApplied = m.mayHaveRun && mutating
			return true
		}
	}
	return false
}

// isText says whether the body is plain text that people can read. A page of
// HTML is not: it comes from something in front of Exchange.
func isText(r msapi.Reply) bool {
	return !bytes.ContainsRune(r.Body, 0) && !bytes.HasPrefix(bytes.TrimSpace(r.Body), []byte("<"))
}
