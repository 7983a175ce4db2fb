package jobs

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/keyroll/keyroll/internal/roll"
)

// refresh makes an Exchange or multi-workload policy take up its keys' newest
// versions. The call leaves no mark at Microsoft, so a lost answer is settled
// by waiting until it can land no more and refreshing again, if rule 5 still
// holds: it takes up the same versions.
func (a *attempt) refresh(ctx context.Context) roll.Event {
	switch via := a.step.Params.Transport; {
	case via == roll.Manual:
		return a.refreshByHand(ctx)
	case via == roll.Automation && a.settle:
		return a.settleRefreshJob(ctx)
	case a.settle:
		// By the claim's word: it renewed the deadline only where it had passed.
		if !a.due {
			return a.later(a.deadline(), "lost_answer", "the answer to a refresh was lost; refreshing again when the first one can land no more")
		}
		if a.roll.State != roll.Running {
			return a.notApplied()
		}
		a.ended = true
	}
	p, fault := a.policy()
	if fault != nil {
		return a.fault(fault)
	}
	m, err := a.d.tenants.Mail(a.inv, a.step.Params.Transport)
	if err != nil {
		return a.failed(err)
	}
	if ev := a.rule5(ctx, p); ev != nil {
		return ev
	}
	res := roll.Result{Versions: a.expected(p), Mailboxes: a.mailboxes(ctx, m, p)}
	// Once more, just before the call.
	if ev := a.rule5(ctx, p); ev != nil {
		return ev
	}
	if ev := a.lastCheck(ctx); ev != nil {
		return ev
	}
	if m, err = a.d.tenants.Mail(a.inv.SentTo(a.step.Params.Account), a.step.Params.Transport); err != nil {
		return a.failed(err)
	}
	receipt, err := m.Refresh(ctx, p.Workload, p.GUID, a.step.OpID)
	if err != nil {
		if c := a.d.cfg.classify(err, a.step.Attempt); c.Maybe {
			return a.later(a.settleAt(), c.Code, "the answer was lost: "+c.Detail)
		}
		return a.failed(err)
	}
	return a.refreshed(ctx, p, receipt, res)
}

// refreshed holds a refresh that was taken against what the policy and its
// keys show after it.
func (a *attempt) refreshed(ctx context.Context, p roll.Policy, receipt roll.Receipt, res roll.Result) roll.Event {
	res.Warnings, res.RequestID = receipt.Warnings, receipt.RequestID
	if len(receipt.Unknown) > 0 {
		return roll.Halted{N: a.step.N, Epoch: a.step.Epoch, Code: "unknown_warning",
			Detail: "Exchange took the refresh with a warning that is not known to be harmless: " + strings.Join(receipt.Unknown, "; "),
			Action: "read the warning; if it does no harm, retry (the refresh is repeated with the same versions)", Settled: true, Result: res}
	}
	// And after it: a version that somebody made meanwhile may have been taken up.
	f, err := a.checkPolicy(ctx, p)
	if err != nil {
		// Accepted, but not checked: the intent stays open, and the next attempt refreshes again.
		c := a.d.cfg.classify(err, a.step.Attempt)
		if c.Passing {
			return a.later(a.settleAt(), c.Code, c.Detail)
		}
		return roll.Halted{N: a.step.N, Epoch: a.step.Epoch, Code: c.Code, Detail: c.Detail, Action: c.Action}
	}
	if f != nil {
		return roll.Halted{N: a.step.N, Epoch: a.step.Epoch, Code: f.Code, Detail: "after the refresh: " + f.Seen, Action: f.Remedy, Settled: true, Result: res}
	}
	res.Source = "Exchange accepted the refresh, " + a.step.Params.Transport.By(p.Workload)
	return a.done(res)
}

// rule5 reads what product rule 5 asks about, and returns the event that stops
// the step where it does not hold.
func (a *attempt) rule5(ctx context.Context, p roll.Policy) roll.Event {
	f, err := a.checkPolicy(ctx, p)
	switch {
	case err != nil:
		return a.failed(err)
	case f != nil:
		return a.fault(f)
	}
	return nil
}

// checkPolicy reads policy and keys and returns the broken rule. Where a
// tenant that works by hand shows no policies, the keys alone are looked at;
// the rest is the person's to look at, and the plan has said so.
func (a *attempt) checkPolicy(ctx context.Context, p roll.Policy) (*roll.Fault, error) {
	via := a.reads(p.Workload, "")
	seen, keys, err := a.d.tenants.Policy(ctx, a.inv, p, via)
	switch {
	case err != nil:
		return nil, err
	case via == roll.ReadsNothing:
		return roll.CheckKeys(a.inv, p, keys, a.roll.Expected(), a.now()), nil
	}
	return roll.CheckRefresh(a.inv, p, seen, keys, a.roll.Expected(), a.now()), nil
}

// reads is the transport by which this step looks at a place.
func (a *attempt) reads(w roll.Workload, geo string) roll.Transport {
	return a.inv.ReadsBy(roll.Place(w, geo), a.step.Params.Transport)
}

// settleAt is when a lost answer is looked after: a runbook's job can be
// asked for at once, what left no mark only when it can land no more.
func (a *attempt) settleAt() time.Time {
	if a.step.Params.Transport == roll.Automation {
		return a.now().Add(a.d.cfg.BackoffBase)
	}
	return a.deadline()
}

// expected are the versions that a refresh of the policy takes up, by key id.
func (a *attempt) expected(p roll.Policy) map[string]string {
	out, all := map[string]string{}, a.roll.Expected()
	for _, id := range p.KeyIDs() {
		out[id] = all[id]
	}
	return out
}

// mailboxes reads DataEncryptionPolicyID of the sample mailboxes. It proves
// nothing, so a failure holds up nothing: it is recorded in its place.
func (a *attempt) mailboxes(ctx context.Context, m mail, p roll.Policy) map[string]string {
	if len(p.SampleMailboxes) == 0 {
		return nil
	}
	out := map[string]string{}
	for _, box := range p.SampleMailboxes {
		id, err := m.MailboxPolicyID(ctx, box)
		if err != nil {
			id = fmt.Sprintf("not read: %s", a.d.cfg.classify(err, 1).Code)
		}
		out[box] = id
	}
	return out
}
