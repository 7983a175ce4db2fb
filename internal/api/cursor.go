package api

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"io"
	"strings"
	"time"
	"unicode"
)

// defaultLimit is the length of a page where the client names none.
const defaultLimit = 50

func pageLimit(l Limit) int {
	if l == 0 {
		return defaultLimit
	}
	return l
}

// position is where a page ended: the sort key of its last item. A list that
// is not ordered by time leaves At zero.
type position struct {
	At time.Time `json:"at,omitzero"`
	ID string    `json:"id"`
}

// pageOf cuts items, of which one more than limit was asked for, to a page, and
// makes the cursor to the next one where there is more.
func pageOf[T any](items []T, limit int, at func(T) position, list ...string) (page []T, next NextCursor) {
	if len(items) <= limit {
		return items, ""
	}
	page = items[:limit]
	return page, writeCursor(at(page[limit-1]), list...)
}

// cursorForm is what a cursor holds. It is no secret and carries no right, so
// it is not signed: a forged one shows nothing that the list would not.
type cursorForm struct {
	V    int    `json:"v"`
	List string `json:"l"`
	position
}

const cursorVersion = 1

// writeCursor makes the cursor after a page. The list names the route and its
// filters: a cursor does not fit another list.
func writeCursor(pos position, list ...string) string {
	raw, err := json.Marshal(cursorForm{V: cursorVersion, List: listMark(list), position: pos})
	if err != nil {
		return "" // a time beyond the year 9999, which no list holds
	}
	return base64.RawURLEncoding.EncodeToString(raw)
}

// readCursor returns where the next page begins; ok is false for the first
// page. A cursor that is not one of ours for this list is bad_cursor.
func readCursor(cursor Cursor, list ...string) (pos position, ok bool, err error) {
	if cursor == "" {
		return position{}, false, nil
	}
	raw, err := base64.RawURLEncoding.Strict().DecodeString(cursor)
	if err != nil {
		return position{}, false, badCursor()
	}
	var form cursorForm
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.DisallowUnknownFields()
	if dec.Decode(&form) != nil || form.V != cursorVersion || form.List != listMark(list) || !plain(form.ID) {
		return position{}, false, badCursor()
	}
	if _, err := dec.Token(); err != io.EOF { //nolint:errorlint // Token returns it bare
		return position{}, false, badCursor()
	}
	return form.position, true, nil
}

func badCursor() error {
	return &requestError{code: ProblemCodeBadCursor, errs: []ProblemError{{
		In: ProblemErrorInQuery, Name: "cursor", Detail: "not a cursor of this list with these filters",
	}}}
}

// listMark is short, and differs where the list or a filter differs.
func listMark(list []string) string {
	sum := sha256.Sum256([]byte(strings.Join(list, "\x00")))
	return hex.EncodeToString(sum[:6])
}

// maxPositionID is beyond the longest sort key: vault host, key name and version.
const maxPositionID = 450

// plain refuses ids that could not have come from us and that the database
// might choke on.
func plain(id string) bool {
	return id != "" && len(id) <= maxPositionID && !strings.ContainsFunc(id, unicode.IsControl)
}
