package main

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/keyroll/keyroll/internal/sim"
)

func TestSimListsItsScenarios(t *testing.T) {
	t.Parallel()
	code, stdout, stderr := shell(t.Context(), nil, "sim", "--list-scenarios")
	if code != exitDone || stderr != "" {
		t.Fatalf("code %d, %s", code, stderr)
	}
	for _, s := range sim.Scenarios() {
		if !strings.Contains(stdout, s.Name+"\n    ") {
			t.Errorf("%s is not listed:\n%s", s.Name, stdout)
		}
	}
}

func TestSimChecksFiles(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		must(t, os.WriteFile(path, []byte(text), 0o600))
		return path
	}
	good := file("good.json", "{\"name\":\"mine\",\"description\":\"d\",\"expect\":\"e\",\"base\":\"contoso\",\"faults\":[{\"mode\":\"reset\"}]}")
	bad := file("bad.json", "{\"name\": \"mine\",\n \"faults\": [{\"mode\": \"explode\"}], \"description\": \"d\", \"expect\": \"e\", \"base\": \"contoso\"}")
	seed := file("seed.json", "{\"tenants\": [\n  {\"id\": \"x\"}]}")
	for _, c := range []struct {
		args []string
		code int
		says string
	}{
		{[]string{"--check", good}, exitDone, "is scenario mine: 1 faults, 0 acts"},
		{[]string{"--check", bad}, exitFailed, bad + ":2:22: faults/0/mode: unknown mode \"explode\": there are refuse,"},
		{[]string{"--check", seed}, exitFailed, seed + ":2:10: tenants/0/id: id \"x\" is not a GUID"},
		{[]string{"--scenario", bad}, exitFailed, bad + ":2:22: "},
		{[]string{"--seed", seed}, exitFailed, seed + ":2:10: "},
		{[]string{"--scenario", "nothing"}, exitFailed, "no such scenario or file; there are flaky, lost-answers,"},
		{[]string{"--scenario", "smooth", "--seed", seed}, exitUsage, "use one of them"},
	} {
		code, stdout, stderr := shell(t.Context(), nil, append([]string{"sim", "--out", filepath.Join(dir, "out")}, c.args...)...)
		if code != c.code || !strings.Contains(stdout+stderr, c.says) {
			t.Errorf("%v: code %d, %s%s, want %s", c.args, code, stdout, stderr, c.says)
		}
	}
}

func TestSimPlaysAScenario(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	out, done := newLines(), make(chan error, 1)
	go func() {
		done <- run(ctx, []string{"sim", "--scenario", "soft-deleted-key", "--listen", "127.0.0.1:0", "--control", "127.0.0.1:0", "--out", t.TempDir()}, nil, out, out)
	}()
	eventually(t, "serving", func() bool { return strings.Contains(out.String(), "Ctrl-C") })
	if text := out.String(); !strings.Contains(text, "scenario            soft-deleted-key\n") || !strings.Contains(text, "Expect: ") {
		t.Errorf("it says:\n%s", text)
	}
	cancel()
	must(t, <-done)
}
