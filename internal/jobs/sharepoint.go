package jobs

import (
	"context"
	"fmt"
	"math"
	"time"

	"github.com/keyroll/keyroll/internal/roll"
)

// rollKey begins one SharePoint key operation, under the lease. SharePoint's
// status carries no operation id, so a lost answer is settled by what the slot
// names once nothing rolls.
func (a *attempt) rollKey(ctx context.Context) roll.Event {
	p, fault := a.policy()
	if fault != nil {
		return a.fault(fault)
	}
	k, fault := a.key(a.step.Key)
	if fault != nil {
		return a.fault(fault)
	}
	rk, _ := a.roll.KeyByID(k.ID)
	if rk.NewVersion == "" {
		return a.halt("no_version", "no version of key "+k.ID+" is recorded", "replan")
	}
	if a.step.Params.Transport == roll.Manual && !a.poll {
		return a.rollByHand(ctx, p, k, rk.NewVersion)
	}
	s, err := a.d.tenants.Sites(a.inv, a.step.Geo, a.reads(roll.SharePoint, a.step.Geo))
	if err != nil {
		return a.failed(err)
	}
	switch {
	case a.poll:
		return a.watchRoll(ctx, s)
	case a.settle:
		return a.settleRoll(ctx, s, k, rk.NewVersion)
	case a.step.Unproven:
		return a.lookAgain(ctx, s, k, rk.NewVersion)
	case a.step.Assumed != nil:
		by := a.step.Assumed.By.Subject
		return a.done(roll.Result{Version: rk.NewVersion, AttestedBy: by, Source: by + " says that the operation took effect"})
	}
	if ev := a.usable(ctx, k, rk.NewVersion); ev != nil {
		return ev
	}
	if ev := a.slotReady(ctx, s, p, k, rk.NewVersion); ev != nil {
		return ev
	}
	if ev := a.underLease(ctx); ev != nil {
		return ev
	}
	// Once more, just before the call.
	if ev := a.slotReady(ctx, s, p, k, rk.NewVersion); ev != nil {
		return ev
	}
	if ev := a.lastCheck(ctx); ev != nil {
		return ev
	}
	if s, err = a.d.tenants.Sites(a.inv.SentTo(a.step.Params.Account), a.step.Geo, a.step.Params.Transport); err != nil {
		return a.failed(err)
	}
	seen, err := a.sendRoll(ctx, s, k, rk.NewVersion)
	if err != nil {
		return a.rollFailed(ctx, s, err)
	}
	return a.done(roll.Result{Version: rk.NewVersion, SeenRolling: seen.Status == roll.Rolling, Source: a.took()})
}

// sendRoll makes the call, with the name that the plan gives the key.
func (a *attempt) sendRoll(ctx context.Context, s sites, k roll.Key, version string) (roll.SharePointObservation, error) {
	if a.step.Params.ByURI {
		return s.RollURI(ctx, a.step.Slot, k.URI(version), a.step.OpID)
	}
	return s.Roll(ctx, a.step.Slot, k.VaultName(), k.Name, version, a.step.OpID)
}

// took says that SharePoint took the roll, and by which way.
func (a *attempt) took() string {
	return "SharePoint took the roll, " + a.step.Params.Transport.By(roll.SharePoint)
}

// underLease returns the event that ends the attempt where the roll does not
// hold the right to SharePoint.
func (a *attempt) underLease(ctx context.Context) roll.Event {
	if held, err := a.d.store.HoldsLease(ctx, a.roll.TenantID, a.step.Params.Scope, a.roll.ID); err != nil {
		return a.later(a.now().Add(a.d.cfg.BackoffBase), "database", "the lease could not be read")
	} else if !held {
		return a.halt("lease_lost", "this roll does not hold the right to change SharePoint keys any more: two people released it", "make sure that no other operation runs, then retry")
	}
	return nil
}

