package sim

import (
	"crypto/rand"
	"crypto/rsa"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"time"
)

// World is the state behind all the simulated services. Its methods are the
// control API; they may be called from any goroutine.
//
// Now, Wall and Logger may be replaced before the first request, not after.
type World struct {
	// Now is the clock of vaults, policies and rolls; Advance moves it on.
	Now func() time.Time
	// Wall is the clock of assertions and tokens. Advance leaves it alone,
	// because the clients who keep the tokens do not live in the simulator.
	Wall func() time.Time
	// Logger gets one line per request; it discards by default.
	Logger *slog.Logger

	mu    sync.Mutex
	begun bool // something has looked at the world
	// beginning is when that was, in the world's time; base, in that of Now.
	beginning, base time.Time
	speed           float64     // 0 is 1
	schedule        []scheduled // by time
	acting          bool        // one of them is being done
	shift           time.Duration
	lifetime        time.Duration
	clouds          []cloud // never changes
	tenants         []*tenant
	vaults          map[string]*vault // by lower-case name
	hosts           map[string]*vault // by host
	rotating        []*key            // those whose rotation policy makes versions
	geos            map[string]*geo   // by admin host
	apps            map[string]*app   // by lower-case client id
	signing         func() (*rsa.PrivateKey, error)
	trap            bool
	issued          uint64 // tokens so far
	revoked         []revocation

	randomSeed uint64 // of faults with a probability

	faults   []*fault
	faultSeq int
	fired    chan struct{} // closed and replaced whenever a fault fires

	effects    []*Effect
	violations []Violation
	requests   map[string]map[string]int

	closed    chan struct{}
	closeOnce sync.Once
}

// tenant is an organisation with what it has at Microsoft.
type tenant struct {
	id, name, domain string
	cloud            cloud
	vaults           []*vault
	policies         []*policy
	mailboxes        []*mailbox
	geos             []*geo
	refresh          time.Duration
	warnings         []string
	exo              ExchangeOddities
	rollsPer         string // "geo" or "tenant"
	secretStatus     int
	exoCalls         int      // for the budget in Rate-Limit headers
	subscriptions    []string // ids
	azure            SubscriptionAzure
	accounts         []*account
	logs             *Logs // nil: the vaults send their log nowhere
	written          []LogLine
}

// Handler serves the Microsoft side, routed by Host.
func (w *World) Handler() http.Handler {
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		host := hostOnly(r.Host)
		service := w.serviceOf(host)
		w.Logger.DebugContext(r.Context(), "simulated request", "host", host, "method", r.Method, "path", r.URL.Path)
		r.Body = http.MaxBytesReader(rw, r.Body, 1<<20)
		switch service {
		case ServiceEntra:
			w.serveEntra(rw, r)
		case ServiceKeyVault:
			w.serveKeyVault(rw, r, host)
		case ServiceExchange:
			w.serveExchange(rw, r, host)
		case ServiceSharePoint:
			w.serveSharePoint(rw, r, host)
		case ServiceResourceManager:
			w.serveARM(rw, r, host)
		case ServiceLogs:
			w.serveLogs(rw, r, host)
		default:
			if w.isAstray(host) {
				w.astray(rw, r, host)
				return
			}
			http.Error(rw, "no simulated service at host "+host, http.StatusMisdirectedRequest)
		}
	})
}

// Close lets go of every held request, without an answer. The world can be
// read afterwards.
func (w *World) Close() { w.closeOnce.Do(func() { close(w.closed) }) }

// lock takes the world and brings it up to date: whatever would have ended by
// now has ended, and the acts of a scenario that are due are done.
func (w *World) lock() time.Time {
	w.mu.Lock()
	now := w.time()
	w.begin(now)
	for next := w.dueAct(now); next != nil; next = w.dueAct(now) {
		w.mu.Unlock()
		err := next.do(w) // which takes the lock by itself
		w.mu.Lock()
		w.acting = false
		if now = w.time(); err != nil {
			w.Logger.Warn("an act of the scenario failed", "act", next.why, "err", err)
		}
	}
	w.rotate(now)
	for _, t := range w.tenants {
		for _, a := range t.accounts {
			a.settle(w, now)
		}
		for _, m := range t.mailboxes {
			m.settle(now)
		}
		for _, g := range t.geos {
			g.settle(now)
		}
	}
	return now
}

// time is the world's time: that of Now, at the world's speed since its
// beginning, and what Advance added. The lock is held.
func (w *World) time() time.Time {
	now := w.Now()
	if w.begun && w.speed > 0 {
		now = w.base.Add(time.Duration(float64(now.Sub(w.base)) * w.speed))
	}
	return now.Add(w.shift)
}

// begin dates what the seed left for the world's first moment, which is not
// that of New: the clock may be replaced until then. The lock is held.
func (w *World) begin(now time.Time) {
	if w.begun {
		return
	}
	w.begun, w.beginning, w.base = true, now, now.Add(-w.shift)
	for _, v := range w.vaults {
		for _, k := range v.keys {
			if k.softDeleted {
				k.deletedAt = now
			}
			if k.rotation != nil {
				k.rotation.since = now
			}
		}
	}
}

// Advance moves the world's clock on: rolls progress and mailboxes change.
// Tokens do not age.
func (w *World) Advance(d time.Duration) {
	w.mu.Lock()
	w.shift += d
	w.mu.Unlock()
	w.lock()
	w.mu.Unlock()
}

// tenantOf finds a tenant by GUID or domain; nil when there is none.
func (w *World) tenantOf(id string) *tenant {
	for _, t := range w.tenants {
		if strings.EqualFold(t.id, id) || strings.EqualFold(t.domain, id) {
			return t
		}
	}
	return nil
}

// vaultOf finds a vault by name, host or URL; nil when there is none.
func (w *World) vaultOf(s string) *vault {
	s = strings.TrimSuffix(strings.TrimPrefix(strings.ToLower(s), "https://"), "/")
	if v, ok := w.hosts[s]; ok {
		return v
	}
	return w.vaults[s]
}

// lazySigningKey makes the token key at its first use: most worlds of most
// tests never sign a token, and RSA keys are slow to make.
func lazySigningKey() func() (*rsa.PrivateKey, error) {
	return sync.OnceValues(func() (*rsa.PrivateKey, error) { return rsa.GenerateKey(rand.Reader, 2048) })
}
