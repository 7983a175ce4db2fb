package jobs_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/keyroll/keyroll/internal/jobs"
	"github.com/keyroll/keyroll/internal/roll"
	"github.com/keyroll/keyroll/internal/sim"
	"github.com/keyroll/keyroll/internal/store"
)

// watchful is a configuration whose rounds of the ledger follow each other at once.
func watchful() jobs.Config {
	cfg := quick()
	cfg.Ledger, cfg.LedgerRate, cfg.LedgerPause = 150*time.Millisecond, 500, time.Millisecond
	return cfg
}

// eventually waits for cond, half a minute at most.
func (h *house) eventually(what string, cond func() bool) {
	h.t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for limit := time.After(30 * time.Second); !cond(); {
		select {
		case <-tick.C:
		case <-limit:
			h.t.Fatalf("never: %s\n%+v", what, h.attention())
		}
	}
}

func (h *house) attention() []store.Attention {
	h.t.Helper()
	all, err := h.st.Attentions(h.t.Context(), h.inv.TenantID)
	must(h.t, err)
	return all[h.inv.TenantID]
}

// noticed waits until the tenant's attention has the code for the subject's end.
func (h *house) noticed(code, end string) store.Attention {
	h.t.Helper()
	var out store.Attention
	h.eventually(code+" of "+end, func() bool {
		for _, a := range h.attention() {
			if a.Code == code && strings.HasSuffix(a.Subject, end) {
				out = a
				return true
			}
		}
		return false
	})
	return out
}

func (h *house) calm(why string) {
	h.t.Helper()
	h.eventually(why, func() bool { return len(h.attention()) == 0 })
}

// outgoing counts the events of a type in the outbox.
func (h *house) outgoing(kind string) int {
	h.t.Helper()
	var n int
	must(h.t, h.pool.QueryRow(h.t.Context(), `SELECT count(*) FROM events WHERE type = $1`, kind).Scan(&n))
	return n
}

// looks waits until every key of the ledger has been looked at n times more.
func (h *house) looks(n int) {
	h.t.Helper()
	for range n {
		now := h.st.Now()
		h.eventually("a whole round", func() bool {
			var left int
			must(h.t, h.pool.QueryRow(h.t.Context(), `SELECT count(*) FROM ledger_keys WHERE checked_at <= $1`, now).Scan(&left))
			return left == 0
		})
	}
}

func (h *house) oldVersion(vault, name string) string {
	h.t.Helper()
	all := h.sim.World.KeyVersions(vault, name)
	if len(all) < 2 {
		h.t.Fatalf("key %s has %d versions; the test wants an old one", name, len(all))
	}
	return all[0].Version
}

func (h *house) state(version string) string {
	h.t.Helper()
	rows, err := h.st.Ledger(h.t.Context(), h.inv.TenantID, store.LedgerPage{Limit: 100})
	must(h.t, err)
	for _, r := range rows {
		if r.Version == version {
			return r.State
		}
	}
	return "not in the ledger"
}

