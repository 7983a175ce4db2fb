package api

import (
	"fmt"
	"strings"
	"time"

	"github.com/keyroll/keyroll/internal/roll"
	"github.com/keyroll/keyroll/internal/store"
)

// whyKeep says why a key version must stay.
func whyKeep(l store.LedgerRow) string {
	who := "A policy may have used this key"
	switch len(l.Policies) {
	case 0:
	case 1:
		who = "Policy " + l.Policies[0] + " uses or used this key"
	default:
		who = "Policies " + strings.Join(l.Policies, ", ") + " use or used this key"
	}
	why := who + ": content may still be encrypted with this version. Never delete or disable it."
	switch KeyVersionState(l.State) {
	case KeyVersionStateDisabled:
		why += " It is disabled now: enable it again."
	case KeyVersionStateMissing:
		why += " The vault does not list it now: recover it while the vault still keeps it, and speak to Microsoft support."
	}
	return why
}

// nextAction says for every state of a roll what a human must do now, or that
// it is nothing and what is waited for. A test holds it against all states.
func nextAction(r roll.Roll, now time.Time, b roll.Bounds) string {
	text := stateAction(r, now, b)
	if r.Abandon != nil && !r.State.Final() {
		text += fmt.Sprintf(" %s asked to abandon it: a second person confirms by POST %s/abandon.", r.Abandon.By.Subject, path(r))
	}
	return text
}

func path(r roll.Roll) string { return "/v1/rolls/" + r.ID }

func stateAction(r roll.Roll, now time.Time, b roll.Bounds) string {
	switch r.State {
	case roll.AwaitingApproval:
		return awaitingAction(r)
	case roll.Scheduled:
		return "Nothing: it begins at " + stamp(r.Request.StartAt) + "."
	case roll.Running:
		return runningAction(r, now, b)
	case roll.NeedsAttention:
		return attentionAction(r)
	case roll.Cancelling:
		if r.Attention != nil {
			return attentionAction(r)
		}
		for i := range r.Steps {
			if s := &r.Steps[i]; s.WaitingFor == roll.WaitManual && s.Offer != nil {
				return fmt.Sprintf("Do not run the line of step %d any more. A person reports whether it was run, by POST %s/steps/%d/report; what was begun is watched to its end, and then the roll is cancelled.", s.N, path(r), s.N)
			}
		}
		return "Nothing: an operation under way at Microsoft cannot be stopped; it is watched to its end, and then the roll is cancelled."
	case roll.Succeeded:
		return succeededAction(r) + leftBehindAction(r)
	case roll.Failed:
		return failedAction(r) + leftBehindAction(r)
	case roll.Cancelled:
		if r.EndCode == "approval_expired" {
			return "Nobody approved the plan in time: request the roll again if it is still wanted." + leftBehindAction(r)
		}
		return "Nothing: it was cancelled. Request a new roll if it is wanted after all." + leftBehindAction(r)
	case roll.Rejected:
		return "Nothing: the plan was refused. Request a new roll if it is wanted after all." + leftBehindAction(r)
	}
	return fmt.Sprintf("State %q is unknown to this server: upgrade it.", r.State)
}

func awaitingAction(r roll.Roll) string {
	until := ""
	if r.ApprovalExpires != nil {
		until = " before " + stamp(r.ApprovalExpires)
	}
	return fmt.Sprintf("Another person with the role approver approves plan %s%s by POST %s/approve, or rejects it by POST %s/reject.", r.Plan.Hash, until, path(r), path(r))
}

func attentionAction(r roll.Roll) string {
	what := "See what its halted step shows"
	if r.Attention != nil && r.Attention.Action != "" {
		what = strings.TrimRight(r.Attention.Action, ".")
	}
	ways := "then POST " + path(r) + "/retry"
	if r.State == roll.NeedsAttention {
		ways += " (goes on as planned) or " + path(r) + "/replan (a new plan, which needs a new approval)"
	}
	return capital(what) + "; " + ways + "."
}

