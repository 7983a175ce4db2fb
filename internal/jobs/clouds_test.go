package jobs_test

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/keyroll/keyroll/internal/msapi"
	"github.com/keyroll/keyroll/internal/roll"
	"github.com/keyroll/keyroll/internal/sim"
)

// worldOf is Contoso in another cloud. Its hosts are written out here once
// more, so that the connectors' table is held against another hand's.
type worldOf struct {
	name, login, vault, exchange, admin string
	own                                 []sim.Cloud
}

func worlds() []worldOf {
	return []worldOf{
		{"public", "login.microsoftonline.com", "vault.azure.net", "outlook.office365.com", "contoso-admin.sharepoint.com", nil},
		{"gcc_high", "login.microsoftonline.us", "vault.usgovcloudapi.net", "outlook.office365.us", "contoso-admin.sharepoint.us", nil},
		{"dod", "login.microsoftonline.us", "vault.usgovcloudapi.net", "outlook-dod.office365.us", "contoso-admin.sharepoint-mil.us", nil},
		{"china", "login.chinacloudapi.cn", "vault.azure.cn", "outlook.office365.cn", "contoso-admin.sharepoint.cn", nil},
		{"airgap", "login.airgap.example", "vault.airgap.example", "outlook.mail.airgap.example", "contoso-admin.sharepoint.airgap.example",
			[]sim.Cloud{{Name: "airgap", Logins: []string{"login.airgap.example"}, Vault: "vault.airgap.example", HSM: "managedhsm.airgap.example",
				Exchange: "outlook.mail.airgap.example", ExchangeRedirects: []string{"mail.airgap.example"},
				SharePointAdmin: "-admin.sharepoint.airgap.example", ResourceManager: "management.airgap.example"}}},
	}
}

// in moves the seed's tenant and its declaration into the cloud.
func in(w worldOf) func(*sim.Seed, *roll.Inventory) {
	hosts := strings.NewReplacer(`"cloud":"public"`, `"cloud":"`+w.name+`"`, "vault.azure.net", w.vault, "contoso-admin.sharepoint.com", w.admin)
	return func(seed *sim.Seed, inv *roll.Inventory) {
		rewrite(hosts, &seed.Tenants[0])
		rewrite(hosts, inv)
		seed.Clouds = w.own
	}
}

func rewrite[T any](hosts *strings.Replacer, v *T) {
	raw, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	var out T
	if err := json.Unmarshal([]byte(hosts.Replace(string(raw))), &out); err != nil {
		panic(err)
	}
	*v = out
}

// A whole roll in each cloud, under its own host names: tokens, keys made, read
// and listed, policies read and refreshed, SharePoint's status and rolls.
func TestRollInEachCloud(t *testing.T) {
	t.Parallel()
	for _, w := range worlds() {
		t.Run(w.name, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t, in(w))
			h.declare()
			h.work(quick())
			r := h.request("global", "exo-na", "spo")
			h.approve(r.ID)
			r = h.ended(r.ID)
			if r.State != roll.Succeeded || r.Outcome != roll.Accepted {
				t.Errorf("ended %s, outcome %s; want succeeded, accepted\n%s", r.State, r.Outcome, show(r))
			}
			h.check(r)
			for _, k := range r.Keys {
				if !strings.HasSuffix(k.VaultURL, "."+w.vault) {
					t.Errorf("key %s was rolled in %s", k.ID, k.VaultURL)
				}
			}
			for service, op := range map[string]string{sim.ServiceEntra: sim.OpToken, sim.ServiceKeyVault: sim.OpCreateKey,
				sim.ServiceExchange: sim.OpSetM365DEP, sim.ServiceSharePoint: sim.OpRollKey} {
				if h.sim.World.Requests(service, op) == 0 {
					t.Errorf("%s saw no %s", service, op)
				}
			}
			// An own cloud's tenants are nobody's business at Microsoft.
			if n := h.sim.World.Requests(sim.ServiceEntra, sim.OpDiscovery); w.own != nil && n != 0 {
				t.Errorf("Microsoft's list of authorities was asked %d times", n)
			}
		})
	}
}

// A declaration whose hosts are another cloud's is refused, with the member
// and what was expected.
func TestDeclarationKeepsToItsCloud(t *testing.T) {
	t.Parallel()
	public, gov, airgap := worlds()[0], worlds()[1], worlds()[4]
	h := newHouse(t, in(airgap))
	for _, tt := range []struct {
		name            string
		change          func(*roll.Inventory)
		pointer, detail string
	}{
		{"vault of another cloud", func(i *roll.Inventory) { i.Keys[2].VaultURL = "https://contoso-exo-a." + gov.vault }, "/keys/2/vault_url",
			`is not in the cloud "airgap": expected https://{vault}.vault.airgap.example or https://{hsm}.managedhsm.airgap.example`},
		{"admin site of another cloud", func(i *roll.Inventory) { i.SharePoint.Geos[0].AdminURL = "https://" + public.admin }, "/sharepoint/geos/0/admin_url",
			`is not in the cloud "airgap": expected https://{tenant}-admin.sharepoint.airgap.example`},
		{"cloud changed, hosts not", func(i *roll.Inventory) { i.Cloud = "gcc_high" }, "/keys/0/vault_url", `is not in the cloud "gcc_high"`},
		{"no such cloud", func(i *roll.Inventory) { i.Cloud = "mars" }, "/cloud", `unknown cloud "mars": use one of public, gcc_high, dod, china, airgap`},
		{"no cloud", func(i *roll.Inventory) { i.Cloud = "" }, "/cloud", ""},
	} {
		inv := h.inv
		rewrite(strings.NewReplacer(), &inv)
		tt.change(&inv)
		_, err := h.ctl.Declare(t.Context(), admin(), inv, 0)
		invalid, ok := errors.AsType[*roll.InvalidError](err)
		if !ok || invalid.Pointer != tt.pointer || !strings.Contains(invalid.Detail, tt.detail) {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
	if n := h.sim.World.Requests(sim.ServiceKeyVault, ""); n != 0 {
		t.Errorf("%d requests were sent for declarations that were refused", n)
	}
}

// A tenant's credential asked in the wrong cloud ends at that cloud's Entra:
// no service is reached, and the error says that the tenant is not known there.
func TestCredentialInTheWrongCloud(t *testing.T) {
	t.Parallel()
	gov, china := worlds()[1], worlds()[3]
	h := newHouse(t, in(gov))
	inv := h.inv
	rewrite(strings.NewReplacer(gov.vault, china.vault, gov.admin, china.admin, `"gcc_high"`, `"china"`), &inv)
	c, err := h.gw.Exchange(inv)
	must(t, err)
	_, err = c.Policies(context.Background(), roll.Exchange)
	e, ok := msapi.AsError(err)
	if !ok || e.Service != msapi.ServiceEntra || e.Kind != msapi.KindToken {
		t.Errorf("got %v", err)
	}
	if n := h.sim.World.Requests(sim.ServiceExchange, ""); n != 0 {
		t.Errorf("Exchange got %d requests", n)
	}
}
