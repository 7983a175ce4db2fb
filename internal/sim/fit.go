package sim

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
)

// decode reads the document into v. Unknown, repeated and otherwise spelt
// members, and values of another type, are refused at their place.
func (d *document) decode(v any) error {
	if err := d.fit(d.root, reflect.TypeOf(v).Elem()); err != nil {
		return err
	}
	if err := json.Unmarshal(d.text, v); err != nil {
		return d.errorAt(d.root.start, err.Error())
	}
	return nil
}

// fit checks a value against the Go type that it is for.
func (d *document) fit(p *place, t reflect.Type) error {
	switch {
	case t == reflect.TypeFor[json.RawMessage]():
		return nil
	case t.Kind() == reflect.Pointer:
		if p.kind == 0 && p.value == nil {
			return nil
		}
		return d.fit(p, t.Elem())
	case t == reflect.TypeFor[time.Time]():
		text, ok := p.value.(string)
		if !ok {
			return d.wrong(p, "a time such as \"2025-01-31T12:00:00Z\"")
		}
		if _, err := time.Parse(time.RFC3339, text); err != nil {
			return d.errorAt(p.start, fmt.Sprintf("%q is not a time such as \"2025-01-31T12:00:00Z\"", text))
		}
		return nil
	}
	switch t.Kind() {
	case reflect.Struct:
		return d.fitStruct(p, t)
	case reflect.Map:
		return d.fitMap(p, t)
	case reflect.Slice:
		if p.kind != '[' {
			return d.wrong(p, "a list in [ ]")
		}
		for _, item := range p.items {
			if err := d.fit(item, t.Elem()); err != nil {
				return err
			}
		}
		return nil
	default:
		return d.fitScalar(p, t)
	}
}

func (d *document) fitScalar(p *place, t reflect.Type) error {
	number, isNumber := p.value.(json.Number)
	var err error
	switch t.Kind() {
	case reflect.String:
		if _, ok := p.value.(string); !ok {
			return d.wrong(p, "a text in quotes")
		}
	case reflect.Bool:
		if _, ok := p.value.(bool); !ok {
			return d.wrong(p, "true or false")
		}
	case reflect.Float64:
		if !isNumber {
			return d.wrong(p, "a number")
		}
		_, err = strconv.ParseFloat(number.String(), 64)
	case reflect.Int, reflect.Int64:
		if !isNumber {
			return d.wrong(p, "a whole number")
		}
		_, err = strconv.ParseInt(number.String(), 10, 64)
	case reflect.Uint64:
		if !isNumber {
			return d.wrong(p, "a whole number, 0 or more")
		}
		_, err = strconv.ParseUint(number.String(), 10, 64)
	default:
		return fmt.Errorf("a member of type %s is not for files", t) // a mistake of ours, seen by the tests
	}
	if err != nil {
		return d.errorAt(p.start, fmt.Sprintf("%s is not a number of the kind expected here, or too large", number))
	}
	return nil
}

func (d *document) fitStruct(p *place, t reflect.Type) error {
	if p.kind != '{' {
		return d.wrong(p, "an object in { }")
	}
	fields := fileMembers(t)
	seen := map[string]bool{}
	for _, m := range p.members {
		i := slices.IndexFunc(fields, func(f fileMember) bool { return f.name == m.name })
		switch {
		case i < 0:
			return d.errorAt(m.start, fmt.Sprintf("unknown member %q; allowed here: %s", m.name, memberNames(fields)))
		case seen[m.name]:
			return d.errorAt(m.start, fmt.Sprintf("member %q is there twice", m.name))
		}
		seen[m.name] = true
		if err := d.fit(m.value, fields[i].typ); err != nil {
			return err
		}
	}
	return nil
}

func (d *document) fitMap(p *place, t reflect.Type) error {
	if p.kind != '{' {
		return d.wrong(p, "an object in { }")
	}
	seen := map[string]bool{}
	for _, m := range p.members {
		if seen[m.name] {
			return d.errorAt(m.start, fmt.Sprintf("member %q is there twice", m.name))
		}
		seen[m.name] = true
		if err := d.fit(m.value, t.Elem()); err != nil {
			return err
		}
	}
	return nil
}

func (d *document) wrong(p *place, want string) error {
	have := "a text"
	switch {
	case p.kind == '{':
		have = "an object"
	case p.kind == '[':
		have = "a list"
	case p.value == nil:
		have = "null"
	default:
		switch p.value.(type) {
		case json.Number:
			have = "a number"
		case bool:
			have = "true or false"
		}
	}
	return d.errorAt(p.start, "this is "+have+", where "+want+" is expected")
}

// fileMember is a member that a file may have.
type fileMember struct {
	name string
	typ  reflect.Type
}

// fileMembers are the members of a struct in a file: those that are reports
// only (tag file:"-") are not.
func fileMembers(t reflect.Type) []fileMember {
	var out []fileMember
	for f := range t.Fields() {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		switch {
		case f.Anonymous && name == "":
			out = append(out, fileMembers(f.Type)...)
		case f.IsExported() && name != "-" && f.Tag.Get("file") != "-":
			out = append(out, fileMember{name, f.Type})
		}
	}
	return out
}

func memberNames(all []fileMember) string {
	var names []string
	for _, f := range all {
		names = append(names, f.name)
	}
	return strings.Join(names, ", ")
}
