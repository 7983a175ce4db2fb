package jobs_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/keyroll/keyroll/internal/jobs"
	"github.com/keyroll/keyroll/internal/roll"
	"github.com/keyroll/keyroll/internal/sim"
	"github.com/keyroll/keyroll/internal/store"
)

func (h *house) row(version string) store.LedgerRow {
	h.t.Helper()
	rows, err := h.st.Ledger(h.t.Context(), h.inv.TenantID, store.LedgerPage{Limit: 100})
	must(h.t, err)
	i := slices.IndexFunc(rows, func(r store.LedgerRow) bool { return r.Version == version })
	if i < 0 {
		h.t.Fatalf("version %s is not in the ledger", version)
	}
	return rows[i]
}

// patient is watchful, and gives a call of a roll all the time that a test takes.
func patient() jobs.Config {
	cfg := watchful()
	cfg.CallKeyVault = 2 * time.Minute
	return cfg
}

// TestVersionBeforeItsRollRecordsIt: the vault has made the roll's version and
// its answer is held; the ledger finds it first, by its tag, and takes it for
// what it is. A copy of the tag on a later version does not make that one ours.
func TestVersionBeforeItsRollRecordsIt(t *testing.T) {
	t.Parallel()
	const vault, name = "contoso-exo-a", "Contoso-EXO-A-Key001"
	h := newHouse(t)
	h.declare()
	r := h.requestKey("exo-a")
	held := h.fault(sim.Fault{Service: "keyvault", Operation: sim.OpCreateKey, Vault: vault, Mode: sim.ModeHoldAfter, Count: 1})
	h.work(patient())
	h.approve(r.ID)
	h.fired(held)
	all := h.sim.World.KeyVersions(vault, name)
	ours := all[len(all)-1].Version
	h.looks(2)
	if row := h.row(ours); row.Origin != store.OriginRoll || row.RollID != r.ID || row.State != roll.VersionEnabled {
		t.Errorf("the roll's version is in the ledger as %+v", row)
	}
	if n := h.outgoing("ledger.version_found"); n != 0 {
		t.Errorf("the roll's version was told of %d times", n)
	}
	h.sim.World.Advance(time.Minute)
	copied, err := h.sim.World.StrangerVersion(vault, name, map[string]string{roll.OperationTag: h.openIntent(r.ID).OpID})
	must(t, err)
	h.eventually("the copy told of", func() bool { return h.outgoing("ledger.version_found") == 1 })
	if row := h.row(copied); row.Origin != store.OriginStranger || row.RollID != "" {
		t.Errorf("the copy is in the ledger as %+v", row)
	}
	must(t, h.sim.World.ReleaseFault(held))
	if r = h.halted(r.ID); r.Attention.Code != roll.CodeStranger {
		t.Errorf("attention %+v\n%s", r.Attention, show(r))
	}
	if row := h.row(ours); row.Origin != store.OriginRoll || row.RollID != r.ID {
		t.Errorf("after the answer the roll's version is %+v", row)
	}
	h.looks(1)
	if n := h.outgoing("ledger.version_found"); n != 1 {
		t.Errorf("%d versions told of, want 1", n)
	}
}

// TestOwnVersionFoundFirst: the same without the copy ends as every roll does.
func TestOwnVersionFoundFirst(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.declare()
	r := h.requestKey("exo-a")
	held := h.fault(sim.Fault{Service: "keyvault", Operation: sim.OpCreateKey, Vault: "contoso-exo-a", Mode: sim.ModeHoldAfter, Count: 1})
	h.work(patient())
	h.approve(r.ID)
	h.fired(held)
	h.looks(2)
	must(t, h.sim.World.ReleaseFault(held))
	r = h.ended(r.ID)
	h.looks(1)
	if n := h.outgoing("ledger.version_found"); r.State != roll.Succeeded || n != 0 {
		t.Errorf("ended %s, %d strangers\n%s", r.State, n, show(r))
	}
	h.check(r)
}

