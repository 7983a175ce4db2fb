package sim

import (
	"strconv"
	"time"
)

// The limit on creating keys: 20 software keys or 10 HSM keys in 10 seconds
// per vault, weighed together. It counts in real time, as the clients who run
// into it do.
const (
	createWindow = 10 * time.Second
	createBudget = 20
	softwareCost = 1
	hsmCost      = 2
)

// createLimit is a vault's memory of the keys made lately.
type createLimit struct {
	off        bool
	retryAfter int // seconds that a 429 names; 0: it names none
	lately     []madeKey
}

type madeKey struct {
	at   time.Time
	cost int
}

// take spends what a key costs; false when the vault has had enough.
func (l *createLimit) take(kty string, now time.Time) bool {
	cost, spent := softwareCost, 0
	if kty != "RSA" {
		cost = hsmCost
	}
	kept := l.lately[:0]
	for _, m := range l.lately {
		if now.Sub(m.at) < createWindow {
			kept, spent = append(kept, m), spent+m.cost
		}
	}
	l.lately = kept
	if l.off {
		return true
	}
	if spent+cost > createBudget {
		return false
	}
	l.lately = append(l.lately, madeKey{now, cost})
	return true
}

// refusal is the 429. Microsoft's pages on the limits say nothing of a
// Retry-After; the seed decides.
func (l *createLimit) refusal(v *vault) answer {
	ans := vaultError(429, "Throttled", "", "Request was not processed because too many requests were received. Reason: VaultRequestTypeLimitReached. Vault: "+v.name+".")
	if l.retryAfter > 0 {
		ans.header.Set("Retry-After", strconv.Itoa(l.retryAfter))
	}
	return ans
}
