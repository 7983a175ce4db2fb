package jobs_test

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/keyroll/keyroll/internal/access"
	"github.com/keyroll/keyroll/internal/control"
	"github.com/keyroll/keyroll/internal/roll"
	"github.com/keyroll/keyroll/internal/sim"
)

// otherRunbooks is a second Automation account of the tenant.
var otherRunbooks = strings.Replace(runbooks, "keyroll-runbooks", "keyroll-other", 1)

// redeclareByTwo declares the tenant otherwise over a version, as two people do it.
func (h *house) redeclareByTwo(inv roll.Inventory, version int64) {
	h.t.Helper()
	_, err := h.ctl.Declare(h.t.Context(), admin(), inv, version)
	var pending *control.ChangePending
	if errors.As(err, &pending) {
		_, err = h.ctl.ApproveChange(h.t.Context(), person("bea", access.Admin, access.Approver), h.inv.TenantID, pending.Change.ID, pending.Change.Hash, "")
	}
	must(h.t, err)
}

// jobUnderWay brings a roll to a runbook job that has been sent and goes on.
func (h *house) jobUnderWay(r roll.Roll, kind roll.StepKind, f sim.Fault) (slow string) {
	h.t.Helper()
	f.Operation, f.Target = sim.OpPutJob, roll.OperationID(r.ID, firstOf(r, kind), 0)
	slow = h.fault(f)
	h.work(quick())
	h.approve(r.ID)
	h.await(r.ID, "waiting for the job", func(r roll.Roll) bool { return step(r, kind).WaitingFor == roll.WaitRunbook })
	return slow
}

// TestAccountChangedUnderAJob: the declaration names another Automation account
// while a job of the first one is under way. The job is looked for where it was
// sent, and nothing is sent beside it.
func TestAccountChangedUnderAJob(t *testing.T) {
	t.Parallel()
	for policy, kind := range map[string]roll.StepKind{"exo-na": roll.RefreshPolicy, "spo": roll.SharePointRollKey} {
		t.Run(policy, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t, byRunbook, func(s *sim.Seed, _ *roll.Inventory) {
				s.Tenants[0].Automation = append(s.Tenants[0].Automation, sim.AutomationAccount{ID: otherRunbooks})
			})
			h.declare()
			var r roll.Roll
			if policy == "spo" {
				r = h.requestKey("spo-a")
			} else {
				r = h.request(policy)
			}
			slow := h.jobUnderWay(r, kind, sim.Fault{Mode: sim.ModeJobSlow})
			inv := h.inv
			inv.Automation = &roll.AutomationAccount{Account: otherRunbooks}
			h.redeclareByTwo(inv, 1)
			// Until what was lost could land no more, and then some.
			r, err := h.st.Roll(t.Context(), r.ID)
			must(t, err)
			h.until(step(r, kind).IntentDeadline.Add(time.Second))
			if r, err = h.st.Roll(t.Context(), r.ID); err != nil || step(r, kind).OpRound != 0 || !step(r, kind).IntentOpen {
				t.Errorf("%v: the operation is given up while its job runs\n%s", err, show(r))
			}
			must(t, h.sim.World.RemoveFault(slow))
			if r = h.ended(r.ID); r.State != roll.Succeeded {
				t.Fatalf("ended %s\n%s", r.State, show(r))
			}
			if n := h.changes(); n != 1 {
				t.Errorf("%d changes at Microsoft, want 1", n)
			}
			h.check(r)
		})
	}
}

// changes counts what took effect at Exchange and SharePoint.
func (h *house) changes() int {
	return h.applied(sim.OpSetDEP) + h.sim.World.SharePointOperations(h.inv.TenantID)
}

// TestAccountChangedBeforeAJob: a plan was approved for one account; nothing is
// sent to another one.
func TestAccountChangedBeforeAJob(t *testing.T) {
	t.Parallel()
	h := newHouse(t, byRunbook, func(s *sim.Seed, _ *roll.Inventory) {
		s.Tenants[0].Automation = append(s.Tenants[0].Automation, sim.AutomationAccount{ID: otherRunbooks})
	})
	h.declare()
	held := h.fault(sim.Fault{Service: "keyvault", Operation: sim.OpCreateKey, Mode: sim.ModeHoldAfter, Count: 1})
	r := h.requestKey("spo-a")
	h.work(quick())
	h.approve(r.ID)
	h.fired(held)
	inv := h.inv
	inv.Automation = &roll.AutomationAccount{Account: otherRunbooks}
	h.redeclareByTwo(inv, 1)
	must(t, h.sim.World.ReleaseFault(held))
	r = h.halted(r.ID)
	if r.Attention.Code != "declaration_changed" || h.changes() != 0 {
		t.Errorf("attention %+v, %d changes", r.Attention, h.changes())
	}
	h.redeclareByTwo(h.inv, 2)
	h.goOnRetry(r)
	if r = h.ended(r.ID); r.State != roll.Succeeded {
		t.Fatalf("ended %s\n%s", r.State, show(r))
	}
	h.check(r)
}

