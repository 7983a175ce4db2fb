package sharepoint_test

import (
	"context"
	"encoding/xml"
	"net/http"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/keyroll/keyroll/internal/msapi"
	"github.com/keyroll/keyroll/internal/msapi/msapitest"
	"github.com/keyroll/keyroll/internal/roll"
	"github.com/keyroll/keyroll/internal/sharepoint"
)

const (
	admin   = "contoso-admin.sharepoint.com"
	version = "0123456789ABCDEF0123456789abcdef"
	head    = `<Request AddExpandoFieldTypeSuffix="true" SchemaVersion="15.0.0.0" LibraryVersion="16.0.0.0" ApplicationName="Keyroll" xmlns="http://schemas.microsoft.com/sharepoint/clientquery/2009"><Actions>`
	tail    = `</Actions><ObjectPaths><StaticProperty Id="1" TypeId="{3747adcd-a3c3-41b9-bfab-4a64dd2f1e0a}" Name="Current"/><Property Id="5" ParentId="1" Name="Site"/></ObjectPaths></Request>`
)

func public(t testing.TB) msapi.Cloud {
	t.Helper()
	c, err := msapi.CloudByName(msapi.CloudPublic)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func client(t testing.TB, h http.HandlerFunc) (*sharepoint.Client, *msapitest.Server) {
	t.Helper()
	srv := msapitest.Start(t, h, admin)
	c, err := sharepoint.New(public(t), "https://"+admin, msapitest.Token("t0ken"), srv.HTTP)
	if err != nil {
		t.Fatal(err)
	}
	return c, srv
}

func says(status int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		_, _ = w.Write([]byte(body))
	}
}

// reply is an answer with this result after our action's id.
func reply(result string) string {
	return `[{"SchemaVersion":"15.0.0.0","LibraryVersion":"16.0.1.1","ErrorInfo":null,"TraceCorrelationId":"c-1"},7,` + result + `]`
}

func errorReply(typ string, code int) string {
	return `[{"SchemaVersion":"15.0.0.0","LibraryVersion":"16.0.1.1","ErrorInfo":{"ErrorMessage":"said\nso","ErrorValue":null,"TraceCorrelationId":"c-1","ErrorCode":` +
		strconv.Itoa(code) + `,"ErrorTypeName":"` + typ + `"},"TraceCorrelationId":"c-1"}]`
}

const rolling = `{"_ObjectType_":"SP.CustomerKeyStatusInfo","PrimaryKeyVaultUri":"https://a/keys/k/1","SecondaryKeyVaultUri":"https://b/keys/k/2","RecoveryEnabled":false,"Status":3,"RegistrationProgress":12.5}`

func rollPrimary(ctx context.Context, c *sharepoint.Client) (roll.SharePointObservation, error) {
	return c.Roll(ctx, roll.Primary, "contoso-spo-a", "Key001", version, "op-1")
}

func TestRequestsOnTheWire(t *testing.T) {
	rollXML := func(slot, vault, key string) string {
		return head + `<Method Name="RollTenantBringYourOwnKey" Id="7" ObjectPathId="5"><Parameters><Parameter Type="Enum">` + slot + `</Parameter>` +
			`<Parameter TypeId="{19d15bc5-c167-4d4f-a469-a9d7de4bdcc1}"><Property Name="KeyName" Type="String">` + key + `</Property>` +
			`<Property Name="KeyVersion" Type="Guid">{01234567-89ab-cdef-0123-456789abcdef}</Property>` +
			`<Property Name="VaultName" Type="String">` + vault + `</Property></Parameter></Parameters></Method>` + tail
	}
	for _, tt := range []struct {
		name, body string
		opID       bool
		run        func(context.Context, *sharepoint.Client) (roll.SharePointObservation, error)
	}{
		{"status", head + `<Method Name="GetBringYourOwnKeyTenantStatus" Id="7" ObjectPathId="5"/>` + tail, false,
			func(ctx context.Context, c *sharepoint.Client) (roll.SharePointObservation, error) {
				return c.Status(ctx)
			}},
		{"primary", rollXML("0", "contoso-spo-a", "Key001"), true, rollPrimary},
		{"secondary", rollXML("1", "v", "k"), true, func(ctx context.Context, c *sharepoint.Client) (roll.SharePointObservation, error) {
			return c.Roll(ctx, roll.Secondary, "v", "k", version, "op-1")
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, srv := client(t, says(200, reply(rolling)))
			got, err := tt.run(t.Context(), c)
			want := roll.SharePointObservation{Status: roll.Rolling, PrimaryURI: "https://a/keys/k/1", SecondaryURI: "https://b/keys/k/2", Percent: new(12.5)}
			if diff := cmp.Diff(want, got); err != nil || diff != "" {
				t.Error(err, diff)
			}
			h := http.Header{"Accept": {"application/json"}, "Accept-Encoding": {"gzip"}, "Authorization": {"Bearer t0ken"},
				"Content-Type": {"text/xml"}, "Content-Length": {strconv.Itoa(len(tt.body))}, "User-Agent": {"NONISV|Keyroll|Keyroll/1.0"}}
			if tt.opID {
				h["Client-Request-Id"], h["X-Ms-Client-Request-Id"], h["Return-Client-Request-Id"] = []string{"op-1"}, []string{"op-1"}, []string{"true"}
			}
			if diff := cmp.Diff([]msapitest.Request{{Method: "POST", Host: admin, URI: "/_vti_bin/client.svc/ProcessQuery", Header: h, Body: []byte(tt.body)}}, srv.Seen()); diff != "" {
				t.Error(diff)
			}
			if err := xml.Unmarshal([]byte(tt.body), new(struct{})); err != nil {
				t.Errorf("the golden is no XML: %v", err)
			}
		})
	}
}

