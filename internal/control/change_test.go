package control_test

import (
	"errors"
	"testing"
	"time"

	"github.com/keyroll/keyroll/internal/access"
	"github.com/keyroll/keyroll/internal/control"
	"github.com/keyroll/keyroll/internal/roll"
	"github.com/keyroll/keyroll/internal/sim"
	"github.com/keyroll/keyroll/internal/store"
)

func bea() access.Principal { return person("bea", access.Admin) }

// weaker declares what takes a second person, and returns the change that waits.
func weaker(t *testing.T, h *house, inv roll.Inventory, version int64) store.TenantChange {
	t.Helper()
	_, err := h.ctl.Declare(t.Context(), admin(), inv, version)
	var pending *control.ChangePending
	if !errors.As(err, &pending) {
		t.Fatalf("declared with %v", err)
	}
	return pending.Change
}

func unapproved() roll.Inventory {
	inv := contoso()
	inv.Approval = roll.ApprovalNotRequired
	return inv
}

// held says that the tenant is as it was declared, at that version.
func held(t *testing.T, h *house, version int64, approval string) {
	t.Helper()
	got, err := h.st.Tenant(t.Context(), h.inv.TenantID)
	must(t, err)
	if got.Version != version || got.Inventory.Approval != approval {
		t.Errorf("the tenant is at version %d with approval %s, want %d with %s", got.Version, got.Inventory.Approval, version, approval)
	}
}

func audited(t *testing.T, h *house) {
	t.Helper()
	report, err := h.st.VerifyAudit(t.Context(), nil)
	must(t, err)
	if !report.OK() {
		t.Errorf("audit log: %v", report.Problems)
	}
}

// A weakening takes effect when another administrator, a person, confirms the
// very one; until then nothing has changed.
func TestWeakeningTakesTwo(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.declare()
	c := weaker(t, h, unapproved(), 1)
	held(t, h, 1, roll.ApprovalRequired)
	if again := weaker(t, h, unapproved(), 1); again.ID != c.ID {
		t.Errorf("asked for twice, it waits twice: %s and %s", c.ID, again.ID)
	}
	id := h.inv.TenantID
	if _, err := h.ctl.ApproveChange(t.Context(), admin(), id, c.ID, c.Hash, ""); !errors.Is(err, store.ErrSamePerson) {
		t.Errorf("confirmed by who asked for it: %v", err)
	}
	var denied *access.Denied
	robot := bea()
	robot.Kind = access.Service
	for name, p := range map[string]access.Principal{"a service": robot, "an approver": paul()} {
		if _, err := h.ctl.ApproveChange(t.Context(), p, id, c.ID, c.Hash, ""); !errors.As(err, &denied) {
			t.Errorf("confirmed by %s: %v", name, err)
		}
	}
	var bad *roll.InvalidError
	if _, err := h.ctl.ApproveChange(t.Context(), bea(), id, c.ID, "sha256:0", ""); !errors.As(err, &bad) || bad.Pointer != "/hash" {
		t.Errorf("confirmed another change: %v", err)
	}
	if _, err := h.ctl.ApproveChange(t.Context(), bea(), someID, c.ID, c.Hash, ""); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("confirmed in another tenant: %v", err)
	}
	held(t, h, 1, roll.ApprovalRequired)
	out, err := h.ctl.ApproveChange(t.Context(), bea(), id, c.ID, c.Hash, "agreed")
	must(t, err)
	held(t, h, 2, roll.ApprovalNotRequired)
	var ended *control.ChangeEnded
	if _, err := h.ctl.ApproveChange(t.Context(), bea(), id, c.ID, c.Hash, ""); !errors.As(err, &ended) || ended.Change.DecidedBy != bea().Subject || out.Version != 2 {
		t.Errorf("confirmed twice: %v", err)
	}
	_, err = h.ctl.Declare(t.Context(), admin(), contoso(), 2) // strengthening takes one
	must(t, err)
	held(t, h, 3, roll.ApprovalRequired)
	audited(t, h)
}

const someID = "7d3c1f0e-52a4-4c1b-9d0a-0b9f5a8e6c21"

// Whoever asked may take it back, and so may another.
func TestChangeRejected(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.declare()
	for _, p := range []access.Principal{admin(), bea()} {
		c := weaker(t, h, unapproved(), 1)
		out, err := h.ctl.RejectChange(t.Context(), p, h.inv.TenantID, c.ID, "no")
		must(t, err)
		if out.State != store.ChangeRejected || out.DecidedBy != p.Subject || out.Comment != "no" {
			t.Errorf("rejected: %+v", out)
		}
		var ended *control.ChangeEnded
		if _, err := h.ctl.ApproveChange(t.Context(), bea(), h.inv.TenantID, c.ID, c.Hash, ""); !errors.As(err, &ended) {
			t.Errorf("confirmed after it was rejected: %v", err)
		}
	}
	held(t, h, 1, roll.ApprovalRequired)
	audited(t, h)
}

