package api

import (
	"slices"
	"time"

	"github.com/keyroll/keyroll/internal/roll"
	"github.com/keyroll/keyroll/internal/store"
)

// view is what is looked at beside a roll to show it.
type view struct {
	now    time.Time
	bounds roll.Bounds
	// mailboxes and logs are what is watched of the roll's policies.
	mailboxes []store.MailboxWatch
	logs      []store.EvidenceWatch
	// leases of the tenant; none where the roll has no SharePoint part.
	leases []store.Lease
	// backups that hold the roll's new versions, by key id.
	backups map[string]store.Backup
}

// roll is a roll with everything that is known of it.
func (v view) roll(r roll.Roll) Roll {
	s := v.summary(r)
	out := Roll{
		ID: s.ID, TenantID: s.TenantID, Version: s.Version, State: s.State, EndCode: s.EndCode, EndNote: r.EndNote, Outcome: s.Outcome,
		Workloads: s.Workloads, PlanHash: s.PlanHash, Plan: plan(r.Plan), Reason: s.Reason,
		RequestedBy: s.RequestedBy, RequestedAt: s.RequestedAt, StartAt: s.StartAt,
		Approvals: each(r.Approvals, func(a roll.Approval) Approval {
			return Approval{By: a.By.Subject, At: a.At.UTC(), PlanHash: a.PlanHash, Comment: a.Comment}
		}),
		ApprovalExpiresAt: utc(r.ApprovalExpires), PlannedBy: r.PlannedBy.Subject, NeedsApproval: r.NeedsApproval,
		ApprovalsNeeded: approvalsNeeded(r), Emergency: s.Emergency,
		Steps: each(r.Steps, step), Keys: each(r.Keys, v.rollKey),
		Policies:  each(r.Plan.Policies, func(p roll.PlanPolicy) RollPolicy { return v.policy(r, p) }),
		Attention: s.Attention, NextAction: s.NextAction, SharePointQueue: v.queue(r),
		NextAttemptAt: s.NextAttemptAt, LastProgressAt: s.LastProgressAt, Stuck: s.Stuck,
		LeftBehind: each(r.LeftBehind, func(m roll.Made) LeftBehind {
			return LeftBehind{Key: m.Key, VaultURL: m.VaultURL, Name: m.Name, Version: m.Version, MadeAt: m.At.UTC()}
		}),
		Simulated: s.Simulated, CreatedAt: s.CreatedAt, UpdatedAt: s.UpdatedAt, EndedAt: s.EndedAt,
	}
	if e := r.Request.Emergency; e != nil {
		out.EmergencyReason = e.Reason
	}
	for _, w := range v.mailboxes {
		out.Mailboxes = append(out.Mailboxes, MailboxWatch{Policy: w.PolicyID, Mailbox: w.Mailbox, Before: w.Before, Last: w.Last,
			LookedAt: utc(w.LookedAt), ChangedAt: utc(w.ChangedAt), Until: w.Until.UTC()})
	}
	if now := r.CurrentOutcome(); now != r.Outcome {
		out.CurrentOutcome = Evidence(now)
	}
	if a := r.Abandon; a != nil {
		out.Abandon = Abandon{By: a.By.Subject, At: a.At.UTC(), Reason: a.Reason}
	}
	return out
}

// summary is a roll without its plan and steps.
func (v view) summary(r roll.Roll) RollSummary {
	out := RollSummary{
		ID: r.ID, TenantID: r.TenantID, Version: r.Version, State: RollState(r.State), EndCode: r.EndCode, Outcome: Evidence(r.Outcome),
		Workloads: each(r.Workloads(), func(w roll.Workload) Workload { return Workload(w) }), PlanHash: r.Plan.Hash,
		Reason: reason(r.Request.Reason), RequestedBy: r.Requester.Subject, RequestedAt: r.CreatedAt.UTC(), StartAt: utc(r.Request.StartAt), Emergency: r.Emergency(),
		NextAction: r.NextAction(v.now, v.bounds), NextAttemptAt: nextAttempt(r), LastProgressAt: r.ProgressAt.UTC(),
		Stuck: len(r.Stuck(v.now, v.bounds)) > 0, Simulated: r.Simulated,
		CreatedAt: r.CreatedAt.UTC(), UpdatedAt: r.UpdatedAt.UTC(), EndedAt: utc(r.EndedAt),
	}
	if a := r.Attention; a != nil {
		out.Attention = Attention{Code: a.Code, Detail: a.Detail, Step: a.Step, NextAction: a.Action, Since: a.Since.UTC()}
		if len(a.Findings) > 0 {
			out.Attention.Findings = findings(a.Findings)
		}
	}
	return out
}

