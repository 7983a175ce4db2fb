package roll_test

import (
	"fmt"
	"slices"
	"time"

	"github.com/keyroll/keyroll/internal/roll"
)

// world is Microsoft and the lease table, as far as a roll can tell: vaults
// with tagged versions, one SharePoint operation at a time per geo, calls in
// the air that may land after their worker died.
type world struct {
	now     time.Time
	vault   map[string][]roll.KeyVersion
	slots   map[string]string // geo/slot → version
	ops     map[string]*op    // geo → operation under way
	ended   map[string]time.Time
	air     []flight
	made    int
	holder  map[string]string // scope → "", "us" or "other"
	queued  map[string]bool
	fail    string
	applied map[string]int // operation id → times it took effect
}

type op struct {
	ours    bool
	slot    string
	version string
	scope   string
	until   time.Time
}

type flight struct {
	at   time.Time
	land func()
}

func newWorld() *world {
	return &world{now: start, vault: map[string][]roll.KeyVersion{}, slots: map[string]string{}, ops: map[string]*op{}, ended: map[string]time.Time{},
		holder: map[string]string{}, queued: map[string]bool{}, applied: map[string]int{}}
}

func (w *world) failf(format string, args ...any) {
	if w.fail == "" {
		w.fail = fmt.Sprintf(format, args...)
	}
}

// to moves the clock: calls land, operations end, in order of time.
func (w *world) to(t time.Time) {
	for {
		var next time.Time
		do := func() {}
		for i, f := range w.air {
			if !f.at.After(t) && (next.IsZero() || f.at.Before(next)) {
				next, do = f.at, func() { w.air = slices.Delete(w.air, i, i+1); f.land() }
			}
		}
		for geo, o := range w.ops {
			if !o.until.After(t) && (next.IsZero() || o.until.Before(next)) {
				next, do = o.until, func() { w.end(geo, o) }
			}
		}
		if next.IsZero() {
			break
		}
		if next.After(w.now) {
			w.now = next
		}
		do()
	}
	if t.After(w.now) {
		w.now = t
	}
}

func (w *world) end(geo string, o *op) {
	if !o.ours && w.slots[geo+"/"+o.slot] != "" {
		// Somebody rolls a version of ours away, perhaps before anybody saw that
		// ours had ended: no gap after it can be known. (A step halts there by
		// rule 6, which looks at the slot and is not part of this model.)
		delete(w.ended, geo)
	}
	w.slots[geo+"/"+o.slot] = o.version
	delete(w.ops, geo)
	if o.ours {
		w.ended[geo] = w.now
	}
}

func (w *world) create(key, opID string) string {
	w.made++
	if w.applied[opID]++; w.applied[opID] > 1 {
		w.failf("create %s of %s took effect twice", opID, key)
	}
	v := roll.KeyVersion{Version: fmt.Sprintf("%032x", w.made), Created: w.now, Enabled: true, Tags: map[string]string{roll.OperationTag: opID}}
	w.vault[key] = append(w.vault[key], v)
	return v.Version
}

func (w *world) tagged(key string, ids []string) (out []string) {
	for _, v := range w.vault[key] {
		if slices.Contains(ids, v.Tags[roll.OperationTag]) {
			out = append(out, v.Version)
		}
	}
	return out
}

// roll starts a SharePoint operation; false when SharePoint refuses it.
func (w *world) roll(s roll.Step, version string, lasts time.Duration) bool {
	for geo, o := range w.ops {
		if o.ours && o.scope == s.Params.Scope {
			w.failf("step %d overlaps our operation in %s", s.N, geo)
		}
	}
	if w.ops[s.Geo] != nil {
		return false
	}
	if gap := time.Duration(s.Params.Gap); !w.ended[s.Geo].IsZero() && w.now.Before(w.ended[s.Geo].Add(gap)) {
		w.failf("step %d breaks the gap of %s after %s at %s", s.N, gap, w.ended[s.Geo], w.now)
	}
	if w.holder[s.Params.Scope] != "us" {
		w.failf("step %d rolls without the lease", s.N)
	}
	w.ops[s.Geo] = &op{ours: true, slot: string(s.Slot), version: version, scope: s.Params.Scope, until: w.now.Add(lasts)}
	return true
}
