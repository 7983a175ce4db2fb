package main

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// setting is a field of Config as its tag and comment describe it.
type setting struct{ name, byDefault, meaning, danger string }

// settings reads Config's source: the comments are the documentation.
func settings(t *testing.T) []setting {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), "config.go", nil, parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	var out []setting
	ast.Inspect(f, func(n ast.Node) bool {
		spec, ok := n.(*ast.TypeSpec)
		if !ok || spec.Name.Name != "Config" {
			return true
		}
		for _, field := range spec.Type.(*ast.StructType).Fields.List {
			tag := reflect.StructTag(strings.Trim(field.Tag.Value, "`"))
			name, options, _ := strings.Cut(tag.Get("env"), ",")
			s := setting{name: envPrefix + name, byDefault: tag.Get("envDefault")}
			if options == "required" {
				s.byDefault = "required"
			}
			s.meaning, s.danger, _ = strings.Cut(strings.Join(strings.Fields(field.Doc.Text()), " "), " Danger: ")
			if s.meaning == "" {
				t.Errorf("%s has no comment", s.name)
			}
			out = append(out, s)
		}
		return false
	})
	if len(out) != reflect.TypeFor[Config]().NumField() {
		t.Fatalf("%d settings found, Config has %d fields", len(out), reflect.TypeFor[Config]().NumField())
	}
	return out
}

// markdownTable is the table of docs/configuration.md.
func markdownTable(all []setting) string {
	var b strings.Builder
	b.WriteString("# Configuration\n\n")
	b.WriteString("`server serve` reads its configuration from the environment. It refuses to start on a missing or unsafe setting, and on a\n")
	b.WriteString("variable that begins with `KEYROLL_` and is none of these. Durations are numbers with a unit: `90s`, `15m`, `24h`.\n\n")
	b.WriteString("| setting | default | meaning | danger |\n|---|---|---|---|\n")
	for _, s := range all {
		def := s.byDefault
		if def != "" && def != "required" {
			def = "`" + def + "`"
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", s.name, def, s.meaning, s.danger)
	}
	return b.String()
}

// helpText is what "server serve --help" shows.
func helpText(all []setting) string {
	var b strings.Builder
	b.WriteString("Settings:\n")
	for _, s := range all {
		def := ""
		switch s.byDefault {
		case "":
		case "required":
			def = " (required)"
		default:
			def = " (default " + s.byDefault + ")"
		}
		fmt.Fprintf(&b, "  %s%s\n%s", s.name, def, wrap(s.meaning, "      ", 96))
		if s.danger != "" {
			b.WriteString(wrap("Danger: "+s.danger, "      ", 96))
		}
	}
	return strings.TrimSuffix(b.String(), "\n")
}

// What people read about the settings is made from Config; run with
// KEYROLL_UPDATE=1 to write it anew.
func TestConfigurationIsDocumented(t *testing.T) {
	all := settings(t)
	for path, want := range map[string]string{"../../docs/configuration.md": markdownTable(all), "settings.txt": helpText(all)} {
		if os.Getenv("KEYROLL_UPDATE") != "" {
			if err := os.WriteFile(path, []byte(want), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		have, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, string(have)); diff != "" {
			t.Errorf("%s is not what Config says (-want +have); run with KEYROLL_UPDATE=1:\n%s", path, diff)
		}
	}
}
