package main

import (
	"context"
	"flag"
	"fmt"

	"github.com/keyroll/keyroll/internal/jobs"
	"github.com/keyroll/keyroll/internal/store"
)

func migrateCommand() command {
	return command{
		name:  "migrate",
		short: "bring the database schema to the newest version",
		long: `Migrate brings the schema of the database to the newest version: the job queue's tables, Keyroll's
own, and the role keyroll_app that the service takes. Running it again changes nothing; several at
once wait for each other. The login needs the right to create tables and roles.`,
		examples: []string{"server migrate --database-url 'postgres://owner@db/keyroll?sslmode=verify-full'"},
		setup: func(p *program, flags *flag.FlagSet) func(context.Context, []string) error {
			var db databaseFlags
			db.declare(flags)
			return func(ctx context.Context, _ []string) error {
				if err := db.resolve(p); err != nil {
					return err
				}
				fmt.Fprintln(p.stderr, "migrating the schema")
				if err := store.Migrate(ctx, db.url, jobs.Schema{}); err != nil {
					return err
				}
				fmt.Fprintln(p.stdout, "the schema is at the newest version")
				return nil
			}
		},
	}
}
