package roll

import (
	"fmt"
	"strings"
)

// Happening is something that happens around a roll under way: an edit of the
// tenant's declaration, or a change by hand at Microsoft. What comes of it is
// decided where the rules are asked, before each effect; a test brings each
// row about over the simulators.
type Happening struct {
	What, When string
	// Code of the attention at which the roll halts; "" where it does not halt.
	Code string
	// Comes says what comes of it where it does not halt.
	Comes string
	// Way is how the roll gets to its end.
	Way string
}

// Happenings lists them.
func Happenings() []Happening {
	const restore = "undo it, or mend what the attention names; then retry"
	return []Happening{
		{"the credential's name is changed to one that the server does not have", "before the first step", "preflight_key_unreadable", "", restore},
		{"the credential's name is changed to one that the server does not have", "while SharePoint rolls", "failed", "", "undo it, then retry: the operation is watched on, and never sent again"},
		{"the credential is refused by Entra", "before the refresh", "exchange_unauthorized", "", restore},
		{"a policy is taken out of the declaration", "before its refresh", "declaration_changed", "", "declare it again and retry, or replan"},
		{"a key is declared in another vault", "before its version is made", "declaration_changed", "", "undo it and retry, or replan"},
		{"a geo is added", "while SharePoint rolls", "", "goes on as planned", "nothing"},
		{"min_gap is changed", "before the first step", "", "goes back to awaiting_approval with the new plan", "approve the new plan"},
		{"min_gap is changed", "while SharePoint rolls", "", "goes on as planned, with the pause of its plan", "nothing"},
		{"approval is changed to not_required", "before its approval", "", "still waits for the approval that it was made with", "approve it"},
		{"the policy is deleted at Microsoft", "before its refresh", CodePolicyMissing, "", "restore it and retry, or declare what took its place and replan"},
		{"the new version is disabled by hand", "before the refresh", "key_disabled", "", "enable it again, then retry"},
		{"the key is deleted in its vault (soft-deleted)", "before the refresh", "keyvault_not_found", "", "recover it in the vault (never purge it), then retry"},
		{"a freeze is declared", "before an effect", "", "waits for the end of the freeze, and gives the SharePoint lease back", "nothing, or take the freeze out of the declaration with a second person"},
	}
}

// happeningsDoc writes the table.
func happeningsDoc(b *strings.Builder) {
	b.WriteString(`
## What happens around a roll

Edits of the declaration under way, and changes by hand at Microsoft. The declaration is read at every attempt; what is declared now is what the
rules are held against. The SharePoint lease's scope cannot be changed, and a tenant cannot be retired, while a roll is under way.

| what | when | comes to | the way out |
|---|---|---|---|
`)
	for _, h := range Happenings() {
		comes := h.Comes
		if h.Code != "" {
			comes = "`needs_attention`, attention `" + h.Code + "`"
		}
		fmt.Fprintf(b, "| %s | %s | %s | %s |\n", h.What, h.When, comes, h.Way)
	}
}
