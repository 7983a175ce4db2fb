package store

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/keyroll/keyroll/internal/audit"
	"github.com/keyroll/keyroll/internal/roll"
)

// WatchedKey is a key of the ledger whose turn has come. Version is what
// NoteLook and NoteTrouble hold their write against.
type WatchedKey struct {
	TenantID, VaultHost, Name string
	CheckedAt                 time.Time
	UnverifiedSince           *time.Time
	Failures                  int
	Rotation                  *roll.RotationPolicy
	Version                   int64
	// Ledger is what is recorded of the key, and untold are its versions that
	// somebody else made and of which nobody has told yet: filled by LedgerKey.
	Ledger roll.LedgerKey
	untold []string
}

// subject is the key's name in the audit log.
func (w WatchedKey) subject() string {
	return "ledger/" + w.TenantID + "/" + w.VaultHost + "/" + strings.ToLower(w.Name)
}

// mark is the key's name in tenant_attention; a version of it has its id behind.
func (w WatchedKey) mark() string { return "ledger/" + w.VaultHost + "/" + strings.ToLower(w.Name) }

// DueLedgerKeys takes up to limit keys whose last turn is every ago or longer,
// the longest first. No other process takes them for the length of lease: one
// that dies with them leaves them due again after it.
func (s *Store) DueLedgerKeys(ctx context.Context, limit int, every, lease time.Duration) ([]WatchedKey, error) {
	now := s.Now()
	rows, err := s.pool.Query(ctx, `UPDATE ledger_keys SET turn_at = $2
	  WHERE (tenant_id, vault_host, key) IN (SELECT tenant_id, vault_host, key FROM ledger_keys WHERE turn_at <= $1 ORDER BY turn_at LIMIT $3 FOR UPDATE SKIP LOCKED)
	  RETURNING tenant_id::text, vault_host, name, checked_at, unverified_since, failures, level, rotation, version`, now.Add(-every), now.Add(lease-every), limit)
	if err != nil {
		return nil, fmt.Errorf("taking keys of the ledger to look at: %w", err)
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (WatchedKey, error) {
		var w WatchedKey
		var rotation []byte
		if err := row.Scan(&w.TenantID, &w.VaultHost, &w.Name, &w.CheckedAt, &w.UnverifiedSince, &w.Failures, &w.Ledger.Level, &rotation, &w.Version); err != nil {
			return w, err
		}
		if rotation != nil {
			if err := json.Unmarshal(rotation, &w.Rotation); err != nil {
				return w, fmt.Errorf("decoding a rotation policy: %w", err)
			}
		}
		return w, nil
	})
}

// LedgerKey reads what the ledger has of the key: all its versions, and every
// policy that ever used it, those that the declaration names now included.
func (s *Store) LedgerKey(ctx context.Context, w WatchedKey) (WatchedKey, error) {
	var versions, policies []string
	var keyID string
	err := s.pool.QueryRow(ctx, `SELECT array_agg(version ORDER BY created_at, version), (array_agg(key_id ORDER BY last_verified_at DESC))[1],
	    coalesce(array_agg(version) FILTER (WHERE origin = 'stranger' AND roll_id IS NULL AND NOT told), '{}'),
	    (SELECT coalesce(array_agg(DISTINCT p), '{}') FROM key_versions o, unnest(o.policies) p WHERE o.tenant_id = $1 AND o.vault_host = $2 AND lower(o.key_name) = lower($3))
	  FROM key_versions WHERE tenant_id = $1 AND vault_host = $2 AND lower(key_name) = lower($3)`, w.TenantID, w.VaultHost, w.Name).Scan(&versions, &keyID, &w.untold, &policies)
	if err != nil {
		return w, fmt.Errorf("reading a key of the ledger: %w", err)
	}
	w.Ledger.Versions, w.Ledger.Key = versions, roll.Key{ID: keyID, VaultURL: "https://" + w.VaultHost, Name: w.Name}
	rows, err := s.pool.Query(ctx, `SELECT p.id, p.name, p.workload FROM policies p WHERE p.tenant_id = $1 AND (p.id = ANY($2)
	    OR p.declared AND p.key_ids && ARRAY(SELECT r.id FROM root_keys r WHERE r.tenant_id = $1 AND r.declared AND r.vault_host = $3 AND lower(r.name) = lower($4)))
	  ORDER BY p.id`, w.TenantID, policies, w.VaultHost, w.Name)
	if err != nil {
		return w, fmt.Errorf("reading the policies of a key of the ledger: %w", err)
	}
	w.Ledger.Policies, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (roll.LedgerPolicy, error) {
		var p roll.LedgerPolicy
		return p, row.Scan(&p.ID, &p.Name, &p.Workload)
	})
	return w, err
}