// slotReady is the rule before a SharePoint operation: nothing rolls, and the
// slot names the declared vault, key and old version (rule 6). It returns the
// event that ends the attempt where that does not hold.
func (a *attempt) slotReady(ctx context.Context, s sites, p roll.Policy, k roll.Key, version string) roll.Event {
	seen, err := s.Status(ctx)
	if err != nil {
		return a.failed(err)
	}
	switch seen.Status {
	case roll.Registered:
	case roll.Unregistered:
		return a.halt("sharepoint_not_registered", "SharePoint shows no Customer Key for this geo (Unregistered)", "register the policy at Microsoft first, then replan")
	case roll.Recovering:
		return a.halt("sharepoint_recovering", "SharePoint is recovering with the availability key", "wait for Microsoft's recovery to end, then retry")
	default:
		if a.settle {
			// A line was shown to people, and this may be it.
			return roll.Waits{N: a.step.N, Epoch: a.step.Epoch, For: roll.WaitOwnUnproven, Until: a.now().Add(a.pollPause()),
				Look: roll.Look{Seen: statusWord(seen.Status), Percent: whole(seen.Percent), Rolling: seen.Status == roll.Rolling}}
		}
		return a.external(seen)
	}
	if taken, exact := roll.SlotTaken(k, seen.SlotURI(a.step.Slot), version); taken && exact {
		return a.done(roll.Result{Version: version, Source: "SharePoint names the version already"})
	}
	if f := roll.CheckSlot(a.inv, p, a.step.Slot, seen, a.step.Params.OldVersion); f != nil {
		return a.fault(f)
	}
	return a.slotDeclared(p, k, seen)
}

// slotDeclared holds a slot's step against what is declared now: an edit since
// the plan must not make it put one key into both slots (rule 6). seen is empty
// where nobody but people sees the slots.
func (a *attempt) slotDeclared(p roll.Policy, k roll.Key, seen roll.SharePointObservation) roll.Event {
	old, declared := a.step.Params.Replaces, p.SlotKey(a.step.Slot)
	switch {
	case old == "" && declared != k.ID:
		return a.fault(&roll.Fault{Code: "declaration_changed",
			Seen:   fmt.Sprintf("the %s slot of policy %s is declared as key %s; this roll gives key %s its new version there", a.step.Slot, p.ID, declared, k.ID),
			Remedy: "declare what SharePoint has in the slot, then replan"})
	case old == "":
		return nil
	case declared != old:
		return a.fault(slotRedeclared(p, a.step))
	}
	if f := roll.CheckReplacement(a.inv, p, a.step.Slot, seen, k); f != nil {
		return a.fault(f)
	}
	return nil
}

// slotRedeclared: somebody edited the declaration of a slot that this roll
// gives another key.
func slotRedeclared(p roll.Policy, s roll.Step) *roll.Fault {
	return &roll.Fault{Code: "declaration_changed",
		Seen:   fmt.Sprintf("the %s slot of policy %s is declared as key %s; this roll replaces %s by %s there", s.Slot, p.ID, p.SlotKey(s.Slot), s.Params.Replaces, s.Key),
		Remedy: fmt.Sprintf("declare what SharePoint has in the slot: key %s if it took it up, else %s; then retry, or replan", s.Key, s.Params.Replaces)}
}

// usable reads the version that is to be put into the slot.
func (a *attempt) usable(ctx context.Context, k roll.Key, version string) roll.Event {
	v, err := a.d.tenants.Vault(a.inv, k)
	if err != nil {
		return a.failed(err)
	}
	kv, err := v.Get(ctx, k.Name, version)
	if err != nil {
		return a.failed(err)
	}
	if f := roll.CheckUsable(k, kv, a.now()); f != nil {
		return a.fault(f)
	}
	return nil
}

// rollFailed: a refusal while SharePoint rolls means that another operation
// came first; it is waited for. Any other refusal stops the roll.
func (a *attempt) rollFailed(ctx context.Context, s sites, cause error) roll.Event {
	c := a.d.cfg.classify(cause, a.step.Attempt)
	if c.Maybe {
		return a.later(a.now(), c.Code, "the answer was lost; looking at SharePoint's status: "+c.Detail)
	}
	if !c.Passing {
		if seen, err := s.Status(ctx); err == nil && seen.Status == roll.Rolling {
			return roll.Waits{N: a.step.N, Epoch: a.step.Epoch, For: roll.WaitExternal, Until: a.now().Add(a.pollPause()), NotApplied: true,
				Look: roll.Look{Seen: statusWord(seen.Status), Percent: whole(seen.Percent)}}
		}
	}
	return a.failed(cause)
}

