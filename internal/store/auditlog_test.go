package store_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/keyroll/keyroll/internal/audit"
	"github.com/keyroll/keyroll/internal/roll"
)

// foul changes the log as an owner could who switches the triggers off.
func (b *bench) foul(sql string, args ...any) audit.Report {
	b.t.Helper()
	tx, err := b.root.Begin(b.t.Context())
	must(b.t, err)
	for _, s := range []string{`ALTER TABLE audit_entries DISABLE TRIGGER ALL`, `ALTER TABLE rolls DISABLE TRIGGER ALL`} {
		_, err = tx.Exec(b.t.Context(), s)
		must(b.t, err)
	}
	tag, err := tx.Exec(b.t.Context(), sql, args...)
	must(b.t, err)
	if tag.RowsAffected() == 0 {
		b.t.Fatalf("%s changed nothing", sql)
	}
	must(b.t, tx.Commit(b.t.Context()))
	rep, err := b.st.VerifyAudit(b.t.Context(), func(int) {})
	must(b.t, err)
	return rep
}

// The database's own running digest is audit.Link over the entries.
func TestDigestInSQL(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	r := b.through(b.read(b.create(b.declare(inventory("a")), "exo-na").ID))
	rows, err := b.root.Query(t.Context(), `SELECT bytes FROM audit_entries WHERE roll_id = $1 ORDER BY version`, r.ID)
	must(t, err)
	var chain []byte
	n := int64(0)
	for rows.Next() {
		var entry []byte
		must(t, rows.Scan(&entry))
		chain = audit.Link(chain, entry)
		n++
	}
	must(t, rows.Err())
	if got := one[[]byte](b, `SELECT audit_chain FROM rolls WHERE id = $1`, r.ID); string(got) != string(chain) || n != r.Version {
		t.Errorf("digest %x over %d entries, want %x", got, n, chain)
	}
}

// Whatever is done to the log is found, and named.
func TestVerifyAuditNamesWhatWasDone(t *testing.T) {
	t.Parallel()
	cases := []struct {
		name, sql, kind string
		version         int64
	}{
		{"nothing", `UPDATE audit_entries SET version = version`, "", 0},
		{"a row is deleted", `DELETE FROM audit_entries WHERE subject = $1 AND version = 3`, "missing", 3},
		{"the last row is cut off", `DELETE FROM audit_entries WHERE subject = $1 AND version = (SELECT max(version) FROM audit_entries WHERE subject = $1)`, "missing", 11},
		{"all rows of a subject", `DELETE FROM audit_entries WHERE subject = $1`, "missing", 1},
		{"a row is inserted", `INSERT INTO audit_entries (tenant_id, roll_id, subject, version, at, bytes) SELECT tenant_id, roll_id, subject, 99, at, bytes FROM audit_entries WHERE subject = $1 AND version = 2`, "extra", 99},
		{"a subject is invented", `INSERT INTO audit_entries (subject, version, at, bytes) SELECT 'roll/' || gen_random_uuid() || substr($1, 1, 0), 1, at, bytes FROM audit_entries LIMIT 1`, "extra", 1},
		{"two rows swap their bytes", `UPDATE audit_entries e SET bytes = o.bytes FROM audit_entries o WHERE e.subject = $1 AND o.subject = $1 AND (e.version, o.version) IN ((2, 3), (3, 2))`, "altered", 2},
		{"a word in a row", `UPDATE audit_entries SET bytes = convert_to(replace(convert_from(bytes, 'UTF8'), 'annual', 'manual'), 'UTF8') WHERE subject = $1 AND version = 1`, "altered", 0},
		{"its time", `UPDATE audit_entries SET at = at + interval '1 microsecond' WHERE subject = $1 AND version = 2`, "altered", 2},
		{"its tenant", `UPDATE audit_entries SET tenant_id = NULL WHERE subject = $1 AND version = 2`, "altered", 2},
		{"its roll", `UPDATE audit_entries SET roll_id = NULL WHERE subject = $1 AND version = 2`, "altered", 2},
		{"the roll goes back", `UPDATE rolls SET version = version - 1 WHERE 'roll/' || id = $1`, "extra", 11},
		{"the roll's state", `UPDATE rolls SET state = 'failed' WHERE 'roll/' || id = $1`, "mismatch", 11},
		{"the roll claims more", `UPDATE rolls SET version = 9223372036854775807 WHERE 'roll/' || id = $1`, "missing", 12},
		{"the digest", `UPDATE rolls SET audit_chain = sha256(audit_chain) WHERE 'roll/' || id = $1`, "altered", 0},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t)
			r := b.through(b.read(b.create(b.declare(inventory("a")), "exo-na").ID))
			subject := "roll/" + r.ID
			var args []any
			if strings.Contains(c.sql, "$1") {
				args = append(args, subject)
			}
			rep := b.foul(c.sql, args...)
			if c.kind == "" {
				if !rep.OK() {
					t.Errorf("an untouched log: %v", rep.Problems)
				}
				return
			}
			found := false
			for _, p := range rep.Problems {
				found = found || p.Kind == c.kind && strings.HasPrefix(p.Subject, "roll/") && (c.version == 0 || p.Version == c.version)
			}
			if !found || len(rep.Problems) > 1100 {
				t.Errorf("want %s version %d, %d problems: %v", c.kind, c.version, len(rep.Problems), rep.Problems[:min(5, len(rep.Problems))])
			}
		})
	}
}

// Every kind of subject is in the log, and the history of a roll shows in order.
func TestEverySubjectIsAudited(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	inv := b.declare(geoInventory("a", 1))
	r, s := b.asking(inv, inv.Policies[0].ID)
	r = b.take(r, s)
	_, _, err := b.st.ReleaseLease(t.Context(), inv.TenantID, "tenant", rita, "x")
	must(t, err)
	r = b.apply(r, roll.Cancel{By: rita, Reason: "enough"})
	var seen []string
	var before int64
	for {
		page, err := b.st.RollEvents(t.Context(), r.ID, before, 2)
		must(t, err)
		for _, e := range page {
			if before != 0 && e.ID >= before {
				t.Errorf("entry %d after %d", e.ID, before)
			}
			before = e.ID
			seen = append(seen, fmt.Sprintf("%s/%d %s", e.Entry.Subject[:4], e.Entry.Version, e.Entry.Events[0].Type))
		}
		if len(page) < 2 {
			break
		}
	}
	want := []string{"roll/6 cancel_requested", "leas/1 release_requested", "roll/5 lease_granted", "roll/4 step_begun", "roll/3 step_succeeded", "roll/2 step_begun", "roll/1 requested"}
	if fmt.Sprint(seen) != fmt.Sprint(want) {
		t.Errorf("history %q", seen)
	}
	b.verified()
}
