package jobs_test

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/keyroll/keyroll/internal/roll"
	"github.com/keyroll/keyroll/internal/sim"
	"github.com/keyroll/keyroll/internal/store"
)

// happening brings a row of roll.Happenings about.
type happening struct {
	key  string
	hold *sim.Fault // the call in which it happens; nil: before the approval
	do   func(h *house, r roll.Roll)
	undo func(h *house, r roll.Roll)
	// comes is looked at where the roll does not halt.
	comes func(h *house, r roll.Roll)
}

func edit(change func(*roll.Inventory)) func(*house, roll.Roll) {
	return func(h *house, _ roll.Roll) {
		next := h.inv
		next.Keys, next.Policies = slices.Clone(h.inv.Keys), slices.Clone(h.inv.Policies)
		next.SharePoint.Geos = slices.Clone(h.inv.SharePoint.Geos)
		change(&next)
		h.redeclared(next)
	}
}

func asBefore(h *house, _ roll.Roll) { h.redeclared(h.inv) }

func mended(h *house, _ roll.Roll) {
	for _, f := range h.sim.World.Faults() {
		must(h.t, h.sim.World.RemoveFault(f.ID))
	}
}

func happenings() map[[2]string]happening {
	const exoA, exoKey = "contoso-exo-a", "Contoso-EXO-A-Key001"
	credential := edit(func(i *roll.Inventory) { i.Credential = "nobody" })
	rolling := &sim.Fault{Service: "sharepoint", Operation: sim.OpRollKey, Mode: sim.ModeHoldAfter}
	refresh := &sim.Fault{Service: "exchange", Operation: sim.OpGetMailboxStatistics, Mode: sim.ModeHold}
	create := &sim.Fault{Service: "keyvault", Operation: sim.OpGetKey, Vault: exoA, Mode: sim.ModeHold, After: 1}
	newest := func(enabled bool) func(*house, roll.Roll) {
		return func(h *house, _ roll.Roll) {
			all := h.sim.World.KeyVersions(exoA, exoKey)
			must(h.t, h.sim.World.SetEnabled(exoA, exoKey, all[len(all)-1].Version, enabled))
		}
	}
	deleted := func(yes bool) func(*house, roll.Roll) {
		return func(h *house, _ roll.Roll) { must(h.t, h.sim.World.SetSoftDeleted(exoA, exoKey, yes)) }
	}
	goesOn := func(*house, roll.Roll) {}
	var lost sim.Policy
	return map[[2]string]happening{
		{"the credential's name is changed to one that the server does not have", "before the first step"}:  {"exo-a", nil, credential, asBefore, nil},
		{"the credential's name is changed to one that the server does not have", "while SharePoint rolls"}: {"spo-a", rolling, credential, asBefore, nil},
		{"the credential is refused by Entra", "before the refresh"}: {"exo-a", refresh, func(h *house, _ roll.Roll) {
			h.fault(sim.Fault{Service: "exchange", Mode: sim.ModeRevokeTokens, Count: 1})
			h.fault(sim.Fault{Service: "entra", Operation: sim.OpToken, Mode: sim.ModeRefuse, Params: sim.FaultParams{Status: 401, Code: "AADSTS7000222"}})
		}, mended, nil},
		{"a policy is taken out of the declaration", "before its refresh"}: {"exo-a", &sim.Fault{Service: "keyvault", Operation: sim.OpCreateKey, Mode: sim.ModeHoldAfter},
			edit(func(i *roll.Inventory) { i.Policies = slices.Delete(i.Policies, 1, 2) }), asBefore, nil},
		{"a key is declared in another vault", "before its version is made"}: {"exo-a", &sim.Fault{Service: "keyvault", Operation: sim.OpListVersions, Vault: "contoso-spo-b", Mode: sim.ModeHold},
			edit(func(i *roll.Inventory) { i.Keys[2].VaultURL = "https://contoso-m365-a.vault.azure.net" }), asBefore, nil},
		{"a geo is added", "while SharePoint rolls"}: {"spo-a", rolling, edit(func(i *roll.Inventory) {
			i.SharePoint.Geos = append(i.SharePoint.Geos, roll.Geo{ID: "EUR", AdminURL: "https://contosoeur-admin.sharepoint.com"})
		}), nil, goesOn},
		{"min_gap is changed", "before the first step"}: {"spo-a", nil, edit(func(i *roll.Inventory) { i.SharePoint.MinGap = roll.Duration(time.Hour) }), nil, func(h *house, r roll.Roll) {
			r = h.await(r.ID, "back with its approver", func(r roll.Roll) bool { return r.State == roll.AwaitingApproval && r.Round == 2 })
			h.approve(r.ID)
		}},
		{"min_gap is changed", "while SharePoint rolls"}: {"spo-a", rolling, edit(func(i *roll.Inventory) { i.SharePoint.MinGap = roll.Duration(time.Hour) }), nil, goesOn},
		{"approval is changed to not_required", "before its approval"}: {"exo-a", nil, func(h *house, r roll.Roll) {
			edit(func(i *roll.Inventory) { i.Approval = roll.ApprovalNotRequired })(h, r)
			if now, err := h.st.Roll(h.t.Context(), r.ID); err != nil || now.State != roll.AwaitingApproval || !now.NeedsApproval {
				h.t.Errorf("%s, %v", now.State, err)
			}
		}, nil, goesOn},
		{"the policy is deleted at Microsoft", "before its refresh"}: {"exo-a", refresh, func(h *house, _ roll.Roll) {
			state, _ := h.sim.World.Tenant(h.inv.TenantID)
			lost = state.Policies[slices.IndexFunc(state.Policies, func(p sim.PolicyState) bool { return p.Name == "NA Mailboxes" })].Policy
			must(h.t, h.sim.World.RemovePolicy(h.inv.TenantID, lost.GUID))
		}, func(h *house, _ roll.Roll) { must(h.t, h.sim.World.PutPolicy(h.inv.TenantID, lost)) }, nil},
		{"the new version is disabled by hand", "before the refresh"}:            {"exo-a", refresh, newest(false), newest(true), nil},
		{"the key is deleted in its vault (soft-deleted)", "before the refresh"}: {"exo-a", refresh, deleted(true), deleted(false), nil},
		{"a freeze is declared", "before an effect"}: {"exo-a", create, func(h *house, _ roll.Roll) { h.redeclared(frozen(h.inv)) }, nil, func(h *house, r roll.Roll) {
			h.await(r.ID, "held up", waitsFor(roll.WaitFreeze, roll.CreateKeyVersion))
			h.redeclared(h.inv)
		}},
	}
}

