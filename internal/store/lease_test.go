package store_test

import (
	"context"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/keyroll/keyroll/internal/roll"
	"github.com/keyroll/keyroll/internal/store"
)

// asking makes a roll over one geo whose lease step is claimed.
func (b *bench) asking(inv roll.Inventory, policy string) (roll.Roll, roll.Step) {
	b.t.Helper()
	return b.begin(b.do(b.read(b.create(inv, policy).ID), roll.Preflight, ""), roll.SharePointLease, "")
}

// take asks for the lease once.
func (b *bench) take(r roll.Roll, s roll.Step) roll.Roll {
	b.t.Helper()
	next, err := b.st.TakeLease(b.t.Context(), r, s.N, s.Epoch, time.Minute)
	must(b.t, err)
	return next
}

func (b *bench) lease(inv roll.Inventory) store.Lease {
	b.t.Helper()
	ls, err := b.st.Leases(b.t.Context(), inv.TenantID)
	must(b.t, err)
	if len(ls) != 1 {
		b.t.Fatalf("%d leases", len(ls))
	}
	return ls[0]
}

func TestLeaseQueueIsFIFO(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	inv := b.declare(geoInventory("a", 4))
	var rs [4]roll.Roll
	var ss [4]roll.Step
	for i, p := range inv.Policies {
		rs[i], ss[i] = b.asking(inv, p.ID)
		rs[i] = b.take(rs[i], ss[i])
		if st := rs[i].Steps[ss[i].N-1]; st.Position != i || i == 0 != (st.State == roll.StepSucceeded) {
			t.Fatalf("roll %d: position %d, %s", i, st.Position, st.State)
		}
	}
	if l := b.lease(inv); l.Holder != rs[0].ID || cmp.Diff(l.Queue, []string{rs[1].ID, rs[2].ID, rs[3].ID}) != "" {
		t.Fatalf("lease %+v", l)
	}
	// Asking again keeps the place, and is a quiet look while nothing changes.
	again := b.take(rs[2], ss[2])
	if again.Version != rs[2].Version || again.Steps[ss[2].N-1].Position != 2 {
		t.Errorf("asked again: version %d after %d, position %d", again.Version, rs[2].Version, again.Steps[ss[2].N-1].Position)
	}
	// The head of the queue leaves: the others move up.
	b.apply(rs[1], roll.Cancel{By: rita})
	if rs[2] = b.take(again, ss[2]); rs[2].Steps[ss[2].N-1].Position != 1 {
		t.Errorf("position %d", rs[2].Steps[ss[2].N-1].Position)
	}
	// The holder leaves: the heir has it, is woken, and its row is untouched.
	row := `SELECT xmin::text || ' ' || version || ' ' || data FROM rolls WHERE id = $1`
	before := one[string](b, row, rs[2].ID)
	b.jobs.taken()
	b.apply(rs[0], roll.Cancel{By: rita})
	if after := one[string](b, row, rs[2].ID); after != before {
		t.Errorf("the hand-over wrote the heir's row:\n%s\n%s", before, after)
	}
	if w := b.jobs.taken(); len(w) != 1 || w[0].RollID != rs[2].ID {
		t.Errorf("woken: %+v", w)
	}
	if l := b.lease(inv); l.Holder != rs[2].ID || cmp.Diff(l.Queue, []string{rs[3].ID}) != "" {
		t.Errorf("lease %+v", l)
	}
	held, err := b.st.HoldsLease(t.Context(), inv.TenantID, "tenant", rs[2].ID)
	must(t, err)
	if !held {
		t.Error("the heir does not hold it")
	}
	if rs[2] = b.take(rs[2], ss[2]); rs[2].Steps[ss[2].N-1].State != roll.StepSucceeded {
		t.Error("the heir did not take note")
	}
	// A stale asker gets nothing.
	_, err = b.st.TakeLease(t.Context(), again, ss[2].N, ss[2].Epoch, time.Minute)
	wantErr(t, err, store.ErrStale)
	b.apply(rs[2], roll.Cancel{By: rita})
	b.apply(rs[3], roll.Cancel{By: rita})
	if l := b.lease(inv); l.Holder != "" || len(l.Queue) != 0 {
		t.Errorf("lease %+v", l)
	}
	b.verified()
}

