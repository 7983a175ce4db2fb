package sim

import (
	"encoding/json"
	"net/http"
	"strings"
	"time"
)

// OpUnauthorized counts requests without an acceptable token, Key Vault's
// bodiless first request among them; faults never touch these.
const OpUnauthorized = "unauthorized"

// call is one authorised request, from its count to its answer.
type call struct {
	service, op string
	tenant      *tenant
	target      string   // vault/key, policy GUID or geo/slot, for the witness
	aliases     []string // other names by which a fault may mean the target
	keys        []*key   // the keys it works with, for faults of vault and key
	operationID string
	requestID   string
	effect      bool
	// do does it, under the world's lock.
	do func(c *call, now time.Time) answer
	// refuse is the service's 401, where it depends on more than the service.
	refuse func(why error) answer

	// What do may set or read.
	geo       string
	record    *Effect  // the witness entry of an effect
	warnings  []string // from faults
	status    *int     // SharePoint status number forced by a fault
	freeze    *fault   // a roll that starts now never ends while this fault lives
	lag       []*fault // faults that keep new versions out of a list
	back      int      // how many changes ago SharePoint's status is from
	jobFaults []*fault // what becomes of the job that it starts
}

// answer is a response before it is written.
type answer struct {
	status int
	header http.Header
	body   []byte
}

// run counts the call, lets the faults do their worst, has the effect and
// writes the answer. A client that goes away does not stop it: what was sent
// to Microsoft may land late, and the simulator can show that with a hold.
func (w *World) run(rw http.ResponseWriter, r *http.Request, c *call) {
	faults := w.admit(c)
	ans, end := w.before(c, faults)
	if end == goOn {
		ans = w.apply(c, faults)
		ans, end = w.after(c, faults, ans)
	}
	switch end {
	case goLost:
		lose(rw)
		return
	case goReset:
		reset(rw)
		return
	}
	if c.record != nil {
		// Before the write, so that a client that has its answer finds it so.
		w.lock()
		c.record.Answered = r.Context().Err() == nil
		w.mu.Unlock()
	}
	w.Logger.InfoContext(r.Context(), "simulated call", "service", c.service, "operation", c.op,
		"target", c.target, "status", ans.status)
	writeAnswer(rw, ans)
}

// admit counts the call, opens its witness entry and draws its faults.
func (w *World) admit(c *call) []*fault {
	now := w.lock()
	defer w.mu.Unlock()
	w.count(c.service, c.op)
	if c.effect {
		c.record = w.witness(Effect{Start: now, Service: c.service, Operation: c.op, Tenant: c.tenant.id,
			Target: c.target, Geo: c.geo, OperationID: c.operationID, RequestID: c.requestID, By: byAPI})
	}
	return w.draw(c, now)
}

// apply has the effect, with the strangers who come just before or after it.
func (w *World) apply(c *call, faults []*fault) answer {
	now := w.lock()
	defer w.mu.Unlock()
	w.strangers(c, faults, ModeStrangerBefore, now)
	if c.record != nil {
		c.record.Start = now
	}
	ans := c.do(c, now)
	w.strangers(c, faults, ModeStrangerAfter, now)
	return ans
}

// applied notes in the witness log that the effect is there.
func (c *call) applied(versions ...*version) {
	c.record.Applied = true
	for _, v := range versions {
		c.record.Versions = append(c.record.Versions, v.kid())
	}
}

// lose closes the connection without an answer.
func lose(rw http.ResponseWriter) {
	if conn, _, err := http.NewResponseController(rw).Hijack(); err == nil {
		_ = conn.Close()
		return
	}
	panic(http.ErrAbortHandler) // no connection to take (HTTP/2, a recorder): the server aborts it
}

func writeAnswer(rw http.ResponseWriter, a answer) {
	for k, v := range a.header {
		rw.Header()[k] = v
	}
	if rw.Header().Get("x-ms-request-id") == "" {
		rw.Header().Set("x-ms-request-id", newGUID())
	}
	rw.WriteHeader(a.status)
	_, _ = rw.Write(a.body) // a client that has gone is no business of ours
}

// jsonAnswer encodes v; the simulator's own values always encode.
func jsonAnswer(status int, v any) answer {
	body, err := json.Marshal(v)
	if err != nil {
		return textAnswer(http.StatusInternalServerError, err.Error())
	}
	return answer{status: status, body: body, header: http.Header{"Content-Type": {"application/json; charset=utf-8"}}}
}

func textAnswer(status int, text string) answer {
	return answer{status: status, body: []byte(text), header: http.Header{"Content-Type": {"text/plain; charset=utf-8"}}}
}

// errorAnswer is a failure in the words of the service.
func (w *World) errorAnswer(service string, status int, code, message string) answer {
	switch service {
	case ServiceKeyVault:
		outer, inner, _ := strings.Cut(code, "/")
		return vaultError(status, outer, inner, message)
	case ServiceExchange:
		return exchangeRefusal(status, code, message)
	case ServiceSharePoint:
		if status == http.StatusOK {
			return csomError{typ: code, code: -1, message: message}.answer()
		}
		return textAnswer(status, message)
	case ServiceResourceManager:
		return armError(status, code, message)
	case ServiceLogs:
		return logError(status, code, message)
	default:
		return w.entraFault(FaultParams{Status: status, Code: code, Message: message}, status)
	}
}
