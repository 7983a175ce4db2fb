package exchange_test

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/keyroll/keyroll/internal/exchange"
	"github.com/keyroll/keyroll/internal/msapi"
	"github.com/keyroll/keyroll/internal/msapi/msapitest"
	"github.com/keyroll/keyroll/internal/roll"
)

const (
	exo      = "outlook.office365.com"
	regional = "eur01b.outlook.office365.com"
	tenant   = "7a3b6c1e-0d52-4a0f-9f53-2f4d8b1c5e01"
	guid     = "2c1f6a34-aaaa-4bbb-8ccc-0123456789ab"
	path     = "/adminapi/beta/" + tenant + "/InvokeCommand"
)

func public(t testing.TB) msapi.Cloud {
	t.Helper()
	c, err := msapi.CloudByName(msapi.CloudPublic)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func client(t testing.TB, h http.HandlerFunc) (*exchange.Client, *msapitest.Server) {
	t.Helper()
	srv := msapitest.Start(t, h, exo, regional, "evil.example")
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	return exchange.New(public(t), tenant, msapitest.Token("t0ken"), srv.HTTP, msapi.WithClock(func() time.Time { return at })), srv
}

func says(status int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		_, _ = w.Write([]byte(body))
	}
}

func refresh(ctx context.Context, c *exchange.Client) (exchange.Receipt, error) {
	return c.Refresh(ctx, roll.Exchange, guid, "op-1")
}

