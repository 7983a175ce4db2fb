package keyvault

import (
	"context"
	"errors"
	"maps"
	"net/http"

	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azkeys"

	"github.com/keyroll/keyroll/internal/msapi"
	"github.com/keyroll/keyroll/internal/roll"
)

// CreateSpec is what a new version shall be. Key Vault copies nothing from the
// version before, so all of it is said. An expiry cannot be expressed: a root
// key must never have one.
type CreateSpec = roll.CreateSpec

// Create makes a new version of the key, tagged with opID, and returns it as
// the vault shows it. It is not idempotent: a repeat makes another version.
// After an error with MaybeApplied, list the versions and look for the tag.
func (c *Client) Create(ctx context.Context, name string, spec CreateSpec, opID string) (roll.KeyVersion, error) {
	call := msapi.Call{Operation: opCreate, Method: http.MethodPost, OpID: opID, Mutating: true}
	if opID == "" || spec.Kty == "" {
		return roll.KeyVersion{}, msapi.Invalid(msapi.ServiceKeyVault, opCreate, "a new version needs an operation id and a key type")
	}
	var out roll.KeyVersion
	err := c.call(ctx, call, name, func(ctx context.Context) error {
		resp, err := c.create(ctx, name, parameters(spec, opID), nil)
		if err != nil {
			return err
		}
		out, err = c.bundle(name, resp.KeyBundle)
		return err
	})
	return out, err
}

func parameters(s CreateSpec, opID string) azkeys.CreateKeyParameters {
	tags := map[string]string{}
	maps.Copy(tags, s.Tags)
	// The predecessor's tags may hold the id of the operation that made it.
	tags[OpTag] = opID
	p := azkeys.CreateKeyParameters{Kty: new(azkeys.KeyType(s.Kty)), Tags: map[string]*string{}}
	for k, v := range tags {
		p.Tags[k] = &v
	}
	if s.Size > 0 {
		p.KeySize = new(int32(s.Size))
	}
	for _, op := range s.KeyOps {
		p.KeyOps = append(p.KeyOps, new(azkeys.KeyOperation(op)))
	}
	if s.NotBefore != nil {
		p.KeyAttributes = &azkeys.KeyAttributes{NotBefore: new(s.NotBefore.UTC())}
	}
	return p
}

// Get reads one version of the key; version "" is the newest, the one that a
// reference without a version means.
func (c *Client) Get(ctx context.Context, name, version string) (roll.KeyVersion, error) {
	if version != "" && !keyName.MatchString(version) {
		return roll.KeyVersion{}, msapi.Invalid(msapi.ServiceKeyVault, opGet, "this is not a key version")
	}
	var out roll.KeyVersion
	err := c.call(ctx, msapi.Call{Operation: opGet, Method: http.MethodGet}, name, func(ctx context.Context) error {
		resp, err := c.get(ctx, name, version, nil)
		if err != nil {
			return err
		}
		out, err = c.bundle(name, resp.KeyBundle)
		if err == nil && version != "" && out.Version != version {
			return errors.New("the vault answered with another version than the one asked for")
		}
		return err
	})
	return out, err
}
