package api_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/keyroll/keyroll/internal/access"
	"github.com/keyroll/keyroll/internal/api"
	"github.com/keyroll/keyroll/internal/roll"
	"github.com/keyroll/keyroll/internal/sim"
	"github.com/keyroll/keyroll/internal/store"
)

func TestDeclareAndReplace(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	wanted := contoso()
	wanted.SharePoint.MinGap = ""
	refused(t, h.as("rita", "PUT", tenantPath, wanted, "If-None-Match", "*"), 403, api.ProblemCodeForbidden)
	refused(t, h.as("ada", "PUT", tenantPath, wanted), 428, api.ProblemCodePreconditionRequired)
	refused(t, h.as("ada", "PUT", tenantPath, wanted, "If-Match", `"1"`), 412, api.ProblemCodeVersionMismatch)
	rec := h.as("ada", "PUT", tenantPath, wanted, "If-None-Match", "*")
	made := answer[api.Tenant](t, rec, 201)
	if rec.Header().Get("Location") != tenantPath || rec.Header().Get("ETag") != `"1"` || made.Declaration.SharePoint.MinGap != "24h0m0s" {
		t.Errorf("declared: %v %+v", rec.Header(), made)
	}
	refused(t, h.as("ada", "PUT", tenantPath, wanted, "If-None-Match", "*"), 412, api.ProblemCodeAlreadyExists)
	// What is read can be put again as it is.
	read := answer[api.Tenant](t, h.as("aud", "GET", tenantPath, nil), 200)
	again := answer[api.Tenant](t, h.as("ada", "PUT", tenantPath, read.Declaration, "If-Match", `"1"`), 200)
	if diff := cmp.Diff(read.Declaration, again.Declaration); diff != "" || again.Version != 2 {
		t.Errorf("version %d:\n%s", again.Version, diff)
	}
	refused(t, h.as("ada", "PUT", tenantPath, read.Declaration, "If-Match", `"1"`), 412, api.ProblemCodeVersionMismatch)
}

// Declarations that the contract lets through and that cannot be.
func TestDeclarationsThatCannotBe(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	for name, c := range map[string]struct {
		change  func(*api.TenantDeclaration)
		pointer string
	}{
		"credential":     {func(d *api.TenantDeclaration) { d.Credential = "nobody" }, "/credential"},
		"foreign vault":  {func(d *api.TenantDeclaration) { d.Keys[0].VaultURL = "https://contoso.example.com" }, "/keys/0/vault_url"},
		"admin url":      {func(d *api.TenantDeclaration) { d.SharePoint.Geos[0].AdminURL = "https://contoso.example.com" }, "/sharepoint/geos/0/admin_url"},
		"gap too long":   {func(d *api.TenantDeclaration) { d.SharePoint.MinGap = "99999h" }, "/sharepoint/min_gap"},
		"gap beyond all": {func(d *api.TenantDeclaration) { d.SharePoint.MinGap = "9999999999999999999h" }, "/sharepoint/min_gap"},
		"gap too fine":   {func(d *api.TenantDeclaration) { d.SharePoint.MinGap = "0.5ms" }, "/sharepoint/min_gap"},
		"unknown key":    {func(d *api.TenantDeclaration) { d.Policies[0].Keys[1] = "x" }, "/policies/0"},
	} {
		d := contoso()
		c.change(&d)
		p := refused(t, h.as("ada", "PUT", tenantPath, d, "If-None-Match", "*"), 422, api.ProblemCodeUnprocessable)
		if len(p.Errors) != 1 || p.Errors[0].Pointer != c.pointer || p.Errors[0].Detail == "" {
			t.Errorf("%s: %+v", name, p.Errors)
		}
	}
	must(t, h.sim.World.SetPermission(sim.Permission{Tenant: sim.ContosoTenant, KeyVault: map[string]bool{"contoso-spo-b": false}}))
	p := refused(t, h.as("ada", "PUT", tenantPath, contoso(), "If-None-Match", "*"), 422, api.ProblemCodeKeysUnreadable)
	if len(p.Findings) != 1 || p.Findings[0].Subject != "key:spo-b" || !strings.Contains(p.Findings[0].Remedy, "grant") {
		t.Errorf("findings %+v", p.Findings)
	}
	refused(t, h.as("aud", "GET", tenantPath, nil), 404, api.ProblemCodeNotFound)
}

