package roll

import (
	"fmt"
	"strings"
	"time"
)

// NextAction says for every state of a roll what a human must do now, or that
// it is nothing and what is waited for: the words that API, page and
// docs/state_machine.md share. A test holds them against all states.
func (r Roll) NextAction(now time.Time, b Bounds) string {
	text := stateAction(r, now, b)
	if r.Abandon != nil && !r.State.Final() {
		text += fmt.Sprintf(" %s asked to abandon it: a second person confirms by POST %s/abandon.", r.Abandon.By.Subject, path(r))
	}
	return text
}

func path(r Roll) string { return "/v1/rolls/" + r.ID }

func stateAction(r Roll, now time.Time, b Bounds) string {
	switch r.State {
	case AwaitingApproval:
		return awaitingAction(r)
	case Scheduled:
		return "Nothing: it begins at " + stamp(r.Request.StartAt) + "."
	case Running:
		return runningAction(r, now, b)
	case NeedsAttention:
		return attentionAction(r)
	case Cancelling:
		if r.Attention != nil {
			return attentionAction(r)
		}
		for i := range r.Steps {
			if s := &r.Steps[i]; s.WaitingFor == WaitManual && s.Offer != nil {
				return fmt.Sprintf("Do not run the line of step %d any more. A person reports whether it was run, by POST %s/steps/%d/report; what was begun is watched to its end, and then the roll is cancelled.", s.N, path(r), s.N)
			}
		}
		return "Nothing: an operation under way at Microsoft cannot be stopped; it is watched to its end, and then the roll is cancelled."
	case Succeeded:
		return succeededAction(r) + leftBehindAction(r)
	case Failed:
		return failedAction(r) + leftBehindAction(r)
	case Cancelled:
		if r.EndCode == "approval_expired" {
			return "Nobody approved the plan in time: request the roll again if it is still wanted." + leftBehindAction(r)
		}
		return "Nothing: it was cancelled. Request a new roll if it is wanted after all." + leftBehindAction(r)
	case Rejected:
		return "Nothing: the plan was refused. Request a new roll if it is wanted after all." + leftBehindAction(r)
	}
	return fmt.Sprintf("State %q is unknown to this server: upgrade it.", r.State)
}

func awaitingAction(r Roll) string {
	until := ""
	if r.ApprovalExpires != nil {
		until = " before " + stamp(r.ApprovalExpires)
	}
	if r.Emergency() {
		return fmt.Sprintf("An emergency, which goes through windows and freezes (%s): two people with the role approver approve plan %s%s, each by POST %s/approve (%d of %d so far), or one rejects it by POST %s/reject.",
			r.Request.Emergency.Reason, r.Plan.Hash, until, path(r), len(r.Approvals), r.ApprovalsNeeded(), path(r))
	}
	return fmt.Sprintf("Another person with the role approver approves plan %s%s by POST %s/approve, or rejects it by POST %s/reject.", r.Plan.Hash, until, path(r), path(r))
}

func attentionAction(r Roll) string {
	what := "See what its halted step shows"
	if r.Attention != nil && r.Attention.Action != "" {
		what = strings.TrimRight(r.Attention.Action, ".")
	}
	retry := "POST " + path(r) + "/retry"
	if _, ok := r.unproven(); ok {
		return capital(what) + ": " + retry + "."
	}
	ways := "then " + retry
	if r.State == NeedsAttention {
		ways += " (goes on as planned) or " + path(r) + "/replan (a new plan, which needs a new approval)"
	}
	if r.State == NeedsAttention && r.Unsettled() {
		ways += ". A replan must wait: " + r.whenSettled()
	}
	return capital(what) + "; " + ways + "."
}

// runningAction says what a running roll waits for: of the steps that are not
// at work, the one that has waited longest speaks for all.
func runningAction(r Roll, now time.Time, b Bounds) string {
	for i := range r.Steps {
		// Only a person moves this one, however long it has waited.
		if s := &r.Steps[i]; s.WaitingFor == WaitManual && s.Offer != nil {
			return manualAction(r, *s, now)
		}
	}
	if still := r.Stuck(now, b); len(still) > 0 {
		return fmt.Sprintf("Step %d (%s) has not moved since %s: look at its error and at what it last saw, and at Microsoft; cancel or abandon the roll if it will not go on.",
			still[0].Step, still[0].Kind, stamp(&still[0].Since))
	}
	var waiting, working *Step
	for i := range r.Steps {
		s := &r.Steps[i]
		switch {
		case s.State == StepRunning && working == nil:
			working = s
		case (s.State == StepWaiting || s.State == StepReady && s.NextAttemptAt != nil && s.NextAttemptAt.After(now)) && waiting == nil:
			waiting = s
		}
	}
	switch {
	case working != nil:
		return fmt.Sprintf("Nothing: Keyroll is at work on step %d: %s.", working.N, working.Title)
	case waiting != nil:
		return waitingAction(r, *waiting)
	}
	return "Nothing: Keyroll goes on by itself."
}

