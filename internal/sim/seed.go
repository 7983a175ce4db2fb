package sim

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"
)

// Seed is the world at its beginning, and the one file format of the
// simulator. Members not named below are refused. Times are RFC 3339.
//
//	{"token_lifetime_seconds": 3599,
//	 "apps": [{"client_id": "…guid…", "certificates": ["-----BEGIN CERTIFICATE…"], "secrets": [],
//	   "federated": [{"issuer": "https://issuer.simulator.example", "subject": "system:serviceaccount:keyroll:keyroll", "audience": "api://AzureADTokenExchange"}],
//	   "managed_identity": {"tenant": "contoso.com", "object_id": "", "resource_id": "", "system_assigned": true},
//	   "grants": [{"tenant": "*", "keyvault": {"*": true, "contoso-exo-a": false}, "exchange": "full", "sharepoint": true, "arm": "contributor"}]}],
//	 "clouds": [{"name": "airgap", "logins": ["login.airgap.example"], "vault": "vault.airgap.example", "hsm": "managedhsm.airgap.example",
//	   "exchange": "outlook.mail.airgap.example", "exchange_redirects": ["mail.airgap.example"],
//	   "sharepoint_admin": "-admin.sharepoint.airgap.example", "resource_manager": "management.airgap.example"}],
//	 "tenants": [{"id": "…guid…", "name": "Contoso", "domain": "contoso.com", "cloud": "public",
//	   "subscriptions": ["…guid…"],
//	   "automation": [{"id": "/subscriptions/…/resourceGroups/…/providers/Microsoft.Automation/automationAccounts/…", "job_seconds": 2}],
//	   "vaults": [{"name": "contoso-exo-a", "service_denied": false, "keys": [
//	     {"name": "Key001", "kty": "RSA-HSM", "size": 3072, "key_ops": ["wrapKey", "unwrapKey"],
//	      "recovery_level": "Recoverable+ProtectedSubscription", "recoverable_days": 90, "hsm_platform": "2", "soft_deleted": false,
//	      "rotation_policy": {"expiry_time": "P2Y", "actions": [{"action": "Rotate", "time_after_create": "P18M"}]},
//	      "versions": [{"version": "…32 hex…", "created": "2024-01-01T00:00:00Z", "enabled": true,
//	        "not_before": null, "expires": null, "tags": {}}]}]}],
//	   "exchange": {"refresh_seconds": 2, "warnings": [], "redirect_host": "", "nul_body_gzip": false, "no_test_cmdlet": false,
//	     "assignment_by_name": false, "warnings_in_header": false, "rate_limit": 0, "policies": [
//	     {"name": "NA Mailboxes", "guid": "…", "description": "", "workload": "exchange", "enabled": true, "assigned": false,
//	      "purge_requested": false, "test": {"result": "", "detail": ""}, "azure_key_ids": ["https://contoso-exo-a.vault.azure.net/keys/Key001"]}],
//	     "mailboxes": [{"address": "vip@contoso.com", "policy": "…guid…"}]},
//	   "sharepoint": {"sites_per_second": 80, "uri_version": true, "uri_change": "end", "rolls_per": "geo", "progress_form": "value",
//	     "uri_form": "plain", "secret_token_status": 401, "geos": [
//	     {"id": "NAM", "admin_host": "contoso-admin.sharepoint.com", "status": "Registered", "site_count": 240,
//	      "primary": {"vault": "contoso-spo-a", "key": "…", "version": ""}, "secondary": {…}}]}}]}
//
// What is left out gets the value shown for vaults and keys (enabled, RSA-HSM
// 3072, 90 days …); a slot without a version holds the key's newest one.
type Seed struct {
	// TokenLifetimeSeconds is how long an access token lives, in real time; 3599 when left out.
	TokenLifetimeSeconds int `json:"token_lifetime_seconds,omitempty"`
	// RandomSeed decides which requests a fault with a probability hits.
	RandomSeed uint64 `json:"random_seed,omitempty"`
	// Clouds are clouds of the seed's own, besides Microsoft's.
	Clouds []Cloud `json:"clouds,omitempty"`
	// Apps are the application registrations.
	Apps []App `json:"apps,omitempty"`
	// Tenants are the organisations.
	Tenants []Tenant `json:"tenants"`
}

