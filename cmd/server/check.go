package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"strings"
	"time"

	"github.com/keyroll/keyroll/internal/roll"
	"github.com/keyroll/keyroll/internal/store"
)

// checkLine is one thing that was looked at.
type checkLine struct {
	// Tenant is its id; "" for what belongs to the installation.
	Tenant string `json:"tenant,omitempty"`
	// Subject is what it is about, such as "key:exo-a".
	Subject string `json:"subject"`
	Status  string `json:"status"`
	// Code is the finding's, where it is one.
	Code   string `json:"code,omitempty"`
	Seen   string `json:"seen"`
	Remedy string `json:"remedy,omitempty"`
}

// The statuses: a finding's levels, and what is in order.
const (
	checkOK      = "ok"
	checkError   = string(roll.LevelError)
	checkWarning = string(roll.LevelWarning)
)

func checkCommand() command {
	return command{
		name:  "check",
		short: "look at configuration, database and every declared tenant",
		long: `Check reads the configuration, the database, and for every declared tenant what Keyroll would read
before a roll of everything: tokens for each service, keys, policies, SharePoint's status, and the vaults
at Azure Resource Manager. It shows each with its status and, where something is wrong, what to do.
It changes nothing, neither at Microsoft nor in the database, and exits 1 where there is an error.`,
		examples: []string{"server check", "server check --tenant Contoso --json"},
		setup: func(p *program, flags *flag.FlagSet) func(context.Context, []string) error {
			tenant := flags.String("tenant", "", "only the tenant with this `ID` or name")
			asJSON := flags.Bool("json", false, "print a JSON object instead of a table")
			return func(ctx context.Context, _ []string) error {
				c := &checking{p: p, only: *tenant}
				err := c.run(ctx)
				if err != nil {
					return err
				}
				return c.show(*asJSON)
			}
		},
	}
}

// checking collects the lines of one run.
type checking struct {
	p    *program
	only string
	// doing is what the progress line shows.
	doing func(what string)
	lines []checkLine
}

func (c *checking) add(l checkLine) { c.lines = append(c.lines, l) }

func (c *checking) ok(tenant, subject, format string, args ...any) {
	c.add(checkLine{Tenant: tenant, Subject: subject, Status: checkOK, Seen: fmt.Sprintf(format, args...)})
}

func (c *checking) bad(tenant, subject, code string, err error, remedy string) {
	c.add(checkLine{Tenant: tenant, Subject: subject, Status: checkError, Code: code, Seen: strings.ReplaceAll(err.Error(), "\n", " "), Remedy: remedy})
}

// run looks at everything. What is wrong becomes a line; an error is only what
// made the looking itself impossible.
func (c *checking) run(ctx context.Context) error {
	what := make(chan string, 1)
	c.doing = func(s string) {
		select {
		case <-what:
		default:
		}
		what <- s
	}
	now := "reading the configuration"
	stop := progress(c.p.stderr, 500*time.Millisecond, func(elapsed time.Duration) string {
		select {
		case now = <-what:
		default:
		}
		return fmt.Sprintf("%s, %s", now, elapsed.Round(time.Second))
	})
	defer stop()
	cfg, err := readConfig(c.p.env)
	if err != nil {
		c.badConfig(err)
		return nil
	}
	c.ok("", "configuration", "every setting can be used")
	s := &service{cfg: cfg}
	if err := s.connect(); err != nil {
		c.bad("", "credentials", "credentials_unreadable", err, "correct the file that KEYROLL_CREDENTIALS_FILE names, and the settings around it")
		return nil
	}
	defer s.hc.CloseIdleConnections()
	c.ok("", "credentials", "the credentials file holds %s", strings.Join(s.creds.Names(), ", "))
	c.doing("reading the database")
	tenants, err := c.tenants(ctx, cfg)
	if err != nil {
		c.bad("", "database", "database_unusable", err, "do what it says; server migrate brings the schema up to date")
		return nil
	}
	c.ok("", "database", "the schema is the newest; %d tenant(s) are declared", len(tenants))
	return c.each(ctx, s, tenants)
}

func (c *checking) badConfig(err error) {
	const remedy = "docs/configuration.md says what each setting means"
	var all *configError
	if !errors.As(err, &all) {
		c.bad("", "configuration", "setting_invalid", err, remedy)
		return
	}
	for _, p := range all.problems {
		c.bad("", "configuration", "setting_invalid", errors.New(p), remedy)
	}
}

// tenants reads the declarations through a pool that may write nothing.
func (c *checking) tenants(ctx context.Context, cfg Config) ([]store.Tenant, error) {
	pool, err := openPoolWith(ctx, cfg.DatabaseURL, store.Options{Role: cfg.DatabaseRole, MaxConns: 2, Configure: readOnly})
	if err != nil {
		return nil, err
	}
	defer pool.Close()
	st := store.New(pool, nil)
	var out []store.Tenant
	var last store.Tenant
	for {
		page, err := st.TenantPage(ctx, store.TenantFilter{AfterTime: last.DeclaredAt, AfterID: last.Inventory.TenantID, Limit: 100})
		if err != nil {
			return nil, err
		}
		out = append(out, page...)
		if len(page) < 100 {
			return out, nil
		}
		last = page[len(page)-1]
	}
}

func (c *checking) each(ctx context.Context, s *service, tenants []store.Tenant) error {
	found := false
	for _, t := range tenants {
		inv := t.Inventory
		if c.only != "" && !strings.EqualFold(c.only, inv.TenantID) && !strings.EqualFold(c.only, inv.Name) {
			continue
		}
		found = true
		c.doing("reading tenant " + inv.Name)
		if err := c.tenant(ctx, s, inv); err != nil {
			return err
		}
	}
	if c.only != "" && !found {
		return misused("no declared tenant has the id or name %q", c.only)
	}
	return nil
}

// show prints the lines, and fails where one is an error.
func (c *checking) show(asJSON bool) error {
	count := map[string]int{}
	for _, l := range c.lines {
		count[l.Status]++
	}
	if asJSON {
		if err := printJSON(c.p.stdout, struct {
			OK     bool           `json:"ok"`
			Counts map[string]int `json:"counts"`
			Lines  []checkLine    `json:"lines"`
		}{count[checkError] == 0, count, c.lines}); err != nil {
			return err
		}
	} else {
		c.table(count)
	}
	if count[checkError] > 0 {
		return errTold
	}
	return nil
}

const checkWidth = 110

func (c *checking) table(count map[string]int) {
	w := c.p.stdout
	tenant := ""
	for _, l := range c.lines {
		if l.Tenant != tenant {
			tenant = l.Tenant
			fmt.Fprintf(w, "\nTenant %s\n", tenant)
		}
		what := l.Seen
		if l.Code != "" {
			what = l.Code + ": " + what
		}
		status := strings.ReplaceAll(l.Status, "_", " ")
		lines := strings.TrimLeft(wrap(what, strings.Repeat(" ", 13), checkWidth), " ")
		fmt.Fprintf(w, "%-11s  %s\n             %s", status, l.Subject, lines)
		if l.Remedy != "" {
			fmt.Fprint(w, wrap("→ "+l.Remedy, strings.Repeat(" ", 13), checkWidth))
		}
	}
	fmt.Fprintf(w, "\n%d ok, %d errors, %d warnings, %d not checked. Nothing was changed.\n",
		count[checkOK], count[checkError], count[checkWarning], count[string(roll.LevelNotChecked)])
}
