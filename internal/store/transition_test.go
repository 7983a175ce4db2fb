package store_test

import (
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/keyroll/keyroll/internal/roll"
	"github.com/keyroll/keyroll/internal/store"
)

func TestTransitionWritesEverythingTogether(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	inv := b.declare(inventory("a"))
	r := b.create(inv, "exo-na")
	end := b.through(b.read(r.ID))
	if end.State != roll.Succeeded || end.Outcome != roll.Accepted {
		t.Fatalf("ended %s, %s", end.State, end.Outcome)
	}
	if n := one[int64](b, `SELECT count(*) FROM audit_entries WHERE roll_id = $1`, r.ID); n != end.Version {
		t.Errorf("%d audit entries for %d versions", n, end.Version)
	}
	if n := one[int64](b, `SELECT count(*) FROM events WHERE roll_id = $1 AND type IN ('roll.running', 'roll.succeeded')`, r.ID); n != 2 {
		t.Errorf("%d roll events", n)
	}
	if n := one[int64](b, `SELECT count(*) FROM key_versions WHERE roll_id = $1 AND origin = 'roll' AND policies = '{exo-na}'`, r.ID); n != 2 {
		t.Errorf("%d ledger rows", n)
	}
	if n := one[int64](b, `SELECT count(*) FROM roll_keys WHERE open`); n != 0 {
		t.Errorf("%d keys still open", n)
	}
	b.verified()
}

// A roll that is read back is the roll that was written, so that writing it
// again changes nothing.
func TestRollSurvivesTheDatabase(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	inv := b.declare(inventory("a"))
	r, fx := b.fresh(inv, true, "global", "exo-na", "spo")
	must(t, b.st.CreateRoll(t.Context(), r, fx, nil))
	same := func(want roll.Roll) {
		t.Helper()
		got := b.read(want.ID)
		if d := cmp.Diff(want, got); d != "" {
			t.Fatalf("written and read differ (-written +read):\n%s", d)
		}
	}
	same(r)
	r = b.apply(r, roll.Approve{By: arno, PlanHash: r.Plan.Hash, Comment: "ja <&> \u2028 \U0001F511"})
	same(r)
	r = b.do(r, roll.Preflight, "")
	same(r)
	pct := 33.333333333333336
	r, lease := b.begin(r, roll.SharePointLease, "")
	r = b.apply(r, roll.LeaseGranted{N: lease.N, Epoch: lease.Epoch, LastEnded: map[string]time.Time{"NAM": b.st.Now().Add(-time.Hour)}})
	r = b.do(r, roll.CreateKeyVersion, "spo-a")
	r, s := b.begin(r, roll.SharePointRollKey, "spo-a")
	same(r)
	r = b.apply(r, roll.Waits{N: s.N, Epoch: s.Epoch, For: roll.WaitSettle, Until: b.st.Now().Add(time.Minute), Look: roll.Look{Seen: "Rolling", Percent: &pct, Rolling: true}})
	same(r)

	// Nothing but what the event is about is written.
	before := one[string](b, `SELECT string_agg(xmin::text, ',' ORDER BY n) FROM steps WHERE roll_id = $1`, r.ID)
	b.apply(b.read(r.ID), roll.Polled{N: s.N, Epoch: s.Epoch, Until: b.st.Now().Add(2 * time.Minute)})
	if n := one[int64](b, `SELECT count(*) FROM (SELECT unnest(string_to_array($2, ',')) EXCEPT ALL SELECT xmin::text FROM steps WHERE roll_id = $1) x`, r.ID, before); n != 1 {
		t.Errorf("a look at one step wrote %d steps", n)
	}
}

// What a person typed or Microsoft answered cannot make a roll unwritable.
func TestNulInText(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	inv := b.declare(inventory("a"))
	r, fx := b.fresh(inv, true, "exo-na")
	r.Request.Reason.Text = "a\x00b \\u0000 \\\x00 \xff"
	r.Request.Reason.Ticket = &roll.Ticket{Source: "s\x00", ID: "\x00"}
	must(t, b.st.CreateRoll(t.Context(), r, fx, nil))
	if got, want := b.read(r.ID).Request.Reason.Text, "a\uFFFDb \\u0000 \\\uFFFD \uFFFD"; got != want {
		t.Errorf("reason %q, want %q", got, want)
	}
	r = b.apply(r, roll.Approve{By: arno, PlanHash: r.Plan.Hash, Comment: "\x00\xff"})
	r, s := b.begin(r, roll.Preflight, "")
	b.apply(r, roll.WillRetry{N: s.N, Epoch: s.Epoch, At: b.st.Now(), Code: "http_500", Detail: "<html>\x00"})
	b.verified()
}

