package roll_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/keyroll/keyroll/internal/roll"
)

var (
	start = time.Date(2026, 3, 2, 8, 0, 0, 0, time.UTC)

	alice = roll.Actor{Subject: "alice", Kind: roll.Person}
	bob   = roll.Actor{Subject: "bob", Kind: roll.Person}
	carol = roll.Actor{Subject: "carol", Kind: roll.Person}
	robot = roll.Actor{Subject: "robot", Kind: roll.Service}
)

const (
	rollID   = "0b7a5c1e-5f0e-4a51-9a55-0c9a6ad7c0de"
	guidM    = "11111111-0000-4000-8000-000000000001"
	guidE    = "11111111-0000-4000-8000-000000000002"
	patience = 72 * time.Hour
)

// soundVault is a vault set up as Microsoft asks; half says which of two
// subscriptions and regions it is in.
func soundVault(host string, half int) roll.VaultObservation {
	use := []roll.KeyRight{roll.MayGet, roll.MayWrap, roll.MayUnwrap}
	return roll.VaultObservation{ID: "/subscriptions/s/" + host, Subscription: []string{"s1", "s2"}[half], Location: []string{"eastus", "westeurope"}[half],
		Paired: []string{[]string{"westus", "northeurope"}[half]}, SKU: "premium", SoftDelete: new(true), RetentionDays: new(90), PurgeProtection: new(true),
		Network: &roll.VaultNetwork{DefaultAction: "Allow", Bypass: "AzureServices", PublicAccess: "Enabled"},
		Grants: []roll.VaultGrant{{Principal: "sp-exo", May: use}, {Principal: "sp-spo", May: use}, {Principal: "sp-m", May: use},
			{Principal: "self", May: []roll.KeyRight{roll.MayGet, roll.MayList, roll.MayCreate}}},
		Locks: []string{"CanNotDelete"}, SubscriptionState: "Enabled", Quota: "EnterpriseAgreement_2014-09-01", Retention: "Registered"}
}

// contoso declares three policies over six keys in six vaults.
func contoso() roll.Inventory {
	inv := roll.Inventory{
		TenantID: "7a1e0000-0000-4000-8000-000000000001", Name: "Contoso", Cloud: "public", Credential: "contoso", Approval: roll.ApprovalRequired,
		SharePoint: roll.SharePointSettings{Lease: roll.LeasePerTenant, MinGap: roll.Duration(24 * time.Hour),
			Geos: []roll.Geo{{ID: "NAM", AdminURL: "https://contoso-admin.sharepoint.com"}}},
		Policies: []roll.Policy{
			{ID: "global", Workload: roll.MultiWorkload, Name: "Contoso_Global", GUID: guidM, Keys: []string{"m-a", "m-b"}},
			{ID: "exo-na", Workload: roll.Exchange, Name: "NA Mailboxes", GUID: guidE, Keys: []string{"exo-a", "exo-b"}},
			{ID: "spo", Workload: roll.SharePoint, Geo: "NAM", Primary: "spo-a", Secondary: "spo-b"},
		},
	}
	inv.Azure.ServicePrincipals = roll.ServicePrincipals{Exchange: "sp-exo", SharePoint: "sp-spo", MultiWorkload: "sp-m"}
	for _, id := range []string{"m-a", "m-b", "exo-a", "exo-b", "spo-a", "spo-b"} {
		inv.Keys = append(inv.Keys, declared(id))
	}
	return inv
}

func declared(id string) roll.Key {
	return roll.Key{ID: id, VaultURL: "https://contoso-" + id + ".vault.azure.net", Name: "Contoso-" + id + "-Key001"}
}

// ver makes a version id that says its key and number.
func ver(id string, n int) string {
	return fmt.Sprintf("%032x", fmt.Appendf(nil, "%s-%d", id, n))
}

func version(id string, n int) roll.KeyVersion {
	return roll.KeyVersion{Version: ver(id, n), Enabled: true, Created: start.Add(time.Duration(n-100) * time.Hour), RecoveryLevel: "Recoverable+ProtectedSubscription",
		RecoverableDays: 90, Kty: "RSA-HSM", Size: 3072, KeyOps: []string{"wrapKey", "unwrapKey"}, Tags: map[string]string{"owner": "security"}}
}

