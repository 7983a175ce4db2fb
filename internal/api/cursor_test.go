package api_test

import (
	"encoding/base64"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/keyroll/keyroll/internal/api"
)

func TestCursorRoundTrip(t *testing.T) {
	for _, want := range []api.Position{
		{At: time.Date(2026, 1, 31, 8, 0, 0, 123456000, time.UTC), ID: someRoll}, {ID: "12"},
	} {
		c := api.WriteCursor(want, "rolls", "state=running")
		got, ok, err := api.ReadCursor(c, "rolls", "state=running")
		if diff := cmp.Diff(want, got); err != nil || !ok || diff != "" {
			t.Errorf("cursor %q: %v %v %s", c, ok, err, diff)
		}
	}
	if _, ok, err := api.ReadCursor("", "rolls"); ok || err != nil {
		t.Errorf("no cursor: %v %v", ok, err)
	}
}

func TestBadCursors(t *testing.T) {
	good := api.WriteCursor(api.Position{At: someTime, ID: someRoll}, "rolls")
	raw, err := base64.RawURLEncoding.DecodeString(good)
	if err != nil {
		t.Fatal(err)
	}
	edit := func(old, replacement string) string {
		if !strings.Contains(string(raw), old) {
			t.Fatalf("%s has no %s", raw, old)
		}
		return base64.RawURLEncoding.EncodeToString([]byte(strings.Replace(string(raw), old, replacement, 1)))
	}
	for name, cursor := range map[string]string{
		"other list": api.WriteCursor(api.Position{ID: someRoll}, "tenants"), "other filter": api.WriteCursor(api.Position{ID: someRoll}, "rolls", "a"),
		"cut": good[:len(good)-4], "more": good + "AAAA", "padded": good + "=", "not base64": "!" + good,
		"other version": edit(`"v":1`, `"v":2`), "more members": edit(`"v":1`, `"v":1,"x":1`), "control in the id": edit(someRoll, `a\u0000b`),
		"empty id": edit(someRoll, ""), "long id": edit(someRoll, strings.Repeat("x", 451)), "bad time": edit("2026-01-31", "2026-13-31"),
		"two values": base64.RawURLEncoding.EncodeToString(append(raw, "{}"...)), "null": base64.RawURLEncoding.EncodeToString([]byte("null")),
	} {
		if _, ok, err := api.ReadCursor(cursor, "rolls"); ok || err == nil || api.ProblemOf(err).Code != api.ProblemCodeBadCursor {
			t.Errorf("%s: ok %v, error %v", name, ok, err)
		}
	}
}

func TestPageLimit(t *testing.T) {
	if api.PageLimit(0) != 50 || api.PageLimit(7) != 7 {
		t.Errorf("limits %d and %d", api.PageLimit(0), api.PageLimit(7))
	}
}

func FuzzCursor(f *testing.F) {
	f.Add(api.WriteCursor(api.Position{At: someTime, ID: someRoll}, "rolls"))
	f.Fuzz(func(t *testing.T, cursor string) {
		pos, ok, err := api.ReadCursor(cursor, "rolls")
		if ok && (err != nil || pos.ID == "" || strings.ContainsRune(pos.ID, 0)) {
			t.Errorf("%q gives %+v, %v", cursor, pos, err)
		}
	})
}

func TestETags(t *testing.T) {
	for _, v := range []int64{1, 7, 1<<53 + 1} {
		if got, err := api.ParseETag(api.FormatETag(v)); err != nil || got != v {
			t.Errorf("version %d came back as %d, %v", v, got, err)
		}
	}
	for _, tag := range []string{"", `"`, `""`, `"0"`, `"-1"`, `"+1"`, `"07"`, `7`, `"7`, `W/"7"`, `*`, `"7","8"`, `"7" `, `"9223372036854775808"`, `"x"`} {
		if v, err := api.ParseETag(tag); err == nil {
			t.Errorf("%s was read as %d", tag, v)
		}
	}
}

func TestPreconditions(t *testing.T) {
	if p, err := api.ReadPrecondition("", "*"); err != nil || !p.Create {
		t.Errorf("If-None-Match: * gives %+v, %v", p, err)
	}
	if p, err := api.ReadPrecondition(`"3"`, ""); err != nil || p.Create || p.Version != 3 {
		t.Errorf(`If-Match: "3" gives %+v, %v`, p, err)
	}
	if _, err := api.ReadPrecondition("", ""); api.ProblemOf(err).Code != api.ProblemCodePreconditionRequired {
		t.Errorf("neither gives %v", err)
	}
	if _, err := api.ReadPrecondition(`"3"`, "*"); api.ProblemOf(err).Code != api.ProblemCodeInvalidRequest {
		t.Errorf("both give %v", err)
	}
}

// Folding finds exactly the names that encoding/json would take for one another.
func TestFold(t *testing.T) {
	for _, pair := range [][2]string{{"reason", "REASON"}, {"key", "\u212aey"}, {"reason", "rea\u017fon"}, {"Ä", "ä"}} {
		if api.Fold(pair[0]) != api.Fold(pair[1]) {
			t.Errorf("%q and %q fold apart", pair[0], pair[1])
		}
	}
	for _, pair := range [][2]string{{"id", "ld"}, {"a_b", "a-b"}, {"é", "e\u0301"}} {
		if api.Fold(pair[0]) == api.Fold(pair[1]) {
			t.Errorf("%q and %q fold together", pair[0], pair[1])
		}
	}
}

// What the scanner passes is JSON, and decodes to one value only.
func FuzzScanJSON(f *testing.F) {
	for _, seed := range []string{rollBody, tenantBody, `{"a":[{"b":null}],"A":1}`, `{"a":1,"a":2}`, `"\ud800"`, `[[[]]]`, `1e999`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		err := api.ScanJSON(body)
		if err == nil && !json.Valid(body) {
			t.Errorf("passed %q", body)
		}
		if err != nil && api.ProblemOf(err).Status != 400 {
			t.Errorf("%q is refused by %v", body, err)
		}
	})
}