func TestStaleWriterCommitsNothing(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	inv := b.declare(inventory("a"))
	old := b.read(b.create(inv, "exo-na").ID)
	b.begin(old, roll.Preflight, "")
	before := b.written()
	n := b.stepOf(old, roll.Preflight, "").N
	_, err := b.st.TransitionAt(t.Context(), old, roll.Begun{N: n, Worker: "w2", RunFor: time.Minute})
	wantErr(t, err, store.ErrStale)
	// Reread and applied again, it is a refusal of the rules, not of the version.
	_, err = b.st.Transition(t.Context(), old, roll.Begun{N: n, Worker: "w2", RunFor: time.Minute})
	var refused *roll.TransitionError
	if !errors.As(err, &refused) {
		t.Fatalf("error %v, want a refusal", err)
	}
	// The same for one that wants a job, in an explicit transaction.
	_, err = b.st.TransitionAt(t.Context(), old, roll.Cancel{By: rita, Reason: "stale"})
	wantErr(t, err, store.ErrStale)
	if after := b.written(); after != before {
		t.Errorf("a stale writer changed something:\n%s\n%s", before, after)
	}
}

func TestConflictIsAppliedAgain(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	inv := b.declare(inventory("a"))
	old := b.read(b.create(inv, "exo-na").ID)
	b.begin(old, roll.Preflight, "")
	next := b.apply(old, roll.GiveUp{By: rita, Reason: "first"})
	if next.Version != old.Version+2 || next.Abandon == nil || next.Steps[0].State != roll.StepRunning {
		t.Errorf("version %d, abandon %v, step %s", next.Version, next.Abandon, next.Steps[0].State)
	}
	b.verified()
}

// Many writers of one roll: every version has exactly one entry, and no write is lost.
func TestManyWritersOfOneRoll(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	inv := b.declare(inventory("a"))
	first := b.read(b.create(inv, "global", "exo-na").ID)
	first = b.do(first, roll.Preflight, "")
	creates := []int{}
	for _, s := range first.Steps {
		if s.Kind == roll.CreateKeyVersion {
			creates = append(creates, s.N)
		}
	}
	var wg sync.WaitGroup
	var mu sync.Mutex
	committed := int64(0)
	for _, n := range creates {
		for range 2 {
			wg.Go(func() {
				r := first
				for i := 0; i < 10; {
					s := r.Steps[n-1]
					evs := []roll.Event{roll.Begun{N: n, Worker: "w", RunFor: time.Minute}}
					if s.State == roll.StepRunning {
						evs = []roll.Event{roll.WillRetry{N: n, Epoch: s.Epoch, At: b.st.Now(), NotApplied: true}}
					}
					next, err := b.st.Transition(t.Context(), r, evs...)
					var refused *roll.TransitionError
					switch {
					case errors.As(err, &refused), errors.Is(err, store.ErrStale):
						next, err = b.st.Roll(t.Context(), r.ID)
						if err != nil {
							t.Error(err)
							return
						}
					case err != nil:
						t.Error(err)
						return
					default:
						i++
						mu.Lock()
						committed++
						mu.Unlock()
					}
					r = next
				}
			})
		}
	}
	wg.Wait()
	end := b.read(first.ID)
	if end.Version != first.Version+committed {
		t.Errorf("version %d after %d writes on %d", end.Version, committed, first.Version)
	}
	epochs := int64(0)
	for _, n := range creates {
		epochs += end.Steps[n-1].Epoch
	}
	if half := committed / 2; epochs < half || epochs > half+int64(len(creates)) {
		t.Errorf("epochs sum up to %d after %d writes", epochs, committed)
	}
	if d := one[int64](b, `SELECT count(*) - count(DISTINCT version) FROM audit_entries WHERE roll_id = $1`, first.ID); d != 0 {
		t.Errorf("%d doubled entries", d)
	}
	b.verified()
}

func TestQuietPoll(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	inv := b.declare(inventory("a"))
	r := b.do(b.read(b.create(inv, "spo").ID), roll.Preflight, "")
	r, s := b.begin(r, roll.SharePointLease, "")
	r = b.apply(r, roll.LeaseQueued{N: s.N, Epoch: s.Epoch, Position: 1, Until: b.st.Now()})
	poll := roll.Polled{N: s.N, Epoch: s.Epoch, Until: b.st.Now().Add(time.Hour)}
	entries := one[int64](b, `SELECT count(*) FROM audit_entries`)
	polled := b.apply(r, poll)
	if polled.Version != r.Version || one[int64](b, `SELECT count(*) FROM audit_entries`) != entries {
		t.Errorf("a quiet look is version %d after %d, or is audited", polled.Version, r.Version)
	}
	if got := b.read(r.ID); !got.WakeAt.Equal(poll.Until) || got.Steps[s.N-1].NextAttemptAt.Equal(*r.Steps[s.N-1].NextAttemptAt) {
		t.Errorf("the next look did not move: %v", got.WakeAt)
	}
	// One that read an older roll writes nothing.
	b.apply(polled, roll.GiveUp{By: rita})
	before := b.written()
	_, err := b.st.TransitionAt(t.Context(), polled, poll)
	wantErr(t, err, store.ErrStale)
	if after := b.written(); after != before {
		t.Errorf("a stale look wrote something:\n%s\n%s", before, after)
	}
	// Tried again it sees the newer roll and keeps it.
	if got := b.apply(polled, poll); got.Abandon == nil || b.read(r.ID).Abandon == nil {
		t.Error("a look wiped out a newer act")
	}
	b.verified()
}
