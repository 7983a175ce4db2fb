package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/keyroll/keyroll/internal/audit"
	"github.com/keyroll/keyroll/internal/roll"
)

// Roll reads a roll. ErrNotFound where there is none.
func (s *Store) Roll(ctx context.Context, id string) (roll.Roll, error) {
	if _, ok := canonicalID(id); !ok {
		return roll.Roll{}, ErrNotFound
	}
	rows, err := s.pool.Query(ctx, selectRolls+`WHERE r.id = $1`, id)
	if err != nil {
		return roll.Roll{}, fmt.Errorf("reading roll %s: %w", id, err)
	}
	r, err := pgx.CollectExactlyOneRow(rows, scanRoll)
	if errors.Is(err, pgx.ErrNoRows) {
		return roll.Roll{}, ErrNotFound
	}
	return r, err
}

// RollFilter narrows a list of rolls; zero members do not.
type RollFilter struct {
	TenantID, State, Key, Actor string
	TicketSource, TicketID      string
	Since, Until                time.Time
	// After is the last roll of the page before: rolls older than it follow.
	AfterTime time.Time
	AfterID   string
	Limit     int
}

// Rolls lists rolls, newest first, at most Limit.
func (s *Store) Rolls(ctx context.Context, f RollFilter) ([]roll.Roll, error) {
	var where []string
	var args []any
	add := func(cond string, vals ...any) {
		for _, v := range vals {
			args = append(args, v)
			cond = strings.Replace(cond, "?", fmt.Sprintf("$%d", len(args)), 1)
		}
		where = append(where, cond)
	}
	if f.TenantID != "" {
		add("r.tenant_id = ?", f.TenantID)
	}
	if f.State != "" {
		add("r.state = ?", f.State)
	}
	if f.Actor != "" {
		add("r.requester = ?", f.Actor)
	}
	if f.Key != "" {
		add("EXISTS (SELECT 1 FROM roll_keys k WHERE k.roll_id = r.id AND k.key_id = ?)", f.Key)
	}
	if f.TicketSource != "" {
		add("r.ticket_source = ?", f.TicketSource)
	}
	if f.TicketID != "" {
		add("r.ticket_id = ?", f.TicketID)
	}
	if !f.Since.IsZero() {
		add("r.created_at >= ?", f.Since)
	}
	if !f.Until.IsZero() {
		add("r.created_at < ?", f.Until)
	}
	if f.AfterID != "" {
		add("(r.created_at, r.id) < (?, ?)", f.AfterTime, f.AfterID)
	}
	sql := selectRolls
	if len(where) > 0 {
		sql += "WHERE " + strings.Join(where, " AND ")
	}
	args = append(args, f.Limit)
	sql += fmt.Sprintf(" ORDER BY r.created_at DESC, r.id DESC LIMIT $%d", len(args))
	rows, err := s.pool.Query(ctx, sql, args...)
	if err != nil {
		return nil, fmt.Errorf("listing rolls: %w", err)
	}
	return pgx.CollectRows(rows, scanRoll)
}

// CreateRoll writes a new roll with its steps, its audit entry, its events and
// its first job. finish, where not nil, is called in the same transaction with
// the roll (the idempotency record is completed there). Another open roll for
// one of its keys or policies is an *OpenRollError; a tenant that was retired
// meanwhile is ErrRetired.
func (s *Store) CreateRoll(ctx context.Context, r roll.Roll, effects []roll.Effect, finish func(ctx context.Context, tx Tx) error) error {
	c := change{before: roll.Roll{TenantID: r.TenantID}, after: r, effects: effects, now: r.CreatedAt}
	err := s.inTx(ctx, func(tx pgx.Tx) error {
		b := &pgx.Batch{}
		if err := c.queueCreation(b); err != nil {
			return err
		}
		if err := send(ctx, tx, b); sqlState(err) == stateStale {
			return fmt.Errorf("writing a roll of tenant %s: %w", r.TenantID, ErrRetired)
		} else if err != nil {
			return fmt.Errorf("writing a new roll: %w", err)
		}
		if err := s.follow(ctx, tx, c); err != nil {
			return err
		}
		if finish != nil {
			return finish(ctx, Tx{tx})
		}
		return nil
	})
	if err != nil {
		return s.openRoll(ctx, r, err)
	}
	return nil
}

