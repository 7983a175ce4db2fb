package roll

import "fmt"

// UnprovenOperation is a SharePoint operation of a roll that has ended, of
// which nobody could tell, or has said, whether it took effect; and nothing
// that Keyroll began has moved the slot since.
type UnprovenOperation struct {
	Roll  string
	Step  int
	Geo   string
	Slot  Slot
	Key   string
	OpID  string
	Ended string // when its roll ended, RFC 3339 in UTC
	// Version that it was to put into the slot.
	Version string
}

func unprovenKinds() []FindingKind {
	return []FindingKind{{Code: "sharepoint_operation_unproven", Level: LevelWarning, Seen: "Keyroll's own rolls that have ended",
		Means:  "an earlier roll ended with a SharePoint operation of which nobody could tell whether it took effect; this plan begins another one in that slot",
		Remedy: "find out first which version the slot uses: SharePoint's status, the vault's diagnostic log, Microsoft support"}}
}

// unproven shows the approver that the plan may do again what an earlier roll
// did. It stands in the hash: who approves the plan approves this too.
func (c *inspection) unproven() {
	for _, s := range c.plan.Steps {
		if s.Kind != SharePointRollKey {
			continue
		}
		for _, u := range c.obs.Unproven {
			if u.Geo != s.Geo || u.Slot != s.Slot {
				continue
			}
			c.warn("policy:"+s.Policy, "sharepoint_operation_unproven",
				fmt.Sprintf("roll %s ended at %s with the operation of its step %d (%s) unproven: whether the %s slot of geo %s took up version %s of key %s is not known, and step %d of this plan begins another operation in that slot",
					u.Roll, u.Ended, u.Step, u.OpID, u.Slot, u.Geo, u.Version, u.Key, s.N),
				fmt.Sprintf("before approving, look at step %d of GET /v1/rolls/%s, at what SharePoint shows for the geo (Registered, and what the slot names), at the vault's diagnostic log for wraps with that version, and ask Microsoft support where these do not tell; approve when another operation does no harm either way",
					u.Step, u.Roll))
		}
	}
}
