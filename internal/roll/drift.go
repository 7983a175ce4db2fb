package roll

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Codes of drift. They are wire format and label values: never renamed.
const (
	DriftPolicyMissing  = "policy_missing"
	DriftPolicyExtra    = "policy_extra"
	DriftPolicyKeys     = "policy_keys_differ"
	DriftPolicyDisabled = "policy_disabled"
	DriftPolicyPurge    = "policy_purge_requested"
	DriftPolicyRenamed  = "policy_renamed"
	DriftKeyMissing     = "key_missing"
	DriftKeyNewer       = "key_newer_version"
	DriftSlotsSwapped   = "slots_swapped"
	DriftSlotOtherKey   = "slot_other_key"
	DriftSlotBehind     = "slot_version_behind"
	DriftSlotUnknown    = "slot_version_unknown"
	DriftGeoStatus      = "geo_status_not_registered"
	DriftAssignment     = "assignment_differs"
)

// DriftCodes lists every code of drift.
func DriftCodes() []string {
	return []string{DriftPolicyMissing, DriftPolicyExtra, DriftPolicyKeys, DriftPolicyDisabled, DriftPolicyPurge, DriftPolicyRenamed,
		DriftKeyMissing, DriftKeyNewer, DriftSlotsSwapped, DriftSlotOtherKey, DriftSlotBehind, DriftSlotUnknown, DriftGeoStatus, DriftAssignment}
}

// DriftItem is one difference between what a tenant declares and what
// Microsoft has. Key is equal each time the same difference is seen, and
// another one where what is seen is another thing. Source names the read that
// shows it: "key:<id>", "workload:<workload>", "geo:<id>" or "assignment".
type DriftItem struct {
	Key      string `json:"key"`
	Code     string `json:"code"`
	Subject  string `json:"subject"`
	Source   string `json:"source"`
	Declared string `json:"declared"`
	Seen     string `json:"seen"`
	Remedy   string `json:"remedy"`
}

// NotChecked is something that could not be compared, and why. It is no drift,
// and what was known of it before stands.
type NotChecked struct {
	Subject string `json:"subject"`
	Source  string `json:"source"`
	Code    string `json:"code"`
	Detail  string `json:"detail"`
	Remedy  string `json:"remedy"`
}

// CodeNotAsked: there was no reason to ask, so it is no failure to look.
const CodeNotAsked = "not_asked"

// codeVersionNotShown: SharePoint shows the slot's key without a version.
const codeVersionNotShown = "slot_version_not_shown"

// hides says whether the item could not have been seen again.
func (n NotChecked) hides(it DriftItem) bool {
	if n.Code == codeVersionNotShown {
		return n.Subject == it.Subject && (it.Code == DriftSlotBehind || it.Code == DriftSlotUnknown)
	}
	return n.Source == it.Source
}

// Recorded is a version that the ledger holds for a key. Accepted ones were
// there when the key was declared, or a roll made or adopted them; the others
// somebody else made.
type Recorded struct {
	Version  string
	Created  time.Time
	Accepted bool
}

// DriftBasis is what a comparison goes by. Ledger is by declared key id.
// Rolls are those that were open at any time while Microsoft was read, as they
// were before and as they were after: what they did themselves is no drift.
type DriftBasis struct {
	Inventory   Inventory
	Observation Observation
	Ledger      map[string][]Recorded
	Rolls       []Roll
}

// Comparison is the result: what differs, and what could not be compared.
type Comparison struct {
	Drift      []DriftItem
	NotChecked []NotChecked
}

// Failed counts what could not be compared though it should have been.
func (c Comparison) Failed() int {
	n := 0
	for _, x := range c.NotChecked {
		if x.Code != CodeNotAsked {
			n++
		}
	}
	return n
}

// Drift compares. Both lists are in a stable order.
func Drift(b DriftBasis) Comparison {
	c := &comparison{DriftBasis: b}
	for _, k := range b.Inventory.Keys {
		c.key(k)
	}
	c.policies()
	c.assignment()
	for _, p := range b.Inventory.Policies {
		if p.Workload == SharePoint {
			c.sharePoint(p)
		}
	}
	slices.SortFunc(c.out.Drift, func(x, y DriftItem) int {
		return cmp.Or(cmp.Compare(x.Subject, y.Subject), cmp.Compare(x.Key, y.Key))
	})
	slices.SortFunc(c.out.NotChecked, func(x, y NotChecked) int {
		return cmp.Or(cmp.Compare(x.Subject, y.Subject), cmp.Compare(x.Code, y.Code))
	})
	return c.out
}