// TestListingLagIsNoMissingVersion: a version that is recorded, and that the
// vault's list leaves out, is asked for by itself before anything is said.
func TestListingLagIsNoMissingVersion(t *testing.T) {
	t.Parallel()
	const vault, name = "contoso-exo-a", "Contoso-EXO-A-Key001"
	h := newHouse(t)
	h.declare()
	lag := h.fault(sim.Fault{Service: "keyvault", Operation: sim.OpListVersions, Vault: vault, Mode: sim.ModeListingLag, Params: sim.FaultParams{Seconds: 1e8}})
	made, err := h.sim.World.StrangerVersion(vault, name, nil)
	must(t, err)
	obs, err := h.gw.Survey(t.Context(), h.inv)
	must(t, err)
	k, _ := h.inv.KeyByID("exo-a")
	if slices.ContainsFunc(obs.Keys["exo-a"].Versions, func(v roll.KeyVersion) bool { return v.Version == made }) || obs.Keys["exo-a"].Latest.Version != made {
		t.Fatalf("the list does not lag: %+v", obs.Keys["exo-a"])
	}
	o := obs.Keys["exo-a"]
	o.Versions = append(o.Versions, o.Latest)
	obs.Keys["exo-a"] = o
	must(t, h.st.RecordLedger(t.Context(), h.inv, obs, store.OriginStranger))
	h.work(watchful())
	h.looks(3)
	if a := h.attention(); len(a) > 0 || h.state(made) != roll.VersionEnabled {
		t.Errorf("state %s, attention %+v", h.state(made), a)
	}
	must(t, h.sim.World.SetEnabled(vault, name, made, false)) // what the list leaves out is watched all the same
	h.noticed(roll.LedgerVersionDisabled, made)
	must(t, h.sim.World.SetEnabled(vault, name, made, true))
	h.calm("enabled again")
	must(t, h.sim.World.RemoveFault(lag))
	h.looks(2)
	if n := h.outgoing("ledger.violation"); n != 1 {
		t.Errorf("%d violations of key %s, want 1", n, k.Name)
	}
	h.readsOnly()
}

// TestThrottledVaultSparesItsOtherKeys: a 429 of one key puts off all keys of
// its vault, also those that were taken in the same round, and no other vault's.
func TestThrottledVaultSparesItsOtherKeys(t *testing.T) {
	t.Parallel()
	h := newHouse(t, func(s *sim.Seed, inv *roll.Inventory) { wide(s, inv, 8) })
	h.declare()
	crowded := roll.Key{VaultURL: h.inv.Keys[len(h.inv.Keys)-1].VaultURL}
	h.fault(sim.Fault{Service: "keyvault", Operation: sim.OpListVersions, Vault: crowded.VaultName(), Mode: sim.ModeThrottle, Count: 1, Params: sim.FaultParams{RetryAfter: 3600}})
	h.work(watchful())
	h.eventually("the whole vault put off", func() bool {
		var n, off int
		must(t, h.pool.QueryRow(t.Context(), `SELECT count(*), count(*) FILTER (WHERE turn_at > $2) FROM ledger_keys WHERE vault_host = $1`,
			crowded.Ref().Host, h.st.Now().Add(50*time.Minute)).Scan(&n, &off))
		return n == off && n == 5
	})
	var failures, others int
	must(t, h.pool.QueryRow(t.Context(), `SELECT sum(failures) FILTER (WHERE vault_host = $1), count(*) FILTER (WHERE vault_host <> $1 AND turn_at > $2) FROM ledger_keys`,
		crowded.Ref().Host, h.st.Now().Add(50*time.Minute)).Scan(&failures, &others))
	if failures != 1 || others != 0 {
		t.Errorf("%d failures, %d keys of other vaults put off", failures, others)
	}
}

