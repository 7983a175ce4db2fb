package jobs

import (
	"context"
	"time"

	"github.com/keyroll/keyroll/internal/roll"
)

// vault reads a root key and gives it a new version. Reads may be repeated at
// will. create is neither idempotent nor retried below: an error for which
// maybeApplied holds may have made a version, which is found by its tag.
type vault interface {
	// Get reads one version, "" for the newest. A nil error means that the vault answered.
	Get(ctx context.Context, name, version string) (roll.KeyVersion, error)
	// Versions lists all versions with their tags.
	Versions(ctx context.Context, name string) ([]roll.KeyVersion, error)
	// Create makes a version that carries opID as its tag. A nil error means
	// that the vault said so.
	Create(ctx context.Context, name string, spec roll.CreateSpec, opID string) (roll.KeyVersion, error)
}

// mail reads and refreshes Exchange and multi-workload policies.
type mail interface {
	// Refresh makes the policy take up its keys' newest versions. Safe to
	// repeat as long as those are the recorded ones. A nil error means accepted.
	Refresh(ctx context.Context, w roll.Workload, guid, opID string) (roll.Receipt, error)
	// MailboxPolicyID reads a mailbox's DataEncryptionPolicyID.
	MailboxPolicyID(ctx context.Context, mailbox string) (string, error)
	// Test lets Exchange test a multi-workload policy. It may be repeated at
	// will; what it says proves nothing. A forbidden error means that the tenant
	// has no such cmdlet, or that Keyroll may not run it.
	Test(ctx context.Context, guid string) (roll.PolicyTest, error)
}

// sites reads and rolls the SharePoint keys of one geo.
type sites interface {
	Status(ctx context.Context) (roll.SharePointObservation, error)
	// Roll begins to move a slot to a version. Not idempotent: SharePoint
	// refuses a second one while the first runs. A nil error means taken.
	Roll(ctx context.Context, slot roll.Slot, vault, key, version, opID string) (roll.SharePointObservation, error)
	// RollURI is Roll to a version that is named by its URI: a Managed HSM has no
	// short name. A transport that cannot name it so sends nothing.
	RollURI(ctx context.Context, slot roll.Slot, uri, opID string) (roll.SharePointObservation, error)
}

// runbook knows what became of an effect that was given to a runbook job named
// by the operation's id. It changes nothing and may be asked again at will; an
// error means that the fate is not known now.
type runbook interface {
	Fate(ctx context.Context, opID string) (roll.Fate, error)
}

// Runbooks are the ports of a transport whose effects can be asked after.
type (
	runbookMail interface {
		mail
		runbook
	}
	runbookSites interface {
		sites
		runbook
	}
)

// Tenants gives the connectors of a tenant, and reads it as a whole. Through
// makes it of the real gateway; there is no other implementation in production code.
type Tenants interface {
	Vault(inv roll.Inventory, k roll.Key) (vault, error)
	// Mail and Sites are those of a transport: native, or by runbook.
	Mail(inv roll.Inventory, via roll.Transport) (mail, error)
	Sites(inv roll.Inventory, geo string, via roll.Transport) (sites, error)
	// Runbook is that of a place, for effects of transport Automation.
	Runbook(inv roll.Inventory, place string) (runbook, error)
	// Survey reads everything; its error joins failures that will pass.
	Survey(ctx context.Context, inv roll.Inventory) (roll.Observation, error)
	// Discover reads everything for a comparison, likewise.
	Discover(ctx context.Context, inv roll.Inventory) (roll.Observation, error)
	// Policy reads one policy and the newest version of each of its keys: what rule 5 asks about.
	// By roll.ReadsNothing only the keys are read.
	Policy(ctx context.Context, inv roll.Inventory, p roll.Policy, via roll.Transport) (roll.PolicyObservation, map[string]roll.KeyObservation, error)
	// Look reads a key for the ledger, the recorded versions each for itself
	// where the vault's list leaves one out. It sends reads only. A nil error
	// means that the vault answered; else nothing is known.
	Look(ctx context.Context, inv roll.Inventory, k roll.Key, recorded []string) (roll.LedgerLook, error)
	// Uses asks Key Vault's diagnostic log who used the versions since then. A
	// nil error means that the log answered; it comes late, so what it does not
	// show may still have happened.
	Uses(ctx context.Context, inv roll.Inventory, refs []roll.KeyRef, since time.Time) ([]roll.KeyUse, error)
}

