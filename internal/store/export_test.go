package store

import (
	"time"

	"github.com/jackc/pgx/v5"
)

// Query is a statement with its arguments.
type Query struct {
	SQL  string
	Args []any
}

// SweepQueries are the sweeper's statements as it runs them at now.
func SweepQueries(now time.Time) map[string]Query {
	return map[string]Query{
		"late":     {late, []any{now.Add(-sweepLate), sweepLimit}},
		"bereft":   {bereft, []any{now.Add(-10 * time.Second), sweepLimit, 10 * time.Second}},
		"undriven": {undriven, []any{now.Add(-sweepAgain), sweepLimit, now.Add(-10 * time.Second)}},
	}
}

// Conn is the heart's own connection.
func (h *Heart) Conn() *pgx.Conn { return h.conn }
