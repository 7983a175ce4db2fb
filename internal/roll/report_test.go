package roll_test

import (
	"slices"
	"time"

	"github.com/keyroll/keyroll/internal/roll"
)

// finish looks at the world as the worker of the claim would, and tells the roll.
func (s *sim) finish(c claim) {
	x := s.r.Steps[c.n-1]
	ev := s.outcome(c, x)
	if ev == nil {
		return
	}
	err := s.apply(ev)
	if (err != nil) != (x.Epoch != c.epoch || x.State.Final()) {
		s.fatal("%s of step %d (%s): %v", ev.Type(), x.N, x.State, err)
	}
}

func (s *sim) outcome(c claim, x roll.Step) roll.Event {
	mood := s.draw(16, "mood")
	retry := roll.WillRetry{N: c.n, Epoch: c.epoch, At: s.w.now.Add(time.Duration(s.draw(120, "retry")) * time.Second), Code: "throttled"}
	halt := roll.Halted{N: c.n, Epoch: c.epoch, Code: "seen", Action: "look"}
	if x.Epoch != c.epoch || x.State.Final() {
		return retry
	}
	if x.Kind.HasEffect() && x.Params.Adopt == "" {
		return s.effectOutcome(c, x, mood, retry, halt)
	}
	if !c.poll && s.r.State != roll.Running && x.Kind != roll.SharePointAwait && mood > 4 {
		return retry // let go
	}
	switch {
	case mood == 8 && x.Kind != roll.SharePointLease || mood == 8 && !c.poll:
		return halt
	case mood == 9:
		return retry
	}
	switch x.Kind {
	case roll.Preflight:
		if mood == 7 {
			return roll.PlanChanged{N: c.n, Epoch: c.epoch, Plan: s.plans[s.draw(len(s.plans), "changed")]}
		}
	case roll.SharePointLease:
		return s.leaseOutcome(c, x)
	case roll.SharePointAwait:
		return s.awaitOutcome(c, x)
	case roll.CreateKeyVersion:
		return roll.Done{N: c.n, Epoch: c.epoch, Result: roll.Result{Version: x.Params.Adopt, Adopted: true}}
	case roll.Verify:
		return roll.Done{N: c.n, Epoch: c.epoch, Result: roll.Result{Evidence: roll.Accepted, Versions: s.versions()}}
	}
	return roll.Done{N: c.n, Epoch: c.epoch}
}

func (s *sim) versions() map[string]string {
	out := map[string]string{}
	for _, k := range s.r.Keys {
		out[k.ID] = k.NewVersion
	}
	return out
}

// effectOutcome: call where the claim wrote an intent, settle where one was open.
func (s *sim) effectOutcome(c claim, x roll.Step, mood int, retry roll.WillRetry, halt roll.Halted) roll.Event {
	switch {
	case x.Unproven: // looked at again by a retry that says nothing
		return roll.Halted{N: c.n, Epoch: c.epoch, Code: "unproven", Action: "say", OpEnded: true, Unproven: true}
	case x.Assumed != nil:
		return roll.Done{N: c.n, Epoch: c.epoch, Result: roll.Result{AttestedBy: x.Assumed.By.Subject}}
	case !x.IntentOpen && x.Result.Version != "": // made already; it is looked at again
		if mood == 8 {
			halt.Settled, halt.Result = true, x.Result
			return halt
		}
		return roll.Done{N: c.n, Epoch: c.epoch, Result: x.Result}
	case !x.IntentOpen:
		return retry // nothing to settle and nothing may be called
	}
	if !c.fresh {
		return s.settleOutcome(c, x, mood, retry, halt)
	}
	if x.Kind == roll.SharePointRollKey {
		if o := s.w.ops[x.Geo]; o != nil {
			return roll.Waits{N: c.n, Epoch: c.epoch, For: roll.WaitExternal, Until: o.until, NotApplied: true}
		}
	}
	switch mood {
	case 5, 6: // the answer is lost, the effect perhaps not
		if mood == 6 {
			s.lose(x)
		}
		retry.At = *x.IntentDeadline
		return retry
	case 7: // refused before anything happened
		retry.NotApplied = true
		return retry
	case 8:
		halt.NotApplied = true
		return halt
	case 11: // the change window is shut
		return roll.Waits{N: c.n, Epoch: c.epoch, For: roll.WaitWindow, Until: s.w.now.Add(time.Duration(1+s.draw(300, "opens")) * time.Minute), NotApplied: true}
	case 9: // lost, and a person is asked
		s.lose(x)
		return halt
	}
	if !s.effect(x) {
		retry.NotApplied = true
		return retry
	}
	if mood == 10 && x.Kind == roll.CreateKeyVersion { // made, and not as it should be
		halt.Settled, halt.Result = true, s.result(x)
		return halt
	}
	return roll.Done{N: c.n, Epoch: c.epoch, Result: s.result(x)}
}

