package store_test

import (
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/keyroll/keyroll/internal/roll"
	"github.com/keyroll/keyroll/internal/store"
)

func driftItem(n string) roll.DriftItem {
	return roll.DriftItem{Key: "key_missing|key:" + n, Code: "key_missing", Subject: "key:" + n, Source: "key:" + n, Declared: "a key", Seen: "none", Remedy: "recover it"}
}

// look is a complete look at the tenant that saw the items.
func (b *bench) look(inv roll.Inventory, items ...string) store.Look {
	l := store.Look{TenantID: inv.TenantID, TenantVersion: 1, At: b.st.Now(), Complete: true, By: roll.Keyroll()}
	for _, n := range items {
		l.Comparison.Drift = append(l.Comparison.Drift, driftItem(n))
	}
	return l
}

func (b *bench) outbox(tenantID string) string {
	b.t.Helper()
	return one[string](b, `SELECT coalesce(string_agg(type || ' ' || jsonb_array_length(payload->'drift'), ', ' ORDER BY id), '') FROM events WHERE roll_id IS NULL AND tenant_id = '`+tenantID+`'`)
}

func standing(d store.TenantDrift) string {
	var out []string
	for _, row := range d.Drift {
		out = append(out, row.Subject)
	}
	return strings.Join(out, " ")
}

// A difference is told once when it comes and once when it goes, and again
// when it comes back; what was not checked stays as it was.
func TestRecordDrift(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	inv := b.declare(inventory("a"))
	record := func(l store.Look, want, events string) store.TenantDrift {
		t.Helper()
		d, err := b.st.RecordDrift(t.Context(), l)
		must(t, err)
		if got := standing(d); got != want {
			t.Errorf("standing %q, want %q", got, want)
		}
		if got := b.outbox(inv.TenantID); got != events {
			t.Errorf("events %q, want %q", got, events)
		}
		return d
	}
	before, err := b.st.TenantDrift(t.Context(), inv.TenantID)
	must(t, err)
	if before.LookedAt != nil || before.NextAt.After(b.st.Now().Add(6*time.Minute)) {
		t.Errorf("before the first look: %+v", before)
	}
	record(b.look(inv), "", "")
	first := record(b.look(inv, "exo-a", "exo-b"), "key:exo-a key:exo-b", "tenant.drift_detected 2")
	again := record(b.look(inv, "exo-a", "exo-b"), "key:exo-a key:exo-b", "tenant.drift_detected 2")
	if !again.Drift[0].Since.Equal(first.Drift[0].Since) || !again.Drift[0].LastSeen.After(first.Drift[0].LastSeen) {
		t.Errorf("seen again: %+v, before %+v", again.Drift[0], first.Drift[0])
	}

	// Cut short by a failure that will pass: what it hides is neither told nor cleared.
	blind := b.look(inv)
	blind.Complete = false
	blind.Comparison.NotChecked = []roll.NotChecked{{Subject: "key:exo-a", Source: "key:exo-a", Code: "unavailable", Detail: "later", Remedy: "nothing"}}
	blind.Next = func(failures int) time.Duration { return time.Duration(failures) * time.Hour }
	d := record(blind, "key:exo-a", "tenant.drift_detected 2, tenant.drift_cleared 1")
	if d.ComparedAt.After(again.LookedAt.Add(0)) || !d.LookedAt.After(*again.LookedAt) || len(d.NotChecked) != 1 {
		t.Errorf("cut short: %+v", d)
	}
	blind.At = b.st.Now()
	d = record(blind, "key:exo-a", "tenant.drift_detected 2, tenant.drift_cleared 1")
	if wait := d.NextAt.Sub(b.st.Now()); wait < 119*time.Minute || wait > 2*time.Hour {
		t.Errorf("after two failures it waits %s", wait)
	}

	// A look from before the last one changes nothing.
	old := b.look(inv, "exo-b")
	old.At = old.At.Add(-time.Hour)
	record(old, "key:exo-a", "tenant.drift_detected 2, tenant.drift_cleared 1")

	back := record(b.look(inv, "exo-b"), "key:exo-b", "tenant.drift_detected 2, tenant.drift_cleared 1, tenant.drift_detected 1, tenant.drift_cleared 1")
	if !back.Drift[0].Since.After(again.Drift[1].LastSeen) {
		t.Errorf("what came back counts from the first time: %+v", back.Drift[0])
	}
	if n := one[int](b, `SELECT count(*) FROM audit_entries WHERE subject LIKE 'drift/%'`); n != 3 {
		t.Errorf("%d audit entries for three changes", n)
	}
	st, err := b.st.DriftStats(t.Context())
	must(t, err)
	if st.Items["key_missing"] != 1 || len(st.Items) != 1 || st.NotChecked != 0 || st.Oldest == nil {
		t.Errorf("%+v", st)
	}
	b.verified()
}

