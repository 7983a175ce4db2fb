package store_test

import (
	"testing"
	"time"

	"github.com/keyroll/keyroll/internal/roll"
	"github.com/keyroll/keyroll/internal/store"
)

// Raw SQL with the service's own rights: whatever the program thinks, nobody
// confirms his own change, and none ends twice or asks for something else later.
func TestChangesAreGuardedBySQL(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	inv := b.declare(inventory("a"))
	weakens := []roll.Weakening{{Pointer: "/approval", What: "x", From: "required", To: "not_required"}}
	by := roll.Actor{Subject: "ada", Kind: roll.Person}
	c, err := b.st.ProposeChange(t.Context(), inv, 1, weakens, by, time.Hour)
	must(t, err)
	refuse := func(what, sql, state string) {
		t.Helper()
		if _, err := b.pool.Exec(t.Context(), sql, c.ID); sqlState(err) != state {
			t.Errorf("%s: %v", what, err)
		}
	}
	refuse("confirmed by who asked", `UPDATE tenant_changes SET state = 'approved', decided_by = 'ada', decided_at = now() WHERE id = $1`, "23514")
	refuse("confirmed by nobody", `UPDATE tenant_changes SET state = 'approved', decided_at = now() WHERE id = $1`, "23514")
	refuse("asking for something else", `UPDATE tenant_changes SET declaration = '{}' WHERE id = $1`, "KR403")
	refuse("asked for by somebody else", `UPDATE tenant_changes SET requested_by = 'x' WHERE id = $1`, "KR403")
	refuse("removed", `DELETE FROM tenant_changes WHERE id = $1`, "42501")
	done, err := b.st.EndChange(t.Context(), c, store.ChangeRejected, by, "no")
	must(t, err)
	refuse("ended twice", `UPDATE tenant_changes SET state = 'expired' WHERE id = $1`, "KR403")
	if _, err := b.st.EndChange(t.Context(), c, store.ChangeApproved, roll.Actor{Subject: "bea", Kind: roll.Person}, ""); err != store.ErrStale {
		t.Errorf("ended twice by the store: %v", err)
	}
	if done.Version != 2 || done.State != store.ChangeRejected {
		t.Errorf("it is %+v", done)
	}
}
