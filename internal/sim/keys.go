package sim

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// createRequest is the body of POST keys/{name}/create. Members that the
// simulator has no use for are left alone, as the real service does.
type createRequest struct {
	Kty        string            `json:"kty"`
	Size       int               `json:"key_size"`
	Ops        []string          `json:"key_ops"`
	Tags       map[string]string `json:"tags"`
	Attributes struct {
		Enabled *bool  `json:"enabled"`
		Nbf     *int64 `json:"nbf"`
		Exp     *int64 `json:"exp"`
	} `json:"attributes"`
}

// createKey makes the key, or a new version when the name exists.
func (w *World) createKey(q *keyRequest, now time.Time) answer {
	var in createRequest
	if err := json.Unmarshal(q.body, &in); err != nil {
		return vaultError(400, "BadParameter", "", "The request body is not valid: "+err.Error()+".")
	}
	if !slices.Contains([]string{"RSA", "RSA-HSM"}, in.Kty) {
		return vaultError(400, "BadParameter", "", fmt.Sprintf("Property kty has invalid value %q; the simulator makes RSA keys.", in.Kty))
	}
	if size := or(in.Size, 2048); size != 2048 && size != 3072 && size != 4096 {
		return vaultError(400, "BadParameter", "", "Property key_size has an invalid value.")
	}
	k := q.vault.key(q.name) // again, under the lock: another request may just have made it
	if k == nil {
		var err error
		if k, err = newKey(q.vault, Key{Name: q.name}); err != nil {
			return vaultError(400, "BadParameter", "", "Key "+err.Error()+".")
		}
		q.vault.keys = append(q.vault.keys, k)
	}
	if k.softDeleted {
		return vaultError(409, "Conflict", "ObjectIsDeletedButRecoverable",
			"Key "+k.name+" is currently in a deleted but recoverable state, and its name cannot be reused; in this state, the key can only be recovered or purged.")
	}
	if len(in.Ops) == 0 {
		in.Ops = []string{"encrypt", "decrypt", "sign", "verify", "wrapKey", "unwrapKey"} // Azure's default
	}
	v := k.add(&version{kty: in.Kty, size: or(in.Size, 2048), ops: in.Ops, tags: in.Tags, by: byAPI,
		enabled: in.Attributes.Enabled == nil || *in.Attributes.Enabled,
		nbf:     in.Attributes.Nbf, exp: in.Attributes.Exp}, now)
	q.call.applied(v)
	q.call.record.End = now
	return jsonAnswer(200, v.bundle())
}

// getKey returns the named version, or the newest.
func getKey(q *keyRequest, _ time.Time) answer {
	if q.key == nil || q.key.softDeleted {
		return keyNotFound(q.name)
	}
	v := q.key.newest()
	if len(q.path) > 0 && q.path[0] != "" {
		v = q.key.version(q.path[0])
	}
	if v == nil {
		return keyNotFound(q.name + "/" + strings.Join(q.path, "/"))
	}
	return jsonAnswer(200, v.bundle())
}

// listVersions pages through the versions in the order of their ids: the real
// order is unspecified, and a client that relies on one shall notice.
func listVersions(q *keyRequest, _ time.Time) answer {
	if q.key == nil || q.key.softDeleted {
		return keyNotFound(q.name)
	}
	versions := slices.Clone(q.key.versions)
	slices.SortFunc(versions, func(a, b *version) int { return strings.Compare(a.id, b.id) })
	items := make([]map[string]any, 0, len(versions))
	for _, v := range versions {
		items = append(items, withTags(map[string]any{"kid": v.kid(), "attributes": v.attributes()}, v.tags))
	}
	return q.page(items)
}

func listKeys(q *keyRequest, _ time.Time) answer {
	var items []map[string]any
	for _, k := range q.vault.keys {
		if v := k.newest(); v != nil && !k.softDeleted {
			items = append(items, withTags(map[string]any{"kid": k.id(), "attributes": v.attributes()}, v.tags))
		}
	}
	return q.page(items)
}

// page cuts one page out of items; 25 items unless maxresults wants fewer.
func (q *keyRequest) page(items []map[string]any) answer {
	query := q.r.URL.Query()
	size := 25
	if text := query.Get("maxresults"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 || n > 25 {
			return vaultError(400, "BadParameter", "", "maxresults must be between 1 and 25.")
		}
		size = n
	}
	skip, err := strconv.Atoi(or(query.Get("$skiptoken"), "0"))
	if err != nil || skip < 0 || skip > len(items) {
		return vaultError(400, "BadParameter", "", "$skiptoken is not valid.")
	}
	end := min(skip+size, len(items))
	out := map[string]any{"value": items[skip:end], "nextLink": nil}
	if skip == end {
		out["value"] = []any{}
	}
	if end < len(items) {
		next := url.Values{"api-version": {query.Get("api-version")}, "$skiptoken": {strconv.Itoa(end)}, "maxresults": {strconv.Itoa(size)}}
		out["nextLink"] = "https://" + q.vault.host + q.r.URL.Path + "?" + next.Encode()
	}
	return jsonAnswer(200, out)
}

func getRotationPolicy(q *keyRequest, _ time.Time) answer {
	if q.key == nil || q.key.softDeleted {
		return keyNotFound(q.name)
	}
	attributes, actions := map[string]any{}, []map[string]any{}
	policy := q.key.rotation
	if policy == nil { // what Azure shows for a key that has none
		policy = &RotationPolicy{Actions: []RotationAction{{Action: "Notify", TimeBeforeExpiry: "P30D"}}}
	} else if v := q.key.newest(); v != nil {
		attributes["created"], attributes["updated"] = v.created, v.created
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

// bundle is a key version on the wire.
func (v *version) bundle() map[string]any {
	return withTags(map[string]any{"attributes": v.attributes(), "key": map[string]any{
		"kid": v.kid(), "kty": v.kty, "key_ops": v.ops, "n": v.modulus(), "e": "AQAB"}}, v.tags)
}

func (v *version) attributes() map[string]any {
	out := map[string]any{"enabled": v.enabled, "created": v.created, "updated": v.updated,
		"recoveryLevel": v.key.level, "recoverableDays": v.key.days, "exportable": false, "hsmPlatform": v.key.platform}
	if v.nbf != nil {
		out["nbf"] = *v.nbf
	}
	if v.exp != nil {
		out["exp"] = *v.exp
	}
	return out
}

func withTags(m map[string]any, tags map[string]string) map[string]any {
	if len(tags) > 0 {
		m["tags"] = tags
	}
	return m
}

// modulus is a number of the right size that is the same at every read. It is
// nobody's key: nothing in the simulator encrypts.
func (v *version) modulus() string {
	var out []byte
	for i := uint32(0); len(out) < v.size/8; i++ {
		sum := sha256.Sum256(binary.BigEndian.AppendUint32([]byte(v.id), i))
		out = append(out, sum[:]...)
	}
	out[0] |= 0x80
	out[v.size/8-1] |= 1
	return base64.RawURLEncoding.EncodeToString(out[:v.size/8])
}

func keyNotFound(name string) answer {
	return vaultError(http.StatusNotFound, "KeyNotFound", "", "A key with (name/id) "+name+" was not found in this key vault. If you recently deleted this key you may be able to recover it using the correct recovery command.")
}

// vaultError is Key Vault's error document.
func vaultError(status int, code, inner, message string) answer {
	e := map[string]any{"code": code, "message": message}
	if inner != "" {
		e["innererror"] = map[string]any{"code": inner}
	}
	return jsonAnswer(status, map[string]any{"error": e})
}
