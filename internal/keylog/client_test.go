package keylog_test

import (
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/keyroll/keyroll/internal/keylog"
	"github.com/keyroll/keyroll/internal/msapi"
	"github.com/keyroll/keyroll/internal/msapi/msapitest"
	"github.com/keyroll/keyroll/internal/roll"
	"github.com/keyroll/keyroll/internal/sim"
)

const (
	workspace = "2f1d6a3c-8b0e-4a57-9c1d-7e5b40c3a9d2"
	vaultHost = "contoso-exo-a.vault.azure.net"
	keyName   = "Contoso-EXO-A-Key001"
)

func public(t *testing.T) msapi.Cloud {
	t.Helper()
	c, err := msapi.CloudByName(msapi.CloudPublic)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// Exercise is what holds for a workspace in which Exchange has wrapped with a
// version since the moment, and which may be read.
func Exercise(t *testing.T, c *keylog.Client, wrapped roll.KeyRef, since time.Time) {
	t.Helper()
	uses, err := c.Uses(t.Context(), []roll.KeyRef{wrapped}, since)
	must(t, err)
	found := false
	for _, u := range uses {
		if u.First.Before(since) || !u.Ref.SameKey(wrapped) || u.Ref.Version != wrapped.Version {
			t.Errorf("not asked for: %+v", u)
		}
		found = found || u.Operation == roll.UseWrap && u.AppID == roll.Exchange.AppID() && u.Calls > 0
	}
	if !found {
		t.Errorf("the wrap is not among %+v", uses)
	}
	other := wrapped
	other.Version = strings.Repeat("0", 32)
	if uses, err = c.Uses(t.Context(), []roll.KeyRef{other}, since); err != nil || len(uses) > 0 {
		t.Errorf("of a version that nobody used: %+v, %v", uses, err)
	}
}

func TestOverTheSimulator(t *testing.T) {
	t.Parallel()
	seed := sim.ContosoSeed()
	seed.Tenants[0].Logs = &sim.Logs{WorkspaceID: workspace}
	cert, key, err := sim.NewAppCertificate("keylog test")
	must(t, err)
	seed.AllowCertificate(sim.ContosoClientID, cert)
	srv, err := sim.Start(t.Context(), sim.Options{Seed: seed})
	must(t, err)
	t.Cleanup(func() { _ = srv.Close() })
	cred, hc := msapitest.Connect(t, srv.DialMap(), srv.CAPEM(), msapitest.App{ClientID: sim.ContosoClientID, Cert: cert, Key: key}, sim.ContosoTenant, public(t))
	c, err := keylog.New(public(t), workspace, cred, hc)
	must(t, err)
	ref := roll.KeyRef{Host: vaultHost, Name: keyName, Version: strings.Repeat("a1", 16)}
	since := srv.World.CurrentTime().Truncate(time.Second)
	uri := "https://" + vaultHost + "/keys/" + keyName + "/" + ref.Version
	must(t, srv.World.WriteLog(sim.ContosoTenant, sim.LogLine{Operation: sim.LogWrap, AppID: roll.Exchange.AppID(), Key: uri}))
	must(t, srv.World.WriteLog(sim.ContosoTenant, sim.LogLine{At: since.Add(-time.Hour), Operation: sim.LogUnwrap, AppID: roll.Exchange.AppID(), Key: uri}))
	Exercise(t, c, ref, since)
	must(t, srv.World.SetLogs(sim.ContosoTenant, sim.Logs{WorkspaceID: workspace, Denied: true}))
	if _, err := c.Uses(t.Context(), []roll.KeyRef{ref}, since); kind(err) != msapi.KindForbidden {
		t.Errorf("denied: %v", err)
	}
}

// TestOverALiveTenant reads the workspace that the environment names.
func TestOverALiveTenant(t *testing.T) {
	file, tenant, id := os.Getenv("KEYROLL_TEST_LIVE_CREDENTIALS"), os.Getenv("KEYROLL_TEST_LIVE_TENANT"), os.Getenv("KEYROLL_TEST_LIVE_WORKSPACE")
	uri := os.Getenv("KEYROLL_TEST_LIVE_WRAPPED_KEY") // the identifier, with its version, of a key that Exchange wraps with
	if file == "" || tenant == "" || id == "" || uri == "" {
		t.Skip("the environment names no live tenant with a workspace")
	}
	ref, ok := roll.ParseKeyURI(uri)
	if !ok || ref.Version == "" {
		t.Fatalf("KEYROLL_TEST_LIVE_WRAPPED_KEY %q names no key version", uri)
	}
	all, err := msapi.ReadCredentials(file)
	must(t, err)
	hc, err := msapi.HTTPClient(nil, nil)
	must(t, err)
	t.Cleanup(hc.CloseIdleConnections)
	cred, err := all.For(all.Names()[0], tenant, public(t), hc)
	must(t, err)
	c, err := keylog.New(public(t), id, cred, hc)
	must(t, err)
	Exercise(t, c, ref, time.Now().Add(-30*24*time.Hour))
}

func kind(err error) msapi.Kind {
	if e, ok := msapi.AsError(err); ok {
		return e.Kind
	}
	return ""
}

const table = `{"tables":[{"name":"PrimaryResult","columns":[{"name":"calls"},{"name":"key"},{"name":"app"},{"name":"operation"},{"name":"first"}],"rows":[%s]}]}`

// TestAnswers: columns in any order; lines that were not asked for are left
// out; what cannot be understood is an error and no silence.
func TestAnswers(t *testing.T) {
	t.Parallel()
	since := time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
	ref := roll.KeyRef{Host: vaultHost, Name: keyName, Version: strings.Repeat("ab", 16)}
	row := func(key, first string) string {
		return fmt.Sprintf(`[4,"%s","00000002-0000-0FF1-CE00-000000000000","KeyWrap","%s"]`, key, first)
	}
	uri := "https://" + vaultHost + "/keys/" + keyName
	for name, c := range map[string]struct {
		status int
		body   string
		want   int
		kind   msapi.Kind
	}{
		"a wrap":              {200, fmt.Sprintf(table, row(uri+"/"+ref.Version, "2026-05-01T12:00:00.5Z")), 1, ""},
		"another version":     {200, fmt.Sprintf(table, row(uri+"/"+strings.Repeat("cd", 16), "2026-05-01T13:00:00Z")), 0, ""},
		"no version":          {200, fmt.Sprintf(table, row(uri, "2026-05-01T13:00:00Z")), 0, ""},
		"too old":             {200, fmt.Sprintf(table, row(uri+"/"+ref.Version, "2026-05-01T11:59:59Z")), 0, ""},
		"nothing":             {200, fmt.Sprintf(table, ""), 0, ""},
		"no table":            {200, `{"tables":[]}`, 0, msapi.KindProtocol},
		"no column":           {200, `{"tables":[{"columns":[{"name":"key"}],"rows":[]}]}`, 0, msapi.KindProtocol},
		"a short row":         {200, fmt.Sprintf(table, `[4]`), 0, msapi.KindProtocol},
		"no time":             {200, fmt.Sprintf(table, row(uri+"/"+ref.Version, "yesterday")), 0, msapi.KindProtocol},
		"HTML":                {200, `<html>`, 0, msapi.KindProtocol},
		"part of an answer":   {200, `{"tables":[],"error":{"code":"PartialError","message":"there were some errors"}}`, 0, msapi.KindUnavailable},
		"no such table":       {400, `{"error":{"code":"BadArgumentError","message":"semantic error"}}`, 0, msapi.KindRejected},
		"forbidden":           {403, `{"error":{"code":"InsufficientAccessError","message":"no"}}`, 0, msapi.KindForbidden},
		"throttled":           {429, `{"error":{"code":"ThrottledError","message":"later"}}`, 0, msapi.KindThrottled},
		"a page of a gateway": {502, `<html>`, 0, msapi.KindUnavailable},
	} {
		srv := msapitest.Start(t, func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(c.status)
			_, _ = w.Write([]byte(c.body))
		}, "api.loganalytics.azure.com")
		cl, err := keylog.New(public(t), workspace, msapitest.Token("t"), srv.HTTP)
		must(t, err)
		uses, err := cl.Uses(t.Context(), []roll.KeyRef{ref}, since)
		if kind(err) != c.kind || (err != nil) != (c.kind != "") || len(uses) != c.want {
			t.Errorf("%s: %+v, %v", name, uses, err)
		}
		if c.want == 1 && (uses[0].AppID != roll.Exchange.AppID() || uses[0].Calls != 4 || uses[0].Operation != roll.UseWrap) {
			t.Errorf("%s: %+v", name, uses[0])
		}
	}
}

// TestNothingIsPutIntoAQuery: names that could end a string are refused.
func TestNothingIsPutIntoAQuery(t *testing.T) {
	t.Parallel()
	cl, err := keylog.New(public(t), workspace, msapitest.Token("t"), http.DefaultClient)
	must(t, err)
	for _, ref := range []roll.KeyRef{{Host: vaultHost, Name: `k"])`, Version: "1"}, {Host: "h/..", Name: "k", Version: "1"}, {Host: vaultHost, Name: "k", Version: ""}} {
		if _, err := cl.Uses(t.Context(), []roll.KeyRef{ref}, time.Now()); kind(err) != msapi.KindRejected {
			t.Errorf("%+v: %v", ref, err)
		}
	}
	for _, id := range []string{"", "workspace", strings.ToUpper(workspace), workspace + "/../x"} {
		if _, err := keylog.New(public(t), id, msapitest.Token("t"), http.DefaultClient); err == nil {
			t.Errorf("workspace %q was taken", id)
		}
	}
}