func (s *sim) result(x roll.Step) roll.Result {
	res := roll.Result{}
	switch x.Kind {
	case roll.CreateKeyVersion:
		res.Version, res.NotBefore = s.w.tagged(x.Key, []string{x.OpID})[0], x.Params.NotBefore
	case roll.SharePointRollKey:
		res.SeenRolling = s.draw(2, "rolling") == 0
	case roll.RefreshPolicy:
		res.Versions = s.versions()
	}
	return res
}

// settleOutcome is design part 3's table.
func (s *sim) settleOutcome(c claim, x roll.Step, mood int, retry roll.WillRetry, halt roll.Halted) roll.Event {
	if mood == 9 {
		return retry
	}
	switch x.Kind {
	case roll.CreateKeyVersion:
		if found := s.w.tagged(x.Key, s.r.OperationIDs(x.N)); len(found) > 0 {
			return roll.Done{N: c.n, Epoch: c.epoch, Result: roll.Result{Version: found[0], ByTag: true, NotBefore: x.Params.NotBefore}}
		}
	case roll.SharePointRollKey:
		k, _ := s.r.KeyByID(x.Key)
		if s.w.ops[x.Geo] != nil {
			return roll.Waits{N: c.n, Epoch: c.epoch, For: roll.WaitOwnUnproven, Until: s.w.now.Add(10 * time.Minute)}
		}
		if s.w.slots[x.Geo+"/"+string(x.Slot)] == k.NewVersion {
			return roll.Done{N: c.n, Epoch: c.epoch}
		}
	}
	if !c.due && s.w.now.Before(*x.IntentDeadline) {
		retry.At = *x.IntentDeadline
		return retry
	}
	if mood == 8 {
		halt.NotApplied = true
		return halt
	}
	if mood == 10 && x.Kind == roll.SharePointRollKey { // SharePoint shows no versions
		return roll.Halted{N: c.n, Epoch: c.epoch, Code: "unproven", Action: "say", OpEnded: true, Unproven: true}
	}
	retry.NotApplied = true
	return retry
}

// truth is what somebody finds out about an unproven operation.
func (s *sim) truth(x roll.Step) string {
	if k, _ := s.r.KeyByID(x.Key); s.w.slots[x.Geo+"/"+string(x.Slot)] == k.NewVersion {
		return roll.AssumeApplied
	}
	return roll.AssumeNotApplied
}

func (s *sim) leaseOutcome(c claim, x roll.Step) roll.Event {
	scope := x.Params.Scope
	if !s.asked[scope] {
		s.fatal("a lease is asked for that nobody asked for")
	}
	if s.w.holder[scope] == "other" {
		s.w.queued[scope] = true
		return roll.LeaseQueued{N: c.n, Epoch: c.epoch, Position: 1 + s.draw(2, "position"), Until: s.w.now.Add(5 * time.Minute)}
	}
	s.w.holder[scope] = "us"
	ended := map[string]time.Time{}
	for geo, t := range s.w.ended {
		ended[geo] = t
	}
	return roll.LeaseGranted{N: c.n, Epoch: c.epoch, LastEnded: ended}
}

