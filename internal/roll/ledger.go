package roll

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
)

// States of a key version in the ledger: what its vault last said of it.
const (
	VersionEnabled     = "enabled"
	VersionDisabled    = "disabled"
	VersionExpired     = "expired"
	VersionSoftDeleted = "soft_deleted"
	VersionMissing     = "missing"
	VersionUnknown     = "unknown"
)

// VersionStates lists them.
func VersionStates() []string {
	return []string{VersionEnabled, VersionDisabled, VersionExpired, VersionSoftDeleted, VersionMissing, VersionUnknown}
}

// Codes of ledger violations. They stand in events, metrics and the database.
const (
	LedgerKeySoftDeleted  = "key_soft_deleted"
	LedgerKeyMissing      = "key_missing"
	LedgerVersionMissing  = "version_missing"
	LedgerVersionDisabled = "version_disabled"
	LedgerVersionExpired  = "version_expired"
	LedgerExpiresSoon     = "version_expires_soon"
	LedgerExpires         = "version_expires"
	LedgerPurgeable       = "recovery_level_purgeable"
	LedgerWeakened        = "recovery_level_weakened"
	LedgerRotationExpiry  = "rotation_policy_expiry"
	LedgerRotates         = "rotation_policy_rotates"
	LedgerUnverified      = "key_unverified"
)

// LedgerCodes lists every code of a violation: the closed label set of its metric.
func LedgerCodes() []string {
	return []string{LedgerKeySoftDeleted, LedgerKeyMissing, LedgerVersionMissing, LedgerVersionDisabled, LedgerVersionExpired, LedgerExpiresSoon,
		LedgerExpires, LedgerPurgeable, LedgerWeakened, LedgerRotationExpiry, LedgerRotates, LedgerUnverified}
}

// expirySoon is when an expiry that lies ahead counts as an error: the
// retention that Customer Key asks for, so that a person has as long for it
// as for a deleted key.
const expirySoon = 90 * 24 * time.Hour

// LedgerPolicy is a policy that uses, or ever used, a key of the ledger.
type LedgerPolicy struct {
	ID       string   `json:"id"`
	Name     string   `json:"name,omitempty"`
	Workload Workload `json:"workload"`
}

// LedgerKey is a key of the ledger as it is recorded: all its versions, by
// their ids, and every policy that ever used it. Level is the strongest
// recovery level ever seen of it, "" before the first look.
type LedgerKey struct {
	Key      Key
	Versions []string
	Policies []LedgerPolicy
	Level    string
}

// LedgerLook is what a vault said of one key at one moment. It exists only
// where the vault answered: a key that could not be read has no look.
type LedgerLook struct {
	// At is when the look began. What was recorded later is not judged by it.
	At time.Time
	// Gone: the vault says that it has no such key.
	Gone     bool
	Deleted  DeletedKey
	Versions []KeyVersion
	Rotation RotationPolicy
}

// DeletedKey is what a vault says of a deleted key of a name.
type DeletedKey struct {
	// Readable is false where the credential may not read deleted keys.
	Readable bool
	Found    bool
	// PurgeAt is when the vault destroys it for good; nil where it does not say.
	PurgeAt *time.Time
}

// State is the ledger state of a version by this look.
func (l LedgerLook) State(version string) string {
	if l.Gone {
		if l.Deleted.Found {
			return VersionSoftDeleted
		}
		return VersionMissing
	}
	i := slices.IndexFunc(l.Versions, func(v KeyVersion) bool { return v.Version == version })
	switch {
	case i < 0:
		return VersionMissing
	case !l.Versions[i].Enabled:
		return VersionDisabled
	case l.Versions[i].Expires != nil && !l.Versions[i].Expires.After(l.At):
		return VersionExpired
	}
	return VersionEnabled
}

