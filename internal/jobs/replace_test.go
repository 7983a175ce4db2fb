package jobs_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/keyroll/keyroll/internal/roll"
	"github.com/keyroll/keyroll/internal/sim"
	"github.com/keyroll/keyroll/internal/store"
)

// withSpare gives Contoso a third SharePoint key, in a vault of its own and
// used by no policy.
func withSpare(s *sim.Seed, inv *roll.Inventory) {
	like := *seedVault(s, "contoso-spo-a")
	k := like.Keys[0]
	k.Name, k.Versions = "Contoso-SPO-C-Key001", slices.Clone(k.Versions)
	for i := range k.Versions {
		k.Versions[i].Version = fmt.Sprintf("%032x", 0xc0+i)
	}
	like.Name, like.Keys = "contoso-spo-c", []sim.Key{k}
	s.Tenants[0].Vaults = append(s.Tenants[0].Vaults, like)
	inv.Keys = append(inv.Keys, roll.Key{ID: "spo-c", VaultURL: "https://contoso-spo-c.vault.azure.net", Name: k.Name})
}

func replaceSlot(slot roll.Slot) roll.Request {
	return roll.Request{Replace: []roll.Replacement{{Policy: "spo", Slot: slot, Key: "spo-c"}}}
}

// slots is what SharePoint names, without versions.
func (h *house) slots() map[roll.Slot]string {
	h.t.Helper()
	c, err := h.gw.SharePoint(h.inv, "NAM")
	must(h.t, err)
	seen, err := c.Status(h.t.Context())
	must(h.t, err)
	out := map[roll.Slot]string{}
	for _, s := range []roll.Slot{roll.Primary, roll.Secondary} {
		ref, _ := roll.ParseKeyURI(seen.SlotURI(s))
		out[s] = ref.Name
	}
	return out
}

// followed checks that the declaration names the new key, that the old one is
// a former key, and that the ledger keeps what it had of it.
func (h *house) followed(slot roll.Slot, old string, before int) {
	h.t.Helper()
	t, err := h.st.Tenant(h.t.Context(), h.inv.TenantID)
	must(h.t, err)
	p, _ := t.Inventory.PolicyByID("spo")
	former := []string{}
	for _, k := range t.Inventory.FormerKeys {
		former = append(former, k.ID)
	}
	if p.SlotKey(slot) != "spo-c" || !slices.Equal(former, []string{old}) || t.Version != 2 {
		h.t.Errorf("version %d: policy %+v, former keys %v", t.Version, p, former)
	}
	if after := len(h.ledgerOf(old)); after != before || before == 0 {
		h.t.Errorf("the ledger had %d versions of %s, now %d", before, old, after)
	}
}

// TestReplaceSlot: a slot takes another key; the declaration follows, and the
// next roll of the policy goes on with it.
func TestReplaceSlot(t *testing.T) {
	t.Parallel()
	for slot, old := range map[roll.Slot]string{roll.Primary: "spo-a", roll.Secondary: "spo-b"} {
		t.Run(string(slot), func(t *testing.T) {
			t.Parallel()
			h := newHouse(t, withSpare)
			h.declare()
			h.work(quick())
			other := h.slots()
			ledger := len(h.ledgerOf(old))
			r := h.requestWith(h.ctl, replaceSlot(slot))
			h.approve(r.ID)
			if r = h.ended(r.ID); r.State != roll.Succeeded || r.Outcome != roll.Confirmed || len(r.LeftBehind) > 0 {
				t.Fatalf("ended %s, %s\n%s", r.State, r.Outcome, show(r))
			}
			h.check(r)
			other[slot] = "Contoso-SPO-C-Key001"
			if d := cmp.Diff(other, h.slots()); d != "" {
				t.Error(d)
			}
			h.followed(slot, old, ledger)
			oldKey, _ := h.inv.KeyByID(old)
			if n := h.sim.World.VersionsCreated(oldKey.VaultName(), oldKey.Name); n != 0 {
				t.Errorf("%d versions of the key that left were made", n)
			}
			next := h.request("spo")
			h.approve(next.ID)
			if next = h.ended(next.ID); next.State != roll.Succeeded {
				t.Errorf("the next roll ended %s\n%s", next.State, show(next))
			}
		})
	}
}

