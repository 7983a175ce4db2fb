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
	"strconv"
	"strings"
	"time"
)

// New makes a world of a seed. The seed is not kept: later changes to either
// do not touch the other.
func New(seed Seed) (*World, error) {
	w := &World{
		Now: time.Now, Wall: time.Now, Logger: slog.New(slog.DiscardHandler),
		lifetime: 3599 * time.Second, randomSeed: seed.RandomSeed, clouds: clouds(),
		vaults: map[string]*vault{}, hosts: map[string]*vault{},
		geos: map[string]*geo{}, apps: map[string]*app{},
		signing: lazySigningKey(), fired: make(chan struct{}), closed: make(chan struct{}),
		requests: map[string]map[string]int{},
	}
	if seed.TokenLifetimeSeconds > 0 {
		w.lifetime = time.Duration(seed.TokenLifetimeSeconds) * time.Second
	}
	for i, c := range seed.Clouds {
		if err := w.addCloud(c); err != nil {
			return nil, misfit(step("clouds", i), err)
		}
	}
	for i, t := range seed.Tenants {
		if err := w.addTenant(t); err != nil {
			return nil, misfit(step("tenants", i), err)
		}
	}
	for i, a := range seed.Apps {
		if err := w.addApp(a); err != nil {
			return nil, misfit(step("apps", i), err)
		}
	}
	return w, nil
}

// step is one step of a MisfitError's path, into a list.
func step(list string, i int) string { return list + "/" + strconv.Itoa(i) }

// isGUID reports whether s has the form of a GUID.
func isGUID(s string) bool {
	ok, _ := regexp.MatchString(`^(?i)[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`, s)
	return ok
}

func (w *World) addTenant(s Tenant) error {
	c, ok := w.cloudNamed(s.Cloud)
	switch {
	case !isGUID(s.ID):
		return misfit("id", fmt.Errorf("id %q is not a GUID", s.ID))
	case !ok:
		return misfit("cloud", fmt.Errorf("unknown cloud %q: there are %s", s.Cloud, strings.Join(w.cloudNames(), ", ")))
	case w.tenantOf(s.ID) != nil || s.Domain != "" && w.tenantOf(s.Domain) != nil:
		return fmt.Errorf("id %s or domain %q is used twice", s.ID, s.Domain)
	}
	t := &tenant{id: strings.ToLower(s.ID), name: s.Name, domain: s.Domain, cloud: c,
		refresh: seconds(s.Exchange.RefreshSeconds), warnings: slices.Clone(s.Exchange.Warnings), exo: s.Exchange.ExchangeOddities}
	if err := checkRedirectHost(t.exo.RedirectHost); err != nil {
		return misfit("exchange/redirect_host", err)
	}
	for i, id := range s.Subscriptions {
		if !isGUID(id) {
			return misfit(step("subscriptions", i), fmt.Errorf("subscription %q is not a GUID", id))
		}
		t.subscriptions = append(t.subscriptions, strings.ToLower(id))
	}
	if len(t.subscriptions) == 0 {
		t.subscriptions = defaultSubscriptions(t)
	}
	if err := t.setLogs(s.Logs); err != nil {
		return misfit("logs", err)
	}
	for i, a := range s.Automation {
		if err := w.addAccount(t, a); err != nil {
			return misfit(step("automation", i), err)
		}
	}
	for i, v := range s.Vaults {
		if err := w.addVault(t, v); err != nil {
			return misfit(step("vaults", i), err)
		}
	}
	for i, p := range s.Exchange.Policies {
		if _, err := t.putPolicy(p); err != nil {
			return misfit(step("exchange/policies", i), err)
		}
	}
	for _, m := range s.Exchange.Mailboxes {
		t.mailboxes = append(t.mailboxes, &mailbox{address: m.Address, guid: newGUID(), policy: m.Policy, shown: m.Policy})
	}
	if err := s.SharePoint.check(); err != nil {
		return misfit("sharepoint", err)
	}
	for i, g := range s.SharePoint.Geos {
		if err := w.addGeo(t, s.SharePoint, g); err != nil {
			return misfit(step("sharepoint/geos", i), err)
		}
	}
	w.tenants = append(w.tenants, t)
	return nil
}

func (w *World) addVault(t *tenant, s Vault) error {
	name := strings.ToLower(s.Name)
	if name == "" || strings.Contains(name, ".") {
		return misfit("name", fmt.Errorf("a vault's name is its first host label"))
	}
	if _, taken := w.vaults[name]; taken {
		return misfit("name", fmt.Errorf("name %q is used twice", name))
	}
	v := &vault{name: name, host: name + "." + t.cloud.vault, hsm: s.ManagedHSM, tenant: t, serviceDenied: s.ServiceDenied,
		azure: s.Azure, platform: s.NewHSMPlatform, creates: createLimit{off: s.UnlimitedCreates, retryAfter: s.CreateRetryAfter}}
	if v.hsm {
		v.host = name + "." + t.cloud.hsm
	}
	for i, k := range s.Keys {
		if v.key(k.Name) != nil {
			return misfit(step("keys", i)+"/name", fmt.Errorf("key %q is there twice", k.Name))
		}
		key, err := newKey(v, k)
		if err == nil {
			err = misfit("rotation_policy", w.setRotation(key, k.RotationPolicy, time.Time{}))
		}
		if err != nil {
			return misfit(step("keys", i), err)
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
		return misfit("client_id", fmt.Errorf("client_id %q is not a GUID", s.ClientID))
	}
	id := strings.ToLower(s.ClientID)
	if _, twice := w.apps[id]; twice {
		return misfit("client_id", fmt.Errorf("client_id is used twice"))
	}
	a := &app{clientID: id, secrets: slices.Clone(s.Secrets), grants: map[string]Grant{}}
	for i, text := range s.Certificates {
		cert, err := parseCertificate([]byte(text))
		if err != nil {
			return misfit(step("certificates", i), err)
		}
		a.certs = append(a.certs, cert)
	}
	for i, f := range s.Federated {
		made, err := w.newFederated(f)
		if err != nil {
			return misfit(step("federated", i), err)
		}
		a.federated = append(a.federated, made)
	}
	var err error
	if a.managed, err = w.newManagedIdentity(id, s.ManagedIdentity); err != nil {
		return misfit("managed_identity", err)
	}
	for i, g := range s.Grants {
		if err := w.addGrant(a, g); err != nil {
			return misfit(step("grants", i), err)
		}
	}
	w.apps[id] = a
	return nil
}

func (w *World) addGrant(a *app, g Grant) error {
	if err := errors.Join(misfit("exchange", checkExchangeGrant(g.Exchange)), misfit("arm", checkARMGrant(g.ARM))); err != nil {
		return err
	}
	for name := range g.KeyVault {
		if name != "*" && w.vaults[name] == nil {
			return misfit("keyvault/"+name, fmt.Errorf("grant for unknown vault %q", name))
		}
	}
	tenantID := g.Tenant
	if t := w.tenantOf(g.Tenant); t != nil {
		tenantID = t.id
	} else if g.Tenant != "*" {
		return misfit("tenant", fmt.Errorf("grant in unknown tenant %q", g.Tenant))
	}
	g.KeyVault = maps.Clone(g.KeyVault)
	a.grants[tenantID] = g
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
