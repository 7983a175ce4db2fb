package sim

import (
	"encoding/base64"
	"fmt"
	"math/big"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

// Operations of Entra, as counted by Requests.
const (
	OpToken       = "token"
	OpDiscovery   = "discovery"
	OpOpenID      = "openid_configuration"
	OpSigningKeys = "keys"
)

// serveEntra routes the login hosts.
func (w *World) serveEntra(rw http.ResponseWriter, r *http.Request) {
	host := hostOnly(r.Host)
	path := strings.Trim(r.URL.Path, "/")
	tenantID, rest, _ := strings.Cut(path, "/")
	switch {
	case path == "common/discovery/instance":
		w.entraDo(rw, r, OpDiscovery, "", func() answer { return instanceDiscovery(r) })
	case rest == "v2.0/.well-known/openid-configuration":
		w.entraDo(rw, r, OpOpenID, tenantID, func() answer { return w.openID(host, tenantID) })
	case rest == "discovery/v2.0/keys":
		w.entraDo(rw, r, OpSigningKeys, "", w.signingKeys)
	case rest == "oauth2/v2.0/token" && r.Method == http.MethodPost:
		if err := r.ParseForm(); err != nil {
			writeAnswer(rw, entraError(400, "invalid_request", 900144, "The request body could not be read.", w.Wall()))
			return
		}
		w.entraDo(rw, r, OpToken, tenantID, func() answer { return w.token(host, tenantID, r.PostForm) })
	default:
		http.NotFound(rw, r)
	}
}

// entraDo runs a call that reads only what never changes, or locks by itself.
func (w *World) entraDo(rw http.ResponseWriter, r *http.Request, op, tenantID string, do func() answer) {
	c := &call{service: ServiceEntra, op: op, do: func(*call, time.Time) answer { return do() }}
	if t := w.tenantOf(tenantID); t != nil {
		c.tenant = t
	}
	w.run(rw, r, c)
}

// instanceDiscovery names the hosts of each cloud that are one authority.
func instanceDiscovery(r *http.Request) answer {
	endpoint, err := url.Parse(r.URL.Query().Get("authorization_endpoint"))
	// Microsoft's list has its own clouds; one of an operator is not in it.
	if err != nil || !slices.ContainsFunc(clouds(), func(c cloud) bool { return slices.Contains(c.logins, endpoint.Host) }) {
		return jsonAnswer(400, map[string]any{"error": "invalid_instance", "error_description": "AADSTS50049: Unknown or invalid instance."})
	}
	tenantID, _, _ := strings.Cut(strings.Trim(endpoint.Path, "/"), "/")
	var metadata []map[string]any
	for _, c := range clouds() {
		metadata = append(metadata, map[string]any{
			"preferred_network": c.logins[0], "preferred_cache": c.logins[0], "aliases": c.logins})
	}
	return jsonAnswer(200, map[string]any{
		"tenant_discovery_endpoint": "https://" + endpoint.Host + "/" + tenantID + "/v2.0/.well-known/openid-configuration",
		"api-version":               "1.1", "metadata": metadata})
}

func (w *World) openID(host, tenantID string) answer {
	id := "{tenantid}"
	if !slices.Contains([]string{"common", "organizations"}, tenantID) {
		t := w.tenantOf(tenantID)
		if t == nil || !slices.Contains(t.cloud.logins, host) {
			return w.unknownTenant(tenantID)
		}
		id, tenantID = t.id, t.id
	}
	base := "https://" + host + "/" + tenantID
	return jsonAnswer(200, map[string]any{
		"issuer":                                "https://" + host + "/" + id + "/v2.0",
		"authorization_endpoint":                base + "/oauth2/v2.0/authorize",
		"token_endpoint":                        base + "/oauth2/v2.0/token",
		"jwks_uri":                              base + "/discovery/v2.0/keys",
		"token_endpoint_auth_methods_supported": []string{"private_key_jwt", "client_secret_post"},
		"response_types_supported":              []string{"code", "id_token"},
		"subject_types_supported":               []string{"pairwise"},
		"id_token_signing_alg_values_supported": []string{"RS256"}})
}

func (w *World) signingKeys() answer {
	key, err := w.signing()
	if err != nil {
		return jsonAnswer(500, map[string]any{"error": "server_error"})
	}
	id := keyID(&key.PublicKey)
	return jsonAnswer(200, map[string]any{"keys": []map[string]any{{
		"kty": "RSA", "use": "sig", "alg": "RS256", "kid": id, "x5t": id,
		"n": base64.RawURLEncoding.EncodeToString(key.N.Bytes()),
		"e": base64.RawURLEncoding.EncodeToString(big.NewInt(int64(key.E)).Bytes())}}})
}

func (w *World) unknownTenant(id string) answer {
	return entraError(400, "invalid_request", 90002, "Tenant '"+id+"' not found. Check to make sure you have the correct tenant ID.", w.Wall())
}

// entraError is Entra's error document.
func entraError(status int, code string, number int, text string, now time.Time) answer {
	trace, correlation := newGUID(), newGUID()
	stamp := now.UTC().Format("2006-01-02 15:04:05Z")
	return jsonAnswer(status, map[string]any{
		"error": code,
		"error_description": fmt.Sprintf("AADSTS%d: %s Trace ID: %s Correlation ID: %s Timestamp: %s",
			number, text, trace, correlation, stamp),
		"error_codes": []int{number}, "timestamp": stamp, "trace_id": trace, "correlation_id": correlation,
		"error_uri": fmt.Sprintf("https://login.microsoftonline.com/error?code=%d", number)})
}
