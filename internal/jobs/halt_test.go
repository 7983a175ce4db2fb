package jobs_test

import (
	"context"
	"slices"
	"testing"

	"github.com/google/uuid"

	"github.com/keyroll/keyroll/internal/control"
	"github.com/keyroll/keyroll/internal/roll"
	"github.com/keyroll/keyroll/internal/sim"
	"github.com/keyroll/keyroll/internal/store"
)

// halts is one way in which a roll must stop for a person, and how a person
// gets it to its end.
type halts struct {
	name   string
	policy string
	// arrange is called before the roll is approved.
	arrange func(h *house)
	code    string        // of the attention
	at      roll.StepKind // that halted, where it matters
	// mend what was wrong.
	mend func(h *house)
	// way is "retry", or what replan does with strangers.
	way string
	// versions that the vaults saw made for the roll's keys, each 1 where nil.
	versions map[string]int
}

func yes() *bool { v := true; return &v }
func no() *bool  { v := false; return &v }

func fault(f sim.Fault) func(*house) {
	return func(h *house) {
		_, err := h.sim.World.AddFault(f)
		must(h.t, err)
	}
}

func nothing(*house) {}

func TestHaltedRolls(t *testing.T) {
	t.Parallel()
	const vaultA, keyA = "contoso-exo-a", "Contoso-EXO-A-Key001"
	cases := []halts{
		{name: "stranger after create, before the refresh: adopt", policy: "exo-na",
			arrange: fault(sim.Fault{Service: "keyvault", Operation: sim.OpCreateKey, Vault: vaultA, Mode: sim.ModeStrangerAfter, Count: 1}),
			code:    roll.CodeStranger, mend: nothing, way: control.StrangersAdopt},
		{name: "stranger after create, before the refresh: roll again", policy: "exo-na",
			arrange: fault(sim.Fault{Service: "keyvault", Operation: sim.OpCreateKey, Vault: vaultA, Mode: sim.ModeStrangerAfter, Count: 1}),
			code:    roll.CodeStranger, mend: nothing, way: control.StrangersRollAgain, versions: map[string]int{"exo-a": 2}},
		{name: "stranger during the refresh", policy: "exo-na",
			arrange: fault(sim.Fault{Service: "exchange", Operation: sim.OpSetDEP, Mode: sim.ModeStrangerBefore, Count: 1}),
			code:    roll.CodeStranger, at: roll.RefreshPolicy, mend: nothing, way: control.StrangersAdopt},
		{name: "stranger after the refresh", policy: "exo-na",
			arrange: fault(sim.Fault{Service: "exchange", Operation: sim.OpSetDEP, Mode: sim.ModeStrangerAfter, Count: 1}),
			code:    roll.CodeStranger, at: roll.RefreshPolicy, mend: nothing, way: control.StrangersAdopt},
		{name: "permission on a vault removed", policy: "exo-na",
			arrange: func(h *house) {
				must(h.t, h.sim.World.SetPermission(sim.Permission{Tenant: h.inv.TenantID, KeyVault: map[string]bool{vaultA: false}}))
			},
			code: "preflight_credential_lacks_rights",
			mend: func(h *house) {
				must(h.t, h.sim.World.SetPermission(sim.Permission{Tenant: h.inv.TenantID, KeyVault: map[string]bool{vaultA: true}}))
			}, way: "retry"},
		{name: "Exchange role removed before the refresh", policy: "exo-na",
			arrange: fault(sim.Fault{Service: "exchange", Operation: sim.OpSetDEP, Mode: sim.ModeRefuse, Count: 1, Params: sim.FaultParams{Status: 403, Code: "Microsoft.Exchange.Configuration.Authorization.CmdletAccessDeniedException"}}),
			code:    "exchange_forbidden", mend: nothing, way: "retry"},
		{name: "create forbidden", policy: "exo-na",
			arrange: fault(sim.Fault{Service: "keyvault", Operation: sim.OpCreateKey, Vault: vaultA, Mode: sim.ModeRefuse, Count: 1, Params: sim.FaultParams{Status: 403}}),
			code:    "keyvault_forbidden", mend: nothing, way: "retry"},
		{name: "newest version disabled", policy: "exo-na",
			arrange: func(h *house) {
				must(h.t, h.sim.World.SetEnabled(vaultA, keyA, "", false))
			},
			code: "preflight_key_disabled",
			mend: func(h *house) { must(h.t, h.sim.World.SetEnabled(vaultA, keyA, "", true)) }, way: "retry"},
		{name: "unknown warning", policy: "exo-na",
			arrange: fault(sim.Fault{Service: "exchange", Operation: sim.OpSetDEP, Mode: sim.ModeWarning, Count: 1, Params: sim.FaultParams{Warning: "The policy may be in an odd state."}}),
			code:    "unknown_warning", mend: nothing, way: "retry"},
		{name: "undeclared policy on the key", policy: "exo-na",
			arrange: func(h *house) {
				must(h.t, h.sim.World.PutPolicy(h.inv.TenantID, sim.Policy{Name: "Shadow", GUID: uuid.NewString(), Workload: "exchange", Enabled: yes(),
					AzureKeyIDs: []string{"https://contoso-exo-a.vault.azure.net/keys/" + keyA, "https://contoso-exo-b.vault.azure.net/keys/Contoso-EXO-B-Key001"}}))
			},
			code: "preflight_undeclared_policy_uses_key",
			mend: func(h *house) {
				must(h.t, h.sim.World.PutPolicy(h.inv.TenantID, sim.Policy{Name: "Shadow", GUID: shadow(h), Workload: "exchange", Enabled: yes(),
					AzureKeyIDs: []string{"https://contoso-m365-a.vault.azure.net/keys/Contoso-M365-A-Key001", "https://contoso-m365-b.vault.azure.net/keys/Contoso-M365-B-Key001"}}))
			}, way: "retry"},
		{name: "purge requested", policy: "exo-na",
			arrange: func(h *house) { putExo(h, func(p *sim.Policy) { p.PurgeRequested = true }) },
			code:    "preflight_policy_purge_requested",
			mend:    func(h *house) { putExo(h, func(p *sim.Policy) { p.PurgeRequested = false }) }, way: "retry"},
		{name: "policy disabled", policy: "exo-na",
			arrange: func(h *house) { putExo(h, func(p *sim.Policy) { p.Enabled = no() }) },
			code:    "preflight_policy_disabled",
			mend:    func(h *house) { putExo(h, func(p *sim.Policy) { p.Enabled = yes() }) }, way: "retry"},
		{name: "SharePoint recovering", policy: "spo",
			arrange: func(h *house) {
				s := "Recovering"
				must(h.t, h.sim.World.SetSharePoint(sim.SharePointSettings{Tenant: h.inv.TenantID, Status: &s}))
			},
			code: "preflight_sharepoint_not_registered",
			mend: func(h *house) {
				s := "Registered"
				must(h.t, h.sim.World.SetSharePoint(sim.SharePointSettings{Tenant: h.inv.TenantID, Status: &s}))
			}, way: "retry"},
		{name: "SharePoint refuses the roll", policy: "spo",
			arrange: fault(sim.Fault{Service: "sharepoint", Operation: sim.OpRollKey, Mode: sim.ModeRefuse, Count: 1, Params: sim.FaultParams{Status: 403}}),
			code:    "sharepoint_forbidden", mend: nothing, way: "retry"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t)
			h.declare()
			r := h.request(c.policy)
			c.arrange(h)
			h.work(quick())
			h.approve(r.ID)
			r = h.halted(r.ID)
			if r.Attention == nil || r.Attention.Code != c.code || r.Attention.Detail == "" || r.Attention.Action == "" {
				t.Fatalf("attention %+v, want code %s with detail and action\n%s", r.Attention, c.code, show(r))
			}
			if s, _ := r.StepByN(r.Attention.Step); c.at != "" && s.Kind != c.at {
				t.Errorf("halted at %s, want %s", s.Kind, c.at)
			}
			r = h.await(r.ID, "settled", func(r roll.Roll) bool { return !r.Unsettled() })
			c.mend(h)
			h.goOn(r, c.way)
			r = h.ended(r.ID)
			if r.State != roll.Succeeded {
				t.Fatalf("ended %s\n%s", r.State, show(r))
			}
			h.checkVersions(r, c.versions)
		})
	}
}

