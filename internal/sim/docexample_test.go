package sim_test

import (
	"encoding/json"
	"regexp"
	"strings"
	"testing"

	"github.com/keyroll/keyroll/internal/sim"
)

// example is a JSON block of the manual: what it is, the text, and what is
// said of it right below.
type example struct{ kind, text, below string }

func examples(t *testing.T) []example {
	t.Helper()
	block := regexp.MustCompile("(?ms)^```json ?([a-z]*)\n(.*?)^```\n\n?([^\n]*)")
	var out []example
	for _, m := range block.FindAllStringSubmatch(readManual(t), -1) {
		out = append(out, example{m[1], m[2], m[3]})
	}
	return out
}

// What the manual shows loads; what it shows as refused is refused with the
// line, column and reason that it says.
func TestManualExamples(t *testing.T) {
	seen := map[string]int{}
	for _, e := range examples(t) {
		seen[e.kind]++
		switch e.kind {
		case "scenario":
			s, err := sim.ReadScenario("example.json", []byte(e.text))
			if err != nil {
				t.Error(err)
				continue
			}
			if _, err := sim.Start(t.Context(), sim.Options{Seed: s.Seed(), Scenario: &s}); err != nil {
				t.Errorf("%s: %v", s.Name, err)
			}
		case "refused":
			want := strings.Trim(e.below, "`")
			if _, err := sim.ReadScenario("mine.json", []byte(e.text)); err == nil || err.Error() != want {
				t.Errorf("%s\nis refused with\n%v\nand the manual says\n%s", e.text, err, want)
			}
		case "fault":
			var f sim.Fault
			w, err := sim.New(sim.ContosoSeed())
			if err == nil {
				err = json.Unmarshal([]byte(e.text), &f)
			}
			if err == nil {
				_, err = w.AddFault(f)
			}
			if err != nil {
				t.Error(err)
			}
		default:
			t.Errorf("a JSON block of kind %q, which nothing checks:\n%s", e.kind, e.text)
		}
	}
	if seen["scenario"] < 2 || seen["refused"] < 3 || seen["fault"] < 1 {
		t.Errorf("found %v", seen)
	}
}
