package api

import (
	"errors"
	"fmt"
	"sort"
	"strings"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
)

// explain says in plain words what is wrong with one parameter or with the
// body. It never repeats the value: that may be long, or secret.
func explain(bad *openapi3filter.RequestError) []ProblemError {
	at := ProblemError{In: ProblemErrorInBody}
	if p := bad.Parameter; p != nil {
		at.In, at.Name = ProblemErrorIn(p.In), p.Name
	}
	var out []ProblemError
	for _, err := range flatten(bad.Err) {
		var bySchema *openapi3.SchemaError
		switch {
		case errors.As(err, &bySchema):
			out = append(out, explainSchema(at, bySchema)...)
		case bad.Parameter != nil && bad.Parameter.Schema != nil:
			at.Detail = wanted(bad.Parameter.Schema.Value)
			out = append(out, at)
		default:
			at.Detail = "not what openapi.yaml says"
			out = append(out, at)
		}
	}
	return out
}

// explainSchema names the member and what the schema wants of it.
func explainSchema(at ProblemError, e *openapi3.SchemaError) []ProblemError {
	path := e.JSONPointer()
	if at.In == ProblemErrorInBody {
		at.Pointer = pointer(path)
	}
	switch e.SchemaField {
	case "properties":
		return unknownMembers(at, path, e)
	case "required":
		at.Detail = "missing: give it"
	case "nullable":
		at.Detail = "null is not allowed: leave it out or give a value"
	case "minItems", "maxItems":
		at.Detail = itemsWanted(e.Schema)
	case "maxProperties":
		at.Detail = fmt.Sprintf("at most %d members are allowed", deref(e.Schema.MaxProps))
	default:
		at.Detail = wanted(e.Schema)
	}
	return []ProblemError{at}
}

// unknownMembers names each member that the schema does not know, and the
// known one where only the case differs.
func unknownMembers(at ProblemError, path []string, e *openapi3.SchemaError) []ProblemError {
	object, _ := e.Value.(map[string]any)
	known := make([]string, 0, len(e.Schema.Properties))
	for name := range e.Schema.Properties {
		known = append(known, name)
	}
	sort.Strings(known)
	var out []ProblemError
	for name := range object {
		if _, ok := e.Schema.Properties[name]; ok {
			continue
		}
		one := at
		one.Pointer = pointer(append(path[:len(path):len(path)], name))
		one.Detail = "unknown member: leave it out; known are " + strings.Join(known, ", ")
		for _, k := range known {
			if fold(k) == fold(name) {
				one.Detail = fmt.Sprintf("unknown member: names are case-sensitive, write %q", k)
			}
		}
		out = append(out, one)
	}
	return out
}

// wanted says what values a schema takes.
func wanted(s *openapi3.Schema) string {
	switch {
	case s == nil:
		return "not what openapi.yaml says"
	case len(s.Enum) > 0:
		words := make([]string, len(s.Enum))
		for i, v := range s.Enum {
			words[i] = fmt.Sprint(v)
		}
		if len(words) == 1 {
			return "use " + words[0]
		}
		return "use one of " + strings.Join(words, ", ")
	case s.Type.Includes(openapi3.TypeString):
		return stringWanted(s)
	case s.Type.Includes(openapi3.TypeInteger):
		return "use a whole number" + rangeWanted(s)
	case s.Type.Includes(openapi3.TypeBoolean):
		return "use true or false"
	case s.Type.Includes(openapi3.TypeArray):
		return "use a list"
	case s.Type.Includes(openapi3.TypeObject):
		return "use an object"
	}
	return "not what openapi.yaml says"
}

func stringWanted(s *openapi3.Schema) string {
	text := "use a string"
	switch {
	case s.Format == "date-time":
		text = "use a time such as 2026-01-31T08:00:00Z"
	case s.Pattern != "":
		text += " that matches " + s.Pattern
	}
	if s.Pattern != "" && s.Example != nil {
		text += fmt.Sprintf(", such as %v", s.Example)
	}
	if s.MaxLength != nil {
		text += fmt.Sprintf(", of %d to %d characters", s.MinLength, *s.MaxLength)
	}
	return text
}

func rangeWanted(s *openapi3.Schema) string {
	switch {
	case s.Min != nil && s.Max != nil:
		return fmt.Sprintf(" from %g to %g", *s.Min, *s.Max)
	case s.Min != nil:
		return fmt.Sprintf(" from %g on", *s.Min)
	}
	return ""
}

func itemsWanted(s *openapi3.Schema) string {
	if s.MaxItems != nil && *s.MaxItems == 0 {
		return "leave it empty: " + s.Description
	}
	return fmt.Sprintf("give %d to %d items", s.MinItems, deref(s.MaxItems))
}

func deref(n *uint64) uint64 {
	if n == nil {
		return 0
	}
	return *n
}
