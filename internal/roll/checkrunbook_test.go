package roll_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/keyroll/keyroll/internal/roll"
)

// TestChecklistRunbooks: what a probe by runbook read is proof of the runbook's
// rights, and none of the native ones.
func TestChecklistRunbooks(t *testing.T) {
	t.Parallel()
	const exo, nam = "exchange", "sharepoint/NAM"
	ids := []string{"exchange_app_role", "exchange_role_group", "sharepoint_app_role", "automation_keyroll", "automation_exchange", "automation_sharepoint"}
	ok, refused := roll.ProbeOK, roll.ProbeRefused
	chosen := func(outcomes ...roll.ProbeOutcome) roll.ChosenTransport {
		var c roll.ChosenTransport
		for i, o := range outcomes {
			if o != "" {
				c.Probes = append(c.Probes, roll.Probe{Via: []roll.Transport{roll.Native, roll.Automation}[i], Outcome: o, Detail: "the words"})
			}
		}
		return c
	}
	for name, c := range map[string]struct {
		do   func(*tenant)
		want string // states by ids, - where there is no such line
	}{
		"no account":   {func(x *tenant) { x.inv.Automation = nil }, "done unknown done - - -"},
		"native":       {func(x *tenant) { x.obs.Transports[exo], x.obs.Transports[nam] = chosen(ok), chosen(ok) }, "done unknown done unknown unknown unknown"},
		"undecided":    {func(x *tenant) {}, "done unknown done unknown unknown unknown"},
		"SharePoint's": {func(x *tenant) { x.obs.Transports[nam] = chosen(refused, ok) }, "done unknown unknown done unknown done"},
		"both": {func(x *tenant) {
			x.obs.Transports[exo], x.obs.Transports[nam] = chosen(refused, ok), chosen(refused, ok)
		}, "unknown unknown unknown done unknown done"},
		"refused":           {func(x *tenant) { x.obs.Transports[exo] = chosen(refused, refused) }, "unknown unknown done unknown unknown unknown"},
		"passing":           {func(x *tenant) { x.obs.Transports[nam] = chosen(refused, roll.ProbePassing) }, "done unknown unknown unknown unknown unknown"},
		"by hand, and CSOM": {func(x *tenant) { x.inv.Transports = roll.TransportSettings{Exchange: "manual", SharePoint: "csom"} }, "done unknown done unknown - -"},
		"refreshed by it": {func(x *tenant) {
			x.obs.Transports[exo] = chosen("", ok)
			x.inv.Recorded = map[string]roll.ChosenTransport{exo: {Via: roll.Automation}}
		}, "unknown unknown done done done unknown"},
	} {
		x := &tenant{inv: contoso(), obs: healthy(contoso())}
		x.inv.Automation, x.obs.Transports = account(), map[string]roll.ChosenTransport{}
		c.do(x)
		got := map[string]roll.Grant{}
		for _, g := range roll.Checklist(x.inv, grantee(), roll.Reads(x.inv, x.obs), roll.Proof{Refreshed: len(x.inv.Recorded) > 0}) {
			got[g.ID] = g
		}
		var states []string
		for _, id := range ids {
			g, there := got[id]
			if !there {
				g.State = "-"
			}
			states = append(states, string(g.State))
			if name == "refused" && strings.Contains(id, "exchange") && !strings.Contains(g.Seen, "the words") {
				t.Errorf("%s: %s does not say why: %s", name, id, g.Seen)
			}
		}
		if diff := cmp.Diff(c.want, strings.Join(states, " ")); diff != "" {
			t.Errorf("%s: %v:\n%s", name, ids, diff)
		}
	}
}
