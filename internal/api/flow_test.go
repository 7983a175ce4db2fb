package api_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/keyroll/keyroll/internal/api"
	"github.com/keyroll/keyroll/internal/roll"
	"github.com/keyroll/keyroll/internal/sim"
)

// One roll over HTTP, from the declaration to the ledger.
func TestWholeFlow(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	declared := h.declare()
	if d := declared.Declaration; d.Approval != "required" || d.SharePoint.Lease != "tenant" || d.SharePoint.MinGap != "0s" || !declared.Simulated {
		t.Errorf("declared %+v", declared)
	}
	before := answer[api.KeyVersionList](t, h.as("aud", "GET", tenantPath+"/key-versions", nil), 200)
	wanted := map[string]any{"tenant_id": sim.ContosoTenant, "policies": []string{"global", "exo-na", "spo"}}
	plan := answer[api.Plan](t, h.as("paul", "POST", "/v1/plans", wanted), 200)
	if !plan.CanRun || len(plan.Keys) != 6 || len(plan.Policies) != 3 {
		t.Fatalf("plan %+v", plan)
	}
	r := h.request(body(map[string]any{"policies": wanted["policies"], "plan_hash": plan.Hash}))
	if r.State != api.RollStateAwaitingApproval || r.PlanHash != plan.Hash || !strings.Contains(r.NextAction, plan.Hash) {
		t.Fatalf("roll %s, next action %q", r.State, r.NextAction)
	}
	h.approve(r.ID)
	h.work()
	r = h.awaitState(r.ID, api.RollStateSucceeded)
	checkOutcome(t, r)
	h.checkEvents(r)
	h.checkLedger(r, len(before.Items))
}

func checkOutcome(t *testing.T, r api.Roll) {
	t.Helper()
	// An Exchange or multi-workload end is never shown without its outcome.
	if r.Outcome != api.EvidenceAccepted || !strings.Contains(r.NextAction, "outcome accepted") || r.Stuck {
		t.Errorf("outcome %q, next action %q", r.Outcome, r.NextAction)
	}
	want := map[string]api.Evidence{"global": api.EvidenceAccepted, "exo-na": api.EvidenceAccepted, "spo": api.EvidenceConfirmed}
	for _, p := range r.Policies {
		if p.Evidence != want[p.ID] || p.EvidenceSource == "" {
			t.Errorf("policy %s: evidence %s from %q", p.ID, p.Evidence, p.EvidenceSource)
		}
	}
	for _, k := range r.Keys {
		if k.NewVersion == "" || k.NewVersion == k.OldVersion {
			t.Errorf("key %s: %q after %q", k.ID, k.NewVersion, k.OldVersion)
		}
	}
	for _, s := range r.Steps {
		if s.State != api.StepStateSucceeded || s.EndedAt.IsZero() {
			t.Errorf("step %d is %s", s.N, s.State)
		}
	}
}

// checkEvents reads all events in pages of four: none twice, none missing.
func (h *house) checkEvents(r api.Roll) {
	h.t.Helper()
	version, cursor := r.Version, ""
	var types []string
	for {
		page := answer[api.RollEventList](h.t, h.as("aud", "GET", rollPath(r.ID)+"/events?limit=4"+cursor, nil), 200)
		for _, e := range page.Items {
			if e.RollVersion != version {
				h.t.Fatalf("event %s has version %d, want %d", e.ID, e.RollVersion, version)
			}
			version--
			types = append(types, e.Types...)
		}
		if page.NextCursor == "" {
			break
		}
		cursor = "&cursor=" + page.NextCursor
	}
	if version != 0 || !slices.Contains(types, "approved") || types[len(types)-1] != "requested" {
		h.t.Errorf("events end at version %d: %v", version, types)
	}
}

func (h *house) checkLedger(r api.Roll, before int) {
	h.t.Helper()
	all := h.ledger("?limit=4")
	if len(all) != before+6 {
		h.t.Errorf("the ledger has %d versions, had %d before six were made", len(all), before)
	}
	made := map[string]api.KeyVersion{}
	for _, v := range all {
		if !v.MustKeep || v.Why == "" || v.State != "enabled" || len(v.Policies) == 0 {
			h.t.Errorf("ledger row %+v", v)
		}
		if v.RollID == r.ID {
			made[v.KeyID] = v
		}
	}
	for _, k := range r.Keys {
		if made[k.ID].Version != k.NewVersion || made[k.ID].Origin != "roll" {
			h.t.Errorf("ledger has %+v for key %s", made[k.ID], k.ID)
		}
	}
	if one := h.ledger("?key=spo-a&state=enabled"); len(one) < 2 || slices.ContainsFunc(one, func(v api.KeyVersion) bool { return v.KeyID != "spo-a" }) {
		h.t.Errorf("ledger of spo-a: %+v", one)
	}
	if none := h.ledger("?state=disabled"); len(none) != 0 {
		h.t.Errorf("disabled: %+v", none)
	}
}

