package sim_test

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/keyroll/keyroll/internal/sim"
)

var update = flag.Bool("update", false, "write the generated parts of docs/simulator.md anew")

const manual = "../../docs/simulator.md"

func readManual(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile(manual)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// generated compares the part of the document between two markers with what
// the code says, or writes it with -update.
func generated(t *testing.T, name, want string) {
	t.Helper()
	text := readManual(t)
	begin, end := "<!-- begin "+name+" -->\n", "<!-- end "+name+" -->"
	head, rest, ok := strings.Cut(text, begin)
	have, tail, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		t.Fatalf("docs/simulator.md has no part between %q and %q", begin, end)
	}
	if have == want {
		return
	}
	if !*update {
		t.Fatalf("the part %q of docs/simulator.md is not what the code says: go test ./internal/sim -run TestManual -update\nwant:\n%s", name, want)
	}
	if err := os.WriteFile(manual, []byte(head+begin+want+end+tail), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestManualHasTheModes(t *testing.T) {
	var b strings.Builder
	b.WriteString("| mode | meets | what happens | params |\n|---|---|---|---|\n")
	for _, m := range sim.Modes() {
		params := ""
		if len(m.Params) > 0 {
			params = "`" + strings.Join(m.Params, "` `") + "`"
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", m.Name, m.Meets, m.Does, params)
	}
	generated(t, "modes", b.String())
}

func TestManualHasTheOperations(t *testing.T) {
	var b strings.Builder
	b.WriteString("| service | operations |\n|---|---|\n")
	for _, s := range sim.Services() {
		fmt.Fprintf(&b, "| `%s` | `%s` |\n", s.Name, strings.Join(s.Operations, "` `"))
	}
	generated(t, "operations", b.String())
}
