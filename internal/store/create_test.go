package store_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/keyroll/keyroll/internal/roll"
	"github.com/keyroll/keyroll/internal/store"
)

// Of many requests at once for the same keys exactly one makes a roll; the
// others learn its id. After its end there is room for the next.
func TestOneOpenRoll(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	inv := b.declare(inventory("a"))
	reversed := inv
	reversed.Keys = nil
	for i := range inv.Keys {
		reversed.Keys = append(reversed.Keys, inv.Keys[len(inv.Keys)-1-i])
	}
	for round := range 3 {
		var wg sync.WaitGroup
		var mu sync.Mutex
		var made []string
		var told []string
		for i := range 20 {
			// Keys in another order must not make two wait for each other.
			from := inv
			if i%2 == 1 {
				from = reversed
			}
			policies := []string{"global", "exo-na", "spo"}
			if round == 1 {
				policies = policies[2:] // kept apart by its keys alone
			}
			r, fx := b.fresh(from, true, policies...)
			wg.Go(func() {
				err := b.st.CreateRoll(t.Context(), r, fx, nil)
				mu.Lock()
				defer mu.Unlock()
				var open *store.OpenRollError
				switch {
				case err == nil:
					made = append(made, r.ID)
				case errors.As(err, &open):
					told = append(told, open.RollID)
				default:
					t.Errorf("%v (%s)", err, sqlState(err))
				}
			})
		}
		wg.Wait()
		if len(made) != 1 || len(told) != 19 {
			t.Fatalf("round %d: %d made, %d told", round, len(made), len(told))
		}
		for _, id := range told {
			if id != made[0] {
				t.Errorf("told %s, made %s", id, made[0])
			}
		}
		id, err := b.st.OpenRollFor(t.Context(), b.plan(inv, "spo"))
		must(t, err)
		if id != made[0] {
			t.Errorf("open for spo: %q", id)
		}
		b.apply(b.read(made[0]), roll.Reject{By: arno, Reason: "next"})
	}
	if n := one[int](b, `SELECT count(*) FROM rolls`); n != 3 {
		t.Errorf("%d rolls", n)
	}
	b.verified()
}

// A policy is one roll's at a time even where the keys differ; SharePoint
// rolls queue instead. The id told is that of the roll in the way.
func TestOneOpenRollPerPolicy(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	inv := inventory("a")
	for _, id := range []string{"exo-c", "spo-c"} {
		inv.Keys = append(inv.Keys, roll.Key{ID: id, VaultURL: "https://a-" + id + ".vault.azure.net", Name: "Key-" + id})
	}
	b.declare(inv)
	exo, spo := b.create(inv, "exo-na"), b.create(inv, "spo")
	r, fx := b.fresh(inv, false, "exo-na", "spo")
	var keys []roll.PlanKey
	for i, k := range r.Plan.Keys {
		k.ID, k.Name = []string{"exo-c", "exo-d", "spo-c", "spo-d"}[i], "other"
		keys = append(keys, k)
	}
	r.Plan.Keys = keys
	r.Plan.Policies[0], r.Plan.Policies[1] = r.Plan.Policies[1], r.Plan.Policies[0] // SharePoint first
	var open *store.OpenRollError
	if err := b.st.CreateRoll(t.Context(), r, fx, nil); !errors.As(err, &open) || open.RollID != exo.ID {
		t.Fatalf("error %v, want roll %s in the way (not %s)", err, exo.ID, spo.ID)
	}
	b.apply(b.read(exo.ID), roll.Cancel{By: rita})
	must(t, b.st.CreateRoll(t.Context(), r, fx, nil))
}

