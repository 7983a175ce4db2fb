package sim

import (
	"regexp"
	"strings"
	"time"
)

// versionID is the id of a key version.
var versionID = regexp.MustCompile(`^[0-9a-f]{32}$`)

// vault is a key vault or a Managed HSM.
type vault struct {
	name, host    string
	hsm           bool // a Managed HSM
	tenant        *tenant
	keys          []*key
	serviceDenied bool
	deleted       bool   // soft-deleted: its host answers no more
	platform      string // of new versions; "" goes by the key type
	creates       createLimit
	azure         VaultAzure // as Resource Manager shows it
}

// resource is what a token for the vault is for.
func (v *vault) resource() string {
	if v.hsm {
		return "https://" + v.tenant.cloud.hsm
	}
	return "https://" + v.tenant.cloud.vault
}

// key is a key; versions are oldest first, and shrink by Recreate alone.
type key struct {
	vault       *vault
	name        string
	level       string
	days        int
	softDeleted bool
	deleting    bool // soft-deleted, and the vault is not done with it
	deletedAt   time.Time
	rotation    *rotation
	versions    []*version
}

// version is one version of a key. Times are Unix seconds, as on the wire.
type version struct {
	key              *key
	id               string
	kty              string
	size             int
	ops              []string
	platform         string // hsmPlatform
	enabled          bool
	listed           bool // a list has shown it
	created, updated int64
	nbf, exp         *int64
	tags             map[string]string
	by               string // "seed", "api", "stranger" or "policy"
}

// maxHSMVersions is how many versions of one key a Managed HSM keeps.
const maxHSMVersions = 100

// full reports whether the key can have no more versions.
func (k *key) full() bool { return k.vault.hsm && len(k.versions) >= maxHSMVersions }

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
	if v.platform == "" {
		v.platform = or(k.vault.platform, platformOf(v.kty))
	}
	k.versions = append(k.versions, v)
	return v
}

// platformOf is the hsmPlatform of a new version: software keys have none, and
// HSM keys land on the newest.
func platformOf(kty string) string {
	if kty == "RSA" {
		return "0"
	}
	return "2"
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
