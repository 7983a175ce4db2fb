package access

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"strings"
)

// ErrUnknownToken says that a token is unknown, revoked or expired. Which of
// them is not told: the difference would help only somebody who is guessing.
var ErrUnknownToken = errors.New("unknown token")

const (
	tokenMark   = "krp_"
	tokenBytes  = 32
	prefixChars = len(tokenMark) + 8
)

// Token is a freshly minted API token. Only Prefix and Hash are stored.
type Token struct {
	// Secret is shown once, to its owner, and is never logged or stored.
	Secret string
	// Prefix is the beginning of the secret, by which people recognise the token.
	Prefix string
	// Hash is the SHA-256 of the secret. A plain hash is enough: the secret is
	// 256 random bits, which no dictionary holds.
	Hash []byte
}

// NewToken mints a token of 32 random bytes.
func NewToken() Token {
	raw := make([]byte, tokenBytes)
	rand.Read(raw) //nolint:errcheck // it never fails: the program ends instead
	secret := tokenMark + base64.RawURLEncoding.EncodeToString(raw)
	t, _ := ParseToken(secret)
	return t
}

// ParseToken reads a presented secret; ok is false for anything that cannot be
// a token of ours, which spares the look-up.
func ParseToken(secret string) (t Token, ok bool) {
	body, marked := strings.CutPrefix(secret, tokenMark)
	raw, err := base64.RawURLEncoding.Strict().DecodeString(body)
	// The decoder skips line breaks, so the length is checked as well.
	if !marked || err != nil || len(raw) != tokenBytes || len(body) != base64.RawURLEncoding.EncodedLen(tokenBytes) {
		return Token{}, false
	}
	sum := sha256.Sum256([]byte(secret))
	return Token{Secret: secret, Prefix: secret[:prefixChars], Hash: sum[:]}, true
}

// String keeps the secret out of logs and error texts.
func (t Token) String() string { return t.Prefix + "…" }

// GoString does so for %#v.
func (t Token) GoString() string { return t.String() }
