package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/keyroll/keyroll/internal/access"
	"github.com/keyroll/keyroll/internal/roll"
	"github.com/keyroll/keyroll/internal/store"
)

func tokenCommand() command {
	return command{name: "token", short: "create, list and revoke API tokens",
		long:  "Every caller of the API shows a token, which says who it is and what it may do.",
		group: []command{tokenCreateCommand(), tokenListCommand(), tokenRevokeCommand()}}
}

func tokenCreateCommand() command {
	return command{
		name:  "create",
		short: "make an API token and print its secret once",
		long: `Create makes an API token. Its secret is printed once, alone on stdout; only its hash is stored.

The subject says who uses the token and stands in the audit log; it never changes. Two people
are told apart by it, so give each person one subject of their own. Roles: requester (plans and
requests rolls), approver (approves other people's), operator (cancels, retries, replans),
auditor (reads), admin (declares tenants). Services can neither approve nor abandon.`,
		examples: []string{
			"server token create --kind person --subject rita@contoso.com --roles requester,operator",
			"server token create --kind service --subject portal --roles requester --expires 90d",
		},
		setup: func(p *program, flags *flag.FlagSet) func(context.Context, []string) error {
			var db databaseFlags
			var w tokenWish
			var roles, expires string
			db.declare(flags)
			flags.StringVar(&w.kind, "kind", "", "who uses the token: `person|service`")
			flags.StringVar(&w.subject, "subject", "", "the user's name that never changes, as `WHO`@contoso.com")
			flags.StringVar(&roles, "roles", "", "what the token may do: `ROLE,…` of requester, approver, operator, auditor, admin")
			flags.StringVar(&w.name, "name", "", "what people call the token: `NAME` (default: the subject)")
			flags.StringVar(&expires, "expires", "", "when the token ends, such as 90d or 12h: `AGE` from now (default: never)")
			return func(ctx context.Context, _ []string) error {
				if err := w.read(roles, expires); err != nil {
					return err
				}
				st, done, err := db.open(ctx, p)
				if err != nil {
					return err
				}
				defer done()
				return p.createToken(ctx, st, w)
			}
		},
	}
}

// tokenWish is what a new token is to be.
type tokenWish struct {
	kind, subject, name string
	roles               []access.Role
	expires             time.Duration
}

// read checks everything and names all that is wrong at once.
func (w *tokenWish) read(roles, expires string) error {
	var wrong []string
	if !access.ValidKind(w.kind) {
		wrong = append(wrong, "--kind must be person or service")
	}
	if strings.TrimSpace(w.subject) == "" || len(w.subject) > 200 || strings.ContainsFunc(w.subject, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		wrong = append(wrong, "--subject must say who uses the token, in at most 200 characters")
	}
	w.roles = nil
	for r := range strings.SplitSeq(roles, ",") {
		r = strings.TrimSpace(r)
		if !access.ValidRole(r) {
			wrong = append(wrong, fmt.Sprintf("--roles: %q is none of requester, approver, operator, auditor, admin", r))
		} else if !slices.Contains(w.roles, access.Role(r)) {
			w.roles = append(w.roles, access.Role(r))
		}
	}
	var err error
	if w.expires, err = readAge(expires); err != nil {
		wrong = append(wrong, "--expires "+err.Error())
	}
	if len(wrong) > 0 {
		return misused("%s", strings.Join(wrong, "\n  "))
	}
	if w.name == "" {
		w.name = w.subject
	}
	return nil
}

// readAge reads a duration, days included; "" is zero.
func readAge(s string) (time.Duration, error) {
	if s == "" {
		return 0, nil
	}
	var d time.Duration
	var err error
	if days, ok := strings.CutSuffix(s, "d"); ok {
		var n int
		n, err = strconv.Atoi(days)
		if n > 36500 {
			err = errors.New("too long")
		}
		d = time.Duration(n) * 24 * time.Hour
	} else {
		d, err = time.ParseDuration(s)
	}
	if err != nil || d <= 0 {
		return 0, fmt.Errorf("must be a time from now, such as 90d or 12h, and not %q", s)
	}
	return d, nil
}

func (p *program) createToken(ctx context.Context, st *store.Store, w tokenWish) error {
	t, secret, err := makeToken(ctx, st, w, operator())
	if err != nil {
		return err
	}
	until := "until it is revoked"
	if t.ExpiresAt != nil {
		until = "until " + t.ExpiresAt.Format(time.RFC3339)
	}
	fmt.Fprintf(p.stderr, "token %s for %s %s, good %s; this is its secret, shown once:\n", t.ID, w.kind, w.subject, until)
	fmt.Fprintln(p.stdout, secret)
	return nil
}

// makeToken stores a new token and returns it with its secret.
func makeToken(ctx context.Context, st *store.Store, w tokenWish, by roll.Actor) (store.Token, string, error) {
	minted := access.NewToken()
	t := store.Token{ID: uuid.NewString(), Name: w.name, Prefix: minted.Prefix,
		Principal: access.Principal{Subject: w.subject, Kind: access.Kind(w.kind), Roles: w.roles}}
	if w.expires > 0 {
		end := st.Now().Add(w.expires)
		t.ExpiresAt = &end
	}
	if err := st.CreateToken(ctx, t, minted.Hash, by); err != nil {
		return store.Token{}, "", err
	}
	return t, minted.Secret, nil
}

func tokenRevokeCommand() command {
	return command{
		name:     "revoke",
		args:     "ID|PREFIX",
		short:    "end an API token at once",
		long:     "Revoke ends an API token, named by its id or by the prefix that \"server token list\" shows.\nIt works at once and cannot be undone.",
		examples: []string{"server token revoke krp_Zm9vYmFy"},
		setup: func(p *program, flags *flag.FlagSet) func(context.Context, []string) error {
			var db databaseFlags
			db.declare(flags)
			return func(ctx context.Context, args []string) error {
				if len(args) != 1 {
					return misused("which token? Give its id or its prefix, see: server token list")
				}
				st, done, err := db.open(ctx, p)
				if err != nil {
					return err
				}
				defer done()
				t, err := st.RevokeToken(ctx, args[0], operator())
				if errors.Is(err, store.ErrNotFound) {
					return fmt.Errorf("no token has the id or prefix %q; see: server token list", args[0])
				}
				if err != nil {
					return err
				}
				fmt.Fprintf(p.stdout, "token %s of %s is revoked\n", t.Prefix, t.Principal.Subject)
				return nil
			}
		},
	}
}
