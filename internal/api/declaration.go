package api

import (
	"context"
	"slices"
	"time"

	"github.com/keyroll/keyroll/internal/control"
	"github.com/keyroll/keyroll/internal/roll"
	"github.com/keyroll/keyroll/internal/store"
)

// tenantScope is the lease of a whole tenant.
const tenantScope = roll.LeasePerTenant

// value is what a pointer points at, or the zero value.
func value[T any](p *T) (v T) {
	if p != nil {
		v = *p
	}
	return v
}

// pointer to a time, nil for the zero time.
func optional(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC()
	return &t
}

// notNil makes an empty list of none: the contract knows no null.
func notNil[T any](in []T) []T {
	if in == nil {
		return []T{}
	}
	return in
}

// each converts a list.
func each[A, B any](in []A, f func(A) B) []B {
	out := make([]B, 0, len(in))
	for _, a := range in {
		out = append(out, f(a))
	}
	return out
}

// inventory reads a declaration; what the contract leaves open and control
// does not check is checked here.
func inventory(tenantID string, d TenantDeclaration) (roll.Inventory, error) {
	gap, err := minGap(d.SharePoint.MinGap)
	if err != nil {
		return roll.Inventory{}, err
	}
	inv := roll.Inventory{
		TenantID: tenantID, Name: d.Name, Cloud: d.Cloud, Credential: d.Credential, Labels: d.Labels,
		Approval: string(d.Approval), Vetoes: d.Vetoes,
		Azure: roll.AzureSettings{ServicePrincipals: roll.ServicePrincipals{
			Exchange: d.Azure.ServicePrincipals.Exchange, SharePoint: d.Azure.ServicePrincipals.SharePoint, MultiWorkload: d.Azure.ServicePrincipals.MultiWorkload,
		}},
		Transports: roll.TransportSettings{Exchange: string(d.Transports.Exchange), SharePoint: string(d.Transports.SharePoint)},
		SharePoint: roll.SharePointSettings{Lease: string(d.SharePoint.Lease), MinGap: gap},
		Keys:       each(d.Keys, declaredKey), FormerKeys: each(d.FormerKeys, declaredKey),
		Policies: each(d.Policies, func(p Policy) roll.Policy {
			return roll.Policy{
				ID: p.ID, Workload: roll.Workload(p.Workload), Name: p.Name, GUID: p.GUID, Keys: p.Keys,
				SampleMailboxes: p.SampleMailboxes, Geo: p.Geo, Primary: p.Primary, Secondary: p.Secondary,
			}
		}),
	}
	inv.Windows, inv.Freezes, err = calendar(d)
	if err != nil {
		return roll.Inventory{}, err
	}
	if id := d.Diagnostics.WorkspaceID; id != "" {
		inv.Diagnostics = &roll.Diagnostics{WorkspaceID: id}
	}
	if d.Automation.Account != "" {
		inv.Automation = &roll.AutomationAccount{Account: d.Automation.Account, RunOn: d.Automation.RunOn}
	}
	for _, g := range d.SharePoint.Geos {
		inv.SharePoint.Geos = append(inv.SharePoint.Geos, roll.Geo{ID: g.ID, AdminURL: g.AdminURL, Transport: string(g.Transport)})
	}
	return inv, nil
}

func declaredKey(k Key) roll.Key { return roll.Key{ID: k.ID, VaultURL: k.VaultURL, Name: k.Name} }

// maxGap keeps a slip of the pen from holding up a roll for years.
const maxGap = 90 * 24 * time.Hour

func minGap(declared Duration) (roll.Duration, error) {
	if declared == "" {
		return control.MinGap(nil), nil
	}
	d, err := time.ParseDuration(declared)
	if err != nil || d > maxGap || d%time.Millisecond != 0 {
		return 0, refuseMember(ProblemCodeUnprocessable, "/sharepoint/min_gap", "use whole milliseconds, at most "+maxGap.String())
	}
	return control.MinGap(&d), nil
}

// tenant is a declared tenant as the contract shows it, with what is open of it.
func (h *handlers) tenant(ctx context.Context, t store.Tenant) (Tenant, error) {
	all, err := h.tenants(ctx, []store.Tenant{t})
	if err != nil {
		return Tenant{}, err
	}
	return all[0], nil
}

func (h *handlers) tenants(ctx context.Context, list []store.Tenant) ([]Tenant, error) {
	open, err := h.Store.Attentions(ctx, each(list, func(t store.Tenant) string { return t.Inventory.TenantID })...)
	if err != nil {
		return nil, err
	}
	return each(list, func(t store.Tenant) Tenant { return h.tenantWith(t, open[t.Inventory.TenantID]) }), nil
}