// readsOnly holds the world against rule 1: the watch has sent nothing but reads.
func (h *house) readsOnly() {
	h.t.Helper()
	for _, e := range h.sim.World.Witness() {
		if e.By == "api" {
			h.t.Errorf("the watch changed something at Microsoft: %+v", e)
		}
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

// withOldVersions gives every key of Contoso a version before its own.
func withOldVersions(s *sim.Seed, _ *roll.Inventory) {
	for i := range s.Tenants[0].Vaults {
		for j := range s.Tenants[0].Vaults[i].Keys {
			k := &s.Tenants[0].Vaults[i].Keys[j]
			old := k.Versions[0]
			old.Version = strings.Repeat("0", 30) + strings.Repeat(string("abcdef"[i%6]), 2)
			old.Created = old.Created.AddDate(-1, 0, 0)
			k.Versions = append([]sim.KeyVersion{old}, k.Versions...)
		}
	}
}

// TestDisabledOldVersionIsNoticed: whatever policy it belonged to, within one
// round, with the policy that would lose data and the way back; and it is over
// when a person has mended it, and not before.
func TestDisabledOldVersionIsNoticed(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ key, vault, name, policy string }{
		{"spo-a", "contoso-spo-a", "Contoso-SPO-A-Key001", "spo, SharePoint, OneDrive and Teams files of the geo"},
		{"exo-b", "contoso-exo-b", "Contoso-EXO-B-Key001", "exo-na (NA Mailboxes), the mailboxes"},
		{"m-a", "contoso-m365-a", "Contoso-M365-A-Key001", "global (Contoso_Global), data of all users"},
	} {
		t.Run(c.key, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t, withOldVersions)
			h.declare()
			h.work(watchful())
			h.looks(1)
			if a := h.attention(); len(a) > 0 {
				t.Fatalf("an untouched tenant needs attention: %+v", a)
			}
			old := h.oldVersion(c.vault, c.name)
			must(t, h.sim.World.SetEnabled(c.vault, c.name, old, false))
			h.looks(1)
			a := h.noticed(roll.LedgerVersionDisabled, old)
			if a.Level != "error" || !strings.Contains(a.Detail, c.policy) ||
				!strings.Contains(a.Action, "Update-AzKeyVaultKey -VaultName '"+c.vault+"' -Name '"+c.name+"' -Version '"+old+"' -Enable $true") {
				t.Errorf("attention %+v", a)
			}
			if got := h.state(old); got != roll.VersionDisabled {
				t.Errorf("state %s", got)
			}
			if got := scrape(t, jobs.NewEstate(h.st, roll.DefaultBounds()), "keyroll_ledger_violations"); !slices.Contains(got, "code=version_disabled") {
				t.Errorf("metric: %v", got)
			}
			st, err := h.st.LedgerStats(t.Context())
			must(t, err)
			if st.Violations[roll.LedgerVersionDisabled] != 1 || st.Unwell[roll.VersionDisabled] != 1 {
				t.Errorf("figures %+v", st)
			}
			h.looks(3)
			if n := h.outgoing("ledger.violation"); n != 1 {
				t.Errorf("%d events, want 1", n)
			}
			must(t, h.sim.World.SetEnabled(c.vault, c.name, old, true))
			h.calm("re-enabled, and still open")
			if got := h.state(old); got != roll.VersionEnabled || h.outgoing("ledger.violation_cleared") != 1 {
				t.Errorf("state %s after it was mended", got)
			}
			h.readsOnly()
		})
	}
}

// TestSoftDeletedKeyIsNoticed: all its versions, the recovery, and until when;
// and where deleted keys may not be read, that is said instead.
func TestSoftDeletedKeyIsNoticed(t *testing.T) {
	t.Parallel()
	h := newHouse(t, withOldVersions)
	h.declare()
	h.work(watchful())
	must(t, h.sim.World.SetEnabled("contoso-spo-b", "Contoso-SPO-B-Key001", h.oldVersion("contoso-spo-b", "Contoso-SPO-B-Key001"), false))
	h.noticed(roll.LedgerVersionDisabled, h.oldVersion("contoso-spo-b", "Contoso-SPO-B-Key001"))
	must(t, h.sim.World.SetSoftDeleted("contoso-spo-b", "Contoso-SPO-B-Key001", true))
	a := h.noticed(roll.LedgerKeySoftDeleted, "contoso-spo-b-key001")
	if !strings.Contains(a.Detail, "spo, SharePoint") || !strings.Contains(a.Detail, "3 versions") || !strings.Contains(a.Detail, "destroys it for good on") ||
		!strings.Contains(a.Action, "Undo-AzKeyVaultKeyRemoval -VaultName 'contoso-spo-b' -Name 'Contoso-SPO-B-Key001'") || !slices.Equal(a.Policies, []string{"spo"}) {
		t.Errorf("attention %+v", a)
	}
	if got := h.state(h.oldVersion("contoso-spo-b", "Contoso-SPO-B-Key001")); got != roll.VersionSoftDeleted {
		t.Errorf("state %s", got)
	}
	// A deleted key shows nothing of its versions: the disabled one is no better for it.
	h.looks(1)
	h.noticed(roll.LedgerVersionDisabled, h.oldVersion("contoso-spo-b", "Contoso-SPO-B-Key001"))
	must(t, h.sim.World.SetSoftDeleted("contoso-spo-b", "Contoso-SPO-B-Key001", false))
	must(t, h.sim.World.SetEnabled("contoso-spo-b", "Contoso-SPO-B-Key001", "", true))
	h.calm("recovered and enabled, and still open")
	h.readsOnly()
}

