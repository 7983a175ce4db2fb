package jobs

import (
	"context"
	"fmt"
	"time"

	"github.com/keyroll/keyroll/internal/roll"
)

// fate asks what became of the step's runbook job, and returns the event that
// ends the attempt while that is open. A job of the operation's name is never
// followed by another one while it may still act.
func (a *attempt) fate(ctx context.Context, w roll.Workload) (roll.Fate, roll.Event) {
	// In the account that it was sent to: another one, declared since, knows nothing of it.
	run, err := a.d.tenants.Runbook(a.inv.SentTo(a.step.Params.Account), roll.Place(w, a.step.Geo))
	if err != nil {
		return roll.Fate{}, a.failed(err)
	}
	f, err := run.Fate(ctx, a.step.OpID)
	switch {
	case err != nil:
		return f, a.failed(err)
	case f.Stuck:
		return f, roll.Halted{N: a.step.N, Epoch: a.step.Epoch, Code: "runbook_job_" + lower(f.State),
			Detail: fmt.Sprintf("the runbook job %s is %s: it stands still, and may go on when somebody resumes it", a.step.OpID, f.State),
			Action: "resume or stop the job in the Automation account, then retry: what it did is found out before anything else is called"}
	case f.Found && !f.Ended:
		return f, roll.Waits{N: a.step.N, Epoch: a.step.Epoch, For: roll.WaitRunbook, Until: a.now().Add(a.d.cfg.Poll), Look: roll.Look{Seen: roll.JobSeen + f.State}}
	case !f.Found && a.step.JobSeen():
		return f, roll.Halted{N: a.step.N, Epoch: a.step.Epoch, Code: "runbook_job_not_shown",
			Detail: fmt.Sprintf("the Automation account shows no job %s any more, and has shown it before: it may still act", a.step.OpID),
			Action: "look for the job in the Automation account; when it is shown again, retry: what it did is found out before anything else is called. If it is gone for good, two people abandon the roll"}
	}
	return f, nil
}

// settleRefreshJob finds out what became of a refresh by runbook.
func (a *attempt) settleRefreshJob(ctx context.Context) roll.Event {
	p, fault := a.policy()
	if fault != nil {
		return a.fault(fault)
	}
	f, ev := a.fate(ctx, p.Workload)
	switch {
	case ev != nil:
		return ev
	case !f.Found && !a.due:
		return a.later(a.deadline(), "lost_answer", "there is no job of this operation yet; looking again when it can arrive no more")
	case !f.Found:
		return a.notApplied()
	case f.Failed != nil:
		// The job has ended. Whatever it did, a refresh may be done again: as
		// another operation, since this one's name is used up.
		c := a.d.cfg.classify(f.Failed, a.step.Attempt)
		if c.Passing {
			return roll.WillRetry{N: a.step.N, Epoch: a.step.Epoch, At: a.now().Add(c.After), Code: c.Code, Detail: c.Detail, Over: true}
		}
		return roll.Halted{N: a.step.N, Epoch: a.step.Epoch, Code: c.Code, Detail: c.Detail, Action: c.Action, Over: true}
	}
	m, err := a.d.tenants.Mail(a.inv, roll.Automation)
	if err != nil {
		return a.failed(err)
	}
	return a.refreshed(ctx, p, f.Receipt, roll.Result{Versions: a.expected(p), Mailboxes: a.mailboxes(ctx, m, p)})
}

// settleRollJob is the job's half of settling a SharePoint roll: the event
// that ends the attempt, or, where only SharePoint's status can tell what the
// job did, the job's fate with why it did not say so itself.
func (a *attempt) settleRollJob(ctx context.Context, version string) (roll.Event, roll.Fate) {
	f, ev := a.fate(ctx, roll.SharePoint)
	switch {
	case ev != nil:
		return ev, f
	case !f.Found:
		return nil, f
	case f.Failed == nil:
		return a.done(roll.Result{Version: version, SeenRolling: f.Seen.Status == roll.Rolling, Source: a.took()}), f
	}
	c := a.d.cfg.classify(f.Failed, a.step.Attempt)
	switch {
	case c.Maybe:
		return nil, f
	case c.Passing:
		return roll.WillRetry{N: a.step.N, Epoch: a.step.Epoch, At: a.now().Add(c.After), Code: c.Code, Detail: c.Detail, NotApplied: true}, f
	}
	return roll.Halted{N: a.step.N, Epoch: a.step.Epoch, Code: c.Code, Detail: c.Detail, Action: c.Action, NotApplied: true}, f
}

// clockSkew is how far Azure's clock may be ahead of ours; a time beyond that
// is no time of the same clock.
const clockSkew = time.Minute

// jobSettles is until when an effect of a job that has ended may still show:
// the cmdlet may have been its last act, long after the call's own deadline.
func (a *attempt) jobSettles(f roll.Fate) time.Time {
	if f.EndedAt.IsZero() || f.EndedAt.After(a.now().Add(clockSkew)) {
		return time.Time{}
	}
	return f.EndedAt.Add(a.d.cfg.SettleSharePoint)
}

// lower is a service's word as part of a code.
func lower(word string) string {
	out := []byte(word)
	for i, b := range out {
		if b >= 'A' && b <= 'Z' {
			out[i] = b + 'a' - 'A'
		}
	}
	return string(out)
}
