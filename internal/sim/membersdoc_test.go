package sim_test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/keyroll/keyroll/internal/sim"
)

// fieldDocs are the comments of the package's struct fields, by "Type.Field":
// the manual is made of them.
func fieldDocs(t *testing.T) (fields, types map[string]string) {
	t.Helper()
	names, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	fields, types = map[string]string{}, map[string]string{}
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range file.Decls {
			g, ok := d.(*ast.GenDecl)
			if !ok {
				continue
			}
			for _, spec := range g.Specs {
				ts, ok := spec.(*ast.TypeSpec)
				if !ok {
					continue
				}
				st, ok := ts.Type.(*ast.StructType)
				if !ok {
					continue
				}
				types[ts.Name.Name] = oneLine(g.Doc.Text())
				for _, f := range st.Fields.List {
					for _, name := range f.Names {
						fields[ts.Name.Name+"."+name.Name] = oneLine(f.Doc.Text())
					}
				}
			}
		}
	}
	return fields, types
}

func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }

// manualMembers writes one table for each type that a file may hold.
type manualMembers struct {
	t             *testing.T
	fields, types map[string]string
	out           strings.Builder
	done          map[reflect.Type]bool
	next          []placedType
}

type placedType struct {
	typ   reflect.Type
	where string
}

func (m *manualMembers) table(p placedType) {
	if m.done[p.typ] {
		return
	}
	m.done[p.typ] = true
	where := ""
	if p.where != "" {
		where = " (`" + p.where + "`)"
	}
	fmt.Fprintf(&m.out, "\n**%s**%s: %s.\n\n| member | value | meaning |\n|---|---|---|\n", p.typ.Name(), where, said(p.typ.Name(), sentence(m.types[p.typ.Name()])))
	m.rows(p)
}

func (m *manualMembers) rows(p placedType) {
	for f := range p.typ.Fields() {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if f.Anonymous && name == "" {
			m.rows(placedType{f.Type, p.where})
			continue
		}
		if f.Tag.Get("file") == "-" {
			continue
		}
		doc := m.fields[p.typ.Name()+"."+f.Name]
		if doc == "" {
			m.t.Errorf("%s.%s has no comment: docs/simulator.md is made of these", p.typ.Name(), f.Name)
		}
		path := strings.TrimPrefix(p.where+"."+name, ".")
		fmt.Fprintf(&m.out, "| `%s` | %s | %s |\n", name, m.value(f.Type, path), said(f.Name, doc))
	}
}

// sentence is the first one of a text.
func sentence(s string) string {
	first, _, _ := strings.Cut(s, ". ")
	return first
}

// said makes a sentence of a Go comment: without the name that it begins with.
func said(name, doc string) string {
	doc = strings.TrimLeft(strings.TrimPrefix(doc, name), ": ")
	for _, verb := range []string{"is ", "are "} {
		doc = strings.TrimPrefix(doc, verb)
	}
	return strings.TrimSuffix(strings.ReplaceAll(doc, "|", "\\|"), ".")
}

func (m *manualMembers) value(t reflect.Type, path string) string {
	switch {
	case t == reflect.TypeFor[time.Time]():
		return "time"
	case t.Name() == "RawMessage":
		return "object"
	case t.Kind() == reflect.Pointer:
		return m.value(t.Elem(), path)
	}
	switch t.Kind() {
	case reflect.String:
		return "text"
	case reflect.Bool:
		return "true or false"
	case reflect.Float64:
		return "number"
	case reflect.Int, reflect.Uint64:
		return "whole number"
	case reflect.Slice:
		return "list of " + m.value(t.Elem(), path+"[]")
	case reflect.Map:
		return "object of " + m.value(t.Elem(), path)
	default:
		m.next = append(m.next, placedType{t, path})
		return t.Name()
	}
}

func TestManualHasEveryMember(t *testing.T) {
	m := manualMembers{t: t, done: map[reflect.Type]bool{}}
	m.fields, m.types = fieldDocs(t)
	m.next = []placedType{{reflect.TypeFor[sim.Scenario](), ""}}
	for len(m.next) > 0 {
		p := m.next[0]
		m.next = m.next[1:]
		m.table(p)
	}
	generated(t, "members", m.out.String()+"\n")
}

func TestManualHasTheActs(t *testing.T) {
	var b strings.Builder
	b.WriteString("| act | what happens | members of `with` |\n|---|---|---|\n")
	for _, a := range sim.Acts() {
		fmt.Fprintf(&b, "| `%s` | %s | `%s` |\n", a.Name, a.Does, strings.Join(a.Members(), "` `"))
	}
	generated(t, "acts", b.String())
}

func TestManualHasTheScenarios(t *testing.T) {
	var b strings.Builder
	b.WriteString("| scenario | what it shows | how a good client's work ends |\n|---|---|---|\n")
	for _, s := range sim.Scenarios() {
		fmt.Fprintf(&b, "| `%s` | %s | %s |\n", s.Name, s.Description, s.Expect)
	}
	generated(t, "scenarios", b.String())
}
