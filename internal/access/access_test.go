package access_test

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/keyroll/keyroll/internal/access"
)

var update = flag.Bool("update", false, "write the golden files anew")

// The whole matrix, each action × role × kind, stands in a file that a reviewer reads.
func TestPermissionMatrix(t *testing.T) {
	var b strings.Builder
	for _, rule := range access.Rules() {
		for _, kind := range access.Kinds() {
			line := fmt.Sprintf("%-24s %-8s", rule.Action, kind)
			for _, role := range access.Roles() {
				p := access.Principal{Subject: "someone", Kind: kind, Roles: []access.Role{role}}
				word := "-"
				if access.Allowed(p, rule.Action) == nil {
					word = string(role)
				}
				line += fmt.Sprintf(" %-9s", word)
			}
			b.WriteString(strings.TrimRight(line, " ") + "\n")
		}
	}
	got := b.String()
	const golden = "testdata/permissions.golden"
	if *update {
		if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("permissions changed (-want +got); run with -update where that is meant:\n%s", diff)
	}
}

func TestDeniedByDefault(t *testing.T) {
	everything := access.Principal{Kind: access.Person, Roles: access.Roles()}
	cases := map[string]struct {
		principal access.Principal
		action    access.Action
	}{
		"no roles":       {access.Principal{Kind: access.Person}, access.ReadRolls},
		"nobody":         {access.Principal{}, access.ReadRolls},
		"unknown kind":   {access.Principal{Kind: "robot", Roles: access.Roles()}, access.ReadRolls},
		"unknown role":   {access.Principal{Kind: access.Person, Roles: []access.Role{"owner"}}, access.ReadRolls},
		"unknown action": {everything, "key.delete"},
		"empty action":   {everything, ""},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			var denied *access.Denied
			if err := access.Allowed(c.principal, c.action); !errors.As(err, &denied) {
				t.Fatalf("Allowed = %v, want *Denied", err)
			}
			if denied.Action != c.action || denied.Needs == "" {
				t.Errorf("denied = %+v, want the action and who may", denied)
			}
		})
	}
}

// Every role adds to what a principal may do and none takes away.
func TestRolesAdd(t *testing.T) {
	for _, rule := range access.Rules() {
		for _, role := range rule.Roles {
			p := access.Principal{Kind: access.Person, Roles: []access.Role{access.Auditor, role}}
			if err := access.Allowed(p, rule.Action); err != nil {
				t.Errorf("auditor and %s: %v", role, err)
			}
		}
	}
}

func TestDeniedSaysWhoMay(t *testing.T) {
	err := access.Allowed(access.Principal{Kind: access.Service, Roles: []access.Role{access.Approver}}, access.ApproveRoll)
	const want = "roll.approve is not allowed: it needs a person's token with the role approver"
	if err == nil || err.Error() != want {
		t.Errorf("error = %v, want %q", err, want)
	}
}

func TestNewToken(t *testing.T) {
	a, b := access.NewToken(), access.NewToken()
	if a.Secret == b.Secret {
		t.Fatal("two tokens are equal")
	}
	if len(a.Secret) != 47 || len(a.Prefix) != 12 || len(a.Hash) != 32 || !strings.HasPrefix(a.Secret, a.Prefix) {
		t.Errorf("token has secret of %d, prefix %q, hash of %d bytes", len(a.Secret), a.Prefix, len(a.Hash))
	}
	again, ok := access.ParseToken(a.Secret)
	if !ok || !slices.Equal(again.Hash, a.Hash) {
		t.Errorf("the presented secret does not give the stored hash")
	}
	for _, shown := range []string{fmt.Sprint(a), fmt.Sprintf("%+v", a), fmt.Sprintf("%#v", a)} {
		if strings.Contains(shown, a.Secret) {
			t.Errorf("printing shows the secret: %s", shown)
		}
	}
}

func TestParseTokenRefuses(t *testing.T) {
	good := access.NewToken().Secret
	for name, secret := range map[string]string{
		"empty": "", "mark only": "krp_", "other mark": "krx_" + good[4:], "short": good[:46], "long": good + "A",
		"not base64": good[:46] + "!", "padded": good + "=", "line break": good[:20] + "\n" + good[20:],
		"line break for a letter": good[:46] + "\n", "space": " " + good, "upper mark": "KRP_" + good[4:],
		// The last letter carries two bits that must be zero, else two secrets would be one token.
		"loose bits": "krp_" + strings.Repeat("A", 42) + "B",
	} {
		if _, ok := access.ParseToken(secret); ok {
			t.Errorf("%s: %q was taken", name, secret)
		}
	}
}