// Settle holds a comparison against the drift that stands recorded: what is
// new, and what is gone. What could not be looked at is neither.
func (c Comparison) Settle(open []DriftItem) (detected, cleared []DriftItem) {
	has := func(list []DriftItem, key string) bool {
		return slices.ContainsFunc(list, func(it DriftItem) bool { return it.Key == key })
	}
	for _, it := range c.Drift {
		if !has(open, it.Key) {
			detected = append(detected, it)
		}
	}
	for _, it := range open {
		hidden := slices.ContainsFunc(c.NotChecked, func(n NotChecked) bool { return n.hides(it) })
		if !has(c.Drift, it.Key) && !hidden {
			cleared = append(cleared, it)
		}
	}
	return detected, cleared
}

type comparison struct {
	DriftBasis
	out Comparison
}

// add records a difference; with says what makes it another one than the last
// with the same code and subject.
func (c *comparison) add(code, subject, source, declared, seen, remedy string, with ...string) {
	key := strings.Join(append([]string{code, subject}, with...), "|")
	c.out.Drift = append(c.out.Drift, DriftItem{Key: key, Code: code, Subject: subject, Source: source, Declared: declared, Seen: seen, Remedy: remedy})
}

func (c *comparison) skip(subject, source, code, detail, remedy string) {
	c.out.NotChecked = append(c.out.NotChecked, NotChecked{Subject: subject, Source: source, Code: code, Detail: detail, Remedy: remedy})
}

// key looks for the key and for versions that nobody here knows of.
func (c *comparison) key(k Key) {
	subject := "key:" + k.ID
	ko, ok := c.Observation.Keys[k.ID]
	switch {
	case !ok:
		c.skip(subject, subject, "unread", "it was not read", keyTroubleRemedy(""))
		return
	case ko.Trouble != nil && ko.Trouble.Code == "not_found":
		c.add(DriftKeyMissing, subject, subject, "key "+k.Name+" in vault "+k.VaultName(), "the vault knows no such key: "+ko.Trouble.Detail,
			"look among the vault's deleted keys and recover it there (never purge it); if only the declaration is wrong, correct vault_url and name")
		return
	case ko.Trouble != nil:
		c.skip(subject, subject, ko.Trouble.Code, ko.Trouble.Detail, keyTroubleRemedy(ko.Trouble.Code))
		return
	}
	newest, known := newestAccepted(c.Ledger[k.ID])
	if !known {
		c.skip(subject, subject, "ledger_empty", "the ledger holds no version of it that a policy may have taken up", "declare the key again")
		return
	}
	for _, v := range listed(ko) {
		later := v.Version == ko.Latest.Version || v.Created.After(newest.Created)
		if !later || accepted(c.Ledger[k.ID], v.Version) || c.made(k.ID, v) {
			continue
		}
		c.add(DriftKeyNewer, subject, subject, "version "+newest.Version+" is the newest one recorded",
			fmt.Sprintf("version %s, made on %s, is in the vault, and no roll made or adopted it", v.Version, v.Created.UTC().Format(time.RFC3339)),
			"find out who made it, and whether the key's rotation policy did; then roll the key and adopt this version, so that every policy takes it up and it is on record. Never delete or disable it", v.Version)
	}
}

// listed are the versions that the vault lists, the newest one in any case.
func listed(ko KeyObservation) []KeyVersion {
	if slices.ContainsFunc(ko.Versions, func(v KeyVersion) bool { return v.Version == ko.Latest.Version }) {
		return ko.Versions
	}
	return append(slices.Clone(ko.Versions), ko.Latest)
}

func newestAccepted(list []Recorded) (out Recorded, ok bool) {
	for _, r := range list {
		if r.Accepted && (!ok || r.Created.After(out.Created)) {
			out, ok = r, true
		}
	}
	return out, ok
}

func accepted(list []Recorded, version string) bool {
	return slices.ContainsFunc(list, func(r Recorded) bool { return r.Accepted && r.Version == version })
}

// made says whether an open roll made the version, though its record may not
// have been committed when the ledger was read.
func (c *comparison) made(keyID string, v KeyVersion) bool {
	for _, r := range c.Rolls {
		if rk, ok := r.KeyByID(keyID); ok && rk.NewVersion == v.Version {
			return true
		}
		for _, s := range r.Steps {
			if s.Kind == CreateKeyVersion && s.Key == keyID && v.Tags[OperationTag] != "" && slices.Contains(r.OperationIDs(s.N), v.Tags[OperationTag]) {
				return true
			}
		}
	}
	return false
}
