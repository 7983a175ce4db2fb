package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
)

func devCommand() command {
	return command{
		name:  "dev",
		short: "the demo's surroundings, kept and served until Ctrl-C",
		long: `Dev starts what the demo starts and serves until Ctrl-C. The database, the tokens and the
application certificate are kept under --dir, also over kill -9; take the directory away to begin
anew. The simulators' world is not kept: it begins from its seed at each start, so key versions
that earlier rolls made are missing in it, and the ledger says so. Tenant Contoso is declared at
the first start. Log lines go to stderr.`,
		examples: []string{"server dev", "server dev --listen 127.0.0.1:9000"},
		setup: func(p *program, flags *flag.FlagSet) func(context.Context, []string) error {
			dir := flags.String("dir", ".dev", "`DIR` that keeps the data")
			listen := flags.String("listen", "", "`ADDRESS` of the service (default 127.0.0.1:8080, or a free port where that one is taken)")
			return func(ctx context.Context, _ []string) error { return p.dev(ctx, *dir, *listen) }
		},
	}
}

func (p *program) dev(ctx context.Context, dir, listen string) (err error) {
	if listen == "" {
		listen = freeOr("127.0.0.1:8080")
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	if dir, err = filepath.Abs(dir); err != nil {
		return err
	}
	width, _, redraw := p.canRedraw(p.stdout)
	if !redraw {
		width = 100
	}
	t := &teller{w: p.stdout, redraw: redraw, width: min(width, 110)}
	around, err := build(ctx, t, wants{dir: dir, listen: listen, seed: contosoSeed(), log: slog.New(slog.NewTextHandler(p.stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, around.end(ctx)) }()
	secrets, err := keptTokens(ctx, around, filepath.Join(dir, "tokens.json"))
	if err != nil {
		return err
	}
	if err := t.do("declaring tenant Contoso", func(func(string)) (string, error) {
		done, err := declareContoso(ctx, newClient(around.service.url, secrets["ada@contoso.com"]))
		var refused *apiError
		if errors.As(err, &refused) && (refused.problem.Status == 409 || refused.problem.Status == 412) {
			return "Tenant Contoso is declared already", nil
		}
		return done, err
	}); err != nil {
		return err
	}
	fmt.Fprintln(p.stdout)
	invitation{w: p.stdout, url: around.service.url, control: around.sims.ControlURL, secrets: secrets}.print("")
	fmt.Fprintf(p.stdout, "\nThe data is kept in %s; the simulators' world begins anew at each start.\nServing. Ctrl-C ends it.\n", dir)
	select {
	case <-ctx.Done():
		fmt.Fprintln(p.stdout, "\nstopping")
		return nil
	case err := <-around.service.failed:
		return err
	}
}

// keptTokens reads the tokens of an earlier start where they still open this
// database, or makes new ones and keeps them.
func keptTokens(ctx context.Context, s *surroundings, path string) (map[string]string, error) {
	raw, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if err == nil {
		var secrets map[string]string
		if err := json.Unmarshal(raw, &secrets); err != nil {
			return nil, fmt.Errorf("reading %s: %w; take the file away, and new tokens are made", path, err)
		}
		good, err := opens(ctx, s, secrets)
		if err != nil || good {
			return secrets, err
		}
	}
	secrets, err := makeTokens(ctx, s)
	if err != nil {
		return nil, err
	}
	raw, err = json.MarshalIndent(secrets, "", "  ")
	if err != nil {
		return nil, err
	}
	return secrets, writeFile(path, append(raw, '\n'), 0o600)
}

// opens says whether the database knows the tokens of all the people.
func opens(ctx context.Context, s *surroundings, secrets map[string]string) (bool, error) {
	for _, w := range people() {
		var list json.RawMessage
		_, err := newClient(s.service.url, secrets[w.subject]).call(ctx, "GET", "/v1/rolls?limit=1", nil, &list)
		var refused *apiError
		if errors.As(err, &refused) && refused.problem.Status == 401 {
			return false, nil
		}
		if err != nil {
			return false, err
		}
	}
	return true, nil
}
