package roll_test

import (
	"testing"

	"github.com/keyroll/keyroll/internal/roll"
)

// TestChooseTransport is the table of choices: what is declared, what is
// recorded, and how each read-only probe ended.
func TestChooseTransport(t *testing.T) {
	native := func(o roll.ProbeOutcome) roll.Probe { return roll.Probe{Via: roll.Native, Outcome: o, Detail: "seen"} }
	runbook := func(o roll.ProbeOutcome) roll.Probe {
		return roll.Probe{Via: roll.Automation, Outcome: o, Detail: "seen"}
	}
	probes := func(p ...roll.Probe) []roll.Probe { return p }
	const none = roll.ReadsNothing
	recorded := func(via, reads roll.Transport) *roll.ChosenTransport {
		return &roll.ChosenTransport{Via: via, Reads: reads, Declared: "auto"}
	}
	for name, c := range map[string]struct {
		declared   string
		recorded   *roll.ChosenTransport
		probes     []roll.Probe
		via, reads roll.Transport
		undecided  bool
	}{
		"auto, native works":                           {"auto", nil, probes(native("ok")), roll.Native, roll.Native, false},
		"auto, native works again":                     {"auto", recorded(roll.Automation, roll.Automation), probes(native("ok")), roll.Native, roll.Native, false},
		"auto, native refused, runbook works":          {"auto", nil, probes(native("refused"), runbook("ok")), roll.Automation, roll.Automation, false},
		"auto, native shows something else":            {"auto", nil, probes(native("mismatch")), roll.Manual, roll.Native, false},
		"auto, native shows something else, runbook":   {"auto", nil, probes(native("mismatch"), runbook("ok")), roll.Automation, roll.Automation, false},
		"auto, nothing works":                          {"auto", nil, probes(native("refused"), runbook("refused")), roll.Manual, none, false},
		"auto, no account":                             {"auto", nil, probes(native("refused")), roll.Manual, none, false},
		"auto, native passing, nothing recorded":       {"auto", nil, probes(native("passing")), "", "", true},
		"auto, native passing, native recorded":        {"auto", recorded(roll.Native, roll.Native), probes(native("passing")), roll.Native, roll.Native, false},
		"auto, native passing, runbook recorded":       {"auto", recorded(roll.Automation, roll.Automation), probes(native("passing"), runbook("ok")), roll.Automation, roll.Automation, false},
		"auto, native passing, manual recorded":        {"auto", recorded(roll.Manual, none), probes(native("passing")), roll.Manual, none, false},
		"auto, runbook passing, native recorded":       {"auto", recorded(roll.Native, roll.Native), probes(native("refused"), runbook("passing")), roll.Native, roll.Native, false},
		"auto, runbook passing, nothing recorded":      {"auto", nil, probes(native("refused"), runbook("passing")), "", "", true},
		"auto, recorded under another declaration":     {"auto", &roll.ChosenTransport{Via: roll.Manual, Declared: "manual"}, probes(native("passing")), "", "", true},
		"csom declared, though it fails":               {"csom", recorded(roll.Manual, none), probes(native("refused")), roll.Native, roll.Native, false},
		"invoke_command declared":                      {"invoke_command", nil, probes(native("passing")), roll.Native, roll.Native, false},
		"automation declared":                          {"automation", nil, probes(runbook("refused")), roll.Automation, roll.Automation, false},
		"manual declared, native reads":                {"manual", nil, probes(native("ok")), roll.Manual, roll.Native, false},
		"manual declared, runbook reads":               {"manual", nil, probes(native("refused"), runbook("ok")), roll.Manual, roll.Automation, false},
		"manual declared, nothing reads":               {"manual", nil, probes(native("refused")), roll.Manual, none, false},
		"manual declared, native passing":              {"manual", nil, probes(native("passing")), roll.Manual, none, true},
		"manual declared, native passing, was read by": {"manual", &roll.ChosenTransport{Via: roll.Manual, Reads: roll.Native, Declared: "manual"}, probes(native("passing")), roll.Manual, roll.Native, false},
	} {
		got, ok := roll.ChooseTransport(c.declared, c.recorded, c.probes)
		if ok == c.undecided {
			t.Errorf("%s: decided %t", name, ok)
			continue
		}
		if ok && (got.Via != c.via || got.Reads != c.reads || got.Why == "" && c.recorded == nil) {
			t.Errorf("%s: via %q, read by %q, because %q; want %q, %q", name, got.Via, got.Reads, got.Why, c.via, c.reads)
		}
	}
}

