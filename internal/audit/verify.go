package audit

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// Row is a stored entry with the columns that stand beside its bytes.
type Row struct {
	ID       int64
	Subject  string
	Version  int64
	TenantID string
	// RollID is the roll whose history shows the entry, if any.
	RollID string
	At     time.Time
	Bytes  []byte
}

// Head is what a subject's own row says: its version, its running digest and,
// for a roll, its state.
type Head struct {
	Subject string
	Version int64
	Chain   []byte
	State   string
}

// Problem is one thing that is wrong with the log.
type Problem struct {
	// Kind is missing, extra, altered or mismatch.
	Kind    string `json:"kind"`
	Subject string `json:"subject"`
	Version int64  `json:"version,omitempty"`
	EntryID int64  `json:"entry_id,omitempty"`
	Detail  string `json:"detail"`
}

func (p Problem) String() string {
	return fmt.Sprintf("%s: %s version %d (entry %d): %s", p.Kind, p.Subject, p.Version, p.EntryID, p.Detail)
}

// Report is the result of a verification.
type Report struct {
	Entries  int       `json:"entries"`
	Subjects int       `json:"subjects"`
	Problems []Problem `json:"problems"`
}

// OK says whether nothing is wrong.
func (r Report) OK() bool { return len(r.Problems) == 0 }

// Verifier checks a stream of rows, ordered by subject and version, against
// the subjects' heads. It holds one subject at a time.
type Verifier struct {
	heads   map[string]Head
	report  Report
	subject string
	next    int64
	chain   []byte
	last    Entry
	broken  bool
}

// NewVerifier takes the heads of all subjects.
func NewVerifier(heads []Head) *Verifier {
	v := &Verifier{heads: map[string]Head{}}
	for _, h := range heads {
		v.heads[h.Subject] = h
	}
	return v
}

// Add checks one row.
func (v *Verifier) Add(r Row) {
	v.report.Entries++
	if r.Subject != v.subject {
		v.close()
		v.subject, v.next, v.chain, v.last, v.broken = r.Subject, 1, nil, Entry{}, false
		v.report.Subjects++
	}
	head, known := v.heads[r.Subject]
	if !known || r.Version > head.Version || r.Version < v.next {
		v.problem("extra", r, "no change of the subject belongs to this entry")
		return
	}
	if v.next < r.Version {
		v.absent(r.Subject, v.next, r.Version-1)
	}
	v.next = r.Version + 1
	v.chain = Link(v.chain, r.Bytes)
	v.entry(r)
}

// entry checks what one entry says against its columns and its predecessor.
func (v *Verifier) entry(r Row) {
	e, err := Parse(r.Bytes)
	switch {
	case err != nil:
		v.problem("altered", r, err.Error())
	case rollOf(e) != r.RollID:
		v.problem("altered", r, "its row puts it into another roll's history")
	case e.Subject != r.Subject || e.Version != r.Version || e.TenantID != r.TenantID || !e.At.Equal(r.At.UTC().Truncate(time.Microsecond)):
		v.problem("altered", r, "the entry does not say what its row says")
	case v.last.Format != "" && e.From != v.last.To:
		v.problem("altered", r, fmt.Sprintf("it goes on from %q, the entry before ended in %q", e.From, v.last.To))
	}
	v.last = e
}

// rollOf says in which roll's history an entry belongs: its own, for a lease
// that of the roll which held it, for a mailbox that of the roll which watches it.
func rollOf(e Entry) string {
	if id, ok := strings.CutPrefix(e.Subject, "roll/"); ok {
		return id
	}
	if id, ok := strings.CutPrefix(e.Subject, "mailbox/"); ok {
		id, _, _ = strings.Cut(id, "/")
		return id
	}
	if strings.HasPrefix(e.Subject, "lease/") && len(e.Events) > 0 {
		holder, _ := e.Events[0].Detail["holder"].(string)
		return holder
	}
	return ""
}

// gapShown bounds how many missing entries of one subject are named one by one:
// what a row claims as its version is not to be trusted.
const gapShown = 1000

// absent reports the entries from one version to another as missing.
func (v *Verifier) absent(subject string, from, to int64) {
	v.broken = true
	for n := from; n <= to; n++ {
		if n-from == gapShown {
			v.report.Problems = append(v.report.Problems, Problem{Kind: "missing", Subject: subject, Version: n,
				Detail: fmt.Sprintf("the entries of the changes from here to version %d are gone", to)})
			return
		}
		v.report.Problems = append(v.report.Problems, Problem{Kind: "missing", Subject: subject, Version: n, Detail: "the entry of this change is gone"})
	}
}

func (v *Verifier) problem(kind string, r Row, detail string) {
	v.broken = true
	v.report.Problems = append(v.report.Problems, Problem{Kind: kind, Subject: r.Subject, Version: r.Version, EntryID: r.ID, Detail: detail})
}

// close compares what was read of the last subject with its head.
func (v *Verifier) close() {
	head, ok := v.heads[v.subject]
	if v.subject == "" || !ok {
		return
	}
	delete(v.heads, v.subject)
	if v.next <= head.Version {
		v.absent(v.subject, v.next, head.Version)
	}
	if v.broken {
		return
	}
	if !bytes.Equal(v.chain, head.Chain) {
		v.report.Problems = append(v.report.Problems, Problem{Kind: "altered", Subject: v.subject, Version: head.Version,
			Detail: fmt.Sprintf("entries 1 to %d do not add up to the digest that the subject's row holds: one of them or the row was altered", head.Version)})
	} else if head.State != "" && v.last.To != head.State {
		v.report.Problems = append(v.report.Problems, Problem{Kind: "mismatch", Subject: v.subject, Version: head.Version,
			Detail: fmt.Sprintf("the last entry says %q, the row %q", v.last.To, head.State)})
	}
}

// Finish returns the report; subjects without any entry are missing theirs.
func (v *Verifier) Finish() Report {
	v.close()
	v.subject = ""
	for _, subject := range slices.Sorted(maps.Keys(v.heads)) {
		v.absent(subject, 1, v.heads[subject].Version)
	}
	return v.report
}
