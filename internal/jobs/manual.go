package jobs

import (
	"context"
	"fmt"
	"time"

	"github.com/keyroll/keyroll/internal/roll"
)

// A manual step's intent is open from the moment its line is shown: somebody
// may have run it, today or in a week. A claim whose line was never shown did
// nothing, so there is nothing to settle.

// shown says that people have seen this step's line.
func (a *attempt) shown() bool { return a.step.Offer != nil }

// refreshByHand shows the refresh cmdlet after the checks of rule 5, and takes
// a person's report.
func (a *attempt) refreshByHand(ctx context.Context) roll.Event {
	a.settle = a.settle && a.shown()
	p, fault := a.policy()
	if fault != nil {
		return a.fault(fault)
	}
	if a.step.Report != nil {
		res := roll.Result{Versions: a.expected(p)}
		if via := a.reads(p.Workload, ""); via != roll.ReadsNothing {
			if m, err := a.d.tenants.Mail(a.inv, via); err == nil {
				res.Mailboxes = a.mailboxes(ctx, m, p)
			}
		}
		ev := a.refreshed(ctx, p, roll.Receipt{}, res)
		if done, ok := ev.(roll.Done); ok {
			done.Result.Source = a.said() + " that the refresh was run by hand"
			return done
		}
		return ev
	}
	if ev := a.rule5(ctx, p); ev != nil {
		return ev
	}
	offer, fault := roll.ExchangeLine(a.inv, p)
	return a.offer(ctx, offer, fault)
}

// rollByHand shows the SharePoint cmdlet, under the lease and after rules 4
// and 6, and settles what a person reports by SharePoint's own status where
// that can be read.
func (a *attempt) rollByHand(ctx context.Context, p roll.Policy, k roll.Key, version string) roll.Event {
	a.settle = a.settle && a.shown()
	var s sites
	if via := a.reads(roll.SharePoint, a.step.Geo); via != roll.ReadsNothing {
		var err error
		if s, err = a.d.tenants.Sites(a.inv, a.step.Geo, via); err != nil {
			return a.failed(err)
		}
	}
	if a.step.Report != nil {
		return a.reportedRoll(ctx, s, k, version)
	}
	if ev := a.usable(ctx, k, version); ev != nil {
		return ev
	}
	ready := func() roll.Event { return a.slotDeclared(p, k, roll.SharePointObservation{}) }
	if s != nil {
		ready = func() roll.Event { return a.slotReady(ctx, s, p, k, version) }
	}
	if ev := ready(); ev != nil {
		return ev
	}
	if ev := a.underLease(ctx); ev != nil {
		return ev
	}
	geo, _ := a.inv.GeoByID(a.step.Geo)
	offer, fault := roll.SharePointLine(a.inv, geo, k, version, a.step.Slot, a.step.Params.ByURI)
	return a.offer(ctx, offer, fault)
}

// offer shows the line. The calendar is asked just before the first time that
// a line with an effect is shown; from then on it binds people by the words alone.
func (a *attempt) offer(ctx context.Context, o roll.Offer, fault *roll.Fault) roll.Event {
	if fault != nil {
		return a.fault(fault)
	}
	o.At = a.now()
	switch {
	case a.shown():
		o.At, o.Until = a.step.Offer.At, a.step.Offer.Until // since when it may have been run
	case a.step.Kind.HasEffect():
		// A line that is seen may be run: showing it is the call.
		if ev := a.lastCheck(ctx); ev != nil {
			return ev
		}
		if at := a.inv.ClosesAt(o.At); !a.roll.Emergency() && !at.IsZero() {
			o.Until = &at
		}
	}
	if !a.mayAct() {
		return a.tooStale()
	}
	return roll.Offered{N: a.step.N, Epoch: a.step.Epoch, Offer: o}
}

