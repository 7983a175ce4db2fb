package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/riverqueue/river"

	"github.com/keyroll/keyroll/internal/api"
	"github.com/keyroll/keyroll/internal/control"
	"github.com/keyroll/keyroll/internal/jobs"
	"github.com/keyroll/keyroll/internal/msapi"
	"github.com/keyroll/keyroll/internal/store"
	"github.com/keyroll/keyroll/internal/survey"
)

// service is a running Keyroll: what serve, dev and the demo all run.
type service struct {
	cfg Config
	log *slog.Logger
	// url is where it listens, as people call it.
	url string

	creds    *msapi.Credentials
	clouds   msapi.Clouds
	hc       *http.Client
	pool     *pgxpool.Pool
	store    *store.Store
	driver   *jobs.Driver
	queue    *river.Client[pgx.Tx]
	metrics  *jobs.Metrics
	registry *prometheus.Registry
	hub      *api.Hub
	http     *http.Server
	listener net.Listener

	draining atomic.Bool
	// failed gets the error of a part that ended by itself.
	failed chan error
	// undo ends what has been started, in reverse; a start that fails half-way uses it too.
	undo []func(ctx context.Context) error
}

// startService wires everything and returns when requests are served. ctx
// bounds the start only; the service ends with stop.
func startService(ctx context.Context, cfg Config, log *slog.Logger) (_ *service, err error) {
	s := &service{cfg: cfg, log: log, failed: make(chan error, 4), registry: prometheus.NewRegistry()}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.unwind(context.WithoutCancel(ctx)))
		}
	}()
	for _, part := range []func(context.Context) error{s.openDatabase, s.openMicrosoft, s.startWork, s.startHTTP, s.startHub} {
		if err := part(ctx); err != nil {
			return nil, err
		}
	}
	log.Info("serving", "url", s.url, "public_url", cfg.PublicURL, "version", version(), "simulated", cfg.AllowSimulator)
	return s, nil
}

func (s *service) later(f func(context.Context) error) { s.undo = append(s.undo, f) }

func (s *service) unwind(ctx context.Context) error {
	var errs []error
	for i := len(s.undo) - 1; i >= 0; i-- {
		errs = append(errs, s.undo[i](ctx))
	}
	s.undo = nil
	return errors.Join(errs...)
}

func (s *service) openDatabase(ctx context.Context) error {
	if s.cfg.AutoMigrate {
		if err := store.Migrate(ctx, s.cfg.DatabaseURL.Reveal(), jobs.Schema{}); err != nil {
			return err
		}
	}
	var err error
	s.pool, err = openPool(ctx, s.cfg.DatabaseURL, s.cfg.DatabaseRole, s.cfg.DatabaseMaxConns)
	if err != nil {
		return err
	}
	s.later(func(context.Context) error { s.pool.Close(); return nil })
	queue, err := jobs.NewQueue(s.pool, s.log)
	if err != nil {
		return err
	}
	s.store = store.New(s.pool, queue)
	return s.store.Ping(ctx)
}

func (s *service) openMicrosoft(context.Context) error {
	if err := s.connect(); err != nil {
		return err
	}
	s.later(func(context.Context) error { s.hc.CloseIdleConnections(); return nil })
	return nil
}

// connect reads what is needed to call Microsoft; nothing is called yet.
func (s *service) connect() error {
	var err error
	if s.creds, err = msapi.ReadCredentials(s.cfg.CredentialsFile); err != nil {
		return err
	}
	if s.clouds, err = s.cfg.clouds(); err != nil {
		return err
	}
	dial, err := msapi.ParseDialMap(s.cfg.DialMap)
	if err != nil {
		return err
	}
	var ca []byte
	if s.cfg.ExtraCAFile != "" {
		if ca, err = os.ReadFile(s.cfg.ExtraCAFile); err != nil {
			return fmt.Errorf("reading the extra CA file: %w", err)
		}
	}
	s.hc, err = msapi.HTTPClient(dial, ca)
	return err
}