// nextAttempt is when the roll does or looks at something next; zero where
// that is now, or where a human must act first.
func nextAttempt(r roll.Roll) time.Time {
	switch r.State {
	case roll.Running, roll.NeedsAttention, roll.Cancelling:
	default:
		return time.Time{}
	}
	if r.WakeAt == nil || slices.ContainsFunc(r.Steps, func(s roll.Step) bool { return s.State == roll.StepRunning }) {
		return time.Time{}
	}
	return r.WakeAt.UTC()
}

// queue is the roll's place in the queue for the SharePoint lease: the one it
// waits for, else one that it holds.
func (v view) queue(r roll.Roll) SharePointQueue {
	var held SharePointQueue
	if r.State.Final() {
		return held
	}
	for _, s := range r.Steps {
		if s.Kind != roll.SharePointLease || s.Round != r.Round {
			continue
		}
		for _, l := range v.leases {
			switch {
			case l.Scope != s.Params.Scope:
			case l.Holder == r.ID:
				held = SharePointQueue{Scope: l.Scope, Holder: l.Holder}
			case s.WaitingFor == roll.WaitQueue:
				place := s.Position
				if at := slices.Index(l.Queue, r.ID); at >= 0 {
					place = at + 1
				}
				return SharePointQueue{Scope: l.Scope, Position: place, Holder: l.Holder}
			}
		}
	}
	return held
}

func (v view) rollKey(k roll.RollKey) RollKey {
	out := RollKey{ID: k.ID, VaultURL: k.VaultURL, Name: k.Name, OldVersion: k.OldVersion, NewVersion: k.NewVersion, Adopted: k.Adopted}
	if b, ok := v.backups[k.ID]; ok {
		out.Backup = backup(b)
	}
	return out
}

// policy is a policy of the roll with the best that is known of it now.
func (v view) policy(r roll.Roll, p roll.PlanPolicy) RollPolicy {
	e, source, at := r.CurrentEvidence(p.ID)
	out := RollPolicy{
		ID: p.ID, Workload: Workload(p.Workload), Name: p.Name, GUID: p.GUID, Covers: p.Covers,
		Evidence: Evidence(e), EvidenceSource: source, EvidenceAt: utc(at),
	}
	if end, _ := r.PolicyEvidence(p.ID); end != e {
		out.EvidenceAtEnd = Evidence(end)
	}
	for _, w := range v.logs {
		if w.PolicyID == p.ID {
			out.LogWatch = LogWatch{Until: w.Until.UTC(), LookedAt: utc(w.LookedAt), Trouble: w.Trouble}
		}
	}
	for _, s := range r.Steps {
		if s.Round == r.Round && s.Policy == p.ID && s.Result.Test != nil {
			t := s.Result.Test
			out.Test = PolicyTest{Verdict: PolicyTestVerdict(t.Verdict), Detail: t.Detail, At: t.At.UTC()}
		}
	}
	return out
}

// hasTransport: the steps that reach Microsoft 365 itself, and not only vaults.
func hasTransport(k roll.StepKind) bool {
	switch k {
	case roll.RefreshPolicy, roll.SharePointRollKey, roll.SharePointAwait, roll.Verify:
		return true
	}
	return false
}

func step(s roll.Step) Step {
	out := Step{
		N: s.N, Round: s.Round, Kind: StepKind(s.Kind), Title: s.Title, State: StepState(s.State), After: notNil(s.After),
		Policy: s.Policy, Workload: Workload(s.Workload), Key: s.Key, Slot: Slot(s.Slot), Geo: s.Geo,
		Attempt: s.Attempt, NextAttemptAt: utc(s.NextAttemptAt), WaitingFor: s.WaitingFor, OpID: s.OpID,
		Percent: s.Percent, Seen: s.Seen, StartedAt: utc(s.StartedAt), LastProgressAt: utc(s.ProgressAt), EndedAt: utc(s.EndedAt),
		Result: members(s.Result),
	}
	if s.IntentOpen {
		out.IntentDeadline = utc(s.IntentDeadline)
	}
	if hasTransport(s.Kind) {
		out.Transport = TransportName(s.Params.Transport.Name(s.Workload))
	}
	if o := s.Offer; o != nil {
		out.Manual = ManualStep{Connect: o.Connect, Check: o.Check, Line: o.Line, OfferedAt: o.At.UTC(), RunUntil: utc(o.Until)}
		if said := s.Report; said != nil {
			out.Manual.ReportedBy, out.Manual.ReportedAt, out.Manual.RanAt, out.Manual.Note = said.By.Subject, said.At.UTC(), utc(said.RanAt), said.Note
		}
	}
	if e := s.Error; e != nil {
		out.Error = StepError{Code: e.Code, Detail: e.Detail, NextAction: e.Action}
	}
	return out
}
