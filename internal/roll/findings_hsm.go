package roll

import (
	"fmt"
	"strconv"
)

// A Managed HSM holds 100 versions of a key, and none can be removed
// (customer-key.md 5.4), so the warning comes early.
const (
	maxHSMVersions  = 100
	manyHSMVersions = 80
)

// platformOld is the hsmPlatform that Microsoft asks to leave (customer-key.md
// 2.13): 0 is software, 1 the old platform, 2 the new one.
const platformOld = 1

func hsmKinds() []FindingKind {
	w := func(code, rows, seen, means, remedy string) FindingKind {
		return FindingKind{Code: code, Level: LevelWarning, Rows: rows, Seen: seen, Means: means, Remedy: remedy}
	}
	return []FindingKind{
		{Code: "hsm_version_limit", Level: LevelError, Seen: seenVersions, Means: "a Managed HSM holds 100 versions of a key, so that a new one could not be made", Remedy: "replace the key by a new one"},
		{Code: "key_size_smaller", Level: LevelError, Seen: seenKey, Means: "a new version is never smaller than its predecessor", Remedy: "ask for the same size or a larger one"},
		w("hsm_versions_many", "", seenVersions, "a Managed HSM holds 100 versions of a key, and none can be removed", "plan to replace the key by a new one"),
		w("hsm_platform_old", "18", seenKey, "Microsoft asks to leave HSM platform 1", "roll the key: new versions are made on platform 2"),
		w("hsm_migration_not_needed", "", seenKey, "a roll for the sake of the HSM platform changes nothing about a key that is not on platform 1", "leave the key out, or give the reason that holds"),
		w("hsm_platform_unchanged", "", seenKey, "the version to adopt is on platform 1, which the roll is to leave", "approve only if that is meant; else ask for a new version"),
	}
}

// hsm looks at what protects the key, and at a Managed HSM's own limits.
func (c *inspection) hsm(subject string, k Key, pk PlanKey, ko KeyObservation, rolled bool) {
	makes := rolled && pk.Version == NewVersion
	if n := len(ko.Versions); ko.ManagedHSM && n >= manyHSMVersions {
		seen := fmt.Sprintf("key %s has %d versions; a Managed HSM holds %d of a key, and none can be removed", k.Name, n, maxHSMVersions)
		remedy := "replace the key by a new one before it is full: in SharePoint by a roll with replace, in Exchange by a new policy"
		if makes && n >= maxHSMVersions {
			c.err(subject, "hsm_version_limit", seen, remedy)
		} else {
			c.warn(subject, "hsm_versions_many", seen, remedy)
		}
	}
	old := platform(ko.Latest) == platformOld
	if old {
		c.warn(subject, "hsm_platform_old", "version "+ko.Latest.Version+" of key "+k.Name+" is on HSM platform 1",
			"Microsoft points Customer Key users of platform 1 to a roll: new versions are made on platform 2")
	}
	if rolled && c.migrates && !old {
		c.warn(subject, "hsm_migration_not_needed", "key "+k.Name+" is not on HSM platform 1: the vault shows "+platformWord(ko.Latest),
			"leave the key out of this roll, or give the reason that holds for it")
	}
	if rolled && c.migrates && old && !makes {
		c.warn(subject, "hsm_platform_unchanged", "version "+pk.Version+" of key "+k.Name+", which is to be adopted, is on HSM platform 1: the key does not leave it by this roll",
			"approve only if that is meant; else ask for a new version when the vault makes them on platform 2")
	}
}

// CheckPlatform is asked of a new version that a roll for the sake of the HSM
// platform has made: it must have left the old one.
func CheckPlatform(k Key, old, made KeyVersion) *Fault {
	if platform(old) != platformOld || platform(made) > platformOld {
		return nil
	}
	return &Fault{"hsm_platform_unchanged",
		fmt.Sprintf("the new version %s of key %s in vault %s shows %s; its predecessor is on HSM platform 1, and the aim of this roll is to leave it", made.Version, k.Name, k.VaultName(), platformWord(made)),
		"ask Microsoft when the vault's region has the new platform, and cancel (the version stays, and is offered next time); or replan, which adopts it, so that a second person decides"}
}

// platform is the number of the HSM platform; -1 where the vault shows none or
// one that is no number.
func platform(v KeyVersion) int {
	n, err := strconv.Atoi(v.HSMPlatform)
	if err != nil {
		return -1
	}
	return n
}

func platformWord(v KeyVersion) string {
	switch {
	case v.HSMPlatform == "":
		return "no platform"
	case platform(v) == 0:
		return "platform 0 (software)"
	}
	return "platform " + v.HSMPlatform
}

// size: a new version may be larger than its predecessor, never smaller.
func (c *inspection) size(subject string, k Key, pk PlanKey, ko KeyObservation) {
	if pk.Size != 0 && pk.Size < ko.Latest.Size {
		c.err(subject, "key_size_smaller", fmt.Sprintf("key %s has %d bits, and %d are asked for", k.Name, ko.Latest.Size, pk.Size),
			fmt.Sprintf("ask for %d bits or more, or leave size out", ko.Latest.Size))
	}
}
