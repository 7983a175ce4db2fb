package store_test

import (
	"fmt"
	"log/slog"
	"time"

	"github.com/keyroll/keyroll/internal/roll"
)

var (
	rita = roll.Actor{Subject: "rita@contoso.com", Kind: roll.Person}
	arno = roll.Actor{Subject: "arno@contoso.com", Kind: roll.Person}
	ada  = roll.Actor{Subject: "ada@contoso.com", Kind: roll.Person}
)

var long = time.Date(2025, 3, 2, 8, 0, 0, 0, time.UTC)

// inventory declares three policies over six keys in six vaults; tag keeps the
// vaults of several tenants apart.
func inventory(tag string) roll.Inventory {
	inv := roll.Inventory{TenantID: newID(), Name: "Tenant " + tag, Cloud: "public", Credential: tag, Approval: roll.ApprovalRequired,
		SharePoint: roll.SharePointSettings{Lease: roll.LeasePerTenant, Geos: []roll.Geo{{ID: "NAM", AdminURL: "https://" + tag + "-admin.sharepoint.com"}}},
		Policies: []roll.Policy{
			{ID: "global", Workload: roll.MultiWorkload, Name: "Global", GUID: newID(), Keys: []string{"m-a", "m-b"}},
			{ID: "exo-na", Workload: roll.Exchange, Name: "NA Mailboxes", GUID: newID(), Keys: []string{"exo-a", "exo-b"}},
			{ID: "spo", Workload: roll.SharePoint, Geo: "NAM", Primary: "spo-a", Secondary: "spo-b"},
		}}
	for _, id := range []string{"m-a", "m-b", "exo-a", "exo-b", "spo-a", "spo-b"} {
		inv.Keys = append(inv.Keys, roll.Key{ID: id, VaultURL: fmt.Sprintf("https://%s-%s.vault.azure.net", tag, id), Name: "Key-" + id})
	}
	return inv
}

// geoInventory declares n SharePoint policies, one a geo, under one lease.
func geoInventory(tag string, n int) roll.Inventory {
	inv := roll.Inventory{TenantID: newID(), Name: "Tenant " + tag, Cloud: "public", Credential: tag, Approval: roll.ApprovalNotRequired,
		SharePoint: roll.SharePointSettings{Lease: roll.LeasePerTenant}}
	for i := range n {
		geo, a, b := fmt.Sprintf("G%02d", i), fmt.Sprintf("a%02d", i), fmt.Sprintf("b%02d", i)
		inv.SharePoint.Geos = append(inv.SharePoint.Geos, roll.Geo{ID: geo, AdminURL: "https://" + tag + geo + "-admin.sharepoint.com"})
		inv.Policies = append(inv.Policies, roll.Policy{ID: "spo-" + geo, Workload: roll.SharePoint, Geo: geo, Primary: a, Secondary: b})
		for _, id := range []string{a, b} {
			inv.Keys = append(inv.Keys, roll.Key{ID: id, VaultURL: fmt.Sprintf("https://%s-%s.vault.azure.net", tag, id), Name: "Key-" + id})
		}
	}
	return inv
}

// ver makes a version id that says its key and number.
func ver(id string, n int) string { return fmt.Sprintf("%032x", fmt.Appendf(nil, "%s-%d", id, n)) }

func version(id string, n int) roll.KeyVersion {
	return roll.KeyVersion{Version: ver(id, n), Enabled: true, Created: long.Add(time.Duration(n) * time.Hour), RecoveryLevel: "Recoverable+ProtectedSubscription",
		RecoverableDays: 90, Kty: "RSA-HSM", Size: 3072, KeyOps: []string{"wrapKey", "unwrapKey"}}
}

// healthy is what a tenant in order shows.
func healthy(inv roll.Inventory) roll.Observation {
	obs := roll.Observation{At: long, Keys: map[string]roll.KeyObservation{}, Policies: map[string]roll.PolicyObservation{}, SharePoint: map[string]roll.SharePointObservation{}}
	for _, k := range inv.Keys {
		obs.Keys[k.ID] = roll.KeyObservation{Latest: version(k.ID, 2), Versions: []roll.KeyVersion{version(k.ID, 1), version(k.ID, 2)}, Rotation: roll.RotationPolicy{Readable: true}}
	}
	for _, p := range inv.Policies {
		if p.Workload == roll.SharePoint {
			a, _ := inv.KeyByID(p.Primary)
			b, _ := inv.KeyByID(p.Secondary)
			obs.SharePoint[p.Geo] = roll.SharePointObservation{Status: roll.Registered, PrimaryURI: a.URI(ver(a.ID, 2)), SecondaryURI: b.URI(ver(b.ID, 2))}
			continue
		}
		po := roll.PolicyObservation{Workload: p.Workload, Found: true, Name: p.Name, GUID: p.GUID, Enabled: true}
		for _, id := range p.Keys {
			k, _ := inv.KeyByID(id)
			po.AzureKeyIDs = append(po.AzureKeyIDs, k.URI(""))
		}
		obs.Policies[p.ID] = po
	}
	return obs
}

