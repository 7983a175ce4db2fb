// Package jobs drives rolls: River workers, the steps' effects on Microsoft
// through ports, the classification of errors, the heartbeat and the sweeper.
//
// What it promises: nothing is called before its intent is committed; no call
// that changes something is repeated before what became of the last one is
// known; and a roll whose worker dies is taken over by another within seconds.
package jobs

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/riverqueue/river/rivermigrate"
	"github.com/riverqueue/river/rivertype"

	"github.com/keyroll/keyroll/internal/roll"
	"github.com/keyroll/keyroll/internal/store"
)

// maxAttempts of a job: for panics and errors that nobody expected. Expected
// failures are in the roll's steps and cost no attempt.
const maxAttempts = 3

// label is the kind of a job: the kind of the step it begins with. It is there
// for people; the worker asks the roll what to do.
type label interface{ kind() roll.StepKind }

type (
	preflightLabel struct{}
	createLabel    struct{}
	refreshLabel   struct{}
	leaseLabel     struct{}
	rollKeyLabel   struct{}
	awaitLabel     struct{}
	verifyLabel    struct{}
)

func (preflightLabel) kind() roll.StepKind { return roll.Preflight }
func (createLabel) kind() roll.StepKind    { return roll.CreateKeyVersion }
func (refreshLabel) kind() roll.StepKind   { return roll.RefreshPolicy }
func (leaseLabel) kind() roll.StepKind     { return roll.SharePointLease }
func (rollKeyLabel) kind() roll.StepKind   { return roll.SharePointRollKey }
func (awaitLabel) kind() roll.StepKind     { return roll.SharePointAwait }
func (verifyLabel) kind() roll.StepKind    { return roll.Verify }

// args are a job's arguments: which roll to drive, and nothing else.
type args[L label] struct {
	RollID string `json:"roll_id"`
}

// Kind is wire format.
func (args[L]) Kind() string {
	var l L
	return string(l.kind())
}

// insertArgs are args of any kind, for inserting.
type insertArgs struct {
	RollID string `json:"roll_id"`
	label  roll.StepKind
}

// Kind is wire format.
func (a insertArgs) Kind() string { return string(a.label) }

type worker[L label] struct {
	river.WorkerDefaults[args[L]]
	d *Driver
}

// Timeout leaves the last step that a lane begins its whole time.
func (w *worker[L]) Timeout(*river.Job[args[L]]) time.Duration {
	return w.d.cfg.Lane + w.d.cfg.longest()
}

// Work drives the roll, and asks to be woken when the roll wants it again.
func (w *worker[L]) Work(ctx context.Context, job *river.Job[args[L]]) error {
	wake, err := w.d.Drive(ctx, job.Args.RollID)
	if err != nil {
		return err
	}
	if wake.IsZero() {
		return nil
	}
	return river.JobSnooze(max(wake.Sub(w.d.store.Now()), 0))
}

// registrations has one entry for each kind of step.
func registrations() map[roll.StepKind]func(*river.Workers, *Driver) {
	return map[roll.StepKind]func(*river.Workers, *Driver){
		roll.Preflight:         register[preflightLabel],
		roll.CreateKeyVersion:  register[createLabel],
		roll.RefreshPolicy:     register[refreshLabel],
		roll.SharePointLease:   register[leaseLabel],
		roll.SharePointRollKey: register[rollKeyLabel],
		roll.SharePointAwait:   register[awaitLabel],
		roll.Verify:            register[verifyLabel],
	}
}

func register[L label](ws *river.Workers, d *Driver) { river.AddWorker(ws, &worker[L]{d: d}) }

// Kinds lists the kinds of job that have a worker.
func Kinds() []roll.StepKind { return slices.Sorted(maps.Keys(registrations())) }

// Workers registers a worker for every kind of step.
func Workers(d *Driver) *river.Workers {
	ws := river.NewWorkers()
	for _, add := range registrations() {
		add(ws, d)
	}
	return ws
}

