package sim

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Permission changes rights while the world runs. Nil members stay.
type Permission struct {
	Tenant   string `json:"tenant"`
	ClientID string `json:"client_id,omitempty"` // "" means every app
	// KeyVault is by vault name, "*" for those not named.
	KeyVault   map[string]bool `json:"keyvault,omitempty"`
	Exchange   *string         `json:"exchange,omitempty"`
	SharePoint *bool           `json:"sharepoint,omitempty"`
	ARM        *string         `json:"arm,omitempty"` // "none", "reader" or "contributor"
	// Service is Microsoft 365's own right to wrap with a vault's keys.
	Service map[string]bool `json:"service,omitempty"`
}

// SetPermission changes what apps, or Microsoft 365 itself, may do in a tenant.
func (w *World) SetPermission(p Permission) error {
	w.lock()
	defer w.mu.Unlock()
	t := w.tenantOf(p.Tenant)
	if t == nil {
		return fmt.Errorf("tenant %q: %w", p.Tenant, ErrUnknown)
	}
	if p.Exchange != nil {
		if err := checkExchangeGrant(*p.Exchange); err != nil {
			return err
		}
	}
	if p.ARM != nil {
		if err := checkARMGrant(*p.ARM); err != nil {
			return err
		}
	}
	for _, names := range []map[string]bool{p.KeyVault, p.Service} {
		for name := range names {
			if v := w.vaults[name]; name != "*" && (v == nil || v.tenant != t) {
				return fmt.Errorf("vault %q: %w", name, ErrUnknown)
			}
		}
	}
	if p.ClientID != "" && w.apps[strings.ToLower(p.ClientID)] == nil {
		return fmt.Errorf("app %q: %w", p.ClientID, ErrUnknown)
	}
	for id, a := range w.apps {
		if p.ClientID == "" || strings.EqualFold(p.ClientID, id) {
			a.change(t, p)
		}
	}
	for name, allowed := range p.Service {
		for _, v := range t.vaults {
			if name == "*" || v.name == name {
				v.serviceDenied = !allowed
			}
		}
	}
	return nil
}

// change gives the app a grant of its own in the tenant, made of what it had.
func (a *app) change(t *tenant, p Permission) {
	g, _ := a.grant(t)
	g.Tenant = t.id
	g.KeyVault = maps.Clone(g.KeyVault)
	if g.KeyVault == nil {
		g.KeyVault = map[string]bool{}
	}
	maps.Copy(g.KeyVault, p.KeyVault)
	set(&g.Exchange, p.Exchange)
	set(&g.SharePoint, p.SharePoint)
	set(&g.ARM, p.ARM)
	a.grants[t.id] = g
}

// AllowCertificate registers a certificate while the world runs; an unknown
// app is added with every right in every tenant.
func (w *World) AllowCertificate(clientID string, certPEM []byte) error {
	w.lock()
	defer w.mu.Unlock()
	cert, err := parseCertificate(certPEM)
	if err != nil {
		return err
	}
	a := w.apps[strings.ToLower(clientID)]
	if a == nil {
		var s Seed
		s.AllowCertificate(clientID, certPEM)
		return w.addApp(s.Apps[0])
	}
	a.certs = append(slices.Clip(a.certs), cert)
	return nil
}
