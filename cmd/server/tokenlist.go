package main

import (
	"context"
	"flag"
	"fmt"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/keyroll/keyroll/internal/access"
	"github.com/keyroll/keyroll/internal/store"
)

func tokenListCommand() command {
	return command{
		name:  "list",
		short: "list all API tokens",
		long:  "List shows all API tokens, newest first, revoked ones too. Their secrets are not stored.",
		examples: []string{
			"server token list",
			"server token list --json",
		},
		setup: func(p *program, flags *flag.FlagSet) func(context.Context, []string) error {
			var db databaseFlags
			db.declare(flags)
			asJSON := flags.Bool("json", false, "print a JSON array instead of a table")
			return func(ctx context.Context, _ []string) error {
				st, done, err := db.open(ctx, p)
				if err != nil {
					return err
				}
				defer done()
				tokens, err := st.Tokens(ctx)
				if err != nil {
					return err
				}
				if *asJSON {
					return p.tokensJSON(tokens, st.Now())
				}
				return p.tokensTable(tokens, st.Now())
			}
		},
	}
}

// tokenState says whether a token can be used.
func tokenState(t store.Token, now time.Time) string {
	switch {
	case t.RevokedAt != nil:
		return "revoked"
	case t.ExpiresAt != nil && !t.ExpiresAt.After(now):
		return "expired"
	}
	return "active"
}

func roleNames(roles []access.Role) []string {
	out := []string{}
	for _, r := range roles {
		out = append(out, string(r))
	}
	return out
}

func (p *program) tokensTable(tokens []store.Token, now time.Time) error {
	if len(tokens) == 0 {
		fmt.Fprintln(p.stderr, "there are no tokens; make one: server token create --help")
		return nil
	}
	t := tabwriter.NewWriter(p.stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "PREFIX\tSTATE\tKIND\tSUBJECT\tROLES\tEXPIRES\tCREATED\tID")
	for _, k := range tokens {
		expires := "never"
		if k.ExpiresAt != nil {
			expires = k.ExpiresAt.UTC().Format(time.DateOnly)
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", k.Prefix, tokenState(k, now), k.Principal.Kind, k.Principal.Subject,
			strings.Join(roleNames(k.Principal.Roles), ","), expires, k.CreatedAt.UTC().Format(time.DateOnly), k.ID)
	}
	return t.Flush()
}

func (p *program) tokensJSON(tokens []store.Token, now time.Time) error {
	type shown struct {
		ID        string     `json:"id"`
		Prefix    string     `json:"prefix"`
		Name      string     `json:"name"`
		Kind      string     `json:"kind"`
		Subject   string     `json:"subject"`
		Roles     []string   `json:"roles"`
		State     string     `json:"state"`
		CreatedAt time.Time  `json:"created_at"`
		ExpiresAt *time.Time `json:"expires_at,omitempty"`
		RevokedAt *time.Time `json:"revoked_at,omitempty"`
	}
	out := []shown{}
	for _, k := range tokens {
		out = append(out, shown{k.ID, k.Prefix, k.Name, string(k.Principal.Kind), k.Principal.Subject, roleNames(k.Principal.Roles),
			tokenState(k, now), k.CreatedAt.UTC(), k.ExpiresAt, k.RevokedAt})
	}
	return printJSON(p.stdout, out)
}
