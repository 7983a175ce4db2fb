package api

import (
	"strings"

	"github.com/keyroll/keyroll/internal/roll"
	"github.com/keyroll/keyroll/internal/store"
)

// whyKeep says why a key version must stay.
func whyKeep(l store.LedgerRow) string {
	who := "A policy may have used this key"
	switch len(l.Policies) {
	case 0:
	case 1:
		who = "Policy " + l.Policies[0] + " uses or used this key"
	default:
		who = "Policies " + strings.Join(l.Policies, ", ") + " use or used this key"
	}
	why := who + ": content may still be encrypted with this version. Never delete or disable it."
	switch KeyVersionState(l.State) {
	case KeyVersionStateDisabled:
		why += " It is disabled now: enable it again."
	case KeyVersionStateMissing:
		why += " The vault does not list it now: recover it while the vault still keeps it, and speak to Microsoft support."
	}
	return why
}

func path(r roll.Roll) string { return "/v1/rolls/" + r.ID }
