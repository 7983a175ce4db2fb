package roll_test

import (
	"slices"
	"testing"
	"time"

	"github.com/keyroll/keyroll/internal/roll"
)

type tenant struct {
	inv roll.Inventory
	obs roll.Observation
	req roll.Request
	// after changes something between the request and the plan.
	after func()
}

func (x *tenant) key(id string, change func(*roll.KeyObservation)) {
	k := x.obs.Keys[id]
	k.Versions = slices.Clone(k.Versions)
	change(&k)
	x.obs.Keys[id] = k
}

// inHSM puts the key into a Managed HSM, with n versions.
func (x *tenant) inHSM(id string, n int) {
	x.key(id, func(k *roll.KeyObservation) {
		k.ManagedHSM = true
		for i := 3; len(k.Versions) < n; i++ {
			k.Versions = slices.Insert(k.Versions, 0, version(id, -i))
		}
	})
}

func (x *tenant) latest(id string, change func(*roll.KeyVersion)) {
	x.key(id, func(k *roll.KeyObservation) { change(&k.Latest); k.Versions[len(k.Versions)-1] = k.Latest })
}

func (x *tenant) policy(id string, change func(*roll.PolicyObservation)) {
	p := x.obs.Policies[id]
	p.AzureKeyIDs = slices.Clone(p.AzureKeyIDs)
	change(&p)
	x.obs.Policies[id] = p
}

func (x *tenant) sharePoint(change func(*roll.SharePointObservation)) {
	o := x.obs.SharePoint["NAM"]
	change(&o)
	x.obs.SharePoint["NAM"] = o
}

