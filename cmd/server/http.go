package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"net"
	"net/http"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/keyroll/keyroll/internal/api"
	"github.com/keyroll/keyroll/internal/jobs"
	"github.com/keyroll/keyroll/internal/web"
)

// buildHTTP makes the server of the API, the metrics and the page.
func (s *service) buildHTTP(handlers api.StrictServerInterface) error {
	routes, err := api.New(api.Config{Handlers: handlers, Authenticator: api.NewAuthenticator(s.store), Metrics: s.metricsHandler(), Log: s.log})
	if err != nil {
		return err
	}
	page, err := web.Page(web.Info{Version: version(), URL: strings.TrimSuffix(s.cfg.PublicURL, "/"), Simulated: s.cfg.AllowSimulator})
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.Handle("GET /{$}", page)
	mux.Handle("/", routes)
	s.http = &http.Server{Handler: mux, ErrorLog: log.New(httpErrors{s.log}, "", 0)}
	api.Harden(s.http)
	return nil
}

// httpErrors turns net/http's complaints, mostly about clients, into log lines.
type httpErrors struct{ log *slog.Logger }

func (w httpErrors) Write(b []byte) (int, error) {
	w.log.Debug("http connection", "detail", strings.TrimSpace(string(b)))
	return len(b), nil
}

func (s *service) startHTTP(ctx context.Context) error {
	var lc net.ListenConfig
	var err error
	if s.listener, err = lc.Listen(ctx, "tcp", s.cfg.Listen); err != nil {
		return fmt.Errorf("listening on %s (%sLISTEN): %w", s.cfg.Listen, envPrefix, err)
	}
	s.url = "http://" + reachable(s.listener.Addr().String())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if err := s.http.Serve(s.listener); !errors.Is(err, http.ErrServerClosed) {
			s.failed <- fmt.Errorf("serving HTTP: %w", err)
		}
	}()
	s.later(func(ctx context.Context) error {
		err := s.http.Shutdown(ctx)
		if err != nil {
			s.log.Warn("requests under way are cut off", "err", err)
			err = s.http.Close()
		}
		<-ended
		return err
	})
	return nil
}

// reachable is the address by which this machine reaches a listener that
// listens on all of its addresses.
func reachable(addr string) string {
	host, port, err := net.SplitHostPort(addr)
	if ip := net.ParseIP(host); err == nil && (host == "" || ip != nil && ip.IsUnspecified()) {
		return net.JoinHostPort("127.0.0.1", port)
	}
	return addr
}

// metricsHandler answers in Prometheus' text format and no other, which is
// what the contract says.
func (s *service) metricsHandler() http.Handler {
	build := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "keyroll_build_info", Help: "1, with the version of this process."}, []string{"version"})
	build.WithLabelValues(version()).Set(1)
	simulated := prometheus.NewGauge(prometheus.GaugeOpts{Name: "keyroll_simulated", Help: "1 where Microsoft is played by simulators, else 0."})
	if s.cfg.AllowSimulator {
		simulated.Set(1)
	}
	s.registry.MustRegister(build, simulated, jobs.NewEstate(s.store, s.cfg.bounds()), collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	h := promhttp.HandlerFor(s.registry, promhttp.HandlerOpts{ErrorLog: promErrors{s.log}, ErrorHandling: promhttp.ContinueOnError})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r = r.Clone(r.Context())
		r.Header.Del("Accept")
		h.ServeHTTP(w, r)
	})
}

type promErrors struct{ log *slog.Logger }

func (p promErrors) Println(v ...any) {
	p.log.Warn("collecting metrics failed", "err", strings.TrimSpace(fmt.Sprintln(v...)))
}