// TestReplaceByExistingVersion: nothing is created, the version named goes in.
func TestReplaceByExistingVersion(t *testing.T) {
	t.Parallel()
	h := newHouse(t, withSpare)
	h.declare()
	h.work(quick())
	obs, err := h.gw.Survey(t.Context(), h.inv)
	must(t, err)
	req := replaceSlot(roll.Primary)
	req.Replace[0].Version = obs.Keys["spo-c"].Latest.Version
	r := h.requestWith(h.ctl, req)
	h.approve(r.ID)
	if r = h.ended(r.ID); r.State != roll.Succeeded || h.applied(sim.OpCreateKey) != 0 || r.Keys[0].NewVersion != req.Replace[0].Version {
		t.Errorf("ended %s, %d created\n%s", r.State, h.applied(sim.OpCreateKey), show(r))
	}
	h.followed(roll.Primary, "spo-a", len(h.ledgerOf("spo-a")))
}

// TestReplaceLostAnswer: the answer to the operation is lost; it is settled by
// what the slot names, and sent once.
func TestReplaceLostAnswer(t *testing.T) {
	t.Parallel()
	for _, mode := range []string{sim.ModeApplyAndLose, sim.ModeLoseBefore} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t, withSpare)
			h.declare()
			h.fault(sim.Fault{Service: "sharepoint", Operation: sim.OpRollKey, Mode: mode, Count: 1})
			h.work(quick())
			r := h.requestWith(h.ctl, replaceSlot(roll.Primary))
			h.approve(r.ID)
			if r = h.ended(r.ID); r.State != roll.Succeeded {
				t.Fatalf("ended %s\n%s", r.State, show(r))
			}
			h.check(r)
			if n := h.sim.World.SharePointOperations(h.inv.TenantID); n != 1 {
				t.Errorf("%d operations, want 1", n)
			}
			h.followed(roll.Primary, "spo-a", len(h.ledgerOf("spo-a")))
		})
	}
}

// TestReplaceKeepsBothKeys: while a replacement is open, neither the key that
// comes nor the one that leaves can be rolled by another.
func TestReplaceKeepsBothKeys(t *testing.T) {
	t.Parallel()
	h := newHouse(t, withSpare)
	h.declare()
	r := h.requestWith(h.ctl, replaceSlot(roll.Primary))
	for _, req := range []roll.Request{{Keys: []roll.KeyRequest{{ID: "spo-a"}}}, replaceSlot(roll.Primary), replaceSlot(roll.Secondary)} {
		if id := h.refused(req); id != r.ID {
			t.Errorf("%+v: refused for roll %q, want %s", req, id, r.ID)
		}
	}
}

// TestReplaceEditedBefore: a declaration that names another key in the slot
// than the one to be replaced stops the roll before the call; put right, it
// goes on. In the other order no key ever gets into both slots.
func TestReplaceEditedBefore(t *testing.T) {
	t.Parallel()
	h := newHouse(t, withSpare)
	h.declare()
	held := h.fault(sim.Fault{Service: "keyvault", Operation: sim.OpCreateKey, Vault: "contoso-spo-c", Mode: sim.ModeHoldAfter, Count: 1})
	h.work(quick())
	r := h.requestWith(h.ctl, replaceSlot(roll.Primary))
	h.approve(r.ID)
	h.fired(held)
	h.edit(1, func(p *roll.Policy) { p.Secondary = "spo-c" })
	must(t, h.sim.World.ReleaseFault(held))
	r = h.halted(r.ID)
	if r.Attention.Code != roll.CodeSlotMismatch || h.sim.World.Requests("sharepoint", sim.OpRollKey) != 0 {
		t.Errorf("attention %+v, %d calls", r.Attention, h.sim.World.Requests("sharepoint", sim.OpRollKey))
	}
	h.edit(2, func(*roll.Policy) {})
	h.goOnRetry(r)
	if r = h.ended(r.ID); r.State != roll.Succeeded {
		t.Errorf("ended %s\n%s", r.State, show(r))
	}
	h.check(r)
}

// TestReplaceKeyTakenSince: a policy that uses the key since the approval stops
// the roll before the call.
func TestReplaceKeyTakenSince(t *testing.T) {
	t.Parallel()
	h := newHouse(t, withSpare)
	h.declare()
	held := h.fault(sim.Fault{Service: "keyvault", Operation: sim.OpCreateKey, Vault: "contoso-spo-c", Mode: sim.ModeHoldAfter, Count: 1})
	h.work(quick())
	r := h.requestWith(h.ctl, replaceSlot(roll.Primary))
	h.approve(r.ID)
	h.fired(held)
	inv := h.inv
	inv.Policies = slices.Clone(inv.Policies)
	inv.Policies[1].Keys = []string{"exo-a", "spo-c"}
	_, err := h.ctl.Declare(t.Context(), admin(), inv, 1)
	must(t, err)
	must(t, h.sim.World.ReleaseFault(held))
	r = h.halted(r.ID)
	if r.Attention.Code != "replacement_key_in_use" || h.sim.World.Requests("sharepoint", sim.OpRollKey) != 0 {
		t.Errorf("attention %+v, %d calls", r.Attention, h.sim.World.Requests("sharepoint", sim.OpRollKey))
	}
}

