package sim

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"
)

// versionID is the id of a key version.
var versionID = regexp.MustCompile(`^[0-9a-f]{32}$`)

// vault is a key vault.
type vault struct {
	name, host    string
	tenant        *tenant
	keys          []*key
	serviceDenied bool
}

// key is a key; versions are oldest first and never shrink.
type key struct {
	vault       *vault
	name        string
	level       string
	days        int
	platform    string
	softDeleted bool
	rotation    *RotationPolicy
	versions    []*version
}

// version is one version of a key. Times are Unix seconds, as on the wire.
type version struct {
	key              *key
	id               string
	kty              string
	size             int
	ops              []string
	enabled          bool
	created, updated int64
	nbf, exp         *int64
	tags             map[string]string
	by               string // "seed", "api" or "stranger"
}

func (v *vault) key(name string) *key {
	for _, k := range v.keys {
		if strings.EqualFold(k.name, name) {
			return k
		}
	}
	return nil
}

func (k *key) id() string { return "https://" + k.vault.host + "/keys/" + k.name }

// ref is how a key is named in the witness log and in faults.
func (k *key) ref() string { return k.vault.name + "/" + k.name }

func (v *version) kid() string { return v.key.id() + "/" + v.id }

func (k *key) newest() *version {
	if len(k.versions) == 0 {
		return nil
	}
	return k.versions[len(k.versions)-1]
}

func (k *key) version(id string) *version {
	for _, v := range k.versions {
		if strings.EqualFold(v.id, id) {
			return v
		}
	}
	return nil
}

// add appends a version. Creation times strictly increase per key, also where
// several versions are made within one second.
func (k *key) add(v *version, now time.Time) *version {
	v.key, v.created = k, now.Unix()
	if last := k.newest(); last != nil && v.created <= last.created {
		v.created = last.created + 1
	}
	v.updated = v.created
	if v.id == "" {
		v.id = newVersionID()
	}
	k.versions = append(k.versions, v)
	return v
}

// addStranger appends a version that nobody known has made: it looks like the
// newest one, without its tags.
func (k *key) addStranger(now time.Time) *version {
	v := &version{kty: "RSA-HSM", size: 3072, ops: []string{"wrapKey", "unwrapKey"}, enabled: true, by: byStranger}
	if last := k.newest(); last != nil {
		v.kty, v.size, v.ops = last.kty, last.size, last.ops
	}
	return k.add(v, now)
}

// serve returns the version that Microsoft 365 would wrap with: the named one,
// or the newest enabled one. The error says why the vault denies it.
func (k *key) serve(versionID string, now time.Time) (*version, error) {
	switch {
	case k.vault.serviceDenied:
		return nil, fmt.Errorf("vault %s denies wrapKey and unwrapKey to the service principal", k.vault.host)
	case k.softDeleted:
		return nil, fmt.Errorf("key %s is deleted", k.id())
	}
	var found *version
	for _, v := range slices.Backward(k.versions) {
		if versionID == "" && v.enabled || versionID != "" && strings.EqualFold(v.id, versionID) {
			found = v
			break
		}
	}
	switch {
	case found == nil && versionID != "":
		return nil, fmt.Errorf("key version %s/%s was not found", k.id(), versionID)
	case found == nil:
		return nil, fmt.Errorf("key %s has no enabled version", k.id())
	case !found.enabled:
		return nil, fmt.Errorf("key version %s is disabled", found.kid())
	case found.nbf != nil && *found.nbf > now.Unix():
		return nil, fmt.Errorf("key version %s is not yet valid", found.kid())
	case found.exp != nil && *found.exp <= now.Unix():
		return nil, fmt.Errorf("key version %s has expired", found.kid())
	}
	return found, nil
}

func newKey(v *vault, s Key) (*key, error) {
	if ok, _ := regexp.MatchString(`^[0-9A-Za-z-]{1,127}$`, s.Name); !ok {
		return nil, fmt.Errorf("name must be letters, digits and dashes")
	}
	k := &key{vault: v, name: s.Name, level: s.RecoveryLevel, days: s.RecoverableDays,
		platform: s.HSMPlatform, softDeleted: s.SoftDeleted}
	k.level = or(k.level, "Recoverable+ProtectedSubscription")
	k.days = or(k.days, 90)
	k.platform = or(k.platform, "2")
	if s.RotationPolicy != nil {
		k.rotation = &RotationPolicy{ExpiryTime: s.RotationPolicy.ExpiryTime, Actions: slices.Clone(s.RotationPolicy.Actions)}
	}
	ops := s.KeyOps
	if len(ops) == 0 {
		ops = []string{"wrapKey", "unwrapKey"}
	}
	for _, sv := range s.Versions {
		if !versionID.MatchString(sv.Version) {
			return nil, fmt.Errorf("version %q is not 32 hex digits", sv.Version)
		}
		k.add(&version{id: sv.Version, kty: or(s.Kty, "RSA-HSM"), size: or(s.Size, 3072), ops: slices.Clone(ops),
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
