package sim

import (
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"time"
)

// Operations of Key Vault.
const (
	OpCreateKey         = "create_key"
	OpGetKey            = "get_key"
	OpListVersions      = "list_key_versions"
	OpListKeys          = "list_keys"
	OpGetRotationPolicy = "get_rotation_policy"
)

// operationTag is the tag of a new version that carries the operation id.
const operationTag = "keyroll-op"

// keyRequest is an authorised Key Vault request, taken apart.
type keyRequest struct {
	vault *vault
	key   *key // nil when the vault has none of the name
	name  string
	path  []string // without "keys" and the name
	body  []byte
	r     *http.Request
	call  *call
}

// serveKeyVault authorises, then routes by method and path.
func (w *World) serveKeyVault(rw http.ResponseWriter, r *http.Request, host string) {
	v := w.hosts[host]
	if v == nil || w.isDeleted(v) {
		// A vault that does not exist has no name in the real world's DNS.
		http.Error(rw, "no simulated vault at host "+host, http.StatusMisdirectedRequest)
		return
	}
	rw.Header().Set("x-ms-client-request-id", r.Header.Get("x-ms-client-request-id"))
	id, err := w.bearer(r, v.resource(), v.tenant)
	if err != nil {
		w.unauthorized(ServiceKeyVault)
		writeAnswer(rw, w.challenge(v, err))
		return
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		writeAnswer(rw, vaultError(400, "BadParameter", "", "The request body could not be read."))
		return
	}
	w.run(rw, r, w.keyCall(v, id, r, body))
}

func (w *World) isDeleted(v *vault) bool {
	w.lock()
	defer w.mu.Unlock()
	return v.deleted
}

// challenge is the 401 that tells a client where to get its token.
func (w *World) challenge(v *vault, why error) answer {
	ans := vaultError(401, "Unauthorized", "", "AKV10000: Request is missing a Bearer or PoP token.")
	if why != errNoToken {
		ans = vaultError(401, "Unauthorized", "", "AKV10032: "+why.Error()+".")
	}
	c, more := v.tenant.cloud, ""
	if why == errTokenRevoked {
		more = claimsChallenge(w)
	}
	ans.header.Set("WWW-Authenticate", `Bearer authorization="https://`+c.logins[0]+"/"+v.tenant.id+`", resource="`+v.resource()+`"`+more)
	return ans
}

// keyCall makes the call for a request.
func (w *World) keyCall(v *vault, id identity, r *http.Request, body []byte) *call {
	parts := strings.Split(strings.Trim(r.URL.Path, "/"), "/")
	c := &call{service: ServiceKeyVault, tenant: v.tenant, target: v.name,
		requestID: r.Header.Get("x-ms-client-request-id"), operationID: r.Header.Get("x-ms-client-request-id")}
	c.refuse = func(why error) answer { return w.challenge(v, why) }
	req := &keyRequest{vault: v, body: body, r: r, call: c}
	if len(parts) > 1 {
		w.mu.Lock()
		req.name, req.path, req.key = parts[1], parts[2:], v.key(parts[1])
		w.mu.Unlock()
		c.target = v.name + "/" + req.name
		if req.key != nil {
			c.keys, c.target = []*key{req.key}, req.key.ref()
		}
	}
	var do func(*keyRequest, time.Time) answer
	c.op, do = w.keyOperation(req, parts)
	c.do = func(c *call, now time.Time) answer {
		switch {
		case c.op == opForbidden:
			c.op = violationName(r.Method, parts)
			w.violation(c, "no roll needs "+r.Method+" "+r.URL.Path, now)
			return vaultError(403, "Forbidden", "ForbiddenByPolicy", "The simulator permits no request that deletes, disables, re-dates or restores a key.")
		case !id.app.mayUse(v):
			return vaultError(403, "Forbidden", "ForbiddenByRbac", "Caller is not authorized to perform action on resource. Vault: "+v.name+".")
		case r.URL.Query().Get("api-version") == "":
			return vaultError(400, "BadParameter", "", "api-version must be specified")
		}
		return do(req, now)
	}
	return c
}

const opForbidden = "forbidden"

// keyOperation tells what a request wants.
func (w *World) keyOperation(q *keyRequest, parts []string) (string, func(*keyRequest, time.Time) answer) {
	rest := strings.Join(q.path, "/")
	switch {
	case forbidden(q.r.Method, parts, q.body):
		return opForbidden, nil
	case parts[0] == "deletedkeys" && q.r.Method == http.MethodGet && len(parts) == 1:
		return OpListDeletedKeys, listDeletedKeys
	case parts[0] == "deletedkeys" && q.r.Method == http.MethodGet && len(parts) == 2:
		return OpGetDeletedKey, getDeletedKey
	case parts[0] != "keys":
	case q.r.Method == http.MethodPost && len(parts) == 3 && rest == "create":
		q.call.effect = true
		var in struct {
			Tags map[string]string `json:"tags"`
		}
		if json.Unmarshal(q.body, &in) == nil && in.Tags[operationTag] != "" {
			q.call.operationID = in.Tags[operationTag]
		}
		return OpCreateKey, w.createKey
	case q.r.Method != http.MethodGet:
	case len(parts) == 1:
		return OpListKeys, listKeys
	case len(parts) == 2:
		return OpGetKey, getKey
	case len(parts) == 3 && rest == "versions":
		return OpListVersions, listVersions
	case len(parts) == 3 && rest == "rotationpolicy":
		return OpGetRotationPolicy, getRotationPolicy
	case len(parts) == 3:
		return OpGetKey, getKey
	}
	return "unknown", func(*keyRequest, time.Time) answer {
		return vaultError(405, "MethodNotAllowed", "", "The simulator does not know this request.")
	}
}

// forbidden recognises what rule 1 of the product rules out.
func forbidden(method string, parts []string, body []byte) bool {
	switch {
	case method == http.MethodDelete:
		return true
	case method == http.MethodPost && len(parts) == 2 && parts[0] == "keys" && parts[1] == "restore":
		return true
	case method == http.MethodPost && parts[0] == "deletedkeys": // recover
		return true
	case method != http.MethodPatch:
		return false
	}
	var in struct {
		Attributes struct {
			Enabled *bool           `json:"enabled"`
			Nbf     json.RawMessage `json:"nbf"`
			Exp     json.RawMessage `json:"exp"`
		} `json:"attributes"`
	}
	if json.Unmarshal(body, &in) != nil {
		return true
	}
	a := in.Attributes
	return a.Enabled != nil && !*a.Enabled || a.Nbf != nil || a.Exp != nil
}

// violationName names a forbidden request in the witness log.
func violationName(method string, parts []string) string {
	switch {
	case method == http.MethodPatch:
		return "update_key"
	case parts[0] == "deletedkeys" && method == http.MethodDelete:
		return "purge_key"
	case parts[0] == "deletedkeys":
		return "recover_key"
	case method == http.MethodDelete:
		return "delete_key"
	default:
		return "restore_key"
	}
}
