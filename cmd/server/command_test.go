package main

import (
	"context"
	"encoding/json"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/keyroll/keyroll/internal/access"
	"github.com/keyroll/keyroll/internal/pgtest"
)

// paths lists all commands as they are typed.
func paths(list []command, before ...string) [][]string {
	var out [][]string
	for _, c := range list {
		path := append(before[:len(before):len(before)], c.name)
		if c.group != nil {
			out = append(out, paths(c.group, path...)...)
			continue
		}
		out = append(out, path)
	}
	return out
}

func TestEveryCommandHasHelp(t *testing.T) {
	t.Parallel()
	all := paths(commands())
	if len(all) != 12 {
		t.Errorf("%d commands", len(all))
	}
	for _, path := range all {
		code, stdout, stderr := shell(t.Context(), nil, append(path, "--help")...)
		if code != exitDone || stderr != "" {
			t.Errorf("%v --help: code %d, stderr %q", path, code, stderr)
		}
		if !strings.Contains(stdout, "\n\nUsage: server "+strings.Join(path, " ")) || !strings.Contains(stdout, "\nExamples:\n") {
			t.Errorf("%v --help says: %s", path, stdout)
		}
		for line := range strings.SplitSeq(stdout, "\n") {
			if len([]rune(line)) > 110 {
				t.Errorf("%v --help has a long line: %s", path, line)
			}
		}
		code, _, stderr = shell(t.Context(), nil, append(path, "--no-such-flag")...)
		if code != exitUsage || !strings.Contains(stderr, "no-such-flag") {
			t.Errorf("%v --no-such-flag: code %d, stderr %q", path, code, stderr)
		}
	}
}

func TestUsage(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		args string
		code int
		says string // on stdout where the code is 0, else on stderr
	}{
		{"", exitUsage, "Usage: server COMMAND"},
		{"--help", exitDone, "server demo"},
		{"help token create", exitDone, "Usage: server token create"},
		{"token --help", exitDone, "revoke"},
		{"tokne list", exitUsage, `did you mean "token"?`},
		{"frobnicate", exitUsage, `"frobnicate" is not a command of "server"`},
		{"token", exitUsage, "which command?"},
		{"token mint", exitUsage, `"mint" is not a command of "server token"`},
		{"serve now", exitUsage, `unexpected argument "now"`},
		{"migrate", exitUsage, "which database?"},
		{"token list", exitUsage, "which database?"},
		{"token revoke", exitUsage, "which token?"},
		{"audit verify", exitUsage, "which database?"},
		{"token create --kind robot --subject x --roles owner --expires never", exitUsage, "--kind must be person or service"},
		{"token create --kind robot --subject x --roles owner --expires never", exitUsage, `--roles: "owner" is none of`},
		{"token create --kind robot --subject x --roles owner --expires never", exitUsage, `--expires must be a time from now, such as 90d or 12h, and not "never"`},
		{"healthcheck --url nowhere", exitUsage, "is not an address"},
		{"sim --seed /nowhere", exitFailed, "reading --seed"},
		{"demo --database-url host=nowhere", exitFailed, "--database-url must be a URL"},
	} {
		code, stdout, stderr := shell(t.Context(), nil, strings.Fields(c.args)...)
		said := stderr
		if c.code == exitDone {
			said = stdout
		}
		if code != c.code || !strings.Contains(said, c.says) {
			t.Errorf("%q: code %d, said %s\nwant %d and %q", c.args, code, said, c.code, c.says)
		}
	}
}

func TestReadAge(t *testing.T) {
	t.Parallel()
	for text, hours := range map[string]float64{"": 0, "90d": 2160, "12h": 12, "1h30m": 1.5} {
		if d, err := readAge(text); err != nil || d.Hours() != hours {
			t.Errorf("%q is %v, %v", text, d, err)
		}
	}
	for _, text := range []string{"-1d", "0d", "d", "1.5d", "forever", "-3h", "99999999999d"} {
		if d, err := readAge(text); err == nil {
			t.Errorf("%q is %v", text, d)
		}
	}
}

