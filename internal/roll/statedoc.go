package roll

import (
	"fmt"
	"strings"
)

// about says a state to people: what it means, and what they see or do.
type about struct{ means, see string }

func aboutState(s State) about {
	switch s {
	case AwaitingApproval:
		return about{"The plan waits for a person other than the one who asked for it (or made it anew).", "The plan, its hash and until when it may be approved. Approve or reject it; nothing has been touched by this plan."}
	case Scheduled:
		return about{"Approved, and waits for its start time.", "When it begins. It can be cancelled."}
	case Running:
		return about{"Keyroll works on it, or waits for Microsoft, for the queue, for the gap or for a key's nbf.", "Each step, what it waits for, the percent that SharePoint shows, and when the next look is due."}
	case NeedsAttention:
		return about{"Something was seen that Keyroll must not decide alone. Nothing new begins; what is under way at Microsoft is watched to its end, and the right to SharePoint goes back as soon as nothing is.", "What was seen and the next action: retry, replan, cancel, or abandon by two people."}
	case Cancelling:
		return about{"Cancelled while an operation was under way. It is watched to its end; nothing new begins.", "What is still under way. It ends by itself, or by a retry where a step halted, or by abandoning it."}
	case Succeeded:
		return about{"Every step of the last round succeeded.", "The outcome: the weakest evidence of its policies. Without it, \"succeeded\" says nothing about what Microsoft confirmed."}
	case Failed:
		return about{"Ended without reaching its aim; end_code says why (abandoned).", "The versions left behind. An operation that was under way is watched by nobody now, and its SharePoint lease stays until two people release it."}
	case Cancelled:
		return about{"Ended by a person, or because nobody approved in time (approval_expired).", "The versions left behind, which the next plan offers to adopt."}
	case Rejected:
		return about{"A person refused the plan.", "Who, and why."}
	}
	return about{}
}

func aboutStep(s StepState) string {
	switch s {
	case StepPending:
		return "Waits for the steps before it. The lease step returns here when the roll stops."
	case StepReady:
		return "May begin: now, at next_attempt_at, when its gap or nbf has passed, or when the lease is held again."
	case StepRunning:
		return "Claimed by a worker under the step's epoch."
	case StepWaiting:
		return "Waits for time, for the queue, for Microsoft or for a person; waiting_for says which."
	case StepNeedsAttention:
		return "Halted; the roll's attention says why and what to do."
	case StepSucceeded:
		return "Done. Only the lease step goes back from here, since the right is given back when the roll stops."
	case StepFailed:
		return "Reserved: no rule leads here yet."
	case StepSkipped:
		return "Belonged to a plan that another one replaced."
	case StepCancelled:
		return "Had not ended when the roll did."
	}
	return ""
}

// eventDocs says each event: who causes it, in which states it is taken, what follows.
func eventDocs() [][4]string {
	return [][4]string{
		{Approve{}.Type(), "a person, neither the requester nor who planned", "awaiting_approval", "running, or scheduled before start_at"},
		{Reject{}.Type(), "a person, neither the requester nor who planned", "awaiting_approval", "rejected"},
		{Cancel{}.Type(), "anybody allowed to", "awaiting_approval, scheduled, running, needs_attention", "cancelled when nothing is under way, else cancelling"},
		{Retry{}.Type(), "anybody allowed to; with assume a person", "needs_attention, cancelling", "halted steps are ready again; running once none is halted; an abandon that waits for its second person is withdrawn"},
		{Replan{}.Type(), "anybody allowed to", "needs_attention, awaiting_approval; nothing unsettled or unproven", "awaiting_approval with a new round of steps; an abandon that waits for its second person is withdrawn"},
		{GiveUp{}.Type(), "two persons, one after the other", "running, needs_attention, cancelling", "failed (abandoned) at the second"},
		{Due{}.Type(), "time", "scheduled", "running"},
		{ApprovalExpired{}.Type(), "time", "awaiting_approval", "cancelled (approval_expired)"},
		{Begun{}.Type(), "a worker", "running; in needs_attention and cancelling only to settle or to watch", "the step runs under a new epoch; an effect has an open intent"},
		{Done{}.Type(), "the worker at the step's epoch", "any with the step running or waiting", "the step succeeded; the roll too, with its last step"},
		{Waits{}.Type(), "the worker at the step's epoch", "any with the step running or waiting", "the step waits"},
		{Polled{}.Type(), "a look", "any with the step waiting", "the next look is due later; no change of state"},
		{WillRetry{}.Type(), "the worker at the step's epoch", "any with the step running or waiting", "the step is ready again, later"},
		{Halted{}.Type(), "the worker at the step's epoch", "any with the step running or waiting", "the step halts; a running roll needs attention"},
		{Crashed{}.Type(), "Keyroll", "any with a step running under the worker", "its epochs grow, its steps are ready; the fifth crash in a row halts"},
		{PlanChanged{}.Type(), "preflight", "running", "awaiting_approval with a new round; needs_attention where the new plan has errors"},
		{Offered{}.Type(), "the worker at the step's epoch, for a manual step", "any with the step running or waiting", "the step waits for a person (manual_step) with its intent open: the line may be run at any time from here; in a roll that stopped before it was shown, it is not shown"},
		{Reported{}.Type(), "a person", "running, needs_attention, cancelling; a step that shows a line", "done: looked at, then the step ends or halts; not_done: the intent is closed, and a running roll shows the line again"},
		{LeaseGranted{}.Type(), "the lease step", "any with the step running or waiting", "the step succeeded; given back at once if the roll stopped meanwhile"},
		{EvidenceSeen{}.Type(), "Keyroll, from Key Vault's diagnostic log", "succeeded", "no change of state or outcome: beside the policy's evidence at the end (accepted, attested) stands that it is in_use"},
		{LeaseQueued{}.Type(), "the lease step", "any with the step running or waiting", "the step waits in the queue"},
	}
}