// TestReplaceOfAnotherKey: SharePoint shows no versions; somebody put a third
// key into the slot and declared it. The roll does not push that one out.
func TestReplaceOfAnotherKey(t *testing.T) {
	t.Parallel()
	h := newHouse(t, withSpare, func(s *sim.Seed, _ *roll.Inventory) { s.Tenants[0].SharePoint.URIVersion = no() })
	h.declare()
	held := h.fault(sim.Fault{Service: "keyvault", Operation: sim.OpCreateKey, Vault: "contoso-spo-c", Mode: sim.ModeHoldAfter, Count: 1})
	h.work(quick())
	r := h.requestWith(h.ctl, replaceSlot(roll.Primary))
	h.approve(r.ID)
	h.fired(held)
	must(t, h.sim.World.RollByHand(h.inv.TenantID, "NAM", "primary", sim.Slot{Vault: "contoso-m365-a", Key: "Contoso-M365-A-Key001"}))
	h.endOperation()
	h.edit(1, func(p *roll.Policy) { p.Primary = "m-a" })
	must(t, h.sim.World.ReleaseFault(held))
	r = h.halted(r.ID)
	if r.Attention.Code != "declaration_changed" || h.sim.World.Requests("sharepoint", sim.OpRollKey) != 0 {
		t.Errorf("attention %+v, %d calls", r.Attention, h.sim.World.Requests("sharepoint", sim.OpRollKey))
	}
}

// TestReplaceEditedMeanwhile: a declaration that was edited while SharePoint
// took the key up is left as its author wrote it, and the roll stops on it.
func TestReplaceEditedMeanwhile(t *testing.T) {
	t.Parallel()
	h := newHouse(t, withSpare)
	h.declare()
	h.rate(0.001)
	h.work(quick())
	r := h.requestWith(h.ctl, replaceSlot(roll.Primary))
	h.approve(r.ID)
	h.await(r.ID, "rolling", func(r roll.Roll) bool { return step(r, roll.SharePointAwait).Seen == "Rolling" })
	h.edit(1, func(p *roll.Policy) { p.Primary = "m-a" })
	h.endOperation()
	r = h.halted(r.ID)
	if r.Attention.Code != "declaration_changed" || r.Attention.Action == "" || step(r, roll.SharePointAwait).State != roll.StepSucceeded {
		t.Fatalf("attention %+v\n%s", r.Attention, show(r))
	}
	h.edit(2, func(p *roll.Policy) { p.Primary = "spo-c" })
	h.goOnRetry(r)
	if r = h.ended(r.ID); r.State != roll.Succeeded {
		t.Errorf("ended %s\n%s", r.State, show(r))
	}
	h.check(r)
}

// edit declares the SharePoint policy otherwise, over a version.
func (h *house) edit(version int64, change func(*roll.Policy)) {
	h.t.Helper()
	inv := h.inv
	inv.Policies = slices.Clone(inv.Policies)
	change(&inv.Policies[2])
	_, err := h.ctl.Declare(h.t.Context(), admin(), inv, version)
	must(h.t, err)
}

// refused asks for a roll and gives the id of the open one that it is refused for.
func (h *house) refused(req roll.Request) string {
	h.t.Helper()
	req.TenantID, req.Reason = h.inv.TenantID, roll.Reason{Code: "other", Text: "x"}
	t, err := h.st.Tenant(h.t.Context(), h.inv.TenantID)
	must(h.t, err)
	res, err := roll.Resolve(t.Inventory, req)
	must(h.t, err)
	obs, err := h.gw.Survey(h.t.Context(), t.Inventory)
	must(h.t, err)
	plan, err := roll.Build(t.Inventory, res, obs, h.st.Now())
	must(h.t, err)
	id, err := h.st.OpenRollFor(h.t.Context(), plan)
	must(h.t, err)
	// The database says the same, whatever the look before it saw.
	made, fx := roll.New(uuid.NewString(), req, plan, roll.Actor{Subject: "x", Kind: roll.Person}, true, 1, h.st.Now())
	err = h.st.CreateRoll(h.t.Context(), made, fx, nil)
	if open, ok := asOpen(err); !ok || open.RollID != id {
		h.t.Errorf("CreateRoll: %v, want roll %s", err, id)
	}
	return id
}

func asOpen(err error) (*store.OpenRollError, bool) {
	open, ok := err.(*store.OpenRollError)
	return open, ok
}