// From an empty database: refused by name, migrated, then in use.
func TestMigrateAndTokens(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	environ := []string{"KEYROLL_DATABASE_URL=" + pgtest.OpenEmpty(t)}
	code, _, stderr := shell(ctx, environ, "token", "list")
	if code != exitFailed || !strings.Contains(stderr, "server migrate") {
		t.Fatalf("on an empty database: code %d, %s", code, stderr)
	}
	for range 2 { // again changes nothing
		if code, _, stderr = shell(ctx, environ, "migrate"); code != exitDone {
			t.Fatalf("migrate: %s", stderr)
		}
	}
	if code, stdout, stderr := shell(ctx, environ, "token", "list"); code != exitDone || stdout != "" || !strings.Contains(stderr, "there are no tokens") {
		t.Errorf("token list: code %d, %s%s", code, stdout, stderr)
	}
	code, secret, stderr := shell(ctx, environ, "token", "create", "--kind", "person", "--subject", "rita@contoso.com", "--roles", "requester, operator", "--expires", "90d")
	secret = strings.TrimSuffix(secret, "\n")
	if _, ok := access.ParseToken(secret); code != exitDone || !ok || strings.Contains(stderr, secret) {
		t.Fatalf("token create: code %d, %q, %s", code, secret, stderr)
	}

	type shown struct {
		ID, Prefix, State, Subject string
		Roles                      []string
	}
	list := func() []shown {
		t.Helper()
		code, stdout, stderr := shell(ctx, environ, "token", "list", "--json")
		var out []shown
		if err := json.Unmarshal([]byte(stdout), &out); code != exitDone || err != nil || strings.Contains(stdout+stderr, secret) {
			t.Fatalf("token list --json: code %d, %v, %s", code, err, stdout)
		}
		return out
	}
	all := list()
	if len(all) != 1 || all[0].State != "active" || all[0].Subject != "rita@contoso.com" || strings.Join(all[0].Roles, " ") != "requester operator" || !strings.HasPrefix(secret, all[0].Prefix) {
		t.Fatalf("tokens: %+v", all)
	}
	if _, table, _ := shell(ctx, environ, "token", "list"); !strings.Contains(table, all[0].Prefix+"  active  person  rita@contoso.com  requester,operator") {
		t.Errorf("table:\n%s", table)
	}
	if code, _, stderr := shell(ctx, environ, "token", "revoke", "krp_nobody00"); code != exitFailed || !strings.Contains(stderr, "no token has") {
		t.Errorf("revoking nothing: code %d, %s", code, stderr)
	}
	for range 2 { // again is no error
		if code, stdout, stderr := shell(ctx, environ, "token", "revoke", all[0].Prefix); code != exitDone || !strings.Contains(stdout, "is revoked") {
			t.Errorf("revoke: code %d, %s", code, stderr)
		}
	}
	if all = list(); all[0].State != "revoked" {
		t.Errorf("tokens: %+v", all)
	}
	// Both acts are in the audit log, once each.
	if code, stdout, _ := shell(ctx, environ, "audit", "verify"); code != exitDone || !strings.Contains(stdout, "2 entries of 1 subjects") {
		t.Errorf("audit verify: code %d, %s", code, stdout)
	}
}

// The owner of the tables can take the triggers off and alter the log. It shows.
func TestAuditVerifyNamesWhatWasTampered(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	url := pgtest.Open(t, migrate)
	environ := []string{"KEYROLL_DATABASE_URL=" + url}
	var ids []string
	for _, who := range []string{"a", "b", "c", "d"} {
		if code, _, stderr := shell(ctx, environ, "token", "create", "--kind", "service", "--subject", who, "--roles", "auditor"); code != exitDone {
			t.Fatal(stderr)
		}
	}
	conn, err := pgx.Connect(ctx, url)
	must(t, err)
	defer conn.Close(context.WithoutCancel(ctx))
	rows, err := conn.Query(ctx, `SELECT id::text FROM api_tokens ORDER BY subject`)
	must(t, err)
	ids, err = pgx.CollectRows(rows, pgx.RowTo[string])
	must(t, err)
	for _, sql := range []string{
		`ALTER TABLE audit_entries DISABLE TRIGGER USER`,
		`UPDATE audit_entries SET bytes = convert_to(replace(convert_from(bytes, 'UTF8'), '"for":"a"', '"for":"x"'), 'UTF8') WHERE subject = 'token/` + ids[0] + `'`,
		`DELETE FROM audit_pending`,
		`DELETE FROM audit_entries WHERE subject = 'token/` + ids[1] + `'`,
		`INSERT INTO audit_entries (subject, version, at, bytes) SELECT subject, 2, at, bytes FROM audit_entries WHERE subject = 'token/` + ids[2] + `'`,
	} {
		_, err := conn.Exec(ctx, sql)
		must(t, err)
	}
	code, stdout, stderr := shell(ctx, environ, "audit", "verify")
	if code != exitFailed || !strings.Contains(stdout, "NOT whole: 3 problem(s)") || stderr != "" {
		t.Errorf("code %d, %s%s", code, stdout, stderr)
	}
	for _, want := range []string{"altered: token/" + ids[0], "missing: token/" + ids[1], "extra: token/" + ids[2]} {
		if !strings.Contains(stdout, want) {
			t.Errorf("%q is not named in:\n%s", want, stdout)
		}
	}
	if strings.Contains(stdout, ids[3]) {
		t.Errorf("a whole subject is named:\n%s", stdout)
	}
	code, stdout, _ = shell(ctx, environ, "audit", "verify", "--json")
	var report struct {
		OK       bool
		Entries  int
		Problems []struct{ Kind, Subject, Detail string }
	}
	if err := json.Unmarshal([]byte(stdout), &report); code != exitFailed || err != nil || report.OK || len(report.Problems) != 3 {
		t.Errorf("--json: code %d, %v, %s", code, err, stdout)
	}
}