// A look at another declaration, or at a tenant that is retired, records nothing.
func TestRecordDriftStale(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	inv := b.declare(inventory("a"))
	l := b.look(inv, "exo-a")
	_, err := b.st.DeclareTenant(t.Context(), inv, 1, ada, roll.Observation{})
	must(t, err)
	_, err = b.st.RecordDrift(t.Context(), l)
	wantErr(t, err, store.ErrStale)
	l.TenantVersion = 2
	_, err = b.st.RecordDrift(t.Context(), l)
	must(t, err)
	_, err = b.st.RetireTenant(t.Context(), inv.TenantID, ada, "gone")
	must(t, err)
	l.TenantVersion = 3
	_, err = b.st.RecordDrift(t.Context(), l)
	wantErr(t, err, store.ErrNotFound)
	st, err := b.st.DriftStats(t.Context())
	must(t, err)
	if len(st.Items) != 0 || st.Oldest != nil {
		t.Errorf("figures of a retired tenant: %+v", st)
	}
}

// Of looks at the same time each difference is told once.
func TestRecordDriftRace(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	inv := b.declare(inventory("a"))
	l := b.look(inv, "exo-a", "exo-b")
	var wg sync.WaitGroup
	for range 6 {
		wg.Go(func() {
			if _, err := b.st.RecordDrift(t.Context(), l); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if got := b.outbox(inv.TenantID); got != "tenant.drift_detected 2" {
		t.Errorf("events %q", got)
	}
	b.verified()
}

// Each tenant's turn is taken by one process, and comes again when that one
// says nothing more. Retired tenants have none.
func TestDueComparisons(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	var all []string
	for _, n := range []string{"a", "b", "c", "d"} {
		all = append(all, b.declare(inventory(n)).TenantID)
	}
	if early, err := b.st.DueComparisons(t.Context(), 10, time.Hour); err != nil || len(early) != 0 {
		t.Errorf("due at once: %v, %v", early, err)
	}
	_, err := b.st.RetireTenant(t.Context(), all[3], ada, "gone")
	must(t, err)
	_, err = b.pool.Exec(t.Context(), `UPDATE tenant_comparisons SET next_at = now() - interval '1 minute'`)
	must(t, err)
	var wg sync.WaitGroup
	var mu sync.Mutex
	var taken []string
	for range 5 {
		wg.Go(func() {
			due, err := b.st.DueComparisons(t.Context(), 1, time.Hour)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				t.Error(err)
			}
			taken = append(taken, due...)
		})
	}
	wg.Wait()
	slices.Sort(taken)
	want := slices.Sorted(slices.Values(all[:3]))
	rest, err := b.st.DueComparisons(t.Context(), 10, time.Hour)
	must(t, err)
	if taken = slices.Sorted(slices.Values(append(taken, rest...))); !slices.Equal(taken, want) {
		t.Errorf("taken %v, want each of %v once", taken, want)
	}
}