func (s *sim) awaitOutcome(c claim, x roll.Step) roll.Event {
	until := s.w.now.Add(5 * time.Minute)
	k, _ := s.r.KeyByID(x.Key)
	switch o := s.w.ops[x.Geo]; {
	case o != nil && c.poll && s.draw(2, "news") == 0:
		return roll.Polled{N: c.n, Epoch: c.epoch, Until: until}
	case o != nil:
		return roll.Waits{N: c.n, Epoch: c.epoch, For: roll.WaitMicrosoft, Until: until, Look: roll.Look{Seen: "Rolling", Rolling: true}}
	case s.w.slots[x.Geo+"/"+string(x.Slot)] == k.NewVersion:
		return roll.Done{N: c.n, Epoch: c.epoch, Result: roll.Result{Versions: map[string]string{x.Key: k.NewVersion}}}
	}
	return roll.Halted{N: c.n, Epoch: c.epoch, Code: roll.CodeSlotMismatch, OpEnded: true}
}

// settle: faults have stopped and people do what they are asked to; the roll
// must end within a bounded number of acts.
func (s *sim) settle() {
	s.calm = true
	s.w.to(s.w.now.Add(4 * time.Hour))
	for scope, h := range s.w.holder {
		if h == "other" {
			s.w.holder[scope] = ""
		}
	}
	tries := 0
	for range 400 {
		s.clock()
		if s.r.State.Final() {
			break
		}
		for len(s.claims) > 0 {
			if s.dead[s.claims[0].worker] {
				s.claims = s.claims[1:]
				continue
			}
			s.report()
		}
		switch {
		case s.r.State == roll.AwaitingApproval:
			who := carol
			if s.r.PlannedBy == carol {
				who = bob
			}
			if err := s.apply(roll.Approve{By: who, PlanHash: s.r.Plan.Hash}); err != nil {
				s.fatal("approval refused: %v", err)
			}
		case s.r.Attention != nil && s.r.Steps[s.r.Attention.Step-1].Unproven && s.r.Steps[s.r.Attention.Step-1].State == roll.StepNeedsAttention:
			if x := s.r.Steps[s.r.Attention.Step-1]; s.apply(roll.Retry{By: bob, Step: x.N, Assume: s.truth(x)}) != nil {
				s.fatal("nobody may say what became of step %d", x.N)
			}
		case s.r.Attention != nil && tries > 4 && s.r.Unsettled() && s.r.WakeAt != nil:
			// another lane is still watched; a plan can be made when that has ended
		case s.r.Attention != nil:
			if tries++; tries > 4 && s.r.State == roll.NeedsAttention && !s.r.Unsettled() {
				if err := s.apply(roll.Replan{By: bob, Plan: s.plans[0]}); err != nil {
					s.fatal("replan refused: %v", err)
				}
				tries = 0
				break
			}
			if err := s.apply(roll.Retry{By: bob}); err != nil {
				s.fatal("retry refused: %v", err)
			}
		}
		if work := s.r.Next(s.w.now, s.gone); len(work) > 0 {
			s.work()
		} else if s.r.WakeAt != nil {
			s.w.to(*s.r.WakeAt)
		}
	}
	if !s.r.State.Final() {
		s.fatal("the roll does not end")
	}
	for scope, asked := range s.asked {
		if asked && !s.r.InFlight(scope) {
			s.fatal("the roll ended with lease %s", scope)
		}
	}
	s.edges.Lock()
	s.edges.ends[s.r.State]++
	s.edges.Unlock()
	for id, n := range s.w.applied {
		if n != 1 {
			s.fatal("operation %s took effect %d times", id, n)
		}
	}
	if s.r.State == roll.Succeeded && slices.ContainsFunc(s.r.Keys, func(k roll.RollKey) bool { return k.NewVersion == "" }) {
		s.fatal("succeeded without a version")
	}
}