// What differs at Microsoft is answered and stands; whoever may read a tenant
// sees it, and whoever may plan may look anew.
func TestDiscoverAndDrift(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	refused(t, h.as("olga", "POST", tenantPath+"/discover", nil), 404, api.ProblemCodeNotFound)
	refused(t, h.as("aud", "GET", tenantPath+"/drift", nil), 404, api.ProblemCodeNotFound)
	h.declare()
	before := answer[api.TenantDrift](t, h.as("aud", "GET", tenantPath+"/drift", nil), 200)
	if !before.LookedAt.IsZero() || before.NextAt.IsZero() || len(before.Drift) != 0 {
		t.Errorf("before the first look: %+v", before)
	}
	refused(t, h.as("aud", "POST", tenantPath+"/discover", nil), 403, api.ProblemCodeForbidden)
	_, err := h.sim.World.StrangerVersion("contoso-exo-a", "Contoso-EXO-A-Key001", nil)
	must(t, err)
	must(t, h.sim.World.SetPermission(sim.Permission{Tenant: sim.ContosoTenant, KeyVault: map[string]bool{"contoso-spo-b": false}}))
	d := answer[api.Discovery](t, h.as("olga", "POST", tenantPath+"/discover", nil), 200)
	if len(d.Drift) != 1 || d.Drift[0].Code != "key_newer_version" || len(d.NotChecked) != 1 || d.NotChecked[0].Subject != "key:spo-b" {
		t.Errorf("%+v %+v", d.Drift, d.NotChecked)
	}
	if o := d.Observed; len(o.Policies) != 2 || len(o.Keys) != 5 || len(o.Geos) != 1 || o.Assignment == nil || o.Assignment.Name != "Contoso_Global" {
		t.Errorf("observed %+v", d.Observed)
	}
	list := answer[api.Checklist](t, h.as("aud", "GET", tenantPath+"/checklist", nil), 200)
	states := map[string]api.ChecklistItemState{}
	for _, item := range list.Items {
		states[string(item.ID)+" "+item.Subject] = item.State
		if item.ID == "admin_consent" && item.Commands[0] != "https://login.microsoftonline.com/"+sim.ContosoTenant+"/adminconsent?client_id="+sim.ContosoClientID {
			t.Errorf("consent: %v", item.Commands)
		}
	}
	if states["vault_keyroll vault:contoso-spo-b.vault.azure.net"] != "missing" || states["vault_keyroll vault:contoso-spo-a.vault.azure.net"] != "done" ||
		states["vault_microsoft365 vault:contoso-spo-a.vault.azure.net"] != "unknown" || states["exchange_app_role exchange"] != "done" || list.LookedAt.IsZero() {
		t.Errorf("checklist %v", states)
	}
	stands := answer[api.TenantDrift](t, h.as("aud", "GET", tenantPath+"/drift", nil), 200)
	if diff := cmp.Diff(d.Drift, stands.Drift); diff != "" || stands.ComparedAt.IsZero() {
		t.Errorf("compared %v:\n%s", stands.ComparedAt, diff)
	}
}

