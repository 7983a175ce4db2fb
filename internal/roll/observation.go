package roll

import (
	"net/url"
	"strings"
	"time"
)

// KeyVersion is one version of a root key as its vault shows it. Times are
// UTC with a resolution of seconds; nil where the vault shows none.
type KeyVersion struct {
	Version         string            `json:"version"`
	Enabled         bool              `json:"enabled"`
	NotBefore       *time.Time        `json:"not_before,omitempty"`
	Expires         *time.Time        `json:"expires,omitempty"`
	Created         time.Time         `json:"created"`
	RecoveryLevel   string            `json:"recovery_level,omitempty"`
	RecoverableDays int               `json:"recoverable_days,omitempty"`
	Kty             string            `json:"kty,omitempty"`
	Size            int               `json:"size,omitempty"`
	KeyOps          []string          `json:"key_ops,omitempty"`
	HSMPlatform     string            `json:"hsm_platform,omitempty"`
	Tags            map[string]string `json:"tags,omitempty"`
}

// RotationPolicy is what matters of a key's rotation policy in its vault.
type RotationPolicy struct {
	// Readable is false where the credential may not read it.
	Readable bool `json:"readable"`
	// ExpiryTime is the ISO 8601 duration that the vault stamps as expiry on
	// each new version; empty when it stamps none.
	ExpiryTime string `json:"expiry_time,omitempty"`
	// AutoRotate says that the vault makes versions by itself.
	AutoRotate bool `json:"auto_rotate,omitempty"`
}

// Trouble is a read that failed: what Microsoft answered, in words that may be
// shown (no token, no body).
type Trouble struct {
	Code   string `json:"code"`
	Detail string `json:"detail"`
}

// KeyObservation is a root key as its vault shows it.
type KeyObservation struct {
	Trouble  *Trouble       `json:"trouble,omitempty"`
	Latest   KeyVersion     `json:"latest"`
	Versions []KeyVersion   `json:"versions,omitempty"`
	Rotation RotationPolicy `json:"rotation"`
	// ManagedHSM: the key is in a Managed HSM, not in a vault.
	ManagedHSM bool `json:"managed_hsm,omitempty"`
}

// ByVersion finds a version among the listed ones.
func (k KeyObservation) ByVersion(v string) (KeyVersion, bool) {
	for _, kv := range k.Versions {
		if kv.Version == v {
			return kv, true
		}
	}
	if k.Latest.Version == v && v != "" {
		return k.Latest, true
	}
	return KeyVersion{}, false
}

// PolicyObservation is an Exchange or multi-workload policy as Exchange shows it.
type PolicyObservation struct {
	Trouble        *Trouble `json:"trouble,omitempty"`
	Workload       Workload `json:"workload"`
	Found          bool     `json:"found"`
	Name           string   `json:"name,omitempty"`
	GUID           string   `json:"guid,omitempty"`
	Enabled        bool     `json:"enabled"`
	PurgeRequested bool     `json:"purge_requested,omitempty"`
	// AzureKeyIDs are key URIs, as shown.
	AzureKeyIDs []string `json:"azure_key_ids,omitempty"`
}

// AssignmentObservation is the multi-workload policy that is assigned to the
// tenant. What Microsoft returns is not documented: GUID and Name are those of
// the one object returned, either may be "".
type AssignmentObservation struct {
	Trouble  *Trouble `json:"trouble,omitempty"`
	Assigned bool     `json:"assigned"`
	GUID     string   `json:"guid,omitempty"`
	Name     string   `json:"name,omitempty"`
}

// SharePointStatus is CSOM's CustomerKeyStatus.
type SharePointStatus int

// CSOM's numbers. Any other number is unknown and counts as in flight.
const (
	Unregistered SharePointStatus = 0
	Registering  SharePointStatus = 1
	Registered   SharePointStatus = 2
	Rolling      SharePointStatus = 3
	Recovering   SharePointStatus = 4
)

// String gives Microsoft's word for the status.
func (s SharePointStatus) String() string {
	switch s {
	case Unregistered:
		return "Unregistered"
	case Registering:
		return "Registering"
	case Registered:
		return "Registered"
	case Rolling:
		return "Rolling"
	case Recovering:
		return "Recovering"
	}
	return "unknown"
}

