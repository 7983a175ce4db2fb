package roll_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/keyroll/keyroll/internal/roll"
)

type variant struct {
	inv   roll.Inventory
	plans []roll.Plan
}

// variantsOf are the plans that histories begin with and replan to.
func variantsOf(t testing.TB) []variant {
	gap := contoso()
	gap.SharePoint.MinGap = roll.Duration(time.Hour)
	none := contoso()
	none.SharePoint.MinGap = 0
	two := contoso()
	two.SharePoint.Lease, two.SharePoint.MinGap = roll.LeasePerGeo, roll.Duration(time.Hour)
	two.SharePoint.Geos = append(two.SharePoint.Geos, roll.Geo{ID: "EUR"})
	two.Keys = append(two.Keys, declared("eur-a"))
	two.Policies = append(two.Policies, roll.Policy{ID: "eur", Workload: roll.SharePoint, Geo: "EUR", Primary: "eur-a", Secondary: "exo-b"})
	one := two
	one.SharePoint.Lease = roll.LeasePerTenant
	var out []variant
	for _, v := range []struct {
		inv      roll.Inventory
		policies []string
	}{{gap, []string{"spo"}}, {none, []string{"exo-na", "spo"}}, {gap, []string{"exo-na", "spo"}}, {gap, []string{"global", "exo-na"}},
		{two, []string{"spo", "eur"}}, {one, []string{"spo", "eur"}}, {none, []string{"exo-na"}}} {
		req := request(v.inv, v.policies...)
		obs := healthy(v.inv)
		plans := []roll.Plan{build(t, v.inv, req, obs)}
		later := start.Add(5 * time.Hour)
		res, err := roll.Resolve(v.inv, req)
		if err != nil {
			t.Fatal(err)
		}
		for i := range res.Keys { // a second round: one key adopted, one with an nbf
			if i == 0 {
				res.Keys[i].Version = ver(res.Keys[i].ID, 2)
			}
			if i == 1 {
				res.Keys[i].KeyNotBefore = &later
			}
		}
		adopt, err := roll.Build(v.inv, res, obs, start)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range append(plans, adopt) {
			if len(p.Errors()) > 0 {
				t.Fatalf("the model's plan has errors: %+v", p.Errors())
			}
		}
		out = append(out, variant{v.inv, append(plans, adopt)})
	}
	return out
}

// act does one thing: a worker's, time's, a person's or the world's.
func (s *sim) act() {
	switch n := s.draw(60, "act"); {
	case n < 20:
		s.work()
	case n < 36:
		s.report()
	case n < 44:
		s.wait()
	case n < 47:
		s.crash()
	case n < 50:
		s.zombie()
	case n < 53:
		s.outside()
	default:
		s.person()
	}
}

func (s *sim) gone(x roll.Step) bool {
	return s.dead[x.Worker] || x.RunUntil != nil && !s.w.now.Before(*x.RunUntil)
}

// work lets a worker take what the roll offers.
func (s *sim) work() {
	work := s.r.Next(s.w.now, s.gone)
	if len(work) == 0 {
		return
	}
	w := work[s.draw(len(work), "work")]
	if w.Poll {
		s.finish(claim{n: w.N, epoch: s.r.Steps[w.N-1].Epoch, poll: true})
		return
	}
	before := s.r.Steps[w.N-1]
	s.worker++
	name := fmt.Sprintf("w%d", s.draw(3, "process"))
	if s.dead[name] {
		s.dead[name] = false
		for i := range s.r.Steps { // the process is back under the same name; its old claims are not
			if s.r.Steps[i].Worker == name {
				s.dead[name] = true
			}
		}
	}
	if s.dead[name] {
		name = fmt.Sprintf("x%d", s.worker)
	}
	if err := s.apply(roll.Begun{N: w.N, Worker: name, RunFor: time.Minute, Settle: 2 * time.Minute, Takeover: w.Takeover}); err != nil {
		s.fatal("offered, but refused: %v", err)
	}
	after := s.r.Steps[w.N-1]
	for i := len(s.claims) - 1; i >= 0; i-- {
		if s.claims[i].n == w.N {
			s.old = append(s.old, s.claims[i])
			s.claims = slices.Delete(s.claims, i, i+1)
		}
	}
	if after.Kind == roll.SharePointLease {
		s.asked[after.Params.Scope] = true
	}
	s.claims = append(s.claims, claim{n: w.N, epoch: after.Epoch, worker: name, fresh: after.IntentOpen && !before.IntentOpen,
		due: before.IntentDeadline != nil && !s.w.now.Before(*before.IntentDeadline)})
}

