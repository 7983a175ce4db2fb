package survey

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/keyroll/keyroll/internal/arm"
	"github.com/keyroll/keyroll/internal/msapi"
	"github.com/keyroll/keyroll/internal/roll"
)

// azurePatience bounds all that a survey asks Resource Manager. What it shows
// is advice for the most part, and holds up no roll.
const azurePatience = 15 * time.Second

// Azure gives the connector of the Resource Manager of the tenant's cloud.
func (g *Gateway) Azure(inv roll.Inventory) (*arm.Client, error) {
	return keep(g, g.arms, clientID(inv, "azure"), func() (*arm.Client, error) {
		cloud, cred, err := g.credential(inv)
		if err != nil {
			return nil, err
		}
		return arm.New(cloud, cred, g.hc, g.opts...), nil
	})
}

// errNoSubscription: an identity without any role is shown an empty list.
var errNoSubscription = errors.New("the identity sees no subscription there")

// azureTrouble is trouble for reads whose failure never fails a survey, not
// even one that will pass: the plan says not_checked and does not wait.
func azureTrouble(err error) *roll.Trouble {
	if err == nil {
		return nil
	}
	if errors.Is(err, errNoSubscription) {
		return &roll.Trouble{Code: "not_granted", Detail: err.Error()}
	}
	if e, ok := msapi.AsError(err); ok {
		return &roll.Trouble{Code: string(e.Kind), Detail: e.Error()}
	}
	return &roll.Trouble{Code: "failed", Detail: err.Error()}
}

// azure reads the declared vaults at Resource Manager.
func (s *surveyor) azure(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, azurePatience)
	defer cancel()
	a := &azureReader{s: s, wanted: map[string]bool{}, vaults: map[string]roll.VaultObservation{}, roles: &arm.Roles{}}
	for _, k := range s.inv.Keys {
		a.wanted[k.Ref().Host] = true
	}
	c, err := s.g.Azure(s.inv)
	var self string
	if err == nil {
		a.c = c
		self, err = c.Self(ctx)
	}
	var subs []arm.Subscription
	if err == nil {
		subs, err = c.Subscriptions(ctx)
	}
	if err == nil && len(subs) == 0 {
		err = errNoSubscription
	}
	for _, sub := range subs {
		a.wait.Go(func() { a.subscription(ctx, sub) })
	}
	a.wait.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.obs.Self, s.obs.Vaults = self, a.vaults
	s.obs.VaultsTrouble = azureTrouble(firstPassing(append(a.failed, err)...))
}

// firstPassing joins errors, those that will pass first: beside one that will
// not, a vault that was not seen may be there all the same, so they count.
func firstPassing(errs ...error) error {
	place := func(err error) int {
		if e, ok := msapi.AsError(err); ok && e.Retryable() {
			return 0
		}
		return 1
	}
	slices.SortStableFunc(errs, func(x, y error) int { return cmp.Compare(place(x), place(y)) })
	return errors.Join(errs...)
}

type azureReader struct {
	s      *surveyor
	c      *arm.Client
	wanted map[string]bool // hosts
	roles  *arm.Roles
	wait   sync.WaitGroup

	mu     sync.Mutex
	vaults map[string]roll.VaultObservation
	failed []error
}

// do runs a read in one of the survey's slots.
func (a *azureReader) do(f func()) {
	a.s.slots <- struct{}{}
	defer func() { <-a.s.slots }()
	f()
}

func (a *azureReader) subscription(ctx context.Context, sub arm.Subscription) {
	var vaults []arm.Vault
	var err error
	a.do(func() { vaults, err = a.c.Vaults(ctx, sub.ID) })
	if err != nil {
		a.mu.Lock()
		defer a.mu.Unlock()
		a.failed = append(a.failed, err)
		return
	}
	ours := vaults[:0]
	for _, v := range vaults {
		if a.wanted[v.Host] {
			ours = append(ours, v)
		}
	}
	if len(ours) == 0 {
		return
	}
	var locks, pairs map[string][]string
	var retention string
	var lockErr, retentionErr error
	a.do(func() { locks, lockErr = a.c.Locks(ctx, sub.ID) })
	a.do(func() { retention, retentionErr = a.c.Retention(ctx, sub.ID) })
	a.do(func() { pairs, _ = a.c.Pairs(ctx, sub.ID) }) // no pairs, no advice about them
	for _, v := range ours {
		o := v.VaultObservation
		o.SubscriptionState, o.Quota, o.Paired = sub.State, sub.Quota, pairs[o.Location]
		o.Retention, o.RetentionTrouble = retention, azureTrouble(retentionErr)
		o.Locks, o.LocksTrouble = arm.LocksOn(locks, o.ID), azureTrouble(lockErr)
		a.wait.Go(func() { a.grants(ctx, v, o) })
	}
}

// grants reads who may do what by role. Where access policies say who may use
// the keys, roles still say who may change the vault.
func (a *azureReader) grants(ctx context.Context, v arm.Vault, o roll.VaultObservation) {
	if !o.HSM {
		var found []roll.VaultGrant
		var err error
		a.do(func() { found, err = a.c.Grants(ctx, o.ID, a.roles) })
		for _, g := range found {
			if !v.ByRoles {
				g.May = nil // a role's data actions count for nothing there
			}
			o.Grants = append(o.Grants, g)
		}
		if v.ByRoles {
			o.GrantsTrouble = azureTrouble(err)
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.vaults[v.Host] = o
}