func TestRetire(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.declare()
	r := h.request(policies("spo"))
	retire := tenantPath + "/retire"
	refused(t, h.as("olga", "POST", retire, why), 403, api.ProblemCodeForbidden)
	refused(t, h.as("ada", "POST", retire, why), 409, api.ProblemCodeRollOpen)
	answer[api.Roll](t, h.as("rita", "POST", rollPath(r.ID)+"/cancel", why), 200)
	gone := answer[api.Tenant](t, h.as("ada", "POST", retire, why), 200)
	if gone.RetiredAt.IsZero() || gone.Version != 2 {
		t.Fatalf("retired: %+v", gone)
	}
	if again := answer[api.Tenant](t, h.as("ada", "POST", retire, why), 200); again.Version != 2 {
		t.Errorf("retired twice: version %d", again.Version)
	}
	refused(t, h.send("rita", policies("spo"), "k"), 409, api.ProblemCodeTenantRetired)
	refused(t, h.as("rita", "POST", "/v1/plans", policies("spo")), 409, api.ProblemCodeTenantRetired)
	if len(h.ledger("")) == 0 || len(h.rolls("")) != 1 {
		t.Error("the ledger or the history went with the tenant")
	}
	for query, want := range map[string]int{"": 0, "?include_retired=false": 0, "?include_retired=true": 1} {
		if l := answer[api.TenantList](t, h.as("aud", "GET", "/v1/tenants"+query, nil), 200); len(l.Items) != want {
			t.Errorf("%q lists %d tenants, want %d", query, len(l.Items), want)
		}
	}
	// Declaring it again takes it back.
	back := answer[api.Tenant](t, h.as("ada", "PUT", tenantPath, gone.Declaration, "If-Match", `"2"`), 200)
	if !back.RetiredAt.IsZero() {
		t.Errorf("still retired: %+v", back)
	}
	h.request(policies("spo"))
}

// Tenants in pages of two, none twice; and one key belongs to one tenant.
func TestListOfTenants(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.declare()
	want := []string{sim.ContosoTenant}
	for i := range 4 {
		id := strings.Replace(someTenant, "7d3c1f0e", "7d3c1f0"+string(rune('a'+i)), 1)
		answer[api.Tenant](t, h.as("ada", "PUT", "/v1/tenants/"+id, tenantBody, "If-None-Match", "*"), 201)
		want = append([]string{id}, want...)
	}
	var got []string
	cursor := ""
	for {
		page := answer[api.TenantList](t, h.as("aud", "GET", "/v1/tenants?limit=2"+cursor, nil), 200)
		for _, one := range page.Items {
			got = append(got, one.TenantID)
		}
		if page.NextCursor == "" {
			break
		}
		cursor = "&cursor=" + page.NextCursor
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("tenants:\n%s", diff)
	}
	refused(t, h.as("aud", "GET", "/v1/tenants?cursor="+api.WriteCursor(api.Position{At: someTime, ID: "x"}, "tenants", ""), nil), 400, api.ProblemCodeBadCursor)
}

// A token that was revoked is nobody's.
func TestAuthenticator(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	if answer[api.TenantList](t, h.as("aud", "GET", "/v1/tenants", nil), 200).Items == nil {
		t.Error("no list is null")
	}
	token, _ := access.ParseToken(h.tokens["aud"])
	_, err := h.st.RevokeToken(t.Context(), token.Prefix, roll.Keyroll())
	must(t, err)
	refused(t, h.as("aud", "GET", "/v1/tenants", nil), 401, api.ProblemCodeUnauthenticated)
	h.tokens["nobody"] = access.NewToken().Secret
	refused(t, h.as("nobody", "GET", "/v1/tenants", nil), 401, api.ProblemCodeUnauthenticated)
	refused(t, h.as("", "GET", "/v1/tenants", nil), 401, api.ProblemCodeUnauthenticated)
}

func TestReadiness(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	if got := answer[api.Health](t, h.as("", "GET", "/readyz", nil), 200); got.Status != "ok" || !got.Simulated {
		t.Errorf("ready: %+v", got)
	}
	h.shut()
	rec := h.as("", "GET", "/readyz", nil)
	if p := refused(t, rec, 503, api.ProblemCodeUnavailable); strings.Contains(p.Detail, "pool") || rec.Header().Get("Retry-After") == "" {
		t.Errorf("not ready: %v %s", rec.Header(), rec.Body)
	}
	answer[api.Health](t, h.as("", "GET", "/healthz", nil), 200)
}

