package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/keyroll/keyroll/internal/access"
	"github.com/keyroll/keyroll/internal/audit"
	"github.com/keyroll/keyroll/internal/roll"
)

// Token is an API token as stored: its secret is not.
type Token struct {
	ID, Name, Prefix string
	Principal        access.Principal
	CreatedAt        time.Time
	ExpiresAt        *time.Time
	RevokedAt        *time.Time
}

// CreateToken stores the hash of a new token. hash is the SHA-256 of the
// secret, prefix its first characters, for people.
func (s *Store) CreateToken(ctx context.Context, t Token, hash []byte, by roll.Actor) error {
	now := s.Now()
	id, ok := canonicalID(t.ID)
	if !ok {
		return fmt.Errorf("token id %q is no UUID", t.ID)
	}
	t.ID = id
	roles := []string{}
	for _, r := range t.Principal.Roles {
		roles = append(roles, string(r))
	}
	entry, err := tokenEntry(t.ID, 1, by, "token_created", map[string]any{"name": t.Name, "kind": string(t.Principal.Kind), "for": t.Principal.Subject, "roles": roles}, now)
	if err != nil {
		return err
	}
	return s.inTx(ctx, func(tx pgx.Tx) error {
		b := &pgx.Batch{}
		b.Queue(`INSERT INTO api_tokens (id, version, name, kind, subject, roles, prefix, hash, audit_chain, created_at, expires_at)
		  VALUES ($1,1,$2,$3,$4,$5,$6,$7,sha256($8::bytea),$9,$10)`, t.ID, plain(t.Name), string(t.Principal.Kind), t.Principal.Subject, roles, t.Prefix, hash, entry, now, t.ExpiresAt)
		queueAudit(b, auditRow{subject: "token/" + t.ID, version: 1, at: now, bytes: entry})
		if err := send(ctx, tx, b); err != nil {
			return fmt.Errorf("storing a token: %w", err)
		}
		return nil
	})
}

func tokenEntry(id string, version int64, by roll.Actor, action string, detail map[string]any, now time.Time) ([]byte, error) {
	return audit.Entry{Subject: "token/" + id, Version: version, At: now, Actor: audit.Actor{Subject: by.Subject, Kind: by.Kind},
		Events: []audit.Event{{Type: action, Detail: detail}}}.Bytes()
}

// PrincipalByHash finds who a token belongs to; ErrNotFound where it is
// unknown, revoked or expired.
func (s *Store) PrincipalByHash(ctx context.Context, hash []byte) (access.Principal, error) {
	var p access.Principal
	var kind string
	var roles []string
	err := s.pool.QueryRow(ctx, `SELECT id::text, kind, subject, roles FROM api_tokens WHERE hash = $1 AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > $2)`, hash, s.Now()).
		Scan(&p.TokenID, &kind, &p.Subject, &roles)
	if errors.Is(err, pgx.ErrNoRows) {
		return access.Principal{}, ErrNotFound
	}
	if err != nil {
		return access.Principal{}, fmt.Errorf("looking a token up: %w", err)
	}
	p.Kind = access.Kind(kind)
	for _, r := range roles {
		p.Roles = append(p.Roles, access.Role(r))
	}
	return p, nil
}

// Tokens lists all tokens, newest first.
func (s *Store) Tokens(ctx context.Context) ([]Token, error) {
	rows, err := s.pool.Query(ctx, `SELECT id::text, name, prefix, kind, subject, roles, created_at, expires_at, revoked_at FROM api_tokens ORDER BY created_at DESC, id`)
	if err != nil {
		return nil, fmt.Errorf("listing tokens: %w", err)
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (Token, error) {
		var t Token
		var kind string
		var roles []string
		if err := row.Scan(&t.ID, &t.Name, &t.Prefix, &kind, &t.Principal.Subject, &roles, &t.CreatedAt, &t.ExpiresAt, &t.RevokedAt); err != nil {
			return t, err
		}
		t.Principal.TokenID, t.Principal.Kind = t.ID, access.Kind(kind)
		for _, r := range roles {
			t.Principal.Roles = append(t.Principal.Roles, access.Role(r))
		}
		return t, nil
	})
}

// ErrAmbiguous: the prefix is that of more than one token.
var ErrAmbiguous = errors.New("more than one token begins so: name the id")

// RevokeToken ends a token, by its id or its prefix. Revoking again is no
// error; a prefix that several tokens have is ErrAmbiguous.
func (s *Store) RevokeToken(ctx context.Context, idOrPrefix string, by roll.Actor) (Token, error) {
	var id string
	err := s.inTx(ctx, func(tx pgx.Tx) error {
		var version int64
		var revoked *time.Time
		var same int
		if err := tx.QueryRow(ctx, `SELECT count(*) FROM api_tokens WHERE id::text = lower($1) OR prefix = $1`, plain(idOrPrefix)).Scan(&same); err != nil {
			return fmt.Errorf("looking a token up: %w", err)
		}
		if same > 1 {
			return ErrAmbiguous
		}
		err := tx.QueryRow(ctx, `SELECT id::text, version, revoked_at FROM api_tokens WHERE id::text = lower($1) OR prefix = $1 FOR UPDATE`, plain(idOrPrefix)).Scan(&id, &version, &revoked)
		if errors.Is(err, pgx.ErrNoRows) {
			return ErrNotFound
		}
		if err != nil {
			return fmt.Errorf("looking a token up: %w", err)
		}
		if revoked != nil {
			return nil
		}
		now := s.Now()
		entry, err := tokenEntry(id, version+1, by, "token_revoked", nil, now)
		if err != nil {
			return err
		}
		b := &pgx.Batch{}
		b.Queue(`UPDATE api_tokens SET revoked_at = $2, version = version + 1, audit_chain = sha256(audit_chain || $3::bytea) WHERE id = $1`, id, now, entry)
		queueAudit(b, auditRow{subject: "token/" + id, version: version + 1, at: now, bytes: entry})
		return send(ctx, tx, b)
	})
	if err != nil {
		return Token{}, err
	}
	all, err := s.Tokens(ctx)
	for _, t := range all {
		if t.ID == id {
			return t, err
		}
	}
	return Token{ID: id}, err
}
