package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/keyroll/keyroll/internal/audit"
	"github.com/keyroll/keyroll/internal/roll"
)

// TenantChange is a declaration that weakens what holds, and waits for a
// second person. BaseVersion is the tenant's version that it replaces, 0 for a
// tenant that is not there yet.
type TenantChange struct {
	ID          string
	TenantID    string
	Version     int64
	BaseVersion int64
	State       string
	Hash        string
	Inventory   roll.Inventory
	Weakens     []roll.Weakening
	RequestedBy roll.Actor
	RequestedAt time.Time
	ExpiresAt   time.Time
	DecidedBy   string
	DecidedAt   *time.Time
	Comment     string
}

// States of a TenantChange. All but the first are final.
const (
	ChangePending  = "pending"
	ChangeApproved = "approved"
	ChangeRejected = "rejected"
	// ChangeStale: the tenant has changed since it was asked for.
	ChangeStale   = "stale"
	ChangeExpired = "expired"
)

// ChangeStates lists them.
func ChangeStates() []string {
	return []string{ChangePending, ChangeApproved, ChangeRejected, ChangeStale, ChangeExpired}
}

const changeColumns = `id::text, tenant_id::text, version, base_version, state, hash, declaration, weakens,
  requested_by, requester_kind, requested_at, expires_at, decided_by, decided_at, comment`

func scanChange(row pgx.CollectableRow) (TenantChange, error) {
	var c TenantChange
	var declaration, weakens []byte
	if err := row.Scan(&c.ID, &c.TenantID, &c.Version, &c.BaseVersion, &c.State, &c.Hash, &declaration, &weakens,
		&c.RequestedBy.Subject, &c.RequestedBy.Kind, &c.RequestedAt, &c.ExpiresAt, &c.DecidedBy, &c.DecidedAt, &c.Comment); err != nil {
		return c, fmt.Errorf("reading a change of a tenant: %w", err)
	}
	if err := errors.Join(json.Unmarshal(declaration, &c.Inventory), json.Unmarshal(weakens, &c.Weakens)); err != nil {
		return c, fmt.Errorf("decoding change %s: %w", c.ID, err)
	}
	return c, nil
}

// ProposeChange keeps a declaration until a second person has confirmed it.
// The same one asked for again while it waits is the one that waits.
func (s *Store) ProposeChange(ctx context.Context, inv roll.Inventory, base int64, weakens []roll.Weakening, by roll.Actor, patience time.Duration) (TenantChange, error) {
	now := s.Now()
	hash, err := roll.DeclarationHash(inv, base)
	if err != nil {
		return TenantChange{}, err
	}
	declaration, err := jsonb(inv)
	if err != nil {
		return TenantChange{}, fmt.Errorf("encoding the declaration: %w", err)
	}
	list, err := jsonb(weakens)
	if err != nil {
		return TenantChange{}, fmt.Errorf("encoding what the declaration weakens: %w", err)
	}
	// One that has expired and that no round has ended yet is in nobody's way.
	if _, err := s.expireChanges(ctx, `tenant_id = $2`, inv.TenantID); err != nil {
		return TenantChange{}, err
	}
	id, err := uuid.NewV7()
	if err != nil {
		return TenantChange{}, fmt.Errorf("making a change's id: %w", err)
	}
	c := TenantChange{ID: id.String(), TenantID: inv.TenantID, State: ChangePending, Hash: hash, Weakens: weakens, RequestedBy: by}
	entry, err := c.entry("", by, "weakening_requested", map[string]any{"hash": hash, "base_version": base, "declaration": json.RawMessage(declaration)}, now)
	if err != nil {
		return TenantChange{}, err
	}
	b := &pgx.Batch{}
	b.Queue(`INSERT INTO tenant_changes (id, tenant_id, version, audit_chain, base_version, state, hash, declaration, weakens, requested_by, requester_kind, requested_at, expires_at)
	  VALUES ($1,$2,1,sha256($3::bytea),$4,'pending',$5,$6,$7,$8,$9,$10,$11)`,
		c.ID, c.TenantID, entry, base, hash, declaration, list, by.Subject, by.Kind, now, now.Add(patience))
	if err := c.queueChange(b, entry, "tenant.change_requested", now); err != nil {
		return TenantChange{}, err
	}
	if err := send(ctx, s.pool, b); sqlState(err) == stateUnique && constraint(err) == "tenant_changes_once" {
		return s.oneChange(ctx, `tenant_id = $1 AND base_version = $2 AND hash = $3 AND state = 'pending'`, c.TenantID, base, hash)
	} else if err != nil {
		return TenantChange{}, fmt.Errorf("keeping a change of tenant %s: %w", c.TenantID, err)
	}
	return s.Change(ctx, c.TenantID, c.ID)
}

// entry is the audit entry of the change's next version.
func (c TenantChange) entry(from string, by roll.Actor, action string, detail map[string]any, now time.Time) ([]byte, error) {
	var weakens []any
	for _, w := range c.Weakens {
		weakens = append(weakens, map[string]any{"pointer": w.Pointer, "from": w.From, "to": w.To})
	}
	detail["weakens"] = weakens
	return audit.Entry{Subject: c.subject(), Version: c.Version + 1, TenantID: c.TenantID, At: now, From: from, To: c.State,
		Actor: audit.Actor{Subject: by.Subject, Kind: by.Kind}, Events: []audit.Event{{Type: action, Detail: detail}}}.Bytes()
}

func (c TenantChange) subject() string { return "tenant-change/" + c.ID }

