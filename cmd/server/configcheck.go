package main

import (
	"fmt"
	"iter"
	"maps"
	"net"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/keyroll/keyroll/internal/msapi"
)

func mapValues(m map[string]string) iter.Seq[string] { return maps.Values(m) }

// checker collects what is wrong, by setting.
type checker struct {
	skip     map[string]bool
	problems []string
}

// must records a problem of a setting (named without its prefix) unless ok.
func (k *checker) must(ok bool, setting, format string, args ...any) {
	name := envPrefix + setting
	if !ok && !k.skip[name] {
		k.problems = append(k.problems, name+": "+fmt.Sprintf(format, args...))
	}
}

// check judges the settings, together where they depend on each other. Those
// in skip could not be read and have been told already.
func (c Config) check(skip map[string]bool) []string {
	k := &checker{skip: skip}
	c.checkDatabase(k)
	c.checkHTTP(k)
	c.checkMicrosoft(k)
	c.checkPositive(k)
	c.checkSignsOfLife(k)
	if !c.AllowSimulator {
		c.checkProduction(k)
	}
	return k.problems
}

func (c Config) checkDatabase(k *checker) {
	if k.skip[envPrefix+"DATABASE_URL"] {
		return
	}
	cfg, err := pgconn.ParseConfig(c.DatabaseURL.Reveal())
	if err != nil {
		// The error of the driver may repeat the URL.
		k.must(false, "DATABASE_URL", "is not a PostgreSQL connection URL: give it as postgres://USER:PASSWORD@HOST:5432/DATABASE?sslmode=verify-full")
		return
	}
	plain := cfg.TLSConfig == nil && !localHost(cfg.Host)
	for _, f := range cfg.Fallbacks {
		plain = plain || f.TLSConfig == nil && !localHost(f.Host)
	}
	k.must(!plain || c.AllowSimulator, "DATABASE_URL", "may send the password and all data unencrypted to %s: add sslmode=verify-full (or at least sslmode=require)", cfg.Host)
	k.must(c.DatabaseMaxConns >= 4, "DATABASE_MAX_CONNS", "is %d: give at least 4", c.DatabaseMaxConns)
}