// What was read and agreed to is not what would be replaced any more.
func TestChangeStale(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.declare()
	c := weaker(t, h, unapproved(), 1)
	named := contoso()
	named.Name = "Contoso Ltd"
	_, err := h.ctl.Declare(t.Context(), admin(), named, 1)
	must(t, err)
	var ended *control.ChangeEnded
	if _, err := h.ctl.ApproveChange(t.Context(), bea(), h.inv.TenantID, c.ID, c.Hash, ""); !errors.As(err, &ended) || ended.Change.State != store.ChangeStale {
		t.Errorf("confirmed over another version: %v", err)
	}
	held(t, h, 2, roll.ApprovalRequired)
	audited(t, h)
}

// Of two who decide at once one holds.
func TestChangeDecidedAtOnce(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.declare()
	c := weaker(t, h, unapproved(), 1)
	results := make(chan error)
	go func() {
		_, err := h.ctl.ApproveChange(t.Context(), bea(), h.inv.TenantID, c.ID, c.Hash, "")
		results <- err
	}()
	go func() {
		_, err := h.ctl.RejectChange(t.Context(), person("cleo", access.Admin), h.inv.TenantID, c.ID, "no")
		results <- err
	}()
	held := 0
	for range 2 {
		var ended *control.ChangeEnded
		if err := <-results; err == nil {
			held++
		} else if !errors.As(err, &ended) {
			t.Errorf("decided: %v", err)
		}
	}
	if held != 1 {
		t.Errorf("%d decisions held", held)
	}
	audited(t, h)
}

// A tenant that nobody has declared yet: to let rolls begin without approval,
// or to begin with a veto down, takes two from the first day.
func TestFirstDeclarationOfAWeakTenant(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	c := weaker(t, h, unapproved(), 0)
	if _, err := h.st.Tenant(t.Context(), h.inv.TenantID); !errors.Is(err, store.ErrNotFound) {
		t.Fatalf("it is there already: %v", err)
	}
	out, err := h.ctl.ApproveChange(t.Context(), bea(), h.inv.TenantID, c.ID, c.Hash, "")
	must(t, err)
	if out.Version != 1 || len(versions(t, h)) == 0 {
		t.Errorf("declared at version %d with %d ledger rows", out.Version, len(versions(t, h)))
	}
	audited(t, h)
}

// The credential goes to no host before the second person has seen it.
func TestNewHostIsNotTriedBefore(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	whole := contoso()
	h.inv.Keys, h.inv.Policies = h.inv.Keys[:4], h.inv.Policies[:2]
	h.declare()
	before := asked(h)
	c := weaker(t, h, whole, 1)
	if after := asked(h); before == 0 || after != before {
		t.Errorf("%d requests at Key Vault before, %d more before a second person confirmed", before, after-before)
	}
	must(t, h.sim.World.SetPermission(sim.Permission{Tenant: whole.TenantID, KeyVault: map[string]bool{"contoso-spo-b": false}}))
	var unreadable *control.UnreadableKeys
	if _, err := h.ctl.ApproveChange(t.Context(), bea(), whole.TenantID, c.ID, c.Hash, ""); !errors.As(err, &unreadable) {
		t.Errorf("confirmed with a key that cannot be read: %v", err)
	}
	if now, err := h.st.Change(t.Context(), whole.TenantID, c.ID); err != nil || now.State != store.ChangePending {
		t.Errorf("a confirmation that failed ended it: %+v, %v", now.State, err)
	}
	must(t, h.sim.World.SetPermission(sim.Permission{Tenant: whole.TenantID, KeyVault: map[string]bool{"contoso-spo-b": true}}))
	_, err := h.ctl.ApproveChange(t.Context(), bea(), whole.TenantID, c.ID, c.Hash, "")
	must(t, err)
	held(t, h, 2, roll.ApprovalRequired)
}

// asked counts the requests at all vaults.
func asked(h *house) int {
	n := 0
	for _, of := range h.sim.World.Report().Requests["keyvault"] {
		n += of
	}
	return n
}

// A change waits no longer than it says.
func TestChangeExpires(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.ctl = control.New(h.st, h.gw, control.Config{ApprovalPatience: time.Millisecond})
	h.declare()
	c := weaker(t, h, unapproved(), 1)
	for h.st.Now().Before(c.ExpiresAt.Add(time.Millisecond)) {
		must(t, h.st.Ping(t.Context()))
	}
	var ended *control.ChangeEnded
	if _, err := h.ctl.ApproveChange(t.Context(), bea(), h.inv.TenantID, c.ID, c.Hash, ""); !errors.As(err, &ended) || ended.Change.State != store.ChangeExpired {
		t.Errorf("confirmed too late: %v", err)
	}
	next := weaker(t, h, unapproved(), 1)
	for h.st.Now().Before(next.ExpiresAt.Add(time.Millisecond)) {
		must(t, h.st.Ping(t.Context()))
	}
	if n, err := h.st.ExpireChanges(t.Context()); n != 1 || err != nil {
		t.Errorf("the round ended %d, %v", n, err)
	}
	held(t, h, 1, roll.ApprovalRequired)
	audited(t, h)
}
