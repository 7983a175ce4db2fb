package roll

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"
)

// Offer is a manual step as it is shown to people: from the moment it is
// shown, somebody may have run it.
type Offer struct {
	// Connect opens the session, Check shows what must hold before, Line is the
	// one cmdlet to run.
	Connect string    `json:"connect"`
	Check   string    `json:"check,omitempty"`
	Line    string    `json:"line"`
	At      time.Time `json:"at"`
	// Until is when the tenant's calendar closes over it, as it was declared
	// when the line was shown; nil where it does not. Nothing but these words
	// keeps a person from running it later.
	Until *time.Time `json:"until,omitempty"`
}

// Report is what a person said became of a manual step.
type Report struct {
	By    Actor      `json:"by"`
	At    time.Time  `json:"at"`
	RanAt *time.Time `json:"ran_at,omitempty"`
	Note  string     `json:"note,omitempty"`
}

// Outcomes of a report.
const (
	ReportDone    = "done"
	ReportNotDone = "not_done"
)

type (
	// Offered shows a manual step to people.
	Offered struct {
		N     int
		Epoch int64
		Offer Offer
	}
	// Reported is a person's word on a manual step.
	Reported struct {
		By      Actor
		N       int
		Outcome string
		Note    string
		RanAt   *time.Time
	}
)

// Type strings of the events.
func (Offered) Type() string  { return "manual_step_offered" }
func (Reported) Type() string { return "manual_step_reported" }

// offer lets the step wait for a person. The intent stays open, without an end
// in time: the line may be run whenever somebody sees it.
func (r *Roll) offer(e Offered, now time.Time) ([]Effect, error) {
	s, err := r.held(e, e.N, e.Epoch)
	switch {
	case err != nil:
		return nil, err
	case s.Params.Transport != Manual:
		return nil, r.refuse(e, RefusedStepState, "step %d is not a manual one", e.N)
	case s.changes() && !s.IntentOpen:
		return nil, r.refuse(e, RefusedStepState, "step %d has no open intent", e.N)
	case e.Offer.Line == "":
		return nil, r.refuse(e, RefusedStepState, "step %d would show nothing to run", e.N)
	}
	s.Error, s.Crashes = nil, 0
	if r.State != Running && s.Kind.HasEffect() && s.Offer == nil {
		// The roll stopped before anybody saw the line: nothing new begins.
		s.closeIntent()
		s.State, s.NextAttemptAt, s.WaitingFor = StepReady, &now, ""
		return nil, nil
	}
	s.State, s.WaitingFor, s.NextAttemptAt, s.ProgressAt = StepWaiting, WaitManual, nil, &now
	s.Offer = &e.Offer
	return []Effect{Announce{"step." + WaitManual}}, nil
}

// report takes a person's word. Done is not the step's end: what can be seen
// at Microsoft is looked at first. Not done closes the intent, and the line
// is shown again under another operation.
func (r *Roll) report(e Reported, now time.Time) ([]Effect, error) {
	if err := r.in(e, Running, NeedsAttention, Cancelling); err != nil {
		return nil, err
	}
	if e.By.Kind != Person {
		return nil, r.refuse(e, RefusedServiceActor, "only a person can say what was done by hand")
	}
	if e.N < 1 || e.N > len(r.Steps) {
		return nil, r.refuse(e, RefusedNoSuchStep, "no step %d", e.N)
	}
	s := &r.Steps[e.N-1]
	open := s.WaitingFor == WaitManual && s.State == StepWaiting || s.State == StepNeedsAttention && s.Offer != nil && r.mustWatch(s)
	switch {
	case !open && s.Report != nil && s.Report.By == e.By && e.Outcome == ReportDone:
		return nil, ErrAlreadyApplied
	case !open:
		return nil, r.refuse(e, RefusedStepState, "step %d does not wait for a person's report", e.N)
	case e.RanAt != nil && (e.RanAt.Before(s.Offer.At.Add(-reportSkew)) || e.RanAt.After(now.Add(reportSkew))):
		return nil, r.refuse(e, RefusedReportTime, "the line was shown at %s, and it is %s now: ran_at must lie between",
			s.Offer.At.UTC().Format(time.RFC3339), now.UTC().Format(time.RFC3339))
	}
	switch e.Outcome {
	case ReportDone:
		s.Report = &Report{By: e.By, At: now, RanAt: e.RanAt, Note: e.Note}
	case ReportNotDone:
		s.closeIntent()
		s.Offer, s.Report = nil, nil
	default:
		return nil, r.refuse(e, RefusedStepState, "outcome %q is not %s or %s", e.Outcome, ReportDone, ReportNotDone)
	}
	r.resume(s, now)
	if r.State == NeedsAttention && !slices.ContainsFunc(r.Steps, func(s Step) bool { return s.State == StepNeedsAttention }) {
		r.State = Running
		r.restart(now)
	}
	return []Effect{EnqueueRoll{Kind: r.leadKind(), At: now}}, nil
}