// queueChange adds the audit entry and the outgoing event of the change's next version.
func (c TenantChange) queueChange(b *pgx.Batch, entry []byte, event string, now time.Time) error {
	queueAudit(b, auditRow{tenantID: c.TenantID, subject: c.subject(), version: c.Version + 1, at: now, bytes: entry})
	return queueTenantEvent(b, c.TenantID, event, map[string]any{"change_id": c.ID, "state": c.State, "requested_by": c.RequestedBy.Subject}, now)
}

// queueEnd ends a pending change in the batch; where it is no longer pending
// all of the batch is refused (stateStale).
func (c TenantChange) queueEnd(b *pgx.Batch, state string, by roll.Actor, comment string, now time.Time) error {
	ended := c
	ended.State = state
	entry, err := ended.entry(c.State, by, "weakening_"+state, map[string]any{"hash": c.Hash, "requested_by": c.RequestedBy.Subject, "comment": comment}, now)
	if err != nil {
		return err
	}
	b.Queue(`WITH u AS (UPDATE tenant_changes SET version = version + 1, audit_chain = sha256(audit_chain || $4::bytea), state = $3, decided_by = $5, decided_at = $6, comment = $7
	  WHERE id = $1 AND version = $2 AND state = 'pending' RETURNING 1) SELECT keyroll_must_be_one((SELECT count(*) FROM u))`,
		c.ID, c.Version, state, entry, by.Subject, now, plain(comment))
	return ended.queueChange(b, entry, "tenant.change_"+state, now)
}

// EndChange ends a pending change without carrying it out. ErrStale where it
// is no longer pending.
func (s *Store) EndChange(ctx context.Context, c TenantChange, state string, by roll.Actor, comment string) (TenantChange, error) {
	b := &pgx.Batch{}
	if err := c.queueEnd(b, state, by, comment, s.Now()); err != nil {
		return TenantChange{}, err
	}
	if err := send(ctx, s.pool, b); sqlState(err) == stateStale {
		return TenantChange{}, ErrStale
	} else if err != nil {
		return TenantChange{}, fmt.Errorf("ending change %s: %w", c.ID, err)
	}
	return s.Change(ctx, c.TenantID, c.ID)
}

// Change reads one change of a tenant.
func (s *Store) Change(ctx context.Context, tenantID, id string) (TenantChange, error) {
	if _, ok := canonicalID(tenantID); !ok {
		return TenantChange{}, ErrNotFound
	}
	if _, ok := canonicalID(id); !ok {
		return TenantChange{}, ErrNotFound
	}
	return s.oneChange(ctx, `tenant_id = $1 AND id = $2`, tenantID, id)
}

func (s *Store) oneChange(ctx context.Context, where string, args ...any) (TenantChange, error) {
	rows, err := s.pool.Query(ctx, `SELECT `+changeColumns+` FROM tenant_changes WHERE `+where, args...)
	if err != nil {
		return TenantChange{}, fmt.Errorf("reading a change of a tenant: %w", err)
	}
	c, err := pgx.CollectExactlyOneRow(rows, scanChange)
	if errors.Is(err, pgx.ErrNoRows) {
		return TenantChange{}, ErrNotFound
	}
	return c, err
}

// ChangeFilter narrows a list of changes; AfterTime and AfterID are the last
// one of the page before.
type ChangeFilter struct {
	TenantID  string
	State     string
	AfterTime time.Time
	AfterID   string
	Limit     int
}

// Changes lists the changes of a tenant, newest first.
func (s *Store) Changes(ctx context.Context, f ChangeFilter) ([]TenantChange, error) {
	if _, ok := canonicalID(f.TenantID); !ok {
		return nil, ErrNotFound
	}
	rows, err := s.pool.Query(ctx, `SELECT `+changeColumns+` FROM tenant_changes WHERE tenant_id = $1 AND ($2 = '' OR state = $2)
	  AND ($3 = '' OR (requested_at, id) < ($4, nullif($3, '')::uuid)) ORDER BY requested_at DESC, id DESC LIMIT $5`,
		f.TenantID, f.State, f.AfterID, f.AfterTime, f.Limit)
	if err != nil {
		return nil, fmt.Errorf("listing the changes of tenant %s: %w", f.TenantID, err)
	}
	return pgx.CollectRows(rows, scanChange)
}

// expireAtOnce bounds one round of expiries.
const expireAtOnce = 100

// ExpireChanges ends the changes that nobody confirmed in time.
func (s *Store) ExpireChanges(ctx context.Context) (int, error) { return s.expireChanges(ctx, `true`) }

func (s *Store) expireChanges(ctx context.Context, where string, args ...any) (int, error) {
	rows, err := s.pool.Query(ctx, `SELECT `+changeColumns+` FROM tenant_changes WHERE state = 'pending' AND expires_at <= $1 AND `+where+
		fmt.Sprintf(` ORDER BY expires_at LIMIT %d`, expireAtOnce), append([]any{s.Now()}, args...)...)
	if err != nil {
		return 0, fmt.Errorf("looking for changes that have expired: %w", err)
	}
	due, err := pgx.CollectRows(rows, scanChange)
	if err != nil {
		return 0, err
	}
	ended := 0
	for _, c := range due {
		// Replicas may try the same one: its version lets one of them.
		switch _, err := s.EndChange(ctx, c, ChangeExpired, roll.Keyroll(), ""); {
		case err == nil:
			ended++
		case !errors.Is(err, ErrStale):
			return ended, err
		}
	}
	return ended, nil
}
