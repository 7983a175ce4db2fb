package roll_test

import (
	"flag"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/keyroll/keyroll/internal/roll"
)

var updateChecklist = flag.Bool("update-checklist", false, "write the golden checklist anew")

func grantee() roll.Grantee {
	return roll.Grantee{ClientID: "c11e0000-0000-4000-8000-000000000009", Authority: "https://login.microsoftonline.com",
		AzureCloud: "AzureCloud", ExchangeEnvironment: "O365Default", HSMSuffix: "managedhsm.azure.net"}
}

func account() *roll.AutomationAccount {
	return &roll.AutomationAccount{Account: "/subscriptions/5ab50000-0000-4000-8000-000000000001/resourceGroups/keyroll/providers/Microsoft.Automation/automationAccounts/contoso-keyroll"}
}

// TestChecklistCommands: every command, word for word, stands in a file that a
// reviewer reads; one of the vaults is a Managed HSM.
func TestChecklistCommands(t *testing.T) {
	t.Parallel()
	inv := contoso()
	inv.Keys[5].VaultURL = "https://contoso-hsm.managedhsm.azure.net"
	inv.Automation = account()
	var b strings.Builder
	for _, g := range roll.Checklist(inv, grantee(), nil, roll.Proof{}) {
		fmt.Fprintf(&b, "== %s %s (%s)\n%s\n", g.ID, g.Subject, g.Shell, g.NeededFor)
		for _, c := range g.Commands {
			fmt.Fprintf(&b, "  %s\n", c)
		}
		if g.Note != "" {
			fmt.Fprintf(&b, "note: %s\n", g.Note)
		}
		if g.State != roll.GrantUnknown || g.Seen == "" {
			t.Errorf("%s %s is %s before anything was read (%q)", g.ID, g.Subject, g.State, g.Seen)
		}
	}
	const golden = "testdata/checklist.golden"
	if *updateChecklist {
		if err := os.WriteFile(golden, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), b.String()); diff != "" {
		t.Errorf("run with -update-checklist where that is meant:\n%s", diff)
	}
}

// TestChecklistGrantsNothingMore: no command grants what Keyroll must never
// be able to do, nor a built-in role that could.
func TestChecklistGrantsNothingMore(t *testing.T) {
	t.Parallel()
	inv := contoso()
	inv.Keys[5].VaultURL = "https://contoso-hsm.managedhsm.azure.net"
	inv.Automation = account()
	never := regexp.MustCompile(`(?i)delete|purge|recover|restore|backup|import|export|keys/write|keys/update|vaults/\*|keys/\*|managedhsm/\*|` +
		`Crypto Officer|Crypto User'|Administrator|Contributor|Owner|AzureKeyIDs|Replace`)
	for _, g := range roll.Checklist(inv, grantee(), nil, roll.Proof{}) {
		if len(g.Commands) == 0 {
			t.Errorf("%s %s has no commands", g.ID, g.Subject)
		}
		for _, c := range g.Commands {
			if bad := never.FindString(c); bad != "" {
				t.Errorf("%s %s grants %q: %s", g.ID, g.Subject, bad, c)
			}
			if strings.Contains(c, "%!") || strings.Contains(c, "<") {
				t.Errorf("%s %s is not filled in: %s", g.ID, g.Subject, c)
			}
		}
	}
}

// byAzure are the lines that only Resource Manager tells about.
var byAzure = map[string]bool{"vault_keyroll_no_delete": true, "vault_microsoft365": true, "vault_network": true, "vault_reader": true}

// TestChecklistStates: what was read tells what was granted, and no more.
func TestChecklistStates(t *testing.T) {
	t.Parallel()
	inv := contoso()
	all := func(code string) []roll.Read {
		var out []roll.Read
		for _, r := range roll.Reads(inv, healthy(inv)) {
			if code != "" {
				r.Trouble = &roll.Trouble{Code: code, Detail: "no"}
			}
			out = append(out, r)
		}
		return out
	}
	without := func(reads []roll.Read) []roll.Read {
		return slices.DeleteFunc(reads, func(r roll.Read) bool { return strings.HasPrefix(r.Source, "vault:") })
	}
	done := roll.Proof{Created: map[string]bool{}, Refreshed: true, Rolled: map[string]bool{"NAM": true}}
	for _, k := range inv.Keys {
		done.Created[k.Ref().Host] = true
	}
	const u, d, m = roll.GrantUnknown, roll.GrantDone, roll.GrantMissing
	for name, c := range map[string]struct {
		reads []roll.Read
		proof roll.Proof
		// consent, Exchange's role and group, SharePoint's role, Keyroll at a vault
		want [5]roll.GrantState
	}{
		"never looked":         {nil, roll.Proof{}, [5]roll.GrantState{u, u, u, u, u}},
		"all read":             {all(""), roll.Proof{}, [5]roll.GrantState{d, d, u, d, d}},
		"no Resource Manager":  {without(all("")), roll.Proof{}, [5]roll.GrantState{d, d, u, d, u}},
		"done without it":      {without(all("")), done, [5]roll.GrantState{d, d, d, d, d}},
		"all read and done":    {all(""), done, [5]roll.GrantState{d, d, d, d, d}},
		"no token":             {all("token"), done, [5]roll.GrantState{m, u, u, u, u}},
		"refused as unknown":   {all("unauthorized"), done, [5]roll.GrantState{d, m, m, m, m}},
		"refused for the role": {all("forbidden"), done, [5]roll.GrantState{d, d, m, m, m}},
		"throttled":            {all("throttled"), done, [5]roll.GrantState{u, u, u, u, u}},
	} {
		got := map[string]roll.GrantState{}
		for _, g := range roll.Checklist(inv, grantee(), c.reads, c.proof) {
			if byAzure[g.ID] {
				continue // TestChecklistByResourceManager
			}
			if before, ok := got[g.ID]; ok && before != g.State {
				t.Errorf("%s: %s is %s and %s", name, g.ID, before, g.State)
			}
			got[g.ID] = g.State
			if g.Seen == "" || g.NeededFor == "" {
				t.Errorf("%s: incomplete: %+v", name, g)
			}
		}
		want := map[string]roll.GrantState{"admin_consent": c.want[0], "exchange_app_role": c.want[1], "exchange_role_group": c.want[2],
			"sharepoint_app_role": c.want[3], "vault_keyroll": c.want[4]}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s:\n%s", name, diff)
		}
	}
	// A tenant with SharePoint alone is asked for nothing in Exchange.
	inv.Policies = inv.Policies[2:]
	for _, g := range roll.Checklist(inv, grantee(), nil, roll.Proof{}) {
		if strings.Contains(strings.Join(g.Commands, " ")+g.Note, "Exchange") {
			t.Errorf("%s asks for Exchange", g.ID)
		}
	}
}