// Whatever made a lease free with a waiter behind it: nobody overtakes him.
func TestNobodyOvertakes(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	inv := b.declare(geoInventory("a", 3))
	holder, hs := b.asking(inv, inv.Policies[0].ID)
	b.take(holder, hs)
	waiter, ws := b.asking(inv, inv.Policies[1].ID)
	waiter = b.take(waiter, ws)
	b.exec(`UPDATE sharepoint_leases SET holder = NULL, held_since = NULL`)
	late, ls := b.asking(inv, inv.Policies[2].ID)
	if late = b.take(late, ls); late.Steps[ls.N-1].Position != 2 {
		t.Errorf("position %d", late.Steps[ls.N-1].Position)
	}
	if waiter = b.take(waiter, ws); waiter.Steps[ws.N-1].State != roll.StepSucceeded {
		t.Errorf("the waiter is %s", waiter.Steps[ws.N-1].State)
	}
	// A release that was asked for about somebody else does not count.
	b.exec(`UPDATE sharepoint_leases SET release_by = $1, release_at = now(), release_of = $2`, rita.Subject, holder.ID)
	done, _, err := b.st.ReleaseLease(t.Context(), inv.TenantID, "tenant", arno, "x")
	must(t, err)
	if done {
		t.Error("it was released")
	}
}

// The time of the last operation travels with the lease.
func TestLeaseRemembersTheLastOperation(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	inv := b.declare(inventory("a"))
	r, s := b.asking(inv, "spo")
	r = b.take(r, s)
	for _, k := range []string{"spo-a", "spo-b"} {
		r = b.do(r, roll.CreateKeyVersion, k)
		r = b.do(r, roll.SharePointRollKey, k)
		r = b.do(r, roll.SharePointAwait, k)
	}
	end := one[string](b, `SELECT last_ended->>'NAM' FROM sharepoint_leases WHERE tenant_id = $1 AND holder IS NULL`, inv.TenantID)
	want := b.stepOf(r, roll.SharePointAwait, "spo-b").EndedAt
	if got, err := time.Parse(time.RFC3339Nano, end); err != nil || !got.Equal(*want) {
		t.Errorf("last ended %s (%v), want %s", end, err, want)
	}
	b.through(r)
	next, s := b.asking(inv, "spo")
	if next = b.take(next, s); !next.Steps[s.N-1].Result.LastEnded["NAM"].Equal(*want) {
		t.Errorf("the next roll was told %v", next.Steps[s.N-1].Result.LastEnded)
	}
	// A declaration that moves to one lease a geo loses nothing of it.
	b.apply(next, roll.Cancel{By: rita})
	inv.SharePoint.Lease = roll.LeasePerGeo
	_, err := b.st.DeclareTenant(t.Context(), inv, 1, ada, healthy(inv))
	must(t, err)
	moved := one[time.Time](b, `SELECT (last_ended->>'NAM')::timestamptz FROM sharepoint_leases WHERE tenant_id = $1 AND scope = 'geo:NAM'`, inv.TenantID)
	if !moved.Equal(*want) {
		t.Errorf("the new lease says %s, want %s", moved, want)
	}
	b.verified()
}

// A declaration written while a lease is given back takes nothing of it back.
func TestDeclareDuringAnEnd(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	inv := b.declare(inventory("a"))
	ended := func(tx interface {
		Exec(context.Context, string, ...any) (pgconn.CommandTag, error)
	}, at time.Time) {
		_, err := tx.Exec(t.Context(), `UPDATE sharepoint_leases SET last_ended = jsonb_build_object('NAM', $1::timestamptz)`, at)
		must(t, err)
	}
	ended(b.root, long)
	tx, err := b.root.Begin(t.Context())
	must(t, err)
	ended(tx, long.Add(time.Hour))
	declared := make(chan error, 1)
	go func() {
		_, err := b.st.DeclareTenant(context.WithoutCancel(t.Context()), inv, 1, ada, roll.Observation{})
		declared <- err
	}()
	eventually(t, "the declaration waits", func() bool {
		return one[int](b, `SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'`) == 1
	})
	must(t, tx.Commit(t.Context()))
	must(t, <-declared)
	if got := one[time.Time](b, `SELECT (last_ended->>'NAM')::timestamptz FROM sharepoint_leases`); !got.Equal(long.Add(time.Hour)) {
		t.Errorf("last ended %s", got)
	}
}

