package jobs_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/keyroll/keyroll/internal/roll"
)

func show(r roll.Roll) string {
	var b strings.Builder
	fmt.Fprintf(&b, "roll %s version %d state %s outcome %s attention %+v wake %v\n", r.ID, r.Version, r.State, r.Outcome, r.Attention, r.WakeAt)
	for _, s := range r.Steps {
		fmt.Fprintf(&b, "  %2d %-20s %-8s %-16s epoch %d attempt %d waiting %s seen %s next %v intent %v err %+v result %+v\n", s.N, s.Kind, s.Policy+s.Key, s.State, s.Epoch, s.Attempt,
			s.WaitingFor, s.Seen, s.NextAttemptAt, s.IntentOpen, s.Error, s.Result)
	}
	return b.String()
}

// check holds a roll that ended against the witness log and the audit log.
func (h *house) check(r roll.Roll) {
	h.t.Helper()
	for _, k := range r.Keys {
		vault := roll.Key{VaultURL: k.VaultURL, Name: k.Name}.VaultName()
		if got := h.sim.World.VersionsCreated(vault, k.Name); got != 1 {
			h.t.Errorf("key %s: the vault saw %d versions created, want 1", k.ID, got)
		}
	}
	if n := h.sim.World.Overlaps(h.inv.TenantID); n != 0 {
		h.t.Errorf("%d SharePoint operations overlapped", n)
	}
	if v := h.sim.World.Violations(); len(v) > 0 {
		h.t.Errorf("violations: %+v", v)
	}
	report, err := h.st.VerifyAudit(h.t.Context(), nil)
	must(h.t, err)
	if !report.OK() {
		h.t.Errorf("the audit log does not verify: %v", report.Problems)
	}
}

func TestRollOfAllWorkloads(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.declare()
	h.work(quick())
	r := h.request("global", "exo-na", "spo")
	h.approve(r.ID)
	r = h.ended(r.ID)
	if r.State != roll.Succeeded || r.Outcome != roll.Accepted {
		t.Errorf("ended %s, outcome %s; want succeeded, accepted\n%s", r.State, r.Outcome, show(r))
	}
	h.check(r)
	for _, want := range []struct {
		policy string
		e      roll.Evidence
	}{{"global", roll.Accepted}, {"exo-na", roll.Accepted}, {"spo", roll.Confirmed}} {
		if e, _ := r.PolicyEvidence(want.policy); e != want.e {
			t.Errorf("policy %s has evidence %s, want %s", want.policy, e, want.e)
		}
	}
	if len(r.LeftBehind) > 0 {
		t.Errorf("left behind: %v", r.LeftBehind)
	}
}
