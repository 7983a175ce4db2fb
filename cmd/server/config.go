package main

import (
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/caarlos0/env/v11"

	"github.com/keyroll/keyroll/internal/jobs"
	"github.com/keyroll/keyroll/internal/roll"
)

// envPrefix stands before the name of every setting.
const envPrefix = "KEYROLL_"

// Config is everything that serve can be told. The first sentence of a field's
// comment is its meaning; what follows "Danger:" is what a wrong value costs.
// docs/configuration.md and "server serve --help" are made from these comments.
type Config struct {
	// PostgreSQL connection URL, 15 or newer. Danger: it holds a password; hand it over as a secret.
	DatabaseURL Secret `env:"DATABASE_URL,required"`
	// Role that every connection takes (SET ROLE); "server migrate" makes keyroll_app. Danger: another role may be able to change the audit log.
	DatabaseRole string `env:"DATABASE_ROLE" envDefault:"keyroll_app"`
	// Most database connections of one process; one more is the heartbeat's.
	DatabaseMaxConns int32 `env:"DATABASE_MAX_CONNS" envDefault:"16"`
	// Bring the schema to the newest version at start. Danger: the login then needs the right to change the schema.
	AutoMigrate bool `env:"AUTO_MIGRATE" envDefault:"false"`

	// Address to listen on. Danger: it speaks HTTP without TLS and /metrics asks for no token, so put a TLS proxy in front of any other address than loopback.
	Listen string `env:"LISTEN" envDefault:"127.0.0.1:8080"`
	// Address under which people and programs reach the service, such as https://keyroll.example.com; empty where it is the one it listens on.
	PublicURL string `env:"PUBLIC_URL"`
	// How long /readyz answers 503 before connections are refused, when the process is told to end; give a load balancer time to notice.
	DrainDelay time.Duration `env:"DRAIN_DELAY" envDefault:"0s"`
	// How long calls under way may take to end when the process is told to end. Danger: what is cut off is found out and settled by another process, which takes minutes.
	ShutdownGrace time.Duration `env:"SHUTDOWN_GRACE" envDefault:"45s"`
	// Least level of log lines: debug, info, warn or error.
	LogLevel slog.Level `env:"LOG_LEVEL" envDefault:"info"`
	// Form of log lines: json or text.
	LogFormat string `env:"LOG_FORMAT" envDefault:"json"`

	// File that names the Microsoft credentials (JSON; read again on SIGHUP). Danger: it leads to private keys; let only the service read it.
	CredentialsFile string `env:"CREDENTIALS_FILE,required"`
	// File with clouds of your own (JSON; docs/clouds.md): air-gapped ones, or other hosts for a known one. Danger: tokens go to the hosts that it names.
	CloudsFile string `env:"CLOUDS_FILE"`
	// Allow the simulators in place of Microsoft; rolls, page and metrics then say so. Danger: never in production.
	AllowSimulator bool `env:"ALLOW_SIMULATOR" envDefault:"false"`
	// Where connections go instead, as host-suffix=address, comma separated; needs ALLOW_SIMULATOR. Danger: tokens go where it points.
	DialMap string `env:"DIAL_MAP"`
	// File with further certificate authorities (PEM) to trust for Microsoft's hosts; needs ALLOW_SIMULATOR. Danger: they can pose as Microsoft.
	ExtraCAFile string `env:"EXTRA_CA_FILE"`

	// How long a plan waits for its approval before the roll is cancelled.
	ApprovalPatience time.Duration `env:"APPROVAL_PATIENCE" envDefault:"168h"`
	// Exchange and multi-workload steps without progress for this long count as stuck.
	StuckExchange time.Duration `env:"STUCK_EXCHANGE" envDefault:"30m"`
	// SharePoint steps that show a percentage count as stuck after this long without progress.
	StuckSharePoint time.Duration `env:"STUCK_SHAREPOINT" envDefault:"24h"`
	// SharePoint steps that show no percentage count as stuck after this long.
	StuckSharePointNoPercent time.Duration `env:"STUCK_SHAREPOINT_NO_PERCENT" envDefault:"168h"`

	// Most rolls that one process drives at once.
	Workers int `env:"WORKERS" envDefault:"50"`
	// How often a process renews its sign of life.
	Heartbeat time.Duration `env:"HEARTBEAT" envDefault:"2s"`
	// A process that has not heard from the database for this long begins no effect.
	WorkerStale time.Duration `env:"WORKER_STALE" envDefault:"6s"`
	// Others take over the work of a process without a sign of life for this long. Danger: it must exceed WORKER_STALE, or two processes may act at once; set it alike in all of them.
	WorkerSilence time.Duration `env:"WORKER_SILENCE" envDefault:"10s"`
	// How often rolls that nobody drives are looked for.
	Sweep time.Duration `env:"SWEEP" envDefault:"1s"`
	// How long one job drives a roll before it makes way for others.
	Lane time.Duration `env:"LANE" envDefault:"2m"`
	// First wait after a failure; it doubles with each further one.
	BackoffBase time.Duration `env:"BACKOFF_BASE" envDefault:"2s"`
	// Longest wait after a failure.
	BackoffMax time.Duration `env:"BACKOFF_MAX" envDefault:"5m"`

	// How long a call to Key Vault that changes something may take.
	KeyVaultCall time.Duration `env:"KEY_VAULT_CALL" envDefault:"30s"`
	// How long after that its effect may still land. Danger: too short, and a late answer means a second key version.
	KeyVaultSettle time.Duration `env:"KEY_VAULT_SETTLE" envDefault:"1m"`
	// How long a cmdlet of Exchange that changes something may take; Microsoft ends it after 15 minutes.
	ExchangeCall time.Duration `env:"EXCHANGE_CALL" envDefault:"15m"`
	// How long after that its effect may still land.
	ExchangeSettle time.Duration `env:"EXCHANGE_SETTLE" envDefault:"15m"`
	// How long the call that begins a SharePoint key operation may take.
	SharePointCall time.Duration `env:"SHAREPOINT_CALL" envDefault:"2m"`
	// How long after that its effect may still land. Danger: too short, and an operation may be asked for twice.
	SharePointSettle time.Duration `env:"SHAREPOINT_SETTLE" envDefault:"5m"`
	// How long an attempt may take whose calls are runbook jobs; a job that takes longer is watched, and not sent again.
	AutomationCall time.Duration `env:"AUTOMATION_CALL" envDefault:"15m"`
	// How long after that Azure Automation may still take a job in. Danger: too short, and an operation may be asked for twice.
	AutomationSettle time.Duration `env:"AUTOMATION_SETTLE" envDefault:"5m"`
	// How often SharePoint is asked by runbook; each look is a job.
	AutomationPoll time.Duration `env:"AUTOMATION_POLL" envDefault:"15m"`
	// How long the reads of one step may take.
	ReadCall time.Duration `env:"READ_CALL" envDefault:"1m"`
	// How often SharePoint is asked how far it is. Danger: Microsoft throttles a tenant that is asked too often.
	SharePointPoll time.Duration `env:"SHAREPOINT_POLL" envDefault:"1m"`
	// How often a waiting roll looks at its place in the SharePoint queue.
	SharePointQueueCheck time.Duration `env:"SHAREPOINT_QUEUE_CHECK" envDefault:"30s"`
	// Where Rolling was never seen, a SharePoint operation counts as done after equal answers for this long. Danger: too short, and one that has not begun yet looks done.
	SharePointDwell time.Duration `env:"SHAREPOINT_DWELL" envDefault:"15m"`
	// How many equal answers that takes.
	SharePointReads int `env:"SHAREPOINT_READS" envDefault:"3"`
	// How often sample mailboxes are looked at after a refresh.
	MailboxCheck time.Duration `env:"MAILBOX_CHECK" envDefault:"30m"`
	// How often Key Vault's diagnostic log is looked into after a roll, where the tenant declares it; for up to 72 hours.
	EvidenceCheck time.Duration `env:"EVIDENCE_CHECK" envDefault:"30m"`
	// How often each key of the ledger is looked at. Danger: a version that was disabled or deleted is noticed within this time, and a deleted key can be recovered for its vault's retention only.
	LedgerCheck time.Duration `env:"LEDGER_CHECK" envDefault:"24h"`
	// Most keys of the ledger that one process looks at in a second; each takes two calls to Key Vault. Danger: too few, and a large estate is not seen in LEDGER_CHECK; watch keyroll_ledger_oldest_verified_timestamp_seconds.
	LedgerRate float64 `env:"LEDGER_RATE" envDefault:"2"`
	// Least time between two such looks at one vault.
	LedgerPause time.Duration `env:"LEDGER_PAUSE" envDefault:"1s"`
	// How often each tenant is compared with what Microsoft has, give or take a tenth. Danger: Microsoft throttles a tenant that is asked too often.
	DriftCheck time.Duration `env:"DRIFT_CHECK" envDefault:"6h"`
	// How soon a tenant is compared again after a failure that will pass; it doubles with each further one, up to DRIFT_CHECK.
	DriftRetry time.Duration `env:"DRIFT_RETRY" envDefault:"5m"`
}

