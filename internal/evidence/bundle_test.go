package evidence_test

import (
	"archive/zip"
	"bytes"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/keyroll/keyroll/internal/audit"
	"github.com/keyroll/keyroll/internal/evidence"
	"github.com/keyroll/keyroll/internal/roll"
)

var at = time.Date(2026, 1, 31, 8, 0, 0, 0, time.UTC)

func entry(t *testing.T, version int64) []byte {
	t.Helper()
	line, err := audit.Entry{Subject: "roll/r1", Version: version, At: at, Actor: audit.Actor{Subject: "rita", Kind: "person"}, Events: []audit.Event{{Type: "requested"}}}.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	return line
}

func file(t *testing.T, zipped []byte, name string) string {
	t.Helper()
	z, err := zip.NewReader(bytes.NewReader(zipped), int64(len(zipped)))
	if err != nil {
		t.Fatal(err)
	}
	in, err := z.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	out, err := io.ReadAll(in)
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

func write(t *testing.T, b evidence.Bundle) []byte {
	t.Helper()
	var out bytes.Buffer
	if err := b.Write(&out); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// Equal bundles are equal to the byte; an entry is kept as it was written.
func TestBundleIsReproducible(t *testing.T) {
	b := evidence.Of(roll.Roll{ID: "r1", State: roll.Succeeded, Outcome: roll.Accepted})
	b.TakenAt, b.TakenBy = at, "aud"
	lines := [][]byte{entry(t, 1), entry(t, 2)}
	if err := b.SetAudit(lines, 2, []byte{1}); err != nil {
		t.Fatal(err)
	}
	zipped := write(t, b)
	if !bytes.Equal(zipped, write(t, b)) {
		t.Error("the same bundle gives other bytes")
	}
	if got := file(t, zipped, "audit.jsonl"); got != string(lines[0])+"\n"+string(lines[1])+"\n" {
		t.Errorf("audit.jsonl is %q", got)
	}
}

// An entry that was altered is refused, not shown as if it were good.
func TestAlteredEntryIsRefused(t *testing.T) {
	b := evidence.Of(roll.Roll{ID: "r1"})
	bad := bytes.Replace(entry(t, 1), []byte(`"version":1`), []byte(`"version": 1`), 1)
	if err := b.SetAudit([][]byte{bad}, 1, nil); err == nil {
		t.Error("an entry that is not canonical was taken")
	}
}

// What people and Microsoft typed is text on the page, and nothing else; each
// end is said with its honest words.
func TestPageSaysTextAndHonestWords(t *testing.T) {
	r := roll.Roll{ID: "r1", State: roll.NeedsAttention, Request: roll.Request{Reason: roll.Reason{Code: "other", Text: `<script>alert("x")</script>`}}}
	b := evidence.Of(r)
	b.TakenAt = at
	page := file(t, write(t, b), "evidence.html")
	if strings.Contains(page, "<script>") || !strings.Contains(page, "&lt;script&gt;") {
		t.Error("a reason is not escaped")
	}
	if !strings.Contains(page, "had not ended") {
		t.Error("an open roll is not said to be open")
	}
	for level, want := range map[roll.Evidence]string{roll.Confirmed: "observed at Microsoft", roll.InUse: "wrapping with the version", roll.Accepted: "documents no signal",
		roll.Attested: "a named person", roll.Unknown: "not known"} {
		b := evidence.Of(ended(level))
		b.TakenAt = at
		if page := file(t, write(t, b), "evidence.html"); !strings.Contains(page, want) {
			t.Errorf("%s: the page does not say %q", level, want)
		}
	}
}

// ended is a roll of one policy that ended with the evidence.
func ended(level roll.Evidence) roll.Roll {
	end := at
	return roll.Roll{ID: "r1", State: roll.Succeeded, Outcome: level, Round: 1, Plan: roll.Plan{Policies: []roll.PlanPolicy{{ID: "exo-na", Workload: roll.Exchange}}},
		Steps: []roll.Step{{N: 1, Round: 1, Kind: roll.Verify, Policy: "exo-na", State: roll.StepSucceeded, EndedAt: &end, Result: roll.Result{Evidence: level, Source: "as it was"}}}}
}

// What was found after the end stands beside what was known at the end, and
// does not replace it.
func TestLaterEvidenceStandsBeside(t *testing.T) {
	r := ended(roll.Accepted)
	r.Later = []roll.LaterEvidence{{Policy: "exo-na", Evidence: roll.InUse, Source: "the log", At: at.Add(time.Hour)}}
	b := evidence.Of(r)
	b.TakenAt = at
	if p := b.Policies[0]; p.Evidence != roll.InUse || p.EvidenceAtEnd != roll.Accepted || p.Source != "the log" || b.Roll.Outcome != roll.Accepted || b.Roll.CurrentOutcome != roll.InUse {
		t.Errorf("bundle %+v %+v", b.Roll, p)
	}
	if page := file(t, write(t, b), "evidence.html"); !strings.Contains(page, "accepted when the roll ended") {
		t.Error("the page hides what was known at the end")
	}
}
