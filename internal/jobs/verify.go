package jobs

import (
	"context"
	"time"

	"github.com/keyroll/keyroll/internal/msapi"
	"github.com/keyroll/keyroll/internal/roll"
)

// verify reads a policy once more and says how well its end is known.
func (a *attempt) verify(ctx context.Context) roll.Event {
	p, fault := a.policy()
	if fault != nil {
		return a.fault(fault)
	}
	if p.Workload == roll.SharePoint {
		return a.verifySharePoint(ctx, p)
	}
	if ev := a.rule5(ctx, p); ev != nil {
		return ev
	}
	res := roll.Result{Evidence: roll.Accepted, Versions: a.expected(p),
		Source: "Exchange accepted the refresh (" + a.step.Params.Transport.By(p.Workload) + "), and the policy's keys were at the recorded versions before and after it; Microsoft documents no completion signal"}
	if who := a.attester(); who != "" {
		res.Evidence, res.AttestedBy = roll.Attested, who
		res.Source = who + " says that the refresh was run by hand; Microsoft documents no completion signal"
	} else {
		a.test(ctx, p, &res)
	}
	a.inUse(ctx, p, &res)
	return a.done(res)
}

// testPatience bounds Microsoft's own test: it may take longer, and holds up nothing.
const testPatience = 20 * time.Second

// test lets Exchange test a multi-workload policy, where it can. Neither what
// it tries nor what it answers is documented, so it never changes the evidence:
// a test that is not there is said, and one that fails or is not understood is a warning.
func (a *attempt) test(ctx context.Context, p roll.Policy, res *roll.Result) {
	if p.Workload != roll.MultiWorkload {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, testPatience)
	defer cancel()
	m, err := a.d.tenants.Mail(a.inv, a.step.Params.Transport)
	var said roll.PolicyTest
	if err == nil {
		said, err = m.Test(ctx, p.GUID)
	}
	e, ok := msapi.AsError(err)
	switch {
	case ok && e.Kind == msapi.KindForbidden:
		said = roll.PolicyTest{Verdict: roll.TestNotAvailable, Detail: "the tenant has no such cmdlet, or Keyroll may not run it", At: a.now()}
	case err != nil:
		said = roll.PolicyTest{Verdict: roll.TestNotAvailable, Detail: a.d.cfg.classify(err, 1).Detail, At: a.now()}
	case said.Verdict == roll.TestUnhealthy:
		res.Warnings = append(res.Warnings, "Microsoft's own test of the policy (Test-M365DataAtRestEncryptionPolicy) failed: "+said.Detail)
	case said.Verdict == roll.TestUnclear:
		res.Warnings = append(res.Warnings, "what Microsoft's own test of the policy (Test-M365DataAtRestEncryptionPolicy) says cannot be told: "+said.Detail)
	}
	res.Test = &said
}

// verifySharePoint holds the slots against the versions of this roll. The
// evidence is the weakest of what the awaits saw and what the slots show now.
func (a *attempt) verifySharePoint(ctx context.Context, p roll.Policy) roll.Event {
	via := a.reads(roll.SharePoint, p.Geo)
	if via == roll.ReadsNothing {
		return a.attested(p)
	}
	s, err := a.d.tenants.Sites(a.inv, p.Geo, via)
	if err != nil {
		return a.failed(err)
	}
	seen, err := s.Status(ctx)
	if err != nil {
		return a.failed(err)
	}
	if f := a.followed(p); f != nil {
		return a.fault(f)
	}
	res := roll.Result{Evidence: roll.Confirmed, Source: "SharePoint's slots name the versions (rolled " + a.step.Params.Transport.By(roll.SharePoint) + ")", Versions: map[string]string{}}
	for _, slot := range []roll.Slot{roll.Primary, roll.Secondary} {
		id := p.SlotKey(slot)
		rk, ok := a.roll.KeyByID(id)
		if !ok {
			continue
		}
		k, fault := a.key(id)
		if fault != nil {
			return a.fault(fault)
		}
		taken, exact := roll.SlotTaken(k, seen.SlotURI(slot), rk.NewVersion)
		if !taken {
			return a.halt(roll.CodeSlotMismatch, "SharePoint's "+string(slot)+" slot names "+seen.SlotURI(slot)+", not version "+rk.NewVersion,
				"find out who changed the slot, then replan")
		}
		if !exact {
			e, source := a.awaited(slot)
			if res.Evidence = roll.Weakest(res.Evidence, e); res.Evidence == e {
				res.Source = source
			}
		}
		res.Versions[id] = rk.NewVersion
	}
	a.inUse(ctx, p, &res)
	return a.done(res)
}

// followed says whether the declaration names the keys that this roll put into
// the policy's slots: it followed when each operation was seen to have ended,
// unless somebody had edited it meanwhile.
func (a *attempt) followed(p roll.Policy) *roll.Fault {
	for _, s := range a.roll.Steps {
		if s.Round == a.step.Round && s.Kind == roll.SharePointAwait && s.Policy == p.ID && s.Params.Replaces != "" && p.SlotKey(s.Slot) != s.Key {
			return slotRedeclared(p, s)
		}
	}
	return nil
}

// awaited is what the await of a slot knew of its operation, where the slot
// itself shows no version.
func (a *attempt) awaited(slot roll.Slot) (roll.Evidence, string) {
	for _, s := range a.roll.Steps {
		if s.Round == a.step.Round && s.Kind == roll.SharePointAwait && s.Policy == a.step.Policy && s.Slot == slot && s.Result.Evidence != "" {
			return roll.Weakest(s.Result.Evidence, roll.Accepted), s.Result.Source
		}
	}
	return roll.Accepted, "SharePoint shows its keys without a version"
}
