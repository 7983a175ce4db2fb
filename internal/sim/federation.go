package sim

import (
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

const (
	// TestIssuer is the issuer whose tokens the simulator signs itself: its
	// federated credentials need no key.
	TestIssuer = "https://issuer.simulator.example"
	// exchangeAudience is what Entra wants in a federated token unless the
	// registration says otherwise.
	exchangeAudience = "api://AzureADTokenExchange"
)

// Federated is a federated identity credential of an app: a token of another
// issuer that stands for the app's own assertion (workload identity). Nothing
// fetches the issuer's keys; the seed names one.
type Federated struct {
	// Issuer is compared exactly. Tokens of https://issuer.simulator.example are made by
	// the simulator; https://{login host}/{tenant}/v2.0 is Entra itself, whose
	// tokens a managed identity gets for the audience below.
	Issuer string `json:"issuer"`
	// Subject is compared exactly, such as system:serviceaccount:keyroll:keyroll.
	Subject string `json:"subject"`
	// Audience is one of the token's audiences; api://AzureADTokenExchange when left out.
	Audience string `json:"audience,omitempty"`
	// Key is the issuer's RSA public key in PEM form, or a certificate with it;
	// it is left out for the two issuers above.
	Key string `json:"key,omitempty"`
}

// federated is a Federated in a world; key is nil where the world signs.
type federated struct {
	issuer, subject, audience string
	key                       *rsa.PublicKey
}

func (w *World) newFederated(s Federated) (federated, error) {
	f := federated{issuer: s.Issuer, subject: s.Subject, audience: or(s.Audience, exchangeAudience)}
	if s.Issuer == "" || s.Subject == "" {
		return f, errors.New("a federated credential has an issuer and a subject")
	}
	if s.Key == "" {
		if s.Issuer != TestIssuer && !w.entraIssuer(s.Issuer) {
			return f, fmt.Errorf("the federated credential of issuer %q needs a key: the simulator signs for %s only", s.Issuer, TestIssuer)
		}
		return f, nil
	}
	key, err := parsePublicKey([]byte(s.Key))
	f.key = key
	return f, err
}

// entraIssuer recognises the issuer of Entra's own tokens.
func (w *World) entraIssuer(issuer string) bool {
	host, path, _ := strings.Cut(strings.TrimPrefix(issuer, "https://"), "/")
	id, rest, _ := strings.Cut(path, "/")
	return w.serviceOf(host) == ServiceEntra && isGUID(id) && rest == "v2.0"
}

// parsePublicKey reads an RSA key out of a PEM public key or certificate.
func parsePublicKey(text []byte) (*rsa.PublicKey, error) {
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, errors.New("no PEM public key found")
	}
	if block.Type == "CERTIFICATE" {
		cert, err := parseCertificate(text)
		if err != nil {
			return nil, err
		}
		return cert.PublicKey.(*rsa.PublicKey), nil // RSA by parseCertificate
	}
	key, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("parsing public key: %w", err)
	}
	pub, ok := key.(*rsa.PublicKey)
	if !ok {
		return nil, fmt.Errorf("the public key is a %T, not RSA", key)
	}
	return pub, nil
}

// checkFederated returns the AADSTS number and text of what is wrong with
// another issuer's token, or 0. The numbers are Entra's; the order in which it
// checks is assumed.
func (w *World) checkFederated(a *app, text string) (int, string) {
	var claims assertionClaims
	head, signed, sig, err := parseJWT(text, &claims)
	if err != nil {
		return 50027, "JWT token is invalid or malformed: " + err.Error() + "."
	}
	issued := slices.DeleteFunc(slices.Clone(a.federated), func(f federated) bool { return f.issuer != claims.Iss })
	if len(issued) == 0 {
		return 700211, "No matching federated identity record found for presented assertion issuer '" + claims.Iss + "'."
	}
	named := slices.DeleteFunc(issued, func(f federated) bool { return f.subject != claims.Sub })
	if len(named) == 0 {
		return 700213, "No matching federated identity record found for presented assertion subject '" + claims.Sub + "'."
	}
	f := named[0]
	if !slices.Contains(claims.Aud, f.audience) {
		return 700212, "No matching federated identity record found for presented assertion audience '" + strings.Join(claims.Aud, " ") + "'."
	}
	key := f.key
	if key == nil {
		own, err := w.signing()
		if err != nil {
			return 90033, "A transient error has occurred."
		}
		key = &own.PublicKey
	}
	if verifyJWT(head.Alg, key, signed, sig) != nil {
		return 50013, "Assertion failed signature validation. [Reason - The provided signature value did not match the expected signature value.]"
	}
	if !claims.within(w.Wall()) {
		return 700024, "Client assertion is not within its valid time range."
	}
	return 0, ""
}

// within reports whether the assertion is valid now, give or take five
// minutes. An assertion without exp never is.
func (c assertionClaims) within(now time.Time) bool {
	exp, expErr := c.Exp.Float64()
	nbf, nbfErr := c.Nbf.Float64()
	const skew = 300
	unix := float64(now.Unix())
	return expErr == nil && exp+skew >= unix && (c.Nbf == "" || nbfErr == nil && nbf-skew <= unix)
}

// FederatedToken makes a token of the TestIssuer with which the app can prove
// itself: what Kubernetes would write into AZURE_FEDERATED_TOKEN_FILE. subject
// "" takes that of the app's first credential of this issuer. It is valid for
// an hour of real time.
func (w *World) FederatedToken(clientID, subject string) (string, error) {
	w.mu.Lock()
	a := w.apps[strings.ToLower(clientID)]
	w.mu.Unlock()
	if a == nil {
		return "", fmt.Errorf("app %q: %w", clientID, ErrUnknown)
	}
	for _, f := range a.federated {
		if f.issuer != TestIssuer || f.key != nil || subject != "" && f.subject != subject {
			continue
		}
		key, err := w.signing()
		if err != nil {
			return "", fmt.Errorf("making the issuer's key: %w", err)
		}
		now := w.Wall().Unix()
		return signJWT(key, map[string]any{"iss": f.issuer, "sub": f.subject, "aud": []string{f.audience}, "jti": newVersionID(),
			"iat": now, "nbf": now, "exp": now + 3600})
	}
	return "", fmt.Errorf("app %s has no federated credential of issuer %s with subject %q: %w", clientID, TestIssuer, subject, ErrUnknown)
}