// runningAction says what a running roll waits for: of the steps that are not
// at work, the one that has waited longest speaks for all.
func runningAction(r roll.Roll, now time.Time, b roll.Bounds) string {
	for i := range r.Steps {
		// Only a person moves this one, however long it has waited.
		if s := &r.Steps[i]; s.WaitingFor == roll.WaitManual && s.Offer != nil {
			return manualAction(r, *s)
		}
	}
	if still := r.Stuck(now, b); len(still) > 0 {
		return fmt.Sprintf("Step %d (%s) has not moved since %s: look at its error and at what it last saw, and at Microsoft; cancel or abandon the roll if it will not go on.",
			still[0].Step, still[0].Kind, stamp(&still[0].Since))
	}
	var waiting, working *roll.Step
	for i := range r.Steps {
		s := &r.Steps[i]
		switch {
		case s.State == roll.StepRunning && working == nil:
			working = s
		case (s.State == roll.StepWaiting || s.State == roll.StepReady && s.NextAttemptAt != nil && s.NextAttemptAt.After(now)) && waiting == nil:
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

func waitingAction(r roll.Roll, s roll.Step) string {
	switch s.WaitingFor {
	case roll.WaitQueue:
		return fmt.Sprintf("Nothing: it waits in the SharePoint queue at place %d; other rolls of the tenant go first.", s.Position)
	case roll.WaitGap:
		return "Nothing: it keeps the pause between the SharePoint keys of geo " + s.Geo + until(s) + "."
	case roll.WaitExternal:
		return "Nothing: a SharePoint key operation that Keyroll did not begin is under way (" + s.Seen + "), and is waited for."
	case roll.WaitNotBefore:
		return "Nothing: the new key version is not valid yet; it waits" + until(s) + "."
	case roll.WaitManual:
		return manualAction(r, s)
	case roll.WaitRunbook:
		return fmt.Sprintf("Nothing: the runbook job of step %d is under way (%s); it is waited for and never sent twice.", s.N, s.Seen)
	case roll.WaitMicrosoft:
		text := "Nothing: Microsoft is at work on step " + fmt.Sprint(s.N) + " (" + s.Seen
		if s.Percent != nil {
			text += fmt.Sprintf(", %.0f%%", *s.Percent)
		}
		return text + "), which may take days."
	case roll.WaitSettle, roll.WaitOwnUnproven:
		return fmt.Sprintf("Nothing: the answer to step %d was lost; Keyroll looks what became of it before it does anything else%s.", s.N, until(s))
	}
	if s.Error != nil {
		return fmt.Sprintf("Nothing yet: step %d failed (%s) and is tried again%s.", s.N, s.Error.Code, until(s))
	}
	return fmt.Sprintf("Nothing: step %d (%s) begins%s.", s.N, s.Title, until(s))
}

// manualAction says what a person runs, and how its end is reported.
func manualAction(r roll.Roll, s roll.Step) string {
	if s.Offer == nil {
		return fmt.Sprintf("Nothing: step %d (%s) begins%s.", s.N, s.Title, until(s))
	}
	check := ""
	if s.Offer.Check != "" {
		check = "look with " + s.Offer.Check + " that nothing has changed, "
	}
	return fmt.Sprintf("Step %d is done by hand: in a session of %s %srun %s once; then a person reports the outcome by POST %s/steps/%d/report.",
		s.N, s.Offer.Connect, check, s.Offer.Line, path(r), s.N)
}

func until(s roll.Step) string {
	if s.NextAttemptAt == nil {
		return ""
	}
	return " at " + stamp(s.NextAttemptAt)
}

// succeededAction never lets an end stand without its evidence (rule 9).
func succeededAction(r roll.Roll) string {
	const keep = " Keep every older key version enabled, for ever."
	switch r.Outcome {
	case roll.Confirmed:
		return "Nothing: Microsoft was seen to use the new versions (outcome confirmed)." + keep
	case roll.InUse:
		return "Nothing: the vaults' logs show Microsoft wrapping with the new versions (outcome in_use)." + keep
	case roll.Accepted:
		return "Nothing: Microsoft took every call, and documents no signal that its work is done (outcome accepted)." + keep
	case roll.Attested:
		return "Nothing: a named person says that it is so (outcome attested)." + keep
	}
	return "Look at Microsoft what became of it: its end is not known (outcome unknown)." + keep
}

func failedAction(r roll.Roll) string {
	if r.EndCode != "abandoned" {
		return "Look at the steps' errors, mend what they name, and request a new roll."
	}
	text := "Look at Microsoft what became of it: nobody watches it any more."
	if r.InFlight("") {
		text += " A SharePoint operation may still be under way, and the roll keeps the SharePoint lease: release it with two people when SharePoint shows no operation."
	}
	return text
}

func leftBehindAction(r roll.Roll) string {
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
