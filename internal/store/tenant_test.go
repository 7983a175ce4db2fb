package store_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/keyroll/keyroll/internal/roll"
	"github.com/keyroll/keyroll/internal/store"
)

func (b *bench) ledger(inv roll.Inventory, page store.LedgerPage) []store.LedgerRow {
	b.t.Helper()
	if page.Limit == 0 {
		page.Limit = 100
	}
	rows, err := b.st.Ledger(b.t.Context(), inv.TenantID, page)
	must(b.t, err)
	return rows
}

func (b *bench) ledgerRow(inv roll.Inventory, version string) store.LedgerRow {
	b.t.Helper()
	for _, r := range b.ledger(inv, store.LedgerPage{}) {
		if r.Version == version {
			return r
		}
	}
	b.t.Fatalf("version %s is not in the ledger", version)
	return store.LedgerRow{}
}

func TestDeclareTenant(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	ctx := t.Context()
	inv := inventory("a")
	first, err := b.st.DeclareTenant(ctx, inv, 0, ada, healthy(inv))
	must(t, err)
	if d := cmp.Diff(inv, first.Inventory); d != "" || first.Version != 1 || first.DeclaredAt.Location() != time.UTC {
		t.Fatalf("version %d, %v: %s", first.Version, first.DeclaredAt, d)
	}
	_, err = b.st.DeclareTenant(ctx, inv, 0, ada, roll.Observation{})
	wantErr(t, err, store.ErrExists)
	_, err = b.st.DeclareTenant(ctx, inv, 2, ada, roll.Observation{})
	wantErr(t, err, store.ErrStale)
	if n := len(b.ledger(inv, store.LedgerPage{})); n != 12 {
		t.Fatalf("%d ledger rows for six keys of two versions", n)
	}

	// Of many declarations at once that read the same version, one is written.
	var wg sync.WaitGroup
	var mu sync.Mutex
	won := 0
	for i := range 10 {
		change := inv
		change.Name = fmt.Sprintf("Name %d", i)
		wg.Go(func() {
			_, err := b.st.DeclareTenant(ctx, change, 1, ada, roll.Observation{})
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				won++
			} else if !errors.Is(err, store.ErrStale) {
				t.Errorf("%v (%s)", err, sqlState(err))
			}
		})
	}
	wg.Wait()
	if won != 1 {
		t.Fatalf("%d declarations won", won)
	}

	// What leaves the declaration keeps its rows, in the ledger and beside it.
	small := inv
	small.Keys, small.Policies = inv.Keys[:4], inv.Policies[:2]
	small.TenantID = upper(inv.TenantID)
	second, err := b.st.DeclareTenant(ctx, small, 2, ada, roll.Observation{})
	must(t, err)
	if second.Version != 3 || second.Inventory.TenantID != inv.TenantID {
		t.Fatalf("version %d, %s", second.Version, second.Inventory.TenantID)
	}
	if n := len(b.ledger(inv, store.LedgerPage{})); n != 12 {
		t.Errorf("%d ledger rows left", n)
	}
	if s := one[string](b, `SELECT string_agg(id || ':' || declared, ' ' ORDER BY id) FROM root_keys`); s != "exo-a:true exo-b:true m-a:true m-b:true spo-a:false spo-b:false" {
		t.Errorf("keys: %s", s)
	}
	if n := one[int](b, `SELECT count(*) FROM policies WHERE NOT declared`); n != 1 {
		t.Errorf("%d policies not declared", n)
	}
	if n := one[int](b, `SELECT count(*) FROM sharepoint_leases`); n != 1 {
		t.Errorf("%d leases", n)
	}

	// Another tenant cannot take a declared key, whatever its case; a free one it can.
	other := inventory("b")
	other.Keys[0].VaultURL, other.Keys[0].Name = upper(inv.Keys[0].VaultURL), upper(inv.Keys[0].Name)
	other.Keys[0].VaultURL = strings.Replace(other.Keys[0].VaultURL, "HTTPS", "https", 1)
	_, err = b.st.DeclareTenant(ctx, other, 0, ada, healthy(other))
	var taken *store.KeyTakenError
	if !errors.As(err, &taken) || !strings.Contains(taken.Detail, "m-a") || strings.Contains(taken.Detail, inv.TenantID) {
		t.Fatalf("error %v, %+v", err, taken)
	}
	if n := one[int](b, `SELECT count(*) FROM tenants`); n != 1 {
		t.Errorf("%d tenants", n)
	}
	b.verified()
}