// Cloud is a cloud of the seed's own, as an operator's air-gapped one is: its
// hosts, without https://. A cloud of a known name is replaced.
type Cloud struct {
	// Name is what a tenant's cloud says.
	Name string `json:"name"`
	// Logins are Entra's hosts; the first is the one that challenges name.
	Logins []string `json:"logins"`
	// Vault is what follows a vault's name and a dot.
	Vault string `json:"vault"`
	// HSM is what follows a Managed HSM's name and a dot.
	HSM string `json:"hsm"`
	// Exchange is Exchange's host.
	Exchange string `json:"exchange"`
	// ExchangeRedirects are the domains of its regional hosts.
	ExchangeRedirects []string `json:"exchange_redirects,omitempty"`
	// SharePointAdmin is what follows a tenant's name: "-admin.sharepoint.airgap.example".
	SharePointAdmin string `json:"sharepoint_admin"`
	// ResourceManager is the host of Azure Resource Manager.
	ResourceManager string `json:"resource_manager"`
}

// App is an application registration, known in every tenant that grants it
// something.
type App struct {
	// ClientID is a GUID.
	ClientID string `json:"client_id"`
	// Certificates are PEM texts, of RSA keys.
	Certificates []string `json:"certificates,omitempty"`
	// Secrets are accepted by Entra; SharePoint refuses their tokens.
	Secrets []string `json:"secrets,omitempty"`
	// Federated are the workload identities that stand for the app.
	Federated []Federated `json:"federated,omitempty"`
	// ManagedIdentity makes the app an identity of the machine itself.
	ManagedIdentity *ManagedIdentity `json:"managed_identity,omitempty"`
	// Grants are what tenants let the app do.
	Grants []Grant `json:"grants,omitempty"`
}

// Grant is what one tenant lets an app do.
type Grant struct {
	// Tenant is a GUID or domain; "*": each without a grant of its own.
	Tenant string `json:"tenant"`
	// KeyVault is by vault name, "*" for the rest.
	KeyVault map[string]bool `json:"keyvault,omitempty"`
	// Exchange is "none" (401), "app_role" (403 with NUL bytes) or "full".
	Exchange string `json:"exchange,omitempty"`
	// SharePoint is Sites.FullControl.All.
	SharePoint bool `json:"sharepoint,omitempty"`
	// ARM is the grant on all of the tenant's Azure resources: "none", "reader" or "contributor".
	ARM string `json:"arm,omitempty"`
}

// Tenant is a Microsoft 365 organisation.
type Tenant struct {
	// ID is a GUID.
	ID string `json:"id"`
	// Name is for people.
	Name string `json:"name"`
	// Domain names the tenant where a GUID is unhandy.
	Domain string `json:"domain"`
	// Cloud is "public" (left out), "gcc_high", "dod", "china" or one of the seed's own.
	Cloud string `json:"cloud,omitempty"`
	// Subscriptions are the ids of its Azure subscriptions; two of the
	// simulator's own where left out.
	Subscriptions []string `json:"subscriptions,omitempty"`
	// Automation are its Azure Automation accounts.
	Automation []AutomationAccount `json:"automation,omitempty"`
	// Logs is where its vaults send their diagnostic log.
	Logs *Logs `json:"logs,omitempty"`
	// Vaults are its key vaults and Managed HSMs.
	Vaults []Vault `json:"vaults,omitempty"`
	// Exchange is what it has in Exchange Online.
	Exchange Exchange `json:"exchange"`
	// SharePoint is what it has in SharePoint Online.
	SharePoint SharePoint `json:"sharepoint"`
}

// Vault is a key vault or a Managed HSM.
type Vault struct {
	// Name is its first host label: {name}.vault.azure.net.
	Name string `json:"name"`
	// ManagedHSM makes it a Managed HSM, at a host of its own domain, with keys
	// of type RSA-HSM and 100 versions of each at most.
	ManagedHSM bool `json:"managed_hsm,omitempty"`
	// ServiceDenied takes away Microsoft 365's own right to wrap and unwrap.
	ServiceDenied bool `json:"service_denied,omitempty"`
	// Azure is what Resource Manager shows of the vault.
	Azure VaultAzure `json:"azure,omitzero"`
	// NewHSMPlatform is the hsmPlatform of the versions that the vault makes:
	// left out, "0" for software keys and "2" for HSM keys.
	NewHSMPlatform string `json:"new_hsm_platform,omitempty"`
	// UnlimitedCreates takes the limit on creating keys away: 10 HSM keys or 20
	// software keys in 10 seconds of real time.
	UnlimitedCreates bool `json:"unlimited_creates,omitempty"`
	// CreateRetryAfter is the Retry-After of that limit's 429, in seconds; 0 sends none.
	CreateRetryAfter int `json:"create_retry_after,omitempty"`
	// Keys are its keys.
	Keys []Key `json:"keys,omitempty"`
}

