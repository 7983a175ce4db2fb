// Package internal_test holds the law of the house: who may import whom, and
// a few rules that no compiler keeps. ARCHITECTURE.md has the reasons.
package internal_test

import (
	"bytes"
	"encoding/json"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/keyroll/keyroll/internal/jobs"
	"github.com/keyroll/keyroll/internal/msapi"
	"github.com/keyroll/keyroll/internal/roll"
)

const module = "github.com/keyroll/keyroll"

// rooms are our packages and what of ours each may import. Arrows point
// downward; there are no others.
var rooms = map[string][]string{
	"":                         {},
	"migrations":               {},
	"internal/roll":            {},
	"internal/audit":           {},
	"internal/access":          {},
	"internal/evidence":        {"internal/roll", "internal/audit"},
	"internal/sim":             {},
	"internal/devpg":           {},
	"internal/msapi":           {},
	"internal/keyvault":        {"internal/roll", "internal/msapi"},
	"internal/exchange":        {"internal/roll", "internal/msapi"},
	"internal/keylog":          {"internal/roll", "internal/msapi"},
	"internal/sharepoint":      {"internal/roll", "internal/msapi"},
	"internal/arm":             {"internal/roll", "internal/msapi"},
	"internal/automation":      {"internal/roll", "internal/msapi"},
	"internal/store":           {"internal/roll", "internal/audit", "internal/access", "migrations"},
	"internal/survey":          {"internal/roll", "internal/msapi", "internal/arm", "internal/keyvault", "internal/exchange", "internal/sharepoint", "internal/keylog", "internal/automation"},
	"internal/control":         {"internal/roll", "internal/access", "internal/audit", "internal/store"},
	"internal/jobs":            {"internal/roll", "internal/audit", "internal/store", "internal/control", "internal/msapi"},
	"internal/api":             {"", "internal/roll", "internal/access", "internal/audit", "internal/evidence", "internal/store", "internal/control"},
	"internal/web":             {"internal/roll", "internal/access", "internal/audit", "internal/store", "internal/control"},
	"internal/pgtest":          {"internal/devpg"},
	"internal/msapi/msapitest": {"internal/msapi"},
	"cmd/server":               nil, // may import everything but the test helpers
}

// testHelpers are imported by tests only.
var testHelpers = []string{"internal/pgtest", "internal/chaos", "internal/msapi/msapitest"}

// owners are the only rooms that may import a library.
var owners = map[string][]string{
	"github.com/jackc/pgx":        {"internal/store", "internal/jobs", "cmd/server", "internal/devpg", "internal/pgtest", "internal/chaos"},
	"github.com/riverqueue/river": {"internal/jobs", "cmd/server", "internal/pgtest", "internal/chaos"},
	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azkeys": {"internal/keyvault"},
	"github.com/keyroll/keyroll/internal/sim":                        {"cmd/server"},
	"github.com/pressly/goose":                                       {"internal/store"},
	"github.com/go-chi/chi":                                          {"internal/api", "internal/web", "cmd/server"},
	"github.com/getkin/kin-openapi":                                  {"internal/api"},
}

type pkg struct {
	ImportPath string
	Name       string
	Dir        string
	GoFiles    []string
	Imports    []string
}

