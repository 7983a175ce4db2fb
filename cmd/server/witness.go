package main

import (
	"context"
	"strings"

	"github.com/keyroll/keyroll/internal/api"
	"github.com/keyroll/keyroll/internal/audit"
	"github.com/keyroll/keyroll/internal/sim"
)

// summary is what the demo found, as --json prints it. What the simulators
// witnessed stands beside what the API says.
type summary struct {
	Roll       rollSummary       `json:"roll"`
	Keys       []keySummary      `json:"keys"`
	Policies   []policySummary   `json:"policies"`
	SharePoint sharePointSummary `json:"sharepoint"`
	Audit      auditSummary      `json:"audit"`
	Seconds    float64           `json:"seconds"`

	violations int
}

type rollSummary struct {
	ID      string `json:"id"`
	State   string `json:"state"`
	Outcome string `json:"outcome"`
}

type keySummary struct {
	Vault           string `json:"vault"`
	Name            string `json:"name"`
	OldVersion      string `json:"old_version"`
	NewVersion      string `json:"new_version"`
	VersionsCreated int    `json:"versions_created"`
}

type policySummary struct {
	Workload string `json:"workload"`
	Name     string `json:"name"`
	Evidence string `json:"evidence"`
}

type sharePointSummary struct {
	Operations int `json:"operations"`
	Overlaps   int `json:"overlaps"`
}

type auditSummary struct {
	Entries  int  `json:"entries"`
	Verified bool `json:"verified"`
}

// witnessed asks the simulators what they saw.
func witnessed(ctx context.Context, controlURL string) (sim.Report, error) {
	var r sim.Report
	_, err := newClient(controlURL, "").call(ctx, "GET", "/witness", nil, &r)
	return r, err
}

func summarise(r api.Roll, seen sim.Report, log audit.Report) summary {
	t := seen.Tenants[r.TenantID]
	s := summary{Roll: rollSummary{r.ID, string(r.State), string(r.Outcome)}, violations: len(seen.Violations),
		SharePoint: sharePointSummary{t.SharePointOperations, t.Overlaps}, Audit: auditSummary{log.Entries, log.OK()}}
	for _, k := range r.Keys {
		vault := vaultName(k.VaultURL)
		s.Keys = append(s.Keys, keySummary{vault, k.Name, k.OldVersion, k.NewVersion, createdIn(t, vault+"/"+k.Name)})
	}
	for _, p := range r.Policies {
		s.Policies = append(s.Policies, policySummary{string(p.Workload), policyName(p), string(p.Evidence)})
	}
	return s
}

func createdIn(t sim.TenantReport, target string) int {
	for name, n := range t.VersionsCreated {
		if strings.EqualFold(name, target) {
			return n
		}
	}
	return 0
}

func vaultName(vaultURL string) string {
	host, _, _ := strings.Cut(strings.TrimPrefix(vaultURL, "https://"), ".")
	return host
}

// policyName: SharePoint's policies have none, so their declared id stands for it.
func policyName(p api.RollPolicy) string {
	if p.Name != "" {
		return p.Name
	}
	return p.ID
}

// wrong lists everything that the demo promises and that does not hold.
func (s summary) wrong() []string {
	var out []string
	say := func(wrong bool, text string) {
		if wrong {
			out = append(out, text)
		}
	}
	say(s.Roll.State != "succeeded", "the roll ended "+s.Roll.State)
	say(len(s.Keys) == 0, "the roll has no keys")
	for _, k := range s.Keys {
		say(k.VersionsCreated != 1, "the simulators saw another number of new versions than one in "+k.Vault)
		say(k.NewVersion == "" || k.NewVersion == k.OldVersion, "no new version is recorded for "+k.Name)
	}
	for _, p := range s.Policies {
		known := p.Evidence == "accepted" || p.Evidence == "in_use" || p.Evidence == "confirmed"
		say(!known, "the end of policy "+p.Name+" is "+p.Evidence)
	}
	say(s.SharePoint.Overlaps != 0, "SharePoint operations overlapped")
	say(s.violations != 0, "the simulators saw a request that could cost data")
	say(!s.Audit.Verified, "the audit log is not whole")
	return out
}