// settleRoll finds out what became of a roll whose answer was lost. It is
// never sent again while SharePoint rolls or could still begin to.
func (a *attempt) settleRoll(ctx context.Context, s sites, k roll.Key, version string) roll.Event {
	past := a.deadlinePassed() // before the look: what it does not show may begin while it is on its way
	var job roll.Fate
	if a.step.Params.Transport == roll.Automation {
		var ev roll.Event
		if ev, job = a.settleRollJob(ctx, version); ev != nil {
			return ev
		}
	}
	seen, err := s.Status(ctx)
	if err != nil {
		return a.failed(err)
	}
	taken, exact := roll.SlotTaken(k, seen.SlotURI(a.step.Slot), version)
	switch {
	case seen.Status == roll.Registered && taken && exact:
		return a.done(roll.Result{Version: version, SeenRolling: a.step.SeenRolling, Source: "SharePoint names the version"})
	case seen.Status == roll.Registered && taken && a.step.SeenRolling:
		return a.done(roll.Result{Version: version, SeenRolling: true, Unproven: true, Source: "the answer was lost, and SharePoint was seen rolling before that operation could land no more; " + noVersion})
	case seen.Status != roll.Registered && seen.Status != roll.Unregistered:
		return roll.Waits{N: a.step.N, Epoch: a.step.Epoch, For: roll.WaitOwnUnproven, Until: a.now().Add(a.pollPause()),
			Look: roll.Look{Seen: statusWord(seen.Status), Percent: whole(seen.Percent), Rolling: seen.Status == roll.Rolling}}
	case !past:
		return a.later(a.deadline(), "lost_answer", "SharePoint does not roll; looking again when the lost call can land no more")
	case a.now().Before(a.jobSettles(job)):
		return a.later(a.jobSettles(job), "lost_answer", "SharePoint does not roll; looking again when what the runbook job did last must show")
	}
	if taken && !exact {
		return a.unproven()
	}
	if job.Failed != nil && !a.step.SeenRolling {
		// The cmdlet failed, and nothing came of it: sent again it would fail again.
		c := a.d.cfg.classify(job.Failed, a.step.Attempt)
		return roll.Halted{N: a.step.N, Epoch: a.step.Epoch, Code: c.Code, Detail: c.Detail, Action: c.Action, NotApplied: true}
	}
	return a.notApplied()
}

// noVersion is why a SharePoint operation cannot be proved to be ours.
const noVersion = "SharePoint shows its keys without a version, so it cannot be told from an operation that somebody else began"

// unproven halts a roll whose answer was lost and whose end can no longer be
// seen. Sending it again might do it twice, so a person must find out.
func (a *attempt) unproven() roll.Event {
	return roll.Halted{N: a.step.N, Epoch: a.step.Epoch, Code: "sharepoint_roll_unproven", OpEnded: true, Unproven: true,
		Detail: fmt.Sprintf("the answer to the roll of the %s key of geo %s was lost (operation %s). Nothing rolls now, and SharePoint shows its keys without a version: nobody can tell from here whether it took effect",
			a.step.Slot, a.step.Geo, a.step.OpID),
		Action: fmt.Sprintf(`find out in Microsoft's audit log, or from whoever watched SharePoint, whether the key was rolled; then say so by a retry with {"step_id":%d,"assume":"applied"}, which goes on, or {"step_id":%d,"assume":"not_applied"}, which sends it again (a retry without assume only looks again)`,
			a.step.N, a.step.N)}
}

// lookAgain is a retry of an unproven operation by somebody who does not say
// what became of it. What rolls now is not ours: ours could land no more.
func (a *attempt) lookAgain(ctx context.Context, s sites, k roll.Key, version string) roll.Event {
	seen, err := s.Status(ctx)
	if err != nil {
		return a.failed(err)
	}
	taken, exact := roll.SlotTaken(k, seen.SlotURI(a.step.Slot), version)
	switch {
	case inFlight(seen.Status):
		return a.external(seen)
	case taken && exact:
		return a.done(roll.Result{Version: version, Source: "SharePoint names the version"})
	}
	return a.unproven()
}