// declare declares the tenant with its backfill.
func (b *bench) declare(inv roll.Inventory) roll.Inventory {
	b.t.Helper()
	_, err := b.st.DeclareTenant(b.t.Context(), inv, 0, ada, healthy(inv))
	must(b.t, err)
	return inv
}

func (b *bench) plan(inv roll.Inventory, policies ...string) roll.Plan {
	b.t.Helper()
	res, err := roll.Resolve(inv, request(inv, policies...))
	must(b.t, err)
	p, err := roll.Build(inv, res, healthy(inv), b.st.Now())
	must(b.t, err)
	return p
}

func request(inv roll.Inventory, policies ...string) roll.Request {
	return roll.Request{TenantID: inv.TenantID, Policies: policies, Reason: roll.Reason{Code: "compliance_requirement", Text: "annual",
		Ticket: &roll.Ticket{Source: "servicenow", ID: "CHG0031337"}}}
}

// fresh makes a roll over the policies, not yet written.
func (b *bench) fresh(inv roll.Inventory, needsApproval bool, policies ...string) (roll.Roll, []roll.Effect) {
	b.t.Helper()
	return roll.New(newID(), request(inv, policies...), b.plan(inv, policies...), rita, needsApproval, 72*time.Hour, b.st.Now())
}

// create writes a roll that runs at once.
func (b *bench) create(inv roll.Inventory, policies ...string) roll.Roll {
	b.t.Helper()
	r, fx := b.fresh(inv, false, policies...)
	must(b.t, b.st.CreateRoll(b.t.Context(), r, fx, nil))
	return r
}

func (b *bench) read(id string) roll.Roll {
	b.t.Helper()
	r, err := b.st.Roll(b.t.Context(), id)
	must(b.t, err)
	return r
}

func (b *bench) apply(r roll.Roll, events ...roll.Event) roll.Roll {
	b.t.Helper()
	next, err := b.st.Transition(b.t.Context(), r, events...)
	must(b.t, err)
	return next
}

// stepOf finds the step of a kind and key or policy in the present round.
func (b *bench) stepOf(r roll.Roll, kind roll.StepKind, subject string) roll.Step {
	b.t.Helper()
	for _, s := range r.Steps {
		if s.Round == r.Round && s.Kind == kind && (subject == "" || s.Key == subject || s.Policy == subject) {
			return s
		}
	}
	b.t.Fatalf("no step %s %s", kind, subject)
	return roll.Step{}
}

// begin claims a step; the returned step has its epoch.
func (b *bench) begin(r roll.Roll, kind roll.StepKind, subject string) (roll.Roll, roll.Step) {
	b.t.Helper()
	n := b.stepOf(r, kind, subject).N
	r = b.apply(r, roll.Begun{N: n, Worker: "w1", RunFor: time.Minute, Settle: time.Minute})
	return r, r.Steps[n-1]
}

// do begins and ends a step well.
func (b *bench) do(r roll.Roll, kind roll.StepKind, subject string) roll.Roll {
	b.t.Helper()
	r, s := b.begin(r, kind, subject)
	return b.apply(r, roll.Done{N: s.N, Epoch: s.Epoch, Result: wellDone(r, s)})
}

func wellDone(r roll.Roll, s roll.Step) roll.Result {
	res := roll.Result{Evidence: roll.Accepted, Source: "test"}
	if s.Kind == roll.CreateKeyVersion {
		res.Version = ver(s.Key, 3)
		return res
	}
	res.Versions = map[string]string{}
	for _, k := range r.Keys {
		res.Versions[k.ID] = k.NewVersion
	}
	return res
}

// through drives the roll of Exchange or multi-workload policies to its end.
func (b *bench) through(r roll.Roll) roll.Roll {
	b.t.Helper()
	for !r.State.Final() {
		work := r.Next(b.st.Now(), func(roll.Step) bool { return false })
		if len(work) == 0 {
			b.t.Fatalf("roll %s stands still in %s", r.ID, r.State)
		}
		s := r.Steps[work[0].N-1]
		r = b.do(r, s.Kind, cmpOr(s.Key, s.Policy))
	}
	return r
}

func cmpOr(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

func discard() *slog.Logger { return slog.New(slog.DiscardHandler) }
