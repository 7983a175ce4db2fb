package audit_test

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/keyroll/keyroll/internal/audit"
)

// record is a small log: rows in the verifier's order, and the heads.
type record struct {
	rows  []audit.Row
	heads []audit.Head
}

func (l record) clone() record {
	out := record{rows: slices.Clone(l.rows), heads: slices.Clone(l.heads)}
	for i := range out.rows {
		out.rows[i].Bytes = bytes.Clone(out.rows[i].Bytes)
	}
	return out
}

func (l record) verify() audit.Report {
	v := audit.NewVerifier(l.heads)
	for _, r := range l.rows {
		v.Add(r)
	}
	return v.Finish()
}

// logOf makes subjects of the given lengths.
func logOf(lengths ...int) record {
	var l record
	for i, n := range lengths {
		kind := []string{"roll/", "tenant/", "lease/"}[i%3]
		h := audit.Head{Subject: fmt.Sprintf("%s%02d", kind, i), Version: int64(n)}
		from := ""
		for v := 1; v <= n; v++ {
			e := audit.Entry{Subject: h.Subject, Version: int64(v), TenantID: "t", At: at.Add(time.Duration(v) * time.Second), Actor: audit.Actor{Subject: "a", Kind: "person"},
				Events: []audit.Event{{Type: "x", Step: v, Detail: map[string]any{"reason": "r\u00e9ason"}}}}
			r := audit.Row{ID: int64(len(l.rows) + 1), Subject: e.Subject, Version: e.Version, TenantID: e.TenantID, At: e.At}
			switch kind {
			case "roll/":
				e.From, e.To = from, fmt.Sprintf("state%d", v%3)
				from, h.State, r.RollID = e.To, e.To, strings.TrimPrefix(e.Subject, "roll/")
			case "lease/":
				e.Events[0].Detail["holder"], r.RollID = "holder", "holder"
			}
			b, err := e.Bytes()
			if err != nil {
				panic(err)
			}
			r.Bytes, h.Chain = b, audit.Link(h.Chain, b)
			l.rows = append(l.rows, r)
		}
		l.heads = append(l.heads, h)
	}
	return l
}

func TestVerifyAnUntouchedLog(t *testing.T) {
	t.Parallel()
	rep := logOf(4, 1, 3, 7).verify()
	if !rep.OK() || rep.Entries != 15 || rep.Subjects != 4 {
		t.Errorf("%+v", rep)
	}
}

// Each byte of each entry, in one bit and in all: found, and in the right subject.
func TestEveryFlippedByteIsFound(t *testing.T) {
	t.Parallel()
	l := logOf(3, 2, 2)
	flips := 0
	for i := range l.rows {
		for j := range l.rows[i].Bytes {
			for _, mask := range []byte{1 << (j % 8), 0xff} {
				l.rows[i].Bytes[j] ^= mask
				rep := l.verify()
				l.rows[i].Bytes[j] ^= mask
				flips++
				if rep.OK() {
					t.Fatalf("row %d byte %d mask %x was not found", i, j, mask)
				}
				if p := rep.Problems[0]; p.Kind != "altered" || p.Subject != l.rows[i].Subject {
					t.Fatalf("row %d byte %d mask %x: %s", i, j, mask, p)
				}
			}
		}
	}
	t.Logf("%d flips, all found", flips)
}

// A row's columns are held against its bytes.
func TestEveryColumnIsHeld(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*audit.Row){
		"tenant": func(r *audit.Row) { r.TenantID = "" },
		"roll":   func(r *audit.Row) { r.RollID = "" },
		"time":   func(r *audit.Row) { r.At = r.At.Add(time.Microsecond) },
	} {
		l := logOf(3)
		change(&l.rows[1])
		if rep := l.verify(); rep.OK() || rep.Problems[0].Version != 2 || rep.Problems[0].Kind != "altered" {
			t.Errorf("%s: %+v", name, rep.Problems)
		}
	}
}

