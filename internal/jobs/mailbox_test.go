package jobs_test

import (
	"testing"
	"time"

	"github.com/keyroll/keyroll/internal/roll"
	"github.com/keyroll/keyroll/internal/sim"
	"github.com/keyroll/keyroll/internal/store"
)

// TestMailboxesAreWatched: DataEncryptionPolicyID is read before the refresh,
// a change after it is recorded in the audit log, and the roll waits for none of it.
func TestMailboxesAreWatched(t *testing.T) {
	t.Parallel()
	h := newHouse(t, func(s *sim.Seed, _ *roll.Inventory) { s.Tenants[0].Exchange.RefreshSeconds = 3600 })
	h.declare()
	cfg := quick()
	cfg.Mailbox = 50 * time.Millisecond
	h.work(cfg)
	r := h.request("exo-na")
	h.approve(r.ID)
	r = h.ended(r.ID)
	if before := step(r, roll.RefreshPolicy).Result.Mailboxes["vip@contoso.com"]; before == "" {
		t.Fatalf("the mailbox was not read before the refresh\n%s", show(r))
	}
	if r.Outcome != roll.Accepted {
		t.Errorf("outcome %s", r.Outcome)
	}
	look := func(changed bool) store.MailboxWatch {
		t.Helper()
		var out store.MailboxWatch
		h.await(r.ID, "watched", func(roll.Roll) bool {
			list, err := h.st.Mailboxes(t.Context(), r.ID)
			must(t, err)
			if len(list) != 1 {
				return false
			}
			out = list[0]
			return out.LookedAt != nil && (out.ChangedAt != nil) == changed
		})
		return out
	}
	if w := look(false); w.Before != w.Last || w.Until.Sub(*r.EndedAt) < 71*time.Hour {
		t.Errorf("watch before the change: %+v", w)
	}
	h.sim.World.Advance(2 * time.Hour)
	if w := look(true); w.Before == w.Last {
		t.Errorf("watch after the change: %+v", w)
	}
	events, err := h.st.RollEvents(t.Context(), r.ID, 0, 10)
	must(t, err)
	if got := events[0].Entry.Events[0].Type; got != "mailbox_policy_id_changed" {
		t.Errorf("newest audit entry is %s", got)
	}
	h.check(r)
}