// startWork starts the heartbeat and the workers.
func (s *service) startWork(ctx context.Context) error {
	s.metrics = jobs.NewMetrics(s.registry)
	gateway := survey.NewGateway(s.creds, s.hc, msapi.WithObserver(s.metrics.Observe), msapi.WithClouds(s.clouds))
	s.driver = jobs.NewDriver(s.store, jobs.Through(gateway), s.cfg.jobs(), uuid.NewString(), s.log, s.metrics)
	if err := s.startHeart(ctx); err != nil {
		return err
	}
	var err error
	if s.queue, err = jobs.NewClient(s.pool, s.driver, s.log); err != nil {
		return err
	}
	// Not the start's context: its end would cut off calls under way.
	if err := s.queue.Start(context.WithoutCancel(ctx)); err != nil {
		return fmt.Errorf("starting the job queue: %w", err)
	}
	s.later(s.stopQueue)
	ctl := control.New(s.store, gateway, control.Config{ApprovalPatience: s.cfg.ApprovalPatience, Simulated: s.cfg.AllowSimulator})
	s.hub = api.NewHub(s.store, s.registry, s.log, 0)
	return s.buildHTTP(api.NewHandlers(api.Deps{Control: ctl, Store: s.store, Hub: s.hub, Ready: s.ready, Bounds: s.cfg.bounds(), Simulated: s.cfg.AllowSimulator}))
}

// startHeart keeps the process's sign of life. It beats until all else has
// stopped: while a call is under way, nobody may take its roll over.
func (s *service) startHeart(ctx context.Context) error {
	live, still := context.WithCancel(context.WithoutCancel(ctx))
	ready, ended := make(chan struct{}), make(chan error, 1)
	go func() { ended <- s.driver.Live(live, ready) }()
	select {
	case <-ready:
	case err := <-ended:
		still()
		return err
	case <-ctx.Done():
		still()
		<-ended
		return ctx.Err()
	}
	s.later(func(context.Context) error {
		still()
		return <-ended
	})
	return nil
}

// startHub feeds streams of events. It ends before the HTTP server does, which
// would otherwise wait for them.
func (s *service) startHub(ctx context.Context) error {
	live, still := context.WithCancel(context.WithoutCancel(ctx))
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		s.hub.Run(live)
	}()
	s.later(func(context.Context) error {
		still()
		<-ended
		return nil
	})
	return nil
}

// stopQueue lets jobs under way end, and cuts off what has not by then.
func (s *service) stopQueue(ctx context.Context) error {
	s.driver.Drain()
	err := s.queue.Stop(ctx)
	if err == nil {
		return nil
	}
	s.log.Warn("calls under way are cut off; another process settles what became of them", "err", err)
	cut, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	if err := s.queue.StopAndCancel(cut); err != nil {
		return fmt.Errorf("stopping the job queue: %w", err)
	}
	return nil
}

// ready says whether requests can be served, and by its error why not.
func (s *service) ready(ctx context.Context) error {
	if s.draining.Load() {
		return errors.New("the process is ending")
	}
	if age := s.store.Clock().Age(); age > s.cfg.WorkerStale {
		return fmt.Errorf("the last heartbeat was %s ago", age.Round(time.Millisecond))
	}
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	// The pool's own ping: the store's would pass for a heartbeat.
	if err := s.pool.Ping(ctx); err != nil {
		return fmt.Errorf("the database does not answer: %w", err)
	}
	return nil
}

// reload reads the credentials again; after an error the old ones stay in use.
func (s *service) reload() {
	if err := s.creds.Reload(s.cfg.CredentialsFile); err != nil {
		s.log.Error("reloading credentials failed", "err", err)
		return
	}
	s.log.Info("credentials reloaded", "names", s.creds.Names())
}

// stop ends the service in order: no new requests, no new effects, then what
// is under way, then the sign of life.
func (s *service) stop(ctx context.Context) error {
	s.draining.Store(true)
	s.log.Info("draining", "delay_ms", s.cfg.DrainDelay.Milliseconds(), "grace_ms", s.cfg.ShutdownGrace.Milliseconds())
	s.driver.Drain()
	if s.cfg.DrainDelay > 0 {
		t := time.NewTimer(s.cfg.DrainDelay)
		select {
		case <-t.C:
		case <-ctx.Done():
		}
		t.Stop()
	}
	grace, cancel := context.WithTimeout(ctx, s.cfg.ShutdownGrace)
	defer cancel()
	err := s.unwind(grace)
	s.log.Info("stopped")
	return err
}
