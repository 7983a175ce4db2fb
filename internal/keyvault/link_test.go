package keyvault_test

import (
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"
)

// No program of ours may hold the machine code that deletes or changes a key
// version, not even where reflection could reach it.
func TestNoDestructiveMethodIsLinked(t *testing.T) {
	if testing.Short() {
		t.Skip("builds a program")
	}
	exe := filepath.Join(t.TempDir(), "nmprobe")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", exe, "./testdata/nmprobe").CombinedOutput(); err != nil {
		t.Fatalf("building the probe: %v\n%s", err, out)
	}
	symbols, err := exec.CommandContext(t.Context(), "go", "tool", "nm", exe).Output()
	if err != nil {
		t.Fatal(err)
	}
	if !regexp.MustCompile(`azkeys\.\(\*Client\)\.CreateKey\b`).Match(symbols) {
		t.Fatal("the probe does not link CreateKey: the test proves nothing")
	}
	destructive := regexp.MustCompile(`azkeys\.\(\*Client\)\.(DeleteKey|PurgeDeletedKey|RecoverDeletedKey|RestoreKey|BackupKey|UpdateKey|ImportKey|RotateKey|UpdateKeyRotationPolicy|Release)\b`)
	if found := destructive.FindAllString(string(symbols), -1); len(found) > 0 {
		t.Errorf("linked: %q", found)
	}
}