// Connectors is what a gateway to Microsoft offers: its own connectors, which
// must satisfy the ports.
type Connectors[V vault, M mail, S sites, RM runbookMail, RS runbookSites] interface {
	Vault(inv roll.Inventory, k roll.Key) (V, error)
	Exchange(inv roll.Inventory) (M, error)
	SharePoint(inv roll.Inventory, geo string) (S, error)
	ExchangeRunbook(inv roll.Inventory) (RM, error)
	SharePointRunbook(inv roll.Inventory, geo string) (RS, error)
	Survey(ctx context.Context, inv roll.Inventory) (roll.Observation, error)
	Discover(ctx context.Context, inv roll.Inventory) (roll.Observation, error)
	Policy(ctx context.Context, inv roll.Inventory, p roll.Policy, via roll.Transport) (roll.PolicyObservation, map[string]roll.KeyObservation, error)
	Look(ctx context.Context, inv roll.Inventory, k roll.Key, recorded []string) (roll.LedgerLook, error)
	Uses(ctx context.Context, inv roll.Inventory, refs []roll.KeyRef, since time.Time) ([]roll.KeyUse, error)
}

// Through makes Tenants of a gateway's connectors.
func Through[V vault, M mail, S sites, RM runbookMail, RS runbookSites](c Connectors[V, M, S, RM, RS]) Tenants {
	return through[V, M, S, RM, RS]{c}
}

type through[V vault, M mail, S sites, RM runbookMail, RS runbookSites] struct {
	Connectors[V, M, S, RM, RS]
}

func (t through[V, M, S, RM, RS]) Vault(inv roll.Inventory, k roll.Key) (vault, error) {
	return t.Connectors.Vault(inv, k)
}

func (t through[V, M, S, RM, RS]) Mail(inv roll.Inventory, via roll.Transport) (mail, error) {
	if via == roll.Automation {
		return t.ExchangeRunbook(inv)
	}
	return t.Exchange(inv)
}

func (t through[V, M, S, RM, RS]) Sites(inv roll.Inventory, geo string, via roll.Transport) (sites, error) {
	if via == roll.Automation {
		return t.SharePointRunbook(inv, geo)
	}
	return t.SharePoint(inv, geo)
}

func (t through[V, M, S, RM, RS]) Runbook(inv roll.Inventory, place string) (runbook, error) {
	if w, geo := roll.SplitPlace(place); w == roll.SharePoint {
		return t.SharePointRunbook(inv, geo)
	}
	return t.ExchangeRunbook(inv)
}

// Config says how patiently the workers work. The zero value of a member means
// its default.
type Config struct {
	// Heartbeat is how often a process renews its sign of life (2 s); after
	// Silent without one (10 s) others take its work over, and after Stale
	// without an answer of the database (6 s) it begins no effect itself.
	Heartbeat, Silent, Stale time.Duration
	// Sweep is how often rolls that nobody drives are looked for (1 s).
	Sweep time.Duration
	// Lane is how long one job drives a roll before it makes way (2 min).
	Lane time.Duration
	// Call bounds one attempt of a step, by service: Key Vault 30 s, Exchange
	// 15 min (its cmdlets end on the server by then), SharePoint 2 min.
	CallKeyVault, CallExchange, CallSharePoint, CallRead time.Duration
	// CallAutomation bounds an attempt whose calls are runbook jobs (15 min: it
	// has several, of a minute or more each); a job that takes longer is waited
	// for without a worker.
	CallAutomation time.Duration
	// Settle is how long after a call's deadline its effect may still land.
	SettleKeyVault, SettleExchange, SettleSharePoint time.Duration
	// SettleAutomation is how long after it a job may still be taken in (5 min).
	SettleAutomation time.Duration
	// Poll is how often SharePoint is asked (1 min), QueueCheck how often the
	// place in its queue (30 s).
	Poll, QueueCheck time.Duration
	// PollRunbook is how often SharePoint is asked by runbook (15 min): each look is a job.
	PollRunbook time.Duration
	// Dwell and Reads: without having seen Rolling, a SharePoint roll is done
	// after Reads equal answers over Dwell (3 in 15 min).
	Dwell time.Duration
	Reads int
	// Mailbox is how often a sample mailbox is looked at after a refresh (30 min).
	Mailbox time.Duration
	// Evidence is how often Key Vault's log is looked into after a roll (30 min).
	Evidence time.Duration
	// Ledger is how often each key of the ledger is looked at (24 h); LedgerRate
	// how many keys a second at most in this process (2), and LedgerPause the
	// least time between two looks at one vault (1 s).
	Ledger      time.Duration
	LedgerRate  float64
	LedgerPause time.Duration
	// Drift is how often a tenant is compared with what Microsoft has (6 h), and
	// DriftRetry how soon again after a failure that will pass (5 min, doubling).
	Drift, DriftRetry time.Duration
	// BackoffBase and BackoffMax bound the wait after a failure (2 s, 5 min).
	BackoffBase, BackoffMax time.Duration
	// ShortWait is how long a job waits in place instead of being put off (2 s).
	ShortWait time.Duration
	// Workers bounds the jobs at work at once (50).
	Workers int
}

