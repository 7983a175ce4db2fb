package jobs_test

import (
	"slices"
	"testing"
	"time"

	"github.com/keyroll/keyroll/internal/control"
	"github.com/keyroll/keyroll/internal/roll"
	"github.com/keyroll/keyroll/internal/sim"
)

// between holds a call of the roll and changes the world while it is held: a
// look that has been answered proves nothing about the moment after it.
type between struct {
	name, key string
	hold      sim.Fault
	change    func(h *house, r roll.Roll)
	code      string // of the halt; "" where the roll waits and goes on
	at        roll.StepKind
	effect    string // must not be called while what was changed stands
	service   string
	mend      func(h *house, r roll.Roll)
	way       string
}

func TestBetweenLookAndCall(t *testing.T) {
	t.Parallel()
	const exoA, exoKey, spoA, spoKey = "contoso-exo-a", "Contoso-EXO-A-Key001", "contoso-spo-a", "Contoso-SPO-A-Key001"
	stranger := func(h *house, _ roll.Roll) {
		_, err := h.sim.World.StrangerVersion(exoA, exoKey, nil)
		must(h.t, err)
	}
	newest := func(vault, key string, enabled bool) func(*house, roll.Roll) {
		return func(h *house, _ roll.Roll) {
			all := h.sim.World.KeyVersions(vault, key)
			must(h.t, h.sim.World.SetEnabled(vault, key, all[len(all)-1].Version, enabled))
		}
	}
	nothing := func(*house, roll.Roll) {}
	for _, c := range []between{
		{"stranger between preflight and create", "exo-a", sim.Fault{Service: "keyvault", Operation: sim.OpGetKey, Vault: exoA, Mode: sim.ModeHold, After: 1},
			stranger, roll.CodeStranger, roll.CreateKeyVersion, sim.OpCreateKey, "keyvault", nothing, control.StrangersAdopt},
		{"disabled between create and read back", "exo-a", sim.Fault{Service: "keyvault", Operation: sim.OpCreateKey, Vault: exoA, Mode: sim.ModeHoldAfter},
			newest(exoA, exoKey, false), "key_disabled", roll.CreateKeyVersion, sim.OpSetDEP, "exchange", newest(exoA, exoKey, true), "retry"},
		{"stranger between the two looks before a refresh", "exo-a", sim.Fault{Service: "exchange", Operation: sim.OpGetMailboxStatistics, Mode: sim.ModeHold},
			stranger, roll.CodeStranger, roll.RefreshPolicy, sim.OpSetDEP, "exchange", nothing, control.StrangersAdopt},
		{"policy disabled between the two looks before a refresh", "exo-a", sim.Fault{Service: "exchange", Operation: sim.OpGetMailboxStatistics, Mode: sim.ModeHold},
			func(h *house, _ roll.Roll) { putExo(h, func(p *sim.Policy) { p.Enabled = no() }) }, "policy_disabled", roll.RefreshPolicy, sim.OpSetDEP, "exchange",
			func(h *house, _ roll.Roll) { putExo(h, func(p *sim.Policy) { p.Enabled = yes() }) }, "retry"},
		{"disabled between create and roll", "spo-a", sim.Fault{Service: "keyvault", Operation: sim.OpGetKey, Vault: spoA, Mode: sim.ModeHoldAfter, After: 3},
			newest(spoA, spoKey, false), "key_disabled", roll.SharePointRollKey, sim.OpRollKey, "sharepoint", newest(spoA, spoKey, true), "retry"},
		{"roll by hand between the two looks before a roll", "spo-a", sim.Fault{Service: "sharepoint", Operation: sim.OpGetStatus, Mode: sim.ModeHoldAfter, After: 1},
			func(h *house, _ roll.Roll) {
				must(h.t, h.sim.World.RollByHand(h.inv.TenantID, "NAM", "secondary", sim.Slot{}))
			}, "", roll.SharePointRollKey, sim.OpRollKey, "sharepoint", nil, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t)
			h.declare()
			h.sim.World.SetTrap(true) // an overlap is to be seen, not refused
			h.rate(0.001)
			r := h.requestKey(c.key)
			c.hold.Count = 1
			held := h.fault(c.hold)
			h.work(quick())
			h.approve(r.ID)
			h.fired(held)
			c.change(h, r)
			must(t, h.sim.World.ReleaseFault(held))
			if c.code == "" {
				h.await(r.ID, "waiting for the external roll", func(r roll.Roll) bool { return step(r, roll.SharePointRollKey).WaitingFor == roll.WaitExternal })
			} else {
				r = h.halted(r.ID)
				if s, _ := r.StepByN(r.Attention.Step); r.Attention.Code != c.code || s.Kind != c.at {
					t.Fatalf("attention %+v at %s, want %s at %s\n%s", r.Attention, s.Kind, c.code, c.at, show(r))
				}
			}
			if n := h.sim.World.Requests(c.service, c.effect); n != 0 {
				t.Errorf("%d calls of %s", n, c.effect)
			}
			h.rate(2000)
			h.endOperation()
			if c.code != "" {
				c.mend(h, r)
				h.goOn(r, c.way)
			}
			if r = h.ended(r.ID); r.State != roll.Succeeded {
				t.Fatalf("ended %s\n%s", r.State, show(r))
			}
			h.checkVersions(r, map[string]int{c.key: h.applied(sim.OpCreateKey)}) // adopted: none
			if h.applied(sim.OpCreateKey) > 1 {
				t.Errorf("%d versions", h.applied(sim.OpCreateKey))
			}
		})
	}
}