// report lets a worker finish what it holds.
func (s *sim) report() {
	if len(s.claims) == 0 {
		return
	}
	i := s.draw(len(s.claims), "claim")
	c := s.claims[i]
	if s.dead[c.worker] {
		return
	}
	s.claims = slices.Delete(s.claims, i, i+1)
	s.old = append(s.old, c)
	s.finish(c)
}

// zombie lets a worker that lost its step speak.
func (s *sim) zombie() {
	if len(s.old) == 0 {
		return
	}
	c := s.old[s.draw(len(s.old), "zombie")]
	if s.r.Steps[c.n-1].Epoch == c.epoch {
		return
	}
	evs := []roll.Event{
		roll.Done{N: c.n, Epoch: c.epoch, Result: roll.Result{Version: "z"}}, roll.WillRetry{N: c.n, Epoch: c.epoch, At: s.w.now, NotApplied: true},
		roll.Waits{N: c.n, Epoch: c.epoch, NotApplied: true}, roll.Halted{N: c.n, Epoch: c.epoch}, roll.LeaseGranted{N: c.n, Epoch: c.epoch},
		roll.PlanChanged{N: c.n, Epoch: c.epoch, Plan: s.plans[1]}, roll.Polled{N: c.n, Epoch: c.epoch}, roll.LeaseQueued{N: c.n, Epoch: c.epoch},
	}
	if got := code(s.apply(evs[s.draw(len(evs), "word")])); got != roll.RefusedStaleEpoch {
		s.fatal("an old epoch was answered with %s", got)
	}
}

// crash kills a worker, before or after its call went out.
func (s *sim) crash() {
	if len(s.claims) == 0 {
		return
	}
	i := s.draw(len(s.claims), "dies")
	c := s.claims[i]
	x := s.r.Steps[c.n-1]
	s.claims = slices.Delete(s.claims, i, i+1)
	s.old = append(s.old, c)
	if x.Epoch != c.epoch {
		return
	}
	if c.fresh && s.draw(2, "called") == 1 {
		s.lose(x)
	}
	if s.draw(2, "panic") == 1 {
		_ = s.apply(roll.Crashed{Worker: c.worker, Detail: "panic", At: s.w.now.Add(time.Second)})
		return
	}
	s.dead[c.worker] = true
}

// lose sends the call of a step out without anybody waiting for its answer.
func (s *sim) lose(x roll.Step) {
	at := s.w.now
	if n := s.draw(3, "late"); n > 0 {
		at = x.IntentDeadline.Add(-time.Duration(n) * time.Second)
		if at.Before(s.w.now) {
			return
		}
	}
	s.w.air = append(s.w.air, flight{at: at, land: func() { s.effect(x) }})
	s.w.to(s.w.now)
}

// effect is what the call of a step does at Microsoft; false when refused.
func (s *sim) effect(x roll.Step) bool {
	switch x.Kind {
	case roll.CreateKeyVersion:
		s.w.create(x.Key, x.OpID)
	case roll.SharePointRollKey:
		k, _ := s.r.KeyByID(x.Key)
		return s.w.roll(x, k.NewVersion, time.Duration(10+s.draw(50, "lasts"))*time.Minute)
	case roll.RefreshPolicy:
		for _, k := range s.r.Keys {
			for _, p := range s.r.Plan.Policies {
				if p.ID == x.Policy && slices.Contains(p.Keys, k.ID) && (k.NewVersion == "" || k.NotBefore != nil && s.w.now.Before(*k.NotBefore)) {
					s.w.failf("refresh of %s before its keys are ready", x.Policy)
				}
			}
		}
	}
	return true
}