// LedgerChange is what a look changed, for whoever counts: the violations that
// are new, how many ended, and how many versions were found.
type LedgerChange struct {
	Opened             []roll.Violation
	Cleared, Strangers int
}

// NoteLook records a look at a key: the state of each version, versions that
// somebody else made, a changed rotation policy, and the violations that are
// new or have ended. Where anything changed, rows, audit entry, outgoing events
// and the tenant's attention commit in one transaction. The next look is due in
// next. ErrStale where another process recorded a newer look, or a change, meanwhile.
func (s *Store) NoteLook(ctx context.Context, w WatchedKey, l roll.LedgerLook, found []roll.Violation, every, next time.Duration) (LedgerChange, error) {
	n := note{w: w, now: s.Now(), turn: next - every}
	var out LedgerChange
	err := s.inTx(ctx, func(tx pgx.Tx) error {
		listed, err := ownOrStrange(ctx, tx, w, l)
		if err != nil {
			return err
		}
		if err := n.compare(ctx, tx, found, l.Judges); err != nil {
			return err
		}
		told := []string{}
		for _, v := range listed {
			if v.origin == OriginStranger {
				told = append(told, v.Version)
				n.tell("ledger.version_found", "ledger_version_found", map[string]any{"key": w.Ledger.Key.ID, "vault_host": w.VaultHost, "name": w.Name,
					"version": v.Version, "created": v.Created, "enabled": v.Enabled, "tag": v.Tags[roll.OperationTag]})
			}
		}
		out.Strangers = len(told)
		if r := l.Rotation; r.Readable && w.Rotation != nil && *w.Rotation != r && !l.Gone {
			n.tell("ledger.rotation_policy_changed", "ledger_rotation_policy_changed", map[string]any{"key": w.Ledger.Key.ID, "vault_host": w.VaultHost,
				"name": w.Name, "from": w.Rotation, "to": r})
		}
		b := &pgx.Batch{}
		if err := n.queueKey(b, &l, nil); err != nil {
			return err
		}
		queueStates(b, w, l)
		queueStrangers(b, w, l, listed, told)
		out.Opened, out.Cleared = n.opened, len(n.cleared)
		return n.send(ctx, tx, b)
	})
	return out, staleOr(err, "recording a look at a key of the ledger")
}

// NoteTrouble records that a key could not be read. No state changes: what was
// last seen stands, and since when nothing was seen is kept. unverified, where
// not nil, is the violation of having been unread for too long.
func (s *Store) NoteTrouble(ctx context.Context, w WatchedKey, t roll.Trouble, unverified *roll.Violation, every, next time.Duration) error {
	n := note{w: w, now: s.Now(), turn: next - every}
	err := s.inTx(ctx, func(tx pgx.Tx) error {
		if unverified != nil {
			only := func(code string) bool { return code == roll.LedgerUnverified }
			if err := n.compare(ctx, tx, []roll.Violation{*unverified}, only); err != nil {
				return err
			}
		}
		b := &pgx.Batch{}
		if err := n.queueKey(b, nil, &t); err != nil {
			return err
		}
		return n.send(ctx, tx, b)
	})
	return staleOr(err, "recording that a key of the ledger could not be read")
}

// PutOffVault lets no key of the vault have its turn before wait is over, in
// any process: the vault asked for fewer calls.
func (s *Store) PutOffVault(ctx context.Context, host string, every, wait time.Duration) error {
	_, err := s.pool.Exec(ctx, `UPDATE ledger_keys SET turn_at = greatest(turn_at, $2) WHERE vault_host = $1`, host, s.Now().Add(wait-every))
	if err != nil {
		return fmt.Errorf("putting off the looks at vault %s: %w", host, err)
	}
	return nil
}

