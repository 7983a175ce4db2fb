package store_test

import (
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/keyroll/keyroll/internal/roll"
	"github.com/keyroll/keyroll/internal/store"
)

// replacing brings a roll that gives the primary slot another key to the last
// look at its operation.
func (b *bench) replacing() (roll.Inventory, roll.Roll, roll.Done) {
	b.t.Helper()
	inv := inventory("a")
	inv.Keys = append(inv.Keys, roll.Key{ID: "spo-c", VaultURL: "https://a-spo-c.vault.azure.net", Name: "Key-spo-c"})
	b.declare(inv)
	req := request(inv)
	req.Replace = []roll.Replacement{{Policy: "spo", Slot: roll.Primary, Key: "spo-c"}}
	res, err := roll.Resolve(inv, req)
	must(b.t, err)
	plan, err := roll.Build(inv, res, healthy(inv), b.st.Now())
	must(b.t, err)
	r, fx := roll.New(newID(), req, plan, rita, false, time.Hour, b.st.Now())
	must(b.t, b.st.CreateRoll(b.t.Context(), r, fx, nil))
	r = b.do(b.read(r.ID), roll.Preflight, "")
	r, lease := b.begin(r, roll.SharePointLease, "")
	r, err = b.st.TakeLease(b.t.Context(), r, lease.N, lease.Epoch, time.Minute)
	must(b.t, err)
	r = b.do(b.do(r, roll.CreateKeyVersion, "spo-c"), roll.SharePointRollKey, "spo-c")
	r, s := b.begin(r, roll.SharePointAwait, "spo-c")
	return inv, r, roll.Done{N: s.N, Epoch: s.Epoch, Result: wellDone(r, s)}
}

// TestRedeclareWithTheEnd: the end of a replacement and the declaration that
// follows it stand or fall together.
func TestRedeclareWithTheEnd(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	inv, r, done := b.replacing()
	before := b.written() + one[string](b, `SELECT declaration::text || version FROM tenants`)
	for _, table := range []string{"tenants", "root_keys", "policies", "audit_entries", "events", "steps"} {
		undo := b.raise(table)
		if _, err := b.st.Transition(t.Context(), r, done); sqlState(err) != "53100" {
			t.Errorf("%s failing: error %v", table, err)
		}
		undo()
	}
	if after := b.written() + one[string](b, `SELECT declaration::text || version FROM tenants`); after != before {
		t.Errorf("something was written:\n%s\n%s", before, after)
	}
	b.apply(r, done)
	got, err := b.st.Tenant(t.Context(), inv.TenantID)
	must(t, err)
	p, _ := got.Inventory.PolicyByID("spo")
	if got.Version != 2 || p.Primary != "spo-c" || len(got.Inventory.FormerKeys) != 1 || got.Inventory.FormerKeys[0].ID != "spo-a" {
		t.Errorf("version %d: %+v", got.Version, got.Inventory)
	}
	if declared := one[bool](b, `SELECT declared FROM root_keys WHERE id = 'spo-a'`); declared {
		t.Error("the key that left still counts as declared")
	}
	if n := one[int](b, `SELECT count(*)::int FROM events WHERE type = 'tenant.slot_replaced' AND payload->>'roll_id' = $1`, r.ID); n != 1 {
		t.Errorf("%d events about the tenant", n)
	}
	if n := one[int](b, `SELECT count(*)::int FROM key_versions WHERE key_id = 'spo-a'`); n != 2 {
		t.Errorf("%d versions of the key that left are in the ledger", n)
	}
	b.verified()
	// Who had read the declaration before does not write over it.
	_, err = b.st.DeclareTenant(t.Context(), inv, 1, ada, roll.Observation{})
	wantErr(t, err, store.ErrStale)
}

// TestRedeclareLeavesEdits: a declaration that names another key in the slot
// stays as its author wrote it, and the roll goes on.
func TestRedeclareLeavesEdits(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	inv, r, done := b.replacing()
	edited := inv
	edited.Policies = append([]roll.Policy{}, inv.Policies...)
	edited.Policies[2].Primary = "m-a"
	_, err := b.st.DeclareTenant(t.Context(), edited, 1, ada, roll.Observation{})
	must(t, err)
	b.apply(r, done)
	got, err := b.st.Tenant(t.Context(), inv.TenantID)
	must(t, err)
	if p, _ := got.Inventory.PolicyByID("spo"); got.Version != 2 || p.Primary != "m-a" || len(got.Inventory.FormerKeys) != 0 {
		t.Errorf("version %d: %+v", got.Version, got.Inventory)
	}
	b.verified()
}

// TestRedeclareAgainstDeclare: the roll's end and an edit at the same moment
// come one after the other, whoever is first, and never in a circle.
func TestRedeclareAgainstDeclare(t *testing.T) {
	t.Parallel()
	for range 5 {
		b := newBench(t)
		inv, r, done := b.replacing()
		edited := inv
		edited.Name = "Renamed"
		var wg sync.WaitGroup
		var declared, ended error
		wg.Go(func() { _, declared = b.st.DeclareTenant(t.Context(), edited, 1, ada, healthy(inv)) })
		wg.Go(func() { _, ended = b.st.Transition(t.Context(), r, done) })
		wg.Wait()
		must(t, ended)
		got, err := b.st.Tenant(t.Context(), inv.TenantID)
		must(t, err)
		p, _ := got.Inventory.PolicyByID("spo")
		switch {
		case p.Primary != "spo-c":
			t.Errorf("the declaration did not follow: %+v (declare: %v)", p, declared)
		case declared != nil && !errors.Is(declared, store.ErrStale):
			t.Errorf("declare: %v", declared)
		case declared == nil && got.Inventory.Name != "Renamed":
			t.Error("the edit was lost")
		}
		b.verified()
	}
}