// Key is a key and its versions, oldest first.
type Key struct {
	// Name is letters, digits and dashes.
	Name string `json:"name"`
	// Kty is "RSA" or "RSA-HSM" (left out).
	Kty string `json:"kty,omitempty"`
	// Size is 2048, 3072 (left out) or 4096.
	Size int `json:"size,omitempty"`
	// KeyOps are wrapKey and unwrapKey when left out.
	KeyOps []string `json:"key_ops,omitempty"`
	// RecoveryLevel is "Recoverable+ProtectedSubscription" when left out.
	RecoveryLevel string `json:"recovery_level,omitempty"`
	// RecoverableDays is 90 when left out.
	RecoverableDays int `json:"recoverable_days,omitempty"`
	// HSMPlatform is that of the versions below which name none.
	HSMPlatform string `json:"hsm_platform,omitempty"`
	// SoftDeleted: the key is deleted and can be recovered.
	SoftDeleted bool `json:"soft_deleted,omitempty"`
	// BeingDeleted: soft-deleted, and the vault is not done with it.
	BeingDeleted bool `json:"being_deleted,omitempty"`
	// RotationPolicy is what the vault does with the key by itself.
	RotationPolicy *RotationPolicy `json:"rotation_policy,omitempty"`
	// Versions are oldest first; a key needs one to be of use.
	Versions []KeyVersion `json:"versions,omitempty"`
}

// KeyVersion is one version of a key.
type KeyVersion struct {
	// Version is 32 lower-case hex digits.
	Version string `json:"version"`
	// Created is when it was made; each later than the one before.
	Created time.Time `json:"created"`
	// HSMPlatform is "0" (software), "1" (old) or "2" (new).
	HSMPlatform string `json:"hsm_platform,omitempty"`
	// Enabled is true when left out.
	Enabled *bool `json:"enabled,omitempty"`
	// NotBefore is its nbf.
	NotBefore *time.Time `json:"not_before,omitempty"`
	// Expires is its exp.
	Expires *time.Time `json:"expires,omitempty"`
	// Tags are the tags of this version.
	Tags map[string]string `json:"tags,omitempty"`
}

// RotationPolicy is a key's auto-rotation policy. It acts in the world's time.
type RotationPolicy struct {
	// ExpiryTime after its creation a new version expires; an ISO 8601 duration
	// of days, months and years.
	ExpiryTime string `json:"expiry_time,omitempty"`
	// Actions are what is done, and when.
	Actions []RotationAction `json:"actions,omitempty"`
	// Stamps tells which new versions get the expiry: "all" (left out), also
	// those made by a client that names none, or "rotations" only.
	Stamps string `json:"stamps,omitempty"`
}

// RotationAction is "Rotate" or "Notify" at a time given as an ISO 8601 duration.
type RotationAction struct {
	// Action is "Rotate" or "Notify", which does nothing here.
	Action string `json:"action"`
	// TimeAfterCreate is a duration after the newest version was made, such as P90D.
	TimeAfterCreate string `json:"time_after_create,omitempty"`
	// TimeBeforeExpiry is a duration before the newest version expires.
	TimeBeforeExpiry string `json:"time_before_expiry,omitempty"`
}

// Exchange is a tenant's policies and sample mailboxes.
type Exchange struct {
	// RefreshSeconds after a refresh the policy's mailboxes show another DataEncryptionPolicyID.
	RefreshSeconds float64 `json:"refresh_seconds,omitempty"`
	// Warnings come with every successful Set.
	Warnings []string `json:"warnings,omitempty"`
	// Policies are its data encryption policies.
	Policies []Policy `json:"policies,omitempty"`
	// Mailboxes are its sample mailboxes.
	Mailboxes []Mailbox `json:"mailboxes,omitempty"`
	ExchangeOddities
}

