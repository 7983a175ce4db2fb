package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"
)

func healthcheckCommand() command {
	return command{
		name:  "healthcheck",
		short: "ask a running server whether it is ready, for containers",
		long: `Healthcheck asks a running server whether it can serve requests, and exits 0 or 1. It is meant for
containers without a shell. Without --url it asks /readyz on the port of KEYROLL_LISTEN on this machine.`,
		examples: []string{"server healthcheck", "server healthcheck --url http://127.0.0.1:8081/healthz"},
		setup: func(p *program, flags *flag.FlagSet) func(context.Context, []string) error {
			address := flags.String("url", "", "`URL` to ask (default http://127.0.0.1:8080/readyz, with the port of KEYROLL_LISTEN)")
			timeout := flags.Duration("timeout", 3*time.Second, "how long the answer may take")
			return func(ctx context.Context, _ []string) error {
				if *address == "" {
					*address = "http://" + ownAddress(p.env[envPrefix+"LISTEN"]) + "/readyz"
				}
				u, err := url.Parse(*address)
				if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
					return misused("--url %q is not an address such as http://127.0.0.1:8080/readyz", *address)
				}
				ctx, cancel := context.WithTimeout(ctx, *timeout)
				defer cancel()
				return p.healthcheck(ctx, *address)
			}
		},
	}
}

// ownAddress is where a server with this KEYROLL_LISTEN is reached from its own machine.
func ownAddress(listen string) string {
	if _, _, err := net.SplitHostPort(listen); err != nil {
		return "127.0.0.1:8080"
	}
	return reachable(listen)
}

func (p *program) healthcheck(ctx context.Context, address string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return err
	}
	// No proxy: the server asked is on this machine, or named by whoever asks.
	hc := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := hc.Do(req)
	if err != nil {
		var timeout net.Error
		if errors.As(err, &timeout) && timeout.Timeout() {
			return fmt.Errorf("%s does not answer in time", address)
		}
		return fmt.Errorf("%s does not answer: %w", address, errors.Unwrap(err))
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, 64<<10))
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answers %s", address, resp.Status)
	}
	fmt.Fprintln(p.stdout, "ok")
	return nil
}
