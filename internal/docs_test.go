package internal_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/keyroll/keyroll/internal/jobs"
	"github.com/keyroll/keyroll/internal/roll"
)

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("..", path))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// TestLinksLeadSomewhere: every relative link of the documents is a file.
func TestLinksLeadSomewhere(t *testing.T) {
	link := regexp.MustCompile(`\]\(([^)#:]+)\)`)
	found := 0
	for _, doc := range []string{"README.md", "ARCHITECTURE.md", "CHANGELOG.md", "docs/configuration.md", "docs/clouds.md", "docs/live-tests.md", "docs/key-sources.md", "docs/preflight.md", "docs/simulator.md", "docs/runbooks/KeyrollRollStuck.md"} {
		for _, m := range link.FindAllStringSubmatch(read(t, doc), -1) {
			found++
			if _, err := os.Stat(filepath.Join("..", filepath.Dir(doc), m[1])); err != nil {
				t.Errorf("%s links to %s: %v", doc, m[1], err)
			}
		}
	}
	if found == 0 {
		t.Error("no links were found")
	}
}

// TestSettingsNamedInDocumentsExist: no document names a setting that serve does not know.
func TestSettingsNamedInDocumentsExist(t *testing.T) {
	known := read(t, "docs/configuration.md")
	setting := regexp.MustCompile(`KEYROLL_[A-Z_]+[A-Z]`)
	for _, doc := range []string{"README.md", "docs/clouds.md", "docker-compose.yml", "Dockerfile"} {
		for _, name := range setting.FindAllString(read(t, doc), -1) {
			if strings.HasPrefix(name, "KEYROLL_TEST_") || strings.HasPrefix(name, "KEYROLL_VERSION") {
				continue
			}
			if !strings.Contains(known, "`"+name+"`") {
				t.Errorf("%s names %s, which is no setting", doc, name)
			}
		}
	}
}

// TestRunbooks: every alert has a runbook under its own name, and every metric
// that a rule asks about is one that the service has.
func TestRunbooks(t *testing.T) {
	rules := read(t, "deploy/prometheus/rules/keyroll.yml")
	url := regexp.MustCompile(`runbook_url: *"?https://github.com/keyroll/keyroll/blob/main/(docs/runbooks/(\w+)\.md)`)
	alerts := regexp.MustCompile(`alert: (\w+)`).FindAllStringSubmatch(rules, -1)
	books := url.FindAllStringSubmatch(rules, -1)
	if len(alerts) == 0 || len(alerts) != len(books) {
		t.Fatalf("%d alerts, %d runbooks", len(alerts), len(books))
	}
	for i, a := range alerts {
		if books[i][2] != a[1] {
			t.Errorf("alert %s leads to the runbook of %s", a[1], books[i][2])
		}
		read(t, books[i][1])
	}
	have := map[string]bool{}
	reg := prometheus.NewRegistry()
	jobs.NewMetrics(reg)
	ch := make(chan *prometheus.Desc, 64)
	jobs.NewEstate(nil, roll.DefaultBounds()).Describe(ch)
	close(ch)
	name := regexp.MustCompile(`fqName: "([^"]+)"`)
	for d := range ch {
		have[name.FindStringSubmatch(d.String())[1]] = true
	}
	for _, m := range regexp.MustCompile(`\bkeyroll_[a-z_]+[a-z]\b`).FindAllString(expressions(rules), -1) {
		if !have[m] {
			t.Errorf("a rule asks about %s, which does not exist", m)
		}
	}
}

// expressions are the lines of the rules that ask Prometheus something.
func expressions(rules string) string {
	return strings.Join(regexp.MustCompile(`(?m)^ *expr: .*$`).FindAllString(rules, -1), "\n")
}

// TestReasonCodesAreKnownToTheRunbook: the runbook explains every reason code.
func TestReasonCodesAreKnownToTheRunbook(t *testing.T) {
	book := read(t, "docs/runbooks/KeyrollRollStuck.md")
	for _, code := range roll.StuckReasons() {
		if !strings.Contains(book, "`"+code+"`") {
			t.Errorf("the runbook says nothing of reason code %s", code)
		}
	}
}

// TestAlertRules: promtool checks the rules, and tests that each fires and does not fire.
func TestAlertRules(t *testing.T) {
	promtool, err := exec.LookPath("promtool")
	if err != nil {
		if os.Getenv("KEYROLL_REQUIRE_TOOLS") != "" {
			t.Fatal("promtool is missing: install Debian's package prometheus")
		}
		t.Skip("promtool is missing (Debian's package prometheus has it)")
	}
	for _, args := range [][]string{{"check", "rules", "rules/keyroll.yml"}, {"test", "rules", "tests/keyroll_test.yml"}} {
		cmd := exec.Command(promtool, args...)
		cmd.Dir = filepath.Join("..", "deploy", "prometheus")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
}