func staleOr(err error, doing string) error {
	switch {
	case err == nil:
		return nil
	case sqlState(err) == stateStale:
		return ErrStale
	}
	return fmt.Errorf("%s: %w", doing, err)
}

// queueStates writes what the look says of the versions that were recorded when
// it began. In one order, as every writer of the ledger takes them; what a
// newer look wrote stays.
func queueStates(b *pgx.Batch, w WatchedKey, l roll.LedgerLook) {
	states, platforms := make([]string, 0, len(w.Ledger.Versions)), make([]string, 0, len(w.Ledger.Versions))
	for _, v := range w.Ledger.Versions {
		platform := ""
		if i := slices.IndexFunc(l.Versions, func(kv roll.KeyVersion) bool { return kv.Version == v }); i >= 0 {
			platform = l.Versions[i].HSMPlatform
		}
		states, platforms = append(states, l.State(v)), append(platforms, platform)
	}
	ids := []string{}
	for _, p := range w.Ledger.Policies {
		ids = append(ids, p.ID)
	}
	b.Queue(`SELECT 1 FROM key_versions WHERE tenant_id = $1 AND vault_host = $2 AND lower(key_name) = lower($3) ORDER BY version FOR UPDATE`, w.TenantID, w.VaultHost, w.Name)
	b.Queue(`UPDATE key_versions v SET state = u.state, last_verified_at = $6, hsm_platform = coalesce(nullif(u.platform, ''), v.hsm_platform), policies = ARRAY(SELECT DISTINCT p FROM unnest(v.policies || $7::text[]) p ORDER BY p)
	  FROM unnest($4::text[], $5::text[], $8::text[]) AS u (version, state, platform)
	  WHERE v.tenant_id = $1 AND v.vault_host = $2 AND lower(v.key_name) = lower($3) AND v.version = u.version AND v.last_verified_at <= $6`,
		w.TenantID, w.VaultHost, w.Name, w.Ledger.Versions, states, l.At, ids, platforms)
}

// foundVersion is a listed version that the ledger does not have, or of which
// nobody has told yet.
type foundVersion struct {
	roll.KeyVersion
	origin, rollID string
}

// ownOrStrange tells versions that a roll of ours has just made, and has not
// recorded yet, from those that somebody else made. A tag may be copied: only
// the first version of an operation is its own.
func ownOrStrange(ctx context.Context, tx pgx.Tx, w WatchedKey, l roll.LedgerLook) ([]foundVersion, error) {
	var out []foundVersion
	taken := map[string]bool{}
	strangers := l.Strangers(w.Ledger)
	for _, v := range l.Versions {
		if slices.Contains(w.untold, v.Version) {
			strangers = append(strangers, v)
		}
	}
	slices.SortFunc(strangers, func(a, b roll.KeyVersion) int { return a.Created.Compare(b.Created) })
	for _, v := range strangers {
		f := foundVersion{KeyVersion: v, origin: OriginStranger}
		if op, ok := canonicalID(v.Tags[roll.OperationTag]); ok && !taken[op] {
			taken[op] = true
			err := tx.QueryRow(ctx, `SELECT coalesce((SELECT s.roll_id::text FROM steps s JOIN rolls r ON r.id = s.roll_id
			  WHERE s.op_id = $1 AND s.kind = 'create_key_version' AND r.tenant_id = $2 AND NOT EXISTS (SELECT 1 FROM key_versions v
			    WHERE v.tenant_id = $2 AND v.vault_host = $3 AND lower(v.key_name) = lower($4) AND v.roll_id = s.roll_id AND v.version <> $5) LIMIT 1), '')`,
				op, w.TenantID, w.VaultHost, w.Name, v.Version).Scan(&f.rollID)
			if err != nil {
				return nil, fmt.Errorf("asking whose a key version is: %w", err)
			}
			if f.rollID != "" {
				f.origin = OriginRoll
			}
		}
		out = append(out, f)
	}
	return out, nil
}

