package store_test

import (
	"cmp"
	"slices"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/keyroll/keyroll/internal/roll"
)

func sorted(edges []roll.Edge) []roll.Edge {
	slices.SortFunc(edges, func(a, b roll.Edge) int { return cmp.Or(cmp.Compare(a.From, b.From), cmp.Compare(a.To, b.To)) })
	return edges
}

// The tables of legal changes are the program's own.
func TestEdgesAreTheProgramsOwn(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	for table, want := range map[string][]roll.Edge{"roll_edges": roll.Edges(), "step_edges": roll.StepEdges()} {
		rows, err := b.root.Query(t.Context(), `SELECT from_state, to_state FROM `+table)
		must(t, err)
		var got []roll.Edge
		for rows.Next() {
			var e roll.Edge
			must(t, rows.Scan(&e.From, &e.To))
			got = append(got, e)
		}
		must(t, rows.Err())
		if d := gocmp.Diff(sorted(want), sorted(got)); d != "" {
			t.Errorf("%s (-program +database):\n%s", table, d)
		}
	}
}

// Raw SQL, with the service's own rights, over every pair of states.
func TestIllegalChangesAreRefusedBySQL(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	r := b.create(b.declare(inventory("a")), "exo-na")
	// How the row came into a state is not asked here.
	b.exec(`CREATE FUNCTION test_force(what text, st text) RETURNS void LANGUAGE plpgsql AS $$ BEGIN
	  PERFORM set_config('session_replication_role', 'replica', true);
	  IF what = 'roll' THEN UPDATE rolls SET state = st, ended_at = CASE WHEN st IN ('succeeded', 'failed', 'cancelled', 'rejected') THEN now() END, wake_at = NULL, outcome = 'unknown';
	  ELSE UPDATE steps SET state = st; END IF;
	  PERFORM set_config('session_replication_role', 'origin', true);
	END $$`)
	try := func(what, from, to, sql string, legal bool) {
		t.Helper()
		tx, err := b.root.Begin(t.Context())
		must(t, err)
		defer func() { _ = tx.Rollback(t.Context()) }()
		_, err = tx.Exec(t.Context(), `SELECT test_force($1, $2)`, what, from)
		must(t, err)
		_, err = tx.Exec(t.Context(), `SET LOCAL ROLE keyroll_app`)
		must(t, err)
		_, err = tx.Exec(t.Context(), sql, to)
		switch {
		case legal && err != nil:
			t.Errorf("%s %s → %s is legal and was refused: %v", what, from, to, err)
		case !legal && err == nil:
			t.Errorf("%s %s → %s is illegal and went through", what, from, to)
		case !legal && sqlState(err) != "KR422" && sqlState(err) != "23514":
			t.Errorf("%s %s → %s: %v", what, from, to, err)
		}
	}
	rollStates := []string{"", "unheard_of"}
	for _, s := range roll.States() {
		rollStates = append(rollStates, string(s))
	}
	for _, from := range rollStates[2:] {
		for _, to := range rollStates {
			legal := from == to || slices.Contains(roll.Edges(), roll.Edge{From: from, To: to})
			try("roll", from, to, `UPDATE rolls SET state = $1, ended_at = CASE WHEN $1 IN ('succeeded', 'failed', 'cancelled', 'rejected') THEN now() END`, legal)
		}
	}
	stepStates := []string{"", "unheard_of"}
	for _, s := range roll.StepStates() {
		stepStates = append(stepStates, string(s))
	}
	for _, from := range stepStates[2:] {
		for _, to := range stepStates {
			legal := from == to || slices.Contains(roll.StepEdges(), roll.Edge{From: from, To: to})
			try("step", from, to, `UPDATE steps SET state = $1`, legal)
		}
	}
	for what, sql := range map[string]string{
		"an epoch that goes back":       `UPDATE steps SET epoch = epoch - 1 WHERE n = 1 AND roll_id = '` + r.ID + `'`,
		"a step kind nobody knows":      `UPDATE steps SET kind = 'delete_key'`,
		"an intent without operation":   `UPDATE steps SET intent_settled = false`,
		"an end without its time":       `UPDATE rolls SET state = 'cancelled'`,
		"a time of an end without it":   `UPDATE rolls SET ended_at = now(), wake_at = NULL`,
		"a wake-up of what has ended":   `UPDATE rolls SET state = 'cancelled', ended_at = now(), wake_at = now()`,
		"success without an outcome":    `UPDATE rolls SET state = 'succeeded', ended_at = now(), wake_at = NULL, outcome = ''`,
		"a version of nought":           `UPDATE rolls SET version = 0`,
		"a holder without its time":     `UPDATE sharepoint_leases SET holder = '` + r.ID + `'`,
		"an approval of one's own roll": `INSERT INTO approvals (roll_id, round, approver, requester, plan_hash, at) VALUES ('` + r.ID + `', 1, 'x', 'x', 'h', now())`,
	} {
		b.exec(`UPDATE steps SET epoch = 5`)
		if _, err := b.pool.Exec(t.Context(), sql); sqlState(err) != "23514" && sqlState(err) != "KR422" {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// A roll of one tenant can hold nothing of another's.
func TestTenantsAreKeptApartBySQL(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	r := b.create(b.declare(inventory("a")), "exo-na")
	other := b.declare(inventory("b"))
	for _, sql := range []string{
		`UPDATE sharepoint_leases SET holder = $1, held_since = now() WHERE tenant_id = $2`,
		`INSERT INTO sharepoint_queue (roll_id, tenant_id, scope, queued_at) VALUES ($1, $2, 'tenant', now())`,
		`INSERT INTO roll_keys (roll_id, tenant_id, key_id, vault_host, key_name, open) VALUES ($1, $2, 'k', 'h', 'n', true)`,
		`INSERT INTO roll_policies (roll_id, tenant_id, policy_id, workload, open) VALUES ($1, $2, 'p', 'exchange', true)`,
		`UPDATE key_versions SET roll_id = $1 WHERE tenant_id = $2`,
	} {
		if _, err := b.pool.Exec(t.Context(), sql, r.ID, other.TenantID); sqlState(err) != "23503" {
			t.Errorf("%s: %v", sql, err)
		}
	}
}

// By grant as the service's role, by trigger as anybody, whatever his session skips.
func TestAppendOnly(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.create(b.declare(inventory("a")), "exo-na")
	const denied, trigger = "42501", "KR403"
	cases := []struct{ sql, app, root string }{
		{`UPDATE audit_entries SET version = version`, denied, trigger},
		{`UPDATE audit_entries SET bytes = ''`, denied, trigger},
		{`DELETE FROM audit_entries`, denied, trigger},
		{`TRUNCATE audit_entries CASCADE`, denied, trigger},
		{`DELETE FROM key_versions`, denied, trigger},
		{`TRUNCATE key_versions`, denied, trigger},
		{`UPDATE key_versions SET version = 'x'`, trigger, trigger},
		{`UPDATE key_versions SET policies = '{}'`, trigger, trigger},
		{`UPDATE audit_leaves SET entry_id = 1`, denied, ""},
		{`DELETE FROM rolls`, denied, ""},
		{`DELETE FROM steps`, denied, ""},
		{`DELETE FROM tenants`, denied, ""},
		{`DELETE FROM root_keys`, denied, ""},
		{`DELETE FROM sharepoint_leases`, denied, ""},
		{`DELETE FROM api_tokens`, denied, ""},
		{`DELETE FROM approvals`, denied, ""},
		{`UPDATE approvals SET approver = 'x'`, denied, ""},
		{`INSERT INTO roll_edges VALUES ('succeeded', 'running')`, denied, ""},
		{`DELETE FROM step_edges`, denied, ""},
		{`UPDATE goose_db_version SET is_applied = false`, denied, ""},
		{`ALTER TABLE audit_entries DISABLE TRIGGER ALL`, denied, ""},
		{`DROP TABLE audit_entries`, denied, ""},
	}
	for _, c := range cases {
		if _, err := b.pool.Exec(t.Context(), c.sql); sqlState(err) != c.app {
			t.Errorf("as the service: %s: %v", c.sql, err)
		}
		if c.root == "" {
			continue
		}
		for _, mode := range []string{"origin", "replica"} {
			tx, err := b.root.Begin(t.Context())
			must(t, err)
			_, err = tx.Exec(t.Context(), `SET LOCAL session_replication_role = `+mode)
			must(t, err)
			if _, err := tx.Exec(t.Context(), c.sql); sqlState(err) != c.root || !strings.Contains(err.Error(), "refused") && !strings.Contains(err.Error(), "keeps") {
				t.Errorf("as the owner (%s): %s: %v", mode, c.sql, err)
			}
			must(t, tx.Rollback(t.Context()))
		}
	}
	b.verified()
}