func shadow(h *house) string {
	state, _ := h.sim.World.Tenant(h.inv.TenantID)
	for _, p := range state.Policies {
		if p.Name == "Shadow" {
			return p.GUID
		}
	}
	h.t.Fatal("no shadow policy")
	return ""
}

func putExo(h *house, change func(*sim.Policy)) {
	state, _ := h.sim.World.Tenant(h.inv.TenantID)
	i := slices.IndexFunc(state.Policies, func(p sim.PolicyState) bool { return p.Name == "NA Mailboxes" })
	p := state.Policies[i].Policy
	change(&p)
	must(h.t, h.sim.World.PutPolicy(h.inv.TenantID, p))
}

// goOn retries or replans a halted roll, and approves a new plan.
func (h *house) goOn(r roll.Roll, way string) {
	h.t.Helper()
	if way == "retry" {
		_, err := h.ctl.Retry(context.Background(), requester(), r.ID, 0)
		must(h.t, err)
		return
	}
	if _, err := h.ctl.Replan(context.Background(), requester(), r.ID, ""); err == nil {
		h.t.Error("replan did not ask what to do with the stranger's version")
	}
	before := r.Plan.Hash
	r, err := h.ctl.Replan(context.Background(), requester(), r.ID, way)
	must(h.t, err)
	if r.State != roll.AwaitingApproval || r.Plan.Hash == before {
		h.t.Fatalf("after replan %s with hash %s (before %s)", r.State, r.Plan.Hash, before)
	}
	h.approve(r.ID)
}

