package sim

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
)

// jwtHeader is the part of a JOSE header that the simulator looks at.
type jwtHeader struct {
	Alg     string `json:"alg"`
	Typ     string `json:"typ,omitempty"`
	Kid     string `json:"kid,omitempty"`
	X5t     string `json:"x5t,omitempty"`
	X5tS256 string `json:"x5t#S256,omitempty"`
}

// parseJWT splits a compact JWT into header, signed part and signature, and
// decodes its claims. Nothing is verified yet.
func parseJWT(text string, claims any) (h jwtHeader, signed string, sig []byte, err error) {
	parts := strings.Split(text, ".")
	if len(parts) != 3 {
		return h, "", nil, errors.New("not three parts")
	}
	var raw [3][]byte
	for i, p := range parts {
		if raw[i], err = base64.RawURLEncoding.DecodeString(p); err != nil {
			return h, "", nil, fmt.Errorf("decoding part %d: %w", i, err)
		}
	}
	if err := json.Unmarshal(raw[0], &h); err != nil {
		return h, "", nil, fmt.Errorf("decoding header: %w", err)
	}
	if err := json.Unmarshal(raw[1], claims); err != nil {
		return h, "", nil, fmt.Errorf("decoding claims: %w", err)
	}
	return h, parts[0] + "." + parts[1], raw[2], nil
}

// verifyJWT checks an RS256 or PS256 signature; no other algorithm is known.
func verifyJWT(alg string, pub *rsa.PublicKey, signed string, sig []byte) error {
	sum := sha256.Sum256([]byte(signed))
	switch alg {
	case "RS256":
		return rsa.VerifyPKCS1v15(pub, crypto.SHA256, sum[:], sig)
	case "PS256":
		return rsa.VerifyPSS(pub, crypto.SHA256, sum[:], sig, &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthAuto})
	default:
		return fmt.Errorf("algorithm %q is not accepted", alg)
	}
}

// signJWT signs claims with RS256.
func signJWT(key *rsa.PrivateKey, claims any) (string, error) {
	head, err := json.Marshal(jwtHeader{Alg: "RS256", Typ: "JWT", Kid: keyID(&key.PublicKey), X5t: keyID(&key.PublicKey)})
	if err != nil {
		return "", fmt.Errorf("encoding header: %w", err)
	}
	body, err := json.Marshal(claims)
	if err != nil {
		return "", fmt.Errorf("encoding claims: %w", err)
	}
	signed := base64.RawURLEncoding.EncodeToString(head) + "." + base64.RawURLEncoding.EncodeToString(body)
	sum := sha256.Sum256([]byte(signed))
	sig, err := rsa.SignPKCS1v15(rand.Reader, key, crypto.SHA256, sum[:])
	if err != nil {
		return "", fmt.Errorf("signing token: %w", err)
	}
	return signed + "." + base64.RawURLEncoding.EncodeToString(sig), nil
}

// keyID names a signing key.
func keyID(pub *rsa.PublicKey) string {
	sum := sha256.Sum256(pub.N.Bytes())
	return base64.RawURLEncoding.EncodeToString(sum[:20])
}

// sameThumbprint compares a thumbprint with its text in either base64 alphabet,
// padded or not: MSAL for Go writes the standard one, RFC 7515 wants the other.
func sameThumbprint(text string, sum []byte) bool {
	if text == "" {
		return false
	}
	text = strings.NewReplacer("+", "-", "/", "_").Replace(strings.TrimRight(text, "="))
	return text == base64.RawURLEncoding.EncodeToString(sum)
}