// TestTwoLooksBeforeEachCall: rule 5 and rule 6 are asked twice before a call,
// once at its beginning and once just before it.
func TestTwoLooksBeforeEachCall(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.declare()
	r := h.request("exo-na", "spo")
	before := map[string]int{sim.OpGetDEP: h.sim.World.Requests("exchange", sim.OpGetDEP), sim.OpGetStatus: h.sim.World.Requests("sharepoint", sim.OpGetStatus)}
	refresh := h.fault(sim.Fault{Service: "exchange", Operation: sim.OpSetDEP, Mode: sim.ModeHold, Count: 1})
	begin := h.fault(sim.Fault{Service: "sharepoint", Operation: sim.OpRollKey, Mode: sim.ModeHold, Count: 1})
	h.work(quick())
	h.approve(r.ID)
	h.fired(refresh)
	h.fired(begin)
	for op, service := range map[string]string{sim.OpGetDEP: "exchange", sim.OpGetStatus: "sharepoint"} {
		if got := h.sim.World.Requests(service, op) - before[op]; got != 3 { // one by preflight
			t.Errorf("%d looks by %s before the call, want 3", got, op)
		}
	}
	must(t, h.sim.World.ReleaseFault(refresh))
	must(t, h.sim.World.ReleaseFault(begin))
	h.check(h.ended(r.ID))
	if got := h.sim.World.Requests("exchange", sim.OpGetDEP) - before[sim.OpGetDEP]; got != 5 { // after the call, and by verify
		t.Errorf("%d looks at the policy in all, want 5", got)
	}
}

// TestSeveralVersionsOfOneOperation: where the vault shows two versions with
// the operation's tag, Keyroll chooses neither.
func TestSeveralVersionsOfOneOperation(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.declare()
	r := h.requestKey("exo-a")
	held := h.fault(sim.Fault{Service: "keyvault", Operation: sim.OpListVersions, Vault: "contoso-exo-a", Mode: sim.ModeHold, After: 1, Count: 1})
	h.fault(sim.Fault{Service: "keyvault", Operation: sim.OpCreateKey, Mode: sim.ModeApplyAndLose, Count: 1})
	h.work(quick())
	h.approve(r.ID)
	h.fired(held)
	_, err := h.sim.World.StrangerVersion("contoso-exo-a", "Contoso-EXO-A-Key001", map[string]string{roll.OperationTag: h.openIntent(r.ID).OpID})
	must(t, err)
	must(t, h.sim.World.ReleaseFault(held))
	if r = h.halted(r.ID); r.Attention.Code != "several_versions" {
		t.Fatalf("attention %+v\n%s", r.Attention, show(r))
	}
	h.goOn(r, control.StrangersAdopt)
	h.check(h.ended(r.ID))
}