// TestLedgerOutlivesTheDeclaration: a key that was taken out of the
// declaration, and the keys of a retired tenant, are watched on (rule 12).
func TestLedgerOutlivesTheDeclaration(t *testing.T) {
	t.Parallel()
	h := newHouse(t, withOldVersions)
	h.declare()
	tn, err := h.st.Tenant(t.Context(), h.inv.TenantID)
	must(t, err)
	less := tn.Inventory
	less.Keys = slices.DeleteFunc(slices.Clone(less.Keys), func(k roll.Key) bool { return strings.HasPrefix(k.ID, "exo-") })
	less.Policies = slices.DeleteFunc(slices.Clone(less.Policies), func(p roll.Policy) bool { return p.ID == "exo-na" })
	_, err = h.ctl.Declare(t.Context(), admin(), less, tn.Version)
	must(t, err)
	h.work(watchful())
	former := h.oldVersion("contoso-exo-a", "Contoso-EXO-A-Key001")
	must(t, h.sim.World.SetEnabled("contoso-exo-a", "Contoso-EXO-A-Key001", former, false))
	if a := h.noticed(roll.LedgerVersionDisabled, former); !strings.Contains(a.Detail, "exo-na (NA Mailboxes)") {
		t.Errorf("the policy that left the declaration is not named: %+v", a)
	}
	_, err = h.ctl.Retire(t.Context(), admin(), h.inv.TenantID, "sold")
	must(t, err)
	must(t, h.sim.World.SetSoftDeleted("contoso-m365-a", "Contoso-M365-A-Key001", true))
	if a := h.noticed(roll.LedgerKeySoftDeleted, "contoso-m365-a-key001"); !strings.Contains(a.Detail, "global (Contoso_Global)") {
		t.Errorf("attention %+v", a)
	}
	st, err := h.st.LedgerStats(t.Context())
	must(t, err)
	if st.OldestActive != nil || st.OldestRetired == nil {
		t.Errorf("a retired tenant's keys count as active: %+v", st)
	}
	h.readsOnly()
}

// TestStrangersAndRotationAreNoticed: versions made outside enter the ledger
// and are told of once; a rotation policy is seen when it appears and when it goes.
func TestStrangersAndRotationAreNoticed(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.declare()
	h.work(watchful())
	h.looks(1)
	made, err := h.sim.World.StrangerVersion("contoso-exo-a", "Contoso-EXO-A-Key001", nil)
	must(t, err)
	h.eventually("the stranger in the ledger", func() bool { return h.state(made) == roll.VersionEnabled })
	must(t, h.sim.World.SetRotationPolicy("contoso-spo-a", "Contoso-SPO-A-Key001", &sim.RotationPolicy{ExpiryTime: "P2Y", Actions: []sim.RotationAction{{Action: "Rotate", TimeAfterCreate: "P1Y"}}}))
	if a := h.noticed(roll.LedgerRotationExpiry, "contoso-spo-a-key001"); a.Level != "error" || !strings.Contains(a.Detail, "P2Y") {
		t.Errorf("attention %+v", a)
	}
	must(t, h.sim.World.SetRotationPolicy("contoso-spo-a", "Contoso-SPO-A-Key001", &sim.RotationPolicy{Actions: []sim.RotationAction{{Action: "Rotate", TimeAfterCreate: "P1Y"}}}))
	if a := h.noticed(roll.LedgerRotates, "contoso-spo-a-key001"); a.Level != "warning" {
		t.Errorf("attention %+v", a)
	}
	must(t, h.sim.World.SetRotationPolicy("contoso-spo-a", "Contoso-SPO-A-Key001", nil))
	h.calm("no rotation policy any more, and still open")
	h.looks(2)
	if n := h.outgoing("ledger.version_found"); n != 1 {
		t.Errorf("%d events of a found version, want 1", n)
	}
	if n := h.outgoing("ledger.rotation_policy_changed"); n != 3 {
		t.Errorf("%d events of a changed rotation policy, want 3", n)
	}
	h.readsOnly()
}

