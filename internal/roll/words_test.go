package roll_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/keyroll/keyroll/internal/roll"
)

const someHash = "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"

var someTime = time.Date(2026, 1, 31, 8, 0, 0, 0, time.UTC)

// someRollIn is a roll in a state, as far as its next action asks.
func someRollIn(s roll.State) roll.Roll {
	soon := someTime.Add(time.Hour)
	return roll.Roll{ID: rollID, State: s, Plan: roll.Plan{Hash: someHash}, Request: roll.Request{StartAt: &soon}, ApprovalExpires: &soon}
}

// Every state says what a human must do; what needs nobody says so.
func TestNextActionOfEveryState(t *testing.T) {
	says := map[roll.State]string{
		roll.AwaitingApproval: "Another person with the role approver approves plan " + someHash, roll.Scheduled: "begins at 2026-01-31T09:00:00Z",
		roll.Running: "goes on by itself", roll.NeedsAttention: "POST /v1/rolls/" + rollID + "/retry", roll.Cancelling: "watched to its end",
		roll.Succeeded: "not known (outcome unknown)", roll.Failed: "request a new roll", roll.Cancelled: "was cancelled", roll.Rejected: "was refused",
	}
	for _, s := range roll.States() {
		got := someRollIn(s).NextAction(someTime, roll.DefaultBounds())
		if says[s] == "" || !strings.Contains(got, says[s]) {
			t.Errorf("%s: %q", s, got)
		}
	}
	if got := someRollIn("paused").NextAction(someTime, roll.DefaultBounds()); !strings.Contains(got, "unknown") {
		t.Errorf("unknown state: %q", got)
	}
}

// No end is called well without its outcome.
func TestNextActionOfEveryOutcome(t *testing.T) {
	for _, e := range []roll.Evidence{roll.Confirmed, roll.InUse, roll.Accepted, roll.Attested, roll.Unknown, ""} {
		r := someRollIn(roll.Succeeded)
		r.Outcome = e
		got := r.NextAction(someTime, roll.DefaultBounds())
		if want := "outcome " + string(e); !strings.Contains(got, want) || !strings.Contains(got, "Keep every older key version") {
			t.Errorf("%s: %q", e, got)
		}
	}
}

func TestNextActionOfEveryWait(t *testing.T) {
	soon, percent := someTime.Add(time.Minute), 40.0
	says := map[string]string{
		roll.WaitQueue: "queue at place 2", roll.WaitGap: "keeps the pause", roll.WaitExternal: "did not begin", roll.WaitNotBefore: "not valid yet",
		roll.WaitMicrosoft: "Rolling, 40%", roll.WaitSettle: "was lost", roll.WaitOwnUnproven: "an operation under way (Rolling)", roll.WaitWindow: "next change window at 2026", roll.WaitFreeze: "a freeze of the tenant", "": "failed (keyvault_throttled) and is tried again at 2026-01-31T08:01:00Z",
	}
	for what, want := range says {
		r := someRollIn(roll.Running)
		r.Steps = []roll.Step{{
			N: 1, State: roll.StepWaiting, WaitingFor: what, Position: 2, Seen: "Rolling", Percent: &percent, NextAttemptAt: &soon,
			Error: &roll.StepError{Code: "keyvault_throttled"},
		}}
		if got := r.NextAction(someTime, roll.DefaultBounds()); !strings.HasPrefix(got, "Nothing") || !strings.Contains(got, want) {
			t.Errorf("%s: %q", what, got)
		}
	}
}

func TestNextActionAddsWhatElseThereIs(t *testing.T) {
	b := roll.DefaultBounds()
	long := someTime.Add(-time.Hour)
	stuck := someRollIn(roll.Running)
	stuck.Steps = []roll.Step{{N: 1, Kind: roll.RefreshPolicy, State: roll.StepRunning, ProgressAt: &long}}
	halted := someRollIn(roll.Cancelling)
	halted.Attention = &roll.Attention{Action: "wait for Microsoft's recovery to end."}
	asked := someRollIn(roll.NeedsAttention)
	asked.Attention, asked.Abandon = &roll.Attention{Action: "grant the role"}, &roll.Abandon{By: roll.Actor{Subject: "olga"}}
	expired := someRollIn(roll.Cancelled)
	expired.EndCode, expired.LeftBehind = "approval_expired", []roll.Made{{}}
	gone := someRollIn(roll.Failed)
	gone.EndCode, gone.Steps = "abandoned", []roll.Step{{N: 1, Kind: roll.SharePointRollKey, IntentOpen: true, State: roll.StepCancelled}}
	for name, c := range map[string]struct {
		roll roll.Roll
		says []string
	}{
		"stuck":      {stuck, []string{"has not moved since 2026-01-31T07:00:00Z"}},
		"halted":     {halted, []string{"Wait for Microsoft's recovery to end; then POST"}},
		"abandoning": {asked, []string{"Grant the role; then POST", "/replan", "olga asked to abandon it: a second person confirms"}},
		"expired":    {expired, []string{"Nobody approved", "leaves 1 key version(s) behind"}},
		"abandoned":  {gone, []string{"nobody watches it", "release it with two people"}},
	} {
		got := c.roll.NextAction(someTime, b)
		if slices.ContainsFunc(c.says, func(s string) bool { return !strings.Contains(got, s) }) {
			t.Errorf("%s: %q", name, got)
		}
	}
}