// ExchangeOddities are what Exchange has been seen to do, or might do, apart
// from the ordinary.
type ExchangeOddities struct {
	// RedirectHost is a host to which each request at Exchange's own is sent on
	// by 302, with port 446. One that is none of Exchange's regional hosts in the
	// cloud is served too, and whoever goes there is a violation.
	RedirectHost string `json:"redirect_host,omitempty"`
	// NULBodyGzip lets the 403 with NUL bytes claim to be compressed.
	NULBodyGzip bool `json:"nul_body_gzip,omitempty"`
	// NoTestCmdlet: the tenant has no Test-M365DataAtRestEncryptionPolicy.
	NoTestCmdlet bool `json:"no_test_cmdlet,omitempty"`
	// AssignmentByName: the assignment is an object that names the policy.
	AssignmentByName bool `json:"assignment_by_name,omitempty"`
	// WarningsInHeader: warnings come in the header X-Warnings only.
	WarningsInHeader bool `json:"warnings_in_header,omitempty"`
	// RateLimit is the budget that Rate-Limit headers tell of; 0: no headers.
	// Nothing is ever refused for it.
	RateLimit int `json:"rate_limit,omitempty"`
}

// Policy is a data encryption policy of workload "exchange" or "multi-workload".
type Policy struct {
	// Name is its name and Identity.
	Name string `json:"name"`
	// GUID is its GUID.
	GUID string `json:"guid"`
	// Description is shown by Get.
	Description string `json:"description,omitempty"`
	// Workload is "exchange" or "multi-workload".
	Workload string `json:"workload"`
	// Enabled is true when left out.
	Enabled *bool `json:"enabled,omitempty"`
	// Assigned: a multi-workload policy that is assigned to the tenant.
	Assigned bool `json:"assigned,omitempty"`
	// PurgeRequested: a data purge has been asked for; a refresh is refused.
	PurgeRequested bool `json:"purge_requested,omitempty"`
	// AzureKeyIDs are the key URLs, each of one of the tenant's vaults.
	AzureKeyIDs []string `json:"azure_key_ids"`
	// Test overrides what Test-M365DataAtRestEncryptionPolicy says of it.
	Test *PolicyTest `json:"test,omitempty"`
}

// Mailbox is a mailbox and the GUID of its policy.
type Mailbox struct {
	// Address is what a client asks for.
	Address string `json:"address"`
	// Policy is its policy's GUID.
	Policy string `json:"policy,omitempty"`
}

// SharePoint is a tenant's geos.
type SharePoint struct {
	// SitesPerSecond is the pace of a roll in the world's time; 80 when left out.
	SitesPerSecond float64 `json:"sites_per_second,omitempty"`
	// URIVersion: slot URIs name a version; true when left out.
	URIVersion *bool `json:"uri_version,omitempty"`
	// URIChange is when a roll changes the URI: at its "end" (left out) or "start".
	URIChange string `json:"uri_change,omitempty"`
	// Geos are its geographies.
	Geos []Geo `json:"geos,omitempty"`
	SharePointOddities
}

// Geo is one SharePoint geography.
type Geo struct {
	// ID is its name, such as NAM.
	ID string `json:"id"`
	// AdminHost is the host of its admin site.
	AdminHost string `json:"admin_host"`
	// Status is Unregistered, Registering, Registered (left out), Rolling or Recovering.
	Status string `json:"status,omitempty"`
	// Progress is the percentage shown; 100 when it is Registered.
	Progress float64 `json:"progress,omitempty"`
	// SiteCount is how many sites a roll goes through.
	SiteCount int `json:"site_count,omitempty"`
	// Primary is the primary slot.
	Primary Slot `json:"primary"`
	// Secondary is the secondary slot.
	Secondary Slot `json:"secondary"`
}

// Slot names the key version that a SharePoint slot holds.
type Slot struct {
	// Vault is the name of one of the tenant's vaults.
	Vault string `json:"vault"`
	// Key is the name of a key in it.
	Key string `json:"key"`
	// Version is one of its versions; the newest when left out.
	Version string `json:"version,omitempty"`
}

// ReadSeed decodes one seed document, refuses members it does not know, and
// checks that a world can be made of it. Errors are *FileError, of file "seed".
func ReadSeed(r io.Reader) (Seed, error) {
	text, err := io.ReadAll(r)
	if err != nil {
		return Seed{}, fmt.Errorf("reading seed: %w", err)
	}
	return ParseSeed("seed", text)
}

// ParseSeed is ReadSeed of a text that has a name.
func ParseSeed(file string, text []byte) (Seed, error) {
	d, err := parseDocument(file, text)
	if err != nil {
		return Seed{}, err
	}
	var s Seed
	if err := d.decode(&s); err != nil {
		return Seed{}, err
	}
	if _, err := New(s); err != nil {
		return Seed{}, d.misfit(err)
	}
	return s, nil
}

// decodeStrict reads exactly one JSON value without unknown members.
func decodeStrict(r io.Reader, v any) error {
	d := json.NewDecoder(r)
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("more data after the JSON value")
	}
	return nil
}