// TestAdoptedVersionIsChecked: a version that is to be adopted and has been
// disabled since the plan is not used.
func TestAdoptedVersionIsChecked(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.declare()
	const vault, name = "contoso-exo-a", "Contoso-EXO-A-Key001"
	v, err := h.sim.World.StrangerVersion(vault, name, nil)
	must(t, err)
	r := h.requestWith(h.ctl, roll.Request{Keys: []roll.KeyRequest{{Type: roll.RootKey, ID: "exo-a", Version: v}}})
	held := h.fault(sim.Fault{Service: "keyvault", Operation: sim.OpGetKey, Vault: vault, Mode: sim.ModeHold, After: 2, Count: 1})
	h.work(quick())
	h.approve(r.ID)
	h.fired(held)
	must(t, h.sim.World.SetEnabled(vault, name, v, false))
	must(t, h.sim.World.ReleaseFault(held))
	if r = h.halted(r.ID); r.Attention.Code != "key_disabled" || r.Attention.Step != stepOf(r, roll.CreateKeyVersion, "exo-a").N {
		t.Fatalf("attention %+v\n%s", r.Attention, show(r))
	}
	must(t, h.sim.World.SetEnabled(vault, name, v, true))
	h.goOnRetry(r)
	if r = h.ended(r.ID); r.State != roll.Succeeded || h.applied(sim.OpCreateKey) != 0 {
		t.Errorf("ended %s with %d versions created\n%s", r.State, h.applied(sim.OpCreateKey), show(r))
	}
}

// TestPlanMadeAgain: what changed between the plan and the first effect sends
// the roll back to its approver, and nothing has been called by then.
func TestPlanMadeAgain(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.declare()
	r := h.requestKey("exo-a")
	_, err := h.sim.World.StrangerVersion("contoso-exo-b", "Contoso-EXO-B-Key001", nil)
	must(t, err)
	h.work(quick())
	h.approve(r.ID)
	before := r.Plan.Hash
	r = h.await(r.ID, "back with its approver", func(r roll.Roll) bool { return r.State == roll.AwaitingApproval && r.Round == 2 })
	if r.Plan.Hash == before || h.sim.World.Requests("keyvault", sim.OpCreateKey) != 0 {
		t.Errorf("hash %s, %d versions asked for", r.Plan.Hash, h.sim.World.Requests("keyvault", sim.OpCreateKey))
	}
	h.approve(r.ID)
	h.check(h.ended(r.ID))
}

// TestKeyMovedAfterApproval: a key that is declared elsewhere since the plan
// is not created there.
func TestKeyMovedAfterApproval(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.declare()
	r := h.request("exo-na")
	held := h.fault(sim.Fault{Service: "keyvault", Operation: sim.OpCreateKey, Vault: "contoso-exo-a", Mode: sim.ModeHoldAfter, Count: 1})
	slow := h.fault(sim.Fault{Service: "keyvault", Operation: sim.OpCreateKey, Vault: "contoso-exo-b", Mode: sim.ModeThrottle, Count: 1})
	h.work(quick())
	h.approve(r.ID)
	h.fired(held)
	h.fired(slow)
	h.redeclare(swapKeys(h.inv, "exo-b", "m-b"), 1)
	must(t, h.sim.World.ReleaseFault(held))
	r = h.halted(r.ID)
	if r.Attention.Code != "declaration_changed" {
		t.Errorf("attention %+v\n%s", r.Attention, show(r))
	}
	if n := h.sim.World.VersionsCreated("contoso-m365-b", "Contoso-M365-B-Key001"); n != 0 {
		t.Errorf("%d versions of another key", n)
	}
	h.redeclare(h.inv, 2)
	h.goOnRetry(r)
	h.check(h.ended(r.ID))
}