// watchRoll looks at an operation that a roll step waits for: its own, whose
// answer was lost, or one that somebody else began. While it is under way the
// look is quiet; when it has ended the step is claimed, and settles or calls.
func (a *attempt) watchRoll(ctx context.Context, s sites) roll.Event {
	seen, err := s.Status(ctx)
	if err != nil {
		return a.pollFailed(err)
	}
	if !inFlight(seen.Status) && !(a.settle && seen.Status == roll.Recovering) {
		return roll.WillRetry{N: a.step.N, Epoch: a.step.Epoch, At: a.now()}
	}
	until := a.now().Add(a.pollPause())
	look := roll.Look{Seen: statusWord(seen.Status), Percent: whole(seen.Percent), Rolling: a.settle && seen.Status == roll.Rolling}
	if a.step.Seen == look.Seen && samePercent(a.step.Percent, look.Percent) && (a.step.SeenRolling || !look.Rolling) {
		return roll.Polled{N: a.step.N, Epoch: a.step.Epoch, Until: until, Look: look}
	}
	return roll.Waits{N: a.step.N, Epoch: a.step.Epoch, For: a.step.WaitingFor, Until: until, Look: look}
}

// inFlight: an operation is under way, or may be, for all that Keyroll knows.
func inFlight(s roll.SharePointStatus) bool {
	return s != roll.Registered && s != roll.Unregistered && s != roll.Recovering
}

// external waits for an operation that Keyroll did not begin.
func (a *attempt) external(seen roll.SharePointObservation) roll.Event {
	return roll.Waits{N: a.step.N, Epoch: a.step.Epoch, For: roll.WaitExternal, Until: a.now().Add(a.pollPause()), NotApplied: true,
		Look: roll.Look{Seen: statusWord(seen.Status), Percent: whole(seen.Percent)}}
}

// await looks once at a SharePoint roll that was begun.
func (a *attempt) await(ctx context.Context) roll.Event {
	k, fault := a.key(a.step.Key)
	if fault != nil {
		return a.fault(fault)
	}
	via := a.reads(roll.SharePoint, a.step.Geo)
	if via == roll.ReadsNothing {
		return a.awaitByHand(ctx, k)
	}
	s, err := a.d.tenants.Sites(a.inv, a.step.Geo, via)
	if err != nil {
		return a.failed(err)
	}
	rk, _ := a.roll.KeyByID(k.ID)
	seen, err := s.Status(ctx)
	if err != nil {
		return a.pollFailed(err)
	}
	taken, exact := roll.SlotTaken(k, seen.SlotURI(a.step.Slot), rk.NewVersion)
	look := a.look(seen)
	switch seen.Status {
	case roll.Registered:
		return a.awaitRegistered(k, rk.NewVersion, taken, exact, look)
	case roll.Unregistered:
		return a.halt("sharepoint_not_registered", "SharePoint shows Unregistered while a roll was under way", "speak to Microsoft support, then retry")
	case roll.Recovering:
		return a.halt("sharepoint_recovering", "SharePoint went into recovery while a roll was under way", "speak to Microsoft support; when it is Registered again, retry")
	}
	return a.watch(look)
}

// awaitRegistered: Registered counts once enough answers in a row say so, over
// the dwell time where Rolling was never seen; and the slot must name our
// version. One Registered between two Rolling is an answer that lags behind.
func (a *attempt) awaitRegistered(k roll.Key, version string, taken, exact bool, look roll.Look) roll.Event {
	enough := look.EqualReads >= a.d.cfg.Reads
	steady := enough && look.EqualSince != nil && a.now().Sub(*look.EqualSince) >= a.d.cfg.Dwell
	switch {
	case taken && (enough && a.step.SeenRolling || steady):
		res := roll.Result{Version: version, Versions: map[string]string{k.ID: version}, SeenRolling: a.step.SeenRolling,
			Evidence: roll.Confirmed, Source: "SharePoint is Registered and names the version"}
		if !exact {
			res.Evidence, res.Source = a.withoutVersion()
		}
		return a.done(res)
	case !taken && steady:
		return roll.Halted{N: a.step.N, Epoch: a.step.Epoch, Code: "sharepoint_slot_unchanged", OpEnded: true,
			Detail: "SharePoint is Registered again, and the " + string(a.step.Slot) + " slot does not name version " + version,
			Action: "look at the policy at Microsoft; then replan, which rolls the slot again"}
	}
	return a.watch(look)
}

