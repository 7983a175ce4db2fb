package jobs_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/keyroll/keyroll/internal/roll"
	"github.com/keyroll/keyroll/internal/sim"
)

// schedules says how many random schedules are run, and from which seed on.
func schedules(t *testing.T) (n int, seed uint64) {
	t.Helper()
	n, seed = 6, uint64(time.Now().UnixNano())
	if os.Getenv("KEYROLL_CRASH") == "1" {
		n = 200
	}
	if s := os.Getenv("KEYROLL_SCHEDULES"); s != "" {
		var err error
		n, err = strconv.Atoi(s)
		must(t, err)
	}
	if s := os.Getenv("KEYROLL_SEED"); s != "" {
		var err error
		seed, err = strconv.ParseUint(s, 10, 64)
		must(t, err)
	}
	return n, seed
}

// TestRandomSchedules: processes die and are born, connections are cut, calls
// fail in every way, all at random; then everything is mended. Every roll must
// get to its end, by a retry where it halted, and the witness log must show one
// version per key, one operation per slot, and no two operations at once.
// KEYROLL_SEED=… KEYROLL_SCHEDULES=1 runs one schedule again.
func TestRandomSchedules(t *testing.T) {
	t.Parallel()
	n, seed := schedules(t)
	for i := range n {
		t.Run(fmt.Sprintf("seed=%d", seed+uint64(i)), func(t *testing.T) {
			t.Parallel()
			newChaos(t, seed+uint64(i)).run()
		})
	}
}

// chaos is one schedule.
type chaos struct {
	*house
	rnd   *rand.Rand
	rolls []string
	kills []func() // of the processes that live
	log   []string
}

func newChaos(t *testing.T, seed uint64) *chaos {
	rnd := rand.New(rand.NewPCG(seed, 1))
	shown := rnd.IntN(2) == 0 // SharePoint shows the versions of its keys
	h := newHouse(t, func(s *sim.Seed, _ *roll.Inventory) { s.Tenants[0].SharePoint.URIVersion = &shown })
	h.declare()
	c := &chaos{house: h, rnd: rnd}
	c.note("versions shown: %v", shown)
	h.sim.World.SetTrap(true)
	h.rate([]float64{150, 400, 2000}[c.rnd.IntN(3)])
	t.Cleanup(func() {
		for _, kill := range c.kills {
			kill()
		}
		if t.Failed() {
			t.Logf("KEYROLL_SEED=%d KEYROLL_SCHEDULES=1; what was done: %v", seed, c.log)
		}
	})
	return c
}

func (c *chaos) run() {
	policies := [][]string{{"global"}, {"exo-na"}, {"spo"}}
	if c.rnd.IntN(2) == 0 {
		policies = [][]string{{"global", "exo-na", "spo"}}
	}
	for _, p := range policies {
		r := c.request(p...)
		c.approve(r.ID)
		c.rolls = append(c.rolls, r.ID)
	}
	if c.rnd.IntN(2) == 0 {
		c.hurt() // something is wrong from the first call on
	}
	for range 2 {
		c.spawn()
	}
	end := time.After(1500 * time.Millisecond)
	for chaos := true; chaos; {
		select {
		case <-end:
			chaos = false
		case <-time.After(time.Duration(20+c.rnd.IntN(180)) * time.Millisecond):
			c.act()
		}
	}
	c.heal()
	for _, id := range c.rolls {
		c.check(c.goOnUntilEnded(id))
	}
	if n := c.sim.World.SharePointOperations(c.inv.TenantID); n != 2 {
		c.t.Errorf("%d SharePoint operations, want 2", n)
	}
	c.leaseIsFree()
}

func (c *chaos) note(format string, args ...any) {
	c.log = append(c.log, fmt.Sprintf(format, args...))
}

func (c *chaos) spawn() {
	cfg := late(time.Second, 500*time.Millisecond)
	if c.rnd.IntN(3) == 0 {
		cfg.Lane = 100 * time.Millisecond
	}
	c.kills = append(c.kills, c.peer(cfg).live())
}

func (c *chaos) act() {
	switch c.rnd.IntN(6) {
	case 0, 1:
		i := c.rnd.IntN(len(c.kills))
		c.note("kill")
		c.kills[i]()
		c.kills = append(c.kills[:i], c.kills[i+1:]...)
		c.spawn()
	case 2:
		c.note("cut")
		c.cut()
	default:
		c.hurt()
	}
}

// hurt arms one fault.
func (c *chaos) hurt() {
	type op struct{ service, name string }
	ops := []op{{"keyvault", sim.OpCreateKey}, {"keyvault", sim.OpCreateKey}, {"exchange", sim.OpSetDEP}, {"exchange", sim.OpSetM365DEP},
		{"sharepoint", sim.OpRollKey}, {"sharepoint", sim.OpRollKey}, {"keyvault", sim.OpGetKey}, {"keyvault", sim.OpListVersions},
		{"exchange", sim.OpGetDEP}, {"sharepoint", sim.OpGetStatus}}
	modes := []string{sim.ModeApplyAndLose, sim.ModeApplyAndLose, sim.ModeLoseBefore, sim.ModeErrorAfter, sim.ModeThrottle, sim.ModeDelay, sim.ModeRefuse}
	o := ops[c.rnd.IntN(len(ops))]
	f := sim.Fault{Service: o.service, Operation: o.name, Mode: modes[c.rnd.IntN(len(modes))], Count: 1 + c.rnd.IntN(2)}
	switch f.Mode {
	case sim.ModeDelay:
		f.Params.Seconds = 0.1 + 0.8*c.rnd.Float64()
	case sim.ModeRefuse:
		f.Params.Status = []int{403, 503}[c.rnd.IntN(2)]
	}
	c.note("%s %s ×%d", f.Mode, f.Operation, f.Count)
	c.fault(f)
}

// heal mends everything; a fresh process joins those that live.
func (c *chaos) heal() {
	c.note("heal")
	for _, f := range c.sim.World.Faults() {
		must(c.t, c.sim.World.RemoveFault(f.ID))
	}
	c.rate(2000)
	c.spawn()
}

// goOnUntilEnded retries a roll whenever it halts. Where nobody can tell what
// became of an operation, it says what Microsoft's own log shows.
func (c *chaos) goOnUntilEnded(id string) roll.Roll {
	c.t.Helper()
	ctx := context.Background()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	limit := time.After(45 * time.Second)
	var r roll.Roll
	for {
		next, err := c.st.Roll(ctx, id)
		if err == nil {
			r = next
		}
		switch {
		case r.State == roll.Succeeded:
			return r
		case r.State.Final():
			c.t.Fatalf("ended %s\n%s", r.State, show(r))
		case r.State == roll.NeedsAttention:
			if r.Attention == nil || r.Attention.Code == "" || r.Attention.Action == "" {
				c.t.Errorf("halted without a reason\n%s", show(r))
			}
			if a := r.Attention; a != nil && a.Code == "sharepoint_roll_unproven" {
				_, _ = c.ctl.Assume(ctx, requester(), id, a.Step, c.truth(r, a.Step))
				break
			}
			_, _ = c.ctl.Retry(ctx, requester(), id, 0) // or at the next turn
		}
		select {
		case <-tick.C:
		case <-limit:
			c.t.Fatalf("never ended\n%s", show(r))
		}
	}
}