func TestRequestsOnTheWire(t *testing.T) {
	for _, tt := range []struct {
		name, cmdlet, body string
		opID               bool
		run                func(context.Context, *exchange.Client) error
	}{
		{"list", "Get-DataEncryptionPolicy", `{"CmdletInput":{"CmdletName":"Get-DataEncryptionPolicy","Parameters":{}}}`, false,
			func(ctx context.Context, c *exchange.Client) error {
				_, err := c.Policies(ctx, roll.Exchange)
				return err
			}},
		{"get", "Get-M365DataAtRestEncryptionPolicy", `{"CmdletInput":{"CmdletName":"Get-M365DataAtRestEncryptionPolicy","Parameters":{"Identity":"` + guid + `"}}}`, false,
			func(ctx context.Context, c *exchange.Client) error {
				_, err := c.Policy(ctx, roll.MultiWorkload, "{"+strings.ToUpper(guid)+"}")
				return err
			}},
		{"refresh", "Set-DataEncryptionPolicy", `{"CmdletInput":{"CmdletName":"Set-DataEncryptionPolicy","Parameters":{"Identity":"` + guid + `","Refresh":true,"Confirm":false}}}`, true,
			func(ctx context.Context, c *exchange.Client) error { _, err := refresh(ctx, c); return err }},
		{"refresh multi-workload", "Set-M365DataAtRestEncryptionPolicy", `{"CmdletInput":{"CmdletName":"Set-M365DataAtRestEncryptionPolicy","Parameters":{"Identity":"` + guid + `","Refresh":true,"Confirm":false}}}`, true,
			func(ctx context.Context, c *exchange.Client) error {
				_, err := c.Refresh(ctx, roll.MultiWorkload, guid, "op-1")
				return err
			}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, srv := client(t, says(200, `{"value":[]}`))
			if err := tt.run(t.Context(), c); err != nil {
				t.Fatal(err)
			}
			h := http.Header{
				"Accept": {"application/json"}, "Accept-Encoding": {"identity"}, "Authorization": {"Bearer t0ken"},
				"Content-Type": {"application/json; charset=utf-8"}, "Prefer": {"odata.maxpagesize=1000"},
				"User-Agent": {"NONISV|Keyroll|Keyroll/1.0"}, "X-Anchormailbox": {"APP:SystemMailbox{bb558c35-97f1-4cb9-8ff7-d53741dc928c}@" + tenant},
				"X-Clientapplication": {"Keyroll"}, "X-Cmdletname": {tt.cmdlet}, "X-Responseformat": {"json"},
			}
			if tt.opID {
				h["Client-Request-Id"], h["X-Ms-Client-Request-Id"], h["Return-Client-Request-Id"] = []string{"op-1"}, []string{"op-1"}, []string{"true"}
			}
			got := srv.Seen()
			if len(got) == 1 {
				delete(got[0].Header, "Content-Length")
			}
			if diff := cmp.Diff([]msapitest.Request{{Method: "POST", Host: exo, URI: path, Header: h, Body: []byte(tt.body)}}, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

const onePolicy = `{"@odata.context":"x","adminapi.warnings@odata.type":"#Collection(String)","@adminapi.warnings":[],"value":[` +
	`{"Name":"NA Mailboxes","Guid@odata.type":"#Guid","Guid":"` + guid + `","Enabled":true,"AzureKeyIDs@odata.type":"#Collection(String)",` +
	`"AzureKeyIDs":["https://a.vault.azure.net/keys/k","https://b.vault.azure.net/keys/k"]}]}`

func TestPoliciesAreReadTolerantly(t *testing.T) {
	full := roll.PolicyObservation{Workload: roll.Exchange, Found: true, Name: "NA Mailboxes", GUID: guid, Enabled: true,
		AzureKeyIDs: []string{"https://a.vault.azure.net/keys/k", "https://b.vault.azure.net/keys/k"}}
	for _, tt := range []struct {
		name, answer string
		want         []roll.PolicyObservation
		kind         msapi.Kind
	}{
		{"as documented", onePolicy, []roll.PolicyObservation{full}, ""},
		{"none", `{"value":null}`, []roll.PolicyObservation{}, ""},
		{"no value", `{}`, []roll.PolicyObservation{}, ""},
		{"nothing known of it", `{"value":[{}]}`, []roll.PolicyObservation{{Workload: roll.Exchange, Found: true}}, ""},
		{"nulls", `{"value":[{"Name":null,"Guid":null,"Enabled":null,"AzureKeyIDs":null}]}`, []roll.PolicyObservation{{Workload: roll.Exchange, Found: true}}, ""},
		{"one object, other shapes", `{"value":{"NAME":"n","ExchangeObjectId":"{` + strings.ToUpper(guid) + `}","Enabled":"True","AzureKeyIDs":[{"OriginalString":"https://a"}]}}`,
			[]roll.PolicyObservation{{Workload: roll.Exchange, Found: true, Name: "n", GUID: guid, Enabled: true, AzureKeyIDs: []string{"https://a"}}}, ""},
		{"purge requested", `{"value":[{"PermanentDataPurgeRequested":true}]}`, []roll.PolicyObservation{{Workload: roll.Exchange, Found: true, PurgeRequested: true}}, ""},
		{"purge reason", `{"value":[{"PermanentDataPurgeReason":"left"}]}`, []roll.PolicyObservation{{Workload: roll.Exchange, Found: true, PurgeRequested: true}}, ""},
		{"odd Enabled", `{"value":[{"Enabled":2}]}`, nil, msapi.KindProtocol},
		{"odd keys", `{"value":[{"AzureKeyIDs":5}]}`, nil, msapi.KindProtocol},
		{"odd GUID", `{"value":[{"Guid":5}]}`, nil, msapi.KindProtocol},
		{"same GUID twice", `{"value":[{"Guid":"` + guid + `"},{"Guid":"` + guid + `"}]}`, nil, msapi.KindProtocol},
		{"odd value", `{"value":"x"}`, nil, msapi.KindProtocol},
		{"truncated", `{"@odata.nextLink":"https://x/","value":[]}`, nil, msapi.KindProtocol},
		{"HTML", `<html>sign in</html>`, nil, msapi.KindProtocol},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, _ := client(t, says(200, tt.answer))
			got, err := c.Policies(t.Context(), roll.Exchange)
			if diff := cmp.Diff(tt.want, got); diff != "" || kindOf(err) != tt.kind {
				t.Error(diff, err)
			}
		})
	}
}

func kindOf(err error) msapi.Kind {
	if e, ok := msapi.AsError(err); ok {
		return e.Kind
	}
	return ""
}

// A Get with an identity that Exchange does not know returns all policies.
func TestPolicyIsTheOneAskedFor(t *testing.T) {
	const other = "99999999-aaaa-4bbb-8ccc-0123456789ab"
	absent := roll.PolicyObservation{Workload: roll.Exchange, GUID: other}
	c, _ := client(t, says(200, onePolicy))
	if got, err := c.Policy(t.Context(), roll.Exchange, other); err != nil || !cmp.Equal(got, absent) {
		t.Errorf("%+v, %v", got, err)
	}
	if got, err := c.Policy(t.Context(), roll.Exchange, strings.ToUpper(guid)); err != nil || !got.Found || got.GUID != guid {
		t.Errorf("%+v, %v", got, err)
	}
	c, _ = client(t, says(404, cmdletError("NotFound", "Ex6F9304|Microsoft.Exchange.Configuration.Tasks.ManagementObjectNotFoundException|none")))
	if got, err := c.Policy(t.Context(), roll.Exchange, other); err != nil || !cmp.Equal(got, absent) {
		t.Errorf("%+v, %v", got, err)
	}
	c, srv := client(t, says(404, `not here`))
	if _, err := c.Policy(t.Context(), roll.Exchange, other); kindOf(err) != msapi.KindNotFound {
		t.Errorf("a 404 that is not about the policy: %v", err)
	}
	for _, bad := range []string{"", "NA Mailboxes", guid + "x"} {
		if _, err := c.Policy(t.Context(), roll.Exchange, bad); kindOf(err) != msapi.KindRejected {
			t.Errorf("identity %q: %v", bad, err)
		}
		if _, err := c.Refresh(t.Context(), roll.Exchange, bad, "op"); kindOf(err) != msapi.KindRejected {
			t.Errorf("identity %q: %v", bad, err)
		}
	}
	if _, err := c.Policies(t.Context(), roll.SharePoint); kindOf(err) != msapi.KindRejected {
		t.Errorf("SharePoint has no policy in Exchange: %v", err)
	}
	if n := len(srv.Seen()); n != 1 {
		t.Errorf("%d requests, want 1: an empty identity would mean any", n)
	}
}

func TestReceipt(t *testing.T) {
	for _, answer := range []string{``, `{}`, `{"value":null}`, `{"value":[]}`,
		`{"@adminapi.warnings":["one","Micro delay applied. Actual delay 9 msecs","two\nlines","one"],"value":[]}`} {
		c, _ := client(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("request-id", "ms-1")
			if strings.Contains(answer, "one") {
				w.Header().Add("X-Warnings", "three")
				w.Header().Add("X-Warnings", `["four"]`)
			}
			_, _ = w.Write([]byte(answer))
		})
		got, err := refresh(t.Context(), c)
		want := exchange.Receipt{RequestID: "ms-1", At: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)}
		if strings.Contains(answer, "one") {
			want.Warnings = []string{"one", "Micro delay applied. Actual delay 9 msecs", "two lines", "three", "four"}
			want.Unknown = []string{"one", "two lines", "three", "four"}
		}
		if diff := cmp.Diff(want, got); err != nil || diff != "" {
			t.Errorf("%s: %v %s", answer, err, diff)
		}
	}
}

