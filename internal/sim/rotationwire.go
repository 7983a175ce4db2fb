package sim

import "time"

// getRotationPolicy shows a key's policy as Key Vault does.
func getRotationPolicy(q *keyRequest, _ time.Time) answer {
	if q.key == nil || q.key.softDeleted {
		return keyNotFound(q.name)
	}
	attributes, actions := map[string]any{}, []map[string]any{}
	// What Azure shows for a key that has none.
	policy := RotationPolicy{Actions: []RotationAction{{Action: "Notify", TimeBeforeExpiry: "P30D"}}}
	if r := q.key.rotation; r != nil {
		policy = r.RotationPolicy
		attributes["created"], attributes["updated"] = r.since.Unix(), r.since.Unix()
	}
	if policy.ExpiryTime != "" {
		attributes["expiryTime"] = policy.ExpiryTime
	}
	for _, a := range policy.Actions {
		trigger := map[string]any{}
		if a.TimeAfterCreate != "" {
			trigger["timeAfterCreate"] = a.TimeAfterCreate
		}
		if a.TimeBeforeExpiry != "" {
			trigger["timeBeforeExpiry"] = a.TimeBeforeExpiry
		}
		actions = append(actions, map[string]any{"trigger": trigger, "action": map[string]any{"type": a.Action}})
	}
	return jsonAnswer(200, map[string]any{"id": q.key.id() + "/rotationpolicy", "lifetimeActions": actions, "attributes": attributes})
}