// jobs is the part of the configuration that the workers take.
func (c Config) jobs() jobs.Config {
	return jobs.Config{
		Heartbeat: c.Heartbeat, Silent: c.WorkerSilence, Stale: c.WorkerStale, Sweep: c.Sweep, Lane: c.Lane,
		CallKeyVault: c.KeyVaultCall, CallExchange: c.ExchangeCall, CallSharePoint: c.SharePointCall, CallRead: c.ReadCall,
		SettleKeyVault: c.KeyVaultSettle, SettleExchange: c.ExchangeSettle, SettleSharePoint: c.SharePointSettle, CallAutomation: c.AutomationCall, SettleAutomation: c.AutomationSettle, PollRunbook: c.AutomationPoll,
		Poll: c.SharePointPoll, QueueCheck: c.SharePointQueueCheck, Dwell: c.SharePointDwell, Reads: c.SharePointReads, Mailbox: c.MailboxCheck,
		Evidence: c.EvidenceCheck, Ledger: c.LedgerCheck, LedgerRate: c.LedgerRate, LedgerPause: c.LedgerPause, Drift: c.DriftCheck, DriftRetry: c.DriftRetry,
		BackoffBase: c.BackoffBase, BackoffMax: c.BackoffMax, Workers: c.Workers,
	}
}

