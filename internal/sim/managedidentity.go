package sim

import (
	"crypto/subtle"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
)

const (
	// IdentityHeader is the value of IDENTITY_HEADER for the endpoint in the
	// form of App Service.
	IdentityHeader = "simulated-identity-header"
	// instanceMetadata is the address at which every Azure machine finds its
	// metadata service.
	instanceMetadata = "169.254.169.254"
	pathIMDS         = "/metadata/identity/oauth2/token"
	pathAppService   = "/msi/token"
)

// OpManagedIdentity is the token request of a managed identity, an operation
// of Entra: the metadata service asks it on the machine's behalf.
const OpManagedIdentity = "managed_identity_token"

// ManagedIdentity makes an app the identity of the machine that asks at the
// simulator's metadata endpoint. It belongs to one tenant for ever.
type ManagedIdentity struct {
	// Tenant is the GUID or domain of the identity's tenant.
	Tenant string `json:"tenant"`
	// ObjectID is the service principal's; a client may name the identity by it.
	// Left out, it is the client id.
	ObjectID string `json:"object_id,omitempty"`
	// ResourceID is the Azure resource id of a user-assigned identity.
	ResourceID string `json:"resource_id,omitempty"`
	// SystemAssigned: a request that names no identity means this one.
	SystemAssigned bool `json:"system_assigned,omitempty"`
}

// managedIdentity is a ManagedIdentity in a world.
type managedIdentity struct {
	ManagedIdentity
	tenant *tenant
}

func (w *World) newManagedIdentity(clientID string, s *ManagedIdentity) (*managedIdentity, error) {
	if s == nil {
		return nil, nil
	}
	t := w.tenantOf(s.Tenant)
	if t == nil {
		return nil, fmt.Errorf("managed identity in unknown tenant %q", s.Tenant)
	}
	for _, a := range w.apps {
		if s.SystemAssigned && a.managed != nil && a.managed.SystemAssigned {
			return nil, errors.New("only one managed identity can be system-assigned: the simulator is one machine")
		}
	}
	out := &managedIdentity{ManagedIdentity: *s, tenant: t}
	out.ObjectID = or(s.ObjectID, clientID)
	return out, nil
}

// identityRoutes serves the metadata endpoint in its two forms, over plain
// HTTP as on a real machine: that of virtual machines (IMDS) and that of App
// Service.
func (w *World) identityRoutes(mux *http.ServeMux) {
	mux.HandleFunc("GET "+pathIMDS, func(rw http.ResponseWriter, r *http.Request) {
		if !strings.EqualFold(r.Header.Get("Metadata"), "true") {
			writeAnswer(rw, identityError("invalid_request", "Required metadata header not specified"))
			return
		}
		w.serveIdentity(rw, r)
	})
	mux.HandleFunc("GET "+pathAppService, func(rw http.ResponseWriter, r *http.Request) {
		if subtle.ConstantTimeCompare([]byte(r.Header.Get("X-IDENTITY-HEADER")), []byte(IdentityHeader)) != 1 {
			writeAnswer(rw, jsonAnswer(http.StatusUnauthorized, map[string]any{"statusCode": 401, "message": "The X-IDENTITY-HEADER is not that of this site."}))
			return
		}
		w.serveIdentity(rw, r)
	})
}

// serveIdentity answers for the identity that the query names.
func (w *World) serveIdentity(rw http.ResponseWriter, r *http.Request) {
	a, tenantID := w.machineIdentity(r.URL.Query().Get), ""
	if a != nil {
		tenantID = a.managed.tenant.id
	}
	w.entraDo(rw, r, OpManagedIdentity, tenantID, func() answer { return w.managedToken(a, r) })
}

// managedToken issues the token; a is nil when the machine has no such identity.
func (w *World) managedToken(a *app, r *http.Request) answer {
	query := r.URL.Query()
	if query.Get("api-version") == "" || query.Get("resource") == "" {
		return identityError("invalid_request", "api-version and resource are required")
	}
	if a == nil {
		return identityError("invalid_request", "Identity not found")
	}
	t, aud := a.managed.tenant, strings.TrimSuffix(query.Get("resource"), "/")
	service := w.resourceOf(aud, t)
	if service == "" && aud != exchangeAudience {
		return identityError("invalid_resource", "AADSTS500011: The resource principal named "+aud+" was not found in the tenant.")
	}
	grant, _ := a.grant(t)
	text, err := w.sign(w.claims(a, t, aud, "2", rolesFor(service, grant)))
	if err != nil {
		return jsonAnswer(500, map[string]any{"error": "server_error"})
	}
	now := w.Wall()
	return jsonAnswer(200, map[string]any{"access_token": text, "client_id": a.clientID, "token_type": "Bearer", "resource": query.Get("resource"),
		"expires_in": strconv.Itoa(int(w.lifetime / time.Second)), "ext_expires_in": strconv.Itoa(int(w.lifetime / time.Second)),
		"expires_on": strconv.FormatInt(now.Add(w.lifetime).Unix(), 10), "not_before": strconv.FormatInt(now.Unix(), 10)})
}

// machineIdentity finds the app that a request means; nil when the machine has
// no such identity. Without a name it is the system-assigned one, or the only
// one there is.
func (w *World) machineIdentity(get func(string) string) *app {
	w.mu.Lock()
	defer w.mu.Unlock()
	var all []*app
	for _, a := range w.apps {
		if a.managed != nil {
			all = append(all, a)
		}
	}
	object := or(get("object_id"), get("principal_id"))
	resource := or(get("msi_res_id"), get("mi_res_id"))
	for _, a := range all {
		switch m := a.managed; {
		case get("client_id") != "":
			if strings.EqualFold(a.clientID, get("client_id")) {
				return a
			}
		case object != "":
			if strings.EqualFold(m.ObjectID, object) {
				return a
			}
		case resource != "":
			if strings.EqualFold(m.ResourceID, resource) {
				return a
			}
		case m.SystemAssigned || len(all) == 1:
			return a
		}
	}
	return nil
}

func identityError(code, text string) answer {
	return jsonAnswer(http.StatusBadRequest, map[string]any{"error": code, "error_description": text})
}