// TestJobThatWasSeenAndIsNot: Azure says for a while that it knows no job of
// the name, when it has shown it before. That proves nothing.
func TestJobThatWasSeenAndIsNot(t *testing.T) {
	t.Parallel()
	h := newHouse(t, byRunbook)
	h.declare()
	r := h.requestKey("spo-a")
	slow := h.jobUnderWay(r, roll.SharePointRollKey, sim.Fault{Mode: sim.ModeJobSlow})
	r, err := h.st.Roll(t.Context(), r.ID)
	must(t, err)
	s := step(r, roll.SharePointRollKey)
	gone := h.fault(sim.Fault{Service: "resource_manager", Operation: sim.OpGetJob, Target: s.OpID, Mode: sim.ModeRefuse,
		Params: sim.FaultParams{Status: http.StatusNotFound, Code: "NotFound"}})
	h.until(s.IntentDeadline.Add(time.Second))
	if r = h.halted(r.ID); r.Attention.Code != "runbook_job_not_shown" || !r.InFlight("") {
		t.Errorf("attention %+v, in flight %t\n%s", r.Attention, r.InFlight(""), show(r))
	}
	must(t, h.sim.World.RemoveFault(gone))
	must(t, h.sim.World.RemoveFault(slow))
	h.goOnRetry(r)
	if r = h.ended(r.ID); r.State != roll.Succeeded || h.changes() != 1 {
		t.Fatalf("ended %s after %d operations\n%s", r.State, h.changes(), show(r))
	}
	h.check(r)
}

// swapped is the SharePoint policy with its slots declared the other way round.
func swapped(p *roll.Policy) { p.Primary, p.Secondary = p.Secondary, p.Primary }

// TestSlotsSwappedUnderWay: somebody swaps the slots at SharePoint, which shows
// no versions, and the declaration with them. A step that was planned for a key
// in its old slot would put that key into both.
func TestSlotsSwappedUnderWay(t *testing.T) {
	t.Parallel()
	h := newHouse(t, func(s *sim.Seed, _ *roll.Inventory) { s.Tenants[0].SharePoint.URIVersion = no() })
	h.declare()
	held := h.fault(sim.Fault{Service: "keyvault", Operation: sim.OpCreateKey, Mode: sim.ModeHoldAfter, Count: 1})
	r := h.requestKey("spo-a")
	h.work(quick())
	h.approve(r.ID)
	h.fired(held)
	for _, hand := range []struct{ slot, vault, key string }{
		{"primary", "contoso-m365-a", "Contoso-M365-A-Key001"}, {"secondary", "contoso-spo-a", "Contoso-SPO-A-Key001"}, {"primary", "contoso-spo-b", "Contoso-SPO-B-Key001"}} {
		must(t, h.sim.World.RollByHand(h.inv.TenantID, "NAM", hand.slot, sim.Slot{Vault: hand.vault, Key: hand.key}))
		h.endOperation()
	}
	h.edit(1, swapped)
	must(t, h.sim.World.ReleaseFault(held))
	r = h.halted(r.ID)
	if r.Attention.Code != "declaration_changed" || h.sim.World.Requests("sharepoint", sim.OpRollKey) != 0 {
		t.Errorf("attention %+v, %d calls", r.Attention, h.sim.World.Requests("sharepoint", sim.OpRollKey))
	}
	if v := h.sim.World.Violations(); len(v) > 0 {
		t.Errorf("violations: %+v", v)
	}
}

// TestUnseenSlotEditedUnderWay: nobody but people sees the slots, and the
// declaration is edited after the approval so that the planned line would put
// one key into both. The line is not shown.
func TestUnseenSlotEditedUnderWay(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		req  roll.Request
		edit func(*roll.Policy)
		code string
	}{
		"swapped":                   {roll.Request{Keys: []roll.KeyRequest{{Type: roll.RootKey, ID: "spo-a"}}}, swapped, "declaration_changed"},
		"the new key in the other":  {replaceSlot(roll.Primary), func(p *roll.Policy) { p.Secondary = "spo-c" }, "replacement_key_in_use"},
		"another key in the slot":   {replaceSlot(roll.Primary), func(p *roll.Policy) { p.Primary = "m-a" }, "declaration_changed"},
		"its vault in the other":    {replaceSlot(roll.Primary), func(p *roll.Policy) { p.Secondary = "spo-c2" }, "replacement_same_vault"},
		"the new key by a workload": {replaceSlot(roll.Primary), nil, "replacement_key_in_use"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t, blind, withSpare, func(s *sim.Seed, inv *roll.Inventory) {
				v := seedVault(s, "contoso-spo-c")
				k := v.Keys[0]
				k.Name, k.Versions = "Contoso-SPO-C-Key002", slices.Clone(k.Versions)
				for i := range k.Versions {
					k.Versions[i].Version = fmt.Sprintf("%032x", 0xd0+i)
				}
				v.Keys = append(v.Keys, k)
				inv.Keys = append(inv.Keys, roll.Key{ID: "spo-c2", VaultURL: "https://contoso-spo-c.vault.azure.net", Name: k.Name})
			})
			h.declare()
			held := h.fault(sim.Fault{Service: "keyvault", Operation: sim.OpCreateKey, Mode: sim.ModeHoldAfter, Count: 1})
			h.work(quick())
			r := h.requestWith(h.ctl, c.req)
			h.approve(r.ID)
			h.fired(held)
			inv := h.inv
			inv.Policies = slices.Clone(inv.Policies)
			if c.edit != nil {
				c.edit(&inv.Policies[2])
			} else {
				inv.Policies[1].Keys = []string{"exo-a", "spo-c"}
			}
			h.redeclareByTwo(inv, 1)
			must(t, h.sim.World.ReleaseFault(held))
			r = h.await(r.ID, "halted or showing a line", func(r roll.Roll) bool { return r.State == roll.NeedsAttention || offeredStep(r) != nil })
			if s := offeredStep(r); s != nil {
				t.Fatalf("shown: %s", s.Offer.Line)
			}
			if r.Attention.Code != c.code {
				t.Errorf("attention %+v", r.Attention)
			}
		})
	}
}

