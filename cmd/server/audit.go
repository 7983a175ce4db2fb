package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"sync/atomic"
	"time"

	"github.com/keyroll/keyroll/internal/audit"
)

func auditCommand() command {
	return command{name: "audit", short: "verify the audit log",
		long: "Each change of a roll, tenant, token or lease has an entry in the audit log.", group: []command{auditVerifyCommand()}}
}

func auditVerifyCommand() command {
	return command{
		name:  "verify",
		short: "hold every audit entry against what it tells of",
		long: `Verify reads the whole audit log in one snapshot and holds it against the rolls, tenants, tokens
and leases that it tells of: no entry may be missing, extra or altered, and each must go on from
the one before. It names each problem, and exits 1 where there is one. It changes nothing.`,
		examples: []string{"server audit verify", "server audit verify --json"},
		setup: func(p *program, flags *flag.FlagSet) func(context.Context, []string) error {
			var db databaseFlags
			db.declare(flags)
			asJSON := flags.Bool("json", false, "print a JSON object instead of text")
			return func(ctx context.Context, _ []string) error {
				report, err := p.verifyAudit(ctx, &db)
				if err != nil {
					return err
				}
				return p.showAudit(report, *asJSON)
			}
		},
	}
}

func (p *program) verifyAudit(ctx context.Context, db *databaseFlags) (audit.Report, error) {
	st, done, err := db.open(ctx, p)
	if err != nil {
		return audit.Report{}, err
	}
	defer done()
	var read atomic.Int64
	stop := progress(p.stderr, time.Second, func(elapsed time.Duration) string {
		return fmt.Sprintf("verifying: %d entries read, %s", read.Load(), elapsed.Round(time.Second))
	})
	defer stop()
	return st.VerifyAudit(ctx, func(n int) { read.Store(int64(n)) })
}

func (p *program) showAudit(report audit.Report, asJSON bool) error {
	if asJSON {
		if report.Problems == nil {
			report.Problems = []audit.Problem{}
		}
		if err := printJSON(p.stdout, struct {
			OK bool `json:"ok"`
			audit.Report
		}{report.OK(), report}); err != nil {
			return err
		}
	} else {
		for _, problem := range report.Problems {
			fmt.Fprintln(p.stdout, problem)
		}
		fmt.Fprintln(p.stdout, auditLine(report))
	}
	if !report.OK() {
		return errTold
	}
	return nil
}

func auditLine(r audit.Report) string {
	if r.OK() {
		return fmt.Sprintf("the audit log is whole: %d entries of %d subjects, none missing, extra or altered", r.Entries, r.Subjects)
	}
	return fmt.Sprintf("the audit log is NOT whole: %d problem(s) in %d entries of %d subjects", len(r.Problems), r.Entries, r.Subjects)
}

// progress redraws a line on a terminal, first after a while and then each
// time that has passed, until the returned function is called. Elsewhere it is silent.
func progress(w io.Writer, every time.Duration, line func(elapsed time.Duration) string) (stop func()) {
	if !isTerminal(w) {
		return func() {}
	}
	begun, quit, ended := time.Now(), make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		tick := time.NewTicker(every)
		defer tick.Stop()
		drawn := false
		for {
			select {
			case <-tick.C:
				fmt.Fprint(w, "\r\x1b[K"+line(time.Since(begun)))
				drawn = true
			case <-quit:
				if drawn {
					fmt.Fprint(w, "\r\x1b[K")
				}
				return
			}
		}
	}()
	return func() { close(quit); <-ended }
}