// bounds say when a roll counts as stuck.
func (c Config) bounds() roll.Bounds {
	return roll.Bounds{Exchange: c.StuckExchange, SharePoint: c.StuckSharePoint, SharePointNoProgress: c.StuckSharePointNoPercent}
}

// configError is everything that is wrong with the configuration.
type configError struct{ problems []string }

func (e *configError) Error() string {
	n := len(e.problems)
	what := "1 setting is"
	if n > 1 {
		what = fmt.Sprintf("%d settings are", n)
	}
	return what + " missing or unsafe:\n  " + strings.Join(e.problems, "\n  ")
}

// readConfig reads and checks the configuration. Its error is a *configError
// with every problem at once, each with its mend; the Config beside it holds
// what could be read.
func readConfig(environ map[string]string) (Config, error) {
	var c Config
	names := settingNames()
	problems := unknownSettings(environ, names)
	unread := map[string]bool{} // not judged further
	err := env.ParseWithOptions(&c, env.Options{Prefix: envPrefix, Environment: environ})
	var all env.AggregateError
	if errors.As(err, &all) {
		for _, one := range all.Errors {
			name, text := explainParse(one, names)
			unread[name] = true
			problems = append(problems, name+": "+text)
		}
	} else if err != nil {
		problems = append(problems, err.Error())
	}
	problems = append(problems, c.check(unread)...)
	if len(problems) == 0 {
		return c, nil
	}
	return c, &configError{problems}
}

// settingNames gives the variable of each field of Config.
func settingNames() map[string]string {
	names := map[string]string{}
	t := reflect.TypeFor[Config]()
	for i := range t.NumField() {
		name, _, _ := strings.Cut(t.Field(i).Tag.Get("env"), ",")
		names[t.Field(i).Name] = envPrefix + name
	}
	return names
}

// unknownSettings finds variables that look like settings and are none: a
// mistyped name must not leave a default in force unnoticed.
func unknownSettings(environ, names map[string]string) []string {
	known := slices.Sorted(mapValues(names))
	var problems []string
	for name := range environ {
		// KEYROLL_TEST_… belongs to the tests of this repository.
		if !strings.HasPrefix(name, envPrefix) || strings.HasPrefix(name, envPrefix+"TEST_") || slices.Contains(known, name) {
			continue
		}
		text := name + ": there is no such setting; take it away"
		if near := nearest(name, known); near != "" {
			text = name + ": there is no such setting; did you mean " + near + "?"
		}
		problems = append(problems, text)
	}
	slices.Sort(problems)
	return problems
}

// mends say how to give a required setting.
var mends = map[string]string{
	envPrefix + "DATABASE_URL":     "is missing: give it as postgres://USER:PASSWORD@HOST:5432/DATABASE?sslmode=verify-full",
	envPrefix + "CREDENTIALS_FILE": `is missing: give the path of a JSON file such as {"contoso":{"kind":"client_certificate","client_id":"…","certificate_path":"app.pem"}}`,
}

// explainParse names the variable and the mend. Values are not repeated where
// they might be secret.
func explainParse(err error, names map[string]string) (name, text string) {
	var unset env.VarIsNotSetError
	var parse env.ParseError
	switch {
	case errors.As(err, &unset):
		if mend, ok := mends[unset.Key]; ok {
			return unset.Key, mend
		}
		return unset.Key, "is missing"
	case errors.As(err, &parse):
		name = names[parse.Name]
		switch parse.Type {
		case reflect.TypeFor[time.Duration]():
			text = "is not a duration: give a number with a unit, such as 90s, 15m or 24h"
		case reflect.TypeFor[bool]():
			text = "is neither true nor false"
		case reflect.TypeFor[int](), reflect.TypeFor[int32]():
			text = "is not a whole number"
		case reflect.TypeFor[float64]():
			text = "is not a number"
		case reflect.TypeFor[slog.Level]():
			text = "is not a level: give debug, info, warn or error"
		default:
			text = parse.Err.Error()
		}
		return name, text
	}
	return "environment", err.Error()
}