// notRetired is asked after the roll's row is there: its foreign key holds the
// tenant, so that a retirement either sees the roll or is seen here.
const notRetired = `SELECT keyroll_must_be_one((SELECT count(*) FROM tenants WHERE id = $1 AND retired_at IS NULL))`

func (c change) queueCreation(b *pgx.Batch) error {
	r := c.after
	row, err := rollRow(r, true)
	if err != nil {
		return err
	}
	e := audit.Entry{Subject: "roll/" + r.ID, Version: r.Version, TenantID: r.TenantID, At: c.now, To: string(r.State),
		Actor: audit.Actor{Subject: r.Requester.Subject, Kind: r.Requester.Kind}, Events: []audit.Event{{Type: "requested", Detail: requestDetail(r)}}}
	entry, err := e.Bytes()
	if err != nil {
		return err
	}
	var source, ticket *string
	if t := r.Request.Reason.Ticket; t != nil {
		src, id := plain(t.Source), plain(t.ID)
		source, ticket = &src, &id
	}
	b.Queue(`INSERT INTO rolls (id, tenant_id, version, state, outcome, plan_hash, requester, ticket_source, ticket_id, wake_at, in_flight,
	  plan, data, audit_chain, created_at, updated_at, progress_at) VALUES ($1,$2,$3,$4,$5,$6,$7,$8,$9,$10,$11,$12,$13,sha256($14::bytea),$15,$15,$15)`,
		r.ID, r.TenantID, r.Version, row.state, row.outcome, row.planHash, r.Requester.Subject, source, ticket, row.wakeAt, row.inFlight,
		row.plan, row.data, entry, c.now)
	if err := c.queueSteps(b); err != nil {
		return err
	}
	b.Queue(notRetired, r.TenantID)
	queueSubjects(b, r)
	queueAudit(b, auditRow{tenantID: r.TenantID, rollID: r.ID, subject: "roll/" + r.ID, version: r.Version, at: c.now, bytes: entry})
	return c.queueEvents(b)
}

func requestDetail(r roll.Roll) map[string]any {
	d := map[string]any{"plan_hash": r.Plan.Hash, "reason_code": r.Request.Reason.Code, "reason": r.Request.Reason.Text}
	if t := r.Request.Reason.Ticket; t != nil {
		d["ticket"] = t.Source + ":" + t.ID
	}
	if e := r.Request.Emergency; e != nil {
		d["emergency"] = e.Reason
	}
	var keys []string
	for _, k := range r.Plan.Keys {
		keys = append(keys, k.ID)
	}
	d["keys"] = keys
	return d
}

// Tx is a transaction handed to a caller that may not know pgx.
type Tx struct{ tx pgx.Tx }

// RollEvent is an audit entry of a roll, for the API.
type RollEvent struct {
	ID    int64
	Entry audit.Entry
}

// RollEvents lists the audit entries of a roll, newest first, older than the
// given entry id where that is not 0.
func (s *Store) RollEvents(ctx context.Context, rollID string, before int64, limit int) ([]RollEvent, error) {
	rows, err := s.pool.Query(ctx, `SELECT id, bytes FROM audit_entries WHERE roll_id = $1 AND ($2 = 0 OR id < $2) ORDER BY id DESC LIMIT $3`, rollID, before, limit)
	if err != nil {
		return nil, fmt.Errorf("reading the events of roll %s: %w", rollID, err)
	}
	return pgx.CollectRows(rows, scanRollEvent)
}

func scanRollEvent(row pgx.CollectableRow) (RollEvent, error) {
	var e RollEvent
	var b []byte
	if err := row.Scan(&e.ID, &b); err != nil {
		return e, err
	}
	if err := json.Unmarshal(b, &e.Entry); err != nil {
		return e, fmt.Errorf("decoding audit entry %d: %w", e.ID, err)
	}
	return e, nil
}