// queueStrangers enters the versions that are new to the ledger, and notes of
// which somebody was told.
func queueStrangers(b *pgx.Batch, w WatchedKey, l roll.LedgerLook, found []foundVersion, told []string) {
	policies := []string{}
	for _, p := range w.Ledger.Policies {
		policies = append(policies, p.ID)
	}
	var lines []ledgerLine
	for _, v := range found {
		if !slices.Contains(w.Ledger.Versions, v.Version) {
			lines = append(lines, ledgerLine{ref: roll.KeyRef{Host: w.VaultHost, Name: w.Name, Version: v.Version}, keyID: w.Ledger.Key.ID,
				origin: v.origin, rollID: v.rollID, state: l.State(v.Version), policies: policies, created: v.Created, platform: v.HSMPlatform})
		}
	}
	queueLines(b, w.TenantID, lines, l.At)
	if len(told) > 0 {
		b.Queue(`UPDATE key_versions SET told = true WHERE tenant_id = $1 AND vault_host = $2 AND lower(key_name) = lower($3) AND version = ANY($4)`, w.TenantID, w.VaultHost, w.Name, told)
	}
}

// note is one record of the watch on its way into the database.
type note struct {
	w      WatchedKey
	now    time.Time
	turn   time.Duration
	events []audit.Event
	outbox []outgoing
	opened []roll.Violation
	// cleared are open rows of tenant_attention, by id; changed, those of which
	// only the words are other ones now.
	cleared []int64
	changed map[int64]roll.Violation
}

type outgoing struct {
	kind    string
	payload map[string]any
}

func (n *note) tell(kind, auditType string, detail map[string]any) {
	n.events = append(n.events, audit.Event{Type: auditType, Detail: detail})
	n.outbox = append(n.outbox, outgoing{kind, detail})
}

func (n *note) mark(v roll.Violation) string {
	if v.Version == "" {
		return n.w.mark()
	}
	return n.w.mark() + "/" + v.Version
}

// compare holds what was found against the rows that are open, of the codes
// that mine says this record judges.
func (n *note) compare(ctx context.Context, tx pgx.Tx, found []roll.Violation, mine func(code string) bool) error {
	rows, err := tx.Query(ctx, `SELECT id, code, subject, level, detail, since FROM tenant_attention
	  WHERE tenant_id = $1 AND cleared_at IS NULL AND (subject = $2 OR starts_with(subject, $2 || '/'))`, n.w.TenantID, n.w.mark())
	if err != nil {
		return fmt.Errorf("reading what is open of a key: %w", err)
	}
	type openRow struct {
		id                           int64
		code, subject, level, detail string
		since                        time.Time
	}
	open, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (openRow, error) {
		var o openRow
		return o, row.Scan(&o.id, &o.code, &o.subject, &o.level, &o.detail, &o.since)
	})
	if err != nil {
		return fmt.Errorf("reading what is open of a key: %w", err)
	}
	n.changed = map[int64]roll.Violation{}
	for _, v := range found {
		i := slices.IndexFunc(open, func(o openRow) bool { return o.code == v.Code && o.subject == n.mark(v) })
		switch {
		case i < 0:
			n.opened = append(n.opened, v)
			n.tell("ledger.violation", "ledger_violation", n.payload(v))
		case open[i].level != string(v.Level) || open[i].detail != v.Detail:
			n.changed[open[i].id] = v
		}
	}
	for _, o := range open {
		if !mine(o.code) || slices.ContainsFunc(found, func(v roll.Violation) bool { return o.code == v.Code && o.subject == n.mark(v) }) {
			continue
		}
		n.cleared = append(n.cleared, o.id)
		version := strings.TrimPrefix(strings.TrimPrefix(o.subject, n.w.mark()), "/")
		n.tell("ledger.violation_cleared", "ledger_violation_cleared", map[string]any{"code": o.code, "key": n.w.Ledger.Key.ID, "vault_host": n.w.VaultHost,
			"name": n.w.Name, "version": version, "since": o.since, "subject": o.subject})
	}
	return nil
}

// payload is a violation as it leaves the house.
func (n *note) payload(v roll.Violation) map[string]any {
	return map[string]any{"code": v.Code, "level": v.Level, "key": n.w.Ledger.Key.ID, "vault_host": n.w.VaultHost, "name": n.w.Name, "version": v.Version,
		"detail": v.Detail, "remedy": v.Remedy, "policies": v.Policies, "subject": n.mark(v)}
}

