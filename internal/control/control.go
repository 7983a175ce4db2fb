// Package control holds one function for each act of a person, a ticket or the
// calendar: declare, plan, request, approve, reject, cancel, retry, replan,
// abandon. It decides who may, reads what is needed, asks the pure rules of
// package roll, and writes through the store.
package control

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/keyroll/keyroll/internal/access"
	"github.com/keyroll/keyroll/internal/roll"
	"github.com/keyroll/keyroll/internal/store"
)

// surveyor reads a tenant at Microsoft. It changes nothing and may be called
// again at will. Survey's error joins failures that will pass; the observation
// beside it holds what could be read, with a Trouble in place of the rest.
// Check says what of a declaration cannot be right, as *roll.InvalidError.
type surveyor interface {
	discoverer
	// Grantee says whom a tenant grants rights to.
	Grantee(inv roll.Inventory) roll.Grantee
	Survey(ctx context.Context, inv roll.Inventory) (roll.Observation, error)
	Check(inv roll.Inventory) error
	// Probe chooses the transports of a tenant by read-only looks; a place that
	// cannot be decided now is missing.
	Probe(ctx context.Context, inv roll.Inventory) map[string]roll.ChosenTransport
}

// DefaultApprovalPatience is how long a plan waits for its approval.
const DefaultApprovalPatience = 7 * 24 * time.Hour

// Control carries out acts.
type Control struct {
	store     *store.Store
	survey    surveyor
	patience  time.Duration
	simulated bool
}

// Config of New.
type Config struct {
	// ApprovalPatience is how long a plan waits for its approval; 0 is the default.
	ApprovalPatience time.Duration
	// Simulated marks rolls as made against simulators.
	Simulated bool
}

// New makes a Control.
func New(st *store.Store, sv surveyor, c Config) *Control {
	if c.ApprovalPatience == 0 {
		c.ApprovalPatience = DefaultApprovalPatience
	}
	return &Control{store: st, survey: sv, patience: c.ApprovalPatience, simulated: c.Simulated}
}

// PlanErrors refuses a request whose plan has findings that are errors.
type PlanErrors struct{ Plan roll.Plan }

func (e *PlanErrors) Error() string {
	first := e.Plan.Errors()[0]
	return fmt.Sprintf("the plan has %d error(s), first %s: %s", len(e.Plan.Errors()), first.Code, first.Seen)
}

// PlanChanged refuses a request or an act that names another plan than the
// one that holds now.
type PlanChanged struct{ Plan roll.Plan }

func (e *PlanChanged) Error() string { return "the plan has changed; its hash now is " + e.Plan.Hash }

// VersionError: the caller's If-Match names another version than the present one.
type VersionError struct{ Have, Want int64 }

func (e *VersionError) Error() string {
	return fmt.Sprintf("it is at version %d, not %d", e.Have, e.Want)
}

// Errors that callers branch on.
var (
	// ErrRetired: the tenant has been retired.
	ErrRetired = store.ErrRetired
)

// ErrStrangers: replan must say what to do with versions that others made.
type ErrStrangers struct{ Findings []roll.Finding }

func (e *ErrStrangers) Error() string {
	return "somebody else made a key version since the plan: say \"strangers\": \"adopt\" to take it or \"roll_again\" to make another; " + e.Findings[0].Seen
}

// UnavailableError: what Microsoft has could not be read, and the failure will
// pass. Its text may be shown.
type UnavailableError struct{ Err error }

func (e *UnavailableError) Error() string {
	return "reading what Microsoft has: " + strings.ReplaceAll(e.Err.Error(), "\n", "; ")
}

// Unwrap gives the failures of the reads.
func (e *UnavailableError) Unwrap() error { return e.Err }

// actor is the principal as the roll knows it.
func actor(p access.Principal) roll.Actor {
	return roll.Actor{Subject: p.Subject, Kind: string(p.Kind)}
}

// tenant reads a tenant that may be worked with.
func (c *Control) tenant(ctx context.Context, id string) (store.Tenant, error) {
	t, err := c.store.Tenant(ctx, id)
	if err != nil {
		return t, err
	}
	if t.RetiredAt != nil {
		return t, ErrRetired
	}
	return t, nil
}

