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
	if bad := in.check(q.vault); bad != nil {
		return *bad
	}
	k := q.vault.key(q.name) // again, under the lock: another request may just have made it
	if k == nil {
		var err error
		if k, err = newKey(q.vault, Key{Name: q.name}); err != nil {
			return vaultError(400, "BadParameter", "", "Key "+err.Error()+".")
		}
	}
	switch {
	case k.softDeleted:
		return k.nameTaken()
	case k.full():
		// The real answer is not known; a client must not depend on its code.
		return vaultError(400, "BadParameter", "", fmt.Sprintf("Key %s has %d versions, the most that a Managed HSM keeps of one key.", k.name, maxHSMVersions))
	case !q.vault.creates.take(in.Kty, w.Wall()):
		return q.vault.creates.refusal(q.vault)
	}
	if len(k.versions) == 0 {
		q.vault.keys = append(q.vault.keys, k)
	}
	if len(in.Ops) == 0 {
		in.Ops = []string{"encrypt", "decrypt", "sign", "verify", "wrapKey", "unwrapKey"} // Azure's default
	}
	if in.Attributes.Exp == nil {
		in.Attributes.Exp = k.rotation.stamp(now, false)
	}
	v := k.add(&version{kty: in.Kty, size: or(in.Size, 2048), ops: in.Ops, tags: in.Tags, by: byAPI,
		enabled: in.Attributes.Enabled == nil || *in.Attributes.Enabled,
		nbf:     in.Attributes.Nbf, exp: in.Attributes.Exp}, now)
	q.call.applied(v)
	q.call.record.End = now
	return jsonAnswer(200, v.bundle())
}

// Limits on the tags of one version.
const (
	maxTags      = 15
	maxTagLength = 256
)

// check refuses what the vault would not make a key of.
func (in createRequest) check(v *vault) *answer {
	bad := func(text string) *answer {
		ans := vaultError(400, "BadParameter", "", text)
		return &ans
	}
	size := or(in.Size, 2048)
	switch {
	case !slices.Contains([]string{"RSA", "RSA-HSM"}, in.Kty):
		return bad(fmt.Sprintf("Property kty has invalid value %q; the simulator makes RSA keys.", in.Kty))
	case v.hsm && in.Kty != "RSA-HSM":
		return bad(fmt.Sprintf("Property kty has invalid value %q; a Managed HSM makes keys of type RSA-HSM.", in.Kty))
	case size != 2048 && size != 3072 && size != 4096:
		return bad("Property key_size has an invalid value.")
	case len(in.Tags) > maxTags:
		return bad(fmt.Sprintf("Too many tags: %d, where %d are allowed.", len(in.Tags), maxTags))
	}
	for name, value := range in.Tags {
		if len(name) > maxTagLength || len(value) > maxTagLength {
			return bad(fmt.Sprintf("A tag's name or value has more than %d characters.", maxTagLength))
		}
	}
	return nil
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
func listVersions(q *keyRequest, now time.Time) answer {
	if q.key == nil || q.key.softDeleted {
		return keyNotFound(q.name)
	}
	versions := slices.Clone(q.key.versions)
	slices.SortFunc(versions, func(a, b *version) int { return strings.Compare(a.id, b.id) })
	items := make([]map[string]any, 0, len(versions))
	for _, v := range versions {
		if !v.listed && q.call.hides(v, now) {
			continue
		}
		v.listed = true
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

// bundle is a key version on the wire.
func (v *version) bundle() map[string]any {
	return withTags(map[string]any{"attributes": v.attributes(), "key": map[string]any{
		"kid": v.kid(), "kty": v.kty, "key_ops": v.ops, "n": v.modulus(), "e": "AQAB"}}, v.tags)
}

func (v *version) attributes() map[string]any {
	out := map[string]any{"enabled": v.enabled, "created": v.created, "updated": v.updated,
		"recoveryLevel": v.key.level, "recoverableDays": v.key.days, "exportable": false, "hsmPlatform": v.platform}
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