// reportedRoll: a person says that the cmdlet ran. SharePoint's status is the
// better witness; only where it cannot be read the word stands alone.
func (a *attempt) reportedRoll(ctx context.Context, s sites, k roll.Key, version string) roll.Event {
	if s == nil {
		return a.done(roll.Result{Version: version, AttestedBy: a.step.Report.By.Subject, Source: a.said() + " that the roll was begun by hand"})
	}
	seen, err := s.Status(ctx)
	if err != nil {
		return a.failed(err)
	}
	taken, exact := roll.SlotTaken(k, seen.SlotURI(a.step.Slot), version)
	look := roll.Look{Seen: statusWord(seen.Status), Percent: whole(seen.Percent), Rolling: seen.Status == roll.Rolling}
	switch {
	case seen.Status == roll.Rolling, seen.Status == roll.Registered && taken:
		res := roll.Result{Version: version, SeenRolling: a.step.SeenRolling || look.Rolling,
			Source: a.said() + " that the roll was begun by hand; SharePoint shows " + look.Seen}
		if !exact && !res.SeenRolling {
			res.AttestedBy = a.step.Report.By.Subject // nothing but the report tells it from what was there before
		}
		return a.done(res)
	case seen.Status != roll.Registered:
		return roll.Waits{N: a.step.N, Epoch: a.step.Epoch, For: roll.WaitOwnUnproven, Until: a.now().Add(a.pollPause()), Look: look}
	}
	if until := a.step.Report.At.Add(a.d.cfg.Dwell); a.now().Before(until) {
		return a.later(until, "reported_not_seen", a.said()+" that the roll was begun; SharePoint does not show it yet")
	}
	return roll.Halted{N: a.step.N, Epoch: a.step.Epoch, Code: "reported_not_seen",
		Detail: a.said() + " that the roll was begun by hand; SharePoint is " + look.Seen + ", and the " + string(a.step.Slot) + " slot does not name version " + version,
		Action: "find out what was run; report not_done if it was not, and the line is shown again"}
}

// awaitByHand has a person look whether the roll has ended, where Keyroll cannot.
func (a *attempt) awaitByHand(ctx context.Context, k roll.Key) roll.Event {
	rk, _ := a.roll.KeyByID(k.ID)
	if a.step.Report != nil {
		return a.done(roll.Result{Version: rk.NewVersion, Versions: map[string]string{k.ID: rk.NewVersion}, Evidence: roll.Attested, AttestedBy: a.step.Report.By.Subject,
			Source: a.said() + " that SharePoint is Registered and its " + string(a.step.Slot) + " slot names version " + rk.NewVersion})
	}
	geo, _ := a.inv.GeoByID(a.step.Geo)
	offer, fault := roll.SharePointCheckLine(a.inv, geo)
	return a.offer(ctx, offer, fault)
}

// attested ends a SharePoint policy on people's word alone.
func (a *attempt) attested(p roll.Policy) roll.Event {
	res := roll.Result{Evidence: roll.Attested, Versions: map[string]string{}, Source: a.attester() + " says so; Keyroll cannot read this geo"}
	for _, id := range p.KeyIDs() {
		if rk, ok := a.roll.KeyByID(id); ok {
			res.Versions[id] = rk.NewVersion
		}
	}
	return a.done(res)
}

// said begins a sentence with who reported the step, and when.
func (a *attempt) said() string {
	return fmt.Sprintf("%s reported at %s", a.step.Report.By.Subject, a.step.Report.At.UTC().Format(time.RFC3339))
}

// attester names who reported the manual steps on whose word this step rests;
// "" where none does.
func (a *attempt) attester() string {
	if a.step.Params.Transport != roll.Manual {
		return ""
	}
	for i := len(a.roll.Steps) - 1; i >= 0; i-- {
		s := a.roll.Steps[i]
		if s.Round == a.step.Round && s.Policy == a.step.Policy && s.Report != nil {
			return s.Report.By.Subject
		}
	}
	return ""
}