func (h *handlers) tenantWith(t store.Tenant, open []store.Attention) Tenant {
	return Tenant{
		NeedsAttention: slices.ContainsFunc(open, func(a store.Attention) bool { return a.Level == string(roll.LevelError) }),
		Attention: each(open, func(a store.Attention) TenantAttention {
			return TenantAttention{Code: a.Code, Level: TenantAttentionLevel(a.Level), Subject: a.Subject, Detail: a.Detail, NextAction: a.Action,
				Policies: notNil(a.Policies), Since: a.Since.UTC()}
		}),
		TenantID: t.Inventory.TenantID, Version: t.Version, DeclaredAt: t.DeclaredAt.UTC(), RetiredAt: utc(t.RetiredAt),
		Simulated: h.Simulated, Declaration: declaration(t.Inventory), Transports: tenantTransports(t.Inventory),
	}
}

// tenantTransports are the recorded transports of the places that are declared.
func tenantTransports(inv roll.Inventory) []TenantTransport {
	var out []TenantTransport
	for _, place := range inv.Places() {
		c, ok := inv.Recorded[place]
		if !ok {
			continue
		}
		w, _ := roll.SplitPlace(place)
		reads := string(c.Reads)
		if c.Reads != roll.ReadsNothing {
			reads = c.Reads.Name(w)
		}
		documented, _ := c.Via.Documented(w)
		out = append(out, TenantTransport{Place: place, Transport: TransportName(c.Via.Name(w)), Reads: TenantTransportReads(reads), Declared: c.Declared,
			Why: c.Why, Documented: documented, Since: c.Since.UTC(), ProbedAt: c.ProbedAt.UTC()})
	}
	return out
}

func utc(t *time.Time) time.Time { return value(t).UTC() }

func declaration(inv roll.Inventory) TenantDeclaration {
	key := func(k roll.Key) Key { return Key{ID: k.ID, VaultURL: k.VaultURL, Name: k.Name} }
	account := value(inv.Automation)
	return TenantDeclaration{
		Transports: Transports{Exchange: TransportsExchange(inv.Transports.Exchange), SharePoint: SharePointTransport(inv.Transports.SharePoint)},
		Automation: AutomationAccount{Account: account.Account, RunOn: account.RunOn},
		Name:       inv.Name, Cloud: inv.Cloud, Credential: inv.Credential, Labels: inv.Labels,
		Approval: TenantDeclarationApproval(inv.Approval),
		SharePoint: SharePointSettings{
			Lease: SharePointSettingsLease(inv.SharePoint.Lease), MinGap: time.Duration(inv.SharePoint.MinGap).String(),
			Geos: each(inv.SharePoint.Geos, func(g roll.Geo) Geo {
				return Geo{ID: g.ID, AdminURL: g.AdminURL, Transport: SharePointTransport(g.Transport)}
			}),
		},
		Keys: each(inv.Keys, key), FormerKeys: each(inv.FormerKeys, key),
		Policies: each(inv.Policies, func(p roll.Policy) Policy {
			return Policy{
				ID: p.ID, Workload: Workload(p.Workload), Name: p.Name, GUID: p.GUID, Keys: p.Keys,
				SampleMailboxes: p.SampleMailboxes, Geo: p.Geo, Primary: p.Primary, Secondary: p.Secondary,
			}
		}),
		Windows: each(inv.Windows, window), Freezes: each(inv.Freezes, freeze), Vetoes: inv.Vetoes,
		Azure: AzureSettings{ServicePrincipals: ServicePrincipals{
			Exchange: inv.Azure.ServicePrincipals.Exchange, SharePoint: inv.Azure.ServicePrincipals.SharePoint, MultiWorkload: inv.Azure.ServicePrincipals.MultiWorkload,
		}},
		Diagnostics: Diagnostics{WorkspaceID: value(inv.Diagnostics).WorkspaceID},
	}
}

// keyVersion is a row of the ledger with the reason why it must stay.
func keyVersion(l store.LedgerRow) KeyVersion {
	return KeyVersion{
		KeyID: l.KeyID, VaultURL: "https://" + l.VaultHost, Name: l.KeyName, Version: l.Version, CreatedAt: l.CreatedAt.UTC(),
		State: KeyVersionState(l.State), FirstSeenAt: l.FirstSeenAt.UTC(), LastVerifiedAt: l.LastVerifiedAt.UTC(),
		UnverifiedSince: utc(l.UnverifiedSince), UnverifiedReason: l.Unread,
		Origin: KeyVersionOrigin(l.Origin), RollID: l.RollID, Policies: notNil(l.Policies),
		HSMPlatform: l.HSMPlatform, MustKeep: true, Why: whyKeep(l),
	}
}

// DeclarationOf is a declaration as the contract takes and shows it.
func DeclarationOf(inv roll.Inventory) TenantDeclaration { return declaration(inv) }
