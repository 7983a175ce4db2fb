package sim_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"testing"

	"github.com/keyroll/keyroll/internal/sim"
)

const jsDir = "../../tools/jsclient"

// tool finds a program, or skips the test; in CI it is a failure instead.
func tool(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		if os.Getenv("KEYROLL_REQUIRE_TOOLS") != "" {
			t.Fatalf("%s is missing: install Debian's packages nodejs and npm", name)
		}
		t.Skipf("%s is missing (Debian's packages nodejs and npm have it)", name)
	}
	return path
}

// jsInstall puts the client's packages, at the versions of the lock file, into
// a directory of the user's cache that is named for them; the tree stays clean.
func jsInstall(t *testing.T, npm string) string {
	t.Helper()
	lock, err := os.ReadFile(filepath.Join(jsDir, "package-lock.json"))
	if err != nil {
		t.Fatal(err)
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		cache = os.TempDir()
	}
	sum := sha256.Sum256(lock)
	dir := filepath.Join(cache, "keyroll", "jsclient-"+hex.EncodeToString(sum[:8]))
	if _, err := os.Stat(dir); err == nil {
		return dir
	}
	// Made elsewhere and moved into place, whole: another test may want it too.
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		t.Fatal(err)
	}
	made, err := os.MkdirTemp(filepath.Dir(dir), "jsclient-new-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(made)
	for _, name := range []string{"package.json", "package-lock.json", ".npmrc"} {
		text, err := os.ReadFile(filepath.Join(jsDir, name))
		if err == nil {
			err = os.WriteFile(filepath.Join(made, name), text, 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.CommandContext(t.Context(), npm, "ci", "--ignore-scripts")
	cmd.Dir = made
	if out, err := cmd.CombinedOutput(); err != nil {
		if os.Getenv("KEYROLL_REQUIRE_TOOLS") != "" {
			t.Fatalf("npm ci: %v\n%s", err, out)
		}
		t.Skipf("npm ci: %v", err)
	}
	if err := os.Rename(made, dir); err != nil {
		if _, there := os.Stat(dir); there != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// jsSeen is what the script says it saw.
type jsSeen struct {
	Challenges []struct {
		Scopes   []string `json:"scopes"`
		TenantID string   `json:"tenantId"`
	} `json:"challenges"`
	Created struct {
		ID   string `json:"id"`
		Type string `json:"type"`
		Bits int    `json:"bits"`
	} `json:"created"`
	Renewed struct {
		ID            string            `json:"id"`
		Version       string            `json:"version"`
		Tags          map[string]string `json:"tags"`
		RecoveryLevel string            `json:"recoveryLevel"`
	} `json:"renewed"`
	Versions []struct {
		Version     string            `json:"version"`
		Tags        map[string]string `json:"tags"`
		HSMPlatform string            `json:"hsmPlatform"`
	} `json:"versions"`
	Latest  string `json:"latest"`
	First   string `json:"first"`
	Missing struct {
		Status int    `json:"status"`
		Code   string `json:"code"`
	} `json:"missing"`
}

// runJS runs the script against the bench.
func runJS(t *testing.T, b *bench) jsSeen {
	t.Helper()
	node, npm := tool(t, "node"), tool(t, "npm")
	dir := jsInstall(t, npm)
	script, err := os.ReadFile(filepath.Join(jsDir, "client.js"))
	if err != nil {
		t.Fatal(err)
	}
	// Beside the packages, where node looks for them; named for what is in it.
	sum := sha256.Sum256(script)
	file := filepath.Join(dir, "client-"+hex.EncodeToString(sum[:8])+".js")
	ca := filepath.Join(t.TempDir(), "ca.pem")
	for path, text := range map[string][]byte{file: script, ca: b.srv.CAPEM()} {
		if err := os.WriteFile(path, text, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.CommandContext(t.Context(), node, file)
	cmd.Env = append(os.Environ(), "SIM_ADDRESS="+b.srv.Addr, "SIM_CA="+ca, "SIM_CLIENT_ID="+clientID, "SIM_SECRET="+secret,
		"SIM_VAULT="+vaultA, "SIM_KEY="+keyA)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		t.Fatalf("node: %v\n%s", err, stderr.Bytes())
	}
	var seen jsSeen
	if err := json.Unmarshal(stdout.Bytes(), &seen); err != nil {
		t.Fatalf("%v in %s", err, stdout.Bytes())
	}
	return seen
}

// Microsoft's JavaScript client, which shares no code with the one for Go,
// reads the simulator's answers as Key Vault's.
func TestMicrosoftsJavaScriptClient(t *testing.T) {
	b := start(t)
	for range 28 { // two pages of versions
		b.newVersion("contoso-spo-a", keyA)
	}
	seen := runJS(t, b)
	made := b.w.KeyVersions("contoso-spo-a", keyA)
	newest := made[len(made)-1]
	// One challenge, at the first request, and what it named.
	if len(seen.Challenges) != 1 || !slices.Equal(seen.Challenges[0].Scopes, []string{vaultScope}) || seen.Challenges[0].TenantID != tenantID {
		t.Errorf("challenges: %+v", seen.Challenges)
	}
	if n := b.w.Requests(sim.ServiceKeyVault, sim.OpUnauthorized); n != 1 {
		t.Errorf("%d requests without a token", n)
	}
	if seen.Created.ID == "" || seen.Created.Type != "RSA-HSM" || seen.Created.Bits != 3072 {
		t.Errorf("created: %+v", seen.Created)
	}
	if seen.Renewed.Version != newest.Version || seen.Renewed.ID != newest.ID || seen.Renewed.Tags["keyroll-op"] != "js-1" ||
		seen.Renewed.Tags["owner"] != "javascript" || seen.Renewed.RecoveryLevel != "Recoverable+ProtectedSubscription" {
		t.Errorf("renewed: %+v, the world has %+v", seen.Renewed, newest)
	}
	listed := map[string]map[string]string{}
	for _, v := range seen.Versions {
		listed[v.Version] = v.Tags
	}
	if len(seen.Versions) != 31 || len(listed) != 31 || listed[newest.Version]["keyroll-op"] != "js-1" || listed[made[0].Version]["owner"] != "compliance" {
		t.Errorf("%d versions listed: %v", len(seen.Versions), listed)
	}
	if seen.Latest != newest.Version || seen.First != seen.Versions[0].Version {
		t.Errorf("get: latest %s, first %s", seen.Latest, seen.First)
	}
	if seen.Missing.Status != 404 || seen.Missing.Code != "KeyNotFound" {
		t.Errorf("a missing key: %+v", seen.Missing)
	}
	checkJSWitness(t, b, newest)
}

// checkJSWitness: each create was one effect, applied, answered, with its tag.
func checkJSWitness(t *testing.T, b *bench, newest sim.VersionState) {
	t.Helper()
	var api []sim.Effect
	for _, e := range b.w.Witness() {
		if e.By == "api" {
			api = append(api, e)
		}
	}
	if len(api) != 2 || b.w.Requests(sim.ServiceKeyVault, sim.OpCreateKey) != 2 || len(b.w.Violations()) != 0 {
		t.Fatalf("witness: %+v, violations %v", api, b.w.Violations())
	}
	if e := api[0]; !e.Applied || !e.Answered || e.Target != "contoso-spo-a/made-by-javascript" {
		t.Errorf("create: %+v", e)
	}
	if e := api[1]; !e.Applied || !e.Answered || e.OperationID != "js-1" || !slices.Equal(e.Versions, []string{newest.ID}) {
		t.Errorf("new version: %+v", e)
	}
}

// The lock file names versions and their digests, and no place to get them from.
func TestJavaScriptLockFileNamesNoHost(t *testing.T) {
	lock, err := os.ReadFile(filepath.Join(jsDir, "package-lock.json"))
	if err != nil {
		t.Fatal(err)
	}
	if found := regexp.MustCompile(`"resolved"|https?://[^"]*`).FindAllString(string(lock), -1); len(found) > 0 {
		t.Errorf("the lock file names %v", found)
	}
	var doc struct {
		Packages map[string]struct{ Version, Integrity string }
	}
	if err := json.Unmarshal(lock, &doc); err != nil || len(doc.Packages) < 2 {
		t.Fatalf("%v, %d packages", err, len(doc.Packages))
	}
	for name, p := range doc.Packages {
		if name != "" && (p.Version == "" || p.Integrity == "") {
			t.Errorf("%s is not pinned: %+v", name, p)
		}
	}
}
