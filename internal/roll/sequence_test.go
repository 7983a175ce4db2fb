package roll_test

import (
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"reflect"
	"slices"
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

// closes says whether the event tells that the step's operation did not apply.
func closes(ev roll.Event, n int) bool {
	switch e := ev.(type) {
	case roll.Waits:
		return e.N == n && e.NotApplied
	case roll.WillRetry:
		return e.N == n && e.NotApplied
	case roll.Halted:
		return e.N == n && e.NotApplied
	}
	return false
}

func (s *sim) checkSteps(before, after roll.Roll, ev roll.Event) {
	if before.State != after.State && !rollEdges[roll.Edge{From: string(before.State), To: string(after.State)}] {
		s.fatal("roll went from %s to %s", before.State, after.State)
	}
	for i, b := range before.Steps {
		a := after.Steps[i]
		if a.State != b.State && !stepEdges[roll.Edge{From: string(b.State), To: string(a.State)}] {
			s.fatal("step %d went from %s to %s", b.N, b.State, a.State)
		}
		if a.Epoch < b.Epoch {
			s.fatal("the epoch of step %d went back", b.N)
		}
		if a.OpRound != b.OpRound && (a.OpRound != b.OpRound+1 || !b.IntentOpen || !closes(ev, b.N)) {
			s.fatal("the round of step %d grew from %d to %d", b.N, b.OpRound, a.OpRound)
		}
		if a.IntentOpen && !b.IntentOpen {
			if _, ok := ev.(roll.Begun); !ok || before.State != roll.Running {
				s.fatal("step %d opened an intent in a roll that is %s", b.N, before.State)
			}
			if a.OpID != roll.OperationID(after.ID, a.N, a.OpRound) {
				s.fatal("step %d: operation id", a.N)
			}
		}
		if b.State.Final() && b.Kind != roll.SharePointLease && a.State != b.State {
			s.fatal("step %d was final", b.N)
		}
	}
}

func (s *sim) checkLease(before, after roll.Roll, ev roll.Event, fx []roll.Effect) {
	for _, f := range fx {
		l, ok := f.(roll.LeaveLease)
		if !ok {
			continue
		}
		if !s.asked[l.Scope] {
			s.fatal("left lease %s without having asked for it", l.Scope)
		}
		if after.InFlight(l.Scope) {
			s.fatal("left lease %s with an operation in flight", l.Scope)
		}
		for _, o := range s.w.ops {
			if o.ours && o.scope == l.Scope {
				s.fatal("left lease %s while SharePoint rolls for us", l.Scope)
			}
		}
		s.asked[l.Scope] = false
		if s.w.holder[l.Scope] == "us" {
			s.w.holder[l.Scope] = ""
		}
		s.w.queued[l.Scope] = false
	}
	stopped := after.State != roll.Running && after.State != roll.Cancelling && after.State != roll.Scheduled
	for scope, asked := range s.asked {
		busy := after.InFlight(scope) || slices.ContainsFunc(after.Steps, func(x roll.Step) bool {
			return x.Kind == roll.SharePointLease && x.State == roll.StepRunning && x.Params.Scope == scope
		})
		if asked && stopped && !busy {
			s.fatal("the roll is %s with nothing in flight and keeps lease %s", after.State, scope)
		}
	}
}

func (s *sim) checkState(r roll.Roll) {
	halted := false
	for _, x := range r.Steps {
		halted = halted || x.State == roll.StepNeedsAttention
	}
	if (r.Attention != nil) != halted {
		s.fatal("attention %+v with halted=%v", r.Attention, halted)
	}
	if r.State == roll.NeedsAttention && !halted {
		s.fatal("a person is wanted, but no step is halted")
	}
	now := s.w.now
	alive := func(x roll.Step) bool { return x.RunUntil != nil && !now.Before(*x.RunUntil) }
	work := r.Next(now, alive)
	switch {
	case r.State.Final():
		if r.WakeAt != nil || len(work) > 0 || r.EndedAt == nil {
			s.fatal("a final roll wakes, works or has no end")
		}
		s.checkEnd(r)
	case r.State == roll.AwaitingApproval:
		if r.WakeAt == nil || !r.WakeAt.Equal(*r.ApprovalExpires) || len(work) > 0 {
			s.fatal("awaiting approval")
		}
	case r.State == roll.Scheduled:
		if r.WakeAt == nil {
			s.fatal("scheduled without a wake-up")
		}
	default:
		due := r.WakeAt != nil && !r.WakeAt.After(now)
		if due != (len(work) > 0) {
			s.fatal("wake_at %v at %s, but work is %v", r.WakeAt, now, work)
		}
		if r.WakeAt == nil && !halted {
			s.fatal("sleeps for ever")
		}
		if r.State == roll.Cancelling && !r.Unsettled() {
			s.fatal("nothing is unsettled and the roll is still cancelling")
		}
	}
}

func (s *sim) checkEnd(r roll.Roll) {
	short := false
	for _, x := range r.Steps {
		short = short || x.Round == r.Round && x.State != roll.StepSucceeded
	}
	if r.State == roll.Succeeded && short || r.State == roll.Cancelled && r.Unsettled() {
		s.fatal("ended %s too early", r.State)
	}
	var want []string
	for _, m := range r.Made {
		k, ok := r.KeyByID(m.Key)
		if ok && r.State == roll.Succeeded && k.NewVersion == m.Version {
			continue
		}
		if !slices.ContainsFunc(r.Steps, func(x roll.Step) bool { return x.State == roll.StepSucceeded && x.Result.Versions[m.Key] == m.Version }) {
			want = append(want, m.Version)
		}
	}
	var got []string
	for _, m := range r.LeftBehind {
		got = append(got, m.Version)
	}
	if !slices.Equal(got, want) {
		s.fatal("left behind %v, want %v", got, want)
	}
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
	return s
}

// lanes run side by side.
const lanes = 2

func TestSequences(t *testing.T) {
	if f := flag.Lookup("rapid.checks"); f.Value.String() == f.DefValue {
		n := sequences / lanes
		if testing.Short() || raceEnabled {
			n /= 8
		}
		if err := f.Value.Set(fmt.Sprint(n)); err != nil {
			t.Fatal(err)
		}
		defer func() { _ = f.Value.Set(f.DefValue) }()
	}
	variants := variantsOf(t)
	edges := &edgeSet{roll: map[roll.Edge]int{}, step: map[roll.Edge]int{}, ends: map[roll.State]int{}, refused: map[string]int{}}
	history := func(rt *rapid.T) {
		s := newSim(rt, variants, edges)
		for range rapid.IntRange(0, 120).Draw(rt, "length") {
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