// Judges says whether this look can tell that a violation of the code has
// ended: a key that is gone shows none of its versions' state, and a rotation
// policy that may not be read shows nothing.
func (l LedgerLook) Judges(code string) bool {
	switch code {
	case LedgerKeySoftDeleted, LedgerKeyMissing, LedgerUnverified:
		return true
	case LedgerRotationExpiry, LedgerRotates:
		return !l.Gone && l.Rotation.Readable
	}
	return !l.Gone
}

// Strangers are the listed versions that the ledger does not have.
func (l LedgerLook) Strangers(k LedgerKey) []KeyVersion {
	var out []KeyVersion
	for _, v := range l.Versions {
		if !slices.Contains(k.Versions, v.Version) {
			out = append(out, v)
		}
	}
	return out
}

// RecoveryLevel is the weakest recovery level among the listed versions.
func (l LedgerLook) RecoveryLevel() string {
	weakest := ""
	for _, v := range l.Versions {
		if weakest == "" || recoveryStrength(v.RecoveryLevel) < recoveryStrength(weakest) {
			weakest = v.RecoveryLevel
		}
	}
	return weakest
}

// Stronger is the stronger of two recovery levels; a known one beats none.
func Stronger(a, b string) string {
	if recoveryStrength(b) > recoveryStrength(a) {
		return b
	}
	return a
}

// recoveryStrength orders recovery levels by what can still destroy a key:
// anybody with the right to purge, whoever cancels the subscription, nobody.
func recoveryStrength(level string) int {
	switch {
	case level == "":
		return -1
	case level == "Purgeable":
		return 0
	case strings.Contains(level, "Purgeable"):
		return 1
	case strings.Contains(level, "ProtectedSubscription"):
		return 3
	}
	return 2
}

// Violation is a promise of the ledger that a look found broken. Version is ""
// where it is the whole key's. Detail says what was seen and what would be
// lost; Remedy what a person does: Keyroll itself does none of it (rule 1).
type Violation struct {
	Code     string         `json:"code"`
	Level    Level          `json:"level"`
	Version  string         `json:"version,omitempty"`
	Detail   string         `json:"detail"`
	Remedy   string         `json:"remedy"`
	Policies []LedgerPolicy `json:"policies"`
}

// CheckLedger holds a look against the ledger: every recorded version exists,
// is enabled and does not expire, and nothing makes it easier to lose than it
// was. Sorted by code, then version.
func CheckLedger(k LedgerKey, l LedgerLook) []Violation {
	c := &ledgerCheck{k: k, l: l}
	if l.Gone {
		c.gone()
		return c.found
	}
	for _, version := range k.Versions {
		c.version(version)
	}
	c.recovery()
	c.rotation()
	slices.SortFunc(c.found, func(a, b Violation) int {
		return cmp.Or(cmp.Compare(a.Code, b.Code), cmp.Compare(a.Version, b.Version))
	})
	return c.found
}

type ledgerCheck struct {
	k     LedgerKey
	l     LedgerLook
	found []Violation
}

func (c *ledgerCheck) add(code string, level Level, version, seen, remedy string) {
	c.found = append(c.found, Violation{Code: code, Level: level, Version: version, Detail: seen + ". " + c.k.AtStake(), Remedy: remedy, Policies: c.k.Policies})
}

