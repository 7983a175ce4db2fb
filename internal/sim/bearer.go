package sim

import (
	"errors"
	"net/http"
	"strings"
)

// identity is who calls, as proven by an access token.
type identity struct {
	claims tokenClaims
	app    *app
}

// bearer checks the request's access token: our signature, the audience of
// this service, the tenant that owns the resource, and the time.
func (w *World) bearer(r *http.Request, aud string, t *tenant) (identity, error) {
	text, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if !ok {
		return identity{}, errNoToken
	}
	var id identity
	head, signed, sig, err := parseJWT(text, &id.claims)
	if err != nil {
		return identity{}, errors.New("token is malformed")
	}
	key, err := w.signing()
	if err != nil {
		return identity{}, err
	}
	if head.Alg != "RS256" || verifyJWT(head.Alg, &key.PublicKey, signed, sig) != nil {
		return identity{}, errors.New("token signature is not valid")
	}
	now := w.Wall().Unix()
	switch {
	case id.claims.Aud != aud:
		return identity{}, errors.New("token audience is " + id.claims.Aud + ", not " + aud)
	case id.claims.Tid != t.id:
		return identity{}, errors.New("token is from tenant " + id.claims.Tid + ", not " + t.id)
	case now >= id.claims.Exp:
		return identity{}, errTokenExpired
	case now+300 < id.claims.Nbf:
		return identity{}, errors.New("token is not yet valid")
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	id.app = w.apps[id.claims.AppID]
	if id.app == nil {
		return identity{}, errors.New("token is from an unknown app")
	}
	if w.isRevoked(id.claims, t) {
		return identity{}, errTokenRevoked
	}
	return id, nil
}

var (
	errNoToken      = errors.New("no bearer token")
	errForeignToken = errors.New("token is from another cloud or from no tenant of the simulator")
)

// grant is what the app may do in the tenant; false when the tenant has no
// service principal of the app.
func (a *app) grant(t *tenant) (Grant, bool) {
	if g, ok := a.grants[t.id]; ok {
		return g, true
	}
	g, ok := a.grants["*"]
	return g, ok
}

// mayUse reports the right to work with a vault's keys.
func (a *app) mayUse(v *vault) bool {
	g, _ := a.grant(v.tenant)
	if allowed, ok := g.KeyVault[v.name]; ok {
		return allowed
	}
	return g.KeyVault["*"]
}
