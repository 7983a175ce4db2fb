package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// Idempotency keys are kept for 30 days. A claim whose request has not ended
// after claimPatience belongs to a process that died before it committed
// anything, since the answer is stored in the transaction of the effect.
const (
	idempotencyKept = 30 * 24 * time.Hour
	claimPatience   = time.Minute
)

// Errors of ClaimKey.
var (
	// ErrKeyReused: the same key came with another body.
	ErrKeyReused = errors.New("the idempotency key was used with another request")
	// ErrKeyRunning: the first request with this key has not ended.
	ErrKeyRunning = errors.New("the first request with this idempotency key is still running")
)

// Answer is what the first request with a key was answered.
type Answer struct {
	Status   int
	Body     []byte
	Location string
}

// Claim is the right to carry out the request of an idempotency key.
type Claim struct{ subject, key, id string }

// ClaimKey begins a request with an idempotency key of a subject. It returns
// the stored answer where the request has ended before, else a claim.
func (s *Store) ClaimKey(ctx context.Context, subject, key string, bodyHash []byte) (*Claim, *Answer, error) {
	c := &Claim{subject: subject, key: key, id: uuid.NewString()}
	now := s.Now()
	tag, err := s.pool.Exec(ctx, `INSERT INTO idempotency AS i (subject, key, body_hash, claim, claimed_at) VALUES ($1,$2,$3,$4,$5)
	  ON CONFLICT (subject, key) DO UPDATE SET body_hash = EXCLUDED.body_hash, claim = EXCLUDED.claim, claimed_at = EXCLUDED.claimed_at, status = NULL, answer = NULL, location = NULL
	  WHERE i.claimed_at < $6 OR i.status IS NULL AND i.claimed_at < $7 AND i.body_hash = EXCLUDED.body_hash`,
		subject, key, bodyHash, c.id, now, now.Add(-idempotencyKept), now.Add(-claimPatience))
	if err != nil {
		return nil, nil, fmt.Errorf("claiming an idempotency key: %w", err)
	}
	if tag.RowsAffected() == 1 {
		return c, nil, nil
	}
	var hash []byte
	var a Answer
	var status *int
	var location *string
	err = s.pool.QueryRow(ctx, `SELECT body_hash, status, answer, location FROM idempotency WHERE subject = $1 AND key = $2`, subject, key).Scan(&hash, &status, &a.Body, &location)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return nil, nil, ErrKeyRunning // given back this moment: the client asks again
	case err != nil:
		return nil, nil, fmt.Errorf("reading an idempotency key: %w", err)
	case !bytes.Equal(hash, bodyHash):
		return nil, nil, ErrKeyReused
	case status == nil:
		return nil, nil, ErrKeyRunning
	}
	a.Status = *status
	if location != nil {
		a.Location = *location
	}
	return nil, &a, nil
}

// FinishKey stores the answer in the transaction of the effect. A claim that
// was taken over meanwhile aborts that transaction.
func (t Tx) FinishKey(ctx context.Context, c *Claim, a Answer) error {
	_, err := t.tx.Exec(ctx, `WITH u AS (UPDATE idempotency SET status = $4, answer = $5, location = $6 WHERE subject = $1 AND key = $2 AND claim = $3 RETURNING 1)
	  SELECT keyroll_must_be_one((SELECT count(*) FROM u))`, c.subject, c.key, c.id, a.Status, a.Body, a.Location)
	if sqlState(err) == stateStale {
		return ErrKeyRunning
	}
	if err != nil {
		return fmt.Errorf("storing the answer of an idempotency key: %w", err)
	}
	return nil
}

// ReturnKey gives a claim back after a request that changed nothing, so that
// it can be asked again with the same key.
func (s *Store) ReturnKey(ctx context.Context, c *Claim) error {
	_, err := s.pool.Exec(ctx, `DELETE FROM idempotency WHERE subject = $1 AND key = $2 AND claim = $3 AND status IS NULL`, c.subject, c.key, c.id)
	if err != nil {
		return fmt.Errorf("giving an idempotency key back: %w", err)
	}
	return nil
}

// PruneKeys removes idempotency keys past their time.
func (s *Store) PruneKeys(ctx context.Context) error {
	_, err := s.pool.Exec(ctx, `DELETE FROM idempotency WHERE claimed_at < $1`, s.Now().Add(-idempotencyKept))
	if err != nil {
		return fmt.Errorf("pruning idempotency keys: %w", err)
	}
	return nil
}
