package audit_test

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/keyroll/keyroll/internal/audit"
)

var at = time.Date(2026, 3, 2, 8, 0, 0, 123456000, time.UTC)

// goldens are entries whose canonical bytes never change: every log that was
// ever written depends on them. The files are testdata/NAME.json, without a
// newline at the end.
func goldens() map[string]audit.Entry {
	return map[string]audit.Entry{
		"minimal": {Subject: "token/1", Version: 1, At: at, Actor: audit.Actor{Subject: "cli", Kind: "system"}},
		"roll": {Subject: "roll/0b7a5c1e-5f0e-4a51-9a55-0c9a6ad7c0de", Version: 3, TenantID: "7a1e0000-0000-4000-8000-000000000001", At: at,
			Actor: audit.Actor{Subject: "arno@contoso.com", Kind: "person"}, From: "awaiting_approval", To: "running",
			Events: []audit.Event{{Type: "approved", Detail: map[string]any{"plan_hash": "sha256:00", "comment": "ok"}}, {Type: "step_begun", Step: 1}}},
		"unicode": {Subject: "tenant/x", Version: 2, At: at.In(time.FixedZone("somewhere", 3*3600)), Actor: audit.Actor{Subject: "a\u00e9\u0301 <&> \u2028\u2029 \"\\/ \b\f\n\r\t\x00\x7f \U0001F511", Kind: "person"},
			Events: []audit.Event{{Type: "declared", Detail: map[string]any{
				// Keys sort by UTF-16 code units: the key emoji comes before U+FB33.
				"\U0001F511": 1, "\ufb33": 2, "": 3, "a": 4, "B": 5, "10": 6, "9": 7, "\u20ac": 8, "\r": 9, "\u0080": 10, "\u00f6": 11}}}},
		"numbers": {Subject: "tenant/x", Version: 1<<53 - 1, At: at.Truncate(time.Second), Actor: audit.Actor{Subject: "a", Kind: "person"},
			Events: []audit.Event{{Type: "declared", Detail: map[string]any{"a": 0.1, "b": 1e21, "c": 1e-7, "d": math.Copysign(0, -1), "e": 333333333.33333329, "f": []int{3, 1, 2}, "g": nil, "h": true}}},
			Extra:  json.RawMessage(` { "z" : 1.0 , "a" : [ 4.50, 2e-3 ] } `)},
	}
}

func TestCanonicalBytes(t *testing.T) {
	t.Parallel()
	for name, e := range goldens() {
		got, err := e.Bytes()
		if err != nil {
			t.Fatal(err)
		}
		file := filepath.Join("testdata", name+".json")
		if os.Getenv("KEYROLL_UPDATE_GOLDEN") != "" {
			if err := os.WriteFile(file, got, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s:\n got %s\nwant %s", name, got, want)
		}
		back, err := audit.Parse(got)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		again, err := back.Bytes()
		if err != nil || !bytes.Equal(again, got) {
			t.Errorf("%s: read and written again it is %s (%v)", name, again, err)
		}
	}
}

// Equal entries have equal bytes, however they were made.
func TestBytesDoNotDependOnTheZone(t *testing.T) {
	t.Parallel()
	e := goldens()["roll"]
	a, err := e.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	e.At = e.At.Add(999 * time.Nanosecond).In(time.FixedZone("x", -5*3600))
	e.Format = "ignored"
	b, err := e.Bytes()
	if err != nil || !bytes.Equal(a, b) {
		t.Errorf("%s\n%s (%v)", a, b, err)
	}
}

func TestParseRefuses(t *testing.T) {
	t.Parallel()
	good, err := goldens()["roll"].Bytes()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := audit.Parse(good); err != nil {
		t.Fatal(err)
	}
	swap := func(a, b string) string { return string(bytes.Replace(good, []byte(a), []byte(b), 1)) }
	for name, s := range map[string]string{
		"nothing":                "",
		"null":                   "null",
		"a newline behind":       string(good) + "\n",
		"a space before":         " " + string(good),
		"two entries":            string(good) + string(good),
		"an unknown member":      swap(`"actor"`, `"acter":1,"actor"`),
		"a doubled member":       swap(`"from"`, `"from":"x","from"`),
		"another case":           swap(`"from"`, `"From"`),
		"another format":         swap(`keyroll.audit/1`, `keyroll.audit/2`),
		"an escaped letter":      swap(`roll/0b`, `roll\/0b`),
		"another time zone":      swap(`08:00:00.123456Z`, `09:00:00.123456+01:00`),
		"a longer fraction":      swap(`.123456Z`, `.1234560Z`),
		"finer than it keeps":    swap(`.123456Z`, `.1234561Z`),
		"a number rewritten":     swap(`"version":3`, `"version":3.0`),
		"an empty detail":        swap(`"type":"step_begun"`, `"detail":{},"type":"step_begun"`),
		"bytes that are no text": swap("contoso.com", "contoso\xff.com"),
	} {
		if e, err := audit.Parse([]byte(s)); err == nil {
			t.Errorf("%s was read: %+v", name, e)
		}
	}
}

// The digest's own vectors: sha256 over what came before and the entry.
func TestLink(t *testing.T) {
	t.Parallel()
	first := audit.Link(nil, []byte("abc"))
	if got := hex.EncodeToString(first); got != "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad" {
		t.Errorf("first %s", got)
	}
	if d := cmp.Diff(audit.Link(first, []byte("x")), audit.Link(nil, append(bytes.Clone(first), 'x'))); d != "" {
		t.Error(d)
	}
}

func FuzzParse(f *testing.F) {
	for _, e := range goldens() {
		b, err := e.Bytes()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := audit.Parse(b)
		if err != nil {
			return
		}
		again, err := e.Bytes()
		if err != nil || !bytes.Equal(again, b) {
			t.Errorf("%q was read, and is written as %q (%v)", b, again, err)
		}
	})
}
