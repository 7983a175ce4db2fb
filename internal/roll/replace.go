package roll

import (
	"fmt"
	"slices"
)

// Replacement asks for another key in a slot of a SharePoint policy: an
// explicit kind of roll, after which the declaration names that key. The key
// must be declared, and no policy may use it.
type Replacement struct {
	Policy string `json:"policy"`
	Slot   Slot   `json:"slot"`
	Key    string `json:"key"`
	// Version is "new" (also where left out), or the existing version to take.
	Version string `json:"version,omitempty"`
}

// Kinds of plan. An ordinary roll has none.
const (
	KindRoll    = "roll"
	KindReplace = "replace"
)

// PlanReplacement is a slot that takes another key. The key that leaves it
// keeps its versions, and their place in the ledger, for ever.
type PlanReplacement struct {
	Policy      string `json:"policy"`
	Slot        Slot   `json:"slot"`
	Key         string `json:"key"`
	OldKey      string `json:"old_key"`
	OldVaultURL string `json:"old_vault_url"`
	OldName     string `json:"old_name"`
	// OldVersion that the slot names; "" where SharePoint shows none.
	OldVersion string `json:"old_version"`
}

// KindWord is the plan's kind in words that programs read.
func (p Plan) KindWord() string {
	if p.Kind == "" {
		return KindRoll
	}
	return p.Kind
}

// resolveReplace checks a request that replaces keys. It is one kind of roll
// by itself: a request that also rolls keys would leave open which of both an
// approver has read about.
func resolveReplace(inv Inventory, req Request) (Resolved, error) {
	if len(req.Policies)+len(req.Keys) > 0 {
		return Resolved{}, &InvalidError{"/replace", "a replacement is a roll of its own: leave policies and keys out, or replace out"}
	}
	out := Resolved{Request: req}
	taken := map[string]bool{}
	for i, r := range req.Replace {
		at := fmt.Sprintf("/replace/%d", i)
		if err := checkReplacement(inv, at, r); err != nil {
			return Resolved{}, err
		}
		for _, what := range []string{"slot " + r.Policy + "/" + string(r.Slot), "key " + r.Key} {
			if taken[what] {
				return Resolved{}, &InvalidError{at, what + " is named twice"}
			}
			taken[what] = true
		}
		k, err := checkVersionWanted(at, KeyRequest{Type: RootKey, ID: r.Key, Version: r.Version})
		if err != nil {
			return Resolved{}, err
		}
		out.Keys = append(out.Keys, k)
	}
	return out, nil
}

func checkReplacement(inv Inventory, at string, r Replacement) error {
	p, ok := inv.PolicyByID(r.Policy)
	switch {
	case !ok:
		return &InvalidError{at + "/policy", fmt.Sprintf("policy %q is not declared; declared are: %s", r.Policy, policyIDs(inv))}
	case p.Workload != SharePoint:
		return &InvalidError{at + "/policy", fmt.Sprintf("policy %q is of workload %s: only a SharePoint policy has slots whose key can be replaced", r.Policy, p.Workload)}
	case r.Slot != Primary && r.Slot != Secondary:
		return &InvalidError{at + "/slot", `use "primary" or "secondary"`}
	}
	if _, ok := inv.KeyByID(r.Key); !ok {
		return &InvalidError{at + "/key", fmt.Sprintf("key %q is not declared; declare it first, without a policy that uses it; declared are: %s", r.Key, keyIDs(inv))}
	}
	if users := inv.PoliciesUsing(r.Key); len(users) > 0 {
		return &InvalidError{at + "/key", fmt.Sprintf("policy %q uses key %q: a slot takes a key that no policy uses", users[0].ID, r.Key)}
	}
	return nil
}

// SlotKey is the declared id of the key in a slot of the policy.
func (p Policy) SlotKey(s Slot) string {
	if s == Secondary {
		return p.Secondary
	}
	return p.Primary
}

func (p *Policy) setSlot(s Slot, key string) {
	if s == Secondary {
		p.Secondary = key
	} else {
		p.Primary = key
	}
}

// Redeclare is the effect by which the declaration follows a slot that took
// another key: in the transaction that records the end of the operation.
type Redeclare struct {
	Policy   string
	Slot     Slot
	Old, New string
}

