package roll

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// FindingKind is what is always so for a finding's code. Rows are those of
// Microsoft's set-up rules in docs/preflight.md ("" for what is Keyroll's own
// or the roll's).
type FindingKind struct {
	Code  string
	Level Level
	Rows  string
	// Seen says where the fact is read.
	Seen string
	// Means is the rule that is broken; Remedy is what a person does.
	Means, Remedy string
	// Weakenable is why a tenant may have an error as a warning; "" where no
	// tenant may: the rules of the roll's safety are not for a veto to bend.
	Weakenable string
}

// Where facts are read, for FindingKind.Seen.
const (
	seenKey        = "Key Vault: the key's newest version"
	seenVersions   = "Key Vault: the list of versions"
	seenRotation   = "Key Vault: the key's rotation policy"
	seenExchange   = "Exchange Online: the policies"
	seenSharePoint = "SharePoint Online: the status of the geo"
	seenDeclared   = "the declaration"
	seenAzure      = "Azure Resource Manager, with Reader"
)

// FindingKinds lists every code that a plan's findings may have, errors first.
// docs/preflight.md is made of it.
func FindingKinds() []FindingKind {
	out := slices.Concat(keyKinds(), policyKinds(), adviceKinds(), hsmKinds(), replaceKinds(), backupKinds(), unprovenKinds(), vaultKinds())
	slices.SortStableFunc(out, func(a, b FindingKind) int {
		return cmp.Or(cmp.Compare(levelOrder(a.Level), levelOrder(b.Level)), strings.Compare(a.Code, b.Code))
	})
	return out
}

func levelOrder(l Level) int { return slices.Index(Levels(), l) }

// KindOfFinding finds a code's kind.
func KindOfFinding(code string) (FindingKind, bool) {
	for _, k := range FindingKinds() {
		if k.Code == code {
			return k, true
		}
	}
	return FindingKind{}, false
}

const keepsSafe = "the rotation policy only shapes versions that are made later; each version is read back before it is used"

func keyKinds() []FindingKind {
	e := func(code, rows, seen, means, remedy string) FindingKind {
		return FindingKind{Code: code, Level: LevelError, Rows: rows, Seen: seen, Means: means, Remedy: remedy}
	}
	may := func(k FindingKind, why string) FindingKind {
		k.Weakenable = why
		return k
	}
	return []FindingKind{
		e("key_unreadable", "16", seenKey, "what cannot be read cannot be rolled", "grant Keyroll's application get, list and create on the vault's keys, and let it through the firewall"),
		e("key_expired", "12", seenKey, "operations with an expired key fail", "speak to Microsoft support first; an expiry can be moved, never removed"),
		e("key_has_expiry", "12", seenKey, "a version with an expiry will stop Microsoft 365 from reading its data", "make a version without an expiry, then replan and adopt it"),
		e("key_disabled", "13", seenKey, "a disabled version unwraps nothing", "enable it again"),
		e("key_not_before_future", "13", seenKey, "a version wraps nothing before its nbf", "wait until then"),
		e("key_wrong_type", "11", seenKey, "Customer Key needs RSA", "use an RSA or RSA-HSM key for the policy"),
		e("key_ops_missing", "14", seenKey, "Customer Key needs wrapKey and unwrapKey", "use a key made with both operations"),
		may(e("rotation_policy_expiry", "12", seenRotation, "the vault would stamp an expiry on each new version", "take the expiry time out of the rotation policy"), keepsSafe),
		e("too_many_tags", "", seenKey, "a version has at most 15 tags, the operation's own among them", "take a tag off the newest version"),
		e("adopt_version_missing", "", seenVersions, "the version to adopt does not exist", "name a version that the vault lists"),
		e("adopt_version_not_newest", "", seenVersions, "a refresh takes the newest version", "adopt the newest version, or ask for a new one"),
		e("version_differs", "", seenKey, "a new version is of the kind of its predecessor", "adopt a version of the same kind, or ask for a new one"),
		may(e("fewer_than_two_vaults", "1", seenDeclared, "a policy has two keys in two vaults", "correct the declaration"),
			"it is a rule of Customer Key's set-up: a policy that Microsoft took with one vault can be rolled, and one accident there can still cost both keys"),
	}
}

func policyKinds() []FindingKind {
	e := func(code, seen, means, remedy string) FindingKind {
		return FindingKind{Code: code, Level: LevelError, Seen: seen, Means: means, Remedy: remedy}
	}
	return []FindingKind{
		e("key_not_declared", seenDeclared, "a policy uses a key that is not declared", "declare the key"),
		e("policy_unreadable", seenExchange, "what cannot be read cannot be refreshed", "grant Keyroll's application the Exchange role that reads data encryption policies"),
		e(CodePolicyMissing, seenExchange, "the declared policy does not exist", "correct the declared GUID"),
		e("policy_guid_mismatch", seenExchange, "the policy is another than the declared one", "correct the declared GUID"),
		e("policy_disabled", seenExchange, "a disabled policy takes nothing up", "enable the policy, or take it out of the declaration"),
		e("policy_purge_requested", seenExchange, "a data purge is under way", "stop, and speak to Microsoft support"),
		e("policy_keys_mismatch", seenExchange, "the policy uses other keys than the declaration says", "correct the declaration to what the policy uses"),
		e("policy_keys_versioned", seenExchange, "a policy that names a version takes up no new one", "have the policy name its keys without a version"),
		e("undeclared_policy_uses_key", seenExchange, "a policy that is not declared would keep the old version unseen", "declare the policy"),
		e("sharepoint_unreadable", seenSharePoint, "what cannot be read cannot be rolled", "grant Keyroll's application Sites.FullControl.All with a certificate, and check the geo's admin URL"),
		{Code: "policy_unreadable_manual", Level: LevelNotChecked, Seen: seenExchange, Means: "declared manual, and Keyroll cannot look itself: a person checks the policy before the cmdlet, and what is known of the end is that person's word", Remedy: "grant Keyroll's application the Exchange role that reads data encryption policies"},
		{Code: "sharepoint_unreadable_manual", Level: LevelNotChecked, Seen: seenSharePoint, Means: "declared manual, and Keyroll cannot look itself: a person checks the slots before the cmdlet, and what is known of the end is that person's word", Remedy: "grant Keyroll's application Sites.FullControl.All with a certificate"},
		e("sharepoint_not_registered", seenSharePoint, "a key is rolled only where SharePoint is Registered", "wait for it, or speak to Microsoft support"),
		e(CodeSlotMismatch, seenSharePoint, "a swapped declaration could put one key into both slots", "correct which key is primary and which is secondary"),
	}
}