// SharePointObservation is the Customer Key status of one SharePoint geo.
type SharePointObservation struct {
	Trouble      *Trouble         `json:"trouble,omitempty"`
	Status       SharePointStatus `json:"status"`
	PrimaryURI   string           `json:"primary_uri,omitempty"`
	SecondaryURI string           `json:"secondary_uri,omitempty"`
	// Percent of sites done while Rolling or Registering; nil where SharePoint
	// shows none.
	Percent *float64 `json:"percent,omitempty"`
}

// SlotURI returns the URI that SharePoint shows for the slot.
func (o SharePointObservation) SlotURI(s Slot) string {
	if s == Secondary {
		return o.SecondaryURI
	}
	return o.PrimaryURI
}

// Observation is what a survey of a tenant saw at Microsoft.
type Observation struct {
	At time.Time `json:"at"`
	// Keys and Policies are by declared id, SharePoint by geo id.
	Keys       map[string]KeyObservation        `json:"keys"`
	Policies   map[string]PolicyObservation     `json:"policies"`
	SharePoint map[string]SharePointObservation `json:"sharepoint"`
	// Assignment is nil where it was not asked for.
	Assignment *AssignmentObservation `json:"assignment,omitempty"`
	// Backups are when the newest attested backup of each key was taken, by
	// declared id; nil where that was not asked.
	Backups map[string]time.Time `json:"-"`
	// Unproven are SharePoint operations of ended rolls whose end nobody knows.
	Unproven []UnprovenOperation `json:"-"`
	// Undeclared are policies at Microsoft that the declaration does not name.
	Undeclared []PolicyObservation `json:"undeclared,omitempty"`
	// Transports are those chosen in this survey, by place; one that could not
	// be decided is missing.
	Transports map[string]ChosenTransport `json:"transports,omitempty"`
	// Vaults are by host, as Azure Resource Manager shows them; VaultsTrouble is
	// why it shows none, or none of the missing ones.
	Vaults        map[string]VaultObservation `json:"vaults,omitempty"`
	VaultsTrouble *Trouble                    `json:"vaults_trouble,omitempty"`
	// Self is the object id of Keyroll's own identity in the tenant; "" where
	// it is not known.
	Self string `json:"self,omitempty"`
	// Troubles of reads that belong to no single item, by workload.
	Troubles map[Workload]Trouble `json:"troubles,omitempty"`
}

// KeyRef is a key URI taken apart. Host is lower-case; Version is "" where the
// URI names none. Key names are compared without regard to case, as Key Vault does.
type KeyRef struct {
	Host, Name, Version string
}

// ParseKeyURI reads https://{host}/keys/{name}[/{version}]; ok is false for
// any other shape.
func ParseKeyURI(s string) (ref KeyRef, ok bool) {
	u, err := url.Parse(strings.TrimSpace(s))
	if err != nil || u.Scheme != "https" || u.User != nil || u.RawQuery != "" || u.ForceQuery || u.Fragment != "" || strings.ContainsAny(u.Path, "%?#\\ \x00") {
		return KeyRef{}, false
	}
	parts := strings.Split(strings.Trim(u.Path, "/"), "/")
	if len(parts) < 2 || len(parts) > 3 || !strings.EqualFold(parts[0], "keys") || parts[1] == "" {
		return KeyRef{}, false
	}
	ref = KeyRef{Host: strings.TrimSuffix(strings.ToLower(u.Host), ":443"), Name: parts[1]}
	if len(parts) == 3 {
		// A version that is only dashes would read as none, which proves more.
		if ref.Version = strings.ToLower(strings.ReplaceAll(parts[2], "-", "")); ref.Version == "" {
			return KeyRef{}, false
		}
	}
	if ref.Host == "" {
		return KeyRef{}, false
	}
	return ref, true
}

// SameKey says whether both name the same key, whatever the version.
func (r KeyRef) SameKey(o KeyRef) bool {
	return r.Host == o.Host && strings.EqualFold(r.Name, o.Name)
}

// Ref is the key as a reference without a version.
func (k Key) Ref() KeyRef {
	host := strings.TrimPrefix(strings.ToLower(k.VaultURL), "https://")
	host = strings.TrimSuffix(strings.TrimSuffix(host, "/"), ":443")
	return KeyRef{Host: host, Name: k.Name}
}

// VaultName is the first label of the vault's host: what SharePoint calls the vault.
func (k Key) VaultName() string {
	name, _, _ := strings.Cut(k.Ref().Host, ".")
	return name
}

// URI is the key's identifier; version "" gives the one without a version.
func (k Key) URI(version string) string {
	r := k.Ref()
	u := "https://" + r.Host + "/keys/" + r.Name
	if version != "" {
		u += "/" + version
	}
	return u
}
