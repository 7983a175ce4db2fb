package main

import (
	"context"
	_ "embed"
	"errors"
	"flag"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"
)

// settingsText lists the settings for --help; a test writes it from Config.
//
//go:embed settings.txt
var settingsText string

func serveCommand() command {
	return command{
		name:  "serve",
		short: "run the service",
		long: `Serve runs the service in production. It is configured by the environment, refuses to start
on missing or unsafe settings, and names each of them. It ends in order on SIGTERM or
SIGINT, and at once on a second one. SIGHUP makes it read the credentials file again.

` + settingsText,
		examples: []string{
			`KEYROLL_DATABASE_URL='postgres://keyroll@db/keyroll?sslmode=verify-full' \`,
			"  KEYROLL_CREDENTIALS_FILE=/etc/keyroll/credentials.json server serve",
		},
		setup: func(p *program, _ *flag.FlagSet) func(context.Context, []string) error {
			return func(ctx context.Context, _ []string) error { return p.serve(ctx) }
		},
	}
}

func (p *program) serve(ctx context.Context) error {
	cfg, err := readConfig(p.env)
	if err != nil {
		return err
	}
	log := newLog(p.stderr, cfg)
	// From here on, or a SIGHUP that comes early would end the process.
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	defer signal.Stop(hup)
	s, err := startService(ctx, cfg, log)
	if err != nil {
		return err
	}
	for {
		select {
		case <-hup:
			s.reload()
		case err := <-s.failed:
			return errors.Join(err, s.stop(context.WithoutCancel(ctx)))
		case <-ctx.Done():
			return s.stop(context.WithoutCancel(ctx))
		}
	}
}

func newLog(w io.Writer, cfg Config) *slog.Logger {
	o := &slog.HandlerOptions{Level: cfg.LogLevel}
	if cfg.LogFormat == "text" {
		return slog.New(slog.NewTextHandler(w, o))
	}
	return slog.New(slog.NewJSONHandler(w, o))
}

// version is the module's version, or the revision that the program was built from.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	if v := info.Main.Version; v != "" && v != "(devel)" {
		return v
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" && len(s.Value) >= 12 {
			return s.Value[:12]
		}
	}
	return "development build"
}
