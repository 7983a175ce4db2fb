package roll_test

import (
	"strings"
	"testing"

	"github.com/keyroll/keyroll/internal/roll"
)

func TestStateMachineDoc(t *testing.T) {
	doc, err := roll.StateMachineDoc()
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range strings.Split(doc, "\n") {
		if strings.Contains(line, "|  |") {
			t.Errorf("an empty cell: %s", line)
		}
	}
	for _, ev := range []roll.Event{roll.Approve{}, roll.Reject{}, roll.Cancel{}, roll.Retry{}, roll.Replan{}, roll.GiveUp{}, roll.Due{}, roll.ApprovalExpired{},
		roll.Begun{}, roll.Done{}, roll.Waits{}, roll.Polled{}, roll.WillRetry{}, roll.Halted{}, roll.Crashed{}, roll.PlanChanged{}, roll.LeaseGranted{}, roll.LeaseQueued{}, roll.EvidenceSeen{}} {
		if strings.Count(doc, "| `"+ev.Type()+"` |") != 1 {
			t.Errorf("%s is not in the document once", ev.Type())
		}
		by := roll.By(ev)
		if by.Kind == roll.System && by != roll.Keyroll() {
			t.Errorf("%s is by %v", ev.Type(), by)
		}
	}
	golden(t, "../../docs/state_machine.md", doc)
}