func (s *sim) wait() {
	switch s.draw(3, "clock") {
	case 0:
		if s.r.WakeAt != nil && (s.r.State != roll.AwaitingApproval || s.draw(20, "expire") == 1) {
			s.w.to(*s.r.WakeAt)
		}
	case 1:
		s.w.to(s.w.now.Add(time.Duration(1+s.draw(90, "minutes")) * time.Minute))
	case 2:
		s.w.to(s.w.now.Add(time.Duration(s.draw(90, "seconds")) * time.Second))
	}
	s.clock()
}

// clock does what time does to a roll.
func (s *sim) clock() {
	if s.r.State == roll.Scheduled {
		_ = s.apply(roll.Due{})
	}
	if s.r.State == roll.AwaitingApproval && !s.w.now.Before(*s.r.ApprovalExpires) {
		_ = s.apply(roll.ApprovalExpired{})
	}
	s.checkState(s.r) // wake_at must still be right at a later time
}

// outside: somebody else holds the lease, or rolls by hand.
func (s *sim) outside() {
	geo := s.inv.SharePoint.Geos[s.draw(len(s.inv.SharePoint.Geos), "geo")].ID
	scope := s.inv.LeaseScope(geo)
	switch s.draw(3, "outside") {
	case 0:
		if s.w.holder[scope] == "" {
			s.w.holder[scope] = "other"
		}
	case 1:
		if s.w.holder[scope] == "other" {
			s.w.holder[scope] = ""
		}
	case 2:
		if s.w.ops[geo] == nil {
			s.w.ops[geo] = &op{slot: "primary", version: "byhand", until: s.w.now.Add(30 * time.Minute)}
		}
	}
}

// person lets somebody act, allowed or not.
func (s *sim) person() {
	who := []roll.Actor{alice, bob, carol, robot}[s.draw(4, "who")]
	state := s.r.State
	kind := s.draw(26, "what")
	if s.r.State == roll.NeedsAttention && s.draw(3, "replan") == 1 {
		kind = 25
	}
	var ev roll.Event
	switch {
	case kind < 11:
		ev = roll.Approve{By: who, PlanHash: s.r.Plan.Hash}
	case kind < 12:
		ev = roll.Reject{By: who}
	case kind < 13:
		ev = roll.Cancel{By: who}
	case kind < 20:
		retry := roll.Retry{By: who, Step: s.draw(2, "one") * (1 + s.draw(len(s.r.Steps), "step"))}
		if a := s.r.Attention; a != nil && s.draw(2, "says") == 0 && s.r.Steps[a.Step-1].Unproven {
			retry.Step, retry.Assume = a.Step, s.truth(s.r.Steps[a.Step-1])
		}
		ev = retry
	case kind < 23:
		ev = roll.GiveUp{By: who}
	default:
		ev = roll.Replan{By: who, Plan: s.plans[s.draw(len(s.plans), "plan")]}
	}
	requester, planner, first, unsettled, unproven := s.r.Requester, s.r.PlannedBy, s.r.Abandon, s.r.Unsettled(), s.unproven()
	if s.apply(ev) != nil {
		return
	}
	own := who.Subject == requester.Subject || who.Subject == planner.Subject
	switch e := ev.(type) {
	case roll.Retry:
		if e.Assume != "" && who.Kind != roll.Person || s.r.Abandon != nil {
			s.fatal("%s said what became of an operation, or an abandon was not withdrawn", who.Subject)
		}
	case roll.Approve, roll.Reject:
		if own || who.Kind != roll.Person || state != roll.AwaitingApproval {
			s.fatal("%s decided", who.Subject)
		}
	case roll.Replan:
		if unsettled || unproven || s.r.Abandon != nil || s.r.State != roll.AwaitingApproval || len(s.r.Approvals) > 0 {
			s.fatal("replanned with something unsettled, or without a new approval")
		}
	case roll.GiveUp:
		if who.Kind != roll.Person || s.r.State == roll.Failed && (first == nil || first.By.Subject == who.Subject) {
			s.fatal("one person abandoned the roll")
		}
	}
}

// unproven says whether nobody can tell what became of an operation of this round.
func (s *sim) unproven() bool {
	return slices.ContainsFunc(s.r.Steps, func(x roll.Step) bool { return x.Unproven && x.Round == s.r.Round })
}
