package jobs

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/keyroll/keyroll/internal/roll"
)

// create gives a key its new version. The intent is committed before this
// runs; a crash or a lost answer anywhere after it leaves the intent open, and
// the next attempt looks for the operation's tag before it creates anything.
func (a *attempt) create(ctx context.Context) roll.Event {
	k, fault := a.key(a.step.Key)
	if fault != nil {
		return a.fault(fault)
	}
	v, err := a.d.tenants.Vault(a.inv, k)
	if err != nil {
		return a.failed(err)
	}
	if a.step.Params.Adopt != "" {
		return a.adopt(ctx, v, k)
	}
	if a.settle {
		return a.settleCreate(ctx, v, k)
	}
	if made := a.step.Result.Version; made != "" {
		// Made by an earlier attempt, which found it unfit for use.
		return a.created(ctx, v, k, roll.KeyVersion{Version: made}, roll.Result{ByTag: a.step.Result.ByTag})
	}
	latest, err := v.Get(ctx, k.Name, "")
	if err != nil {
		return a.failed(err)
	}
	if latest.Version != a.step.Params.OldVersion {
		return a.halt(roll.CodeStranger, fmt.Sprintf("the newest version of key %s in vault %s is %s, the plan expected %s: somebody else made it", k.Name, k.VaultName(), latest.Version, a.step.Params.OldVersion),
			"find out who made the version, then replan with strangers adopt (take it) or roll_again (make another)")
	}
	if ev := a.lastCheck(ctx); ev != nil {
		return ev
	}
	made, err := v.Create(ctx, k.Name, roll.SpecFrom(latest, a.step.Params.Size, a.step.Params.NotBefore), a.step.OpID)
	if err != nil {
		if c := a.d.cfg.classify(err, a.step.Attempt); c.Maybe {
			return a.later(a.now(), c.Code, "the answer was lost; looking for what it made: "+c.Detail)
		}
		return a.failed(err)
	}
	return a.created(ctx, v, k, made, roll.Result{})
}

// settleCreate finds out what became of an open intent: one version with the
// operation's tag is adopted, several are never chosen from, and none counts
// only after the deadline.
func (a *attempt) settleCreate(ctx context.Context, v vault, k roll.Key) roll.Event {
	past := a.deadlinePassed() // before the list: what it does not show may land while it is on its way
	versions, err := v.Versions(ctx, k.Name)
	if err != nil {
		return a.failed(err)
	}
	ops := a.roll.OperationIDs(a.step.N)
	var ours []roll.KeyVersion
	for _, kv := range versions {
		if slices.Contains(ops, kv.Tags[roll.OperationTag]) {
			ours = append(ours, kv)
		}
	}
	if len(ours) == 0 {
		// A list may lag behind; the newest version is shown at once.
		latest, err := v.Get(ctx, k.Name, "")
		if err != nil {
			return a.failed(err)
		}
		if slices.Contains(ops, latest.Tags[roll.OperationTag]) {
			ours = append(ours, latest)
		}
	}
	switch {
	case len(ours) == 1:
		return a.created(ctx, v, k, ours[0], roll.Result{ByTag: true})
	case len(ours) > 1:
		var ids []string
		for _, kv := range ours {
			ids = append(ids, kv.Version)
		}
		// The operation has ended, so its intent is closed: a person can replan.
		return roll.Halted{N: a.step.N, Epoch: a.step.Epoch, Code: "several_versions", OpEnded: true,
			Detail: fmt.Sprintf("key %s has %d versions of one operation: %s", k.Name, len(ours), strings.Join(ids, ", ")),
			Action: "Keyroll never chooses between versions: replan with strangers adopt takes the newest; all of them stay in the ledger"}
	case !past:
		return a.later(a.deadline(), "lost_answer", "no version of the operation is listed yet; looking again when it can land no more")
	}
	return a.notApplied()
}

// created reads the new version back and holds it against its predecessor
// before anything may use it. Whatever it is, it is recorded: it exists.
func (a *attempt) created(ctx context.Context, v vault, k roll.Key, made roll.KeyVersion, res roll.Result) roll.Event {
	read, err := v.Get(ctx, k.Name, made.Version)
	if err != nil {
		// Made, but not read back: the intent stays open and its tag finds it.
		c := a.d.cfg.classify(err, a.step.Attempt)
		if c.Passing {
			return a.later(a.now().Add(c.After), c.Code, c.Detail)
		}
		return roll.Halted{N: a.step.N, Epoch: a.step.Epoch, Code: c.Code, Detail: c.Detail, Action: c.Action}
	}
	old, err := v.Get(ctx, k.Name, a.step.Params.OldVersion)
	if err != nil {
		c := a.d.cfg.classify(err, a.step.Attempt)
		if c.Passing {
			return a.later(a.now().Add(c.After), c.Code, c.Detail)
		}
		return roll.Halted{N: a.step.N, Epoch: a.step.Epoch, Code: c.Code, Detail: c.Detail, Action: c.Action}
	}
	res.Version, res.CreatedAt, res.NotBefore, res.Source = read.Version, &read.Created, read.NotBefore, "Key Vault, read back"
	res.HSMPlatform = read.HSMPlatform
	f := roll.CheckNewVersion(k, old, read, a.step.Params.Size)
	if f == nil && a.step.Params.Migrate {
		f = roll.CheckPlatform(k, old, read)
	}
	if f != nil {
		return roll.Halted{N: a.step.N, Epoch: a.step.Epoch, Code: f.Code, Detail: f.Seen, Action: f.Remedy, Settled: true, Result: res}
	}
	return a.done(res)
}

// adopt takes an existing version in place of a new one.
func (a *attempt) adopt(ctx context.Context, v vault, k roll.Key) roll.Event {
	latest, err := v.Get(ctx, k.Name, "")
	if err != nil {
		return a.failed(err)
	}
	if latest.Version != a.step.Params.Adopt {
		return a.halt(roll.CodeStranger, fmt.Sprintf("the newest version of key %s is %s, to be adopted is %s", k.Name, latest.Version, a.step.Params.Adopt),
			"replan with strangers adopt or roll_again")
	}
	if a.step.Params.OldVersion != "" {
		old, err := v.Get(ctx, k.Name, a.step.Params.OldVersion)
		if err != nil {
			return a.failed(err)
		}
		if f := roll.CheckNewVersion(k, old, latest, a.step.Params.Size); f != nil {
			return a.fault(f)
		}
	}
	return a.done(roll.Result{Version: latest.Version, Adopted: true, CreatedAt: &latest.Created, NotBefore: latest.NotBefore, HSMPlatform: latest.HSMPlatform, Source: "Key Vault"})
}