// NewClient makes the River client that works jobs. It is the caller's to
// start and stop.
func NewClient(pool *pgxpool.Pool, d *Driver, log *slog.Logger) (*river.Client[pgx.Tx], error) {
	timeout := d.cfg.Lane + d.cfg.longest()
	c, err := river.NewClient(riverpgxv5.New(pool), &river.Config{
		Queues:               map[string]river.QueueConfig{river.QueueDefault: {MaxWorkers: d.cfg.Workers}},
		Workers:              Workers(d),
		Logger:               log,
		ErrorHandler:         &crashes{d: d},
		FetchCooldown:        10 * time.Millisecond,
		FetchPollInterval:    500 * time.Millisecond,
		JobTimeout:           timeout,
		RescueStuckJobsAfter: timeout + 5*time.Minute,
	})
	if err != nil {
		return nil, fmt.Errorf("making the job queue's client: %w", err)
	}
	return c, nil
}

// Queue inserts jobs; it implements store.Enqueuer over an insert-only client.
type Queue struct {
	client *river.Client[pgx.Tx]
	now    func() time.Time
}

// NewQueue makes a queue over the pool.
func NewQueue(pool *pgxpool.Pool, log *slog.Logger) (*Queue, error) {
	c, err := river.NewClient(riverpgxv5.New(pool), &river.Config{Logger: log})
	if err != nil {
		return nil, fmt.Errorf("making the job queue's client: %w", err)
	}
	return &Queue{client: c, now: time.Now}, nil
}

// EnqueueTx inserts one job for each wake in the caller's transaction.
func (q *Queue) EnqueueTx(ctx context.Context, tx pgx.Tx, wakes []store.Wake) error {
	jobs := make([]river.InsertManyParams, 0, len(wakes))
	for _, w := range wakes {
		opts := &river.InsertOpts{MaxAttempts: maxAttempts}
		// A job for now is given no time: one that lies a moment ahead of the
		// database's clock would wait for the queue's scheduler.
		if w.At.After(q.now().Add(time.Second)) {
			opts.ScheduledAt = w.At
		}
		jobs = append(jobs, river.InsertManyParams{Args: insertArgs{RollID: w.RollID, label: w.Kind}, InsertOpts: opts})
	}
	if _, err := q.client.InsertManyTx(ctx, tx, jobs); err != nil {
		return fmt.Errorf("inserting %d job(s): %w", len(jobs), err)
	}
	return nil
}

// crashes lets go of the steps that a failed job held.
type crashes struct{ d *Driver }

func (h *crashes) HandleError(ctx context.Context, job *rivertype.JobRow, err error) *river.ErrorHandlerResult {
	h.d.crashed(ctx, job, err.Error())
	return nil
}

func (h *crashes) HandlePanic(ctx context.Context, job *rivertype.JobRow, panicVal any, _ string) *river.ErrorHandlerResult {
	h.d.crashed(ctx, job, fmt.Sprintf("panic: %v", panicVal))
	return nil
}

// Schema migrates and checks River's own tables; it implements store.QueueSchema.
type Schema struct{}

func migrator(pool *pgxpool.Pool) (*rivermigrate.Migrator[pgx.Tx], error) {
	return rivermigrate.New(riverpgxv5.New(pool), &rivermigrate.Config{Logger: slog.New(slog.DiscardHandler)})
}

// Migrate brings River's tables to the newest version. (MigrateTx fails on an
// empty database, so each of River's versions is a transaction of its own.)
func (Schema) Migrate(ctx context.Context, pool *pgxpool.Pool) error {
	m, err := migrator(pool)
	if err != nil {
		return err
	}
	_, err = m.Migrate(ctx, rivermigrate.DirectionUp, nil)
	return err
}

// Behind says what River's tables lack.
func (Schema) Behind(ctx context.Context, pool *pgxpool.Pool) (string, error) {
	m, err := migrator(pool)
	if err != nil {
		return "", err
	}
	res, err := m.Validate(ctx, nil)
	if err != nil {
		return "", err
	}
	if res.OK {
		return "", nil
	}
	return strings.Join(res.Messages, "; "), nil
}