func waitingAction(r Roll, s Step) string {
	switch s.WaitingFor {
	case WaitQueue:
		return fmt.Sprintf("Nothing: it waits in the SharePoint queue at place %d; other rolls of the tenant go first.", s.Position)
	case WaitGap:
		return "Nothing: it keeps the pause between the SharePoint keys of geo " + s.Geo + until(s) + "."
	case WaitExternal:
		return "Nothing: a SharePoint key operation that Keyroll did not begin is under way (" + s.Seen + "), and is waited for."
	case WaitNotBefore:
		return "Nothing: the new key version is not valid yet; it waits" + until(s) + "."
	case WaitRunbook:
		return fmt.Sprintf("Nothing: the runbook job of step %d is under way (%s); it is waited for and never sent twice.", s.N, s.Seen)
	case WaitMicrosoft:
		text := "Nothing: Microsoft is at work on step " + fmt.Sprint(s.N) + " (" + s.Seen
		if s.Percent != nil {
			text += fmt.Sprintf(", %.0f%%", *s.Percent)
		}
		return text + "), which may take days."
	case WaitWindow:
		return fmt.Sprintf("Nothing: step %d (%s) waits for the tenant's next change window%s.", s.N, s.Title, until(s))
	case WaitFreeze:
		return fmt.Sprintf("Nothing: a freeze of the tenant holds step %d (%s) up%s.", s.N, s.Title, until(s))
	case WaitOwnUnproven:
		return fmt.Sprintf("Nothing: the answer to step %d was lost; SharePoint shows an operation under way (%s), and its end is waited for.", s.N, s.Seen)
	case WaitSettle:
		return fmt.Sprintf("Nothing: the answer to step %d was lost; Keyroll looks what became of it before it does anything else%s.", s.N, until(s))
	}
	if s.Error != nil {
		return fmt.Sprintf("Nothing yet: step %d failed (%s) and is tried again%s.", s.N, s.Error.Code, until(s))
	}
	return fmt.Sprintf("Nothing: step %d (%s) begins%s.", s.N, s.Title, until(s))
}

// manualAction says what a person runs and until when, and how its end is reported.
func manualAction(r Roll, s Step, now time.Time) string {
	report := fmt.Sprintf("POST %s/steps/%d/report", path(r), s.N)
	before := ""
	if u := s.Offer.Until; u != nil {
		if !now.Before(*u) {
			return fmt.Sprintf("Do not run the line of step %d any more: the tenant's calendar closed at %s. A person reports by %s whether it was run; after not_done it is shown again at the next opening.",
				s.N, stamp(u), report)
		}
		before = " before " + stamp(u) + " and not later (the tenant's calendar closes then)"
	}
	check := ""
	if s.Offer.Check != "" {
		check = "look with " + s.Offer.Check + " that nothing has changed, "
	}
	return fmt.Sprintf("Step %d is done by hand: in a session of %s %srun %s once%s; then a person reports the outcome by %s.",
		s.N, s.Offer.Connect, check, s.Offer.Line, before, report)
}

func until(s Step) string {
	if s.NextAttemptAt == nil {
		return ""
	}
	return " at " + stamp(s.NextAttemptAt)
}

// succeededAction never lets an end stand without its evidence (rule 9).
func succeededAction(r Roll) string {
	keep := " Keep every older key version enabled, for ever."
	if len(r.Made) > 0 {
		keep += " Back up the new versions, one copy online and one offline, and attest it (POST /v1/tenants/{id}/backups)."
	}
	switch r.Outcome {
	case Confirmed:
		return "Nothing: Microsoft was seen to use the new versions (outcome confirmed)." + keep
	case InUse:
		return "Nothing: the vaults' logs show Microsoft wrapping with the new versions (outcome in_use)." + keep
	case Accepted:
		return "Nothing: Microsoft took every call, and documents no signal that its work is done (outcome accepted)." + keep
	case Attested:
		return "Nothing: a named person says that it is so (outcome attested)." + keep
	}
	return "Look at Microsoft what became of it: its end is not known (outcome unknown)." + keep
}

func failedAction(r Roll) string {
	if r.EndCode != "abandoned" {
		return "Look at the steps' errors, mend what they name, and request a new roll."
	}
	text := "Look at Microsoft what became of it: nobody watches it any more."
	if r.InFlight("") {
		text += " A SharePoint operation may still be under way, and the roll keeps the SharePoint lease: release it with two people when SharePoint shows no operation."
	}
	return text
}

func leftBehindAction(r Roll) string {
	if len(r.LeftBehind) == 0 {
		return ""
	}
	return fmt.Sprintf(" It leaves %d key version(s) behind that no policy has taken up (left_behind): keep them; the next plan offers to adopt them.", len(r.LeftBehind))
}

func stamp(t *time.Time) string {
	if t == nil {
		return "its time"
	}
	return t.UTC().Format(time.RFC3339)
}

func capital(s string) string {
	if s == "" {
		return s
	}
	return strings.ToUpper(s[:1]) + s[1:]
}
