package main

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/keyroll/keyroll/internal/sim"
)

const canary = "canary-7c9e1f"

// goodSettings are the least that production needs.
func goodSettings(t *testing.T) map[string]string {
	t.Helper()
	dir := t.TempDir()
	cert, key, err := sim.NewAppCertificate("test")
	must(t, err)
	must(t, os.WriteFile(filepath.Join(dir, "app.pem"), append(cert, key...), 0o600))
	path := filepath.Join(dir, "credentials.json")
	must(t, os.WriteFile(path, []byte(`{"contoso":{"kind":"client_certificate","client_id":"`+sim.ContosoClientID+`","certificate_path":"app.pem"}}`), 0o600))
	return map[string]string{"DATABASE_URL": "postgres://keyroll:" + canary + "@db.example.com/keyroll?sslmode=verify-full", "CREDENTIALS_FILE": path}
}

// withPrefix makes settings an environment.
func withPrefix(settings map[string]string) map[string]string {
	return environment(environOf(settings))
}

func TestConfigDefaults(t *testing.T) {
	t.Parallel()
	c, err := readConfig(withPrefix(goodSettings(t)))
	must(t, err)
	if c.Listen != "127.0.0.1:8080" || c.DatabaseRole != "keyroll_app" || c.ApprovalPatience != 168*time.Hour || c.LogLevel != slog.LevelInfo {
		t.Errorf("defaults: %+v", c)
	}
	// What the workers would take for "not given" must be what they default to anyway.
	have, want := c.jobs(), c.jobs().WithDefaults()
	have.ShortWait = want.ShortWait // there is no setting for it
	if have != want {
		t.Errorf("a setting is missing, or another than the workers' default:\n%+v\n%+v", have, want)
	}
}

// Each refusal: what is set over good settings, and the setting that is named.
func TestConfigRefuses(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		set  map[string]string
		want string
	}{
		"no database":           {map[string]string{"DATABASE_URL": ""}, "KEYROLL_DATABASE_URL: is missing: give it as postgres://"},
		"no credentials":        {map[string]string{"CREDENTIALS_FILE": ""}, "KEYROLL_CREDENTIALS_FILE: is missing"},
		"no such clouds":        {map[string]string{"CLOUDS_FILE": "/nowhere"}, "KEYROLL_CLOUDS_FILE: reading the clouds file"},
		"not a clouds file":     {map[string]string{"CLOUDS_FILE": "config.go"}, "KEYROLL_CLOUDS_FILE: clouds file config.go: not JSON"},
		"no such credentials":   {map[string]string{"CREDENTIALS_FILE": "/nowhere"}, "KEYROLL_CREDENTIALS_FILE: reading the credentials file"},
		"not a database URL":    {map[string]string{"DATABASE_URL": "postgres://u:" + canary + "@h:port/"}, "KEYROLL_DATABASE_URL: is not"},
		"plain text":            {map[string]string{"DATABASE_URL": "postgres://u:" + canary + "@db.example.com/k?sslmode=disable"}, "KEYROLL_DATABASE_URL: may send the password and all data unencrypted to db.example.com"},
		"plain text, perhaps":   {map[string]string{"DATABASE_URL": "postgres://u:" + canary + "@db.example.com/k"}, "KEYROLL_DATABASE_URL: may send"},
		"few connections":       {map[string]string{"DATABASE_MAX_CONNS": "1"}, "KEYROLL_DATABASE_MAX_CONNS: is 1: give at least 4"},
		"dial map":              {map[string]string{"DIAL_MAP": "vault.azure.net=127.0.0.1:1"}, "KEYROLL_DIAL_MAP: sends Microsoft's hosts elsewhere: take it away, or set KEYROLL_ALLOW_SIMULATOR=true"},
		"bad dial map":          {map[string]string{"DIAL_MAP": "nonsense", "ALLOW_SIMULATOR": "true"}, `KEYROLL_DIAL_MAP: dial map entry "nonsense"`},
		"extra CA":              {map[string]string{"EXTRA_CA_FILE": "config.go"}, "KEYROLL_EXTRA_CA_FILE: lets others pose as Microsoft"},
		"not a CA":              {map[string]string{"EXTRA_CA_FILE": "config.go", "ALLOW_SIMULATOR": "true"}, "KEYROLL_EXTRA_CA_FILE: the extra CA file holds no certificate"},
		"heartbeat too slow":    {map[string]string{"HEARTBEAT": "12s"}, "KEYROLL_HEARTBEAT: is 12s: give at most half of KEYROLL_WORKER_STALE"},
		"stale beyond silence":  {map[string]string{"WORKER_STALE": "10s"}, "KEYROLL_WORKER_STALE: is 10s: it must be shorter than KEYROLL_WORKER_SILENCE (10s), or two processes may act"},
		"dwell of a demo":       {map[string]string{"SHAREPOINT_DWELL": "1s"}, "KEYROLL_SHAREPOINT_DWELL: is 1s: against Microsoft give at least 1m0s"},
		"no settle time":        {map[string]string{"KEY_VAULT_SETTLE": "0s"}, "KEYROLL_KEY_VAULT_SETTLE: is 0s: give a duration above zero"},
		"short Exchange":        {map[string]string{"EXCHANGE_CALL": "1m", "EXCHANGE_SETTLE": "1m"}, "KEYROLL_EXCHANGE_SETTLE: is 2m0s: against Microsoft give at least 15m0s"},
		"one read":              {map[string]string{"SHAREPOINT_READS": "1"}, "KEYROLL_SHAREPOINT_READS: is 1: one answer proves nothing"},
		"backoff upside down":   {map[string]string{"BACKOFF_BASE": "10m"}, "KEYROLL_BACKOFF_MAX: is 5m0s"},
		"not a duration":        {map[string]string{"SWEEP": "10"}, "KEYROLL_SWEEP: is not a duration: give a number with a unit"},
		"not a bool":            {map[string]string{"AUTO_MIGRATE": "yes"}, "KEYROLL_AUTO_MIGRATE: is neither true nor false"},
		"not a number":          {map[string]string{"WORKERS": "many"}, "KEYROLL_WORKERS: is not a whole number"},
		"no workers":            {map[string]string{"WORKERS": "0"}, "KEYROLL_WORKERS: is 0"},
		"not a level":           {map[string]string{"LOG_LEVEL": "loud"}, "KEYROLL_LOG_LEVEL: is not a level"},
		"not a format":          {map[string]string{"LOG_FORMAT": "xml"}, `KEYROLL_LOG_FORMAT: "xml" is neither json nor text`},
		"not an address":        {map[string]string{"LISTEN": "8080"}, `KEYROLL_LISTEN: "8080" is not host:port`},
		"public address":        {map[string]string{"PUBLIC_URL": "http://keyroll.example.com"}, "KEYROLL_PUBLIC_URL: must begin with https://"},
		"public path":           {map[string]string{"PUBLIC_URL": "https://example.com/keyroll"}, "KEYROLL_PUBLIC_URL: is not an address without path"},
		"unknown":               {map[string]string{"SHAREPOINT_POL": "1m"}, "KEYROLL_SHAREPOINT_POL: there is no such setting; did you mean KEYROLL_SHAREPOINT_POLL?"},
		"unknown, nothing near": {map[string]string{"FROBNICATION": "1"}, "KEYROLL_FROBNICATION: there is no such setting; take it away"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			set := goodSettings(t)
			maps.Copy(set, c.set)
			_, err := readConfig(withPrefix(set))
			var bad *configError
			if !errors.As(err, &bad) {
				t.Fatalf("error = %v, want %q", err, c.want)
			}
			if !strings.Contains(err.Error(), "\n  "+c.want) {
				t.Errorf("error = %v\nwant %q", err, c.want)
			}
			if strings.Contains(err.Error(), canary) {
				t.Errorf("the error shows the password: %v", err)
			}
		})
	}
}