// look reads what Microsoft has, and records which transports it has chosen.
// A read that the end of ctx cut off is no
// finding about the tenant, so it fails as a whole: *UnavailableError.
func (c *Control) look(ctx context.Context, inv roll.Inventory) (roll.Observation, error) {
	obs, err := c.survey.Survey(ctx, inv)
	if err == nil {
		err = ctx.Err()
	}
	if err != nil {
		return obs, &UnavailableError{Err: err}
	}
	if obs.Backups, err = c.store.LatestBackups(ctx, inv); err != nil {
		return obs, err
	}
	if obs.Unproven, err = c.store.UnprovenOperations(ctx, inv.TenantID); err != nil {
		return obs, err
	}
	return obs, c.store.NoteTransports(ctx, inv, obs.Transports)
}

// Plan is a dry run of a roll. It changes nothing and needs no reason. Errors:
// *roll.InvalidError, *roll.AvailabilityKeyError, store.ErrNotFound,
// ErrRetired, *access.Denied, and *UnavailableError.
func (c *Control) Plan(ctx context.Context, p access.Principal, req roll.Request) (roll.Plan, error) {
	if err := access.Allowed(p, access.MakePlan); err != nil {
		return roll.Plan{}, err
	}
	if req.Reason == (roll.Reason{}) {
		req.Reason = roll.Reason{Code: "other", Text: "a dry run"} // no part of the plan
	}
	plan, _, err := c.plan(ctx, req)
	return plan, err
}

func (c *Control) plan(ctx context.Context, req roll.Request) (roll.Plan, store.Tenant, error) {
	t, err := c.tenant(ctx, req.TenantID)
	if err != nil {
		return roll.Plan{}, t, err
	}
	resolved, err := roll.Resolve(t.Inventory, req)
	if err != nil {
		return roll.Plan{}, t, err
	}
	obs, err := c.look(ctx, t.Inventory)
	if err != nil {
		return roll.Plan{}, t, err
	}
	plan, err := roll.Build(t.Inventory, resolved, obs, c.store.Now())
	return plan, t, err
}

// Idempotency is a request's idempotency key with the digest of its body.
// Render turns the roll into the stored answer, inside the transaction that
// creates the roll.
type Idempotency struct {
	Key      string
	BodyHash []byte
	Render   func(roll.Roll) (store.Answer, error)
}

// Request makes a roll. The same idempotency key with the same body returns
// the first answer again and makes nothing. Errors: those of Plan,
// *PlanErrors, *PlanChanged, *store.OpenRollError, store.ErrKeyReused,
// store.ErrKeyRunning.
func (c *Control) Request(ctx context.Context, p access.Principal, req roll.Request, idem Idempotency) (store.Answer, error) {
	if err := access.Allowed(p, access.RequestRoll); err != nil {
		return store.Answer{}, err
	}
	claim, answer, err := c.store.ClaimKey(ctx, p.Subject, idem.Key, idem.BodyHash)
	if err != nil {
		return store.Answer{}, err
	}
	if answer != nil {
		return *answer, nil
	}
	out, err := c.request(ctx, p, req, idem, claim)
	if err != nil {
		// Nothing was made, so the same key may be used again. If this fails
		// too, the claim lapses by itself.
		_ = c.store.ReturnKey(context.WithoutCancel(ctx), claim)
		return store.Answer{}, err
	}
	return out, nil
}

func (c *Control) request(ctx context.Context, p access.Principal, req roll.Request, idem Idempotency, claim *store.Claim) (store.Answer, error) {
	plan, t, err := c.plan(ctx, req)
	if err != nil {
		return store.Answer{}, err
	}
	if id, err := c.store.OpenRollFor(ctx, plan); err != nil {
		return store.Answer{}, err
	} else if id != "" {
		return store.Answer{}, &store.OpenRollError{RollID: id, Subject: "one of these keys or policies"}
	}
	if len(plan.Errors()) > 0 {
		return store.Answer{}, &PlanErrors{Plan: plan}
	}
	if req.PlanHash != "" && req.PlanHash != plan.Hash {
		return store.Answer{}, &PlanChanged{Plan: plan}
	}
	id, err := uuid.NewV7()
	if err != nil {
		return store.Answer{}, fmt.Errorf("making a roll's id: %w", err)
	}
	needs := t.Inventory.Approval != roll.ApprovalNotRequired // an emergency does, whatever is declared
	r, effects := roll.New(id.String(), req, plan, actor(p), needs, c.patience, c.store.Now())
	r.Simulated = c.simulated
	answer, err := idem.Render(r)
	if err != nil {
		return store.Answer{}, err
	}
	err = c.store.CreateRoll(ctx, r, effects, func(ctx context.Context, tx store.Tx) error {
		return tx.FinishKey(ctx, claim, answer)
	})
	return answer, err
}