// A key that changes hands is in the ledger of both.
func TestKeyChangesHands(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	one1, two := b.declare(inventory("a")), inventory("b")
	two.Keys = one1.Keys
	if _, err := b.st.RetireTenant(t.Context(), upper(one1.TenantID), ada, "merged"); err != nil {
		t.Fatal(err)
	}
	b.declare(two)
	for _, inv := range []roll.Inventory{one1, two} {
		if n := len(b.ledger(inv, store.LedgerPage{})); n != 12 {
			t.Errorf("%s: %d ledger rows", inv.Name, n)
		}
	}
	b.create(two, "exo-na")
	b.verified()
}

func TestRetireTenant(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	inv := b.declare(inventory("a"))
	r := b.create(inv, "exo-na")
	_, err := b.st.RetireTenant(t.Context(), inv.TenantID, ada, "x")
	wantErr(t, err, store.ErrOpenRolls)
	b.apply(b.read(r.ID), roll.Cancel{By: rita})
	for range 2 { // again is no error and no entry
		got, err := b.st.RetireTenant(t.Context(), inv.TenantID, ada, "x")
		must(t, err)
		if got.RetiredAt == nil || got.Version != 2 {
			t.Fatalf("%+v", got)
		}
	}
	if n := len(b.ledger(inv, store.LedgerPage{})); n != 12 {
		t.Errorf("%d ledger rows left", n)
	}
	again, err := b.st.DeclareTenant(t.Context(), inv, 2, ada, roll.Observation{})
	must(t, err)
	if again.RetiredAt != nil || again.Version != 3 {
		t.Errorf("%+v", again)
	}
	b.verified()
}