func TestRepliesAreRead(t *testing.T) {
	registered := roll.SharePointObservation{Status: roll.Registered, PrimaryURI: "p", SecondaryURI: "s"}
	const full = `{"PrimaryKeyVaultUri":"p","SecondaryKeyVaultUri":"s","Status":2,"RegistrationProgress":100}`
	for _, tt := range []struct {
		name, answer string
		want         roll.SharePointObservation
		kind         msapi.Kind
	}{
		{"registered", reply(full), registered, ""},
		{"after other results", `[{"SchemaVersion":"15.0.0.0","ErrorInfo":null},3,{"IsNull":false},4,7,7,` + full + `]`, registered, ""},
		{"no progress, null URIs", reply(`{"PrimaryKeyVaultUri":null,"Status":3,"RegistrationProgress":null}`), roll.SharePointObservation{Status: roll.Rolling}, ""},
		{"unknown status", reply(`{"Status":17,"RegistrationProgress":5}`), roll.SharePointObservation{Status: 17, Percent: new(5.0)}, ""},
		{"negative status", reply(`{"Status":-1}`), roll.SharePointObservation{Status: -1}, ""},
		{"absurd progress", reply(`{"Status":3,"RegistrationProgress":-1}`), roll.SharePointObservation{Status: roll.Rolling}, ""},
		{"unregistered", reply(`{"PrimaryKeyVaultUri":"","SecondaryKeyVaultUri":"","Status":0,"RegistrationProgress":0}`), roll.SharePointObservation{}, ""},
		{"no status", reply(`{}`), roll.SharePointObservation{}, msapi.KindProtocol},
		{"status in words", reply(`{"Status":"Registered"}`), roll.SharePointObservation{}, msapi.KindProtocol},
		{"half a status", reply(`{"Status":2.5}`), roll.SharePointObservation{}, msapi.KindProtocol},
		{"no result", reply(`null`), roll.SharePointObservation{}, msapi.KindProtocol},
		{"result of another action", `[{"SchemaVersion":"15.0.0.0","ErrorInfo":null},8,` + full + `]`, roll.SharePointObservation{}, msapi.KindProtocol},
		{"nothing after the id", `[{"SchemaVersion":"15.0.0.0","ErrorInfo":null},7]`, roll.SharePointObservation{}, msapi.KindProtocol},
		{"no header", `[7,` + full + `]`, roll.SharePointObservation{}, msapi.KindProtocol},
		{"empty array", `[]`, roll.SharePointObservation{}, msapi.KindProtocol},
		{"object", full, roll.SharePointObservation{}, msapi.KindProtocol},
		{"page", "\r\n<!DOCTYPE html><html>Sign in</html>", roll.SharePointObservation{}, msapi.KindProtocol},
		{"empty", "", roll.SharePointObservation{}, msapi.KindProtocol},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, _ := client(t, says(200, tt.answer))
			got, err := c.Status(t.Context())
			if diff := cmp.Diff(tt.want, got); diff != "" || kindOf(err) != tt.kind {
				t.Error(diff, err)
			}
			_, err = rollPrimary(t.Context(), c)
			if e, ok := msapi.AsError(err); ok && !e.MaybeApplied {
				t.Errorf("a success that cannot be read may have applied: %v", err)
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

func TestRefusals(t *testing.T) {
	for _, tt := range []struct {
		name   string
		status int
		body   string
		want   msapi.Error
	}{
		{"ErrorInfo", 200, errorReply("System.InvalidOperationException", -2146233079),
			msapi.Error{Kind: msapi.KindRejected, Code: "System.InvalidOperationException", InnerCode: "-2146233079", Message: "said so", RequestID: "c-1"}},
		{"ErrorInfo that does not know", 200, errorReply("Microsoft.SharePoint.Client.UnknownError", -1),
			msapi.Error{Kind: msapi.KindRejected, Code: "Microsoft.SharePoint.Client.UnknownError", InnerCode: "-1", Message: "said so", RequestID: "c-1", MaybeApplied: true}},
		{"401", 401, `{"error_description":"Unsupported app only token."}`,
			msapi.Error{Kind: msapi.KindUnauthorized, Message: "Unsupported app only token.", RequestID: "sp-1"}},
		{"403 for a secret", 403, `{"error_description":"Unsupported app only token."}`,
			msapi.Error{Kind: msapi.KindForbidden, Message: "Unsupported app only token.", RequestID: "sp-1"}},
		{"403", 403, `{"odata.error":{"code":"-2147024891, System.UnauthorizedAccessException","message":{"lang":"en-US","value":"Not you."}}}`,
			msapi.Error{Kind: msapi.KindForbidden, Code: "-2147024891,_System.UnauthorizedAccessException", Message: "Not you.", RequestID: "sp-1"}},
		{"403 in text", 403, "403 FORBIDDEN", msapi.Error{Kind: msapi.KindForbidden, Message: "403 FORBIDDEN", RequestID: "sp-1"}},
		{"429", 429, "", msapi.Error{Kind: msapi.KindThrottled, Message: "SharePoint gave no reason", RequestID: "sp-1"}},
		{"503", 503, "<html>", msapi.Error{Kind: msapi.KindUnavailable, Message: "SharePoint gave no reason", RequestID: "sp-1", MaybeApplied: true}},
		{"302", 302, "", msapi.Error{Kind: msapi.KindProtocol, Code: "unexpected_status", Message: "SharePoint gave no reason", RequestID: "sp-1"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, srv := client(t, func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("SPRequestGuid", "sp-1")
				w.Header().Set("Location", "https://"+admin+"/login")
				says(tt.status, tt.body)(w, r)
			})
			_, err := rollPrimary(t.Context(), c)
			got, _ := msapi.AsError(err)
			tt.want.Service, tt.want.Operation, tt.want.Status, tt.want.ClientRequestID = "sharepoint", "roll_key", tt.status, "op-1"
			if diff := cmp.Diff(&tt.want, got, cmpopts.IgnoreUnexported(msapi.Error{})); diff != "" {
				t.Error(diff)
			}
			if n := len(srv.Seen()); n != 1 {
				t.Errorf("%d requests on the wire, want 1", n)
			}
		})
	}
}

func TestLostAnswer(t *testing.T) {
	c, srv := client(t, msapitest.Drop)
	_, err := rollPrimary(t.Context(), c)
	if e, ok := msapi.AsError(err); !ok || e.Kind != msapi.KindUnavailable || !e.MaybeApplied || len(srv.Seen()) != 1 {
		t.Errorf("got %v after %d requests", err, len(srv.Seen()))
	}
	_, err = c.Status(t.Context())
	if e, ok := msapi.AsError(err); !ok || e.MaybeApplied {
		t.Errorf("a read cannot have applied: %v", err)
	}
}

func TestWhatIsNotSent(t *testing.T) {
	c, srv := client(t, says(200, reply(rolling)))
	for _, tt := range []struct{ slot, vault, key, version string }{
		{"availability", "v", "k", version},
		{"", "v", "k", version},
		{"primary", "https://v.vault.azure.net", "k", version},
		{"primary", "v", "<k>", version},
		{"primary", "v", "k", ""},
		{"primary", "v", "k", "latest"},
		{"primary", "v", "k", "01234567-89ab-cdef-0123-456789abcdef"},
	} {
		if _, err := c.Roll(t.Context(), roll.Slot(tt.slot), tt.vault, tt.key, tt.version, "op-1"); kindOf(err) != msapi.KindRejected {
			t.Errorf("%+v: %v", tt, err)
		}
	}
	if n := len(srv.Seen()); n != 0 {
		t.Errorf("%d requests were sent", n)
	}
	for _, url := range []string{"https://contoso.sharepoint.com", "https://contoso-admin.sharepoint.us", "http://" + admin, "https://" + admin + "/x"} {
		if _, err := sharepoint.New(public(t), url, msapitest.Token("t"), http.DefaultClient); err == nil || !strings.Contains(err.Error(), "SharePoint admin URL") {
			t.Errorf("%s: %v", url, err)
		}
	}
}

func FuzzReply(f *testing.F) {
	f.Add(200, []byte(reply(rolling)))
	f.Add(200, []byte(errorReply("X", -1)))
	f.Add(403, []byte(`{"odata.error":{}}`))
	f.Add(200, []byte(`[{"SchemaVersion":"","ErrorInfo":0},7,{"Status":1e3}]`))
	canned := &msapitest.Canned{}
	c, err := sharepoint.New(public(f), "https://"+admin, msapitest.Token("t0ken"), canned.Client())
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, code int, data []byte) {
		if code < 200 || code > 599 || code == 204 || code == 304 {
			code = 200
		}
		canned.Status, canned.Body = code, data
		got, err := c.Status(t.Context())
		if err != nil && kindOf(err) == "" {
			t.Errorf("not an *msapi.Error: %v", err)
		}
		if err == nil && (code < 200 || code > 299) {
			t.Errorf("status %d is a success: %+v", code, got)
		}
	})
}
