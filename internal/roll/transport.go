package roll

import (
	"fmt"
	"strings"
	"time"
)

// Transport is how a change reaches Microsoft. The strings are wire format:
// plans are hashed over them.
type Transport string

// The transports. Native is InvokeCommand for Exchange and CSOM for
// SharePoint; Microsoft documents neither for third parties. Automation is a
// runbook with Microsoft's own cmdlets in the customer's Azure Automation
// account. Manual is a person with a shell.
const (
	Native     Transport = ""
	Automation Transport = "automation"
	Manual     Transport = "manual"
)

// ReadsNothing is a Reads of ChosenTransport: no transport shows what is there.
const ReadsNothing Transport = "none"

// What a declaration may say of a transport, besides "automation" and "manual".
const (
	TransportAuto          = "auto"
	TransportInvokeCommand = "invoke_command"
	TransportCSOM          = "csom"
)

// Name is the transport as people and programs read it, by workload.
func (t Transport) Name(w Workload) string {
	if t != Native {
		return string(t)
	}
	if w == SharePoint {
		return TransportCSOM
	}
	return TransportInvokeCommand
}

// Documented says whether Microsoft documents the way for third parties, and
// if not, in words for evidence and page.
func (t Transport) Documented(w Workload) (ok bool, words string) {
	switch {
	case t != Native:
		return true, ""
	case w == SharePoint:
		return false, "by CSOM methods of SP.Site, which Microsoft does not document for this use by third parties"
	}
	return false, "by InvokeCommand, which Microsoft does not document for third parties"
}

// By says by which way something was done, for an evidence's source.
func (t Transport) By(w Workload) string {
	if _, words := t.Documented(w); words != "" {
		return words
	}
	if t == Automation {
		return "by Microsoft's cmdlet in an Azure Automation runbook"
	}
	return "by a person with Microsoft's cmdlet"
}

// TransportSettings is what a declaration says of transports; "" is auto.
type TransportSettings struct {
	Exchange   string `json:"exchange,omitempty"`
	SharePoint string `json:"sharepoint,omitempty"`
}

// AutomationAccount is the Azure Automation account that holds the runbooks.
type AutomationAccount struct {
	// Account is its resource id in Azure.
	Account string `json:"account"`
	// RunOn is a hybrid worker group; "" means Azure's own sandboxes.
	RunOn string `json:"run_on,omitempty"`
}

// accountFor is the declared account where a change is made by runbook.
func (inv Inventory) accountFor(via Transport) string {
	if via != Automation || inv.Automation == nil {
		return ""
	}
	return inv.Automation.Account
}

// SentTo is the declaration as it is for a step that was planned for an
// account: its jobs are in that one.
func (inv Inventory) SentTo(account string) Inventory {
	if account == "" {
		return inv
	}
	to := AutomationAccount{Account: account}
	if inv.Automation != nil {
		to.RunOn = inv.Automation.RunOn
	}
	inv.Automation = &to
	return inv
}

// CheckAccount is the fault of a declaration that names another Automation
// account than the one that a plan was approved for.
func CheckAccount(inv Inventory, planned string) *Fault {
	if planned == "" || strings.EqualFold(inv.accountFor(Automation), planned) {
		return nil
	}
	return &Fault{"declaration_changed", fmt.Sprintf("the declared Automation account is %q; the plan was approved for %s", inv.accountFor(Automation), planned),
		"declare that account again and retry, or replan"}
}

// Place is what has a transport of its own: Exchange (with multi-workload) as
// a whole, and each SharePoint geo.
func Place(w Workload, geo string) string {
	if w == SharePoint {
		return "sharepoint/" + geo
	}
	return "exchange"
}

// SplitPlace is the reverse of Place.
func SplitPlace(place string) (w Workload, geo string) {
	if geo, ok := strings.CutPrefix(place, "sharepoint/"); ok {
		return SharePoint, geo
	}
	return Exchange, ""
}

// Places lists the places of a declaration, in its order.
func (inv Inventory) Places() []string {
	var out []string
	for _, p := range inv.Policies {
		if p.Workload != SharePoint {
			out = append(out, Place(Exchange, ""))
			break
		}
	}
	for _, g := range inv.SharePoint.Geos {
		out = append(out, Place(SharePoint, g.ID))
	}
	return out
}

// DeclaredTransport is what the declaration says for a place, "auto" where it
// says nothing.
func (inv Inventory) DeclaredTransport(place string) string {
	w, geo := SplitPlace(place)
	said := inv.Transports.Exchange
	if w == SharePoint {
		said = inv.Transports.SharePoint
		if g, ok := inv.GeoByID(geo); ok && g.Transport != "" {
			said = g.Transport
		}
	}
	if said == "" {
		return TransportAuto
	}
	return said
}

// ProbeOutcome is how a read-only probe of a transport ended.
type ProbeOutcome string