func packages(t *testing.T) []pkg {
	t.Helper()
	cmd := exec.Command("go", "list", "-json=ImportPath,Name,Dir,GoFiles,Imports", "./...")
	cmd.Dir = ".."
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	var all []pkg
	for dec := json.NewDecoder(bytes.NewReader(out)); dec.More(); {
		var p pkg
		if err := dec.Decode(&p); err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
	if len(all) < len(rooms)-2 {
		t.Fatalf("go list found %d packages", len(all))
	}
	return all
}

func room(path string) string { return strings.TrimPrefix(strings.TrimPrefix(path, module), "/") }

func TestArrows(t *testing.T) {
	for _, p := range packages(t) {
		r := room(p.ImportPath)
		if strings.Contains(r, "testdata") {
			continue
		}
		allowed, known := rooms[r]
		if !known && r != "internal" {
			t.Errorf("%s is no room of the house: give it a place in ARCHITECTURE.md and here", r)
			continue
		}
		for _, imp := range p.Imports {
			if imp != module && !strings.HasPrefix(imp, module+"/") {
				checkOwner(t, r, imp)
				continue
			}
			to := room(imp)
			if slices.Contains(testHelpers, to) && !slices.Contains(testHelpers, r) {
				t.Errorf("%s imports the test helper %s", r, to)
			}
			checkOwner(t, r, imp)
			if allowed != nil && !slices.Contains(allowed, to) {
				t.Errorf("%s imports %s: arrows run downward only", r, to)
			}
		}
	}
}

func checkOwner(t *testing.T, r, imp string) {
	t.Helper()
	for lib, who := range owners {
		if (imp == lib || strings.HasPrefix(imp, lib+"/")) && !slices.Contains(who, r) && r != room(lib) {
			t.Errorf("%s imports %s: only %v may", r, imp, who)
		}
	}
}

// TestSimulatorIsStandardLibraryOnly: it must not share a misreading with a connector.
func TestSimulatorIsStandardLibraryOnly(t *testing.T) {
	for _, p := range packages(t) {
		if room(p.ImportPath) != "internal/sim" {
			continue
		}
		for _, imp := range p.Imports {
			if strings.Contains(strings.SplitN(imp, "/", 2)[0], ".") {
				t.Errorf("sim imports %s", imp)
			}
		}
	}
}

func TestPackageNames(t *testing.T) {
	banned := []string{"util", "utils", "common", "helper", "helpers", "model", "models", "types", "service", "services", "manager", "core"}
	for _, p := range packages(t) {
		if slices.Contains(banned, p.Name) {
			t.Errorf("package %s says nothing by its name", p.ImportPath)
		}
	}
}

// sources parses every Go file of ours that is no test and not generated.
func sources(t *testing.T, visit func(path string, file *ast.File, set *token.FileSet)) {
	t.Helper()
	files := 0
	err := filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if name := d.Name(); name == "testdata" || name == "tools" || name == ".dev" || name == ".git" || name == "node_modules" {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") || strings.HasSuffix(path, ".gen.go") {
			return nil
		}
		set := token.NewFileSet()
		f, err := parser.ParseFile(set, path, nil, parser.SkipObjectResolution|parser.ParseComments)
		if err != nil {
			return err
		}
		files++
		visit(filepath.ToSlash(strings.TrimPrefix(path, "../")), f, set)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if files < 50 {
		t.Fatalf("only %d files were read", files)
	}
}

// TestNoHiddenState: no init with effects, no mutable package state, nothing
// on the default Prometheus registry, nothing carried in a context but what
// the request itself brought.
func TestNoHiddenState(t *testing.T) {
	// A var that is written after its declaration is state; those that are
	// compiled expressions, embedded files, sentinels and tables are not.
	sources(t, func(path string, f *ast.File, set *token.FileSet) {
		for _, d := range f.Decls {
			switch d := d.(type) {
			case *ast.FuncDecl:
				if d.Recv == nil && d.Name.Name == "init" {
					t.Errorf("%s has an init function", set.Position(d.Pos()))
				}
			case *ast.GenDecl:
				if d.Tok == token.VAR {
					for _, s := range d.Specs {
						v := s.(*ast.ValueSpec)
						for _, n := range v.Names {
							if n.Name != "_" && len(v.Values) == 0 && !embeds(d) && !strings.HasPrefix(path, "internal/pgtest/") {
								t.Errorf("%s: package variable %s has no value: state belongs into a struct", set.Position(n.Pos()), n.Name)
							}
						}
					}
				}
			}
		}
		ast.Inspect(f, func(n ast.Node) bool {
			if sel, ok := n.(*ast.SelectorExpr); ok {
				if x, ok := sel.X.(*ast.Ident); ok && x.Name == "prometheus" && (sel.Sel.Name == "MustRegister" || sel.Sel.Name == "DefaultRegisterer" || sel.Sel.Name == "DefaultGatherer") {
					t.Errorf("%s uses the default registry", set.Position(n.Pos()))
				}
				if x, ok := sel.X.(*ast.Ident); ok && x.Name == "promauto" {
					t.Errorf("%s uses promauto", set.Position(n.Pos()))
				}
			}
			return true
		})
	})
}

// embeds says whether the declaration is a go:embed one.
func embeds(d *ast.GenDecl) bool {
	return d.Doc != nil && slices.ContainsFunc(d.Doc.List, func(c *ast.Comment) bool { return strings.HasPrefix(c.Text, "//go:embed") })
}

var writesState = regexp.MustCompile(`(?is)update\s+rolls\b[^;]*\bset\b[^;]*\bstate\s*=|insert\s+into\s+rolls\b`)

// TestOneWriterOfTheRollsState: only the transition and the creation of a roll
// write rolls.state.
func TestOneWriterOfTheRollsState(t *testing.T) {
	writers := map[string]bool{}
	sources(t, func(path string, f *ast.File, _ *token.FileSet) {
		ast.Inspect(f, func(n ast.Node) bool {
			if lit, ok := n.(*ast.BasicLit); ok && lit.Kind == token.STRING && writesState.MatchString(lit.Value) {
				writers[path] = true
			}
			return true
		})
	})
	want := map[string]bool{"internal/store/transition.go": true, "internal/store/roll.go": true}
	for path := range writers {
		if !want[path] {
			t.Errorf("%s writes rolls.state", path)
		}
	}
	if len(writers) != len(want) {
		t.Errorf("writers found: %v, want %v", writers, want)
	}
}

// TestQueueTablesAreRiversOwn: river_job is touched through River only. The
// migration may grant rights on the queue's tables.
func TestQueueTablesAreRiversOwn(t *testing.T) {
	sources(t, func(path string, f *ast.File, set *token.FileSet) {
		ast.Inspect(f, func(n ast.Node) bool {
			if lit, ok := n.(*ast.BasicLit); ok && lit.Kind == token.STRING && strings.Contains(lit.Value, "river_job") {
				t.Errorf("%s names river_job", set.Position(n.Pos()))
			}
			return true
		})
	})
}

// TestEveryStepHasAWorker: each kind of step has a job kind and a worker.
func TestEveryStepHasAWorker(t *testing.T) {
	kinds := jobs.Kinds()
	for _, k := range roll.StepKinds() {
		if !slices.Contains(kinds, k) {
			t.Errorf("no worker is registered for steps of kind %s", k)
		}
	}
	if len(kinds) != len(roll.StepKinds()) {
		t.Errorf("%d workers for %d kinds", len(kinds), len(roll.StepKinds()))
	}
}

// TestCloudsAreOneTable: no connector names a host of Microsoft's by itself, and
// none looks a declared cloud up where the operator's own are not known.
func TestCloudsAreOneTable(t *testing.T) {
	var domains []string
	for _, name := range msapi.CloudNames() {
		c, err := msapi.CloudByName(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, u := range []string{c.Authority, c.ExchangeURL, c.ResourceManager, c.LogAnalyticsURL, c.PortalURL} {
			domains = append(domains, strings.TrimPrefix(u, "https://"))
		}
		domains = append(domains, c.VaultSuffix, c.HSMSuffix, c.SharePointAdminSuffix)
	}
	sources(t, func(path string, f *ast.File, set *token.FileSet) {
		if strings.HasPrefix(path, "internal/msapi/") || strings.HasPrefix(path, "internal/sim/") || strings.HasPrefix(path, "cmd/server/") || strings.HasSuffix(path, ".gen.go") {
			return // the table, the world that it is held against, the demo's tenant, examples
		}
		ast.Inspect(f, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.SelectorExpr:
				if n.Sel.Name == "CloudByName" {
					t.Errorf("%s looks a cloud up in the table alone: ask msapi.Clouds or the gateway", set.Position(n.Pos()))
				}
			case *ast.BasicLit:
				if n.Kind == token.STRING && slices.ContainsFunc(domains, func(d string) bool { return strings.Contains(n.Value, d) }) {
					t.Errorf("%s names the host %s: hosts come from msapi.Cloud", set.Position(n.Pos()), n.Value)
				}
			}
			return true
		})
	})
}

// TestNoIdempotencyKeyOutward: net/http replays a POST that carries one by itself.
func TestNoIdempotencyKeyOutward(t *testing.T) {
	sources(t, func(path string, f *ast.File, set *token.FileSet) {
		if strings.HasPrefix(path, "internal/api/") || strings.HasPrefix(path, "cmd/server/") || strings.HasPrefix(path, "internal/control/") || path == "internal/msapi/client.go" {
			return // there it is the name of a header that comes in, or of one that is taken out
		}
		ast.Inspect(f, func(n ast.Node) bool {
			if lit, ok := n.(*ast.BasicLit); ok && lit.Kind == token.STRING && strings.EqualFold(strings.Trim(lit.Value, "\"`"), "Idempotency-Key") {
				t.Errorf("%s names the header Idempotency-Key: net/http would replay such a POST by itself", set.Position(n.Pos()))
			}
			return true
		})
	})
}