// TestStrangerThatAPreflightSawFirst: a version made outside is told of also
// where a roll's preflight has entered it into the ledger already.
func TestStrangerThatAPreflightSawFirst(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.declare()
	made, err := h.sim.World.StrangerVersion("contoso-exo-a", "Contoso-EXO-A-Key001", nil)
	must(t, err)
	obs, err := h.gw.Survey(t.Context(), h.inv)
	must(t, err)
	must(t, h.st.RecordLedger(t.Context(), h.inv, obs, store.OriginStranger))
	if got := h.state(made); got != roll.VersionEnabled {
		t.Fatalf("state %s", got)
	}
	h.work(watchful())
	h.eventually("told of", func() bool { return h.outgoing("ledger.version_found") == 1 })
	h.looks(2)
	if n := h.outgoing("ledger.version_found"); n != 1 {
		t.Errorf("told of %d times", n)
	}
	h.readsOnly()
}

// TestRollsOwnVersionsAreNoStrangers: rolls make versions while the ledger is
// watched all the time, and none of them is taken for somebody else's.
func TestRollsOwnVersionsAreNoStrangers(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.declare()
	h.work(watchful())
	r := h.request("global", "exo-na", "spo")
	h.approve(r.ID)
	r = h.ended(r.ID)
	h.looks(2)
	if n := h.outgoing("ledger.version_found"); n != 0 {
		t.Errorf("%d of the roll's versions were taken for strangers", n)
	}
	if a := h.attention(); len(a) > 0 {
		t.Errorf("attention %+v", a)
	}
	h.check(r)
}

// TestUnreadIsNoViolation: a vault that cannot be read changes no state, and
// says since when nothing is known.
func TestUnreadIsNoViolation(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.declare()
	version := h.sim.World.KeyVersions("contoso-spo-a", "Contoso-SPO-A-Key001")[0].Version
	must(t, h.sim.World.SetPermission(sim.Permission{Tenant: sim.ContosoTenant, KeyVault: map[string]bool{"contoso-spo-a": false}}))
	h.work(watchful())
	a := h.noticed(roll.LedgerUnverified, "contoso-spo-a-key001")
	if a.Level != "warning" || !strings.Contains(a.Detail, "not known") || !strings.Contains(a.Action, "grant") {
		t.Errorf("attention %+v", a)
	}
	if got := h.state(version); got != roll.VersionEnabled {
		t.Errorf("an unread version is %s", got)
	}
	if len(h.attention()) != 1 {
		t.Errorf("attention %+v", h.attention())
	}
	must(t, h.sim.World.SetPermission(sim.Permission{Tenant: sim.ContosoTenant, KeyVault: map[string]bool{"contoso-spo-a": true}}))
	h.calm("readable again, and still open")
	h.readsOnly()
}

