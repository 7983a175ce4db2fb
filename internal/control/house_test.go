package control_test

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/uuid"

	"github.com/keyroll/keyroll/internal/access"
	"github.com/keyroll/keyroll/internal/control"
	"github.com/keyroll/keyroll/internal/jobs"
	"github.com/keyroll/keyroll/internal/msapi"
	"github.com/keyroll/keyroll/internal/pgtest"
	"github.com/keyroll/keyroll/internal/roll"
	"github.com/keyroll/keyroll/internal/sim"
	"github.com/keyroll/keyroll/internal/store"
	"github.com/keyroll/keyroll/internal/survey"
)

func migrate(ctx context.Context, url string) error { return store.Migrate(ctx, url, jobs.Schema{}) }

// house is control over a database of its own and simulators. No worker runs:
// what is tested here is what acts alone do.
type house struct {
	t   *testing.T
	sim *sim.Server
	st  *store.Store
	ctl *control.Control
	inv roll.Inventory
	gw  *survey.Gateway
}

func newHouse(t *testing.T) *house {
	t.Helper()
	h := &house{t: t, inv: contoso()}
	cert, key, err := sim.NewAppCertificate("keyroll")
	must(t, err)
	seed := sim.ContosoSeed()
	seed.AllowCertificate(sim.ContosoClientID, cert)
	h.sim, err = sim.Start(context.Background(), sim.Options{Seed: seed})
	must(t, err)
	t.Cleanup(func() { _ = h.sim.Close() })
	dir := t.TempDir()
	must(t, os.WriteFile(filepath.Join(dir, "app.pem"), append(cert, key...), 0o600))
	creds := filepath.Join(dir, "credentials.json")
	must(t, os.WriteFile(creds, []byte(`{"contoso":{"kind":"client_certificate","client_id":"`+sim.ContosoClientID+`","certificate_path":"app.pem"}}`), 0o600))
	all, err := msapi.ReadCredentials(creds)
	must(t, err)
	dial, err := msapi.ParseDialMap(h.sim.DialMap())
	must(t, err)
	hc, err := msapi.HTTPClient(dial, h.sim.CAPEM())
	must(t, err)
	t.Cleanup(hc.CloseIdleConnections)
	pool, err := store.OpenPool(t.Context(), pgtest.Open(t, migrate), store.Options{Role: "keyroll_app"})
	must(t, err)
	t.Cleanup(pool.Close)
	queue, err := jobs.NewQueue(pool, slog.New(slog.DiscardHandler))
	must(t, err)
	h.st = store.New(pool, queue)
	must(t, h.st.Ping(t.Context()))
	h.gw = survey.NewGateway(all, hc)
	h.ctl = control.New(h.st, h.gw, control.Config{Simulated: true})
	return h
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func person(name string, roles ...access.Role) access.Principal {
	return access.Principal{TokenID: uuid.NewString(), Subject: name + "@contoso.com", Kind: access.Person, Roles: roles}
}

func admin() access.Principal { return person("ada", access.Admin) }
func rita() access.Principal  { return person("rita", access.Requester, access.Operator) }
func paul() access.Principal  { return person("paul", access.Approver) }

func contoso() roll.Inventory {
	guid := map[string]string{}
	for _, p := range sim.ContosoSeed().Tenants[0].Exchange.Policies {
		guid[p.Name] = p.GUID
	}
	key := func(id, vault, name string) roll.Key {
		return roll.Key{ID: id, VaultURL: "https://" + vault + ".vault.azure.net", Name: name}
	}
	return roll.Inventory{TenantID: sim.ContosoTenant, Name: "Contoso", Cloud: "public", Credential: "contoso",
		SharePoint: roll.SharePointSettings{Geos: []roll.Geo{{ID: "NAM", AdminURL: "https://contoso-admin.sharepoint.com"}}},
		Keys: []roll.Key{
			key("m-a", "contoso-m365-a", "Contoso-M365-A-Key001"), key("m-b", "contoso-m365-b", "Contoso-M365-B-Key001"),
			key("exo-a", "contoso-exo-a", "Contoso-EXO-A-Key001"), key("exo-b", "contoso-exo-b", "Contoso-EXO-B-Key001"),
			key("spo-a", "contoso-spo-a", "Contoso-SPO-A-Key001"), key("spo-b", "contoso-spo-b", "Contoso-SPO-B-Key001"),
		},
		Policies: []roll.Policy{
			{ID: "global", Workload: roll.MultiWorkload, Name: "Contoso_Global", GUID: guid["Contoso_Global"], Keys: []string{"m-a", "m-b"}},
			{ID: "exo-na", Workload: roll.Exchange, Name: "NA Mailboxes", GUID: guid["NA Mailboxes"], Keys: []string{"exo-a", "exo-b"}},
			{ID: "spo", Workload: roll.SharePoint, Geo: "NAM", Primary: "spo-a", Secondary: "spo-b"},
		}}
}

func (h *house) declare() store.Tenant {
	h.t.Helper()
	out, err := h.ctl.Declare(h.t.Context(), admin(), h.inv, 0)
	must(h.t, err)
	return out
}

func (h *house) request(req roll.Request, key string) (roll.Roll, error) {
	h.t.Helper()
	var made roll.Roll
	req.TenantID, req.Reason = h.inv.TenantID, roll.Reason{Code: "compliance_requirement", Text: "annual"}
	_, err := h.ctl.Request(h.t.Context(), rita(), req, control.Idempotency{Key: key, BodyHash: []byte("x"),
		Render: func(r roll.Roll) (store.Answer, error) {
			made = r
			return store.Answer{Status: 202, Body: []byte(r.ID)}, nil
		}})
	return made, err
}