// ledger reads all pages, each version once.
func (h *house) ledger(query string) []api.KeyVersion {
	h.t.Helper()
	var all []api.KeyVersion
	seen, cursor := map[string]bool{}, ""
	for {
		page := answer[api.KeyVersionList](h.t, h.as("aud", "GET", tenantPath+"/key-versions"+query+cursor, nil), 200)
		for _, v := range page.Items {
			if id := v.VaultURL + v.Name + v.Version; seen[id] {
				h.t.Fatalf("version %s twice", id)
			} else {
				seen[id] = true
			}
		}
		all = append(all, page.Items...)
		if page.NextCursor == "" {
			return all
		}
		cursor = "&cursor=" + page.NextCursor
	}
}

// TestEvidenceOfARoll: each policy's evidence with its source and time, what
// Microsoft's own test said, the sample mailboxes, and what the log shows later
// beside what was known at the end.
func TestEvidenceOfARoll(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	const workspace = "2f1d6a3c-8b0e-4a57-9c1d-7e5b40c3a9d2"
	d := contoso()
	d.Diagnostics.WorkspaceID = workspace
	d.Policies[1].SampleMailboxes = []string{"vip@contoso.com"}
	// A log that nobody has agreed to says nothing yet.
	waits := answer[api.TenantChange](t, h.as("ada", "PUT", tenantPath, d, "If-None-Match", "*"), 202)
	made := answer[api.Tenant](t, h.as("bea", "POST", tenantPath+"/changes/"+waits.ID+"/approve", map[string]any{"hash": waits.Hash}), 200)
	if made.Declaration.Diagnostics.WorkspaceID != workspace {
		t.Errorf("declared %+v", made.Declaration.Diagnostics)
	}
	must(t, h.sim.World.SetLogs(sim.ContosoTenant, sim.Logs{WorkspaceID: workspace, DelaySeconds: 3600}))
	h.work()
	r := h.request(policies("global", "exo-na"))
	h.approve(r.ID)
	r = h.awaitState(r.ID, api.RollStateSucceeded)
	if r.Outcome != "accepted" || r.CurrentOutcome != "" {
		t.Errorf("outcome %q, now %q", r.Outcome, r.CurrentOutcome)
	}
	for _, p := range r.Policies {
		if p.Evidence != "accepted" || p.EvidenceSource == "" || p.EvidenceAt.IsZero() || p.EvidenceAtEnd != "" || p.LogWatch.Until.IsZero() {
			t.Errorf("policy %+v", p)
		}
		if tested := p.Test.Verdict != ""; tested != (p.ID == "global") {
			t.Errorf("policy %s: test %+v", p.ID, p.Test)
		}
	}
	if len(r.Mailboxes) != 1 || r.Mailboxes[0].Policy != "exo-na" || r.Mailboxes[0].Mailbox != "vip@contoso.com" || r.Mailboxes[0].Before == "" || r.Mailboxes[0].Until.IsZero() {
		t.Errorf("mailboxes %+v", r.Mailboxes)
	}
	found, err := h.st.Roll(t.Context(), r.ID)
	must(t, err)
	_, err = h.st.Transition(t.Context(), found, roll.EvidenceSeen{Policy: "exo-na", Evidence: roll.InUse, Source: "the log"})
	must(t, err)
	r = answer[api.Roll](t, h.as("aud", "GET", rollPath(r.ID), nil), 200)
	for _, p := range r.Policies {
		if p.ID == "exo-na" && (p.Evidence != "in_use" || p.EvidenceAtEnd != "accepted" || p.EvidenceSource != "the log") {
			t.Errorf("policy %+v", p)
		}
	}
	if r.Outcome != "accepted" || r.CurrentOutcome != "" {
		t.Errorf("outcome %q, now %q: the weakest is still accepted", r.Outcome, r.CurrentOutcome)
	}
}
