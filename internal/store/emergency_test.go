package store_test

import (
	"testing"

	"github.com/keyroll/keyroll/internal/roll"
)

// Whatever the program thinks, the database lets no roll leave
// awaiting_approval without the approvals of its plan: one, or two people's in
// an emergency; and an emergency is made as one, or never.
func TestApprovalsAreCountedBySQL(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	inv := b.declare(inventory("a"))
	r, made := b.fresh(inv, true, "exo-na")
	must(t, b.st.CreateRoll(t.Context(), r, made, nil))
	refused := func(what, sql string, args ...any) {
		t.Helper()
		if _, err := b.pool.Exec(t.Context(), sql, args...); sqlState(err) != "KR422" {
			t.Errorf("%s: %v", what, err)
		}
	}
	const begin = `UPDATE rolls SET state = 'running' WHERE id = $1`
	const approve = `INSERT INTO approvals (roll_id, round, approver, requester, plan_hash, at) VALUES ($1, $2, $3, 'rita', $4, now())`
	emergency := `UPDATE rolls SET data = jsonb_set(data, '{request,emergency}', '{"reason":"x"}') WHERE id = $1`
	refused("begun without an approval", begin, r.ID)
	refused("became an emergency", emergency, r.ID)
	b.exec(approve, r.ID, r.Round, "arno", "sha256:other")
	refused("an approval of another plan", begin, r.ID)
	b.exec(approve, r.ID, r.Round+1, "arno", r.Plan.Hash)
	refused("an approval of another round", begin, r.ID)
	b.exec(approve, r.ID, r.Round, "paula", r.Plan.Hash)
	b.exec(begin, r.ID)

	e, fx := b.fresh(inv, true, "global")
	e.Request.Emergency = &roll.Emergency{Reason: "x"}
	running := e
	running.State = roll.Running
	if err := b.st.CreateRoll(t.Context(), running, fx, nil); sqlState(err) != "KR422" {
		t.Errorf("an emergency began without approvals: %v", err)
	}
	if err := b.st.CreateRoll(t.Context(), e, fx, nil); err != nil {
		t.Fatal(err)
	}
	e = b.apply(b.read(e.ID), roll.Approve{By: arno, PlanHash: e.Plan.Hash})
	if e.State != roll.AwaitingApproval {
		t.Fatalf("%s after one approval", e.State)
	}
	refused("an emergency with one approval", begin, e.ID)
	refused("ceased to be an emergency", `UPDATE rolls SET data = data #- '{request,emergency}' WHERE id = $1`, e.ID)
	if e = b.apply(e, roll.Approve{By: roll.Actor{Subject: "paula", Kind: roll.Person}, PlanHash: e.Plan.Hash}); e.State != roll.Running {
		t.Errorf("%s after two approvals", e.State)
	}
}