// Outcomes of a probe. ProbeMismatch read well, but what it read is not what
// is declared; ProbePassing failed in a way that will pass, and so proves nothing.
const (
	ProbeOK       ProbeOutcome = "ok"
	ProbeMismatch ProbeOutcome = "mismatch"
	ProbeRefused  ProbeOutcome = "refused"
	ProbePassing  ProbeOutcome = "passing"
)

// Probe is one read-only look through a transport.
type Probe struct {
	Via     Transport    `json:"via"`
	Outcome ProbeOutcome `json:"outcome"`
	Detail  string       `json:"detail,omitempty"`
}

// reads says that the place can be read this way.
func (p Probe) reads() bool { return p.Outcome == ProbeOK || p.Outcome == ProbeMismatch }

// ChosenTransport is the transport of a place, and why it is that.
type ChosenTransport struct {
	// Via is how changes are made, Reads how the place is read (ReadsNothing: not at all).
	Via      Transport `json:"via"`
	Reads    Transport `json:"reads"`
	Declared string    `json:"declared"`
	Why      string    `json:"why"`
	Probes   []Probe   `json:"probes,omitempty"`
	// Since when it is so, and when it was last probed: the store's.
	Since    time.Time `json:"-"`
	ProbedAt time.Time `json:"-"`
}

// SameChoice says whether both choose alike, whatever the reasons.
func (c ChosenTransport) SameChoice(o ChosenTransport) bool {
	return c.Via == o.Via && c.Reads == o.Reads && c.Declared == o.Declared
}

// ChooseTransport decides by what is declared, what is recorded (nil: nothing
// yet) and what the probes found. ok is false where nothing can be decided
// now: a probe failed in a way that will pass. A recorded transport is never
// changed by such a failure.
func ChooseTransport(declared string, recorded *ChosenTransport, probes []Probe) (c ChosenTransport, ok bool) {
	c = ChosenTransport{Declared: declared, Probes: probes}
	switch declared {
	case TransportInvokeCommand, TransportCSOM:
		c.Why = "the declaration names it"
		return c, true
	case string(Automation):
		c.Via, c.Reads, c.Why = Automation, Automation, "the declaration names it"
		return c, true
	case string(Manual):
		c.Via, c.Why = Manual, "the declaration names it"
		if c.Reads, ok = reader(probes); !ok && recorded != nil && recorded.Declared == declared {
			c.Reads, ok = recorded.Reads, true
		}
		return c, ok
	}
	for _, p := range probes {
		switch p.Outcome {
		case ProbeOK:
			c.Via, c.Reads, c.Why = p.Via, p.Via, "its read-only probe succeeded and shows what is declared"
			return c, true
		case ProbePassing:
			if recorded == nil || recorded.Declared != declared {
				return c, false
			}
			kept := *recorded
			kept.Probes = probes
			return kept, true
		case ProbeMismatch, ProbeRefused:
		}
	}
	c.Via, c.Why = Manual, "no other transport can be used: "+failures(probes)
	c.Reads, _ = reader(probes)
	return c, true
}

// reader is the first transport that can read; ok is false where one that
// cannot now may be able to later.
func reader(probes []Probe) (t Transport, ok bool) {
	for _, p := range probes {
		switch {
		case p.reads():
			return p.Via, true
		case p.Outcome == ProbePassing:
			return ReadsNothing, false
		}
	}
	return ReadsNothing, true
}

func failures(probes []Probe) string {
	var out []string
	for _, p := range probes {
		name := "the native interface"
		if p.Via != Native {
			name = string(p.Via)
		}
		out = append(out, fmt.Sprintf("%s: %s", name, p.Detail))
	}
	if len(out) == 0 {
		return "none was probed"
	}
	return strings.Join(out, "; ")
}

// ReadsBy is the transport by which a place is read at a step of transport via.
func (inv Inventory) ReadsBy(place string, via Transport) Transport {
	if via != Manual {
		return via
	}
	if c, ok := inv.Recorded[place]; ok {
		return c.Reads
	}
	return ReadsNothing
}

// Reader is the transport by which a place is read outside of any step: the
// recorded one, or the native one where nothing is recorded yet.
func (inv Inventory) Reader(place string) Transport {
	if c, ok := inv.Recorded[place]; ok {
		return c.Reads
	}
	if inv.DeclaredTransport(place) == string(Automation) {
		return Automation
	}
	return Native
}

// Fate is what became of an effect that was given to a runbook.
type Fate struct {
	// Found: the job exists. Ended: it can change nothing any more. Stuck: it
	// stands still until a person acts on it, and may go on then.
	Found, Ended, Stuck bool
	// State is the service's word.
	State string
	// EndedAt is when the job ended, by the service's clock; zero where it does not say.
	EndedAt time.Time
	// Failed is why the job did not do what it should; nil where it did, or where it has not ended.
	Failed error
	// Receipt is what an Exchange refresh returned, Seen what SharePoint showed.
	Receipt Receipt
	Seen    SharePointObservation
}
