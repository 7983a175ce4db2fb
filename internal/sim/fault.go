package sim

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Fault modes; Modes says what each does.
const (
	ModeRefuse         = "refuse"
	ModeThrottle       = "throttle"
	ModeHTMLPage       = "html_page"
	ModeErrorIn200     = "error_in_200"
	ModeLoseBefore     = "lose_before"
	ModeReset          = "reset"
	ModeExpireToken    = "expire_token"
	ModeRevokeTokens   = "revoke_tokens"
	ModeApplyAndLose   = "apply_and_lose"
	ModeApplyAndReset  = "apply_and_reset"
	ModeErrorAfter     = "error_after"
	ModeHold           = "hold"
	ModeHoldAfter      = "hold_after"
	ModeDelay          = "delay"
	ModeStrangerBefore = "stranger_before"
	ModeStrangerAfter  = "stranger_after"
	ModeListingLag     = "listing_lag"
	ModeRollingForever = "rolling_forever"
	ModeStatus         = "status"
	ModeStatusRegress  = "status_regress"
	ModeWarning        = "warning"
	ModeJobSlow        = "job_slow"
	ModeJobFails       = "job_fails"
	ModeJobFailsAfter  = "job_fails_after"
	ModeJobOutput      = "job_output"
)

// OpEffect, as a fault's operation, means each operation that has an effect.
const OpEffect = "effect"

// Fault is something that goes wrong. Empty members match anything. Several
// faults may meet in one request, in the order in which they were added.
// ID, Fired and Held are reports and ignored in AddFault.
type Fault struct {
	ID string `json:"id,omitempty" file:"-"`
	// Service is entra, keyvault, exchange, sharepoint or resource_manager.
	Service string `json:"service,omitempty"`
	// Operation is one of the service, or "effect" for each that changes something.
	Operation string `json:"operation,omitempty"`
	// Tenant is the GUID or domain of the tenant that the request is about.
	Tenant string `json:"tenant,omitempty"`
	// Vault is the name of the vault of a key that the request works with.
	Vault string `json:"vault,omitempty"`
	// Key is the name of such a key.
	Key string `json:"key,omitempty"`
	// Target is a vault/key, a policy's name or GUID, a geo, or geo/slot.
	Target string `json:"target,omitempty"`
	// Mode is what happens; the table of modes has them.
	Mode string `json:"mode"`
	// Count is how often the fault fires; 0: until it is removed.
	Count int `json:"count,omitempty"`
	// After is how many matching requests it lets through first.
	After int `json:"after,omitempty"`
	// At is when the fault begins, in seconds of the world's time after it was added.
	At float64 `json:"at,omitempty"`
	// Lasts is for how long from then, in seconds of the world's time; 0: until it is removed.
	Lasts float64 `json:"lasts,omitempty"`
	// Probability is between 0 and 1: the fault fires at some of the matching
	// requests. Which, the world's random seed and the order of requests decide; 0 is every one.
	Probability float64 `json:"probability,omitempty"`
	// Params are the details of the mode.
	Params FaultParams `json:"params,omitzero"`
	Fired  int         `json:"fired" file:"-"`
	Held   int         `json:"held" file:"-"`
}

// FaultParams are the details of a mode; each mode names its own, and others
// are refused.
type FaultParams struct {
	// Status is an HTTP status; for mode status, SharePoint's status number.
	Status int `json:"status,omitempty"`
	// Code is the service's error code: Key Vault "Code/InnerCode", Exchange the
	// exception type, Entra "AADSTS53003".
	Code string `json:"code,omitempty"`
	// Message is the error's text.
	Message string `json:"message,omitempty"`
	// Body is plain text in place of the service's error document.
	Body string `json:"body,omitempty"`
	// RetryAfter is the header Retry-After in seconds.
	RetryAfter int `json:"retry_after,omitempty"`
	// Seconds is a time: real for delay, the world's for listing_lag.
	Seconds float64 `json:"seconds,omitempty"`
	// Requests is a number of lists.
	Requests int `json:"requests,omitempty"`
	// Percent is where a roll stops.
	Percent float64 `json:"percent,omitempty"`
	// Back is a number of changes of what SharePoint shows.
	Back int `json:"back,omitempty"`
	// Warning is a text for Exchange's warnings.
	Warning string `json:"warning,omitempty"`
}

// fault is a Fault that lives in a world.
type fault struct {
	Fault
	mode       Mode
	seen, used int
	begins     time.Time
	dice       *rand.Rand
	hidden     map[*version]int // by listing_lag: in how many lists each was
	release    chan struct{}    // closed and replaced at each release
}

// ErrNoFault means that no fault has the id.
var ErrNoFault = errors.New("no such fault")

// AddFault arms a fault and returns its id. A fault that could never fire,
// because it names something unknown, is an error.
func (w *World) AddFault(f Fault) (id string, err error) {
	now := w.lock()
	defer w.mu.Unlock()
	if err := w.checkFault(f); err != nil {
		return "", fmt.Errorf("adding fault: %w", err)
	}
	w.faultSeq++
	f.ID, f.Fired, f.Held = "f"+strconv.Itoa(w.faultSeq), 0, 0
	mode, _ := modeNamed(f.Mode) // by checkFault
	w.faults = append(w.faults, &fault{Fault: f, mode: mode, begins: now.Add(seconds(f.At)), hidden: map[*version]int{},
		dice: rand.New(rand.NewPCG(w.randomSeed, uint64(w.faultSeq))), release: make(chan struct{})})
	return f.ID, nil
}

// operations lists what a fault may name, by service.
func operations() map[string][]string {
	return map[string][]string{
		ServiceEntra:      {OpToken, OpManagedIdentity, OpDiscovery, OpOpenID, OpSigningKeys},
		ServiceKeyVault:   {OpCreateKey, OpGetKey, OpListVersions, OpListKeys, OpGetRotationPolicy, OpListDeletedKeys, OpGetDeletedKey},
		ServiceExchange:   {OpGetDEP, OpSetDEP, OpGetM365DEP, OpSetM365DEP, OpGetM365Assignment, OpSetM365Assignment, OpTestM365DEP, OpGetMailboxStatistics},
		ServiceSharePoint: {OpGetStatus, OpRollKey, OpContextInfo},

		ServiceResourceManager: armOperations(),
		ServiceLogs:            {OpQuery},
	}
}

// maxSeconds is the longest time that a fault or an act may name: 31 years.
const maxSeconds = 1_000_000_000

func (w *World) checkFault(f Fault) error {
	known := []string{"", OpEffect}
	for service, ops := range operations() {
		if f.Service == "" || f.Service == service {
			known = append(known, ops...)
		}
	}
	slices.Sort(known)
	mode, ok := modeNamed(f.Mode)
	switch {
	case !ok:
		return misfit("mode", fmt.Errorf("unknown mode %q: there are %s", f.Mode, strings.Join(modeNames(), ", ")))
	case f.Service != "" && operations()[f.Service] == nil:
		return misfit("service", fmt.Errorf("unknown service %q: there are %s", f.Service, strings.Join(slices.Sorted(maps.Keys(operations())), ", ")))
	case !slices.Contains(known, f.Operation):
		return misfit("operation", fmt.Errorf("unknown operation %q of service %q: there are %s", f.Operation, f.Service, strings.Join(known[1:], ", ")))
	case f.Tenant != "" && w.tenantOf(f.Tenant) == nil:
		return misfit("tenant", fmt.Errorf("unknown tenant %q", f.Tenant))
	case f.Vault != "" && w.vaultOf(f.Vault) == nil:
		return misfit("vault", fmt.Errorf("unknown vault %q: there are %s", f.Vault, strings.Join(slices.Sorted(maps.Keys(w.vaults)), ", ")))
	case f.Key != "" && !w.anyKey(f.Vault, f.Key):
		return misfit("key", fmt.Errorf("unknown key %q", f.Key))
	case f.Count < 0:
		return misfit("count", errors.New("count cannot be negative"))
	case f.After < 0:
		return misfit("after", errors.New("after cannot be negative"))
	case f.At < 0 || f.At > maxSeconds:
		return misfit("at", fmt.Errorf("at is seconds, between 0 and %d", maxSeconds))
	case f.Lasts < 0 || f.Lasts > maxSeconds:
		return misfit("lasts", fmt.Errorf("lasts is seconds, between 0 and %d", maxSeconds))
	case f.Probability < 0 || f.Probability > 1:
		return misfit("probability", errors.New("probability is between 0 and 1"))
	case f.Params.Seconds < 0 || f.Params.Seconds > maxSeconds:
		return misfit("params/seconds", fmt.Errorf("seconds are between 0 and %d", maxSeconds))
	case f.Params.Requests < 0 || f.Params.Back < 0:
		return misfit("params", errors.New("requests and back cannot be negative"))
	}
	return mode.checkParams(f.Params)
}

// anyKey reports whether a vault, or any vault, has a key of the name.
func (w *World) anyKey(vault, name string) bool {
	if vault != "" {
		return w.vaultOf(vault).key(name) != nil // the vault is known by checkFault
	}
	for _, v := range w.vaults {
		if v.key(name) != nil {
			return true
		}
	}
	return false
}

// Faults returns the faults in the order in which they were added.
func (w *World) Faults() []Fault {
	w.lock()
	defer w.mu.Unlock()
	out := make([]Fault, 0, len(w.faults))
	for _, f := range w.faults {
		out = append(out, f.Fault)
	}
	return out
}

// RemoveFault disarms a fault, releases what it holds, and lets the rolls that
// it had stopped go on.
func (w *World) RemoveFault(id string) error {
	now := w.lock()
	defer w.mu.Unlock()
	f := w.fault(id)
	if f == nil {
		return ErrNoFault
	}
	w.faults = slices.DeleteFunc(w.faults, func(other *fault) bool { return other == f })
	close(f.release)
	for _, t := range w.tenants {
		for _, g := range t.geos {
			g.thaw(f, now)
		}
	}
	return nil
}

// ReleaseFault lets the requests go on that the fault holds now; later ones
// are held again until the fault's count is used up.
func (w *World) ReleaseFault(id string) error {
	w.lock()
	defer w.mu.Unlock()
	f := w.fault(id)
	if f == nil {
		return ErrNoFault
	}
	close(f.release)
	f.release = make(chan struct{})
	return nil
}

// WaitFault returns when the fault has fired: for the holding modes, when a
// request is being held; for those after an effect, when the effect is there.
func (w *World) WaitFault(ctx context.Context, id string) error { return w.WaitFaultN(ctx, id, 1) }

// WaitFaultN waits until the fault has fired n times.
func (w *World) WaitFaultN(ctx context.Context, id string, n int) error {
	for {
		w.lock()
		f, next := w.fault(id), w.fired
		if f == nil {
			w.mu.Unlock()
			return ErrNoFault
		}
		enough := f.Fired >= n
		w.mu.Unlock()
		if enough {
			return nil
		}
		select {
		case <-next:
		case <-ctx.Done():
			return fmt.Errorf("waiting for fault %s: %w", id, ctx.Err())
		case <-w.closed:
			return fmt.Errorf("waiting for fault %s: the world is closed", id)
		}
	}
}

func (w *World) fault(id string) *fault {
	for _, f := range w.faults {
		if f.ID == id {
			return f
		}
	}
	return nil
}

// meets reports whether the call is one that the fault is about.
func (f *fault) meets(c *call, w *World) bool {
	if operation := f.Operation == "" || f.Operation == c.op || f.Operation == OpEffect && c.effect; !operation || f.Service != "" && f.Service != c.service {
		return false
	}
	if f.Tenant != "" && (c.tenant == nil || w.tenantOf(f.Tenant) != c.tenant) {
		return false
	}
	if f.Target != "" && !strings.EqualFold(f.Target, c.target) &&
		!slices.ContainsFunc(c.aliases, func(s string) bool { return strings.EqualFold(s, f.Target) }) {
		return false
	}
	// Modes that mean nothing to a call must not be used up by it.
	if f.mode.meets != nil && !f.mode.meets(c) {
		return false
	}
	return (f.Vault == "" && f.Key == "" || len(f.among(c.keys, w)) > 0)
}

// among returns those keys that the fault's Vault and Key mean.
func (f *fault) among(keys []*key, w *World) []*key {
	var out []*key
	for _, k := range keys {
		if (f.Vault == "" || w.vaultOf(f.Vault) == k.vault) && (f.Key == "" || strings.EqualFold(f.Key, k.name)) {
			out = append(out, k)
		}
	}
	return out
}

// wait holds the caller until the release; false when the world closed.
func (w *World) wait(f *fault) bool {
	w.lock()
	f.Held++
	release := f.release
	w.fire(f)
	w.mu.Unlock()
	defer func() {
		w.lock()
		f.Held--
		w.mu.Unlock()
	}()
	select {
	case <-release:
		return true
	case <-w.closed:
		return false
	}
}

// fire counts and wakes those who wait for it. The lock is held.
func (w *World) fire(f *fault) {
	f.Fired++
	close(w.fired)
	w.fired = make(chan struct{})
}

// strangers lets a stranger's version appear in each key that the fault means.
func (w *World) strangers(c *call, faults []*fault, mode string, now time.Time) {
	for _, f := range faults {
		if f.Mode != mode {
			continue
		}
		for _, k := range f.among(c.keys, w) {
			w.stranger(k, nil, now)
		}
		w.fire(f)
	}
}