// TestEveryViolationIsNoticedAndEnds: each within one round, with the policy
// that would lose data and what a person does; and over once it is mended.
func TestEveryViolationIsNoticedAndEnds(t *testing.T) {
	t.Parallel()
	const vault, name, policy = "contoso-exo-b", "Contoso-EXO-B-Key001", "exo-na (NA Mailboxes), the mailboxes"
	key := strings.ToLower(name)
	level := func(l string) func(*house, string) (func(), error) {
		return func(h *house, _ string) (func(), error) {
			return func() { must(h.t, h.sim.World.SetRecoveryLevel(vault, name, "Recoverable+ProtectedSubscription")) }, h.sim.World.SetRecoveryLevel(vault, name, l)
		}
	}
	expires := func(in time.Duration) func(*house, string) (func(), error) {
		return func(h *house, old string) (func(), error) {
			never := time.Date(9999, 12, 31, 0, 0, 0, 0, time.UTC)
			return func() { must(h.t, h.sim.World.SetExpires(vault, name, old, &never)) }, h.sim.World.SetExpires(vault, name, old, new(h.st.Now().Add(in)))
		}
	}
	for code, c := range map[string]struct {
		do     func(h *house, old string) (mend func(), err error)
		level  string
		about  string // "" the key, else the old version
		state  string
		remedy string
	}{
		roll.LedgerVersionExpired: {expires(-time.Hour), "error", "version", roll.VersionExpired, "-Expires ([datetime]'9999-12-31T00:00:00Z')"},
		roll.LedgerExpiresSoon:    {expires(30 * 24 * time.Hour), "error", "version", roll.VersionEnabled, "-Expires ([datetime]'9999-12-31T00:00:00Z')"},
		roll.LedgerExpires:        {expires(500 * 24 * time.Hour), "warning", "version", roll.VersionEnabled, "-Expires ([datetime]'9999-12-31T00:00:00Z')"},
		roll.LedgerVersionMissing: {func(h *house, _ string) (func(), error) { return h.sim.World.Recreate(vault, name) }, "error", "version", roll.VersionMissing, "purged and restored"},
		roll.LedgerPurgeable:      {level("Recoverable+Purgeable"), "error", "", roll.VersionEnabled, "-EnablePurgeProtection"},
		roll.LedgerWeakened:       {level("Recoverable"), "error", "", roll.VersionEnabled, "find out who changed the protection"},
		roll.LedgerRotationExpiry: {func(h *house, _ string) (func(), error) {
			return func() { must(h.t, h.sim.World.SetRotationPolicy(vault, name, nil)) },
				h.sim.World.SetRotationPolicy(vault, name, &sim.RotationPolicy{ExpiryTime: "P2Y"})
		}, "warning", "", roll.VersionEnabled, "take the expiry time out"},
	} {
		t.Run(code, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t, withOldVersions)
			h.declare()
			h.work(watchful())
			h.looks(1)
			old, about := h.oldVersion(vault, name), key
			if c.about != "" {
				about = old
			}
			mend, err := c.do(h, old)
			must(t, err)
			h.looks(1)
			a := h.noticed(code, about)
			if a.Level != c.level || !strings.Contains(a.Detail, policy) || !strings.Contains(a.Action, c.remedy) || !slices.Equal(a.Policies, []string{"exo-na"}) {
				t.Errorf("attention %+v", a)
			}
			if got := h.state(old); got != c.state {
				t.Errorf("state %s, want %s", got, c.state)
			}
			mend()
			switch code {
			case roll.LedgerVersionMissing:
				// The key that stood in between had a version of its own, and that one is gone now.
				h.eventually("the old versions again", func() bool { return h.state(old) == roll.VersionEnabled })
				h.looks(1)
				for _, a := range h.attention() {
					if strings.HasSuffix(a.Subject, old) {
						t.Errorf("still open: %+v", a)
					}
				}
			default:
				h.calm("mended, and still open")
			}
			if h.outgoing("ledger.violation_cleared") == 0 {
				t.Error("nobody was told of the end")
			}
			h.readsOnly()
		})
	}
}

// TestVaultThatIsGone: the host of a deleted vault says nothing of its keys. No
// state changes, and the words are of the vault: how to find it, how to recover
// it, never to purge it.
func TestVaultThatIsGone(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.declare()
	version := h.sim.World.KeyVersions("contoso-spo-a", "Contoso-SPO-A-Key001")[0].Version
	must(t, h.sim.World.SetVaultDeleted("contoso-spo-a", true))
	h.work(watchful())
	a := h.noticed(roll.LedgerUnverified, "contoso-spo-a-key001")
	if !strings.Contains(a.Detail, "the vault itself may be gone") || !strings.Contains(a.Detail, "spo, SharePoint") ||
		!strings.Contains(a.Action, "Undo-AzKeyVaultRemoval -VaultName 'contoso-spo-a'") || !strings.Contains(a.Action, "Never purge it") {
		t.Errorf("attention %+v", a)
	}
	if got := h.state(version); got != roll.VersionEnabled || len(h.attention()) != 1 {
		t.Errorf("state %s, attention %+v", got, h.attention())
	}
	must(t, h.sim.World.SetVaultDeleted("contoso-spo-a", false))
	h.calm("recovered, and still open")
	h.readsOnly()
}
