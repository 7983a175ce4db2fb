package sim

import (
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"
)

// Operations of Exchange are the cmdlets.
const (
	OpGetDEP               = "Get-DataEncryptionPolicy"
	OpSetDEP               = "Set-DataEncryptionPolicy"
	OpGetM365DEP           = "Get-M365DataAtRestEncryptionPolicy"
	OpSetM365DEP           = "Set-M365DataAtRestEncryptionPolicy"
	OpGetM365Assignment    = "Get-M365DataAtRestEncryptionPolicyAssignment"
	OpGetMailboxStatistics = "Get-MailboxStatistics"
)

// cmdlet is the body of InvokeCommand.
type cmdlet struct {
	CmdletInput struct {
		CmdletName string         `json:"CmdletName"`
		Parameters map[string]any `json:"Parameters"`
	} `json:"CmdletInput"`
}

// serveExchange answers POST /adminapi/beta/{tenant}/InvokeCommand.
func (w *World) serveExchange(rw http.ResponseWriter, r *http.Request, host string) {
	parts := strings.Split(strings.Trim(r.URL.Path, "/"), "/")
	if len(parts) != 4 || parts[0] != "adminapi" || parts[3] != "InvokeCommand" {
		http.NotFound(rw, r)
		return
	}
	if parts[1] != "beta" || r.Method != http.MethodPost {
		http.Error(rw, "method not allowed", http.StatusMethodNotAllowed)
		return
	}
	t := w.tenantOf(parts[2])
	if t == nil || t.cloud.exchange != host && !t.cloud.regional(host) {
		writeAnswer(rw, exchangeError(404, "Microsoft.Exchange.Configuration.Tasks.ManagementObjectNotFoundException",
			"The organization "+parts[2]+" was not found."))
		return
	}
	if to := w.redirectOf(t); to != "" && to != host {
		redirect(rw, r, to)
		return
	}
	id, err := w.bearer(r, "https://"+t.cloud.exchange, t)
	if err != nil || w.exchangeGrant(id.app, t) == "none" {
		w.unauthorized(ServiceExchange)
		rw.Header().Set("WWW-Authenticate", `Bearer client_id="00000002-0000-0ff1-ce00-000000000000", error="invalid_token"`)
		rw.WriteHeader(http.StatusUnauthorized)
		return
	}
	var in cmdlet
	body, err := io.ReadAll(r.Body) // to its end, so that the server notices a client that hangs up
	if err != nil || json.Unmarshal(body, &in) != nil || in.CmdletInput.CmdletName == "" {
		writeAnswer(rw, exchangeError(400, "Microsoft.OData.ODataException", "The request body is not a CmdletInput."))
		return
	}
	w.run(rw, r, w.cmdletCall(t, id.app, r, in.CmdletInput.CmdletName, parameters(in.CmdletInput.Parameters)))
}

// exchangeGrant is the app's grant in Exchange, never "".
func (w *World) exchangeGrant(a *app, t *tenant) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	g, _ := a.grant(t)
	return or(g.Exchange, "none")
}

// parameters are a cmdlet's, found without regard to case as PowerShell does.
type parameters map[string]any

func (p parameters) get(name string) any {
	for k, v := range p {
		if strings.EqualFold(k, name) {
			return v
		}
	}
	return nil
}

func (p parameters) text(name string) string {
	s, _ := p.get(name).(string)
	return s
}

// cmdletCall makes the call for a cmdlet.
func (w *World) cmdletCall(t *tenant, a *app, r *http.Request, name string, p parameters) *call {
	c := &call{service: ServiceExchange, op: name, tenant: t, target: p.text("Identity")}
	for _, op := range operations()[ServiceExchange] {
		if strings.EqualFold(op, name) {
			c.op = op
		}
	}
	for _, h := range []string{"x-ms-client-request-id", "client-request-id"} {
		c.requestID = or(c.requestID, r.Header.Get(h))
	}
	c.operationID = c.requestID
	c.effect = c.op == OpSetDEP || c.op == OpSetM365DEP || c.op == OpSetM365Assignment
	if c.op == OpSetM365Assignment {
		c.target = p.text("DataEncryptionPolicy")
	}
	w.mu.Lock()
	if found := t.policyOf(c.target, workloadOf(c.op)); found != nil {
		c.keys, c.target, c.aliases = t.policyKeys(found), found.GUID, []string{found.Name}
	}
	w.mu.Unlock()
	c.do = func(c *call, now time.Time) answer {
		if g, _ := a.grant(t); g.Exchange != "full" {
			return t.dress(t.noRole(), now)
		}
		return t.dress(w.cmdlet(c, p, now), now)
	}
	return c
}

// workloadOf tells whose policies a cmdlet is about.
func workloadOf(op string) string {
	if op == OpGetDEP || op == OpSetDEP {
		return WorkloadExchange
	}
	return WorkloadMulti
}

// cmdlet runs one; the lock is held.
func (w *World) cmdlet(c *call, p parameters, now time.Time) answer {
	switch t := c.tenant; c.op {
	case OpGetDEP, OpGetM365DEP:
		return t.getPolicies(c, p)
	case OpSetDEP, OpSetM365DEP:
		return w.setPolicy(c, p, now)
	case OpGetM365Assignment:
		return t.getAssignment(c)
	case OpSetM365Assignment:
		return t.setAssignment(c, p, now)
	case OpTestM365DEP:
		return t.testPolicy(c, p, now)
	case OpGetMailboxStatistics:
		m := t.mailboxOf(p.text("Identity"))
		if m == nil {
			return notFound(p.text("Identity"))
		}
		return t.envelope(c, []map[string]any{m.object()}, nil)
	default:
		return t.noRole() // the service does not tell an unknown cmdlet from a forbidden one
	}
}

// envelope is a successful answer.
func (t *tenant) envelope(c *call, value []map[string]any, warnings []string) answer {
	if value == nil {
		value = []map[string]any{}
	}
	warnings = slices.Concat([]string{}, warnings, c.warnings)
	header := http.Header{}
	if t.exo.WarningsInHeader {
		header["X-Warnings"], warnings = warnings, []string{}
	}
	ans := jsonAnswer(200, map[string]any{
		"@odata.context":               "https://" + t.cloud.exchange + "/adminapi/beta/" + t.id + "/$metadata#Collection(Exchange.GenericHashTable)",
		"adminapi.warnings@odata.type": "#Collection(String)",
		"@adminapi.warnings":           warnings,
		"value":                        value})
	maps.Copy(ans.header, header)
	return ans
}

func notFound(identity string) answer {
	return exchangeError(404, "Microsoft.Exchange.Configuration.Tasks.ManagementObjectNotFoundException",
		"The operation couldn't be performed because object '"+identity+"' couldn't be found.")
}

// exchangeError is the error envelope; what happened stands between pipes.
func exchangeError(status int, exception, text string) answer {
	code := map[int]string{404: "NotFound", 403: "Forbidden", 429: "TooManyRequests", 500: "InternalServerError", 503: "ServiceUnavailable"}[status]
	return jsonAnswer(status, map[string]any{
		"error": map[string]any{"code": or(code, "BadRequest"), "message": "Error executing cmdlet",
			"details": []map[string]any{{"code": "Client", "target": "", "message": "Ex6F9304|" + exception + "|" + text}},
			"innererror": map[string]any{"message": "Error executing cmdlet", "type": "Microsoft.Exchange.Admin.OData.Core.ODataServiceException",
				"internalexception": map[string]any{"message": text, "type": exception}}},
		"adminapi.warnings@odata.type": "#Collection(String)", "@adminapi.warnings": []string{}})
}