// TestFreezeBeforeTheLine: a freeze that is declared while a manual step is
// being checked holds its line back: once shown, it may be run at any time.
func TestFreezeBeforeTheLine(t *testing.T) {
	t.Parallel()
	h := newHouse(t, byHand)
	h.declare()
	create := h.fault(sim.Fault{Service: "keyvault", Operation: sim.OpCreateKey, Mode: sim.ModeHoldAfter, Count: 1})
	r := h.requestKey("spo-a")
	h.work(quick())
	h.approve(r.ID)
	h.fired(create)
	look := h.fault(sim.Fault{Service: "sharepoint", Operation: sim.OpGetStatus, Mode: sim.ModeHold, Count: 1})
	must(t, h.sim.World.ReleaseFault(create))
	h.fired(look)
	inv := h.inv
	inv.Freezes = []roll.Freeze{{From: time.Now().Add(-time.Hour).UTC(), To: time.Now().Add(time.Hour).UTC(), Reason: "year-end"}}
	h.redeclareByTwo(inv, 1)
	must(t, h.sim.World.ReleaseFault(look))
	r = h.await(r.ID, "held up or showing a line", func(r roll.Roll) bool {
		return offeredStep(r) != nil || step(r, roll.SharePointRollKey).WaitingFor == roll.WaitFreeze
	})
	if s := offeredStep(r); s != nil {
		t.Fatalf("shown in a freeze: %s", s.Offer.Line)
	}
	h.redeclareByTwo(h.inv, 2)
	h.hands(r.ID)
	if r = h.ended(r.ID); r.State != roll.Succeeded {
		t.Fatalf("ended %s\n%s", r.State, show(r))
	}
}

// TestJobFailsLate: a job that outlived the call's deadline fails just after its
// cmdlet took effect, and SharePoint's status lags behind it. What it did last
// is waited for, and nothing is sent again.
func TestJobFailsLate(t *testing.T) {
	t.Parallel()
	h := newHouse(t, byRunbook)
	h.declare()
	r := h.requestKey("spo-a")
	cfg := quick()
	cfg.SettleSharePoint = 4 * time.Second
	job := sim.Fault{Operation: sim.OpPutJob, Target: roll.OperationID(r.ID, firstOf(r, roll.SharePointRollKey), 0), Mode: sim.ModeJobSlow}
	slow := h.fault(job)
	job.Mode = sim.ModeJobFailsAfter
	h.fault(job)
	h.work(cfg)
	h.approve(r.ID)
	r = h.await(r.ID, "waiting for the job", func(r roll.Roll) bool {
		return step(r, roll.SharePointRollKey).WaitingFor == roll.WaitRunbook
	})
	h.until(step(r, roll.SharePointRollKey).IntentDeadline.Add(100 * time.Millisecond))
	lags := h.fault(sim.Fault{Service: "sharepoint", Operation: sim.OpGetStatus, Mode: sim.ModeStatus, Params: sim.FaultParams{Status: 2}})
	must(t, h.sim.World.RemoveFault(slow))
	h.await(r.ID, "waiting for what the job did last", func(r roll.Roll) bool {
		s := step(r, roll.SharePointRollKey)
		return s.Error != nil && s.Error.Code == "lost_answer" && s.IntentOpen && s.State == roll.StepReady
	})
	must(t, h.sim.World.RemoveFault(lags))
	if r = h.ended(r.ID); r.State != roll.Succeeded || h.changes() != 1 {
		t.Fatalf("ended %s after %d operations\n%s", r.State, h.changes(), show(r))
	}
	h.check(r)
}
