package control

import (
	"context"
	"errors"
	"fmt"

	"github.com/keyroll/keyroll/internal/access"
	"github.com/keyroll/keyroll/internal/roll"
	"github.com/keyroll/keyroll/internal/store"
)

// Approve says yes to the plan with this hash, as the roll stood at version.
// Errors of Approve and Reject: store.ErrNotFound, *VersionError, *PlanChanged,
// *roll.TransitionError, roll.ErrAlreadyApplied.
func (c *Control) Approve(ctx context.Context, p access.Principal, id string, version int64, planHash, comment string) (roll.Roll, error) {
	return c.decide(ctx, p, access.ApproveRoll, id, version, roll.Approve{By: actor(p), PlanHash: planHash, Comment: comment})
}

// Reject says no to the roll's plan, as the roll stood at version.
func (c *Control) Reject(ctx context.Context, p access.Principal, id string, version int64, reason string) (roll.Roll, error) {
	return c.decide(ctx, p, access.RejectRoll, id, version, roll.Reject{By: actor(p), Reason: reason})
}

// decide applies an act that is bound to what its author saw: the version is
// held, not read again.
func (c *Control) decide(ctx context.Context, p access.Principal, a access.Action, id string, version int64, ev roll.Event) (roll.Roll, error) {
	if err := access.Allowed(p, a); err != nil {
		return roll.Roll{}, err
	}
	r, err := c.store.Roll(ctx, id)
	if err != nil {
		return r, err
	}
	if r.Version != version {
		return r, &VersionError{Have: r.Version, Want: version}
	}
	next, err := c.store.TransitionAt(ctx, r, ev)
	var refused *roll.TransitionError
	switch {
	case errors.Is(err, store.ErrStale):
		now, readErr := c.store.Roll(ctx, id)
		if readErr != nil {
			return now, readErr
		}
		return now, &VersionError{Have: now.Version, Want: version}
	case errors.As(err, &refused) && refused.Code == roll.RefusedPlanChanged:
		return r, &PlanChanged{Plan: r.Plan}
	}
	return next, err
}

// Cancel stops the roll before its next effect; what is under way is watched
// to its end.
func (c *Control) Cancel(ctx context.Context, p access.Principal, id, reason string) (roll.Roll, error) {
	return c.act(ctx, p, access.CancelRoll, id, roll.Cancel{By: actor(p), Reason: reason})
}

// Retry resumes the halted steps, or only one where step is not 0.
func (c *Control) Retry(ctx context.Context, p access.Principal, id string, step int) (roll.Roll, error) {
	return c.act(ctx, p, access.RetryRoll, id, roll.Retry{By: actor(p), Step: step})
}

// Assume is a retry by a person who has found out what became of the unproven
// SharePoint operation of a halted step: roll.AssumeApplied goes on without
// sending it again, roll.AssumeNotApplied sends it as another operation.
func (c *Control) Assume(ctx context.Context, p access.Principal, id string, step int, what string) (roll.Roll, error) {
	return c.act(ctx, p, access.RetryRoll, id, roll.Retry{By: actor(p), Step: step, Assume: what})
}

// Abandon is one of the two people's calls that give a roll up. The roll it
// returns has failed after the second.
func (c *Control) Abandon(ctx context.Context, p access.Principal, id, reason string) (roll.Roll, error) {
	return c.act(ctx, p, access.AbandonRoll, id, roll.GiveUp{By: actor(p), Reason: reason})
}

func (c *Control) act(ctx context.Context, p access.Principal, a access.Action, id string, ev roll.Event) (roll.Roll, error) {
	if err := access.Allowed(p, a); err != nil {
		return roll.Roll{}, err
	}
	r, err := c.store.Roll(ctx, id)
	if err != nil {
		return r, err
	}
	return c.store.Transition(ctx, r, ev)
}

// Report takes a person's word on what became of a manual step: it is held
// against what Microsoft shows where that can be read. Errors: those of
// Cancel, and *roll.TransitionError with code report_time.
func (c *Control) Report(ctx context.Context, p access.Principal, id string, step int, said roll.Reported) (roll.Roll, error) {
	said.By, said.N = actor(p), step
	return c.act(ctx, p, access.ReportStep, id, said)
}

