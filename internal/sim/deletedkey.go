package sim

import (
	"maps"
	"time"
)

// Operations on deleted keys: looking only.
const (
	OpListDeletedKeys = "list_deleted_keys"
	OpGetDeletedKey   = "get_deleted_key"
)

// deleted is what a deleted key has besides a key that is not.
func (k *key) deletion() map[string]any {
	return map[string]any{
		"recoveryId":         "https://" + k.vault.host + "/deletedkeys/" + k.name,
		"deletedDate":        k.deletedAt.Unix(),
		"scheduledPurgeDate": k.deletedAt.AddDate(0, 0, k.days).Unix(),
	}
}

func listDeletedKeys(q *keyRequest, _ time.Time) answer {
	var items []map[string]any
	for _, k := range q.vault.keys {
		if v := k.newest(); v != nil && k.softDeleted && !k.deleting {
			item := withTags(map[string]any{"kid": k.id(), "attributes": v.attributes()}, v.tags)
			maps.Copy(item, k.deletion())
			items = append(items, item)
		}
	}
	return q.page(items)
}

func getDeletedKey(q *keyRequest, _ time.Time) answer {
	if q.key == nil || !q.key.softDeleted || q.key.deleting || q.key.newest() == nil {
		return vaultError(404, "KeyNotFound", "", "Deleted Key not found: "+q.name)
	}
	out := q.key.newest().bundle()
	maps.Copy(out, q.key.deletion())
	return jsonAnswer(200, out)
}

// delete puts the key into the deleted state, or takes it out.
func (k *key) delete(deleted, deleting bool, now time.Time) {
	if deleted && !k.softDeleted {
		k.deletedAt = now
	}
	k.softDeleted, k.deleting = deleted, deleted && deleting
}

// nameTaken is why no key of the name can be made: one that is deleted has it.
func (k *key) nameTaken() answer {
	if k.deleting {
		return vaultError(409, "Conflict", "ObjectIsBeingDeleted", "Key "+k.name+" is currently being deleted and cannot be re-created; retry later.")
	}
	return vaultError(409, "Conflict", "ObjectIsDeletedButRecoverable",
		"Key "+k.name+" is currently in a deleted but recoverable state, and its name cannot be reused; in this state, the key can only be recovered or purged.")
}