// localHost says whether a connection to the host stays on this machine.
func localHost(host string) bool {
	if strings.HasPrefix(host, "/") || strings.HasPrefix(host, "@") || host == "localhost" {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}

func (c Config) checkHTTP(k *checker) {
	_, port, err := net.SplitHostPort(c.Listen)
	if err == nil {
		_, err = net.LookupPort("tcp", port)
	}
	k.must(err == nil, "LISTEN", "%q is not host:port; give for example 127.0.0.1:8080, or :8080 for all addresses", c.Listen)
	if c.PublicURL != "" {
		u, err := url.Parse(c.PublicURL)
		ok := err == nil && u.Host != "" && strings.Trim(u.Path, "/") == "" && u.RawQuery == "" && u.User == nil
		k.must(ok, "PUBLIC_URL", "is not an address without path: give for example https://keyroll.example.com")
		if ok {
			k.must(u.Scheme == "https" || u.Scheme == "http" && (localHost(u.Hostname()) || c.AllowSimulator), "PUBLIC_URL", "must begin with https://: tokens travel over it")
		}
	}
	k.must(c.LogFormat == "json" || c.LogFormat == "text", "LOG_FORMAT", "%q is neither json nor text", c.LogFormat)
}

func (c Config) checkMicrosoft(k *checker) {
	if c.DialMap != "" {
		_, err := msapi.ParseDialMap(c.DialMap)
		k.must(err == nil, "DIAL_MAP", "%v", err)
		k.must(c.AllowSimulator, "DIAL_MAP", "sends Microsoft's hosts elsewhere: take it away, or set %sALLOW_SIMULATOR=true where nothing is real", envPrefix)
	}
	if c.ExtraCAFile != "" {
		pem, err := os.ReadFile(c.ExtraCAFile)
		if err == nil {
			_, err = msapi.HTTPClient(nil, pem)
		}
		k.must(err == nil, "EXTRA_CA_FILE", "%v", err)
		k.must(c.AllowSimulator, "EXTRA_CA_FILE", "lets others pose as Microsoft: take it away, or set %sALLOW_SIMULATOR=true where nothing is real", envPrefix)
	}
	if c.CredentialsFile != "" {
		_, err := msapi.ReadCredentials(c.CredentialsFile)
		k.must(err == nil, "CREDENTIALS_FILE", "%v", err)
	}
	_, err := c.clouds()
	k.must(err == nil, "CLOUDS_FILE", "%v", err)
}

// clouds are those that a declaration may name.
func (c Config) clouds() (msapi.Clouds, error) {
	if c.CloudsFile == "" {
		return msapi.Clouds{}, nil
	}
	return msapi.ReadClouds(c.CloudsFile)
}

// checkPositive: none of these may be zero, since zero would mean its default
// to the workers and not what was asked for.
func (c Config) checkPositive(k *checker) {
	for _, d := range []struct {
		setting string
		value   time.Duration
	}{
		{"APPROVAL_PATIENCE", c.ApprovalPatience}, {"STUCK_EXCHANGE", c.StuckExchange}, {"STUCK_SHAREPOINT", c.StuckSharePoint},
		{"STUCK_SHAREPOINT_NO_PERCENT", c.StuckSharePointNoPercent}, {"HEARTBEAT", c.Heartbeat}, {"WORKER_STALE", c.WorkerStale},
		{"WORKER_SILENCE", c.WorkerSilence}, {"SWEEP", c.Sweep}, {"LANE", c.Lane}, {"BACKOFF_BASE", c.BackoffBase},
		{"KEY_VAULT_CALL", c.KeyVaultCall}, {"KEY_VAULT_SETTLE", c.KeyVaultSettle}, {"EXCHANGE_CALL", c.ExchangeCall},
		{"EXCHANGE_SETTLE", c.ExchangeSettle}, {"SHAREPOINT_CALL", c.SharePointCall}, {"SHAREPOINT_SETTLE", c.SharePointSettle}, {"AUTOMATION_CALL", c.AutomationCall}, {"AUTOMATION_SETTLE", c.AutomationSettle}, {"AUTOMATION_POLL", c.AutomationPoll},
		{"READ_CALL", c.ReadCall}, {"SHAREPOINT_POLL", c.SharePointPoll}, {"SHAREPOINT_QUEUE_CHECK", c.SharePointQueueCheck},
		{"SHAREPOINT_DWELL", c.SharePointDwell}, {"MAILBOX_CHECK", c.MailboxCheck}, {"EVIDENCE_CHECK", c.EvidenceCheck}, {"LEDGER_CHECK", c.LedgerCheck}, {"LEDGER_PAUSE", c.LedgerPause},
		{"DRIFT_CHECK", c.DriftCheck}, {"DRIFT_RETRY", c.DriftRetry},
	} {
		k.must(d.value > 0, d.setting, "is %s: give a duration above zero", d.value)
	}
	k.must(c.DrainDelay >= 0, "DRAIN_DELAY", "is %s: give zero or more", c.DrainDelay)
	k.must(c.ShutdownGrace >= 0, "SHUTDOWN_GRACE", "is %s: give zero or more", c.ShutdownGrace)
	k.must(c.BackoffMax >= c.BackoffBase, "BACKOFF_MAX", "is %s: give at least %sBACKOFF_BASE, which is %s", c.BackoffMax, envPrefix, c.BackoffBase)
	k.must(c.Workers > 0 && c.Workers <= 10000, "WORKERS", "is %d: give 1 to 10000", c.Workers)
	k.must(c.LedgerRate > 0 && c.LedgerRate <= 100, "LEDGER_RATE", "is %g: give more than 0, and at most 100", c.LedgerRate)
	k.must(c.SharePointReads >= 2, "SHAREPOINT_READS", "is %d: one answer proves nothing, give at least 2", c.SharePointReads)
}

// checkSignsOfLife: a process must notice that it has lost the database before
// others take its work over, and one late heartbeat must not look like death.
func (c Config) checkSignsOfLife(k *checker) {
	if k.skip[envPrefix+"HEARTBEAT"] || k.skip[envPrefix+"WORKER_STALE"] || k.skip[envPrefix+"WORKER_SILENCE"] {
		return
	}
	k.must(c.WorkerStale < c.WorkerSilence, "WORKER_STALE", "is %s: it must be shorter than %sWORKER_SILENCE (%s), or two processes may act on one roll", c.WorkerStale, envPrefix, c.WorkerSilence)
	k.must(2*c.Heartbeat <= c.WorkerStale, "HEARTBEAT", "is %s: give at most half of %sWORKER_STALE (%s), or one late heartbeat stops all work", c.Heartbeat, envPrefix, c.WorkerStale)
	k.must(2*c.Heartbeat <= c.WorkerSilence, "HEARTBEAT", "is %s: give at most half of %sWORKER_SILENCE (%s), or live processes look dead", c.Heartbeat, envPrefix, c.WorkerSilence)
}

// checkProduction refuses what is right for simulators only.
func (c Config) checkProduction(k *checker) {
	least := func(value, least time.Duration, setting, why string) {
		k.must(value <= 0 || value >= least, setting, "is %s: against Microsoft give at least %s, %s", value, least, why)
	}
	least(c.KeyVaultSettle, 10*time.Second, "KEY_VAULT_SETTLE", "or a late answer means a second key version")
	least(c.SharePointSettle, time.Minute, "SHAREPOINT_SETTLE", "or an operation may be asked for twice")
	least(c.AutomationSettle, time.Minute, "AUTOMATION_SETTLE", "or an operation may be asked for twice")
	least(c.SharePointDwell, time.Minute, "SHAREPOINT_DWELL", "or an operation that has not begun yet looks done")
	least(c.SharePointPoll, 10*time.Second, "SHAREPOINT_POLL", "or Microsoft throttles the tenant")
	least(c.LedgerCheck, 5*time.Minute, "LEDGER_CHECK", "or Key Vault throttles the tenants' own use of their keys")
	least(c.ExchangeCall+c.ExchangeSettle, 15*time.Minute, "EXCHANGE_SETTLE", "together with "+envPrefix+"EXCHANGE_CALL: that is how long a cmdlet runs on Microsoft's side")
	least(c.WorkerSilence, 5*time.Second, "WORKER_SILENCE", "or a short pause of a process looks like its death")
}
