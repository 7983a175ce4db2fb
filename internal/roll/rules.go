package roll

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Fault is a rule that what was observed breaks: a stable code, what was seen,
// and what a person does about it.
type Fault struct {
	Code   string `json:"code"`
	Seen   string `json:"seen"`
	Remedy string `json:"remedy"`
}

// Codes of faults that more than one place asks about.
const (
	CodeStranger      = "stranger_key_version"
	CodeSlotMismatch  = "sharepoint_slot_mismatch"
	CodePolicyMissing = "policy_missing"
)

// CheckRefresh is product rule 5, in its one place. Before a refresh, just
// before the call, and after it: the policy at Microsoft is the declared one,
// enabled, no purge requested, its AzureKeyIDs are the declared keys without a
// version; and each key's newest version is the expected one and usable.
// expected gives the version by key id. The first broken rule is returned.
func CheckRefresh(inv Inventory, p Policy, seen PolicyObservation, keys map[string]KeyObservation, expected map[string]string, now time.Time) *Fault {
	if f := checkPolicy(inv, p, seen); f != nil {
		return f
	}
	return CheckKeys(inv, p, keys, expected, now)
}

// CheckKeys is the half of rule 5 that the vaults answer: each key's newest
// version is the expected one and usable.
func CheckKeys(inv Inventory, p Policy, keys map[string]KeyObservation, expected map[string]string, now time.Time) *Fault {
	for _, id := range p.KeyIDs() {
		k, ok := inv.KeyByID(id)
		if !ok {
			return &Fault{"key_not_declared", "key " + id + " is not declared any more", "declare key " + id + " again, then replan"}
		}
		if f := checkCurrent(k, keys[id], expected[id], now); f != nil {
			return f
		}
	}
	return nil
}

func checkPolicy(inv Inventory, p Policy, seen PolicyObservation) *Fault {
	switch {
	case seen.Trouble != nil:
		return &Fault{"policy_unreadable", "reading policy " + p.Name + " failed: " + seen.Trouble.Detail, "grant Keyroll's application the Exchange role that reads data encryption policies, then retry"}
	case !seen.Found:
		return &Fault{CodePolicyMissing, "no policy with GUID " + p.GUID + " exists at Microsoft", "correct the declared GUID, or declare the policy that took its place, then replan"}
	case !strings.EqualFold(seen.GUID, p.GUID):
		return &Fault{"policy_guid_mismatch", "policy " + seen.Name + " has GUID " + seen.GUID + ", declared is " + p.GUID, "correct the declared GUID, then replan"}
	case !seen.Enabled:
		return &Fault{"policy_disabled", "policy " + seen.Name + " is disabled", "enable the policy at Microsoft, or remove it from the declaration, then replan"}
	case seen.PurgeRequested:
		return &Fault{"policy_purge_requested", "a permanent data purge has been requested on policy " + seen.Name, "stop: speak to Microsoft support before anything else touches this policy"}
	}
	var got []string
	for _, uri := range seen.AzureKeyIDs {
		ref, ok := ParseKeyURI(uri)
		if !ok {
			return &Fault{"policy_keys_mismatch", "policy " + seen.Name + " names a key in a form Keyroll does not know: " + uri, "check the policy's AzureKeyIDs at Microsoft"}
		}
		if ref.Version != "" {
			return &Fault{"policy_keys_versioned", "policy " + seen.Name + " names a fixed key version (" + uri + "), so a refresh would not take up a new one", "have the policy name its keys without a version, then replan"}
		}
		got = append(got, ref.Host+"/"+strings.ToLower(ref.Name))
	}
	var want []string
	for _, id := range p.KeyIDs() {
		k, _ := inv.KeyByID(id)
		want = append(want, k.Ref().Host+"/"+strings.ToLower(k.Name))
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		return &Fault{"policy_keys_mismatch", "policy " + seen.Name + " uses " + strings.Join(got, ", ") + "; declared are " + strings.Join(want, ", "), "correct the declaration to what the policy uses, then replan"}
	}
	return nil
}

// checkCurrent: GET of the key without a version returned the expected
// version, and it is usable now.
func checkCurrent(k Key, seen KeyObservation, expected string, now time.Time) *Fault {
	if seen.Trouble != nil {
		return &Fault{"key_unreadable", "reading key " + k.Name + " in vault " + k.VaultName() + " failed: " + seen.Trouble.Detail, keyTroubleRemedy(seen.Trouble.Code)}
	}
	if expected == "" || seen.Latest.Version != expected {
		return &Fault{CodeStranger,
			fmt.Sprintf("the newest version of key %s in vault %s is %s, expected %s: somebody else made it", k.Name, k.VaultName(), seen.Latest.Version, expected),
			"find out who made the version, then replan with strangers adopt (take it) or roll_again (make another)"}
	}
	return CheckUsable(k, seen.Latest, now)
}

// expiryRemedy is the way out for a version with an expiry: nothing that
// Keyroll may do mends it, and a plan over it has an error until it is no
// longer the newest.
const expiryRemedy = "an expiry can be moved but never removed: take the expiry time out of the key's rotation policy, make a version without one in the vault, then replan and adopt that version"

// CheckUsable says whether a version may be used by a policy now: enabled, nbf
// passed, no expiry.
func CheckUsable(k Key, v KeyVersion, now time.Time) *Fault {
	where := fmt.Sprintf("version %s of key %s in vault %s", v.Version, k.Name, k.VaultName())
	switch {
	case !v.Enabled:
		return &Fault{"key_disabled", where + " is disabled", "enable it again: no version that a policy ever used may be disabled"}
	case v.Expires != nil:
		return &Fault{"key_has_expiry", where + " expires on " + v.Expires.UTC().Format(time.RFC3339), expiryRemedy}
	case v.NotBefore != nil && v.NotBefore.After(now):
		return &Fault{"key_not_before_future", where + " is not valid before " + v.NotBefore.UTC().Format(time.RFC3339), "wait until then"}
	}
	return nil
}