// withoutVersion is the evidence of an operation whose end SharePoint shows
// without a version: no better than how its beginning is known.
func (a *attempt) withoutVersion() (roll.Evidence, string) {
	for _, n := range a.step.After {
		from, _ := a.roll.StepByN(n)
		switch {
		case from.Kind != roll.SharePointRollKey:
		case from.Result.AttestedBy != "":
			return roll.Attested, from.Result.AttestedBy + " says that the operation took effect; SharePoint is Registered and shows no version"
		case from.Result.Unproven:
			return roll.Accepted, "SharePoint is Registered; the answer to the roll was lost, and " + noVersion
		}
	}
	return roll.Accepted, "SharePoint is Registered; it shows no version"
}

// look counts equal answers.
func (a *attempt) look(seen roll.SharePointObservation) roll.Look {
	l := roll.Look{Seen: statusWord(seen.Status), Percent: whole(seen.Percent), Rolling: seen.Status == roll.Rolling, EqualReads: 1}
	now := a.now()
	l.EqualSince = &now
	if a.step.EqualReads > 0 && a.step.EqualSince != nil && a.step.Seen == l.Seen && seen.Status == roll.Registered {
		l.EqualReads, l.EqualSince = a.step.EqualReads+1, a.step.EqualSince
	}
	return l
}

// watch goes on watching: quietly where nothing has changed.
func (a *attempt) watch(l roll.Look) roll.Event {
	until := a.now().Add(a.pollPause())
	if a.step.State == roll.StepWaiting && a.step.WaitingFor == roll.WaitMicrosoft && a.step.Seen == l.Seen &&
		samePercent(a.step.Percent, l.Percent) && (a.step.SeenRolling || !l.Rolling) {
		return roll.Polled{N: a.step.N, Epoch: a.step.Epoch, Until: until, Look: l}
	}
	return roll.Waits{N: a.step.N, Epoch: a.step.Epoch, For: roll.WaitMicrosoft, Until: until, Look: l}
}

// pollFailed: a look that failed changes nothing about the operation. It goes
// on being watched; only a refusal that will not pass stops the roll.
func (a *attempt) pollFailed(err error) roll.Event {
	c := a.d.cfg.classify(err, max(a.step.Attempt, 1))
	if !c.Passing {
		return a.failed(err)
	}
	until := a.now().Add(max(c.After, a.pollPause()))
	if a.step.State == roll.StepWaiting {
		return roll.Polled{N: a.step.N, Epoch: a.step.Epoch, Until: until, Look: roll.Look{EqualReads: 0}}
	}
	return roll.Waits{N: a.step.N, Epoch: a.step.Epoch, For: roll.WaitMicrosoft, Until: until}
}

// pollPause is the pause between two looks at SharePoint: by runbook each is a job.
func (a *attempt) pollPause() time.Duration {
	if a.reads(roll.SharePoint, a.step.Geo) == roll.Automation {
		return a.d.cfg.PollRunbook
	}
	return a.d.cfg.Poll
}

// whole rounds a percentage down: a step of less than one percent over days is
// no news, and each piece of news is an audit entry.
func whole(p *float64) *float64 {
	if p == nil {
		return nil
	}
	v := math.Floor(*p)
	return &v
}

func samePercent(a, b *float64) bool {
	return a == nil && b == nil || a != nil && b != nil && *a == *b
}

func statusWord(s roll.SharePointStatus) string {
	if w := s.String(); w != "unknown" {
		return w
	}
	return fmt.Sprintf("unknown (%d)", int(s))
}
