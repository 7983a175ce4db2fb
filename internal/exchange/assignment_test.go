package exchange_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/keyroll/keyroll/internal/exchange"
	"github.com/keyroll/keyroll/internal/msapi"
	"github.com/keyroll/keyroll/internal/roll"
)

func TestAssignmentIsReadTolerantly(t *testing.T) {
	absent := roll.AssignmentObservation{}
	named := roll.AssignmentObservation{Assigned: true, Name: "Contoso_Global"}
	byGUID := roll.AssignmentObservation{Assigned: true, GUID: guid}
	for _, tt := range []struct {
		name, answer string
		want         roll.AssignmentObservation
		kind         msapi.Kind
	}{
		{"the policy", `{"value":[{"Guid":"` + guid + `","Name":"Contoso_Global","Enabled":true,"AzureKeyIDs":["https://a.vault.azure.net/keys/k"]}]}`,
			roll.AssignmentObservation{Assigned: true, GUID: guid, Name: "Contoso_Global"}, ""},
		{"named", `{"value":[{"Guid":"99999999-aaaa-4bbb-8ccc-0123456789ab","Name":"Assignment","DataEncryptionPolicy":"Contoso_Global"}]}`, named, ""},
		{"named by GUID", `{"value":{"DataEncryptionPolicy":"{` + strings.ToUpper(guid) + `}"}}`, byGUID, ""},
		{"none", `{"value":[]}`, absent, ""},
		{"no value", `{}`, absent, ""},
		{"two", `{"value":[{"Guid":"` + guid + `"},{"Name":"x"}]}`, absent, msapi.KindProtocol},
		{"an object that names none", `{"value":[{"WhenChanged":"2026-01-01"}]}`, absent, msapi.KindProtocol},
		{"odd property", `{"value":[{"DataEncryptionPolicy":5}]}`, absent, msapi.KindProtocol},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, srv := client(t, says(200, tt.answer))
			got, err := c.Assignment(t.Context())
			if diff := cmp.Diff(tt.want, got); diff != "" || kindOf(err) != tt.kind {
				t.Error(diff, err)
			}
			want := `{"CmdletInput":{"CmdletName":"Get-M365DataAtRestEncryptionPolicyAssignment","Parameters":{}}}`
			if body := string(srv.Seen()[0].Body); body != want {
				t.Errorf("got  %s\nwant %s", body, want)
			}
		})
	}
}

func TestPolicyTestIsReadTolerantly(t *testing.T) {
	object := func(members string) string { return `{"value":[{"Guid":"` + guid + `",` + members + `}]}` }
	for _, tt := range []struct {
		name, answer string
		verdict      roll.TestVerdict
		detail       string
		kind         msapi.Kind
	}{
		{"success", object(`"Result":"Success"`), roll.TestHealthy, "", ""},
		{"boolean", object(`"IsValid":true`), roll.TestHealthy, "", ""},
		{"failure", object(`"Result":"Failure","Detail":"the key is\ndisabled"`), roll.TestUnhealthy, "the key is disabled", ""},
		{"one of two", `{"value":[{"Result":"Passed"},{"Result":"Failed","Detail":"b"}]}`, roll.TestUnhealthy, "b", ""},
		{"unknown word", object(`"Result":"Partly"`), roll.TestUnclear, "", ""},
		{"unknown beside healthy", `{"value":[{"Result":"Passed"},{"Result":"Partly"}]}`, roll.TestUnclear, "", ""},
		{"contradiction", object(`"Result":"Success","IsValid":false`), roll.TestUnclear, "", ""},
		{"number", object(`"Status":2`), roll.TestUnclear, "", ""},
		{"no verdict", object(`"Name":"x"`), roll.TestUnclear, "", ""},
		{"nothing", `{"value":[]}`, roll.TestUnclear, "the cmdlet said nothing", ""},
		{"another policy", `{"value":[{"Guid":"99999999-aaaa-4bbb-8ccc-0123456789ab","Result":"Success"}]}`, "", "", msapi.KindProtocol},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, srv := client(t, says(200, tt.answer))
			got, err := c.Test(t.Context(), strings.ToUpper(guid))
			if kindOf(err) != tt.kind {
				t.Fatal(err)
			}
			if got.Verdict != tt.verdict || got.Detail != tt.detail || err == nil && !got.At.Equal(time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)) {
				t.Errorf("%+v", got)
			}
			want := `{"CmdletInput":{"CmdletName":"Test-M365DataAtRestEncryptionPolicy","Parameters":{"Identity":"` + guid + `"}}}`
			if body := string(srv.Seen()[0].Body); body != want {
				t.Errorf("got  %s\nwant %s", body, want)
			}
		})
	}
	c, srv := client(t, says(403, strings.Repeat("\x00", 64)))
	if _, err := c.Test(t.Context(), guid); kindOf(err) != msapi.KindForbidden {
		t.Errorf("a cmdlet that is not there: %v", err)
	}
	for _, bad := range []string{"", "Contoso_Global"} {
		if _, err := c.Test(t.Context(), bad); kindOf(err) != msapi.KindRejected || len(srv.Seen()) != 1 {
			t.Errorf("identity %q was sent, or was no error: %v", bad, err)
		}
	}
}

// A read whose answer is lost leaves nothing open.
func TestReadsAreNotMutating(t *testing.T) {
	for name, read := range map[string]func(*exchange.Client) error{
		"assignment": func(c *exchange.Client) error { _, err := c.Assignment(t.Context()); return err },
		"test":       func(c *exchange.Client) error { _, err := c.Test(t.Context(), guid); return err },
	} {
		c, _ := client(t, says(500, ""))
		if e, ok := msapi.AsError(read(c)); !ok || e.MaybeApplied {
			t.Errorf("%s: %+v", name, e)
		}
	}
}
