package sim

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"time"
)

// Operations of SharePoint.
const (
	OpGetStatus   = "get_status"
	OpRollKey     = "roll_key"
	OpContextInfo = "context_info"
)

// serveSharePoint answers ProcessQuery and contextinfo at an admin host.
func (w *World) serveSharePoint(rw http.ResponseWriter, r *http.Request, host string) {
	g := w.geos[host]
	if g == nil {
		http.Error(rw, "no simulated SharePoint at host "+host, http.StatusMisdirectedRequest)
		return
	}
	id, err := w.bearer(r, "https://"+host, g.tenant)
	switch {
	case err != nil:
		w.refuseToken(rw, g, 401, err.Error())
		return
	case id.claims.AppIDACR != "2":
		w.refuseToken(rw, g, g.tenant.secretStatus, "Unsupported app only token.")
		return
	}
	switch {
	case r.Method != http.MethodPost:
		http.Error(rw, "method not allowed", http.StatusMethodNotAllowed)
	case strings.EqualFold(r.URL.Path, "/_api/contextinfo"):
		w.run(rw, r, g.newCall(w, r, id, OpContextInfo, w.contextInfo))
	case strings.EqualFold(r.URL.Path, "/_vti_bin/client.svc/ProcessQuery"):
		w.processQuery(rw, r, g, id)
	default:
		http.NotFound(rw, r)
	}
}

// refuseToken is SharePoint's 401, or 403.
func (w *World) refuseToken(rw http.ResponseWriter, g *geo, status int, reason string) {
	w.unauthorized(ServiceSharePoint)
	ans := sharePointRefusal(g.tenant, reason)
	ans.status = status
	writeAnswer(rw, ans)
}

func sharePointRefusal(t *tenant, reason string) answer {
	ans := jsonAnswer(401, map[string]any{"error_description": reason})
	ans.header.Set("WWW-Authenticate", `Bearer realm="`+t.id+`",client_id="00000003-0000-0ff1-ce00-000000000000",`+
		`authorization_uri="https://`+t.cloud.logins[0]+`/common/oauth2/authorize"`)
	ans.header.Set("x-ms-diagnostics", `3000003;reason="`+reason+`";category="invalid_client"`)
	return ans
}

// newCall makes a call that asks for the SharePoint permission first.
func (g *geo) newCall(w *World, r *http.Request, id identity, op string, do func(*call, time.Time) answer) *call {
	c := &call{service: ServiceSharePoint, op: op, tenant: g.tenant, target: g.id, geo: g.id}
	for _, h := range []string{"x-ms-client-request-id", "client-request-id"} {
		c.requestID = or(c.requestID, r.Header.Get(h))
	}
	c.operationID = c.requestID
	c.do = func(c *call, now time.Time) answer {
		if grant, _ := id.app.grant(g.tenant); !grant.SharePoint {
			return jsonAnswer(403, map[string]any{"odata.error": map[string]any{"code": "-2147024891, System.UnauthorizedAccessException",
				"message": map[string]any{"lang": "en-US", "value": "Attempted to perform an unauthorized operation."}}})
		}
		return do(c, now)
	}
	return c
}

func (w *World) contextInfo(*call, time.Time) answer {
	return jsonAnswer(200, map[string]any{"FormDigestTimeoutSeconds": 1800, "LibraryVersion": "16.0.26601.12004",
		"FormDigestValue": "0x" + strings.ToUpper(newVersionID()) + "," + w.Wall().UTC().Format("02 Jan 2006 15:04:05 -0000")})
}

// processQuery parses the XML and runs its one method.
func (w *World) processQuery(rw http.ResponseWriter, r *http.Request, g *geo, id identity) {
	if !strings.HasPrefix(r.Header.Get("Content-Type"), "text/xml") {
		http.Error(rw, "the content type must be text/xml", http.StatusUnsupportedMediaType)
		return
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		http.Error(rw, "the request body could not be read", http.StatusBadRequest)
		return
	}
	q, err := parseQuery(body)
	var bad csomError
	if errors.As(err, &bad) {
		w.run(rw, r, g.newCall(w, r, id, "invalid_query", func(*call, time.Time) answer { return bad.answer() }))
		return
	}
	var c *call
	if q.method == methodStatus {
		c = g.newCall(w, r, id, OpGetStatus, func(c *call, now time.Time) answer { return g.reply(q, c, now) })
		w.mu.Lock()
		c.keys = g.keys()
		w.mu.Unlock()
	} else {
		c = g.newCall(w, r, id, OpRollKey, func(c *call, now time.Time) answer { return w.rollKey(g, q, c, now) })
		c.effect, c.target, c.aliases = true, g.id+"/"+slotName(q.slot), []string{g.id}
		c.keys = w.namedKey(g.tenant, q)
	}
	w.run(rw, r, c)
}

// namedKey is the key that a roll names, as a list of one or none. A Managed
// HSM has no short name.
func (w *World) namedKey(t *tenant, q query) []*key {
	w.mu.Lock()
	defer w.mu.Unlock()
	if v := w.vaults[strings.ToLower(q.vault)]; v != nil && v.tenant == t && !v.hsm {
		if k := v.key(q.key); k != nil {
			return []*key{k}
		}
	}
	return nil
}

// reply is the reply array with the status of the geo.
func (g *geo) reply(q query, c *call, now time.Time) answer {
	out := []any{csomHead()}
	for _, id := range q.objectPath {
		out = append(out, id, map[string]any{"IsNull": false})
	}
	return jsonAnswer(200, append(out, q.action, g.statusInfo(c, now)))
}

// rollKey begins a roll for the API.
func (w *World) rollKey(g *geo, q query, c *call, now time.Time) answer {
	to, bad := w.mayRoll(g, q.slot, c.keys, q.version, now)
	if bad != nil {
		return bad.answer()
	}
	if other := g.slots[1-q.slot]; other != nil && other.key == to.key {
		w.violation(c, "key "+to.key.ref()+" would be in both slots", now)
	}
	c.applied(to)
	g.roll(q.slot, to, c.record, c.freeze, now)
	return g.reply(q, c, now)
}

// mayRoll checks what SharePoint checks before a roll.
func (w *World) mayRoll(g *geo, slot int, keys []*key, versionID string, now time.Time) (*version, *csomError) {
	if status, _ := g.seen(now); status != StatusRegistered && (!w.trap || status != StatusRolling) {
		return nil, &csomError{"System.InvalidOperationException", -2146233079,
			"The operation is not valid while the data encryption policy of this geography is in state " + statusNames()[status] + "."}
	}
	if other := g.elsewhere(); other != nil && !w.trap {
		return nil, &csomError{"System.InvalidOperationException", -2146233079,
			"The operation is not valid while the data encryption policy of geography " + other.id + " is in state Rolling."}
	}
	if len(keys) == 0 {
		return nil, &csomError{"System.ArgumentException", -2147024809, "The key vault or the key was not found."}
	}
	to, err := keys[0].serve(versionID, now)
	if held := g.slots[slot]; err == nil && held != nil {
		err = held.unwrap()
	}
	if err != nil {
		return nil, &csomError{"Microsoft.SharePoint.SPException", -2146232832, "The key cannot be used: " + err.Error() + "."}
	}
	return to, nil
}
