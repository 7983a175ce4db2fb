package roll

import (
	"fmt"
	"strings"
)

// setUpRow is a row of Microsoft's set-up of Customer Key, with what preflight
// does about it.
type setUpRow struct{ n, rule, how string }

func setUpRows() []setUpRow {
	return []setUpRow{
		{"1", "two keys for each policy, in two vaults of two subscriptions", ""},
		{"2", "paid subscriptions", "by the subscription's state and the quota id of its offer, where Azure shows one"},
		{"3", "a pair of vaults for each policy", "seen in the declaration"},
		{"4", "two regions, not paired, near the tenant", "which region is near is not checked"},
		{"5", "separate administrators for each vault", "by principals that may delete keys of, or change, both vaults; who is in a group is not seen"},
		{"6", "soft delete on", ""},
		{"7", "90 days of retention", ""},
		{"8", "purge protection", ""},
		{"9", "recovery level Recoverable+ProtectedSubscription", ""},
		{"10", "mandatory retention period of the subscription", ""},
		{"11", "RSA keys", ""},
		{"12", "no expiry", "a rotation policy that would stamp one counts as well"},
		{"13", "keys enabled, within their times", ""},
		{"14", "wrapKey and unwrapKey permitted", ""},
		{"15", "get, wrapKey and unwrapKey for Microsoft 365's service", "by role or access policy, of the object ids that the declaration names"},
		{"16", "rights of whoever rolls", "of Keyroll's own identity, as its token names it; a right to delete or purge is a warning"},
		{"17", "trusted Microsoft services get through the firewall", ""},
		{"18", "Premium vaults and HSM keys", ""},
		{"19", "a backup after each change", "a vault does not show its backups: a person attests them for each vault"},
		{"20", "resource locks", "Keyroll's advice; no text of Microsoft's asks for them"},
	}
}

// PreflightDoc is docs/preflight.md.
func PreflightDoc() string {
	var b strings.Builder
	b.WriteString(`# Preflight

Made from the code (` + "`internal/roll`" + `); a test holds it to that. A plan, the preflight step of a roll, and ` + "`server check`" + ` show the same findings.

An **error** keeps a roll from beginning: it would break this roll. A **warning** is a rule of Microsoft's set-up, or advice.
**not_checked** could not be read: it is neither in order nor wrong, and its text says why. What Azure Resource Manager shows is read where the
tenant grants Keyroll's application the role Reader on the vaults' subscriptions. Of that only errors are part of a plan's hash, so that an
outage there makes no new plan and holds up no roll. All of it was verified against the simulators only.

## Rules of set-up

| row | rule | findings | how it is checked |
|---|---|---|---|
`)
	for _, r := range setUpRows() {
		var codes []string
		for _, k := range FindingKinds() {
			if hasRow(k.Rows, r.n) && k.Code != "vault_not_checked" {
				codes = append(codes, "`"+k.Code+"`")
			}
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", r.n, r.rule, dash(strings.Join(codes, ", ")), dash(r.how))
	}
	b.WriteString("\nWhere nothing of a vault can be read at Resource Manager, `vault_not_checked` stands for rows 1, 2, 4–8, 10, 15–18 and 20 of it.\n")
	b.WriteString("\n## Findings\n\n| code | level | row | seen at | what is wrong | what to do |\n|---|---|---|---|---|---|\n")
	for _, k := range FindingKinds() {
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s | %s | %s |\n", k.Code, k.Level, dash(k.Rows), k.Seen, k.Means, k.Remedy)
	}
	b.WriteString(`
## Vetoes

A tenant's declaration may judge a finding otherwise: ` + "`\"vetoes\": {\"software_key\": \"error\"}`" + `. Any finding may be made an error, what is
not_checked among them. Only these errors may be made warnings; a plan shows the level that the code has by itself beside the tenant's (` + "`own_level`" + `):

| error | why a tenant may |
|---|---|
`)
	for _, k := range FindingKinds() {
		if k.Weakenable != "" {
			fmt.Fprintf(&b, "| `%s` | %s |\n", k.Code, k.Weakenable)
		}
	}
	b.WriteString(`
## What takes a second person

A declaration that weakens what holds is not written: it waits as a change (` + "`GET /v1/tenants/{id}/changes`" + `) until another person with the role
admin, and no service, approves it by its hash. It ends ` + "`stale`" + ` where the tenant is declared anew meanwhile, and ` + "`expired`" + ` after the
patience for approvals. Nothing of it is tried before: the credential goes to no host that one person alone has named.

| member | change that weakens |
|---|---|
`)
	for _, m := range Members() {
		if m.Guarded {
			fmt.Fprintf(&b, "| `%s` | %s |\n", m.Pointer, m.Why)
		}
	}
	b.WriteString("\nIn a first declaration, which nobody has agreed to before, `approval`, `vetoes`, transports by hand, the Automation account and the log of `diagnostics` count; all other members are as the first person says.\n")
	return b.String()
}

func dash(s string) string {
	if s == "" {
		return "–"
	}
	return s
}

// hasRow says whether a list such as "1, 4–8" names the row.
func hasRow(rows, n string) bool {
	for _, part := range strings.Split(rows, ", ") {
		if part == n {
			return true
		}
		if from, to, ok := strings.Cut(part, "–"); ok {
			var a, z, x int
			if _, err := fmt.Sscan(from+" "+to+" "+n, &a, &z, &x); err == nil && a <= x && x <= z {
				return true
			}
		}
	}
	return false
}