// TestPolicyMovedAfterApproval: people approved the refresh of one policy, by
// its GUID; an edit that one person makes since then does not turn it to
// another, though that one uses the same keys.
func TestPolicyMovedAfterApproval(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.declare()
	r := h.request("exo-na")
	held := h.fault(sim.Fault{Service: "keyvault", Operation: sim.OpCreateKey, Vault: "contoso-exo-a", Mode: sim.ModeHoldAfter, Count: 1})
	h.work(quick())
	h.approve(r.ID)
	h.fired(held)
	state, _ := h.sim.World.Tenant(h.inv.TenantID)
	other := state.Policies[slices.IndexFunc(state.Policies, func(p sim.PolicyState) bool { return p.Name == "NA Mailboxes" })].Policy
	other.Name, other.GUID = "EU Mailboxes", "0f6a1c52-7d3e-4b8f-9a11-2c4d5e6f7a8b"
	must(t, h.sim.World.PutPolicy(h.inv.TenantID, other))
	moved := h.inv
	moved.Policies = slices.Clone(h.inv.Policies)
	moved.Policies[1].GUID = other.GUID
	_, err := h.ctl.Declare(t.Context(), admin(), moved, 1)
	must(t, err)
	must(t, h.sim.World.ReleaseFault(held))
	r = h.await(r.ID, "halted or ended", func(r roll.Roll) bool { return r.State == roll.NeedsAttention || r.State.Final() })
	if r.State != roll.NeedsAttention || r.Attention.Code != "declaration_changed" {
		t.Errorf("%s, attention %+v\n%s", r.State, r.Attention, show(r))
	}
	if n := h.applied(sim.OpSetDEP); n != 0 {
		t.Fatalf("%d refreshes of another policy than was approved", n)
	}
	h.redeclare(h.inv, 2)
	h.goOnRetry(r)
	h.check(h.ended(r.ID))
}

// TestManyStepsAtOnce: no more than eight steps of a roll run side by side.
func TestManyStepsAtOnce(t *testing.T) {
	t.Parallel()
	const keys = 10
	h := newHouse(t, func(s *sim.Seed, inv *roll.Inventory) { wide(s, inv, keys) })
	h.declare()
	var ids []string
	for _, p := range h.inv.Policies[3:] {
		ids = append(ids, p.ID)
	}
	r := h.request(ids...)
	held := h.fault(sim.Fault{Service: "keyvault", Operation: sim.OpCreateKey, Mode: sim.ModeHold})
	cfg := quick()
	cfg.CallKeyVault = time.Minute
	h.work(cfg)
	h.approve(r.ID)
	must(t, h.sim.World.WaitFaultN(t.Context(), held, 8))
	r, err := h.st.Roll(t.Context(), r.ID)
	must(t, err)
	running := 0
	for _, s := range r.Steps {
		if s.State == roll.StepRunning {
			running++
		}
	}
	if running != 8 {
		t.Errorf("%d steps run at once, want 8", running)
	}
	must(t, h.sim.World.RemoveFault(held))
	h.check(h.ended(r.ID))
}

// wide adds n keys to the tenant, two to an Exchange policy.
func wide(s *sim.Seed, inv *roll.Inventory, n int) {
	tenant := &s.Tenants[0]
	for i := range n {
		vault := tenant.Vaults[i%2]
		key := vault.Keys[0]
		key.Name = "Wide" + string(rune('A'+i))
		tenant.Vaults[i%2].Keys = append(tenant.Vaults[i%2].Keys, key)
		inv.Keys = append(inv.Keys, roll.Key{ID: "w" + string(rune('a'+i)), VaultURL: "https://" + vault.Name + ".vault.azure.net", Name: key.Name})
	}
	for i := 0; i < n; i += 2 {
		a, b := inv.Keys[6+i], inv.Keys[7+i]
		guid := roll.OperationID("wide", i, 0)
		id := "wide" + string(rune('a'+i))
		tenant.Exchange.Policies = append(tenant.Exchange.Policies, sim.Policy{Name: id, GUID: guid, Workload: sim.WorkloadExchange,
			AzureKeyIDs: []string{a.URI(""), b.URI("")}})
		inv.Policies = append(inv.Policies, roll.Policy{ID: id, Workload: roll.Exchange, Name: id, GUID: guid, Keys: []string{a.ID, b.ID}})
	}
}