// Every route of the contract, over the real handlers. What the guards refuse
// before a handler is refused here too, with nothing written.
func TestEveryRealRoute(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.declare()
	r := h.request(policies("spo"))
	everybody := access.NewToken().Secret
	h.tokens["everybody"] = everybody
	token, _ := access.ParseToken(everybody)
	must(t, h.st.CreateToken(t.Context(), allRoles(token), token.Hash, roll.Keyroll()))
	for id, q := range goodRequests() {
		path := strings.NewReplacer(someTenant, sim.ContosoTenant, someRoll, r.ID).Replace(q[1])
		text := strings.ReplaceAll(q[2], someTenant, sim.ContosoTenant)
		rec := h.as("everybody", q[0], path, text, q[3:]...)
		if rec.Code >= 500 || rec.Code == 401 || rec.Code == 403 || rec.Code == 405 || strings.Contains(rec.Body.String(), `"code":"route_not_found"`) {
			t.Errorf("%s answers %d: %s", id, rec.Code, rec.Body)
		}
		if text == "" || q[0] == "GET" {
			continue
		}
		for name, bad := range map[string]string{
			"malformed": text[:len(text)-1], "unknown": `{"no_such_member":1,` + text[1:], "case": strings.Replace(text, `"reason"`, `"Reason"`, 1) + " ",
			"twice": `{"reason":1,"reason":2}`, "oversized": `{"x":"` + strings.Repeat("x", 70000) + `"}`,
		} {
			if name == "case" && !strings.Contains(text, `"reason"`) {
				continue
			}
			if rec := h.as("everybody", q[0], path, bad, q[3:]...); rec.Code != 400 && rec.Code != 413 {
				t.Errorf("%s, %s: %d %s", id, name, rec.Code, rec.Body)
			} else if p := problem(t, rec); rec.Code == 400 && len(p.Errors) == 0 {
				t.Errorf("%s, %s names nothing: %s", id, name, rec.Body)
			}
		}
	}
}

func allRoles(token access.Token) store.Token {
	return store.Token{
		ID: uuid.NewString(), Name: "everybody", Prefix: token.Prefix,
		Principal: access.Principal{Subject: "everybody@contoso.com", Kind: access.Person, Roles: access.Roles()},
	}
}

// TestTenantThatNeedsAttention: what the watch of the ledger found stands in
// the tenant, and tenants can be listed by it.
func TestTenantThatNeedsAttention(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.declare()
	calm := answer[api.Tenant](t, h.as("aud", "GET", tenantPath, nil), 200)
	if calm.NeedsAttention || calm.Attention == nil || len(calm.Attention) > 0 {
		t.Errorf("nothing has happened: %+v", calm.Attention)
	}
	due, err := h.st.DueLedgerKeys(t.Context(), 100, time.Nanosecond, time.Minute)
	must(t, err)
	for _, w := range due {
		w, err = h.st.LedgerKey(t.Context(), w)
		must(t, err)
		if w.Ledger.Key.ID != "spo-a" {
			continue
		}
		look := roll.LedgerLook{At: h.st.Now(), Gone: true, Deleted: roll.DeletedKey{Readable: true, Found: true}}
		_, err = h.st.NoteLook(t.Context(), w, look, roll.CheckLedger(w.Ledger, look), time.Hour, time.Hour)
		must(t, err)
	}
	now := answer[api.Tenant](t, h.as("aud", "GET", tenantPath, nil), 200)
	if !now.NeedsAttention || len(now.Attention) != 1 || now.Attention[0].Code != "key_soft_deleted" || now.Attention[0].Level != "error" ||
		!strings.Contains(now.Attention[0].NextAction, "Undo-AzKeyVaultKeyRemoval") || now.Attention[0].Since.IsZero() || len(now.Attention[0].Policies) != 1 {
		t.Errorf("attention %+v", now.Attention)
	}
	for _, v := range h.ledger("?key=spo-a") {
		if v.State != "soft_deleted" || !strings.Contains(v.Why, "recover it") {
			t.Errorf("version %+v", v)
		}
	}
	for query, want := range map[string]int{"?needs_attention=true": 1, "?needs_attention=false": 1} {
		if l := answer[api.TenantList](t, h.as("aud", "GET", "/v1/tenants"+query, nil), 200); len(l.Items) != want || !l.Items[0].NeedsAttention {
			t.Errorf("%s lists %d tenants", query, len(l.Items))
		}
	}
}
