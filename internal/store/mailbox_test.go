package store_test

import (
	"sync"
	"testing"
	"time"

	"github.com/keyroll/keyroll/internal/roll"
	"github.com/keyroll/keyroll/internal/store"
)

// What changes in a sample mailbox is recorded once, whoever sees it.
func TestMailboxWatch(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	ctx := t.Context()
	r := b.do(b.read(b.create(b.declare(inventory("a")), "exo-na").ID), roll.Preflight, "")
	for _, k := range []string{"exo-a", "exo-b"} {
		r = b.do(r, roll.CreateKeyVersion, k)
	}
	r, s := b.begin(r, roll.RefreshPolicy, "exo-na")
	res := wellDone(r, s)
	res.Mailboxes = map[string]string{"vip@contoso.com": "g1", "ceo@contoso.com": "g1", "cfo@contoso.com": "g1"}
	r = b.apply(r, roll.Done{N: s.N, Epoch: s.Epoch, Result: res})

	// Two processes never look at one mailbox for the same turn.
	var wg sync.WaitGroup
	var mu sync.Mutex
	taken := map[string]int{}
	var watches []store.MailboxWatch
	for range 4 {
		wg.Go(func() {
			due, err := b.st.DueMailboxes(ctx, 2, time.Hour)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				t.Error(err)
			}
			for _, w := range due {
				taken[w.Mailbox]++
				watches = append(watches, w)
			}
		})
	}
	wg.Wait()
	for box, n := range taken {
		if n != 1 {
			t.Errorf("%s was taken %d times", box, n)
		}
	}
	rest, err := b.st.DueMailboxes(ctx, 10, time.Hour)
	must(t, err)
	watches = append(watches, rest...)
	if len(watches) != 3 {
		t.Fatalf("%d watches", len(watches))
	}
	for range 4 {
		wg.Go(func() {
			if err := b.st.NoteMailbox(ctx, watches[0], "g2"); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	must(t, b.st.NoteMailbox(ctx, watches[1], "g1"))
	if n := one[int](b, `SELECT count(*) FROM audit_entries WHERE subject LIKE 'mailbox/%'`); n != 1 {
		t.Errorf("%d entries for one change", n)
	}
	all, err := b.st.Mailboxes(ctx, r.ID)
	must(t, err)
	for _, w := range all {
		if changed := w.Mailbox == watches[0].Mailbox; changed != (w.ChangedAt != nil) || w.Before != "g1" || (w.Last == "g2") != changed {
			t.Errorf("%+v", w)
		}
	}
	b.verified()
}
