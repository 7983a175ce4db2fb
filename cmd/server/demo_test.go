package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"github.com/keyroll/keyroll/internal/api"
	"github.com/keyroll/keyroll/internal/pgtest"
)

// The newcomer's command, to its end, on a server that is given.
func TestDemo(t *testing.T) {
	t.Parallel()
	server := pgtest.OpenEmpty(t)
	code, stdout, stderr := shell(t.Context(), nil, "demo", "--json", "--database-url", server)
	if code != exitDone {
		t.Fatalf("code %d\n%s", code, stderr)
	}
	out := strings.Split(strings.TrimSuffix(stdout, "\n"), "\n")
	var got map[string]any
	must(t, json.Unmarshal([]byte(out[len(out)-1]), &got))
	names := func(v any) []string { return slices.Sorted(maps.Keys(v.(map[string]any))) }
	for what, want := range map[string]struct {
		value any
		names string
	}{
		"all":        {got, "audit keys policies roll seconds sharepoint"},
		"roll":       {got["roll"], "id outcome state"},
		"keys":       {got["keys"].([]any)[0], "name new_version old_version vault versions_created"},
		"policies":   {got["policies"].([]any)[0], "evidence name workload"},
		"sharepoint": {got["sharepoint"], "operations overlaps"},
		"audit":      {got["audit"], "entries verified"},
	} {
		if diff := cmp.Diff(strings.Fields(want.names), names(want.value)); diff != "" {
			t.Errorf("members of %s (-want +got):\n%s", what, diff)
		}
	}
	var s summary
	must(t, json.Unmarshal([]byte(out[len(out)-1]), &s))
	if len(s.wrong()) > 0 || len(s.Keys) != 6 || len(s.Policies) != 3 || s.SharePoint.Operations != 2 || s.Roll.Outcome != "accepted" || s.Audit.Entries == 0 || s.Seconds > 60 {
		t.Errorf("summary %+v, wrong: %v", s, s.wrong())
	}
	for _, want := range []string{"Contoso-SPO-B-Key001", "ACCEPTED", "CONFIRMED", "the audit log is whole", "step 16", "50 %"} {
		if !strings.Contains(strings.ToLower(stderr), strings.ToLower(want)) {
			t.Errorf("%q is not shown in:\n%s", want, stderr)
		}
	}
	if strings.Contains(stdout+stderr, "krp_") {
		t.Error("a token is shown without --keep")
	}
	conn, err := pgx.Connect(t.Context(), server)
	must(t, err)
	defer conn.Close(context.WithoutCancel(t.Context()))
	var left int
	must(t, conn.QueryRow(t.Context(), `SELECT count(*) FROM pg_database WHERE datname LIKE 'keyroll\_demo\_%'`).Scan(&left))
	if left != 0 {
		t.Errorf("%d databases stay behind", left)
	}
}

// binary is the program as people build it.
func binary(t *testing.T) string {
	t.Helper()
	if testing.Short() {
		t.Skip("builds the program")
	}
	exe := filepath.Join(t.TempDir(), "server")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", exe, ".").CombinedOutput(); err != nil {
		t.Fatalf("building: %v\n%s", err, out)
	}
	return exe
}

// No machine code that deletes or changes a key version is in the program, not
// even where the page's templates could reach it by reflection.
func TestNoDestructiveMethodIsLinked(t *testing.T) {
	t.Parallel()
	symbols, err := exec.CommandContext(t.Context(), "go", "tool", "nm", binary(t)).Output()
	must(t, err)
	for _, linked := range []string{`azkeys\.\(\*Client\)\.CreateKey\b`, `html/template\.\(\*Template\)\.Execute\b`, `internal/web\.Page`} {
		if !regexp.MustCompile(linked).Match(symbols) {
			t.Fatalf("%s is not linked: the test proves nothing", linked)
		}
	}
	destructive := regexp.MustCompile(`azkeys\.\(\*Client\)\.(DeleteKey|PurgeDeletedKey|RecoverDeletedKey|RestoreKey|BackupKey|UpdateKey|ImportKey|RotateKey|UpdateKeyRotationPolicy|Release|Decrypt|Encrypt|Sign|UnwrapKey|WrapKey)\b`)
	if found := destructive.FindAllString(string(symbols), -1); len(found) > 0 {
		t.Errorf("linked: %q", found)
	}
}

// Ctrl-C in the middle of a roll leaves nothing: no PostgreSQL, no files.
func TestDemoInterrupted(t *testing.T) {
	t.Parallel()
	if os.Getenv("KEYROLL_TEST_DATABASE_URL") != "" {
		t.Skip("a PostgreSQL of its own cannot be expected here")
	}
	cmd := exec.CommandContext(t.Context(), binary(t), "demo")
	tmp := t.TempDir()
	cmd.Env = append(os.Environ(), "TMPDIR="+tmp)
	out := newLines()
	cmd.Stdout, cmd.Stderr = out, out
	must(t, cmd.Start())
	eventually(t, "rolling", func() bool { return strings.Contains(out.String(), "step 13") })
	children := childrenOf(t, cmd.Process.Pid)
	if len(children) == 0 {
		t.Errorf("no PostgreSQL runs:\n%s", out)
	}
	must(t, cmd.Process.Signal(syscall.SIGINT))
	err := cmd.Wait()
	if cmd.ProcessState.ExitCode() != exitFailed || !strings.Contains(out.String(), "interrupted") {
		t.Errorf("%v\n%s", err, out)
	}
	for _, pid := range children {
		if _, err := os.Stat("/proc/" + pid); err == nil {
			t.Errorf("process %s is still there", pid)
		}
	}
	left, err := filepath.Glob(filepath.Join(tmp, "*"))
	must(t, err)
	if len(left) > 0 {
		t.Errorf("left over: %v", left)
	}
}