func (c *ledgerCheck) gone() {
	k := c.k.Key
	where := "key " + k.Name + " in vault " + k.VaultName()
	switch {
	case c.l.Deleted.Found:
		until := ""
		if at := c.l.Deleted.PurgeAt; at != nil {
			until = ", and the vault destroys it for good on " + at.UTC().Format(time.RFC3339)
		}
		c.add(LedgerKeySoftDeleted, LevelError, "", where+" has been deleted with all its "+count(len(c.k.Versions), "version")+until,
			"recover it now: Undo-AzKeyVaultKeyRemoval "+k.arguments()+". Never purge it (Remove-AzKeyVaultKey -InRemovedState)")
	case c.l.Deleted.Readable:
		c.add(LedgerKeyMissing, LevelError, "", where+" is gone with all its "+count(len(c.k.Versions), "version")+"; the vault does not keep it as a deleted key either",
			"look once more, since a deletion takes a moment to show: Get-AzKeyVaultKey "+k.arguments()+" -InRemovedState, and Undo-AzKeyVaultKeyRemoval "+k.arguments()+" if it is there. If not, find out whether the key was purged, or the whole vault replaced by another of its name; speak to Microsoft support before anything is changed; if there is a backup of the key, restore it in a vault of the same subscription and geography: Restore-AzKeyVaultKey "+k.vaultArgument()+" -InputFile BACKUP")
	default:
		c.add(LedgerKeyMissing, LevelError, "", where+" is gone with all its "+count(len(c.k.Versions), "version")+"; whether the vault keeps it as a deleted key could not be read",
			"look for it among the deleted keys: Get-AzKeyVaultKey "+k.arguments()+" -InRemovedState; if it is there, recover it now: Undo-AzKeyVaultKeyRemoval "+k.arguments()+". Never purge it")
	}
}

func (c *ledgerCheck) version(version string) {
	k := c.k.Key
	where := "version " + version + " of key " + k.Name + " in vault " + k.VaultName()
	switch c.l.State(version) {
	case VersionMissing:
		c.add(LedgerVersionMissing, LevelError, version, where+" does not exist any more",
			"change nothing more on this key, and speak to Microsoft support: a single version cannot be brought back; find out whether the key was purged and restored from a backup that is older than this version")
		return
	case VersionDisabled:
		c.add(LedgerVersionDisabled, LevelError, version, where+" is disabled",
			"enable it again: Update-AzKeyVaultKey "+k.arguments()+" -Version '"+version+"' -Enable $true")
	}
	v := c.l.Versions[slices.IndexFunc(c.l.Versions, func(v KeyVersion) bool { return v.Version == version })]
	// The last day of the calendar is the one expiry that Customer Key tolerates.
	if v.Expires == nil || v.Expires.UTC().Year() >= 9999 {
		return
	}
	move := "an expiry can be moved but never removed; move it to the last day of the calendar, the only one that Customer Key tolerates: Update-AzKeyVaultKey " +
		k.arguments() + " -Version '" + version + "' -Expires ([datetime]'9999-12-31T00:00:00Z')"
	at := v.Expires.UTC().Format(time.RFC3339)
	switch left := v.Expires.Sub(c.l.At); {
	case left <= 0:
		c.add(LedgerVersionExpired, LevelError, version, where+" expired on "+at, move)
	case left <= expirySoon:
		c.add(LedgerExpiresSoon, LevelError, version, where+" expires on "+at, move)
	default:
		c.add(LedgerExpires, LevelWarning, version, where+" expires on "+at, move)
	}
}

func (c *ledgerCheck) recovery() {
	k, now := c.k.Key, c.l.RecoveryLevel()
	if now == "" {
		return
	}
	protect := "turn on purge protection, which can never be turned off again: Update-AzKeyVault -ResourceGroupName GROUP " + k.vaultArgument() + " -EnablePurgeProtection"
	if k.hsm() {
		protect = "turn on purge protection, which can never be turned off again: Update-AzKeyVaultManagedHsm -ResourceGroupName GROUP -Name '" + k.VaultName() + "' -EnablePurgeProtection"
	}
	switch {
	case strings.Contains(now, "Purgeable"):
		c.add(LedgerPurgeable, LevelError, "", "key "+k.Name+" in vault "+k.VaultName()+" has recovery level "+now+": whoever may purge can destroy it for good", protect)
	case recoveryStrength(now) < recoveryStrength(c.k.Level):
		c.add(LedgerWeakened, LevelError, "", "key "+k.Name+" in vault "+k.VaultName()+" has recovery level "+now+"; it was "+c.k.Level,
			"find out who changed the protection of the vault or its subscription, and restore it: with mandatory retention the subscription cannot be cancelled under the key")
	}
}