func TestLedger(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	inv := b.declare(inventory("a"))
	record := func(change func(*roll.Inventory, *roll.Observation), origin string) {
		t.Helper()
		i, obs := inv, healthy(inv)
		change(&i, &obs)
		must(t, b.st.RecordLedger(t.Context(), i, obs, origin))
	}
	add := func(n int) func(*roll.Inventory, *roll.Observation) {
		return func(_ *roll.Inventory, obs *roll.Observation) {
			k := obs.Keys["exo-a"]
			k.Versions = append(slices.Clone(k.Versions), version("exo-a", n))
			obs.Keys["exo-a"] = k
		}
	}
	// A survey sees the roll's own version before the roll knows of it.
	record(add(3), store.OriginStranger)
	if row := b.ledgerRow(inv, ver("exo-a", 3)); row.Origin != store.OriginStranger {
		t.Fatalf("%+v", row)
	}
	r := b.do(b.read(b.create(inv, "exo-na").ID), roll.Preflight, "")
	r = b.do(r, roll.CreateKeyVersion, "exo-a")
	if row := b.ledgerRow(inv, ver("exo-a", 3)); row.Origin != store.OriginRoll || row.RollID != r.ID {
		t.Errorf("%+v", row)
	}
	// Neither backfill nor a later look takes that back, or a policy away.
	noPolicy := func(i *roll.Inventory, obs *roll.Observation) {
		add(3)(i, obs)
		i.Policies = nil
		k := obs.Keys["exo-a"]
		k.Versions = slices.Clone(k.Versions)
		for n := range k.Versions {
			k.Versions[n].Enabled = false
		}
		obs.Keys["exo-a"] = k
	}
	record(noPolicy, store.OriginBackfill)
	if row := b.ledgerRow(inv, ver("exo-a", 3)); row.Origin != store.OriginRoll || row.RollID != r.ID || cmp.Diff(row.Policies, []string{"exo-na"}) != "" || row.State != "disabled" {
		t.Errorf("%+v", row)
	}
	if row := b.ledgerRow(inv, ver("exo-a", 1)); row.Origin != store.OriginBackfill || !slices.Equal(row.Policies, []string{"exo-na"}) {
		t.Errorf("%+v", row)
	}
	// More policies are added to; another case of the name is the same key.
	record(func(i *roll.Inventory, obs *roll.Observation) {
		i.Policies = append(slices.Clone(i.Policies), roll.Policy{ID: "exo-eu", Workload: roll.Exchange, Keys: []string{"exo-a", "exo-b"}})
		i.Keys = slices.Clone(i.Keys)
		for n := range i.Keys {
			i.Keys[n].Name = upper(i.Keys[n].Name)
		}
	}, store.OriginBackfill)
	if row := b.ledgerRow(inv, ver("exo-a", 1)); !slices.Equal(row.Policies, []string{"exo-eu", "exo-na"}) || row.KeyName != "Key-exo-a" || row.State != "enabled" {
		t.Errorf("%+v", row)
	}
	if n := len(b.ledger(inv, store.LedgerPage{})); n != 13 {
		t.Errorf("%d rows", n)
	}
	// A key that could not be read says nothing.
	record(func(_ *roll.Inventory, obs *roll.Observation) {
		for id, k := range obs.Keys {
			k.Trouble, k.Versions = &roll.Trouble{Code: "x"}, []roll.KeyVersion{version(id, 9)}
			obs.Keys[id] = k
		}
	}, store.OriginStranger)
	if n := len(b.ledger(inv, store.LedgerPage{})); n != 13 {
		t.Errorf("%d rows after an unreadable look", n)
	}
	// Writers in any order never wait for each other in a circle.
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			mine := inv
			mine.Keys = slices.Clone(inv.Keys)
			if i%2 == 1 {
				slices.Reverse(mine.Keys)
			}
			for range 10 {
				if err := b.st.RecordLedger(t.Context(), mine, healthy(mine), store.OriginBackfill); err != nil {
					t.Errorf("%v (%s)", err, sqlState(err))
				}
			}
		})
	}
	wg.Wait()
}

// Pages leave nothing out and show nothing twice, times equal or not.
func TestPages(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	inv := b.many(40, 0)
	b.exec(`UPDATE rolls SET created_at = date_trunc('hour', created_at) + (ascii(id::text) % 3) * interval '1 second'`)
	b.exec(`UPDATE rolls SET data = jsonb_build_object('id', id, 'created_at', created_at)`)
	all := one[int](b, `SELECT count(*) FROM rolls`)
	for _, limit := range []int{1, 7, 100} {
		seen := map[string]bool{}
		f := store.RollFilter{Limit: limit}
		for {
			page, err := b.st.Rolls(t.Context(), f)
			if err != nil {
				t.Fatal(err)
			}
			for _, r := range page {
				if seen[r.ID] {
					t.Fatalf("roll %s twice", r.ID)
				}
				seen[r.ID] = true
			}
			if len(page) < limit {
				break
			}
			last := page[len(page)-1]
			f.AfterID, f.AfterTime = last.ID, last.CreatedAt
		}
		if len(seen) != all {
			t.Errorf("limit %d: %d of %d rolls", limit, len(seen), all)
		}
		keys := map[string]bool{}
		p := store.LedgerPage{Limit: limit}
		for {
			page := b.ledger(inv, p)
			for _, r := range page {
				at := r.VaultHost + " " + r.KeyName + " " + r.Version
				if keys[at] {
					t.Fatalf("%s twice", at)
				}
				keys[at] = true
				p.AfterTime, p.AfterKey = r.CreatedAt, at
			}
			if len(page) < limit {
				break
			}
		}
		if len(keys) != 12 {
			t.Errorf("limit %d: %d of 12 versions", limit, len(keys))
		}
	}
}