// WithDefaults fills the members that are zero.
func (c Config) WithDefaults() Config {
	def := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
	}
	def(&c.Heartbeat, 2*time.Second)
	def(&c.Silent, 10*time.Second)
	def(&c.Stale, 6*time.Second)
	def(&c.Sweep, time.Second)
	def(&c.Lane, 2*time.Minute)
	def(&c.CallKeyVault, 30*time.Second)
	def(&c.CallExchange, 15*time.Minute)
	def(&c.CallSharePoint, 2*time.Minute)
	def(&c.CallRead, time.Minute)
	def(&c.CallAutomation, 15*time.Minute)
	def(&c.SettleKeyVault, time.Minute)
	def(&c.SettleExchange, 15*time.Minute)
	def(&c.SettleSharePoint, 5*time.Minute)
	def(&c.SettleAutomation, 5*time.Minute)
	def(&c.Poll, time.Minute)
	def(&c.PollRunbook, 15*time.Minute)
	def(&c.QueueCheck, 30*time.Second)
	def(&c.Dwell, 15*time.Minute)
	def(&c.Mailbox, 30*time.Minute)
	def(&c.Evidence, 30*time.Minute)
	def(&c.Ledger, 24*time.Hour)
	def(&c.LedgerPause, time.Second)
	def(&c.Drift, 6*time.Hour)
	def(&c.DriftRetry, 5*time.Minute)
	def(&c.BackoffBase, 2*time.Second)
	def(&c.BackoffMax, 5*time.Minute)
	def(&c.ShortWait, 2*time.Second)
	if c.Reads == 0 {
		c.Reads = 3
	}
	if c.LedgerRate == 0 {
		c.LedgerRate = 2
	}
	if c.Workers == 0 {
		c.Workers = 50
	}
	return c
}

// budget is how long one attempt of a step may take, and how long after it an
// effect may still land. Where runbooks may be asked, it has to last for jobs.
func (c Config) budget(r roll.Roll, s roll.Step) (run, settle time.Duration) {
	run, settle = c.direct(s.Kind)
	if s.Params.Transport != roll.Native || s.Kind == roll.Preflight && r.Plan.Runbooks {
		run, settle = max(run, c.CallAutomation), max(settle, c.SettleAutomation)
	}
	return run, settle
}

// direct is the budget of a step whose calls are answered by the service itself.
func (c Config) direct(k roll.StepKind) (run, settle time.Duration) {
	switch k {
	case roll.CreateKeyVersion:
		return c.CallKeyVault, c.SettleKeyVault
	case roll.RefreshPolicy:
		return c.CallExchange, c.SettleExchange
	case roll.SharePointRollKey:
		return c.CallSharePoint, c.SettleSharePoint
	}
	return c.CallRead, 0
}

// longest is the longest attempt of any step.
func (c Config) longest() time.Duration {
	out := c.CallAutomation
	for _, k := range roll.StepKinds() {
		run, _ := c.direct(k)
		out = max(out, run)
	}
	return out
}