// reportSkew is how far a person's watch may be off.
const reportSkew = 5 * time.Minute

// What may stand in a line that people paste into a shell: nothing in these
// can end the word that it is in.
var (
	pasteName    = regexp.MustCompile(`^[0-9A-Za-z-]{1,127}$`)
	pasteVersion = regexp.MustCompile(`^[0-9a-f]{32}$`)
	pasteGUID    = regexp.MustCompile(`^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`)
	pasteURL     = regexp.MustCompile(`^https://[0-9A-Za-z.-]{1,253}$`)
)

// notPasted is the fault of a value that must not stand in a line to paste.
func notPasted(what string) *Fault {
	return &Fault{"manual_line_refused", what + " has a form that Keyroll does not put into a line to paste", "correct the declaration, then replan"}
}

// SharePointLine is the cmdlet that moves a slot to a version, with what to
// run before it. The cmdlets take no -Identity; a version is written as the 32
// hex digits that the vault shows. byURI names the key by its URI (Params.ByURI).
func SharePointLine(inv Inventory, geo Geo, k Key, version string, slot Slot, byURI bool) (Offer, *Fault) {
	switch admin := strings.TrimSuffix(geo.AdminURL, "/"); {
	case !pasteURL.MatchString(admin):
		return Offer{}, notPasted("the admin URL of geo " + geo.ID)
	case !pasteName.MatchString(k.VaultName()) || !pasteName.MatchString(k.Name):
		return Offer{}, notPasted("key " + k.ID)
	case !pasteVersion.MatchString(version):
		return Offer{}, notPasted("the version of key " + k.ID)
	}
	line := "-KeyVaultName " + k.VaultName() + " -KeyName " + k.Name + " -KeyVersion " + version
	if byURI {
		if !pasteURL.MatchString("https://" + k.Ref().Host) {
			return Offer{}, notPasted("the vault of key " + k.ID)
		}
		// The second form of the cmdlet: a Managed HSM has no short name.
		line = "-KeyVaultUri " + k.URI(version)
	}
	keyType := map[Slot]string{Primary: "Primary", Secondary: "Secondary"}[slot]
	if keyType == "" {
		return Offer{}, notPasted("slot " + string(slot))
	}
	return Offer{Connect: connectSharePoint(inv, geo), Check: "Get-SPODataEncryptionPolicy",
		Line: fmt.Sprintf("Update-SPODataEncryptionPolicy %s -KeyType %s", line, keyType)}, nil
}

// SharePointCheckLine is the cmdlet that shows whether a roll has ended.
func SharePointCheckLine(inv Inventory, geo Geo) (Offer, *Fault) {
	if !pasteURL.MatchString(strings.TrimSuffix(geo.AdminURL, "/")) {
		return Offer{}, notPasted("the admin URL of geo " + geo.ID)
	}
	return Offer{Connect: connectSharePoint(inv, geo), Line: "Get-SPODataEncryptionPolicy"}, nil
}

func connectSharePoint(inv Inventory, geo Geo) string {
	line := "Connect-SPOService -Url " + strings.TrimSuffix(geo.AdminURL, "/")
	switch inv.Cloud {
	case "gcc_high", "dod":
		line += " -Region ITAR"
	case "china":
		line += " -Region China"
	}
	return line
}

// ExchangeLine is the cmdlet that refreshes a policy.
func ExchangeLine(inv Inventory, p Policy) (Offer, *Fault) {
	if !pasteGUID.MatchString(p.GUID) {
		return Offer{}, notPasted("the GUID of policy " + p.ID)
	}
	connect := "Connect-ExchangeOnline"
	if environment := map[string]string{"gcc_high": "O365USGovGCCHigh", "dod": "O365USGovDoD", "china": "O365China"}[inv.Cloud]; environment != "" {
		connect += " -ExchangeEnvironmentName " + environment
	}
	noun := "DataEncryptionPolicy"
	if p.Workload == MultiWorkload {
		noun = "M365DataAtRestEncryptionPolicy"
	}
	line := "Set-" + noun + " -Identity " + p.GUID + " -Refresh"
	if p.Workload == Exchange {
		line += " -Confirm:$false"
	}
	return Offer{Connect: connect, Check: "Get-" + noun + " -Identity " + p.GUID + " | Format-List Name,Guid,Enabled,AzureKeyIDs", Line: line}, nil
}
