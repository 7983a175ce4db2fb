package roll_test

import (
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"reflect"
	"runtime/debug"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/keyroll/keyroll/internal/roll"
)

// sequences is how many random histories one run goes through.
const sequences = 20000

// claim is what a worker believes it holds.
type claim struct {
	n      int
	epoch  int64
	worker string
	fresh  bool // the claim wrote an intent, so the effect is to be called
	due    bool // the open intent's deadline had passed before the claim
	poll   bool
}

// sim drives one roll through a history and holds it to its promises.
type sim struct {
	t      *rapid.T
	dice   *rand.Rand
	w      *world
	r      roll.Roll
	inv    roll.Inventory
	plans  []roll.Plan
	claims []claim
	old    []claim // of workers that are gone, or have reported
	dead   map[string]bool
	worker int
	calm   bool
	deep   bool // compare the input of Apply with a copy
	asked  map[string]bool
	edges  *edgeSet
	log    []entry
}

// entry of the history, put into words only when something broke.
type entry struct {
	at  time.Time
	ev  roll.Event
	err error
}

func (e entry) String() string {
	return fmt.Sprintf("%s %s%s: %s", e.at.Format("02 15:04:05"), e.ev.Type(), brief(e.ev), code(e.err))
}

// edgeSet gathers the changes of state that were seen, over all histories.
type edgeSet struct {
	sync.Mutex
	roll, step map[roll.Edge]int
	ends       map[roll.State]int
	refused    map[string]int
	applied    int
}

// draw chooses evenly (rapid's own ranges lean to small numbers); the dice
// are rapid's, so that a failure is shrunk in length and can be run again.
func (s *sim) draw(n int, _ string) int {
	if n <= 1 || s.calm {
		return 0
	}
	return s.dice.IntN(n)
}

func (s *sim) fatal(format string, args ...any) {
	s.t.Helper()
	var history strings.Builder
	for _, e := range s.log {
		fmt.Fprintln(&history, e)
	}
	s.t.Fatalf("%s\nhistory:\n%s\nroll: %s", fmt.Sprintf(format, args...), &history, describe(s.r))
}

func describe(r roll.Roll) string {
	out := fmt.Sprintf("%s end=%s wake=%v attention=%+v", r.State, r.EndCode, r.WakeAt, r.Attention)
	for _, s := range r.Steps {
		out += fmt.Sprintf("\n  %d r%d %s %s %s epoch=%d open=%v round=%d ended=%v next=%v for=%q", s.N, s.Round, s.Kind, s.Key, s.State, s.Epoch, s.IntentOpen, s.OpRound, s.OpEnded, s.NextAttemptAt, s.WaitingFor)
	}
	return out
}

// apply is the only door to the roll: it checks what must hold of each event.
func (s *sim) apply(ev roll.Event) error {
	before := s.r
	var copied roll.Roll
	if s.deep {
		copied = clone(before)
	}
	after, fx, err := before.Apply(ev, s.w.now)
	s.log = append(s.log, entry{s.w.now, ev, err})
	if s.deep {
		if !reflect.DeepEqual(copied, before) {
			s.fatal("Apply changed its input: %s", cmp.Diff(copied, before))
		}
	}
	s.count(before, after, err)
	if err != nil {
		var te *roll.TransitionError
		if !errors.As(err, &te) && !errors.Is(err, roll.ErrAlreadyApplied) {
			s.fatal("untyped refusal %v", err)
		}
		if s.deep && !reflect.DeepEqual(before, after) {
			s.fatal("a refused event changed the roll")
		}
		return err
	}
	s.r = after
	s.checkSteps(before, after, ev)
	s.checkLease(before, after, ev, fx)
	s.checkState(after)
	if s.w.fail != "" {
		s.fatal("%s", s.w.fail)
	}
	return nil
}

func brief(ev roll.Event) string {
	switch e := ev.(type) {
	case roll.Replan, roll.PlanChanged:
		return ""
	case roll.Done:
		return fmt.Sprintf("{%d epoch %d}", e.N, e.Epoch)
	}
	return fmt.Sprintf("%+v", ev)
}

