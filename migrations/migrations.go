// Package migrations holds the database schema as numbered SQL files. They are
// applied in order and never edited once released; store.Migrate runs them.
package migrations

import "embed"

// Files are the numbered goose migrations.
//
//go:embed *.sql
var Files embed.FS
