package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/keyroll/keyroll/internal/access"
	"github.com/keyroll/keyroll/internal/api"
	"github.com/keyroll/keyroll/internal/audit"
)

func demoCommand() command {
	return command{
		name:  "demo",
		short: "see a whole roll, with nothing to set up",
		long: `Demo starts PostgreSQL, simulators of Microsoft's services and the real service on free loopback
ports, declares tenant Contoso, and rolls both root keys of all three workloads: one person
requests, another approves. It shows the steps as they go, then the key versions, the evidence,
the audit log and its verification, and exits 0 only if all of it holds. Nothing reaches Microsoft,
and nothing stays behind. With --database-url it makes a database of its own on that server and
drops it in the end (the role keyroll_app stays there); KEYROLL_DATABASE_URL is not looked at.`,
		examples: []string{"server demo", "server demo --keep", "server demo --json 2>/dev/null | tail -n 1"},
		setup: func(p *program, flags *flag.FlagSet) func(context.Context, []string) error {
			d := &demo{p: p, began: time.Now()}
			flags.BoolVar(&d.keep, "keep", false, "serve on after the roll, and print addresses, tokens and curl lines to try")
			flags.BoolVar(&d.json, "json", false, "print one JSON object as the last line of stdout; all else goes to stderr")
			flags.StringVar(&d.databaseURL, "database-url", "", "`URL` of a PostgreSQL server to use instead of starting one")
			return func(ctx context.Context, _ []string) error { return d.run(ctx) }
		},
	}
}

// demo is one run of the demo. It acts as clients do, over HTTP; only the
// tokens and the verification of the log go to the database, as the commands
// "token create" and "audit verify" do.
type demo struct {
	p           *program
	keep, json  bool
	databaseURL string

	began         time.Time
	out           io.Writer
	width, height int
	redraw        bool
	tell          *teller
	around        *surroundings
	rita, arno    *client
	ada           *client
	secrets       map[string]string // by subject
}

func (d *demo) run(ctx context.Context) error {
	d.out = d.p.stdout
	if d.json {
		d.out = d.p.stderr
	}
	d.width, d.height, d.redraw = d.p.canRedraw(d.out)
	if !d.redraw {
		d.width = 100
	}
	d.width = min(d.width, 110)
	d.tell = &teller{w: d.out, redraw: d.redraw, width: d.width}
	logs := &tail{}
	fmt.Fprint(d.out, wrap("Keyroll demo: tenant Contoso rolls its six root keys. Microsoft is simulated.", "", d.width))

	err := d.inside(ctx, slog.New(slog.NewTextHandler(logs, nil)))
	switch {
	case errors.Is(err, context.Canceled) && ctx.Err() != nil:
		return errors.New("interrupted; what was started has ended")
	case err != nil && !errors.Is(err, errTold):
		logs.show(d.p.stderr)
	}
	return err
}

// inside runs the demo in its surroundings and takes them down.
func (d *demo) inside(ctx context.Context, log *slog.Logger) (err error) {
	d.around, err = build(ctx, d.tell, wants{databaseURL: d.databaseURL, listen: "127.0.0.1:0", seed: contosoSeed(), log: log})
	if err != nil {
		return err
	}
	defer func() {
		// What could not be taken down matters more than why it had to be.
		if end := d.around.end(ctx); end != nil {
			err = fmt.Errorf("taking everything down: %w", end)
		}
	}()
	if err := d.makePeople(ctx); err != nil {
		return err
	}
	made, err := d.request(ctx)
	if err != nil {
		return err
	}
	ended, err := d.follow(ctx, made.ID)
	if err != nil {
		return err
	}
	found, err := d.judge(ctx, ended)
	if err != nil {
		return err
	}
	if d.json {
		line, err := json.Marshal(found)
		if err != nil {
			return err
		}
		fmt.Fprintf(d.p.stdout, "%s\n", line)
	}
	if d.keep {
		d.invite(ended)
		<-ctx.Done()
		fmt.Fprintln(d.out, "\nstopping")
	}
	if len(found.wrong()) > 0 {
		return errTold
	}
	return nil
}

func roles(names ...string) []access.Role {
	var out []access.Role
	for _, n := range names {
		out = append(out, access.Role(n))
	}
	return out
}

func (d *demo) makePeople(ctx context.Context) error {
	var err error
	d.secrets, err = makeTokens(ctx, d.around)
	if err != nil {
		return err
	}
	as := func(subject string) *client { return newClient(d.around.service.url, d.secrets[subject]) }
	d.rita, d.arno, d.ada = as("rita@contoso.com"), as("arno@contoso.com"), as("ada@contoso.com")
	return nil
}

// makeTokens makes the tokens of the demo's people, as "token create" does.
func makeTokens(ctx context.Context, s *surroundings) (map[string]string, error) {
	secrets := map[string]string{}
	for _, w := range people() {
		_, secret, err := makeToken(ctx, s.service.store, w, operator())
		if err != nil {
			return nil, err
		}
		secrets[w.subject] = secret
	}
	return secrets, nil
}

// follow shows the roll until it ends, or until a human must act.
func (d *demo) follow(ctx context.Context, id string) (api.Roll, error) {
	fmt.Fprintln(d.out)
	v := newView(d.out, d.width, d.height, d.redraw)
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		var r api.Roll
		if _, err := d.rita.call(ctx, "GET", "/v1/rolls/"+id, nil, &r); err != nil {
			return r, err
		}
		v.show(r)
		if !r.EndedAt.IsZero() {
			return r, nil
		}
		if r.State == api.RollStateNeedsAttention {
			return r, fmt.Errorf("the roll needs attention: %s; %s", r.Attention.Detail, r.NextAction)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return r, ctx.Err()
		}
	}
}

// judge verifies the log, asks the simulators, and shows everything.
func (d *demo) judge(ctx context.Context, r api.Roll) (summary, error) {
	var events api.RollEventList
	if _, err := d.ada.call(ctx, "GET", "/v1/rolls/"+r.ID+"/events?limit=100", nil, &events); err != nil {
		return summary{}, err
	}
	seen, err := witnessed(ctx, d.around.sims.ControlURL)
	if err != nil {
		return summary{}, err
	}
	var log audit.Report
	if log, err = d.around.service.store.VerifyAudit(ctx, nil); err != nil {
		return summary{}, err
	}
	found := summarise(r, seen, log)
	found.Seconds = float64(time.Since(d.began).Milliseconds()) / 1000
	o := report{w: d.out, width: d.width}
	o.keys(found)
	o.evidence(r)
	o.auditTail(events.Items)
	o.verdict(found, log)
	return found, nil
}

// invite prints what can be tried now.
func (d *demo) invite(r api.Roll) {
	fmt.Fprintln(d.out)
	invitation{w: d.out, url: d.around.service.url, control: d.around.sims.ControlURL, secrets: d.secrets}.print(r.ID)
	fmt.Fprintln(d.out, "\nServing on. Ctrl-C ends everything.")
}