// TestThrottledVaultIsLeftAlone: a 429 with its time to wait holds for all
// keys of the vault and for every process, and changes no state.
func TestThrottledVaultIsLeftAlone(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.declare()
	_, err := h.sim.World.AddFault(sim.Fault{Service: "keyvault", Operation: sim.OpListVersions, Vault: "contoso-exo-b", Mode: sim.ModeThrottle, Count: 1,
		Params: sim.FaultParams{RetryAfter: 3600}})
	must(t, err)
	h.work(watchful())
	h.work(watchful())
	turn := func() (at time.Time, failures int) {
		must(t, h.pool.QueryRow(t.Context(), `SELECT turn_at, failures FROM ledger_keys WHERE vault_host = 'contoso-exo-b.vault.azure.net'`).Scan(&at, &failures))
		return
	}
	h.eventually("put off", func() bool { at, _ := turn(); return at.Sub(h.st.Now()) > 50*time.Minute })
	if _, failures := turn(); failures != 1 {
		t.Errorf("%d failures recorded, want 1", failures)
	}
	if len(h.attention()) > 0 {
		t.Errorf("attention %+v", h.attention())
	}
}

// TestProcessesShareTheLedger: several processes, one event; and the versions
// of a violated key are not told of twice.
func TestProcessesShareTheLedger(t *testing.T) {
	t.Parallel()
	h := newHouse(t, withOldVersions)
	h.declare()
	for range 3 {
		h.work(watchful())
	}
	old := h.oldVersion("contoso-exo-a", "Contoso-EXO-A-Key001")
	for i := range 3 {
		must(t, h.sim.World.SetEnabled("contoso-exo-a", "Contoso-EXO-A-Key001", old, false))
		h.noticed(roll.LedgerVersionDisabled, old)
		h.looks(1)
		must(t, h.sim.World.SetEnabled("contoso-exo-a", "Contoso-EXO-A-Key001", old, true))
		h.calm("mended, and still open")
		if n, m := h.outgoing("ledger.violation"), h.outgoing("ledger.violation_cleared"); n != i+1 || m != i+1 {
			t.Fatalf("%d violations and %d ends told of, want %d each", n, m, i+1)
		}
	}
	h.readsOnly()
}

// TestDueKeysAreFoundByAnIndex: the claim reads no more of the table than it takes.
func TestDueKeysAreFoundByAnIndex(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.declare()
	_, err := h.pool.Exec(t.Context(), `INSERT INTO ledger_keys (tenant_id, vault_host, key, name, turn_at, checked_at)
	  SELECT $1, 'v' || n || '.vault.azure.net', 'k', 'K', now() - random() * interval '1 day', now() FROM generate_series(1, 60000) n`, h.inv.TenantID)
	must(t, err)
	root, err := pgx.Connect(t.Context(), h.url)
	must(t, err)
	defer func() { _ = root.Close(t.Context()) }()
	_, err = root.Exec(t.Context(), `ANALYZE ledger_keys`)
	must(t, err)
	start := time.Now()
	due, err := h.st.DueLedgerKeys(t.Context(), 40, time.Hour, time.Minute)
	must(t, err)
	if len(due) != 40 {
		t.Errorf("%d keys taken, want 40", len(due))
	}
	t.Logf("40 of 60,000 keys taken in %s", time.Since(start))
	var plan string
	rows, err := root.Query(t.Context(), `EXPLAIN UPDATE ledger_keys SET turn_at = now() WHERE (tenant_id, vault_host, key) IN
	  (SELECT tenant_id, vault_host, key FROM ledger_keys WHERE turn_at <= now() - interval '1 hour' ORDER BY turn_at LIMIT 40 FOR UPDATE SKIP LOCKED)`)
	must(t, err)
	lines, err := pgx.CollectRows(rows, pgx.RowTo[string])
	must(t, err)
	if plan = strings.Join(lines, "\n"); strings.Contains(plan, "Seq Scan") || !strings.Contains(plan, "ledger_keys_turn") {
		t.Errorf("the claim scans:\n%s", plan)
	}
}