func (h *house) checkVersions(r roll.Roll, want map[string]int) {
	h.t.Helper()
	for _, k := range r.Keys {
		n, ok := want[k.ID]
		if !ok {
			n = 1
		}
		if got := h.sim.World.VersionsCreated(roll.Key{VaultURL: k.VaultURL}.VaultName(), k.Name); got != n {
			h.t.Errorf("key %s: %d versions created, want %d\n%s", k.ID, got, n, show(r))
		}
	}
	if h.sim.World.Overlaps(h.inv.TenantID) != 0 || len(h.sim.World.Violations()) > 0 {
		h.t.Errorf("overlaps %d, violations %v", h.sim.World.Overlaps(h.inv.TenantID), h.sim.World.Violations())
	}
	if report, err := h.st.VerifyAudit(context.Background(), nil); err != nil || !report.OK() {
		h.t.Errorf("audit: %v %v", err, report.Problems)
	}
}

// TestSwappedDeclaration: Primary and Secondary declared the wrong way round
// never reach SharePoint.
func TestSwappedDeclaration(t *testing.T) {
	t.Parallel()
	h := newHouse(t, func(_ *sim.Seed, inv *roll.Inventory) {
		inv.Policies[2].Primary, inv.Policies[2].Secondary = inv.Policies[2].Secondary, inv.Policies[2].Primary
	})
	h.declare()
	plan, err := h.ctl.Plan(t.Context(), requester(), roll.Request{TenantID: h.inv.TenantID, Policies: []string{"spo"}, Reason: roll.Reason{Code: "other", Text: "x"}})
	must(t, err)
	if !slices.ContainsFunc(plan.Errors(), func(f roll.Finding) bool { return f.Code == roll.CodeSlotMismatch && f.Remedy != "" }) {
		t.Errorf("the plan does not see the swapped slots: %+v", plan.Findings)
	}
	if n := h.sim.World.SharePointOperations(h.inv.TenantID); n != 0 {
		t.Errorf("%d SharePoint operations", n)
	}
}

