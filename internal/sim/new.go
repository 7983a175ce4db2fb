package sim

import (
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"
)

// New makes a world of a seed. The seed is not kept: later changes to either
// do not touch the other.
func New(seed Seed) (*World, error) {
	w := &World{
		Now: time.Now, Wall: time.Now, Logger: slog.New(slog.DiscardHandler),
		lifetime: 3599 * time.Second,
		vaults:   map[string]*vault{}, hosts: map[string]*vault{},
		geos: map[string]*geo{}, apps: map[string]*app{},
		signing: lazySigningKey(), fired: make(chan struct{}), closed: make(chan struct{}),
		requests: map[string]map[string]int{},
	}
	if seed.TokenLifetimeSeconds > 0 {
		w.lifetime = time.Duration(seed.TokenLifetimeSeconds) * time.Second
	}
	for _, t := range seed.Tenants {
		if err := w.addTenant(t); err != nil {
			return nil, fmt.Errorf("tenant %q: %w", t.Name, err)
		}
	}
	for _, a := range seed.Apps {
		if err := w.addApp(a); err != nil {
			return nil, fmt.Errorf("app %q: %w", a.ClientID, err)
		}
	}
	return w, nil
}

// isGUID reports whether s has the form of a GUID.
func isGUID(s string) bool {
	ok, _ := regexp.MatchString(`^(?i)[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`, s)
	return ok
}

func (w *World) addTenant(s Tenant) error {
	c, ok := cloudNamed(s.Cloud)
	switch {
	case !isGUID(s.ID):
		return fmt.Errorf("id %q is not a GUID", s.ID)
	case !ok:
		return fmt.Errorf("unknown cloud %q", s.Cloud)
	case w.tenantOf(s.ID) != nil || s.Domain != "" && w.tenantOf(s.Domain) != nil:
		return fmt.Errorf("id %s or domain %q is used twice", s.ID, s.Domain)
	}
	t := &tenant{id: strings.ToLower(s.ID), name: s.Name, domain: s.Domain, cloud: c,
		refresh: seconds(s.Exchange.RefreshSeconds), warnings: slices.Clone(s.Exchange.Warnings)}
	for _, id := range s.Subscriptions {
		if !isGUID(id) {
			return fmt.Errorf("subscription %q is not a GUID", id)
		}
		t.subscriptions = append(t.subscriptions, strings.ToLower(id))
	}
	for _, v := range s.Vaults {
		if err := w.addVault(t, v); err != nil {
			return fmt.Errorf("vault %q: %w", v.Name, err)
		}
	}
	for _, p := range s.Exchange.Policies {
		if _, err := t.putPolicy(p); err != nil {
			return fmt.Errorf("policy %q: %w", p.Name, err)
		}
	}
	for _, m := range s.Exchange.Mailboxes {
		t.mailboxes = append(t.mailboxes, &mailbox{address: m.Address, guid: newGUID(), policy: m.Policy, shown: m.Policy})
	}
	for _, g := range s.SharePoint.Geos {
		if err := w.addGeo(t, s.SharePoint, g); err != nil {
			return fmt.Errorf("geo %q: %w", g.ID, err)
		}
	}
	w.tenants = append(w.tenants, t)
	return nil
}

func (w *World) addVault(t *tenant, s Vault) error {
	name := strings.ToLower(s.Name)
	if name == "" || strings.Contains(name, ".") {
		return fmt.Errorf("a vault's name is its first host label")
	}
	if _, taken := w.vaults[name]; taken {
		return fmt.Errorf("name is used twice")
	}
	v := &vault{name: name, host: name + "." + t.cloud.vault, tenant: t, serviceDenied: s.ServiceDenied}
	for _, k := range s.Keys {
		if v.key(k.Name) != nil {
			return fmt.Errorf("key %q is there twice", k.Name)
		}
		key, err := newKey(v, k)
		if err != nil {
			return fmt.Errorf("key %q: %w", k.Name, err)
		}
		v.keys = append(v.keys, key)
	}
	w.vaults[name], w.hosts[v.host] = v, v
	t.vaults = append(t.vaults, v)
	return nil
}

// app is a registration with what it proves itself with and may do.
type app struct {
	clientID  string
	certs     []*x509.Certificate
	secrets   []string
	federated []federated
	managed   *managedIdentity // nil: not an identity of the machine
	grants    map[string]Grant // by tenant id, "*" for the rest
}

func (w *World) addApp(s App) error {
	if !isGUID(s.ClientID) {
		return fmt.Errorf("client_id is not a GUID")
	}
	id := strings.ToLower(s.ClientID)
	if _, twice := w.apps[id]; twice {
		return fmt.Errorf("client_id is used twice")
	}
	a := &app{clientID: id, secrets: slices.Clone(s.Secrets), grants: map[string]Grant{}}
	for _, text := range s.Certificates {
		cert, err := parseCertificate([]byte(text))
		if err != nil {
			return err
		}
		a.certs = append(a.certs, cert)
	}
	for _, f := range s.Federated {
		made, err := newFederated(f)
		if err != nil {
			return err
		}
		a.federated = append(a.federated, made)
	}
	var err error
	if a.managed, err = w.newManagedIdentity(id, s.ManagedIdentity); err != nil {
		return err
	}
	for _, g := range s.Grants {
		if err := errors.Join(checkExchangeGrant(g.Exchange), checkARMGrant(g.ARM)); err != nil {
			return err
		}
		for name := range g.KeyVault {
			if name != "*" && w.vaults[name] == nil {
				return fmt.Errorf("grant for unknown vault %q", name)
			}
		}
		tenantID := g.Tenant
		if t := w.tenantOf(g.Tenant); t != nil {
			tenantID = t.id
		} else if g.Tenant != "*" {
			return fmt.Errorf("grant in unknown tenant %q", g.Tenant)
		}
		g.KeyVault = maps.Clone(g.KeyVault)
		a.grants[tenantID] = g
	}
	w.apps[id] = a
	return nil
}

func checkExchangeGrant(s string) error {
	if !slices.Contains([]string{"", "none", "app_role", "full"}, s) {
		return fmt.Errorf("exchange grant %q is not none, app_role or full", s)
	}
	return nil
}

func checkARMGrant(s string) error {
	if !slices.Contains([]string{"", armNone, armReader, armContributor}, s) {
		return fmt.Errorf("arm grant %q is not none, reader or contributor", s)
	}
	return nil
}

// parseCertificate reads the first certificate of a PEM text; it must hold an
// RSA key, since Entra takes RS256 and PS256 only.
func parseCertificate(text []byte) (*x509.Certificate, error) {
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" {
			continue
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("parsing certificate: %w", err)
		}
		if _, ok := cert.PublicKey.(*rsa.PublicKey); !ok {
			return nil, fmt.Errorf("certificate %q holds no RSA key", cert.Subject.CommonName)
		}
		return cert, nil
	}
	return nil, fmt.Errorf("no PEM certificate found")
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }
