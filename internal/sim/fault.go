package sim

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Fault modes.
const (
	ModeRefuse         = "refuse"          // params status, code, message, body; no effect
	ModeThrottle       = "throttle"        // params retry_after, status, body; no effect
	ModeLoseBefore     = "lose_before"     // connection closed, no effect
	ModeApplyAndLose   = "apply_and_lose"  // effect, then connection closed
	ModeErrorAfter     = "error_after"     // effect, then params status (500), code, message
	ModeHold           = "hold"            // waits for the release, then goes on
	ModeHoldAfter      = "hold_after"      // effect, then the answer waits for the release
	ModeDelay          = "delay"           // params seconds of real time, then goes on
	ModeStrangerBefore = "stranger_before" // a stranger's key version just before
	ModeStrangerAfter  = "stranger_after"  // a stranger's key version just after
	ModeRollingForever = "rolling_forever" // a roll stops at params percent until the fault is removed
	ModeStatus         = "status"          // SharePoint shows the number params status
	ModeWarning        = "warning"         // Exchange adds params warning
	ModeJobSlow        = "job_slow"        // the runbook job takes params seconds more; 0: until the fault is removed
	ModeJobFails       = "job_fails"       // the job ends as params code (Failed, Suspended, Stopped) before its effect
	ModeJobFailsAfter  = "job_fails_after" // the same, after its effect and without output
	ModeJobOutput      = "job_output"      // the job writes params body; {output} in it is what it would have written
)

// OpEffect, as a fault's operation, means each operation that has an effect.
const OpEffect = "effect"

// Fault is something that goes wrong. Empty members match anything; Target is
// a policy's name or GUID, a geo, or geo/slot. It fires Count times (0: until
// removed), after letting the first After matching requests through. Several
// faults may meet in one request, in the order in which they were added.
// ID, Fired and Held are reports and ignored in AddFault.
type Fault struct {
	ID        string      `json:"id,omitempty"`
	Service   string      `json:"service,omitempty"`
	Operation string      `json:"operation,omitempty"`
	Tenant    string      `json:"tenant,omitempty"`
	Vault     string      `json:"vault,omitempty"`
	Key       string      `json:"key,omitempty"`
	Target    string      `json:"target,omitempty"`
	Mode      string      `json:"mode"`
	Count     int         `json:"count,omitempty"`
	After     int         `json:"after,omitempty"`
	Params    FaultParams `json:"params,omitzero"`
	Fired     int         `json:"fired"`
	Held      int         `json:"held"`
}

// FaultParams are the details of a mode; each mode names its own.
type FaultParams struct {
	Status     int     `json:"status,omitempty"`
	Code       string  `json:"code,omitempty"` // error code; Key Vault "Code/InnerCode", Exchange the exception type
	Message    string  `json:"message,omitempty"`
	Body       string  `json:"body,omitempty"` // plain text in place of the service's error document
	RetryAfter int     `json:"retry_after,omitempty"`
	Seconds    float64 `json:"seconds,omitempty"`
	Percent    float64 `json:"percent,omitempty"`
	Warning    string  `json:"warning,omitempty"`
}

// fault is a Fault that lives in a world.
type fault struct {
	Fault
	seen, used int
	release    chan struct{} // closed and replaced at each release
}

// ErrNoFault means that no fault has the id.
var ErrNoFault = errors.New("no such fault")

// AddFault arms a fault and returns its id. A fault that could never fire,
// because it names something unknown, is an error.
func (w *World) AddFault(f Fault) (id string, err error) {
	w.lock()
	defer w.mu.Unlock()
	if err := w.checkFault(f); err != nil {
		return "", fmt.Errorf("adding fault: %w", err)
	}
	w.faultSeq++
	f.ID, f.Fired, f.Held = "f"+strconv.Itoa(w.faultSeq), 0, 0
	w.faults = append(w.faults, &fault{Fault: f, release: make(chan struct{})})
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
	}
}

func (w *World) checkFault(f Fault) error {
	modes := []string{ModeRefuse, ModeThrottle, ModeLoseBefore, ModeApplyAndLose, ModeErrorAfter, ModeHold, ModeHoldAfter,
		ModeDelay, ModeStrangerBefore, ModeStrangerAfter, ModeRollingForever, ModeStatus, ModeWarning,
		ModeJobSlow, ModeJobFails, ModeJobFailsAfter, ModeJobOutput}
	known := []string{"", OpEffect}
	for service, ops := range operations() {
		if f.Service == "" || f.Service == service {
			known = append(known, ops...)
		}
	}
	v := w.vaultOf(f.Vault)
	switch {
	case !slices.Contains(modes, f.Mode):
		return fmt.Errorf("unknown mode %q", f.Mode)
	case f.Service != "" && operations()[f.Service] == nil:
		return fmt.Errorf("unknown service %q", f.Service)
	case !slices.Contains(known, f.Operation):
		return fmt.Errorf("unknown operation %q of service %q", f.Operation, f.Service)
	case f.Tenant != "" && w.tenantOf(f.Tenant) == nil:
		return fmt.Errorf("unknown tenant %q", f.Tenant)
	case f.Vault != "" && v == nil:
		return fmt.Errorf("unknown vault %q", f.Vault)
	case f.Count < 0 || f.After < 0:
		return errors.New("count and after cannot be negative")
	}
	return nil
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
	operation := f.Operation == "" || f.Operation == c.op || f.Operation == OpEffect && c.effect
	if !operation || f.Service != "" && f.Service != c.service {
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
	switch f.Mode {
	case ModeRollingForever:
		operation = c.op == OpRollKey
	case ModeStatus:
		operation = c.op == OpGetStatus
	case ModeWarning:
		operation = c.service == ServiceExchange
	case ModeJobSlow, ModeJobFails, ModeJobFailsAfter, ModeJobOutput:
		operation = c.op == OpPutJob
	case ModeStrangerBefore, ModeStrangerAfter:
		operation = len(c.keys) > 0
	}
	return operation && (f.Vault == "" && f.Key == "" || len(f.among(c.keys, w)) > 0)
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
