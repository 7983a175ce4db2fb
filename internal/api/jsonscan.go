package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// maxDepth bounds the nesting of a body; encoding/json itself allows 10,000.
const maxDepth = 32

// scanner walks a JSON text token by token and keeps the path to where it is.
type scanner struct {
	dec  *json.Decoder
	path []string
}

// scanJSON checks what a schema cannot: that the text is one well-formed value
// in valid UTF-8, not too deep, in which no object has a member twice or in two
// spellings, and no string a NUL, which Postgres cannot hold.
func scanJSON(body []byte) error {
	if !utf8.Valid(body) {
		return refuseMember(ProblemCodeMalformedBody, "", "the body is not valid UTF-8")
	}
	s := &scanner{dec: json.NewDecoder(bytes.NewReader(body))}
	s.dec.UseNumber()
	if err := s.value(); err != nil {
		return err
	}
	if _, err := s.dec.Token(); !errors.Is(err, io.EOF) {
		return refuseMember(ProblemCodeMalformedBody, "", fmt.Sprintf("something follows the value, at byte %d", s.dec.InputOffset()))
	}
	return nil
}

func (s *scanner) value() error {
	token, err := s.dec.Token()
	if err != nil {
		return s.malformed(err)
	}
	switch t := token.(type) {
	case json.Delim:
		if len(s.path) >= maxDepth {
			return s.refuse(ProblemCodeMalformedBody, fmt.Sprintf("nested more than %d levels deep", maxDepth))
		}
		if t == '{' {
			return s.object()
		}
		return s.array()
	case string:
		return s.text(t)
	}
	return nil
}

func (s *scanner) object() error {
	seen := map[string]string{}
	for s.dec.More() {
		token, err := s.dec.Token()
		if err != nil {
			return s.malformed(err)
		}
		name, _ := token.(string)
		s.path = append(s.path, name)
		if err := s.text(name); err != nil {
			return err
		}
		folded := fold(name)
		switch first, twice := seen[folded]; {
		case twice && first == name:
			return s.refuse(ProblemCodeDuplicateMember, "given twice: give it once")
		case twice:
			return s.refuse(ProblemCodeDuplicateMember, fmt.Sprintf("differs from %q only in case: give one of the two", first))
		}
		seen[folded] = name
		if err := s.value(); err != nil {
			return err
		}
		s.path = s.path[:len(s.path)-1]
	}
	return s.close()
}

func (s *scanner) array() error {
	for i := 0; s.dec.More(); i++ {
		s.path = append(s.path, strconv.Itoa(i))
		if err := s.value(); err != nil {
			return err
		}
		s.path = s.path[:len(s.path)-1]
	}
	return s.close()
}

func (s *scanner) close() error {
	if _, err := s.dec.Token(); err != nil {
		return s.malformed(err)
	}
	return nil
}

func (s *scanner) text(v string) error {
	if strings.ContainsRune(v, 0) {
		return s.refuse(ProblemCodeMalformedBody, "contains the character U+0000: leave it out")
	}
	return nil
}

func (s *scanner) malformed(err error) error {
	where := fmt.Sprintf("not well-formed JSON at byte %d", s.dec.InputOffset())
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		where = "the JSON text ends too early"
	}
	return s.refuse(ProblemCodeMalformedBody, where)
}

func (s *scanner) refuse(code ProblemCode, detail string) error {
	return refuseMember(code, pointer(s.path), detail)
}

// pointer writes a path as a JSON pointer (RFC 6901).
func pointer(path []string) string {
	var b strings.Builder
	for _, part := range path {
		b.WriteByte('/')
		b.WriteString(strings.NewReplacer("~", "~0", "/", "~1").Replace(part))
	}
	return b.String()
}

// fold maps all spellings that encoding/json takes for one another to the same
// string: it compares by Unicode's simple folding, in which even the Kelvin
// sign is a k.
func fold(name string) string {
	return strings.Map(func(r rune) rune {
		least := r
		for f := unicode.SimpleFold(r); f != r; f = unicode.SimpleFold(f) {
			least = min(least, f)
		}
		return least
	}, name)
}