func (Redeclare) effect() {}

// Follow is the declaration after the slot took the key: the policy names it,
// and the one that left is a former key, unless another policy still uses it.
// ok is false, and the declaration stays, where the slot names another key
// than the one that was replaced, or the new one is not declared (any more).
func (inv Inventory) Follow(e Redeclare) (next Inventory, ok bool) {
	p, found := inv.PolicyByID(e.Policy)
	if _, declared := inv.KeyByID(e.New); !found || !declared || p.SlotKey(e.Slot) != e.Old {
		return inv, false
	}
	next = inv.with(e.Policy, e.Slot, e.New)
	if old, ok := inv.KeyByID(e.Old); ok && len(next.PoliciesUsing(e.Old)) == 0 {
		next.Keys = slices.DeleteFunc(slices.Clone(inv.Keys), func(k Key) bool { return k.ID == e.Old })
		next.FormerKeys = append(slices.Clone(inv.FormerKeys), old)
	}
	return next, true
}

// with is the declaration with another key in a slot.
func (inv Inventory) with(policy string, s Slot, key string) Inventory {
	inv.Policies = slices.Clone(inv.Policies)
	for i := range inv.Policies {
		if inv.Policies[i].ID == policy {
			inv.Policies[i].setSlot(s, key)
		}
	}
	return inv
}

// aim fills the plan's replacements, and gives the declaration as it will be:
// steps and policies are planned on it, checks are made on the present one. A
// slot that names its new key already needs none.
func (b *builder) aim(reps []Replacement) {
	b.aimed = b.inv
	if len(reps) > 0 {
		b.plan.Kind = KindReplace
	}
	for _, r := range reps {
		p, ok := b.inv.PolicyByID(r.Policy)
		old, declared := b.inv.KeyByID(p.SlotKey(r.Slot))
		if !ok || !declared || p.Workload != SharePoint || old.ID == r.Key {
			continue
		}
		ref, _ := ParseKeyURI(b.obs.SharePoint[p.Geo].SlotURI(r.Slot))
		b.plan.Replaces = append(b.plan.Replaces, PlanReplacement{Policy: r.Policy, Slot: r.Slot, Key: r.Key,
			OldKey: old.ID, OldVaultURL: old.VaultURL, OldName: old.Name, OldVersion: ref.Version})
		b.aimed = b.aimed.with(r.Policy, r.Slot, r.Key)
	}
}

// replaces is the id of the key that leaves a slot; "" where none does.
func (p Plan) replaces(policy string, s Slot) string {
	for _, r := range p.Replaces {
		if r.Policy == policy && r.Slot == s {
			return r.OldKey
		}
	}
	return ""
}

// CheckReplacement is what must hold before a slot takes another key, when the
// plan is made and once more just before the call: that key is in no other
// policy, and neither it nor its vault is in the other slot (rule 6).
func CheckReplacement(inv Inventory, p Policy, slot Slot, seen SharePointObservation, k Key) *Fault {
	other := Secondary
	if slot == Secondary {
		other = Primary
	}
	for _, user := range inv.PoliciesUsing(k.ID) {
		if user.ID != p.ID || p.SlotKey(slot) != k.ID {
			return &Fault{"replacement_key_in_use", fmt.Sprintf("policy %s uses key %s, which is to go into the %s slot of policy %s", user.ID, k.ID, slot, p.ID),
				"replace by a key that no policy uses"}
		}
	}
	declared, _ := inv.KeyByID(p.SlotKey(other))
	shown, _ := ParseKeyURI(seen.SlotURI(other))
	for _, ref := range []KeyRef{declared.Ref(), shown} {
		switch {
		case ref.SameKey(k.Ref()):
			return &Fault{"replacement_in_other_slot", fmt.Sprintf("key %s is in the %s slot; it would be in both", k.ID, other),
				"replace by another key, in another vault: with one key in both slots, its loss is the loss of the data"}
		case ref.Host == k.Ref().Host:
			return &Fault{"replacement_same_vault", fmt.Sprintf("key %s is in vault %s, and so is the key in the %s slot", k.ID, k.VaultName(), other),
				"replace by a key in another vault: Customer Key needs two"}
		}
	}
	return nil
}