// A lease whose roll has ended is handed on, but never while its operation may
// be under way.
func TestFreeEndedLeases(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	inv := b.declare(geoInventory("a", 2))
	r, s := b.asking(inv, inv.Policies[0].ID)
	r = b.take(r, s)
	waiter, ws := b.asking(inv, inv.Policies[1].ID)
	waiter = b.take(waiter, ws)
	key := inv.Policies[0].Primary
	r = b.do(r, roll.CreateKeyVersion, key)
	r, _ = b.begin(r, roll.SharePointRollKey, key)
	r = b.apply(r, roll.GiveUp{By: rita, Reason: "lost"})
	r = b.apply(r, roll.GiveUp{By: arno, Reason: "lost"})
	if r.State != roll.Failed || !one[bool](b, `SELECT in_flight FROM rolls WHERE id = $1`, r.ID) {
		t.Fatalf("state %s, not in flight", r.State)
	}
	free := func(want int) {
		t.Helper()
		n, err := b.st.FreeEndedLeases(t.Context())
		must(t, err)
		if n != want {
			t.Fatalf("freed %d, want %d", n, want)
		}
	}
	free(0)
	if l := b.lease(inv); l.Holder != r.ID {
		t.Fatalf("an operation may be under way, and the lease is %+v", l)
	}
	b.exec(`UPDATE rolls SET in_flight = false WHERE id = $1`, r.ID)
	b.jobs.taken()
	free(1)
	if l := b.lease(inv); l.Holder != waiter.ID || len(l.Queue) != 0 {
		t.Errorf("lease %+v", l)
	}
	if w := b.jobs.taken(); len(w) != 1 || w[0].RollID != waiter.ID {
		t.Errorf("woken: %+v", w)
	}
	free(0)
}

func TestReleaseLeaseNeedsTwoPeople(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	inv := b.declare(geoInventory("a", 2))
	release := func(by roll.Actor) (bool, store.Lease, error) {
		return b.st.ReleaseLease(t.Context(), inv.TenantID, "tenant", by, "stuck\x00")
	}
	_, _, err := b.st.ReleaseLease(t.Context(), newID(), "tenant", rita, "x")
	wantErr(t, err, store.ErrNotFound)
	_, _, err = b.st.ReleaseLease(t.Context(), "nonsense", "tenant", rita, "x")
	wantErr(t, err, store.ErrNotFound)
	_, _, err = release(rita)
	wantErr(t, err, store.ErrLeaseFree)
	r, s := b.asking(inv, inv.Policies[0].ID)
	r = b.take(r, s)
	waiter, ws := b.asking(inv, inv.Policies[1].ID)
	waiter = b.take(waiter, ws)
	done, l, err := release(rita)
	must(t, err)
	if done || l.Holder != r.ID || l.ReleaseBy != rita.Subject {
		t.Fatalf("one person: done %v, %+v", done, l)
	}
	_, _, err = release(rita)
	wantErr(t, err, store.ErrSamePerson)
	// The holder changes: what was asked for was about another one.
	b.apply(r, roll.Cancel{By: rita})
	waiter = b.take(waiter, ws)
	done, l, err = release(arno)
	must(t, err)
	if done || l.Holder != waiter.ID {
		t.Fatalf("a request about another holder counted: done %v, %+v", done, l)
	}
	// However the tenant's id is written, the log is about one subject.
	done, l, err = b.st.ReleaseLease(t.Context(), upper(inv.TenantID), "tenant", rita, "yes")
	must(t, err)
	if !done || l.Holder != "" || b.lease(inv).Holder != "" {
		t.Fatalf("two people: done %v, %+v", done, l)
	}
	if n := one[int](b, `SELECT count(*) FROM audit_entries WHERE subject LIKE 'lease/%'`); n != 3 {
		t.Errorf("%d entries", n)
	}
	held, err := b.st.HoldsLease(t.Context(), inv.TenantID, "tenant", waiter.ID)
	must(t, err)
	if held {
		t.Error("a released holder holds it still")
	}
	b.verified()
}
