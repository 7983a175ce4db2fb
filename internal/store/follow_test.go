package store_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

// An entry's number is drawn before it is committed: while one with a smaller
// number is under way, the horizon beyond it is not settled; then both are
// there, in order.
func TestHorizonWaitsForEarlierEntries(t *testing.T) {
	b := newBench(t)
	inv := b.declare(inventory("a"))
	r := b.create(inv, "exo-na")
	start, err := b.st.RollHorizon(t.Context(), r.ID)
	must(t, err)
	if settled, err := b.st.Settled(t.Context(), start); err != nil || !settled {
		t.Fatalf("a quiet database is not settled: %v", err)
	}
	const insert = `INSERT INTO audit_entries (roll_id, subject, version, at, bytes) VALUES ($1, $2, 1, now(), convert_to('{"subject":"' || $2::text || '"}', 'UTF8'))`
	early, err := b.root.Begin(t.Context())
	must(t, err)
	defer func() { _ = early.Rollback(t.Context()) }()
	_, err = early.Exec(t.Context(), insert, r.ID, "mailbox/early")
	must(t, err)
	_, err = b.root.Exec(t.Context(), insert, r.ID, "mailbox/late")
	must(t, err)

	h, err := b.st.RollHorizon(t.Context(), r.ID)
	must(t, err)
	if h.Entry <= start.Entry {
		t.Fatalf("the horizon stays at %d", h.Entry)
	}
	if settled, err := b.st.Settled(t.Context(), h); err != nil || settled {
		t.Errorf("settled while an earlier entry is under way: %v", err)
	}
	must(t, early.Commit(t.Context()))
	if settled, err := b.st.Settled(t.Context(), h); err != nil || !settled {
		t.Errorf("not settled after it: %v", err)
	}
	list, err := b.st.RollEventsUpTo(t.Context(), r.ID, start.Entry, h.Entry, 10)
	must(t, err)
	var got []string
	for _, e := range list {
		got = append(got, e.Entry.Subject)
	}
	if diff := cmp.Diff([]string{"mailbox/early", "mailbox/late"}, got); diff != "" {
		t.Error(diff)
	}
}