// childrenOf lists the processes whose parent is pid.
func childrenOf(t *testing.T, pid int) (out []string) {
	t.Helper()
	all, err := filepath.Glob("/proc/[0-9]*/stat")
	must(t, err)
	for _, path := range all {
		raw, err := os.ReadFile(path)
		if err != nil {
			continue // it has ended meanwhile
		}
		_, rest, _ := strings.Cut(string(raw), ") ")
		if f := strings.Fields(rest); len(f) > 1 && f[1] == fmt.Sprint(pid) {
			out = append(out, filepath.Base(filepath.Dir(path)))
		}
	}
	return out
}

// sampleRoll is a roll in the middle of its SharePoint part.
func sampleRoll(percent float64) api.Roll {
	begun := time.Now().Add(-3 * time.Second)
	return api.Roll{ID: "01a20b05-eb7b-7a0b-b994-e1273bd5f4db", State: api.RollStateRunning, Steps: []api.Step{
		{N: 1, Title: "Check everything", State: api.StepStateSucceeded, StartedAt: begun, EndedAt: begun.Add(40 * time.Millisecond)},
		{N: 2, Title: strings.Repeat("A very long title ", 9), State: api.StepStateWaiting, WaitingFor: "microsoft", Percent: &percent, StartedAt: begun},
		{N: 3, Title: "Halted", State: api.StepStateNeedsAttention, Error: api.StepError{Code: strings.Repeat("some_code_", 9)}},
		{N: 4, Title: "Later", State: api.StepStatePending},
	}}
}

var ansi = regexp.MustCompile("\x1b\\[[0-9;]*[A-Za-z]")

// Drawn over, no line may be wider than the terminal: it would be counted wrong.
func TestViewFitsTheTerminal(t *testing.T) {
	t.Parallel()
	for _, width := range []int{40, 60, 80, 100, 200} {
		var b bytes.Buffer
		v := newView(&b, width, 40, true)
		v.show(sampleRoll(40))
		if v.drawn != 5 || strings.Contains(b.String(), "\x1b[5A") {
			t.Errorf("first drawing: %d lines\n%q", v.drawn, b.String())
		}
		v.show(sampleRoll(60))
		if !strings.Contains(b.String(), "\x1b[5A") {
			t.Errorf("it does not draw over: %q", b.String())
		}
		for line := range strings.SplitSeq(ansi.ReplaceAllString(b.String(), ""), "\n") {
			if n := len([]rune(strings.TrimPrefix(line, "\r"))); n > width {
				t.Errorf("width %d: %d columns: %q", width, n, line)
			}
		}
	}
}

// Plain lines: one for each change, and for each quarter of the way.
func TestViewTellsChangesOnly(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	v := newView(&b, 100, 40, false)
	for _, percent := range []float64{0, 1, 10, 30, 31, 60, 80, 99} {
		v.show(sampleRoll(percent))
		polling := sampleRoll(percent)
		polling.Steps[1].State, polling.Steps[1].WaitingFor = api.StepStateRunning, ""
		polling.Steps[1].Attempt++
		v.show(polling)
	}
	got := b.String()
	if n := strings.Count(got, "\n"); n != 6 {
		t.Errorf("%d lines, want 1 of step 1, 4 of step 2, 1 of step 3:\n%s", n, got)
	}
	if strings.Contains(got, "\x1b") || strings.Contains(got, "Later") {
		t.Errorf("told:\n%s", got)
	}
}

func TestSummaryNamesWhatIsWrong(t *testing.T) {
	t.Parallel()
	good := summary{Roll: rollSummary{State: "succeeded"}, Keys: []keySummary{{NewVersion: "n", OldVersion: "o", VersionsCreated: 1}},
		Policies: []policySummary{{Evidence: "accepted"}}, Audit: auditSummary{Verified: true}}
	if wrong := good.wrong(); len(wrong) != 0 {
		t.Errorf("wrong: %v", wrong)
	}
	for name, spoil := range map[string]func(*summary){
		"state":      func(s *summary) { s.Roll.State = "failed" },
		"no keys":    func(s *summary) { s.Keys = nil },
		"two made":   func(s *summary) { s.Keys = []keySummary{{NewVersion: "n", VersionsCreated: 2}} },
		"not rolled": func(s *summary) { s.Keys = []keySummary{{NewVersion: "o", OldVersion: "o", VersionsCreated: 1}} },
		"evidence":   func(s *summary) { s.Policies = []policySummary{{Evidence: "attested"}} },
		"overlap":    func(s *summary) { s.SharePoint.Overlaps = 1 },
		"violation":  func(s *summary) { s.violations = 1 },
		"audit":      func(s *summary) { s.Audit.Verified = false },
	} {
		bad := good
		spoil(&bad)
		if len(bad.wrong()) != 1 {
			t.Errorf("%s: wrong = %v", name, bad.wrong())
		}
	}
}