func (c *ledgerCheck) rotation() {
	k, r := c.k.Key, c.l.Rotation
	if !r.Readable {
		return // said as "not checked" beside the look
	}
	where := "the rotation policy of key " + k.Name + " in vault " + k.VaultName()
	switch {
	case r.ExpiryTime != "":
		level, seen := LevelWarning, where+" stamps an expiry of "+r.ExpiryTime+" on every new version"
		if r.AutoRotate {
			level, seen = LevelError, seen+", and makes new versions by itself"
		}
		c.add(LedgerRotationExpiry, level, "", seen,
			"take the expiry time out of the key's rotation policy (in the vault: Keys, "+k.Name+", Rotation policy): an expired key stops Microsoft 365 from reading its data")
	case r.AutoRotate:
		c.add(LedgerRotates, LevelWarning, "", where+" makes new versions by itself, which no policy takes up without a refresh",
			"turn automatic rotation off (in the vault: Keys, "+k.Name+", Rotation policy), or let a roll adopt its versions")
	}
}

// Unverified is the violation of a key that could not be read for too long. It
// says nothing of the key itself: what was last seen of it stands. absent:
// nothing shows that the vault is still there.
func (k LedgerKey) Unverified(since time.Time, t Trouble, action string, absent bool) Violation {
	v := Violation{Code: LedgerUnverified, Level: LevelWarning, Policies: k.Policies,
		Detail: "key " + k.Key.Name + " in vault " + k.Key.VaultName() + " could not be read since " + since.UTC().Format(time.RFC3339) + ", so whether its " +
			count(len(k.Versions), "version") + " are still there is not known: " + t.Detail + ". ",
		Remedy: cmp.Or(action, "see that the vault's firewall lets Keyroll through, and that Keyroll's application may get and list its keys")}
	if absent {
		v.Detail += "Nothing shows that the vault is there: the vault itself may be gone, with every key in it. "
		v.Remedy = k.Key.findVault()
	}
	v.Detail += k.AtStake()
	return v
}

// findVault is what a person does about a vault that may have been deleted.
func (k Key) findVault() string {
	noun, named := "AzKeyVault", "-VaultName '"+k.VaultName()+"'"
	if k.hsm() {
		noun, named = "AzKeyVaultManagedHsm", "-Name '"+k.VaultName()+"'"
	}
	return "find out first whether the vault still exists: Get-" + noun + " " + named + ". If not, it may be among the deleted ones: Get-" + noun + " " + named +
		" -Location LOCATION -InRemovedState; recover it now, with all its keys: Undo-" + noun + "Removal " + named + " -ResourceGroupName GROUP -Location LOCATION, and give it its role assignments again," +
		" which a deletion may take away. Never purge it (Remove-" + noun + " -InRemovedState). If it exists, see that its name is resolved where Keyroll runs, and that its firewall lets Keyroll through"
}

// AtStake names the policies that would lose data with the key, and which data.
func (k LedgerKey) AtStake() string {
	if len(k.Policies) == 0 {
		return "No policy is recorded for this key; treat it as in use: content may still be encrypted with it"
	}
	var all []string
	for _, p := range k.Policies {
		name := p.ID
		if p.Name != "" && p.Name != p.ID {
			name += " (" + p.Name + ")"
		}
		all = append(all, name+", "+p.Workload.Covers())
	}
	if len(all) == 1 {
		return "The policy that would lose data: " + all[0]
	}
	return "The policies that would lose data: " + strings.Join(all, "; ")
}

func (k Key) hsm() bool { return strings.Contains(k.Ref().Host, ".managedhsm.") }

// vaultArgument and arguments name the vault, and the key in it, to a cmdlet
// of Az.KeyVault.
func (k Key) vaultArgument() string {
	if k.hsm() {
		return "-HsmName '" + k.VaultName() + "'"
	}
	return "-VaultName '" + k.VaultName() + "'"
}

func (k Key) arguments() string { return k.vaultArgument() + " -Name '" + k.Name + "'" }

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
