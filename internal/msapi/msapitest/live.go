package msapitest

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"

	"github.com/keyroll/keyroll/internal/msapi"
)

// livePrefix stands before every variable that names a live tenant.
const livePrefix = "KEYROLL_LIVE_"

// LiveConfig is what the environment says of a live tenant: docs/live-tests.md
// has the variables.
type LiveConfig struct {
	TenantID, Cloud, CloudsFile, CredentialsFile, Credential string
	// DialMap and ExtraCAFile are for a rehearsal against the simulator.
	DialMap, ExtraCAFile string
	// Write permits a test to change something in the tenant.
	Write bool
}

// ReadLive reads the environment. named is false where it names no tenant; an
// error says which variable is missing beside it. Nothing but "yes" permits
// writing.
func ReadLive(getenv func(string) string) (c LiveConfig, named bool, err error) {
	get := func(name string) string { return strings.TrimSpace(getenv(livePrefix + name)) }
	c = LiveConfig{TenantID: get("TENANT"), Cloud: get("CLOUD"), CloudsFile: get("CLOUDS_FILE"),
		CredentialsFile: get("CREDENTIALS_FILE"), Credential: get("CREDENTIAL"),
		DialMap: get("DIAL_MAP"), ExtraCAFile: get("EXTRA_CA_FILE")}
	if c.TenantID == "" {
		return LiveConfig{}, false, nil
	}
	for _, v := range []struct{ name, value string }{{"CLOUD", c.Cloud}, {"CREDENTIALS_FILE", c.CredentialsFile}, {"CREDENTIAL", c.Credential}} {
		if v.value == "" {
			err = errors.Join(err, fmt.Errorf("%sTENANT is set, and %s%s is missing", livePrefix, livePrefix, v.name))
		}
	}
	switch w := get("WRITE"); w {
	case "yes":
		c.Write = true
	case "", "no":
	default:
		err = errors.Join(err, fmt.Errorf("%sWRITE is %q: say yes or no", livePrefix, w))
	}
	return c, true, err
}

// Live is a live tenant.
type Live struct {
	TenantID   string
	Write      bool // whether a test may change something
	Cloud      msapi.Cloud
	Credential azcore.TokenCredential
	HTTP       *http.Client
}

// LiveTenant gives the tenant that the environment names. Where it names none
// the test is skipped; where it names one incompletely the test fails.
func LiveTenant(t testing.TB) Live {
	t.Helper()
	c, named, err := ReadLive(os.Getenv)
	switch {
	case err != nil:
		t.Fatal(err)
	case !named:
		t.Skip("no live tenant: " + livePrefix + "TENANT is not set (docs/live-tests.md)")
	}
	var clouds msapi.Clouds
	if c.CloudsFile != "" {
		if clouds, err = msapi.ReadClouds(c.CloudsFile); err != nil {
			t.Fatal(err)
		}
	}
	out := Live{TenantID: c.TenantID, Write: c.Write}
	if out.Cloud, err = clouds.ByName(c.Cloud); err != nil {
		t.Fatal(err)
	}
	out.HTTP = c.client(t)
	all, err := msapi.ReadCredentials(c.CredentialsFile)
	if err != nil {
		t.Fatal(err)
	}
	if out.Credential, err = all.For(c.Credential, c.TenantID, out.Cloud, out.HTTP); err != nil {
		t.Fatal(err)
	}
	return out
}

func (c LiveConfig) client(t testing.TB) *http.Client {
	t.Helper()
	dial, err := msapi.ParseDialMap(c.DialMap)
	if err != nil {
		t.Fatal(err)
	}
	var ca []byte
	if c.ExtraCAFile != "" {
		if ca, err = os.ReadFile(c.ExtraCAFile); err != nil {
			t.Fatal(err)
		}
	}
	hc, err := msapi.HTTPClient(dial, ca)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(hc.CloseIdleConnections)
	return hc
}

// Var gives a further variable of the live tenant, named without its prefix.
// Where it is not set the test is skipped: that part of the tenant is not to
// be tested.
func (Live) Var(t testing.TB, name string) string {
	t.Helper()
	v := strings.TrimSpace(os.Getenv(livePrefix + name))
	if v == "" {
		t.Skip(livePrefix + name + " is not set (docs/live-tests.md)")
	}
	return v
}