// TestHappenings brings about every row of the table in docs/state_machine.md:
// the roll halts with its code or goes on as the row says, nothing wrong is
// done meanwhile, and the way out ends well.
func TestHappenings(t *testing.T) {
	t.Parallel()
	all := happenings()
	for _, row := range roll.Happenings() {
		c, ok := all[[2]string{row.What, row.When}]
		if !ok {
			t.Errorf("nothing brings about: %s, %s", row.What, row.When)
			continue
		}
		t.Run(row.What+", "+row.When, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t)
			h.declare()
			h.rate(400)
			r := h.requestKey(c.key)
			held := ""
			if c.hold == nil {
				c.do(h, r)
			} else {
				f := *c.hold
				f.Count = 1
				held = h.fault(f)
			}
			h.work(quick())
			h.approve(r.ID)
			if held != "" {
				h.fired(held)
				c.do(h, r)
				must(t, h.sim.World.ReleaseFault(held))
			}
			if c.comes != nil {
				c.comes(h, r)
			} else {
				r = h.halted(r.ID)
				if r.Attention.Code != row.Code || r.Attention.Detail == "" || r.Attention.Action == "" {
					t.Fatalf("attention %+v, want %s\n%s", r.Attention, row.Code, show(r))
				}
				c.undo(h, r)
				h.goOnRetry(r)
			}
			if r = h.ended(r.ID); r.State != roll.Succeeded {
				t.Fatalf("ended %s\n%s", r.State, show(r))
			}
			h.check(r)
			if n := h.applied(sim.OpRollKey); n > 1 {
				t.Errorf("%d SharePoint operations", n)
			}
		})
	}
}

// A tenant with an open roll is not retired.
func TestRetireUnderWay(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.declare()
	r := h.requestKey("exo-a")
	if _, err := h.ctl.Retire(t.Context(), admin(), h.inv.TenantID, "gone"); !errors.Is(err, store.ErrOpenRolls) {
		t.Errorf("retired with roll %s open: %v", r.ID, err)
	}
}