// Whoever sets up a server learns of all mistakes at once.
func TestConfigTellsAllAtOnce(t *testing.T) {
	t.Parallel()
	code, _, stderr := shell(t.Context(), []string{"KEYROLL_HEARTBEAT=soon", "KEYROLL_SHAREPOINT_READS=1", "KEYROLL_LISTN=:1", "KEYROLL_DIAL_MAP=a.b=c:1",
		"KEYROLL_TEST_DATABASE_URL=ignored", "KEYROLL_LOG_FORMAT="}, "serve")
	if code != exitFailed {
		t.Errorf("exit code %d", code)
	}
	for _, name := range []string{"DATABASE_URL", "CREDENTIALS_FILE", "HEARTBEAT", "SHAREPOINT_READS", "LISTN", "DIAL_MAP"} {
		if n := strings.Count(stderr, "\n  KEYROLL_"+name+":"); n != 1 {
			t.Errorf("%s is named %d times in:\n%s", name, n, stderr)
		}
	}
	if !strings.Contains(stderr, "server: 6 settings are missing or unsafe:") {
		t.Errorf("stderr = %s", stderr)
	}
}

func TestSimulatorsAllowWhatIsUnsafe(t *testing.T) {
	t.Parallel()
	set := goodSettings(t)
	maps.Copy(set, quickSettings)
	maps.Copy(set, map[string]string{"ALLOW_SIMULATOR": "true", "DATABASE_URL": "postgres://u@postgres/k?sslmode=disable", "PUBLIC_URL": "http://keyroll.test",
		"DIAL_MAP": "vault.azure.net=127.0.0.1:1"})
	if _, err := readConfig(withPrefix(set)); err != nil {
		t.Error(err)
	}
}

func TestSecretsDoNotPrint(t *testing.T) {
	t.Parallel()
	c, err := readConfig(withPrefix(goodSettings(t)))
	must(t, err)
	if !strings.Contains(c.DatabaseURL.Reveal(), canary) {
		t.Fatal("the secret is lost")
	}
	var log strings.Builder
	slog.New(slog.NewJSONHandler(&log, nil)).Info("config", "all", c, "url", c.DatabaseURL)
	slog.New(slog.NewTextHandler(&log, nil)).Info("config", "all", c, "url", &c.DatabaseURL)
	must(t, printJSON(&log, c.DatabaseURL))
	hidden := struct{ c Config }{c}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		log.WriteString(fmt.Sprintf(verb+verb+verb, c, c.DatabaseURL, hidden))
	}
	if strings.Contains(log.String(), canary) || strings.Contains(log.String(), fmt.Sprintf("%x", canary)) {
		t.Errorf("the password is shown: %s", log.String())
	}
}