func (s *sim) count(before, after roll.Roll, err error) {
	s.edges.Lock()
	defer s.edges.Unlock()
	s.edges.applied++
	if err != nil {
		s.edges.refused[code(err)]++
		return
	}
	if before.State != after.State {
		s.edges.roll[roll.Edge{From: string(before.State), To: string(after.State)}]++
	}
	for i, b := range before.Steps {
		if a := after.Steps[i]; a.State != b.State {
			s.edges.step[roll.Edge{From: string(b.State), To: string(a.State)}]++
		}
	}
}

var (
	rollEdges = edgeIndex(roll.Edges())
	stepEdges = edgeIndex(roll.StepEdges())
)

func edgeIndex(list []roll.Edge) map[roll.Edge]bool {
	out := map[roll.Edge]bool{}
	for _, e := range list {
		out[e] = true
	}
	return out
}

// newSim draws a roll to drive.
func newSim(t *rapid.T, variants []variant, edges *edgeSet) *sim {
	dice := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "dice"), rapid.Uint64().Draw(t, "more dice")))
	s := &sim{t: t, dice: dice, w: newWorld(), dead: map[string]bool{}, asked: map[string]bool{}, edges: edges}
	v := variants[s.draw(len(variants), "variant")]
	s.inv, s.plans = v.inv, v.plans
	s.deep = s.draw(40, "deep") == 1
	req := roll.Request{TenantID: v.inv.TenantID, Reason: reason()}
	if s.draw(6, "start") == 1 {
		at := start.Add(2 * time.Hour)
		req.StartAt = &at
	}
	var fx []roll.Effect
	s.r, fx = roll.New(rollID, req, v.plans[0], alice, s.draw(4, "approval") != 1, patience, start)
	if len(fx) == 0 {
		t.Fatal("no effects of a new roll")
	}
	s.checkState(s.r)
	if s.r.State == roll.AwaitingApproval && s.draw(5, "soon") > 0 {
		if err := s.apply(roll.Approve{By: bob, PlanHash: s.r.Plan.Hash}); err != nil {
			s.fatal("%v", err)
		}
	}
	return s
}

// lanes run side by side.
const lanes = 2

func TestSequences(t *testing.T) {
	if f := flag.Lookup("rapid.checks"); f.Value.String() == f.DefValue {
		n := sequences / lanes
		if testing.Short() || raceEnabled {
			n /= 40
		}
		if err := f.Value.Set(fmt.Sprint(n)); err != nil {
			t.Fatal(err)
		}
		defer func() { _ = f.Value.Set(f.DefValue) }()
	}
	defer debug.SetGCPercent(debug.SetGCPercent(800)) // histories leave much garbage and little else
	variants := variantsOf(t)
	edges := &edgeSet{roll: map[roll.Edge]int{}, step: map[roll.Edge]int{}, ends: map[roll.State]int{}, refused: map[string]int{}}
	history := func(rt *rapid.T) {
		s := newSim(rt, variants, edges)
		for range rapid.IntRange(0, 150).Draw(rt, "length") + 15 {
			if s.r.State.Final() {
				break
			}
			s.act()
		}
		s.settle()
	}
	t.Run("histories", func(t *testing.T) {
		for i := range lanes {
			t.Run(fmt.Sprint(i), func(t *testing.T) {
				t.Parallel()
				rapid.Check(t, history)
			})
		}
	})
	if t.Failed() {
		return
	}
	t.Logf("%d events applied; ends %v; refusals %v", edges.applied, edges.ends, edges.refused)
	if testing.Short() || raceEnabled {
		return // too few histories to say what cannot be reached
	}
	for _, e := range roll.Edges() {
		if edges.roll[e] == 0 {
			t.Errorf("no history took the edge %v: it is not reachable, or not tried", e)
		}
	}
	for _, e := range roll.StepEdges() {
		// Only two events of one write make a pending step running.
		if edges.step[e] == 0 && e != (roll.Edge{From: "pending", To: "running"}) {
			t.Errorf("no history took the step edge %v", e)
		}
	}
	if os.Getenv("KEYROLL_SHOW") != "" {
		t.Logf("%v\n%v", edges.roll, edges.step)
	}
}