// guardLedgerKey writes the key's row if it still has the version that was
// read, and aborts everything with it if not. A look that changes nothing leaves
// the version as it is, so that the times guard too: of two looks the one that
// began later stands, and a failure is noted only where nothing was seen since
// its key was taken. An entry, where there is one, grows the digest.
const guardLedgerKey = `WITH u AS (UPDATE ledger_keys SET turn_at = $5,
    checked_at = CASE WHEN $6::timestamptz IS NULL THEN checked_at ELSE greatest(checked_at, $6) END,
    unverified_since = CASE WHEN $6::timestamptz IS NULL THEN coalesce(unverified_since, $7) END,
    failures = CASE WHEN $6::timestamptz IS NULL THEN failures + 1 ELSE 0 END, trouble = $8, level = $9, rotation = coalesce($10, rotation),
    version = version + CASE WHEN $11::bytea IS NULL THEN 0 ELSE 1 END,
    audit_chain = CASE WHEN $11::bytea IS NULL THEN audit_chain ELSE sha256(audit_chain || $11::bytea) END
  WHERE tenant_id = $1 AND vault_host = $2 AND key = lower($3) AND version = $4
    AND CASE WHEN $6::timestamptz IS NULL THEN checked_at = $12 ELSE checked_at <= $6 END RETURNING 1)
SELECT keyroll_must_be_one((SELECT count(*) FROM u))`

// queueKey begins the batch: the key's own row, and what is told of it.
func (n *note) queueKey(b *pgx.Batch, l *roll.LedgerLook, t *roll.Trouble) error {
	var checked *time.Time
	var trouble, rotation, entry []byte
	var err error
	level := n.w.Ledger.Level
	if l != nil {
		checked = &l.At
		level = roll.Stronger(level, l.RecoveryLevel())
		if l.Rotation.Readable && !l.Gone {
			if rotation, err = jsonb(l.Rotation); err != nil {
				return err
			}
		}
	}
	if t != nil {
		if trouble, err = jsonb(t); err != nil {
			return err
		}
	}
	if len(n.events) > 0 {
		if entry, err = n.entry(); err != nil {
			return err
		}
	}
	b.Queue(guardLedgerKey, n.w.TenantID, n.w.VaultHost, n.w.Name, n.w.Version, n.now.Add(n.turn), checked, n.now, trouble, level, rotation, entry, n.w.CheckedAt)
	if entry != nil {
		queueAudit(b, auditRow{tenantID: n.w.TenantID, subject: n.w.subject(), version: n.w.Version + 1, at: n.now, bytes: entry})
	}
	return nil
}

func (n *note) entry() ([]byte, error) {
	return audit.Entry{Subject: n.w.subject(), Version: n.w.Version + 1, TenantID: n.w.TenantID, At: n.now,
		Actor: audit.Actor{Subject: roll.Keyroll().Subject, Kind: roll.System}, Events: n.events}.Bytes()
}

// send adds the tenant's attention and the outgoing events, and sends it all.
func (n *note) send(ctx context.Context, tx pgx.Tx, b *pgx.Batch) error {
	for _, v := range n.opened {
		queueAttention(b, n.w.TenantID, Attention{Code: v.Code, Subject: n.mark(v), Level: string(v.Level), Detail: v.Detail, Action: v.Remedy, Policies: policyIDs(v.Policies)}, n.now)
	}
	for id, v := range n.changed {
		b.Queue(`UPDATE tenant_attention SET level = $2, detail = $3, action = $4, policies = $5 WHERE id = $1`, id, string(v.Level), plain(v.Detail), plain(v.Remedy), policyIDs(v.Policies))
	}
	if len(n.cleared) > 0 {
		b.Queue(`UPDATE tenant_attention SET cleared_at = $2 WHERE id = ANY($1)`, n.cleared, n.now)
	}
	for _, o := range n.outbox {
		if err := queueTenantEvent(b, n.w.TenantID, o.kind, o.payload, n.now); err != nil {
			return err
		}
	}
	return send(ctx, tx, b)
}

func policyIDs(all []roll.LedgerPolicy) []string {
	out := []string{}
	for _, p := range all {
		out = append(out, p.ID)
	}
	return out
}
