package sim

import (
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/x509"
	"encoding/json"
	"net/url"
	"slices"
	"strings"
	"time"
)

const assertionType = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"

// tokenClaims are the claims of an access token of the simulator.
type tokenClaims struct {
	Aud      string   `json:"aud"`
	Iss      string   `json:"iss"`
	Iat      int64    `json:"iat"`
	Nbf      int64    `json:"nbf"`
	Exp      int64    `json:"exp"`
	AppID    string   `json:"appid"`
	AppIDACR string   `json:"appidacr"` // "1" by secret, "2" by certificate, as Entra writes it
	Tid      string   `json:"tid"`
	Oid      string   `json:"oid,omitempty"` // of the app's service principal in the tenant
	Sub      string   `json:"sub,omitempty"`
	Roles    []string `json:"roles,omitempty"`
	Uti      string   `json:"uti"`
	Ver      string   `json:"ver"`
}

// token answers a client credentials request. It runs under the world's lock.
func (w *World) token(host, tenantID string, form url.Values) answer {
	fail := func(status int, code string, number int, text string) answer {
		return entraError(status, code, number, text, w.Wall())
	}
	t := w.tenantOf(tenantID)
	if t == nil || !slices.Contains(t.cloud.logins, host) { // another cloud's authority does not know the tenant
		return w.unknownTenant(tenantID)
	}
	if g := form.Get("grant_type"); g != "client_credentials" {
		return fail(400, "unsupported_grant_type", 70003, "The app requested an unsupported grant type '"+g+"'.")
	}
	a := w.apps[strings.ToLower(form.Get("client_id"))]
	if a == nil {
		return fail(400, "unauthorized_client", 700016, "Application with identifier '"+form.Get("client_id")+"' was not found in the directory.")
	}
	acr, bad := w.authenticate(a, t, host, form)
	if bad != nil {
		return *bad
	}
	grant, ok := a.grant(t)
	if !ok {
		return fail(401, "invalid_client", 7000229, "The client application is missing service principal in the tenant "+t.id+".")
	}
	aud, ok := audienceOf(form.Get("scope"))
	if !ok {
		return fail(400, "invalid_scope", 1002012, "The provided value for scope "+form.Get("scope")+" is not valid. Client credential flows must have a scope value with /.default suffixed to the resource identifier.")
	}
	service := w.resourceOf(aud, t)
	if service == "" {
		return fail(400, "invalid_resource", 500011, "The resource principal named "+aud+" was not found in the tenant.")
	}
	return w.issue(a, t, aud, acr, rolesFor(service, grant))
}

func (w *World) issue(a *app, t *tenant, aud, acr string, roles []string) answer {
	text, err := w.sign(w.claims(a, t, aud, acr, roles))
	if err != nil {
		return entraError(500, "server_error", 90033, "A transient error has occurred.", w.Wall())
	}
	secs := int(w.lifetime / time.Second)
	return jsonAnswer(200, map[string]any{"token_type": "Bearer", "expires_in": secs, "ext_expires_in": secs, "access_token": text})
}

// claims are what a token for the app says. A token for the exchange with
// Entra is of version 2, since its issuer is compared with a registration.
func (w *World) claims(a *app, t *tenant, aud, acr string, roles []string) tokenClaims {
	now := w.Wall()
	c := tokenClaims{Aud: aud, Iss: "https://sts.windows.net/" + t.id + "/",
		Iat: now.Unix(), Nbf: now.Unix(), Exp: now.Add(w.lifetime).Unix(),
		AppID: a.clientID, AppIDACR: acr, Tid: t.id, Oid: ObjectID(t.id, a.clientID), Roles: roles, Uti: w.tokenID(), Ver: "1.0"}
	if a.managed != nil {
		c.Sub, c.Oid = a.managed.ObjectID, a.managed.ObjectID
	}
	if aud == exchangeAudience {
		c.Iss, c.Ver = "https://"+t.cloud.logins[0]+"/"+t.id+"/v2.0", "2.0"
	}
	return c
}

func (w *World) sign(c tokenClaims) (string, error) {
	key, err := w.signing()
	if err != nil {
		return "", err
	}
	return signJWT(key, c)
}

// authenticate proves the app by assertion or secret.
func (w *World) authenticate(a *app, t *tenant, host string, form url.Values) (acr string, bad *answer) {
	fail := func(number int, text string) (string, *answer) {
		ans := entraError(401, "invalid_client", number, text, w.Wall())
		return "", &ans
	}
	if secret := form.Get("client_secret"); secret != "" {
		if !slices.Contains(a.secrets, secret) {
			return fail(7000215, "Invalid client secret provided.")
		}
		return "1", nil
	}
	if form.Get("client_assertion") == "" || form.Get("client_assertion_type") != assertionType {
		return fail(7000216, "'client_assertion', 'client_secret' or 'request' is required for the 'client_credentials' grant type.")
	}
	number, text := 0, ""
	if a.isFederated(form.Get("client_assertion")) {
		number, text = w.checkFederated(a, form.Get("client_assertion"))
	} else {
		number, text = a.checkAssertion(form.Get("client_assertion"), t, host, w.Wall())
	}
	if number != 0 {
		return fail(number, text)
	}
	return "2", nil
}

