package store

import (
	"bytes"
	"encoding/json"
	"strings"

	"github.com/google/uuid"
)

// jsonb encodes a value for a jsonb column. PostgreSQL keeps no NUL in text: a
// NUL in what a person typed or Microsoft answered would make the row
// impossible to write, for ever, so it is written as U+FFFD.
func jsonb(v any) ([]byte, error) {
	raw, err := json.Marshal(v)
	if err != nil || !bytes.Contains(raw, []byte(`\u0000`)) {
		return raw, err
	}
	out := make([]byte, 0, len(raw))
	for i := 0; i < len(raw); i++ {
		switch {
		case bytes.HasPrefix(raw[i:], []byte(`\u0000`)):
			out = append(out, `\ufffd`...)
			i += 5
		case raw[i] == '\\':
			out = append(out, raw[i], raw[i+1])
			i++
		default:
			out = append(out, raw[i])
		}
	}
	return out, nil
}

// plain makes free text fit for a text column.
func plain(s string) string {
	return strings.ReplaceAll(strings.ToValidUTF8(s, "\uFFFD"), "\x00", "\uFFFD")
}

// canonicalID is a UUID as the database writes it; ok is false for what is
// none, and names no row therefore. The audit log's subjects are made of it.
func canonicalID(id string) (canonical string, ok bool) {
	u, err := uuid.Parse(id)
	return u.String(), err == nil && len(id) == 36
}
