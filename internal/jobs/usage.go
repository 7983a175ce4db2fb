package jobs

import (
	"context"
	"errors"

	"github.com/keyroll/keyroll/internal/roll"
	"github.com/keyroll/keyroll/internal/store"
)

// evidenceAtOnce bounds one round of looks.
const evidenceAtOnce = 20

// inUse looks once into Key Vault's log before a verify step ends. What it
// shows can only add to res: a log that is not declared, cannot be read or
// shows nothing yet leaves the evidence as it is.
func (a *attempt) inUse(ctx context.Context, p roll.Policy, res *roll.Result) {
	if a.inv.Diagnostics == nil || res.Evidence != roll.Accepted && res.Evidence != roll.Attested {
		return
	}
	source, err := a.d.wrapped(ctx, a.inv, a.roll, p.ID)
	switch {
	case err != nil:
		res.Warnings = append(res.Warnings, "Key Vault's diagnostic log could not be read: "+a.d.cfg.classify(err, 1).Detail)
	case source != "":
		res.Evidence, res.Source = roll.InUse, source
	}
}

// wrapped asks the log whether Microsoft wraps with the policy's new versions;
// "" where it does not show it (yet).
func (d *Driver) wrapped(ctx context.Context, inv roll.Inventory, r roll.Roll, policyID string) (source string, err error) {
	taken := r.Taken(policyID)
	if len(taken) == 0 {
		return "", nil
	}
	var refs []roll.KeyRef
	since := taken[0].Since
	for _, t := range taken {
		refs = append(refs, t.Ref)
		if t.Since.Before(since) {
			since = t.Since
		}
	}
	uses, err := d.tenants.Uses(ctx, inv, refs, since)
	if err != nil {
		return "", err
	}
	for _, p := range r.Plan.Policies {
		if p.ID == policyID {
			_, source = roll.CheckUse(p.Workload, taken, uses)
		}
	}
	return source, nil
}

// lookForUse looks into the logs of rolls that ended with less than in_use:
// Microsoft may wrap hours after it took the call, and the log comes late.
func (d *Driver) lookForUse(ctx context.Context) error {
	due, err := d.store.DueEvidence(ctx, evidenceAtOnce, d.cfg.Evidence)
	if err != nil {
		return err
	}
	for _, w := range due {
		if err := d.lookForUseOf(ctx, w); err != nil && ctx.Err() == nil {
			d.log.Warn("looking into a diagnostic log failed", "roll", w.RollID, "policy", w.PolicyID, "err", err)
		}
	}
	return nil
}

func (d *Driver) lookForUseOf(ctx context.Context, w store.EvidenceWatch) error {
	t, err := d.store.Tenant(ctx, w.TenantID)
	if err != nil {
		return err
	}
	if t.Inventory.Diagnostics == nil {
		return nil // it may be declared before the watch ends
	}
	r, err := d.store.Roll(ctx, w.RollID)
	if err != nil {
		return err
	}
	source, err := d.wrapped(ctx, t.Inventory, r, w.PolicyID)
	if err != nil {
		return errors.Join(err, d.store.NoteEvidenceLook(ctx, w, d.cfg.classify(err, 1).Detail))
	}
	if source == "" {
		return d.store.NoteEvidenceLook(ctx, w, "")
	}
	_, err = d.store.Transition(ctx, r, roll.EvidenceSeen{Policy: w.PolicyID, Evidence: roll.InUse, Source: source})
	if errors.Is(err, roll.ErrAlreadyApplied) {
		return nil
	}
	return err
}
