package keyvault

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azkeys"

	"github.com/keyroll/keyroll/internal/msapi"
	"github.com/keyroll/keyroll/internal/roll"
)

// maxPages bounds a list. A key has 500 versions at most if it is ever to be
// backed up again; a longer chain of pages is a loop.
const maxPages = 1000

// Versions lists all versions of the key, oldest first. A listed version has
// no type, size or operations: the vault does not list them.
func (c *Client) Versions(ctx context.Context, name string) ([]roll.KeyVersion, error) {
	var out []roll.KeyVersion
	err := c.call(ctx, msapi.Call{Operation: opVersions, Method: http.MethodGet}, name, func(ctx context.Context) error {
		pager := c.versions(name, nil)
		for pages := 0; pager.More(); pages++ {
			if pages == maxPages {
				return errors.New("the list of versions has no end")
			}
			page, err := pager.NextPage(ctx)
			if err != nil {
				return err
			}
			// The token goes along to wherever the next page is said to be.
			if next := page.NextLink; next != nil && *next != "" && !c.own(*next) {
				return errors.New("the vault's next page is on another host")
			}
			for _, item := range page.Value {
				kv, err := c.listed(name, item)
				if err != nil {
					return err
				}
				out = append(out, kv)
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	slices.SortFunc(out, func(a, b roll.KeyVersion) int {
		return cmp.Or(a.Created.Compare(b.Created), strings.Compare(a.Version, b.Version))
	})
	return out, nil
}

func (c *Client) own(link string) bool {
	u, err := url.Parse(link)
	return err == nil && u.Scheme == "https" && u.User == nil &&
		strings.EqualFold(u.Hostname(), c.host) && (u.Port() == "" || u.Port() == "443")
}

// RotationPolicy reads what the vault does to the key by itself. Where the
// credential may not read it, that is the answer and not an error.
func (c *Client) RotationPolicy(ctx context.Context, name string) (roll.RotationPolicy, error) {
	out := roll.RotationPolicy{Readable: true}
	err := c.call(ctx, msapi.Call{Operation: opRotationPolicy, Method: http.MethodGet}, name, func(ctx context.Context) error {
		resp, err := c.rotationPolicy(ctx, name, nil)
		if err != nil {
			return err
		}
		if a := resp.Attributes; a != nil && a.ExpiryTime != nil {
			out.ExpiryTime = *a.ExpiryTime
		}
		for _, a := range resp.LifetimeActions {
			if a != nil && a.Action != nil && a.Action.Type != nil {
				out.AutoRotate = out.AutoRotate || strings.EqualFold(string(*a.Action.Type), string(azkeys.KeyRotationPolicyActionRotate))
			}
		}
		return nil
	})
	if e, ok := msapi.AsError(err); ok && e.Kind == msapi.KindForbidden && e.Service == msapi.ServiceKeyVault {
		return roll.RotationPolicy{}, nil
	}
	if err != nil {
		return roll.RotationPolicy{}, err
	}
	return out, nil
}

// Deleted asks whether the vault keeps a deleted key of the name. Where the
// credential may not read deleted keys, that is the answer and not an error.
func (c *Client) Deleted(ctx context.Context, name string) (roll.DeletedKey, error) {
	var out roll.DeletedKey
	err := c.call(ctx, msapi.Call{Operation: opDeleted, Method: http.MethodGet}, name, func(ctx context.Context) error {
		resp, err := c.deleted(ctx, name, nil)
		if err != nil {
			return err
		}
		out = roll.DeletedKey{Readable: true, Found: true, PurgeAt: utc(resp.ScheduledPurgeDate)}
		return nil
	})
	if e, ok := msapi.AsError(err); ok && e.Service == msapi.ServiceKeyVault {
		switch e.Kind {
		case msapi.KindForbidden:
			return roll.DeletedKey{}, nil
		case msapi.KindNotFound:
			return roll.DeletedKey{Readable: true}, nil
		}
	}
	return out, err
}

// bundle is a key with its public part, as create and get return it.
func (c *Client) bundle(name string, b azkeys.KeyBundle) (roll.KeyVersion, error) {
	if b.Key == nil || b.Attributes == nil {
		return roll.KeyVersion{}, errors.New("the answer holds no key or no attributes")
	}
	kv, err := c.version(name, b.Key.KID, b.Attributes, b.Tags)
	if err != nil {
		return roll.KeyVersion{}, err
	}
	if b.Key.Kty != nil {
		kv.Kty = string(*b.Key.Kty)
	}
	kv.Size = keySize(b.Key)
	for _, op := range b.Key.KeyOps {
		if op != nil {
			kv.KeyOps = append(kv.KeyOps, string(*op))
		}
	}
	return kv, nil
}

func (c *Client) listed(name string, p *azkeys.KeyProperties) (roll.KeyVersion, error) {
	if p == nil || p.Attributes == nil {
		return roll.KeyVersion{}, errors.New("a listed version has no attributes")
	}
	return c.version(name, p.KID, p.Attributes, p.Tags)
}

// version reads what create, get and list have in common, and refuses an
// answer about another vault or key.
func (c *Client) version(name string, kid *azkeys.ID, a *azkeys.KeyAttributes, tags map[string]*string) (roll.KeyVersion, error) {
	if kid == nil {
		return roll.KeyVersion{}, errors.New("the answer names no key")
	}
	ref, ok := roll.ParseKeyURI(string(*kid))
	if !ok || ref.Version == "" || !ref.SameKey(roll.KeyRef{Host: c.host, Name: name}) {
		return roll.KeyVersion{}, fmt.Errorf("the answer is about %q, not about a version of key %q in %s", string(*kid), name, c.host)
	}
	kv := roll.KeyVersion{
		Version: ref.Version, Enabled: a.Enabled != nil && *a.Enabled,
		NotBefore: utc(a.NotBefore), Expires: utc(a.Expires), RecoveryLevel: deref(a.RecoveryLevel), HSMPlatform: deref(a.HSMPlatform),
	}
	if a.Created != nil {
		kv.Created = a.Created.UTC()
	}
	if a.RecoverableDays != nil {
		kv.RecoverableDays = int(*a.RecoverableDays)
	}
	if len(tags) > 0 {
		kv.Tags = make(map[string]string, len(tags))
		for k, v := range tags {
			kv.Tags[k] = deref(v)
		}
	}
	return kv, nil
}

func utc(t *time.Time) *time.Time {
	if t == nil {
		return nil
	}
	return new(t.UTC())
}

func deref(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

// keySize is the size in bits: an RSA key's is that of its modulus, an EC
// key's follows from its curve.
func keySize(k *azkeys.JSONWebKey) int {
	if n := bytes.TrimLeft(k.N, "\x00"); len(n) > 0 {
		return len(n) * 8
	}
	if k.Crv == nil {
		return 0
	}
	switch *k.Crv {
	case azkeys.CurveNameP256, azkeys.CurveNameP256K:
		return 256
	case azkeys.CurveNameP384:
		return 384
	case azkeys.CurveNameP521:
		return 521
	}
	return 0
}