// A new plan may take in other keys and policies: they are the roll's own from
// then on, and what it no longer touches is free.
func TestReplanMovesTheOpenKeys(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	inv := b.declare(inventory("a"))
	halted := func(policy string) roll.Roll {
		r, s := b.begin(b.read(b.create(inv, policy).ID), roll.Preflight, "")
		return b.apply(r, roll.Halted{N: s.N, Epoch: s.Epoch, Code: "x", Detail: "y"})
	}
	r := halted("exo-na")
	r = b.apply(r, roll.Replan{By: rita, Plan: b.plan(inv, "global")})
	open := func(want string) {
		t.Helper()
		got := one[string](b, `SELECT string_agg(key_id, ' ' ORDER BY key_id) || '|' || (SELECT string_agg(policy_id, ' ' ORDER BY policy_id) FROM roll_policies WHERE open AND roll_id = $1) FROM roll_keys WHERE open AND roll_id = $1`, r.ID)
		if got != want {
			t.Fatalf("open: %s, want %s", got, want)
		}
	}
	open("m-a m-b|global")
	other := b.create(inv, "exo-na") // free by now
	fresh, fx := b.fresh(inv, false, "global")
	var busy *store.OpenRollError
	if err := b.st.CreateRoll(t.Context(), fresh, fx, nil); !errors.As(err, &busy) || busy.RollID != r.ID {
		t.Fatalf("error %v, want roll %s in the way", err, r.ID)
	}
	// And back: now another roll has them.
	before := b.written()
	if _, err := b.st.Transition(t.Context(), r, roll.Replan{By: rita, Plan: b.plan(inv, "exo-na")}); !errors.As(err, &busy) || busy.RollID != other.ID {
		t.Fatalf("error %v, want roll %s in the way", err, other.ID)
	}
	if after := b.written(); after != before {
		t.Error("a refused replan wrote something")
	}
	b.apply(b.read(other.ID), roll.Cancel{By: rita})
	r = b.apply(r, roll.Replan{By: rita, Plan: b.plan(inv, "exo-na")})
	open("exo-a exo-b|exo-na")
	b.verified()
}

// A plan that comes back with the same hash is approved again by the same
// person; nobody approves his own request, whatever the program thinks.
func TestApprovingAnEqualPlanAgain(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	inv := b.declare(inventory("a"))
	fresh, fx := b.fresh(inv, true, "exo-na")
	must(t, b.st.CreateRoll(t.Context(), fresh, fx, nil))
	r := b.apply(fresh, roll.Approve{By: arno, PlanHash: fresh.Plan.Hash})
	r, s := b.begin(r, roll.Preflight, "")
	r = b.apply(r, roll.Halted{N: s.N, Epoch: s.Epoch, Code: "x", Detail: "y"})
	r = b.apply(r, roll.Replan{By: rita, Plan: fresh.Plan})
	r = b.apply(r, roll.Approve{By: arno, PlanHash: fresh.Plan.Hash})
	if r.State != roll.Running {
		t.Errorf("state %s", r.State)
	}
	if n := one[int](b, `SELECT count(*) FROM approvals WHERE roll_id = $1`, r.ID); n != 2 {
		t.Errorf("%d approvals", n)
	}
	b.verified()
}

// A retirement and a request at the same moment: one of them learns of the other.
func TestNoRollForARetiredTenant(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	for i := range 8 {
		inv := b.declare(inventory(string(rune('a' + i))))
		r, fx := b.fresh(inv, true, "exo-na")
		var wg sync.WaitGroup
		var made, retired error
		wg.Go(func() { made = b.st.CreateRoll(t.Context(), r, fx, nil) })
		wg.Go(func() { _, retired = b.st.RetireTenant(t.Context(), inv.TenantID, ada, "gone") })
		wg.Wait()
		switch {
		case made == nil && errors.Is(retired, store.ErrOpenRolls):
		case errors.Is(made, store.ErrNotFound) && retired == nil:
		default:
			t.Errorf("made: %v, retired: %v", made, retired)
		}
	}
	b.verified()
}

func TestNotFound(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	for _, id := range []string{"", "x", newID(), "{" + newID() + "}", "urn:uuid:" + newID()} {
		_, err := b.st.Roll(t.Context(), id)
		wantErr(t, err, store.ErrNotFound)
		_, err = b.st.Tenant(t.Context(), id)
		wantErr(t, err, store.ErrNotFound)
		_, err = b.st.RetireTenant(t.Context(), id, ada, "")
		wantErr(t, err, store.ErrNotFound)
	}
}

