package sim

import (
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
)

var (
	errTokenExpired = errors.New("token has expired")
	errTokenRevoked = errors.New("token has been revoked")
)

// revocation refuses the tokens issued until then.
type revocation struct {
	tenant   *tenant // nil: of every tenant
	clientID string  // "": of every app
	upTo     uint64
}

// RevokeTokens refuses, from now on, every token issued until now: those of a
// tenant ("" for all) and an app ("" for all). Services answer them with 401;
// Key Vault asks for a new one with a claims challenge, as where continuous
// access evaluation is on.
func (w *World) RevokeTokens(tenant, clientID string) error {
	w.lock()
	defer w.mu.Unlock()
	t := w.tenantOf(tenant)
	if tenant != "" && t == nil {
		return fmt.Errorf("tenant %q: %w", tenant, ErrUnknown)
	}
	if clientID != "" && w.apps[strings.ToLower(clientID)] == nil {
		return fmt.Errorf("app %q: %w", clientID, ErrUnknown)
	}
	w.revoke(t, strings.ToLower(clientID))
	return nil
}

// revoke does it; the lock is held.
func (w *World) revoke(t *tenant, clientID string) {
	w.revoked = append(w.revoked, revocation{t, clientID, w.issued})
}

// tokenID is a token's uti. It begins with the token's number.
func (w *World) tokenID() string {
	w.issued++
	return fmt.Sprintf("%012x", w.issued) + newVersionID()[12:]
}

// isRevoked looks a token up; the lock is held.
func (w *World) isRevoked(c tokenClaims, t *tenant) bool {
	n, err := strconv.ParseUint(c.Uti[:min(12, len(c.Uti))], 16, 64)
	return err == nil && slices.ContainsFunc(w.revoked, func(r revocation) bool {
		return n <= r.upTo && (r.tenant == nil || r.tenant == t) && (r.clientID == "" || r.clientID == c.AppID)
	})
}

// claimsChallenge is what Key Vault adds to its challenge for a revoked token.
func claimsChallenge(w *World) string {
	claims := fmt.Sprintf(`{"access_token":{"nbf":{"essential":true,"value":"%d"}}}`, w.Wall().Unix())
	return `, error="insufficient_claims", claims="` + base64.StdEncoding.EncodeToString([]byte(claims)) + `"`
}

// tokenRefusal is the 401 of a call's service for a token that was good when
// the call began.
func (w *World) tokenRefusal(c *call, why error) answer {
	if c.refuse != nil {
		return c.refuse(why)
	}
	ans := answer{status: http.StatusUnauthorized, header: http.Header{}}
	switch c.service {
	case ServiceExchange:
		ans.header.Set("WWW-Authenticate", `Bearer client_id="00000002-0000-0ff1-ce00-000000000000", error="invalid_token"`)
	case ServiceSharePoint:
		ans = sharePointRefusal(c.tenant, why.Error())
	default:
		ans = armError(http.StatusUnauthorized, "ExpiredAuthenticationToken", "Authentication failed: "+why.Error()+".")
		ans.header.Set("WWW-Authenticate", `Bearer authorization_uri="https://`+c.tenant.cloud.logins[0]+`/common", error="invalid_token"`)
	}
	return ans
}
