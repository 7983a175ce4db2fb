// Package audit defines the entries of the audit log: what one holds, its
// canonical bytes, the running digest over a subject's entries, and the
// verifier. It is pure: reading and writing the log is the store's.
package audit

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"time"

	"github.com/gowebpki/jcs"
)

// Format is the version of the entry format; it stands in every entry.
const Format = "keyroll.audit/1"

// Entry is one change of one subject. Subject and Version name it: a roll's
// third change is "roll/<uuid>" version 3. Times are UTC with microseconds.
type Entry struct {
	Format   string          `json:"format"`
	Subject  string          `json:"subject"`
	Version  int64           `json:"version"`
	TenantID string          `json:"tenant_id,omitempty"`
	At       time.Time       `json:"at"`
	Actor    Actor           `json:"actor"`
	From     string          `json:"from,omitempty"`
	To       string          `json:"to,omitempty"`
	Events   []Event         `json:"events"`
	Extra    json.RawMessage `json:"extra,omitempty"`
}

// Actor is who caused the change.
type Actor struct {
	Subject string `json:"subject"`
	Kind    string `json:"kind"`
}

// Event is one thing that happened in the change.
type Event struct {
	Type string `json:"type"`
	Step int    `json:"step,omitempty"`
	// Detail holds strings, numbers and lists; never a secret.
	Detail map[string]any `json:"detail,omitempty"`
}

// Bytes returns the canonical bytes of the entry: JSON as RFC 8785 writes it.
// Equal entries have equal bytes, in every version of this program.
func (e Entry) Bytes() ([]byte, error) {
	e.Format = Format
	e.At = e.At.UTC().Truncate(time.Microsecond)
	raw, err := json.Marshal(e)
	if err != nil {
		return nil, fmt.Errorf("encoding the audit entry of %s: %w", e.Subject, err)
	}
	out, err := jcs.Transform(raw)
	if err != nil {
		return nil, fmt.Errorf("making the audit entry of %s canonical: %w", e.Subject, err)
	}
	return out, nil
}

// Parse reads an entry and refuses bytes that are not canonical, so that no
// two byte strings stand for one entry.
func Parse(b []byte) (Entry, error) {
	var e Entry
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&e); err != nil {
		return Entry{}, fmt.Errorf("reading an audit entry: %w", err)
	}
	if e.Format != Format {
		return Entry{}, fmt.Errorf("audit entry has format %q, want %q", e.Format, Format)
	}
	again, err := e.Bytes()
	if err != nil {
		return Entry{}, err
	}
	if !bytes.Equal(again, b) {
		return Entry{}, fmt.Errorf("audit entry of %s version %d is not in canonical form", e.Subject, e.Version)
	}
	return e, nil
}

// Link returns the running digest after an entry: SHA-256 over the digest
// before it (empty for the first) and the entry's bytes. The database computes
// the same in the statement that changes the subject.
func Link(before, entry []byte) []byte {
	h := sha256.New()
	h.Write(before)
	h.Write(entry)
	return h.Sum(nil)
}