// CheckSlot is product rule 6, in its one place: before a SharePoint key
// operation the slot at Microsoft names the declared vault, key and old
// version. Both slots are looked at, so that a swapped declaration can never
// put one key into both.
func CheckSlot(inv Inventory, p Policy, slot Slot, seen SharePointObservation, oldVersion string) *Fault {
	for _, s := range []Slot{Primary, Secondary} {
		id := p.SlotKey(s)
		k, ok := inv.KeyByID(id)
		if !ok {
			return &Fault{"key_not_declared", "key " + id + " is not declared any more", "declare key " + id + " again, then replan"}
		}
		ref, ok := ParseKeyURI(seen.SlotURI(s))
		if !ok || !ref.SameKey(k.Ref()) {
			return &Fault{CodeSlotMismatch, fmt.Sprintf("SharePoint's %s key is %q; declared is %s", s, seen.SlotURI(s), k.URI("")),
				"correct which key is primary and which is secondary in the declaration, then replan"}
		}
		if s == slot && ref.Version != oldVersion {
			return &Fault{CodeSlotMismatch, fmt.Sprintf("SharePoint's %s key has version %q; the plan expected %q", s, ref.Version, oldVersion),
				"somebody rolled this slot since the plan was made: replan"}
		}
	}
	return nil
}

// SlotTaken says whether the slot names the key in the wanted version. exact
// is false where SharePoint shows the URI without a version, which proves less.
func SlotTaken(k Key, uri, version string) (taken, exact bool) {
	ref, ok := ParseKeyURI(uri)
	if !ok || !ref.SameKey(k.Ref()) {
		return false, false
	}
	if ref.Version == "" {
		return true, false
	}
	return ref.Version == version, true
}

// OperationTag is the tag on a key version that carries the id of the
// operation that made it.
const OperationTag = "keyroll-op"

// CreateSpec is how a new key version is asked for.
type CreateSpec struct {
	Kty       string
	Size      int
	KeyOps    []string
	Tags      map[string]string
	NotBefore *time.Time
}

// Receipt is what Exchange said to a refresh that it took. Unknown are those
// of the Warnings that are not known to be harmless.
type Receipt struct {
	Warnings, Unknown []string
	// RequestID is Microsoft's id of the call.
	RequestID string
	At        time.Time
}

// SpecFrom is the first half of product rule 8: a new version copies kty (and
// with it the protection), size, key_ops and tags of its predecessor, and has
// no expiry. size asks for a larger one; 0 copies the predecessor's.
func SpecFrom(old KeyVersion, size int, notBefore *time.Time) CreateSpec {
	tags := map[string]string{}
	for k, v := range old.Tags {
		if k != OperationTag {
			tags[k] = v
		}
	}
	return CreateSpec{Kty: old.Kty, Size: wantedSize(old, size), KeyOps: slices.Clone(old.KeyOps), Tags: tags, NotBefore: notBefore}
}

// wantedSize is the size that a new version must have: exactly the one asked
// for, else the predecessor's.
func wantedSize(old KeyVersion, asked int) int {
	if asked != 0 {
		return asked
	}
	return old.Size
}

// CheckNewVersion is the second half of rule 8: what the vault made (or what
// is to be adopted) has the predecessor's kty, size and key_ops, is enabled and
// has no expiry. size is the larger one that was asked for, or 0.
func CheckNewVersion(k Key, old, made KeyVersion, size int) *Fault {
	where := fmt.Sprintf("version %s of key %s in vault %s", made.Version, k.Name, k.VaultName())
	remedy := "do not use this version (and never delete it): replan with a version of the same kind as its predecessor"
	switch {
	case !strings.EqualFold(made.Kty, old.Kty):
		return &Fault{"version_differs", fmt.Sprintf("%s is %s, its predecessor %s", where, made.Kty, old.Kty), remedy}
	case made.Size < old.Size:
		return &Fault{"version_differs", fmt.Sprintf("%s has %d bits, its predecessor %d", where, made.Size, old.Size), remedy}
	case made.Size != wantedSize(old, size):
		return &Fault{"version_differs", fmt.Sprintf("%s has %d bits, its predecessor %d, and %d were asked for", where, made.Size, old.Size, wantedSize(old, size)), remedy}
	case !sameSet(made.KeyOps, old.KeyOps):
		return &Fault{"version_differs", fmt.Sprintf("%s permits %v, its predecessor %v", where, made.KeyOps, old.KeyOps), remedy}
	case !made.Enabled:
		return &Fault{"key_disabled", where + " is disabled", "enable it, then retry"}
	case made.Expires != nil:
		return &Fault{"key_has_expiry", where + " expires on " + made.Expires.UTC().Format(time.RFC3339),
			expiryRemedy}
	}
	return nil
}

func sameSet(a, b []string) bool {
	a, b = slices.Clone(a), slices.Clone(b)
	slices.Sort(a)
	slices.Sort(b)
	return slices.Equal(a, b)
}

func keyTroubleRemedy(code string) string {
	switch code {
	case "forbidden":
		return "grant Keyroll's application get, list and create on keys of this vault (Key Vault Crypto Officer, or an access policy), and let it through the vault's firewall"
	case "not_found":
		return "correct the declared vault and key name"
	}
	return "try again; if it persists, check the vault's network rules and Keyroll's credential"
}
