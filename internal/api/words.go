package api

import (
	"strings"
	"time"

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
	case KeyVersionStateExpired:
		why += " It has expired: move its expiry to the last day of the calendar, since it cannot be removed."
	case KeyVersionStateSoftDeleted:
		why += " Its key has been deleted: recover it while the vault still keeps it, and never purge it."
	case KeyVersionStateMissing:
		why += " The vault does not have it now: speak to Microsoft support."
	}
	if l.UnverifiedSince != nil {
		why += " Its vault cannot be read since " + l.UnverifiedSince.UTC().Format(time.RFC3339) + ", so this is what was seen before."
	}
	return why
}

func path(r roll.Roll) string { return "/v1/rolls/" + r.ID }
