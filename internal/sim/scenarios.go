package sim

import (
	"embed"
	"fmt"
	"io/fs"
	"strings"
)

//go:embed scenarios/*.json
var scenarioFiles embed.FS

// Scenarios returns those that come with the simulator, by name.
func Scenarios() []Scenario {
	files, err := fs.ReadDir(scenarioFiles, "scenarios")
	if err != nil {
		panic(fmt.Sprintf("sim: embedded scenarios: %v", err)) // a build error, seen by every test
	}
	var out []Scenario
	for _, f := range files {
		s, ok := ScenarioNamed(strings.TrimSuffix(f.Name(), ".json"))
		if ok {
			out = append(out, s)
		}
	}
	return out
}

// ScenarioNamed returns one that comes with the simulator.
func ScenarioNamed(name string) (Scenario, bool) {
	if !scenarioName.MatchString(name) {
		return Scenario{}, false
	}
	text, err := scenarioFiles.ReadFile("scenarios/" + name + ".json")
	if err != nil {
		return Scenario{}, false
	}
	s, err := ReadScenario("scenarios/"+name+".json", text)
	if err != nil {
		panic(fmt.Sprintf("sim: embedded scenario: %v", err)) // a build error, seen by every test
	}
	return s, true
}