// healthy is what a tenant in order shows: no finding follows from it.
func healthy(inv roll.Inventory) roll.Observation {
	obs := roll.Observation{At: start, Keys: map[string]roll.KeyObservation{}, Policies: map[string]roll.PolicyObservation{}, SharePoint: map[string]roll.SharePointObservation{}}
	for _, k := range inv.Keys {
		obs.Keys[k.ID] = roll.KeyObservation{Latest: version(k.ID, 2), Versions: []roll.KeyVersion{version(k.ID, 1), version(k.ID, 2)}, Rotation: roll.RotationPolicy{Readable: true}}
	}
	obs.Self, obs.Vaults = "self", map[string]roll.VaultObservation{}
	for i, k := range inv.Keys {
		obs.Vaults[k.Ref().Host] = soundVault(k.Ref().Host, i%2)
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

func reason() roll.Reason { return roll.Reason{Code: "compliance_requirement", Text: "annual"} }

func request(inv roll.Inventory, policies ...string) roll.Request {
	return roll.Request{TenantID: inv.TenantID, Policies: policies, Reason: reason()}
}

func build(t testing.TB, inv roll.Inventory, req roll.Request, obs roll.Observation) roll.Plan {
	t.Helper()
	res, err := roll.Resolve(inv, req)
	if err != nil {
		t.Fatal(err)
	}
	p, err := roll.Build(inv, res, obs, start)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// planFor is the plan of the named policies of a tenant in order.
func planFor(t testing.TB, inv roll.Inventory, policies ...string) roll.Plan {
	t.Helper()
	return build(t, inv, request(inv, policies...), healthy(inv))
}

// running is an approved roll over the policies, before its first step.
func running(t testing.TB, inv roll.Inventory, policies ...string) roll.Roll {
	t.Helper()
	r, _ := roll.New(rollID, request(inv, policies...), planFor(t, inv, policies...), alice, true, patience, start)
	return must(t, r, roll.Approve{By: bob, PlanHash: r.Plan.Hash}, start)
}

func must(t testing.TB, r roll.Roll, ev roll.Event, now time.Time) roll.Roll {
	t.Helper()
	next, _ := mustFx(t, r, ev, now)
	return next
}

func mustFx(t testing.TB, r roll.Roll, ev roll.Event, now time.Time) (roll.Roll, []roll.Effect) {
	t.Helper()
	next, fx, err := r.Apply(ev, now)
	if err != nil {
		t.Fatalf("%s: %v", ev.Type(), err)
	}
	return next, fx
}

// step finds the step of a kind and key (or slot's key, or policy) in the current round.
func step(t testing.TB, r roll.Roll, kind roll.StepKind, subject string) roll.Step {
	t.Helper()
	for _, s := range r.Steps {
		if s.Round == r.Round && s.Kind == kind && (subject == "" || s.Key == subject || s.Policy == subject) {
			return s
		}
	}
	t.Fatalf("no step %s %s", kind, subject)
	return roll.Step{}
}

// begin claims a step; finishing is by its N and Epoch.
func begin(t testing.TB, r roll.Roll, kind roll.StepKind, subject string, now time.Time) (roll.Roll, roll.Step) {
	t.Helper()
	n := step(t, r, kind, subject).N
	r = must(t, r, roll.Begun{N: n, Worker: "w1", RunFor: time.Minute, Settle: 2 * time.Minute}, now)
	return r, r.Steps[n-1]
}

// do begins and ends a step well.
func do(t testing.TB, r roll.Roll, kind roll.StepKind, subject string, now time.Time) roll.Roll {
	t.Helper()
	r, s := begin(t, r, kind, subject, now)
	res := roll.Result{Evidence: roll.Accepted}
	switch kind {
	case roll.CreateKeyVersion:
		res.Version = ver(s.Key, 3)
	case roll.SharePointLease:
		return must(t, r, roll.LeaseGranted{N: s.N, Epoch: s.Epoch}, now)
	case roll.SharePointAwait:
		k, _ := r.KeyByID(s.Key)
		res.Versions = map[string]string{s.Key: k.NewVersion}
	case roll.Verify, roll.RefreshPolicy:
		res.Versions = map[string]string{}
		for _, k := range r.Keys {
			res.Versions[k.ID] = k.NewVersion
		}
	}
	return must(t, r, roll.Done{N: s.N, Epoch: s.Epoch, Result: res}, now)
}

func leaves(fx []roll.Effect) (n int) {
	for _, f := range fx {
		if _, ok := f.(roll.LeaveLease); ok {
			n++
		}
	}
	return n
}

func code(err error) string {
	switch e := err.(type) {
	case nil:
		return "ok"
	case *roll.TransitionError:
		return e.Code
	}
	if err == roll.ErrAlreadyApplied {
		return "already"
	}
	return "error " + err.Error()
}