// TestSwappedAfterApproval: the declaration is swapped between the approval
// and the operation; rule 6 stops it just before the call.
func TestSwappedAfterApproval(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.declare()
	r := h.request("spo")
	id, err := h.sim.World.AddFault(sim.Fault{Service: "keyvault", Operation: sim.OpCreateKey, Vault: "contoso-spo-a", Mode: sim.ModeHoldAfter, Count: 1})
	must(t, err)
	h.work(quick())
	h.approve(r.ID)
	must(t, h.sim.World.WaitFault(t.Context(), id))
	swapped := h.inv
	swapped.Policies = slices.Clone(h.inv.Policies)
	swapped.Policies[2].Primary, swapped.Policies[2].Secondary = "spo-b", "spo-a"
	_, err = h.ctl.Declare(t.Context(), admin(), swapped, 1)
	must(t, err)
	must(t, h.sim.World.ReleaseFault(id))
	r = h.halted(r.ID)
	if r.Attention.Code != roll.CodeSlotMismatch {
		t.Errorf("attention %+v", r.Attention)
	}
	if n := h.sim.World.Requests("sharepoint", sim.OpRollKey); n != 0 {
		t.Errorf("%d roll requests went out", n)
	}
	_, err = h.ctl.Declare(t.Context(), admin(), h.inv, 2)
	must(t, err)
	h.goOnRetry(r)
	r = h.ended(r.ID)
	h.check(r)
}

func (h *house) goOnRetry(r roll.Roll) {
	h.t.Helper()
	_, err := h.ctl.Retry(context.Background(), requester(), r.ID, 0)
	must(h.t, err)
}

// TestExternalRoll: a roll begun by hand is named and waited for.
func TestExternalRoll(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.declare()
	r := h.request("spo")
	rate := 40.0
	must(t, h.sim.World.SetSharePoint(sim.SharePointSettings{Tenant: h.inv.TenantID, SitesPerSecond: &rate}))
	must(t, h.sim.World.RollByHand(h.inv.TenantID, "NAM", "secondary", sim.Slot{}))
	fast := 2000.0
	must(t, h.sim.World.SetSharePoint(sim.SharePointSettings{Tenant: h.inv.TenantID, SitesPerSecond: &fast}))
	h.work(quick())
	h.approve(r.ID)
	h.await(r.ID, "waiting for the external roll", func(r roll.Roll) bool {
		return slices.ContainsFunc(r.Steps, func(s roll.Step) bool { return s.WaitingFor == roll.WaitExternal })
	})
	r = h.ended(r.ID)
	if r.State != roll.Succeeded {
		t.Fatalf("ended %s\n%s", r.State, show(r))
	}
	h.check(r)
}

// TestUnknownStatus: a status that nobody knows counts as in flight.
func TestUnknownStatus(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.declare()
	r := h.request("spo")
	h.work(quick())
	id, err := h.sim.World.AddFault(sim.Fault{Service: "sharepoint", Operation: sim.OpGetStatus, After: 4, Mode: sim.ModeStatus, Params: sim.FaultParams{Status: 99}})
	must(t, err)
	h.approve(r.ID)
	r = h.await(r.ID, "watching an unknown status", func(r roll.Roll) bool {
		return slices.ContainsFunc(r.Steps, func(s roll.Step) bool { return s.Seen == "unknown (99)" })
	})
	if !r.InFlight("") && !slices.ContainsFunc(r.Steps, func(s roll.Step) bool { return s.WaitingFor == roll.WaitExternal }) {
		t.Errorf("neither in flight nor waiting\n%s", show(r))
	}
	must(t, h.sim.World.RemoveFault(id))
	h.check(h.ended(r.ID))
}

// TestLedgerKeepsEverything: what the roll made and what strangers made is in the ledger.
func TestLedgerKeepsEverything(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.declare()
	before, err := h.st.Ledger(t.Context(), h.inv.TenantID, store.LedgerPage{Limit: 100})
	must(t, err)
	h.work(quick())
	r := h.request("exo-na")
	h.approve(r.ID)
	r = h.ended(r.ID)
	after, err := h.st.Ledger(t.Context(), h.inv.TenantID, store.LedgerPage{Limit: 100})
	must(t, err)
	if len(before) != 12 || len(after) != 14 {
		t.Errorf("%d rows before (12 backfilled), %d after (14)", len(before), len(after))
	}
	for _, k := range r.Keys {
		if !slices.ContainsFunc(after, func(l store.LedgerRow) bool {
			return l.Version == k.NewVersion && l.RollID == r.ID && l.Origin == store.OriginRoll
		}) {
			t.Errorf("version %s of %s is not in the ledger", k.NewVersion, k.ID)
		}
	}
}