// What a head claims cannot make the verifier run for ever.
func TestAnAbsurdHeadIsReportedBriefly(t *testing.T) {
	t.Parallel()
	l := logOf(2)
	l.heads[0].Version = 1<<63 - 1
	l.heads = append(l.heads, audit.Head{Subject: "roll/none", Version: 1 << 62})
	if rep := l.verify(); rep.OK() || len(rep.Problems) > 3000 {
		t.Errorf("%d problems", len(rep.Problems))
	}
}

// One planted fault anywhere is found; most are named by subject and version.
func TestPlantedFaults(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		lengths := rapid.SliceOfN(rapid.IntRange(1, 6), 1, 6).Draw(t, "lengths")
		l := logOf(lengths...)
		if rep := l.verify(); !rep.OK() {
			t.Fatalf("untouched: %v", rep.Problems)
		}
		bad := l.clone()
		i := rapid.IntRange(0, len(bad.rows)-1).Draw(t, "row")
		row := bad.rows[i]
		want := audit.Problem{Subject: row.Subject, Version: row.Version}
		fault := rapid.SampledFrom([]string{"delete", "insert", "double", "swap", "flip", "truncate", "rename", "head", "state", "forget"}).Draw(t, "fault")
		switch fault {
		case "delete":
			bad.rows, want.Kind = slices.Delete(bad.rows, i, i+1), "missing"
		case "insert":
			last := i
			for last+1 < len(bad.rows) && bad.rows[last+1].Subject == row.Subject {
				last++
			}
			extra := bad.rows[last]
			extra.ID, extra.Version = 999, extra.Version+1
			bad.rows, want.Kind, want.Version = slices.Insert(bad.rows, last+1, extra), "extra", extra.Version
		case "double":
			bad.rows, want.Kind = slices.Insert(bad.rows, i+1, row), "extra"
		case "swap":
			j := rapid.IntRange(0, len(bad.rows)-1).Filter(func(j int) bool { return j != i || len(bad.rows) == 1 }).Draw(t, "other")
			if i == j {
				return
			}
			bad.rows[i].Bytes, bad.rows[j].Bytes = bad.rows[j].Bytes, bad.rows[i].Bytes
			want.Kind = "altered"
		case "flip":
			j := rapid.IntRange(0, len(row.Bytes)-1).Draw(t, "byte")
			bad.rows[i].Bytes[j] ^= byte(rapid.IntRange(1, 255).Draw(t, "with"))
			want.Kind, want.Version = "altered", 0
		case "truncate":
			bad.rows[i].Bytes, want.Kind = row.Bytes[:rapid.IntRange(0, len(row.Bytes)-1).Draw(t, "to")], "altered"
		case "rename":
			bad.rows[i].Subject, want.Kind, want.Subject, want.Version = "roll/invented", "extra", "roll/invented", 0
		case "head":
			h := slices.IndexFunc(bad.heads, func(h audit.Head) bool { return h.Subject == row.Subject })
			bad.heads[h].Version++
			want.Kind, want.Version = "missing", bad.heads[h].Version
		case "state":
			h := slices.IndexFunc(bad.heads, func(h audit.Head) bool { return strings.HasPrefix(h.Subject, "roll/") })
			bad.heads[h].State, want = "elsewhere", audit.Problem{Kind: "mismatch", Subject: bad.heads[h].Subject}
		case "forget":
			bad.heads = slices.DeleteFunc(bad.heads, func(h audit.Head) bool { return h.Subject == row.Subject })
			want.Kind = "extra"
		}
		rep := bad.verify()
		if !slices.ContainsFunc(rep.Problems, func(p audit.Problem) bool {
			return p.Kind == want.Kind && p.Subject == want.Subject && (want.Version == 0 || p.Version == want.Version)
		}) {
			t.Fatalf("%s of row %d (%s %d): want %+v, got %v", fault, i, row.Subject, row.Version, want, rep.Problems)
		}
	})
}
