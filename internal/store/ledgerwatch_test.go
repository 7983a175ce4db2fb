package store_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/keyroll/keyroll/internal/roll"
	"github.com/keyroll/keyroll/internal/store"
)

// taken is a key of the ledger as a process has it that took its turn.
func (b *bench) taken(name string) store.WatchedKey {
	b.t.Helper()
	due, err := b.st.DueLedgerKeys(b.t.Context(), 100, 0, -time.Minute) // everybody may take it again at once
	must(b.t, err)
	i := slices.IndexFunc(due, func(w store.WatchedKey) bool { return w.Name == name })
	if i < 0 {
		b.t.Fatalf("key %s has no turn", name)
	}
	w, err := b.st.LedgerKey(b.t.Context(), due[i])
	must(b.t, err)
	return w
}

// look is what the vault says of the key at the moment: all is well with it
// but for what change does.
func look(w store.WatchedKey, id string, at time.Time, change func(*roll.LedgerLook)) (roll.LedgerLook, []roll.Violation) {
	l := roll.LedgerLook{At: at, Versions: []roll.KeyVersion{version(id, 1), version(id, 2)}, Rotation: roll.RotationPolicy{Readable: true}}
	if change != nil {
		change(&l)
	}
	return l, roll.CheckLedger(w.Ledger, l)
}

func (b *bench) told(kind string) int {
	b.t.Helper()
	return one[int](b, `SELECT count(*) FROM events WHERE type = $1`, kind)
}

// TestOneTellsOfALook: two processes that took the same key see the same
// things; what changed is told of by the first, and the second is told so.
func TestOneTellsOfALook(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	inv := b.declare(inventory("a"))
	note := func(w store.WatchedKey, l roll.LedgerLook, found []roll.Violation) error {
		_, err := b.st.NoteLook(t.Context(), w, l, found, time.Hour, time.Hour)
		return err
	}
	w := b.taken("Key-exo-a")
	l, found := look(w, "exo-a", b.st.Now(), nil)
	must(t, note(w, l, found))

	first, second := b.taken("Key-exo-a"), b.taken("Key-exo-a")
	changed := func(l *roll.LedgerLook) {
		l.Versions[0].Enabled = false
		l.Versions = append(l.Versions, version("exo-a", 3))
		l.Rotation.AutoRotate = true
	}
	l, found = look(first, "exo-a", b.st.Now(), changed)
	must(t, note(first, l, found))
	l, found = look(second, "exo-a", b.st.Now(), changed)
	wantErr(t, note(second, l, found), store.ErrStale)
	for kind, want := range map[string]int{"ledger.violation": 2, "ledger.version_found": 1, "ledger.rotation_policy_changed": 1} {
		if n := b.told(kind); n != want {
			t.Errorf("%s: told of %d times, want %d", kind, n, want)
		}
	}
	if s := b.ledgerRow(inv, ver("exo-a", 1)).State; s != roll.VersionDisabled {
		t.Errorf("state %s", s)
	}
}

// TestOfTwoLooksTheNewerStands: a look that took long neither opens nor closes
// anything once a newer one is recorded, also where that one changed nothing;
// nor does a failure that began before it.
func TestOfTwoLooksTheNewerStands(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	inv := b.declare(inventory("a"))
	disabled := func(l *roll.LedgerLook) { l.Versions[0].Enabled = false }
	note := func(w store.WatchedKey, at time.Time, change func(*roll.LedgerLook)) error {
		l, found := look(w, "exo-a", at, change)
		_, err := b.st.NoteLook(t.Context(), w, l, found, time.Hour, time.Hour)
		return err
	}
	slow := b.taken("Key-exo-a")
	began := b.st.Now()
	must(t, note(b.taken("Key-exo-a"), began.Add(time.Second), nil))
	wantErr(t, note(slow, began, disabled), store.ErrStale)
	unread := roll.Trouble{Code: "keyvault_unavailable", Detail: "503"}
	wantErr(t, b.st.NoteTrouble(t.Context(), slow, unread, new(slow.Ledger.Unverified(began, unread, "", false)), time.Hour, time.Hour), store.ErrStale)
	if n := b.told("ledger.violation"); n != 0 {
		t.Errorf("a look that was overtaken told of %d violations", n)
	}

	must(t, note(b.taken("Key-exo-a"), began.Add(2*time.Second), disabled))
	slow = b.taken("Key-exo-a")
	must(t, note(b.taken("Key-exo-a"), began.Add(4*time.Second), disabled))
	wantErr(t, note(slow, began.Add(3*time.Second), nil), store.ErrStale)
	if n := b.told("ledger.violation_cleared"); n != 0 || b.ledgerRow(inv, ver("exo-a", 1)).State != roll.VersionDisabled {
		t.Errorf("a look that was overtaken cleared %d violations", n)
	}
	must(t, note(b.taken("Key-exo-a"), began.Add(5*time.Second), nil))
	if n := b.told("ledger.violation_cleared"); n != 1 || b.ledgerRow(inv, ver("exo-a", 1)).State != roll.VersionEnabled {
		t.Errorf("the newest look cleared %d violations", n)
	}
}

// TestPutOffIsNeverNearer: all keys of the vault are put off and no others, and
// a shorter wait does not undo a longer one.
func TestPutOffIsNeverNearer(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	inv := inventory("a")
	inv.Keys[3].VaultURL = inv.Keys[2].VaultURL // exo-b beside exo-a
	b.declare(inv)
	host := strings.TrimPrefix(inv.Keys[2].VaultURL, "https://")
	must(t, b.st.PutOffVault(t.Context(), host, time.Hour, 10*time.Hour))
	must(t, b.st.PutOffVault(t.Context(), host, time.Hour, time.Second))
	names := func(every time.Duration) (out []string) {
		due, err := b.st.DueLedgerKeys(t.Context(), 100, every, every-time.Minute)
		must(t, err)
		for _, w := range due {
			out = append(out, w.Name)
		}
		slices.Sort(out)
		return out
	}
	if got := names(0); !slices.Equal(got, []string{"Key-m-a", "Key-m-b", "Key-spo-a", "Key-spo-b"}) {
		t.Errorf("due are %v", got)
	}
	if got := names(-10 * time.Hour); !slices.Contains(got, "Key-exo-a") || !slices.Contains(got, "Key-exo-b") {
		t.Errorf("due in ten hours are %v", got)
	}
}
