package roll

import (
	"fmt"
	"time"
)

func backupKinds() []FindingKind {
	return []FindingKind{{Code: "backup_due", Level: LevelWarning, Rows: "19", Seen: "what people attested", Means: "a key is backed up after every change, one copy online and one offline",
		Remedy: "back the key up and attest it (POST /v1/tenants/{id}/backups)"}}
}

// backups reminds of keys whose newest version no attested backup holds. It
// comes and goes with a person's word, so no plan is another one for it.
func (c *inspection) backups() {
	if c.obs.Backups == nil {
		return
	}
	for _, pk := range c.plan.Keys {
		v := c.obs.Keys[pk.ID].Latest
		taken, ok := c.obs.Backups[pk.ID]
		if v.Version == "" || ok && !taken.Before(v.Created.Add(time.Second)) {
			continue
		}
		seen := fmt.Sprintf("nobody has attested a backup of key %s with version %s", pk.Name, v.Version)
		if ok {
			seen += "; the newest one was taken at " + taken.UTC().Format(time.RFC3339)
		}
		c.found = append(c.found, Finding{Code: "backup_due", Level: LevelWarning, Subject: "key:" + pk.ID, Passing: true, Seen: seen,
			Remedy: "back the key up, one copy online and one offline, and attest it (POST /v1/tenants/{id}/backups); do it again after the roll"})
	}
}

// VersionCreated is when the vault made the version that the roll gave the
// key; ok is false where none is recorded.
func (r Roll) VersionCreated(keyID string) (at time.Time, ok bool) {
	k, _ := r.KeyByID(keyID)
	for _, s := range r.Steps {
		if s.Kind == CreateKeyVersion && s.Key == keyID && k.NewVersion != "" && s.Result.Version == k.NewVersion && s.Result.CreatedAt != nil {
			return *s.Result.CreatedAt, true
		}
	}
	return time.Time{}, false
}