// isFederated tells another issuer's token from the app's own assertion, by
// its issuer, as Entra does.
func (a *app) isFederated(assertion string) bool {
	var claims assertionClaims
	_, _, _, err := parseJWT(assertion, &claims)
	return err == nil && len(a.federated) > 0 && !strings.EqualFold(claims.Iss, a.clientID)
}

// assertionClaims are the claims of a client assertion.
type assertionClaims struct {
	Aud audiences   `json:"aud"`
	Iss string      `json:"iss"`
	Sub string      `json:"sub"`
	Jti string      `json:"jti"`
	Exp json.Number `json:"exp"`
	Nbf json.Number `json:"nbf"`
}

// audiences is one string or a list of them (RFC 7519, 4.1.3).
type audiences []string

func (a *audiences) UnmarshalJSON(b []byte) error {
	var one string
	if json.Unmarshal(b, &one) == nil {
		*a = audiences{one}
		return nil
	}
	return json.Unmarshal(b, (*[]string)(a))
}

// checkAssertion returns the AADSTS number and text of what is wrong, or 0.
func (a *app) checkAssertion(text string, t *tenant, host string, now time.Time) (int, string) {
	var claims assertionClaims
	head, signed, sig, err := parseJWT(text, &claims)
	if err != nil {
		return 50027, "JWT token is invalid or malformed: " + err.Error() + "."
	}
	cert := a.certificate(head)
	if cert == nil {
		return 700027, "The certificate with identifier used to sign the client assertion is not registered on application."
	}
	if verifyJWT(head.Alg, cert.PublicKey.(*rsa.PublicKey), signed, sig) != nil { // RSA by parseCertificate
		return 700027, "Client assertion failed signature validation."
	}
	if now.After(cert.NotAfter) {
		return 700027, "The certificate with identifier used to sign the client assertion is expired on application. [Reason - The key used is expired.]"
	}
	_, expErr := claims.Exp.Float64()
	switch {
	case !strings.EqualFold(claims.Iss, a.clientID) || !strings.EqualFold(claims.Sub, a.clientID):
		return 700021, "Client assertion application identifier doesn't match 'client_id' parameter."
	case !slices.ContainsFunc(claims.Aud, func(aud string) bool { return tokenAudience(aud, t, host) }):
		return 700023, "Client assertion audience claim does not match Realm issuer."
	case claims.Jti == "" || expErr != nil:
		return 50027, "JWT token is invalid or malformed: jti and exp are required."
	case !claims.within(now):
		return 700024, "Client assertion is not within its valid time range."
	}
	return 0, ""
}

// certificate finds the registered certificate that the header names.
func (a *app) certificate(h jwtHeader) *x509.Certificate {
	for _, c := range a.certs {
		s1, s256 := sha1.Sum(c.Raw), sha256.Sum256(c.Raw)
		if sameThumbprint(h.X5tS256, s256[:]) || sameThumbprint(h.X5t, s1[:]) {
			return c
		}
	}
	return nil
}

// tokenAudience accepts the token endpoint under any name of this authority,
// with the tenant's GUID or domain, and the tenant's v2.0 issuer.
func tokenAudience(aud string, t *tenant, host string) bool {
	u, err := url.Parse(aud)
	if err != nil || u.Scheme != "https" {
		return false
	}
	if u.Host != host && !slices.Contains(t.cloud.logins, u.Host) {
		return false
	}
	id, rest, _ := strings.Cut(strings.Trim(u.Path, "/"), "/")
	own := strings.EqualFold(id, t.id) || strings.EqualFold(id, t.domain)
	return own && (rest == "oauth2/v2.0/token" || rest == "v2.0")
}

// audienceOf takes the resource out of "{resource}/.default", which may stand
// among OpenID scopes.
func audienceOf(scope string) (string, bool) {
	for _, s := range strings.Fields(scope) {
		if aud, ok := strings.CutSuffix(s, "/.default"); ok {
			return strings.TrimSuffix(aud, "/"), true
		}
	}
	return "", false
}

// resourceOf tells which service of the tenant's cloud an audience names.
func (w *World) resourceOf(aud string, t *tenant) string {
	host, ok := strings.CutPrefix(aud, "https://")
	switch {
	case !ok:
		return ""
	case host == t.cloud.vault, host == t.cloud.hsm:
		return ServiceKeyVault
	case host == t.cloud.exchange:
		return ServiceExchange
	case aud == logHosts()[t.cloud.name][1]:
		return ServiceLogs
	case slices.Contains(armAudiences(t.cloud), aud):
		return ServiceResourceManager
	}
	if g := w.geos[host]; g != nil && g.tenant == t {
		return ServiceSharePoint
	}
	return ""
}

func rolesFor(service string, g Grant) []string {
	switch {
	case service == ServiceExchange && g.Exchange != "none" && g.Exchange != "":
		return []string{"Exchange.ManageAsApp"}
	case service == ServiceSharePoint && g.SharePoint:
		return []string{"Sites.FullControl.All"}
	}
	return nil
}