func adviceKinds() []FindingKind {
	w := func(code, rows, seen, means, remedy string) FindingKind {
		return FindingKind{Code: code, Level: LevelWarning, Rows: rows, Seen: seen, Means: means, Remedy: remedy}
	}
	return []FindingKind{
		w("recovery_level", "9", seenKey, "Microsoft's set-up asks for Recoverable+ProtectedSubscription", "turn on soft delete and purge protection, and register the mandatory retention period"),
		w("recovery_days", "7", seenKey, "Customer Key asks for 90 days of retention", "plan a move to a vault that has them: the days are fixed when a vault is made"),
		w("software_key", "18", seenKey, "Microsoft recommends HSM keys for production", "plan a move to RSA-HSM keys in a Premium vault"),
		w("many_versions", "19", seenVersions, "a backup fails past 500 versions", "plan to replace the key by a new one"),
		w("older_version_disabled", "13", seenVersions, "content may still be encrypted with it", "enable it again"),
		w("rotation_policy_unreadable", "12", seenRotation, "whether the vault stamps an expiry on new versions is not known", "grant get on the key's rotation policy"),
		w("rotation_policy_rotates", "", seenRotation, "versions that the vault makes are taken up by no policy", "turn automatic rotation off, or let Keyroll adopt its versions"),
		w("adopt_not_before", "13", seenKey, "the adopted version wraps nothing before its nbf, and the roll waits for it", "nothing, or ask for a new version"),
		w("adopt_tags_differ", "", seenKey, "the adopted version lacks its predecessor's tags", "set the tags in the vault if your tooling goes by them"),
		w("version_left_behind", "", seenVersions, "an earlier roll made a version that nothing took up", "adopt it instead of making another"),
		w("policy_name_differs", "", seenExchange, "the policy is called otherwise at Microsoft", "correct the declared name"),
		w("external_roll_under_way", "", seenSharePoint, "somebody rolls a key of this geo now", "nothing: the roll waits for it"),
		w("undeclared_policies_unreadable", "", seenExchange, "whether an undeclared policy uses a key of the plan is not known", "grant Keyroll's application the Exchange role that reads data encryption policies"),
	}
}

// CheckVetoes says which veto cannot stand, as *InvalidError: a code that does
// not exist, a level that is none, or an error that nobody may weaken.
func CheckVetoes(vetoes map[string]string) error {
	codes := make([]string, 0, len(vetoes))
	for code := range vetoes {
		codes = append(codes, code)
	}
	slices.Sort(codes)
	for _, code := range codes {
		bad := func(format string, args ...any) error {
			return &InvalidError{Pointer: "/vetoes/" + code, Detail: fmt.Sprintf(format, args...)}
		}
		kind, ok := KindOfFinding(code)
		switch level := Level(vetoes[code]); {
		case !ok:
			return bad("there is no finding with this code; near are %s", strings.Join(near(code), ", "))
		case level != LevelError && level != LevelWarning:
			return bad("a veto is error or warning, not %q: what was found cannot be hushed up", level)
		case level == LevelWarning && kind.Level == LevelError && kind.Weakenable == "":
			return bad("%s stays an error: %s, and a roll over it could cost data; mend it instead (%s)", code, kind.Means, kind.Remedy)
		case level == LevelWarning && kind.Level == LevelNotChecked:
			return bad("%s is not_checked by itself: leave the veto out, or make it an error", code)
		}
	}
	return nil
}

// near are the three codes most like the given one, for who mistyped.
func near(code string) []string {
	kinds := FindingKinds()
	slices.SortStableFunc(kinds, func(a, b FindingKind) int { return cmp.Compare(distance(code, a.Code), distance(code, b.Code)) })
	var out []string
	for _, k := range kinds[:3] {
		out = append(out, k.Code)
	}
	return out
}

// distance is Levenshtein's.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, diagonal+1)
		}
	}
	return row[len(b)]
}

// judge gives each finding the level that the tenant's vetoes say, and keeps
// its own beside it. A finding that a tenant holds for an error stands in the
// plan's hash like every error. A weakening that CheckVetoes would refuse is
// not followed, however it came into the declaration.
func judge(vetoes map[string]string, found []Finding) {
	for i := range found {
		f := &found[i]
		level := Level(vetoes[f.Code])
		if level == "" || level == f.Level || CheckVetoes(map[string]string{f.Code: string(level)}) != nil {
			continue
		}
		f.OwnLevel, f.Level = f.Level, level
		f.Passing = f.Passing && level != LevelError
	}
}