// TestFindings: one thing is wrong with a tenant in order, and exactly the
// findings listed follow from it.
func TestFindings(t *testing.T) {
	past, future, never := start.Add(-time.Hour), start.Add(time.Hour), time.Date(9999, 12, 31, 0, 0, 0, 0, time.UTC)
	const e, w = roll.LevelError, roll.LevelWarning
	type want struct {
		level         roll.Level
		code, subject string
	}
	cases := []struct {
		name string
		do   func(*tenant)
		want []want
	}{
		{"key disabled", func(x *tenant) { x.latest("exo-a", func(v *roll.KeyVersion) { v.Enabled = false }) }, []want{{e, "key_disabled", "key:exo-a"}}},
		{"key expired", func(x *tenant) { x.latest("exo-a", func(v *roll.KeyVersion) { v.Expires = &past }) }, []want{{e, "key_expired", "key:exo-a"}}},
		{"key expires", func(x *tenant) { x.latest("exo-a", func(v *roll.KeyVersion) { v.Expires = &future }) }, []want{{e, "key_has_expiry", "key:exo-a"}}},
		{"key expires in 9999", func(x *tenant) { x.latest("exo-a", func(v *roll.KeyVersion) { v.Expires = &never }) }, []want{{e, "key_has_expiry", "key:exo-a"}}},
		{"key not yet valid", func(x *tenant) { x.latest("exo-a", func(v *roll.KeyVersion) { v.NotBefore = &future }) }, []want{{e, "key_not_before_future", "key:exo-a"}}},
		{"key valid since", func(x *tenant) { x.latest("exo-a", func(v *roll.KeyVersion) { v.NotBefore = &past }) }, nil},
		{"elliptic curve", func(x *tenant) { x.latest("exo-a", func(v *roll.KeyVersion) { v.Kty = "EC-HSM" }) }, []want{{e, "key_wrong_type", "key:exo-a"}}},
		{"no wrapKey", func(x *tenant) { x.latest("exo-a", func(v *roll.KeyVersion) { v.KeyOps = []string{"unwrapKey"} }) }, []want{{e, "key_ops_missing", "key:exo-a"}}},
		{"no unwrapKey", func(x *tenant) { x.latest("exo-a", func(v *roll.KeyVersion) { v.KeyOps = []string{"wrapKey"} }) }, []want{{e, "key_ops_missing", "key:exo-a"}}},
		{"stamps an expiry", func(x *tenant) { x.key("exo-a", func(k *roll.KeyObservation) { k.Rotation.ExpiryTime = "P2Y" }) }, []want{{e, "rotation_policy_expiry", "key:exo-a"}}},
		{"stamps an expiry, vetoed down", func(x *tenant) {
			x.inv.Vetoes = map[string]string{"rotation_policy_expiry": "warning"}
			x.key("exo-a", func(k *roll.KeyObservation) { k.Rotation.ExpiryTime = "P2Y" })
		}, []want{{w, "rotation_policy_expiry", "key:exo-a"}}},
		{"rotates by itself", func(x *tenant) { x.key("exo-a", func(k *roll.KeyObservation) { k.Rotation.AutoRotate = true }) }, []want{{w, "rotation_policy_rotates", "key:exo-a"}}},
		{"rotation policy unreadable", func(x *tenant) { x.key("exo-a", func(k *roll.KeyObservation) { k.Rotation.Readable = false }) }, []want{{w, "rotation_policy_unreadable", "key:exo-a"}}},
		{"key unreadable", func(x *tenant) {
			x.key("exo-a", func(k *roll.KeyObservation) { k.Trouble = &roll.Trouble{Code: "forbidden", Detail: "no"} })
		}, []want{{e, "key_unreadable", "key:exo-a"}}},
		{"key not read", func(x *tenant) { delete(x.obs.Keys, "exo-a") }, []want{{e, "key_unreadable", "key:exo-a"}}},
		{"full of tags", func(x *tenant) {
			x.latest("exo-a", func(v *roll.KeyVersion) {
				v.Tags = map[string]string{roll.OperationTag: "x"}
				for i := range 15 {
					v.Tags[string(rune('a'+i))] = ""
				}
			})
		}, []want{{e, "too_many_tags", "key:exo-a"}}},
		{"guid", func(x *tenant) { x.policy("exo-na", func(p *roll.PolicyObservation) { p.GUID = guidM }) }, []want{{e, "policy_guid_mismatch", "policy:exo-na"}}},
		{"guid in capitals", func(x *tenant) {
			x.inv.Policies[1].GUID = "AAAAAAAA-0000-4000-8000-000000000002"
			x.policy("exo-na", func(p *roll.PolicyObservation) { p.GUID = "aaaaaaaa-0000-4000-8000-000000000002" })
		}, nil},
		{"other keys", func(x *tenant) {
			x.policy("exo-na", func(p *roll.PolicyObservation) { p.AzureKeyIDs[0] = x.inv.Keys[0].URI("") })
		}, []want{{e, "policy_keys_mismatch", "policy:exo-na"}}},
		{"a key more", func(x *tenant) {
			x.policy("exo-na", func(p *roll.PolicyObservation) { p.AzureKeyIDs = append(p.AzureKeyIDs, x.inv.Keys[0].URI("")) })
		}, []want{{e, "policy_keys_mismatch", "policy:exo-na"}}},
		{"a key in another form", func(x *tenant) { x.policy("exo-na", func(p *roll.PolicyObservation) { p.AzureKeyIDs[0] = "urn:key" }) }, []want{{e, "policy_keys_mismatch", "policy:exo-na"}}},
		{"keys in another order", func(x *tenant) { x.policy("exo-na", func(p *roll.PolicyObservation) { slices.Reverse(p.AzureKeyIDs) }) }, nil},
		{"keys with a version", func(x *tenant) {
			x.policy("exo-na", func(p *roll.PolicyObservation) { p.AzureKeyIDs[0] += "/" + ver("exo-a", 2) })
		}, []want{{e, "policy_keys_versioned", "policy:exo-na"}}},
		{"policy gone", func(x *tenant) { delete(x.obs.Policies, "exo-na") }, []want{{e, "policy_missing", "policy:exo-na"}}},
		{"policy disabled", func(x *tenant) { x.policy("exo-na", func(p *roll.PolicyObservation) { p.Enabled = false }) }, []want{{e, "policy_disabled", "policy:exo-na"}}},
		{"purge requested", func(x *tenant) { x.policy("exo-na", func(p *roll.PolicyObservation) { p.PurgeRequested = true }) }, []want{{e, "policy_purge_requested", "policy:exo-na"}}},
		{"policy unreadable", func(x *tenant) {
			x.policy("exo-na", func(p *roll.PolicyObservation) { p.Trouble = &roll.Trouble{Detail: "no"} })
		}, []want{{e, "policy_unreadable", "policy:exo-na"}}},
		{"workload unreadable", func(x *tenant) { x.obs.Troubles = map[roll.Workload]roll.Trouble{roll.Exchange: {Detail: "no"}} }, []want{{e, "policy_unreadable", "policy:exo-na"}}},
		{"policy renamed", func(x *tenant) { x.policy("exo-na", func(p *roll.PolicyObservation) { p.Name = "EU" }) }, []want{{w, "policy_name_differs", "policy:exo-na"}}},
		{"slots swapped", func(x *tenant) {
			x.sharePoint(func(o *roll.SharePointObservation) { o.PrimaryURI, o.SecondaryURI = o.SecondaryURI, o.PrimaryURI })
		}, []want{{e, "sharepoint_slot_mismatch", "policy:spo"}}},
		{"secondary is another", func(x *tenant) { x.sharePoint(func(o *roll.SharePointObservation) { o.SecondaryURI = o.PrimaryURI }) }, []want{{e, "sharepoint_slot_mismatch", "policy:spo"}}},
		{"slots without versions", func(x *tenant) {
			x.sharePoint(func(o *roll.SharePointObservation) {
				o.PrimaryURI, o.SecondaryURI = x.inv.Keys[4].URI(""), x.inv.Keys[5].URI("")
			})
		}, nil},
		{"undeclared policy", func(x *tenant) {
			x.obs.Undeclared = []roll.PolicyObservation{{Workload: roll.Exchange, Name: "Other", AzureKeyIDs: []string{x.inv.Keys[2].URI("")}}}
		}, []want{{e, "undeclared_policy_uses_key", "key:exo-a"}}},
		{"undeclared policy on other keys", func(x *tenant) {
			x.obs.Undeclared = []roll.PolicyObservation{{Workload: roll.Exchange, Name: "Other", AzureKeyIDs: []string{"https://x.vault.azure.net/keys/y", "urn:x"}}}
		}, nil},
		{"undeclared policies cannot be seen", func(x *tenant) {
			x.req.Policies = []string{"spo"}
			x.obs.Troubles = map[roll.Workload]roll.Trouble{roll.Exchange: {Detail: "no"}}
		}, []want{{w, "undeclared_policies_unreadable", "workload:exchange"}}},
		{"unregistered", func(x *tenant) { x.sharePoint(func(o *roll.SharePointObservation) { o.Status = roll.Unregistered }) }, []want{{e, "sharepoint_not_registered", "policy:spo"}}},
		{"registering", func(x *tenant) { x.sharePoint(func(o *roll.SharePointObservation) { o.Status = roll.Registering }) }, []want{{e, "sharepoint_not_registered", "policy:spo"}}},
		{"recovering", func(x *tenant) { x.sharePoint(func(o *roll.SharePointObservation) { o.Status = roll.Recovering }) }, []want{{e, "sharepoint_not_registered", "policy:spo"}}},
		{"unknown status", func(x *tenant) { x.sharePoint(func(o *roll.SharePointObservation) { o.Status = 17 }) }, []want{{e, "sharepoint_not_registered", "policy:spo"}}},
		{"rolling by hand", func(x *tenant) { x.sharePoint(func(o *roll.SharePointObservation) { o.Status = roll.Rolling }) }, []want{{w, "external_roll_under_way", "policy:spo"}}},
		{"sharepoint unreadable", func(x *tenant) {
			x.sharePoint(func(o *roll.SharePointObservation) { o.Trouble = &roll.Trouble{Detail: "no"} })
		}, []want{{e, "sharepoint_unreadable", "policy:spo"}}},
		{"sharepoint not read", func(x *tenant) { delete(x.obs.SharePoint, "NAM") }, []want{{e, "sharepoint_unreadable", "policy:spo"}}},
		{"one vault", func(x *tenant) {
			x.inv.Keys[3].VaultURL = x.inv.Keys[2].VaultURL + "/"
			x.obs = healthy(x.inv)
		}, []want{{e, "fewer_than_two_vaults", "policy:exo-na"}}},
		{"one key", func(x *tenant) {
			x.inv.Policies[1].Keys = []string{"exo-a"}
			x.obs = healthy(x.inv)
		}, []want{{e, "fewer_than_two_vaults", "policy:exo-na"}}},
		{"recovery level", func(x *tenant) { x.latest("exo-a", func(v *roll.KeyVersion) { v.RecoveryLevel = "Recoverable" }) }, []want{{w, "recovery_level", "key:exo-a"}}},
		{"89 days", func(x *tenant) { x.latest("exo-a", func(v *roll.KeyVersion) { v.RecoverableDays = 89 }) }, []want{{w, "recovery_days", "key:exo-a"}}},
		{"software", func(x *tenant) {
			x.latest("exo-a", func(v *roll.KeyVersion) { v.Kty = "RSA" })
		}, []want{{w, "software_key", "key:exo-a"}}},
		{"400 versions", func(x *tenant) {
			x.key("exo-a", func(k *roll.KeyObservation) {
				for i := 3; len(k.Versions) < 400; i++ {
					k.Versions = append(k.Versions, version("exo-a", -i))
				}
			})
		}, []want{{w, "many_versions", "key:exo-a"}}},
		{"older version disabled", func(x *tenant) { x.key("exo-a", func(k *roll.KeyObservation) { k.Versions[0].Enabled = false }) }, []want{{w, "older_version_disabled", "key:exo-a"}}},
		{"left behind", func(x *tenant) {
			x.key("spo-a", func(k *roll.KeyObservation) {
				k.Latest = version("spo-a", 3)
				k.Latest.Tags = map[string]string{roll.OperationTag: "x"}
			})
		}, []want{{w, "version_left_behind", "key:spo-a"}}},
		{"made by a roll and taken up", func(x *tenant) {
			x.latest("spo-a", func(v *roll.KeyVersion) { v.Tags = map[string]string{roll.OperationTag: "x"} })
		}, nil},
		{"adopts the newest", func(x *tenant) { x.req.Keys = []roll.KeyRequest{{ID: "exo-a", Version: ver("exo-a", 2)}} }, nil},
		{"adopts an old one", func(x *tenant) { x.req.Keys = []roll.KeyRequest{{ID: "exo-a", Version: ver("exo-a", 1)}} }, []want{{e, "adopt_version_not_newest", "key:exo-a"}}},
		{"adopts what is not there", func(x *tenant) { x.req.Keys = []roll.KeyRequest{{ID: "exo-a", Version: ver("exo-a", 8)}} }, []want{{e, "adopt_version_missing", "key:exo-a"}}},
		{"adopts another kind", func(x *tenant) {
			x.req.Keys = []roll.KeyRequest{{ID: "exo-a", Version: ver("exo-a", 2)}}
			x.latest("exo-a", func(v *roll.KeyVersion) { v.Size = 2048 })
		}, []want{{e, "version_differs", "key:exo-a"}}},
		{"adopts without tags", func(x *tenant) {
			x.req.Keys = []roll.KeyRequest{{ID: "exo-a", Version: ver("exo-a", 2)}}
			x.latest("exo-a", func(v *roll.KeyVersion) { v.Tags = nil })
		}, []want{{w, "adopt_tags_differ", "key:exo-a"}}},
		{"adopts a larger one, unasked", func(x *tenant) {
			x.req.Keys = []roll.KeyRequest{{ID: "exo-a", Version: ver("exo-a", 2)}}
			x.latest("exo-a", func(v *roll.KeyVersion) { v.Size = 4096 })
		}, []want{{e, "version_differs", "key:exo-a"}}},
		{"adopts a larger one, as asked", func(x *tenant) {
			x.req.Keys = []roll.KeyRequest{{ID: "exo-a", Version: ver("exo-a", 2), Size: 4096}}
			x.latest("exo-a", func(v *roll.KeyVersion) { v.Size = 4096 })
		}, nil},
		{"adopts one that is disabled", func(x *tenant) {
			x.req.Keys = []roll.KeyRequest{{ID: "exo-a", Version: ver("exo-a", 2)}}
			x.latest("exo-a", func(v *roll.KeyVersion) { v.Enabled = false })
		}, []want{{e, "key_disabled", "key:exo-a"}}},
		{"adopts one with an expiry", func(x *tenant) {
			x.req.Keys = []roll.KeyRequest{{ID: "exo-a", Version: ver("exo-a", 2)}}
			x.latest("exo-a", func(v *roll.KeyVersion) { v.Expires = new(start.AddDate(1, 0, 0)) })
		}, []want{{e, "key_has_expiry", "key:exo-a"}}},
		{"adopts one whose nbf comes", func(x *tenant) {
			x.req.Keys = []roll.KeyRequest{{ID: "exo-a", Version: ver("exo-a", 2)}}
			x.latest("exo-a", func(v *roll.KeyVersion) { v.NotBefore = new(start.Add(time.Hour)) })
		}, []want{{w, "adopt_not_before", "key:exo-a"}}},
		{"makes one after one whose nbf comes", func(x *tenant) {
			x.latest("exo-b", func(v *roll.KeyVersion) { v.NotBefore = new(start.Add(time.Hour)) })
		}, []want{{e, "key_not_before_future", "key:exo-b"}}},
		{"asks for a larger size", func(x *tenant) { x.req.Keys = []roll.KeyRequest{{ID: "exo-a", Size: 4096}} }, nil},
		{"asks for the same size", func(x *tenant) { x.req.Keys = []roll.KeyRequest{{ID: "exo-a", Size: 3072}} }, nil},
		{"asks for a smaller size", func(x *tenant) { x.req.Keys = []roll.KeyRequest{{ID: "exo-a", Size: 2048}} }, []want{{e, "key_size_smaller", "key:exo-a"}}},
		{"HSM, 79 versions", func(x *tenant) { x.inHSM("exo-a", 79) }, nil},
		{"HSM, 80 versions", func(x *tenant) { x.inHSM("exo-a", 80) }, []want{{w, "hsm_versions_many", "key:exo-a"}}},
		{"HSM, full", func(x *tenant) { x.inHSM("exo-a", 100) }, []want{{e, "hsm_version_limit", "key:exo-a"}}},
		{"HSM, full, adopts", func(x *tenant) {
			x.req.Keys = []roll.KeyRequest{{ID: "exo-a", Version: ver("exo-a", 2)}}
			x.inHSM("exo-a", 100)
		}, []want{{w, "hsm_versions_many", "key:exo-a"}}},
		{"old platform", func(x *tenant) { x.latest("exo-a", func(v *roll.KeyVersion) { v.HSMPlatform = "1" }) }, []want{{w, "hsm_platform_old", "key:exo-a"}}},
		{"migration from the old platform", func(x *tenant) {
			x.req.Policies, x.req.Keys, x.req.Reason.Code = nil, []roll.KeyRequest{{ID: "exo-a"}}, roll.ReasonHSMMigration
			x.latest("exo-a", func(v *roll.KeyVersion) { v.HSMPlatform = "1" })
		}, []want{{w, "hsm_platform_old", "key:exo-a"}}},
		{"migration from the new platform", func(x *tenant) {
			x.req.Policies, x.req.Keys, x.req.Reason.Code = nil, []roll.KeyRequest{{ID: "exo-a"}}, roll.ReasonHSMMigration
			x.latest("exo-a", func(v *roll.KeyVersion) { v.HSMPlatform = "2" })
		}, []want{{w, "hsm_migration_not_needed", "key:exo-a"}}},
		{"migration of what shows no platform", func(x *tenant) {
			x.req.Policies, x.req.Keys, x.req.Reason.Code = nil, []roll.KeyRequest{{ID: "exo-a"}}, roll.ReasonHSMMigration
		}, []want{{w, "hsm_migration_not_needed", "key:exo-a"}}},
		{"migration that adopts a version on the old platform", func(x *tenant) {
			x.req.Policies, x.req.Keys, x.req.Reason.Code = nil, []roll.KeyRequest{{ID: "exo-a", Version: ver("exo-a", 2)}}, roll.ReasonHSMMigration
			x.latest("exo-a", func(v *roll.KeyVersion) { v.HSMPlatform = "1" })
		}, []want{{w, "hsm_platform_old", "key:exo-a"}, {w, "hsm_platform_unchanged", "key:exo-a"}}},
		{"the key beside it", func(x *tenant) {
			x.req.Policies, x.req.Keys = nil, []roll.KeyRequest{{ID: "exo-b"}}
			x.latest("exo-a", func(v *roll.KeyVersion) { v.Enabled = false })
		}, []want{{e, "key_disabled", "key:exo-a"}}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			x := &tenant{inv: contoso(), obs: healthy(contoso()), req: request(contoso(), "exo-na", "spo")}
			c.do(x)
			p := build(t, x.inv, x.req, x.obs)
			var got []want
			for _, f := range p.Findings {
				got = append(got, want{f.Level, f.Code, f.Subject})
				if f.Seen == "" || f.Remedy == "" {
					t.Errorf("%s says not what was seen, or not the remedy: %+v", f.Code, f)
				}
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("findings %v, want %v", got, c.want)
			}
		})
	}
}