func TestIdempotency(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	inv := b.declare(inventory("a"))
	body := []byte("body")
	var wg sync.WaitGroup
	claims := make(chan *store.Claim, 50)
	for range 50 {
		wg.Go(func() {
			c, a, err := b.st.ClaimKey(t.Context(), "rita", "k1", body)
			switch {
			case err == nil && c != nil && a == nil:
				claims <- c
			case !errors.Is(err, store.ErrKeyRunning):
				t.Errorf("claim %v, answer %v, error %v", c, a, err)
			}
		})
	}
	wg.Wait()
	if len(claims) != 1 {
		t.Fatalf("%d claims", len(claims))
	}
	first := <-claims
	_, _, err := b.st.ClaimKey(t.Context(), "rita", "k1", []byte("other"))
	wantErr(t, err, store.ErrKeyReused)
	if c, _, err := b.st.ClaimKey(t.Context(), "arno", "k1", []byte("other")); err != nil || c == nil {
		t.Errorf("another subject's key: %v", err)
	}

	// The claim's holder died: it lapses; another body cannot take it over.
	age := func(d time.Duration) {
		b.exec(`UPDATE idempotency SET claimed_at = claimed_at - $1::interval WHERE subject = 'rita'`, d)
	}
	age(2 * time.Minute)
	_, _, err = b.st.ClaimKey(t.Context(), "rita", "k1", []byte("other"))
	wantErr(t, err, store.ErrKeyReused)
	second, _, err := b.st.ClaimKey(t.Context(), "rita", "k1", body)
	must(t, err)
	answer := store.Answer{Status: 202, Body: []byte(`{"id":"x"}`), Location: "/v1/rolls/x"}
	make1 := func(c *store.Claim) error {
		r, fx := b.fresh(inv, true, "exo-na")
		return b.st.CreateRoll(t.Context(), r, fx, func(ctx context.Context, tx store.Tx) error { return tx.FinishKey(ctx, c, answer) })
	}
	before := b.written()
	wantErr(t, make1(first), store.ErrKeyRunning) // it was not dead, only late
	if after := b.written(); after != before {
		t.Error("the late one left something behind")
	}
	must(t, b.st.ReturnKey(t.Context(), first)) // nor can it give back what is not its own
	must(t, make1(second))
	for range 2 {
		c, a, err := b.st.ClaimKey(t.Context(), "rita", "k1", body)
		must(t, err)
		if c != nil || a.Status != 202 || string(a.Body) != string(answer.Body) || a.Location != answer.Location {
			t.Errorf("answered %+v", a)
		}
	}
	must(t, b.st.ReturnKey(t.Context(), second)) // what was answered stays
	age(29 * 24 * time.Hour)
	must(t, b.st.PruneKeys(t.Context()))
	if _, a, err := b.st.ClaimKey(t.Context(), "rita", "k1", body); err != nil || a == nil {
		t.Errorf("after 29 days: %v, %v", a, err)
	}
	age(24 * time.Hour)
	c, _, err := b.st.ClaimKey(t.Context(), "rita", "k1", []byte("other"))
	must(t, err)
	must(t, b.st.ReturnKey(t.Context(), c))
	if n := one[int](b, `SELECT count(*) FROM idempotency WHERE subject = 'rita'`); n != 0 {
		t.Errorf("%d rows after giving back", n)
	}
	c, _, err = b.st.ClaimKey(t.Context(), "rita", "k2", body)
	must(t, err)
	age(31 * 24 * time.Hour)
	must(t, b.st.PruneKeys(t.Context()))
	b.apply(b.read(one[string](b, `SELECT id::text FROM rolls`)), roll.Reject{By: arno})
	wantErr(t, make1(c), store.ErrKeyRunning)
}
