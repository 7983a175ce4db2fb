package main

import (
	"github.com/keyroll/keyroll/internal/api"
	"github.com/keyroll/keyroll/internal/sim"
)

// contosoSeed is the world of the demo: SharePoint takes a few seconds for
// what takes days in life.
func contosoSeed() sim.Seed {
	seed := sim.ContosoSeed()
	seed.Tenants[0].SharePoint.SitesPerSecond = float64(seed.Tenants[0].SharePoint.Geos[0].SiteCount) / 4.5
	return seed
}

// contosoDeclaration declares tenant Contoso as the simulators have it: two
// root keys for each of three policies, in six vaults.
func contosoDeclaration() api.TenantDeclaration {
	guids := map[string]string{}
	for _, p := range sim.ContosoSeed().Tenants[0].Exchange.Policies {
		guids[p.Name] = p.GUID
	}
	key := func(id, vault, name string) api.Key {
		return api.Key{ID: id, VaultURL: "https://" + vault + ".vault.azure.net", Name: name}
	}
	return api.TenantDeclaration{
		Name: "Contoso", Cloud: "public", Credential: "contoso", Labels: map[string]string{"tier": "gold"}, Approval: "required",
		SharePoint: api.SharePointSettings{Lease: "tenant", MinGap: "0s", Geos: []api.Geo{{ID: "NAM", AdminURL: "https://contoso-admin.sharepoint.com"}}},
		Keys: []api.Key{
			key("m-a", "contoso-m365-a", "Contoso-M365-A-Key001"), key("m-b", "contoso-m365-b", "Contoso-M365-B-Key001"),
			key("exo-a", "contoso-exo-a", "Contoso-EXO-A-Key001"), key("exo-b", "contoso-exo-b", "Contoso-EXO-B-Key001"),
			key("spo-a", "contoso-spo-a", "Contoso-SPO-A-Key001"), key("spo-b", "contoso-spo-b", "Contoso-SPO-B-Key001"),
		},
		FormerKeys: []api.Key{},
		Azure: api.AzureSettings{ServicePrincipals: api.ServicePrincipals{
			Exchange:      sim.ObjectID(sim.ContosoTenant, sim.ExchangeAppID),
			SharePoint:    sim.ObjectID(sim.ContosoTenant, sim.SharePointAppID),
			MultiWorkload: sim.ObjectID(sim.ContosoTenant, sim.MultiWorkloadAppID),
		}},
		Policies: []api.Policy{
			{ID: "global", Workload: "multi-workload", Name: "Contoso_Global", GUID: guids["Contoso_Global"], Keys: []string{"m-a", "m-b"}},
			{ID: "exo-na", Workload: "exchange", Name: "NA Mailboxes", GUID: guids["NA Mailboxes"], Keys: []string{"exo-a", "exo-b"}, SampleMailboxes: []string{"vip@contoso.com"}},
			{ID: "spo", Workload: "sharepoint", Geo: "NAM", Primary: "spo-a", Secondary: "spo-b"},
		},
		Windows: []api.Window{},
		Vetoes:  api.Vetoes{"rotation_policy_expiry": "error"},
	}
}

// people of the demo, with what each of them may do. An approver is never who requested.
func people() []tokenWish {
	return []tokenWish{
		{kind: "person", subject: "rita@contoso.com", name: "Rita, who requests", roles: roles("requester", "operator")},
		{kind: "person", subject: "arno@contoso.com", name: "Arno, who approves", roles: roles("approver", "operator")},
		{kind: "person", subject: "ada@contoso.com", name: "Ada, who declares", roles: roles("admin", "auditor")},
	}
}
