package sim

import (
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

// What a Grant of Azure Resource Manager says.
const (
	armNone        = "none"
	armReader      = "reader"
	armContributor = "contributor"
)

// armRoute is one operation of Resource Manager. Each provider keeps a list of
// its own; armRoutes joins them.
type armRoute struct {
	op      string
	method  string
	pattern string // literal segments in any case; {name} takes one segment
	write   bool   // needs the grant contributor, where reader does for the rest
	// do does it, under the world's lock, for the tenant of the token.
	do func(w *World, r *armRequest, c *call, now time.Time) answer
	// prepare may fill in the call's target and say that it is an effect; nil: nothing to do.
	prepare func(w *World, r *armRequest, c *call)
}

// armRequest is a request that a route has taken.
type armRequest struct {
	tenant *tenant
	app    *app
	path   map[string]string // by the pattern's {name}
	query  url.Values
	header http.Header
	body   []byte
}

// armRoutes are all operations that the simulated Resource Manager has.
func armRoutes() []armRoute {
	return slices.Concat(armCoreRoutes(), armVaultRoutes(), automationRoutes())
}

// armOperations lists what a fault may name.
func armOperations() []string {
	var out []string
	for _, route := range armRoutes() {
		if !slices.Contains(out, route.op) {
			out = append(out, route.op)
		}
	}
	return out
}

// OpListSubscriptions lists the subscriptions that the token may see.
const OpListSubscriptions = "list_subscriptions"

// armCoreRoutes are those of no resource provider.
func armCoreRoutes() []armRoute {
	return []armRoute{{op: OpListSubscriptions, method: http.MethodGet, pattern: "/subscriptions",
		do: func(w *World, r *armRequest, _ *call, _ time.Time) answer {
			value := []map[string]any{}
			for _, id := range r.tenant.subscriptions {
				value = append(value, map[string]any{"id": "/subscriptions/" + id, "subscriptionId": id,
					"tenantId": r.tenant.id, "displayName": r.tenant.name, "state": or(r.tenant.azure.State, "Enabled"),
					"subscriptionPolicies": map[string]any{"quotaId": or(r.tenant.azure.Quota, "EnterpriseAgreement_2014-09-01")}})
			}
			return jsonAnswer(http.StatusOK, map[string]any{"value": value})
		}}}
}

// serveARM answers at the cloud's Resource Manager host. The directory is the
// token's: a resource of another tenant does not exist for it.
func (w *World) serveARM(rw http.ResponseWriter, r *http.Request, host string) {
	id, t, err := w.armBearer(r, host)
	if err != nil {
		w.unauthorized(ServiceResourceManager)
		code := "InvalidAuthenticationToken"
		if err == errNoToken {
			code = "AuthenticationFailed"
		}
		ans := armError(http.StatusUnauthorized, code, "Authentication failed: "+err.Error()+".")
		ans.header.Set("WWW-Authenticate", `Bearer authorization_uri="https://login.microsoftonline.com/common", error="invalid_token"`)
		writeAnswer(rw, ans)
		return
	}
	body, err := io.ReadAll(r.Body) // to its end, so that the server notices a client that hangs up
	if err != nil {
		writeAnswer(rw, armError(http.StatusBadRequest, "InvalidRequestContent", "The request body could not be read."))
		return
	}
	route, path, allowed := armMatch(r.Method, r.URL.Path)
	switch {
	case path == nil:
		writeAnswer(rw, armError(http.StatusNotFound, "InvalidResourceType", "The simulator has no resource at "+r.URL.Path+"."))
		return
	case !allowed:
		writeAnswer(rw, armError(http.StatusMethodNotAllowed, "HttpMethodNotSupported", "The method "+r.Method+" is not supported here."))
		return
	case r.URL.Query().Get("api-version") == "":
		writeAnswer(rw, armError(http.StatusBadRequest, "MissingApiVersionParameter", "The api-version query parameter (?api-version=) is required for all requests."))
		return
	}
	w.run(rw, r, w.armCall(route, &armRequest{tenant: t, app: id.app, path: path, query: r.URL.Query(), header: r.Header, body: body}))
}

// armBearer checks the token; the tenant is the one that issued it. Both of
// Resource Manager's audiences are taken.
func (w *World) armBearer(r *http.Request, host string) (identity, *tenant, error) {
	text, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if !ok {
		return identity{}, nil, errNoToken
	}
	var claims tokenClaims
	if _, _, _, err := parseJWT(text, &claims); err != nil {
		return identity{}, nil, err
	}
	t := w.tenantOf(claims.Tid)
	if t == nil || t.cloud.arm != host {
		return identity{}, nil, errForeignToken
	}
	aud := "https://" + host
	if slices.Contains(armAudiences(t.cloud), claims.Aud) {
		aud = claims.Aud
	}
	id, err := w.bearer(r, aud, t)
	return id, t, err
}

// armAudiences are the resources that a token for Resource Manager may name.
func armAudiences(c cloud) []string {
	return []string{"https://" + c.arm, "https://" + c.armCore}
}

// armCall makes the call of a route: the grant is looked at first.
func (w *World) armCall(route armRoute, r *armRequest) *call {
	c := &call{service: ServiceResourceManager, op: route.op, tenant: r.tenant,
		requestID: or(r.header.Get("x-ms-client-request-id"), r.header.Get("client-request-id"))}
	c.operationID = c.requestID
	if route.prepare != nil {
		w.mu.Lock()
		route.prepare(w, r, c)
		w.mu.Unlock()
	}
	c.do = func(c *call, now time.Time) answer {
		grant, _ := r.app.grant(r.tenant)
		if level := or(grant.ARM, armNone); level == armNone || route.write && level != armContributor {
			return armError(http.StatusForbidden, "AuthorizationFailed", "The client '"+r.app.clientID+
				"' does not have authorization to perform action '"+route.op+"' or the scope is invalid.")
		}
		return route.do(w, r, c, now)
	}
	return c
}

// armMatch finds the route of a path. A nil map means that no route has the
// path; false, that none has it with this method.
func armMatch(method, path string) (route armRoute, names map[string]string, allowed bool) {
	for _, candidate := range armRoutes() {
		found := armPath(candidate.pattern, path)
		if found == nil {
			continue
		}
		if candidate.method == method {
			return candidate, found, true
		}
		names = found
	}
	return armRoute{}, names, false
}

// armPath reads a path by a pattern; nil when it is another one.
func armPath(pattern, path string) map[string]string {
	want, have := strings.Split(strings.Trim(pattern, "/"), "/"), strings.Split(strings.Trim(path, "/"), "/")
	if len(want) != len(have) {
		return nil
	}
	names := map[string]string{}
	for i, segment := range want {
		if strings.HasPrefix(segment, "{") {
			names[strings.Trim(segment, "{}")] = have[i]
		} else if !strings.EqualFold(segment, have[i]) {
			return nil
		}
	}
	return names
}

// armError is Resource Manager's error document.
func armError(status int, code, message string) answer {
	return jsonAnswer(status, map[string]any{"error": map[string]any{"code": code, "message": message}})
}