func TestKnownHarmless(t *testing.T) {
	for warning, want := range map[string]bool{
		"Micro delay applied. Actual delay 500 msecs": true,
		"WARNING: Micro delay applied.":               true,
		"":                                            false,
		"The key could not be reached.":               false,
		"Not a Micro delay applied":                   false,
	} {
		if got := exchange.KnownHarmless(warning); got != want {
			t.Errorf("%q: %v", warning, got)
		}
	}
}

func TestMailboxPolicyID(t *testing.T) {
	for _, tt := range []struct {
		answer, want string
		kind         msapi.Kind
	}{
		{`{"value":[{"DataEncryptionPolicyID":"` + strings.ToUpper(guid) + `"}]}`, guid, ""},
		{`{"value":[{"IsEncrypted":false}]}`, "", ""},
		{`{"value":[{"DataEncryptionPolicyID":"00000000-0000-0000-0000-000000000000"}]}`, "", ""},
		{`{"value":[{"DataEncryptionPolicyID":{}}]}`, "", msapi.KindProtocol},
		{`{"value":[]}`, "", msapi.KindProtocol},
		{`{"value":[{},{}]}`, "", msapi.KindProtocol},
	} {
		c, srv := client(t, says(200, tt.answer))
		got, err := c.MailboxPolicyID(t.Context(), "vip@contoso.com")
		if got != tt.want || kindOf(err) != tt.kind {
			t.Errorf("%s: %q, %v", tt.answer, got, err)
		}
		if body, want := string(srv.Seen()[0].Body), `{"CmdletInput":{"CmdletName":"Get-MailboxStatistics","Parameters":{"Identity":"vip@contoso.com"}}}`; body != want {
			t.Errorf("got  %s\nwant %s", body, want)
		}
		if _, err := c.MailboxPolicyID(t.Context(), " "); kindOf(err) != msapi.KindRejected || len(srv.Seen()) != 1 {
			t.Errorf("an empty mailbox was sent: %v", err)
		}
	}
}
