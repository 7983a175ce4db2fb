package sim

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// reachable says why the vault denies every operation of Microsoft 365 with
// the key; nil when it does not.
func (k *key) reachable() error {
	switch {
	case k.vault.serviceDenied:
		return fmt.Errorf("vault %s denies wrapKey and unwrapKey to the service principal", k.vault.host)
	case k.softDeleted:
		return fmt.Errorf("key %s is deleted", k.id())
	}
	return nil
}

// serve returns the version that Microsoft 365 would wrap with: the named one,
// or the key's newest, which is what a key identifier without a version means.
// Wrapping needs a version that is enabled and within nbf and exp. The error
// says why the vault denies it.
func (k *key) serve(versionID string, now time.Time) (*version, error) {
	if err := k.reachable(); err != nil {
		return nil, err
	}
	found := k.newest()
	if versionID != "" {
		found = k.version(versionID)
	}
	switch {
	case found == nil && versionID != "":
		return nil, fmt.Errorf("key version %s/%s was not found", k.id(), versionID)
	case found == nil:
		return nil, fmt.Errorf("key %s has no version", k.id())
	case !slices.Contains(found.ops, "wrapKey") || !slices.Contains(found.ops, "unwrapKey"):
		return nil, fmt.Errorf("key version %s permits %s, not wrapKey and unwrapKey", found.kid(), strings.Join(found.ops, ", "))
	case !found.enabled:
		return nil, fmt.Errorf("key version %s is disabled", found.kid())
	case found.nbf != nil && *found.nbf > now.Unix():
		return nil, fmt.Errorf("key version %s is not yet valid", found.kid())
	case found.exp != nil && *found.exp <= now.Unix():
		return nil, fmt.Errorf("key version %s has expired", found.kid())
	}
	return found, nil
}

// unwrap says why Microsoft 365 cannot read what the version has wrapped; nil
// when it can. Unlike wrapping it works outside nbf and exp.
func (v *version) unwrap() error {
	if err := v.key.reachable(); err != nil {
		return err
	}
	if !v.enabled {
		return fmt.Errorf("key version %s, in use until now, is disabled", v.kid())
	}
	return nil
}
