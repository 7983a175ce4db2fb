package main

import (
	"context"
	"flag"
	"fmt"
	"os"

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
The world begins anew at each start; a certificate in app.pem is kept.`,
		examples: []string{
			"server sim --out ./sim",
			"server sim --listen 0.0.0.0:8443 --control 127.0.0.1:8081 --seed tenants.json --out ./sim",
		},
		setup: func(p *program, flags *flag.FlagSet) func(context.Context, []string) error {
			var o sim.Options
			flags.StringVar(&o.Addr, "listen", "127.0.0.1:8443", "`ADDRESS` of all simulated hosts (TLS)")
			flags.StringVar(&o.ControlAddr, "control", "127.0.0.1:8081", "`ADDRESS` of the control API, which asks for no token")
			seed := flags.String("seed", "", "`FILE` with the world at its beginning (default: tenant Contoso)")
			out := flags.String("out", "keyroll-sim", "`DIR` for the files that clients need")
			return func(ctx context.Context, _ []string) error {
				var err error
				if o.Seed, err = readSeed(*seed); err != nil {
					return err
				}
				return p.simulate(ctx, o, *out)
			}
		},
	}
}

func readSeed(path string) (sim.Seed, error) {
	if path == "" {
		return sim.ContosoSeed(), nil
	}
	f, err := os.Open(path)
	if err != nil {
		return sim.Seed{}, fmt.Errorf("reading --seed: %w", err)
	}
	defer f.Close()
	s, err := sim.ReadSeed(f)
	if err != nil {
		return sim.Seed{}, fmt.Errorf("reading --seed %s: %w", path, err)
	}
	return s, nil
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
	fmt.Fprintf(p.stdout, "files               %s, %s, %s\n", s.file(fileCA), s.file(fileApp), s.file(fileCredentials))
	fmt.Fprintf(p.stdout, "to serve with them  set -a; . %s; set +a; server serve\n", shellQuote(s.file(fileEnv)))
	fmt.Fprintln(p.stdout, "Nothing here reaches Microsoft. Ctrl-C ends it.")
	<-ctx.Done()
	return s.Close()
}
