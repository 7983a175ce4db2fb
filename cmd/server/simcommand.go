package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/keyroll/keyroll/internal/sim"
)

func simCommand() command {
	return command{
		name:  "sim",
		short: "run only the simulators of Microsoft's services",
		long: `Sim runs Entra, Key Vault, Exchange Online and SharePoint Online as simulators until it is stopped,
for people who write clients. All hosts answer on one TLS address, told apart by name. The control
API shows what was done (GET /witness) and injects faults (POST /faults). The directory of --out
gets what a client needs: ca.pem, app.pem, credentials.json, and keyroll.env for "server serve".
The world begins anew at each start; a certificate in app.pem is kept. A scenario is a world with what
goes wrong in it; docs/simulator.md is the manual of both files.`,
		examples: []string{
			"server sim --out ./sim",
			"server sim --scenario lost-answers --out ./sim",
			"server sim --check ./my-scenario.json",
			"server sim --listen 0.0.0.0:8443 --control 127.0.0.1:8081 --seed tenants.json --out ./sim",
		},
		setup: func(p *program, flags *flag.FlagSet) func(context.Context, []string) error {
			var o sim.Options
			flags.StringVar(&o.Addr, "listen", "127.0.0.1:8443", "`ADDRESS` of all simulated hosts (TLS)")
			flags.StringVar(&o.ControlAddr, "control", "127.0.0.1:8081", "`ADDRESS` of the control API, which asks for no token")
			seed := flags.String("seed", "", "`FILE` with the world at its beginning (default: tenant Contoso)")
			scenario := flags.String("scenario", "", "`NAME` of a scenario that comes with it, or a file")
			list := flags.Bool("list-scenarios", false, "list the scenarios that come with it, and end")
			check := flags.String("check", "", "read the scenario or seed in `FILE`, say what is wrong with it, and end")
			out := flags.String("out", "keyroll-sim", "`DIR` for the files that clients need")
			return func(ctx context.Context, _ []string) error {
				switch {
				case *list:
					return p.listScenarios()
				case *check != "":
					return p.checkFile(*check)
				case *seed != "" && *scenario != "":
					return misused("--seed and --scenario both name a world: use one of them")
				}
				var err error
				if o.Seed, o.Scenario, err = readWorld(*seed, *scenario); err != nil {
					return err
				}
				return p.simulate(ctx, o, *out)
			}
		},
	}
}

// readWorld reads the files that the flags name: a seed, a scenario or neither.
func readWorld(seed, scenario string) (sim.Seed, *sim.Scenario, error) {
	switch {
	case scenario != "":
		s, err := readScenario(scenario)
		return s.Seed(), &s, err
	case seed != "":
		text, err := os.ReadFile(seed)
		if err != nil {
			return sim.Seed{}, nil, fmt.Errorf("reading --seed: %w", err)
		}
		s, err := sim.ParseSeed(seed, text)
		return s, nil, err
	}
	return sim.ContosoSeed(), nil, nil
}

// readScenario reads one by its name, or from a file.
func readScenario(name string) (sim.Scenario, error) {
	if s, ok := sim.ScenarioNamed(name); ok {
		return s, nil
	}
	text, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		var names []string
		for _, s := range sim.Scenarios() {
			names = append(names, s.Name)
		}
		return sim.Scenario{}, fmt.Errorf("--scenario %s: no such scenario or file; there are %s", name, strings.Join(names, ", "))
	}
	if err != nil {
		return sim.Scenario{}, fmt.Errorf("reading --scenario: %w", err)
	}
	return sim.ReadScenario(name, text)
}

func (p *program) listScenarios() error {
	for _, s := range sim.Scenarios() {
		fmt.Fprintf(p.stdout, "%s\n%s", s.Name, wrap(s.Description, "    ", 96))
		fmt.Fprint(p.stdout, wrap("Expect: "+s.Expect, "    ", 96))
	}
	return nil
}

// checkFile reads a scenario, or a seed where the document has tenants of its
// own at the top.
func (p *program) checkFile(path string) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("reading --check: %w", err)
	}
	var top struct {
		Tenants json.RawMessage `json:"tenants"`
	}
	if json.Unmarshal(text, &top) == nil && top.Tenants != nil {
		if _, err := sim.ParseSeed(path, text); err != nil {
			return err
		}
		fmt.Fprintf(p.stdout, "%s is a seed\n", path)
		return nil
	}
	s, err := sim.ReadScenario(path, text)
	if err != nil {
		return err
	}
	fmt.Fprintf(p.stdout, "%s is scenario %s: %d faults, %d acts\n", path, s.Name, len(s.Faults), len(s.Acts))
	return nil
}

func (p *program) simulate(ctx context.Context, o sim.Options, dir string) error {
	s, err := startSimulators(context.WithoutCancel(ctx), o, dir)
	if err != nil {
		return err
	}
	fmt.Fprintf(p.stdout, "Microsoft's hosts   https on %s (dial it for the names below)\n", reachable(s.Addr))
	fmt.Fprintf(p.stdout, "control API         %s (witness log: /witness, world: /state)\n", s.controlURL())
	for _, t := range o.Seed.Tenants {
		fmt.Fprintf(p.stdout, "tenant              %s %s, credential %q\n", t.ID, t.Name, credentialName(t.Name))
	}
	if o.Scenario != nil {
		fmt.Fprintf(p.stdout, "scenario            %s\n%s", o.Scenario.Name, wrap(o.Scenario.Description, "                    ", 110))
		fmt.Fprint(p.stdout, wrap("Expect: "+o.Scenario.Expect, "                    ", 110))
	}
	fmt.Fprintf(p.stdout, "files               %s, %s, %s\n", s.file(fileCA), s.file(fileApp), s.file(fileCredentials))
	fmt.Fprintf(p.stdout, "to serve with them  set -a; . %s; set +a; server serve\n", shellQuote(s.file(fileEnv)))
	fmt.Fprintln(p.stdout, "Nothing here reaches Microsoft. Ctrl-C ends it.")
	<-ctx.Done()
	return s.Close()
}
