package store_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/keyroll/keyroll/internal/roll"
	"github.com/keyroll/keyroll/internal/store"
)

// raise makes every insert into a table fail, as a full disk would.
func (b *bench) raise(table string) (undo func()) {
	b.t.Helper()
	b.exec(`CREATE OR REPLACE FUNCTION test_raise() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'planted' USING ERRCODE = '53100'; END $$`)
	b.exec(`CREATE TRIGGER test_raise BEFORE INSERT OR UPDATE ON ` + table + ` FOR EACH ROW EXECUTE FUNCTION test_raise()`)
	return func() { b.exec(`DROP TRIGGER test_raise ON ` + table) }
}

// Whatever part cannot be written, nothing is: state, steps, audit entry,
// events, ledger, lease and job stand or fall together.
func TestAllOrNothing(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	inv := b.declare(inventory("a"))
	// Waits: one round trip. Cancel: an explicit transaction, lease and queue included.
	r := b.do(b.read(b.create(inv, "spo").ID), roll.Preflight, "")
	r, lease := b.begin(r, roll.SharePointLease, "")
	r, err := b.st.TakeLease(t.Context(), r, lease.N, lease.Epoch, time.Minute)
	must(t, err)
	r, s := b.begin(r, roll.CreateKeyVersion, "spo-a")
	done := roll.Done{N: s.N, Epoch: s.Epoch, Result: wellDone(r, s)}
	halt := roll.Halted{N: s.N, Epoch: s.Epoch, Code: "x", Detail: "y", NotApplied: true}
	before := b.written() + holder(b, inv)
	for _, table := range []string{"steps", "audit_entries", "audit_pending", "events", "key_versions"} {
		undo := b.raise(table)
		if _, err := b.st.Transition(t.Context(), r, done); sqlState(err) != "53100" {
			t.Errorf("%s failing: error %v", table, err)
		}
		undo()
	}
	for _, table := range []string{"audit_entries", "sharepoint_leases"} {
		undo := b.raise(table)
		if _, err := b.st.Transition(t.Context(), r, halt); sqlState(err) != "53100" {
			t.Errorf("%s failing: error %v", table, err)
		}
		undo()
	}
	planted := errors.New("no job")
	b.jobs.fail(planted)
	_, err = b.st.Transition(t.Context(), b.read(r.ID), roll.Cancel{By: rita})
	wantErr(t, err, planted)
	fresh, fx := b.fresh(inv, false, "exo-na")
	wantErr(t, b.st.CreateRoll(t.Context(), fresh, fx, nil), planted)
	b.jobs.fail(nil)
	wantErr(t, b.st.CreateRoll(t.Context(), fresh, fx, func(context.Context, store.Tx) error { return planted }), planted)
	if after := b.written() + holder(b, inv); after != before {
		t.Errorf("something was written:\n%s\n%s", before, after)
	}
	b.verified()
	// With nothing in the way both go through, and the lease with them.
	b.apply(r, halt)
	if h := holder(b, inv); h != "" {
		t.Errorf("the lease is still held by %s", h)
	}
	must(t, b.st.CreateRoll(t.Context(), fresh, fx, nil))
	b.verified()
}

func holder(b *bench, inv roll.Inventory) string {
	return one[string](b, `SELECT coalesce(holder::text, '') FROM sharepoint_leases WHERE tenant_id = $1`, inv.TenantID)
}