// What replan does with versions that others made.
const (
	StrangersAdopt     = "adopt"
	StrangersRollAgain = "roll_again"
)

// Replan gives a halted roll a new plan from what Microsoft has now. A version
// that the roll itself made stays its version; one that somebody else made is
// adopted or rolled over, as strangers says (*ErrStrangers where it says
// nothing and there is one). The new plan needs a new approval.
func (c *Control) Replan(ctx context.Context, p access.Principal, id, strangers string) (roll.Roll, error) {
	if err := access.Allowed(p, access.ReplanRoll); err != nil {
		return roll.Roll{}, err
	}
	r, err := c.store.Roll(ctx, id)
	if err != nil {
		return r, err
	}
	if r.State != roll.NeedsAttention && r.State != roll.AwaitingApproval || r.Unsettled() {
		// The transition function gives the refusal; there is no need to ask Microsoft.
		return c.store.Transition(ctx, r, roll.Replan{By: actor(p), Plan: r.Plan})
	}
	t, err := c.tenant(ctx, r.TenantID)
	if err != nil {
		return r, err
	}
	obs, err := c.look(ctx, t.Inventory)
	if err != nil {
		return r, err
	}
	keys, err := choose(r, obs, strangers)
	if err != nil {
		return r, err
	}
	plan, err := roll.Build(t.Inventory, roll.Resolved{Request: r.Request, Keys: keys}, obs, c.store.Now())
	if err != nil {
		return r, err
	}
	if len(plan.Errors()) > 0 {
		return r, &PlanErrors{Plan: plan}
	}
	if err := c.store.RecordLedger(ctx, t.Inventory, obs, store.OriginStranger); err != nil {
		return r, err
	}
	return c.store.Transition(ctx, r, roll.Replan{By: actor(p), Plan: plan})
}

// choose says for each key of the roll which version the new plan gives it.
func choose(r roll.Roll, obs roll.Observation, strangers string) ([]roll.KeyRequest, error) {
	var out []roll.KeyRequest
	var open []roll.Finding
	for _, k := range r.Keys {
		planned, _ := r.Plan.KeyByID(k.ID)
		latest := obs.Keys[k.ID].Latest.Version
		req := planned.Again()
		req.ID, req.Version = k.ID, roll.NewVersion
		own := k.NewVersion
		for _, m := range r.Made {
			if m.Key == k.ID && m.Version == latest {
				own = latest
			}
		}
		switch {
		case latest == "":
			// Unreadable: the plan's findings say so.
		case own != "" && latest == own:
			req.Version, req.KeyNotBefore = own, nil
		case own == "" && latest == planned.OldVersion && planned.Version == roll.NewVersion:
			// Nobody touched it.
		case own == "" && latest == planned.Version:
			// It was to be adopted from the first.
			req.Version, req.KeyNotBefore = latest, nil
		case strangers == StrangersAdopt:
			req.Version, req.KeyNotBefore = latest, nil
		case strangers == StrangersRollAgain:
		default:
			open = append(open, roll.Finding{Code: roll.CodeStranger, Level: roll.LevelError, Subject: "key:" + k.ID,
				Seen:   fmt.Sprintf("the newest version of key %s is %s", k.Name, latest),
				Remedy: "say \"strangers\": \"adopt\" or \"roll_again\""})
		}
		out = append(out, req)
	}
	if len(open) > 0 {
		return nil, &ErrStrangers{Findings: open}
	}
	return out, nil
}

// ReleaseLease frees a SharePoint lease by two people; done is false after the
// first one's call.
func (c *Control) ReleaseLease(ctx context.Context, p access.Principal, tenantID, scope, reason string) (done bool, l store.Lease, err error) {
	if err := access.Allowed(p, access.ReleaseSharePointLease); err != nil {
		return false, l, err
	}
	if _, err := c.store.Tenant(ctx, tenantID); err != nil {
		return false, l, err
	}
	return c.store.ReleaseLease(ctx, tenantID, scope, actor(p), reason)
}
