package sim

import (
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"time"
)

// keyName is what Key Vault takes for a key's name.
var keyName = regexp.MustCompile(`^[0-9A-Za-z-]{1,127}$`)

// newKey makes a key of a seed, or a first one of the API.
func newKey(v *vault, s Key) (*key, error) {
	if !keyName.MatchString(s.Name) {
		return nil, misfit("name", errors.New("name must be letters, digits and dashes"))
	}
	kty := or(s.Kty, "RSA-HSM")
	switch {
	case !slices.Contains([]string{"RSA", "RSA-HSM"}, kty):
		return nil, misfit("kty", fmt.Errorf("kty %q is not RSA or RSA-HSM", s.Kty))
	case v.hsm && kty != "RSA-HSM":
		return nil, misfit("kty", errors.New("a Managed HSM has keys of type RSA-HSM only"))
	case !slices.Contains([]int{0, 2048, 3072, 4096}, s.Size):
		return nil, misfit("size", fmt.Errorf("size %d is not 2048, 3072 or 4096", s.Size))
	case v.hsm && len(s.Versions) > maxHSMVersions:
		return nil, misfit("versions", fmt.Errorf("a Managed HSM keeps %d versions of a key", maxHSMVersions))
	}
	k := &key{vault: v, name: s.Name, level: s.RecoveryLevel, days: s.RecoverableDays,
		softDeleted: s.SoftDeleted || s.BeingDeleted, deleting: s.BeingDeleted}
	k.level = or(k.level, "Recoverable+ProtectedSubscription")
	k.days = or(k.days, 90)
	ops := s.KeyOps
	if len(ops) == 0 {
		ops = []string{"wrapKey", "unwrapKey"}
	}
	for i, sv := range s.Versions {
		at := fmt.Sprintf("versions/%d/version", i)
		if !versionID.MatchString(sv.Version) {
			return nil, misfit(at, fmt.Errorf("version %q is not 32 hex digits", sv.Version))
		}
		if sv.Created.IsZero() {
			return nil, misfit(fmt.Sprintf("versions/%d", i), errors.New("created is missing"))
		}
		if !slices.Contains([]string{"", "0", "1", "2"}, sv.HSMPlatform) {
			return nil, misfit(fmt.Sprintf("versions/%d/hsm_platform", i), fmt.Errorf("hsm_platform %q is not 0, 1 or 2", sv.HSMPlatform))
		}
		if k.version(sv.Version) != nil {
			return nil, misfit(at, fmt.Errorf("version %s is there twice", sv.Version))
		}
		k.add(&version{id: sv.Version, kty: kty, platform: or(sv.HSMPlatform, s.HSMPlatform), size: or(s.Size, 3072), ops: slices.Clone(ops),
			enabled: sv.Enabled == nil || *sv.Enabled, nbf: unix(sv.NotBefore), exp: unix(sv.Expires),
			tags: maps.Clone(sv.Tags), by: bySeed}, sv.Created)
	}
	return k, nil
}

// or returns v, or the default when v is zero.
func or[T comparable](v, def T) T {
	var zero T
	if v == zero {
		return def
	}
	return v
}

func unix(t *time.Time) *int64 {
	if t == nil {
		return nil
	}
	u := t.Unix()
	return &u
}
