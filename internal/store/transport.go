package store

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/keyroll/keyroll/internal/audit"
	"github.com/keyroll/keyroll/internal/roll"
)

// EventTransportChanged tells that a place of a tenant is changed by another
// transport than before.
const EventTransportChanged = "tenant.transport_changed"

// selectTransports are a tenant's recorded transports, by place, as JSON.
const selectTransports = `coalesce((SELECT jsonb_object_agg(t.place, jsonb_build_object('choice', t.choice, 'since', t.since, 'probed_at', t.probed_at, 'version', t.version))
  FROM tenant_transports t WHERE t.tenant_id = tenants.id), '{}')`

type transportRow struct {
	Choice   roll.ChosenTransport `json:"choice"`
	Since    time.Time            `json:"since"`
	ProbedAt time.Time            `json:"probed_at"`
	Version  int64                `json:"version"`
}

// transports decodes selectTransports.
func transports(raw []byte) (map[string]roll.ChosenTransport, error) {
	var rows map[string]transportRow
	if err := json.Unmarshal(raw, &rows); err != nil {
		return nil, fmt.Errorf("decoding transports: %w", err)
	}
	if len(rows) == 0 {
		return nil, nil
	}
	out := make(map[string]roll.ChosenTransport, len(rows))
	for place, row := range rows {
		c := row.Choice
		c.Since, c.ProbedAt = row.Since, row.ProbedAt
		out[place] = c
	}
	return out, nil
}

// NoteTransports records what a survey has chosen. A choice that is not the
// recorded one is written with its audit entry and event in one transaction;
// one that is only moves the time of the last probe, at most once a minute.
// Two processes that see the same change write it once.
func (s *Store) NoteTransports(ctx context.Context, inv roll.Inventory, chosen map[string]roll.ChosenTransport) error {
	for _, place := range slices.Sorted(maps.Keys(chosen)) {
		if !slices.Contains(inv.Places(), place) {
			continue
		}
		if err := s.noteTransport(ctx, inv.TenantID, place, chosen[place]); err != nil {
			return fmt.Errorf("recording the transport of %s: %w", place, err)
		}
	}
	return nil
}

func (s *Store) noteTransport(ctx context.Context, tenantID, place string, c roll.ChosenTransport) error {
	now := s.Now()
	rows, err := s.pool.Query(ctx, `SELECT choice, since, probed_at, version FROM tenant_transports WHERE tenant_id = $1 AND place = $2`, tenantID, place)
	if err != nil {
		return err
	}
	found, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (transportRow, error) {
		var r transportRow
		var raw []byte
		if err := row.Scan(&raw, &r.Since, &r.ProbedAt, &r.Version); err != nil {
			return r, err
		}
		return r, json.Unmarshal(raw, &r.Choice)
	})
	if err != nil {
		return err
	}
	var before transportRow
	if len(found) > 0 {
		before = found[0]
		if before.Choice.SameChoice(c) {
			if now.Sub(before.ProbedAt) < time.Minute {
				return nil
			}
			_, err := s.pool.Exec(ctx, `UPDATE tenant_transports SET probed_at = $3 WHERE tenant_id = $1 AND place = $2`, tenantID, place, now)
			return err
		}
	}
	return s.changeTransport(ctx, tenantID, place, before, c, now)
}

func (s *Store) changeTransport(ctx context.Context, tenantID, place string, before transportRow, c roll.ChosenTransport, now time.Time) error {
	w, _ := roll.SplitPlace(place)
	subject := "transport/" + tenantID + "/" + place
	detail := map[string]any{"place": place, "to": c.Via.Name(w), "reads": readsName(w, c.Reads), "declared": c.Declared, "why": c.Why}
	if before.Version > 0 {
		detail["from"] = before.Choice.Via.Name(w)
	}
	entry, err := audit.Entry{Subject: subject, Version: before.Version + 1, TenantID: tenantID, At: now,
		Actor: audit.Actor{Subject: roll.Keyroll().Subject, Kind: roll.System}, Events: []audit.Event{{Type: "transport_chosen", Detail: detail}}}.Bytes()
	if err != nil {
		return err
	}
	choice, err := jsonb(c)
	if err != nil {
		return err
	}
	b := &pgx.Batch{}
	b.Queue(`WITH u AS (INSERT INTO tenant_transports AS t (tenant_id, place, via, reads, declared, choice, since, probed_at, version, audit_chain)
	  SELECT $1,$2,$3,$4,$5,$6,$7,$7,1,sha256($8::bytea) WHERE $9 = 0
	  ON CONFLICT DO NOTHING RETURNING 1),
	  v AS (UPDATE tenant_transports SET via = $3, reads = $4, declared = $5, choice = $6, since = $7, probed_at = $7, version = version + 1, audit_chain = sha256(audit_chain || $8::bytea)
	  WHERE tenant_id = $1 AND place = $2 AND version = $9 AND $9 > 0 RETURNING 1)
	  SELECT keyroll_must_be_one((SELECT count(*) FROM u) + (SELECT count(*) FROM v))`,
		tenantID, place, string(c.Via), string(c.Reads), plain(c.Declared), choice, now, entry, before.Version)
	queueAudit(b, auditRow{tenantID: tenantID, subject: subject, version: before.Version + 1, at: now, bytes: entry})
	if err := queueTenantEvent(b, tenantID, EventTransportChanged, detail, now); err != nil {
		return err
	}
	if err := send(ctx, s.pool, b); err != nil && sqlState(err) != stateStale {
		return err
	}
	return nil // stale: another process saw the change too
}

func readsName(w roll.Workload, t roll.Transport) string {
	if t == roll.ReadsNothing {
		return string(t)
	}
	return t.Name(w)
}