// StateMachineDoc is docs/state_machine.md, made from the tables of this package.
func StateMachineDoc() (string, error) {
	var b strings.Builder
	b.WriteString(`# The states of a roll

Generated from internal/roll; a test compares it, and KEYROLL_UPDATE=1 rewrites it.

Roll.Apply is the only place that decides what may happen to a roll. An event that it refuses changes nothing.

## Roll states

| state | what it means | what a user sees, and can do |
|---|---|---|
`)
	for _, s := range States() {
		a := aboutState(s)
		name := "`" + string(s) + "`"
		if s.Final() {
			name += " (final)"
		}
		fmt.Fprintf(&b, "| %s | %s | %s |\n", name, a.means, a.see)
	}
	b.WriteString("\n```mermaid\nstateDiagram-v2\n  [*] --> awaiting_approval\n  [*] --> scheduled: no approval needed\n  [*] --> running: no approval needed\n")
	for _, e := range Edges() {
		fmt.Fprintf(&b, "  %s --> %s\n", e.From, e.To)
	}
	for _, s := range States() {
		if s.Final() {
			fmt.Fprintf(&b, "  %s --> [*]\n", s)
		}
	}
	b.WriteString("```\n\n## Step states\n\n| state | what it means | may become |\n|---|---|---|\n")
	for _, s := range StepStates() {
		var to []string
		for _, e := range StepEdges() {
			if e.From == string(s) {
				to = append(to, "`"+e.To+"`")
			}
		}
		if len(to) == 0 {
			to = []string{"–"}
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s |\n", s, aboutStep(s), strings.Join(to, ", "))
	}
	b.WriteString("\n## Events\n\n| event | by | taken in | what follows |\n|---|---|---|---|\n")
	for _, e := range eventDocs() {
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", e[0], e[1], e[2], e[3])
	}
	b.WriteString(`
## Rules that the table cannot show

- A worker's event carries its step's epoch; an older one is refused (stale_epoch).
- An effect's intent is open from step_begun until its end is known. In needs_attention and cancelling no new intent is written.
- An operation's id is the same in every attempt; its round grows only when it is known not to have been applied.
- A manual step that has been shown counts as an operation that may be under way until a person reports: cancel waits for the report, replan is refused, and the SharePoint lease stays.
- A runbook job that may still run is never followed by a second one; its name is the operation's id.
- A SharePoint operation whose answer was lost, and of which nobody can tell whether it took effect, is never sent again before a person has said that it did not.
- The SharePoint lease goes back when its chain has ended, or when the roll stops with nothing in flight; the steps under it wait until it is held again.
- The second key of a SharePoint geo waits for the gap after the last operation there; a refresh or a SharePoint roll waits for the nbf of what it puts to use.
`)
	if err := waysDoc(&b); err != nil {
		return "", err
	}
	happeningsDoc(&b)
	return b.String(), nil
}
