package roll_test

import (
	"strings"
	"testing"

	"github.com/keyroll/keyroll/internal/roll"
)

func TestPreflightDoc(t *testing.T) {
	doc := roll.PreflightDoc()
	for _, line := range strings.Split(doc, "\n") {
		if strings.Contains(line, "|  |") {
			t.Errorf("an empty cell: %s", line)
		}
	}
	for _, k := range roll.FindingKinds() {
		if !strings.Contains(doc, "| `"+k.Code+"` | "+string(k.Level)) {
			t.Errorf("%s is not in the document", k.Code)
		}
	}
	golden(t, "../../docs/preflight.md", doc)
}
