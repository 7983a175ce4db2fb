package roll_test

import (
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/keyroll/keyroll/internal/roll"
)

func faultCode(f *roll.Fault) string {
	if f == nil {
		return ""
	}
	if f.Seen == "" || f.Remedy == "" {
		return f.Code + " without words"
	}
	return f.Code
}

// Rule 5.
func TestCheckRefresh(t *testing.T) {
	past, future := start.Add(-time.Hour), start.Add(time.Hour)
	type input struct {
		tenant
		expected map[string]string
	}
	for _, c := range []struct {
		name, want string
		do         func(*input)
	}{
		{"in order", "", func(*input) {}},
		{"nbf passed", "", func(x *input) { x.latest("exo-b", func(v *roll.KeyVersion) { v.NotBefore = &past }) }},
		{"policy unreadable", "policy_unreadable", func(x *input) { x.policy("exo-na", func(p *roll.PolicyObservation) { p.Trouble = &roll.Trouble{} }) }},
		{"policy gone", roll.CodePolicyMissing, func(x *input) { delete(x.obs.Policies, "exo-na") }},
		{"guid", "policy_guid_mismatch", func(x *input) { x.policy("exo-na", func(p *roll.PolicyObservation) { p.GUID = guidM }) }},
		{"disabled", "policy_disabled", func(x *input) { x.policy("exo-na", func(p *roll.PolicyObservation) { p.Enabled = false }) }},
		{"purge", "policy_purge_requested", func(x *input) { x.policy("exo-na", func(p *roll.PolicyObservation) { p.PurgeRequested = true }) }},
		{"a key less", "policy_keys_mismatch", func(x *input) {
			x.policy("exo-na", func(p *roll.PolicyObservation) { p.AzureKeyIDs = p.AzureKeyIDs[:1] })
		}},
		{"versioned", "policy_keys_versioned", func(x *input) {
			x.policy("exo-na", func(p *roll.PolicyObservation) { p.AzureKeyIDs[1] += "/" + ver("exo-b", 2) })
		}},
		{"key not declared", "key_not_declared", func(x *input) {
			x.inv.Keys = slices.DeleteFunc(x.inv.Keys, func(k roll.Key) bool { return k.ID == "exo-b" })
			x.policy("exo-na", func(p *roll.PolicyObservation) { p.AzureKeyIDs[1] = "https://x.vault.azure.net/keys/y" })
		}},
		{"first key unreadable", "key_unreadable", func(x *input) {
			x.key("exo-a", func(k *roll.KeyObservation) { k.Trouble = &roll.Trouble{Code: "not_found"} })
		}},
		{"second key not read", roll.CodeStranger, func(x *input) { delete(x.obs.Keys, "exo-b") }},
		{"stranger on the rolled key", roll.CodeStranger, func(x *input) { x.latest("exo-a", func(v *roll.KeyVersion) { v.Version = ver("exo-a", 9) }) }},
		{"stranger on the key beside it", roll.CodeStranger, func(x *input) { x.latest("exo-b", func(v *roll.KeyVersion) { v.Version = ver("exo-b", 9) }) }},
		{"nothing recorded", roll.CodeStranger, func(x *input) { x.expected["exo-a"] = "" }},
		{"nothing recorded, nothing seen", roll.CodeStranger, func(x *input) {
			x.expected["exo-a"] = ""
			x.latest("exo-a", func(v *roll.KeyVersion) { v.Version = "" })
		}},
		{"key disabled", "key_disabled", func(x *input) { x.latest("exo-a", func(v *roll.KeyVersion) { v.Enabled = false }) }},
		{"expires", "key_has_expiry", func(x *input) { x.latest("exo-b", func(v *roll.KeyVersion) { v.Expires = &future }) }},
		{"nbf to come", "key_not_before_future", func(x *input) { x.latest("exo-b", func(v *roll.KeyVersion) { v.NotBefore = &future }) }},
	} {
		x := &input{tenant: tenant{inv: contoso(), obs: healthy(contoso())}, expected: map[string]string{"exo-a": ver("exo-a", 2), "exo-b": ver("exo-b", 2)}}
		p := x.inv.Policies[1]
		c.do(x)
		got := faultCode(roll.CheckRefresh(x.inv, p, x.obs.Policies["exo-na"], x.obs.Keys, x.expected, start))
		if c.name == "key not declared" && got == "policy_keys_mismatch" {
			continue // refused either way
		}
		if got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}

// Rule 6.
func TestCheckSlot(t *testing.T) {
	inv := contoso()
	a, b := inv.Keys[4], inv.Keys[5]
	good := roll.SharePointObservation{PrimaryURI: a.URI(ver("spo-a", 2)), SecondaryURI: b.URI(ver("spo-b", 2))}
	for _, c := range []struct {
		name, want string
		inv        roll.Inventory
		seen       roll.SharePointObservation
		slot       roll.Slot
		old        string
	}{
		{"primary", "", inv, good, roll.Primary, ver("spo-a", 2)},
		{"secondary", "", inv, good, roll.Secondary, ver("spo-b", 2)},
		{"without versions", "", inv, roll.SharePointObservation{PrimaryURI: a.URI(""), SecondaryURI: b.URI("")}, roll.Primary, ""},
		{"swapped, primary", roll.CodeSlotMismatch, inv, roll.SharePointObservation{PrimaryURI: good.SecondaryURI, SecondaryURI: good.PrimaryURI}, roll.Primary, ver("spo-b", 2)},
		{"swapped, secondary", roll.CodeSlotMismatch, inv, roll.SharePointObservation{PrimaryURI: good.SecondaryURI, SecondaryURI: good.PrimaryURI}, roll.Secondary, ver("spo-a", 2)},
		{"the other slot holds this key", roll.CodeSlotMismatch, inv, roll.SharePointObservation{PrimaryURI: good.PrimaryURI, SecondaryURI: good.PrimaryURI}, roll.Primary, ver("spo-a", 2)},
		{"other version", roll.CodeSlotMismatch, inv, good, roll.Primary, ver("spo-a", 1)},
		{"version expected, none shown", roll.CodeSlotMismatch, inv, roll.SharePointObservation{PrimaryURI: a.URI(""), SecondaryURI: b.URI("")}, roll.Primary, ver("spo-a", 2)},
		{"other vault, same name", roll.CodeSlotMismatch, inv, roll.SharePointObservation{PrimaryURI: "https://other.vault.azure.net/keys/" + a.Name + "/" + ver("spo-a", 2), SecondaryURI: good.SecondaryURI}, roll.Primary, ver("spo-a", 2)},
		{"unreadable", roll.CodeSlotMismatch, inv, roll.SharePointObservation{SecondaryURI: good.SecondaryURI}, roll.Primary, ""},
		{"not declared", "key_not_declared", roll.Inventory{Policies: inv.Policies}, good, roll.Primary, ver("spo-a", 2)},
	} {
		if got := faultCode(roll.CheckSlot(c.inv, inv.Policies[2], c.slot, c.seen, c.old)); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}

func TestSlotTaken(t *testing.T) {
	k, v := declared("spo-a"), ver("spo-a", 3)
	for _, c := range []struct {
		uri          string
		taken, exact bool
	}{
		{k.URI(v), true, true}, {k.URI(ver("spo-a", 2)), false, true}, {k.URI(""), true, false},
		{declared("spo-b").URI(v), false, false}, {"", false, false},
	} {
		if taken, exact := roll.SlotTaken(k, c.uri, v); taken != c.taken || exact != c.exact {
			t.Errorf("%q: %v %v", c.uri, taken, exact)
		}
	}
}

// Rule 8.
func TestSpecFrom(t *testing.T) {
	old := version("exo-a", 2)
	old.Expires, old.NotBefore = &start, &start
	old.Tags[roll.OperationTag] = "earlier"
	tags := maps.Clone(old.Tags)
	at := start.Add(time.Hour)
	got := roll.SpecFrom(old, 0, &at)
	want := roll.CreateSpec{Kty: "RSA-HSM", Size: 3072, KeyOps: []string{"wrapKey", "unwrapKey"}, Tags: map[string]string{"owner": "security"}, NotBefore: &at}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	got.Tags["x"], got.KeyOps[0] = "y", "sign"
	if !maps.Equal(old.Tags, tags) || old.KeyOps[0] != "wrapKey" {
		t.Error("the predecessor was changed")
	}
	if got := roll.SpecFrom(old, 4096, nil).Size; got != 4096 {
		t.Errorf("asked for 4096 bits, the vault is asked for %d", got)
	}
	if roll.SpecFrom(old, 0, nil).NotBefore != nil {
		t.Error("the predecessor's nbf was copied")
	}
}

func TestCheckNewVersion(t *testing.T) {
	k, old := declared("exo-a"), version("exo-a", 2)
	for _, c := range []struct {
		name, want string
		do         func(*roll.KeyVersion)
	}{
		{"same", "", func(*roll.KeyVersion) {}},
		{"key_ops in another order", "", func(v *roll.KeyVersion) { slices.Reverse(v.KeyOps) }},
		{"software", "version_differs", func(v *roll.KeyVersion) { v.Kty = "RSA" }},
		{"smaller", "version_differs", func(v *roll.KeyVersion) { v.Size = 2048 }},
		{"larger, unasked", "version_differs", func(v *roll.KeyVersion) { v.Size = 4096 }},
		{"an operation less", "version_differs", func(v *roll.KeyVersion) { v.KeyOps = v.KeyOps[:1] }},
		{"an operation more", "version_differs", func(v *roll.KeyVersion) { v.KeyOps = append(v.KeyOps, "sign") }},
		{"disabled", "key_disabled", func(v *roll.KeyVersion) { v.Enabled = false }},
		{"expires", "key_has_expiry", func(v *roll.KeyVersion) { v.Expires = &start }},
	} {
		v := version("exo-a", 3)
		c.do(&v)
		if got := faultCode(roll.CheckNewVersion(k, old, v, 0)); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
	// Asked for a size, the version has exactly that one, and never a smaller
	// one than its predecessor.
	for _, c := range []struct {
		asked, made int
		want        string
	}{{4096, 4096, ""}, {3072, 3072, ""}, {4096, 3072, "version_differs"}, {3072, 4096, "version_differs"}, {2048, 2048, "version_differs"}} {
		v := version("exo-a", 3)
		v.Size = c.made
		if got := faultCode(roll.CheckNewVersion(k, old, v, c.asked)); got != c.want {
			t.Errorf("asked for %d, made %d: %q, want %q", c.asked, c.made, got, c.want)
		}
	}
}

func TestCheckPlatform(t *testing.T) {
	for _, c := range []struct{ old, made, want string }{
		{"1", "2", ""}, {"1", "3", ""}, {"1", "1", "hsm_platform_unchanged"}, {"1", "", "hsm_platform_unchanged"}, {"1", "0", "hsm_platform_unchanged"},
		{"1", "x", "hsm_platform_unchanged"}, {"2", "2", ""}, {"", "", ""}, {"0", "0", ""},
	} {
		old, made := version("exo-a", 2), version("exo-a", 3)
		old.HSMPlatform, made.HSMPlatform = c.old, c.made
		if got := faultCode(roll.CheckPlatform(declared("exo-a"), old, made)); got != c.want {
			t.Errorf("%q after %q: %q, want %q", c.made, c.old, got, c.want)
		}
	}
}

func TestParseKeyURI(t *testing.T) {
	for uri, want := range map[string]roll.KeyRef{
		"https://V.vault.azure.net/keys/K":                            {Host: "v.vault.azure.net", Name: "K"},
		"https://v.vault.azure.net:443/keys/K/":                       {Host: "v.vault.azure.net", Name: "K"},
		" https://v.vault.azure.net/Keys/K/ABC ":                      {Host: "v.vault.azure.net", Name: "K", Version: "abc"},
		"https://v.x/keys/k/00000000-1111-2222-3333-444444444444":     {Host: "v.x", Name: "k", Version: "00000000111122223333444444444444"},
		"https://v.x:8443/keys/k":                                     {Host: "v.x:8443", Name: "k"},
		"https://hsm1.managedhsm.azure.net/keys/k/" + ver("exo-a", 1): {Host: "hsm1.managedhsm.azure.net", Name: "k", Version: ver("exo-a", 1)},
		"http://v.x/keys/k":                                           {},
		"https://v.x/secrets/k":                                       {},
		"https://v.x/keys":                                            {},
		"https://v.x/keys//v":                                         {},
		"https://v.x/keys/k/v/w":                                      {},
		"https://v.x/keys/k/-":                                        {},
		"https://u@v.x/keys/k":                                        {},
		"https://:443/keys/k":                                         {},
		"https://v.x/keys/k?a=b":                                      {},
		"https://v.x/keys/k#a":                                        {},
		"https://v.x/keys/k%3Fa":                                      {},
		"v.x/keys/k":                                                  {},
		"":                                                            {},
	} {
		got, ok := roll.ParseKeyURI(uri)
		if got != want || ok != (want != roll.KeyRef{}) {
			t.Errorf("%q: %+v %v", uri, got, ok)
		}
	}
	k := roll.Key{VaultURL: "HTTPS://V.vault.azure.net:443/", Name: "K"}
	if ref, ok := roll.ParseKeyURI(k.URI("")); !ok || !ref.SameKey(k.Ref()) || !ref.SameKey(roll.KeyRef{Host: "v.vault.azure.net", Name: "k"}) || k.VaultName() != "v" {
		t.Errorf("%s", k.URI(""))
	}
}

func FuzzParseKeyURI(f *testing.F) {
	for _, s := range []string{"https://v.vault.azure.net/keys/K/abc", "https://v.x:443/keys/k", "https://:443/keys/k/-", "https://v.x/keys/%2e%2F", "https://[::1]:443/keys/k", "https://v.x/keys/a:b"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		ref, ok := roll.ParseKeyURI(s)
		if !ok {
			if ref != (roll.KeyRef{}) {
				t.Fatalf("%q is refused, and %+v given", s, ref)
			}
			return
		}
		if ref.Host == "" || ref.Name == "" {
			t.Fatalf("%q: %+v", s, ref)
		}
		k := roll.Key{VaultURL: "https://" + ref.Host, Name: ref.Name}
		again, ok := roll.ParseKeyURI(k.URI(ref.Version))
		if !ok || again != ref || !again.SameKey(k.Ref()) {
			t.Fatalf("%q: %+v, and again %+v", s, ref, again)
		}
	})
}
