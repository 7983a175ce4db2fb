package jobs_test

import (
	"slices"
	"testing"
	"time"

	"github.com/keyroll/keyroll/internal/roll"
	"github.com/keyroll/keyroll/internal/sim"
)

// thing is an edit or a change by hand that a roll of the key exo-a meets.
// harmless ones hold nothing up.
type thing struct {
	do, undo func(*house, roll.Roll)
	harmless bool
}

// things are those of the table in docs/state_machine.md, without a moment.
func things() map[string]thing {
	at := func(what, when string) thing {
		c := happenings()[[2]string{what, when}]
		return thing{do: c.do, undo: c.undo}
	}
	geo := func(host string) func(*house, roll.Roll) {
		return edit(func(i *roll.Inventory) {
			i.SharePoint.Geos = append(i.SharePoint.Geos, roll.Geo{ID: "EUR", AdminURL: "https://" + host + "-admin.sharepoint.com"})
		})
	}
	return map[string]thing{
		"credential gone":                      at("the credential's name is changed to one that the server does not have", "before the first step"),
		"credential refused":                   at("the credential is refused by Entra", "before the refresh"),
		"policy taken out of the declaration":  at("a policy is taken out of the declaration", "before its refresh"),
		"policy deleted at Microsoft":          at("the policy is deleted at Microsoft", "before its refresh"),
		"newest version disabled by hand":      at("the new version is disabled by hand", "before the refresh"),
		"key soft-deleted":                     at("the key is deleted in its vault (soft-deleted)", "before the refresh"),
		"geo added, and its URL changed after": {do: geo("contosoeur"), undo: geo("contosoeu"), harmless: true},
		"approval changed to not_required":     {do: edit(func(i *roll.Inventory) { i.Approval = roll.ApprovalNotRequired }), undo: asBefore, harmless: true},
	}
}

// TestThingsInEveryState lets each thing happen, and be mended, while a roll
// waits for its approval, is scheduled, runs, needs attention for it already,
// and is being cancelled over an operation under way. It is never lost on the
// roll, nothing wrong is done, and each roll ends well once it is mended.
func TestThingsInEveryState(t *testing.T) {
	t.Parallel()
	for name, c := range things() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t)
			h.declare()
			h.rate(400)
			h.work(quick())

			r := h.requestKey("exo-a")
			c.do(h, r)
			if now, err := h.st.Roll(t.Context(), r.ID); err != nil || now.State != roll.AwaitingApproval {
				t.Fatalf("awaiting its approval it is %s, %v", now.State, err)
			}
			h.approve(r.ID)
			h.meets(r, c, true)

			start := h.st.Now().Add(2 * time.Second)
			r = h.requestWith(h.ctl, roll.Request{Keys: []roll.KeyRequest{{ID: "exo-a"}}, StartAt: &start})
			if r.State == roll.AwaitingApproval {
				h.approve(r.ID)
			}
			c.do(h, r)
			h.meets(r, c, false)
			if n := h.applied(sim.OpCreateKey); n != 2 {
				t.Errorf("two rolls made %d versions", n)
			}
			h.cancelledUnder(c)
		})
	}
}

// meets follows a running roll to its end: halted while the thing stands, and
// once more by a retry that comes too early, then mended.
func (h *house) meets(r roll.Roll, c thing, early bool) {
	h.t.Helper()
	if !c.harmless {
		halted := h.halted(r.ID)
		if a := halted.Attention; a == nil || a.Code == "" || a.Detail == "" || a.Action == "" {
			h.t.Errorf("attention %+v", a)
		}
		if early {
			h.goOnRetry(halted)
			halted = h.await(r.ID, "halted once more", func(now roll.Roll) bool {
				return now.State == roll.NeedsAttention && now.Attention != nil && now.Attention.Since.After(halted.Attention.Since)
			})
		}
		c.undo(h, r)
		h.goOnRetry(halted)
	} else {
		c.undo(h, r)
	}
	if r = h.ended(r.ID); r.State != roll.Succeeded {
		h.t.Fatalf("ended %s\n%s", r.State, show(r))
	}
	if early {
		h.check(r) // of the house's first roll: one version for its key, the log whole
	}
}

// cancelledUnder: the operation under way is watched to its end, whatever happens.
func (h *house) cancelledUnder(c thing) {
	h.t.Helper()
	h.rate(0.001)
	r := h.requestKey("spo-a")
	if r.State == roll.AwaitingApproval {
		h.approve(r.ID)
	}
	h.await(r.ID, "rolling", func(r roll.Roll) bool { return step(r, roll.SharePointAwait).Seen == "Rolling" })
	_, err := h.ctl.Cancel(h.t.Context(), requester(), r.ID, "withdrawn")
	must(h.t, err)
	c.do(h, r)
	h.rate(1e9)
	h.endOperation()
	stands := h.await(r.ID, "at its end, or halted", func(r roll.Roll) bool {
		return r.State.Final() || r.State == roll.Cancelling && slices.ContainsFunc(r.Steps, func(s roll.Step) bool { return s.State == roll.StepNeedsAttention })
	})
	c.undo(h, r)
	if !stands.State.Final() {
		h.goOnRetry(stands)
	}
	if r = h.ended(r.ID); r.State != roll.Cancelled {
		h.t.Fatalf("ended %s\n%s", r.State, show(r))
	}
	if n := h.applied(sim.OpRollKey); n != 1 {
		h.t.Errorf("%d SharePoint operations, want 1", n)
	}
	h.leaseIsFree()
}
