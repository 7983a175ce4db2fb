package sim

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

// FileError says where in a seed or scenario file something is wrong. It reads
// FILE:LINE:COLUMN: reason, as compilers write it.
type FileError struct {
	File   string
	Line   int // from 1
	Column int // from 1, in characters
	Reason string
}

func (e *FileError) Error() string {
	return fmt.Sprintf("%s:%d:%d: %s", e.File, e.Line, e.Column, e.Reason)
}

// document is a JSON text with the place of each of its values.
type document struct {
	file string
	text []byte
	root *place
}

// place is a value of a document.
type place struct {
	start, end int // bytes
	value      any // string, json.Number, bool or nil; not of objects and lists
	kind       byte
	members    []member // of an object, '{'
	items      []*place // of a list, '['
}

type member struct {
	name  string
	start int
	value *place
}

// parseDocument reads one JSON value and notes where everything stands.
func parseDocument(file string, text []byte) (*document, error) {
	d := &document{file: file, text: text}
	if !utf8.Valid(text) {
		return nil, d.errorAt(firstInvalid(text), "the file is not UTF-8")
	}
	var all json.RawMessage // checks the whole syntax, and how deep it goes
	if err := json.Unmarshal(text, &all); err != nil {
		if syntax, ok := errors.AsType[*json.SyntaxError](err); ok {
			return nil, d.errorAt(int(syntax.Offset)-1, "this is not JSON: "+syntax.Error())
		}
		return nil, d.errorAt(0, "this is not JSON: "+err.Error())
	}
	p := placer{text: text, dec: json.NewDecoder(bytes.NewReader(text))}
	p.dec.UseNumber()
	root, err := p.place()
	if err != nil {
		return nil, d.errorAt(int(p.dec.InputOffset()), "this is not JSON: "+err.Error())
	}
	d.root = root
	return d, nil
}

func firstInvalid(text []byte) int {
	for i := 0; i < len(text); {
		r, size := utf8.DecodeRune(text[i:])
		if r == utf8.RuneError && size == 1 {
			return i
		}
		i += size
	}
	return len(text)
}

// errorAt is a mistake at a byte of the file.
func (d *document) errorAt(offset int, reason string) *FileError {
	offset = max(0, min(offset, len(d.text)))
	before := d.text[:offset]
	line := bytes.Count(before, []byte("\n")) + 1
	begin := bytes.LastIndexByte(before, '\n') + 1
	return &FileError{File: d.file, Line: line, Column: utf8.RuneCount(before[begin:]) + 1, Reason: reason}
}

// find follows a MisfitError's path as far as the document goes.
func (d *document) find(path string) *place {
	p := d.root
	for step := range strings.SplitSeq(path, "/") {
		next := p.step(step)
		if next == nil {
			break
		}
		p = next
	}
	return p
}

func (p *place) step(name string) *place {
	if i, err := strconv.Atoi(name); err == nil && i >= 0 && i < len(p.items) {
		return p.items[i]
	}
	for _, m := range p.members {
		if m.name == name {
			return m.value
		}
	}
	return nil
}

// placer makes places out of a token stream.
type placer struct {
	text []byte
	dec  *json.Decoder
}

// next is where the next token begins.
func (p *placer) next() int {
	at := int(p.dec.InputOffset())
	for at < len(p.text) && strings.IndexByte(" \t\r\n,:", p.text[at]) >= 0 {
		at++
	}
	return at
}

func (p *placer) place() (*place, error) {
	out := &place{start: p.next()}
	token, err := p.dec.Token()
	if err != nil {
		return nil, err
	}
	switch t := token.(type) {
	case json.Delim:
		out.kind = byte(t)
		err = p.inside(out)
	default:
		out.value = token
	}
	out.end = int(p.dec.InputOffset())
	return out, err
}

// inside reads what an object or a list holds, and its end.
func (p *placer) inside(out *place) error {
	for p.dec.More() {
		start, name := p.next(), ""
		if out.kind == '{' {
			token, err := p.dec.Token()
			if err != nil {
				return err
			}
			name, _ = token.(string) // by the syntax
		}
		value, err := p.place()
		if err != nil {
			return err
		}
		if out.kind == '{' {
			out.members = append(out.members, member{name, start, value})
		} else {
			out.items = append(out.items, value)
		}
	}
	_, err := p.dec.Token()
	return err
}