// TestManualLines holds the lines that people paste against what Microsoft's
// cmdlets take: no -Identity for SharePoint, the version as the vault shows it.
func TestManualLines(t *testing.T) {
	inv := contoso()
	k, _ := inv.KeyByID("spo-a")
	const version = "0123456789abcdef0123456789abcdef"
	spo, fault := roll.SharePointLine(inv, inv.SharePoint.Geos[0], k, version, roll.Secondary, false)
	if fault != nil {
		t.Fatal(fault)
	}
	if want := "Update-SPODataEncryptionPolicy -KeyVaultName " + k.VaultName() + " -KeyName " + k.Name + " -KeyVersion " + version + " -KeyType Secondary"; spo.Line != want {
		t.Errorf("SharePoint: %s, want %s", spo.Line, want)
	}
	if spo.Connect != "Connect-SPOService -Url https://contoso-admin.sharepoint.com" {
		t.Errorf("SharePoint connects by %s", spo.Connect)
	}
	gov := inv
	gov.Cloud = "gcc_high"
	if o, _ := roll.SharePointLine(gov, inv.SharePoint.Geos[0], k, version, roll.Primary, false); o.Connect != spo.Connect+" -Region ITAR" {
		t.Errorf("GCC High connects by %s", o.Connect)
	}
	const guid = "5e2b9c64-7d13-4f6a-9a41-1c0d7b52e8f3"
	for w, want := range map[roll.Workload]string{
		roll.Exchange:      "Set-DataEncryptionPolicy -Identity " + guid + " -Refresh -Confirm:$false",
		roll.MultiWorkload: "Set-M365DataAtRestEncryptionPolicy -Identity " + guid + " -Refresh",
	} {
		if o, fault := roll.ExchangeLine(inv, roll.Policy{ID: "p", Workload: w, GUID: guid}); fault != nil || o.Line != want {
			t.Errorf("%s: %s %v, want %s", w, o.Line, fault, want)
		}
	}
}

// TestNothingElseIsPasted: a declaration is somebody's text, and the line goes
// into an administrator's shell.
func TestNothingElseIsPasted(t *testing.T) {
	inv := contoso()
	geo, k := inv.SharePoint.Geos[0], inv.Keys[0]
	const version = "0123456789abcdef0123456789abcdef"
	bad := k
	bad.Name = "Key; Remove-Item"
	evil := geo
	evil.AdminURL = "https://contoso-admin.sharepoint.com -Credential $x"
	for name, f := range map[string]func() (roll.Offer, *roll.Fault){
		"key": func() (roll.Offer, *roll.Fault) {
			return roll.SharePointLine(inv, geo, bad, version, roll.Primary, false)
		},
		"version": func() (roll.Offer, *roll.Fault) { return roll.SharePointLine(inv, geo, k, "new", roll.Primary, false) },
		"slot":    func() (roll.Offer, *roll.Fault) { return roll.SharePointLine(inv, geo, k, version, "both", false) },
		"url": func() (roll.Offer, *roll.Fault) {
			return roll.SharePointLine(inv, evil, k, version, roll.Primary, false)
		},
		"check": func() (roll.Offer, *roll.Fault) { return roll.SharePointCheckLine(inv, evil) },
		"guid": func() (roll.Offer, *roll.Fault) {
			return roll.ExchangeLine(inv, roll.Policy{ID: "p", Workload: roll.Exchange, GUID: "$(x)"})
		},
	} {
		if o, fault := f(); fault == nil || o.Line != "" {
			t.Errorf("%s: %q is shown to be pasted", name, o.Line)
		}
	}
}
