package survey

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/keyroll/keyroll/internal/msapi"
	"github.com/keyroll/keyroll/internal/roll"
)

// parallel bounds how many reads of one survey run at once: kind to the
// tenant's limits, and quick enough for its dozen objects.
const parallel = 6

// Survey reads all keys, policies and SharePoint geos of a declaration. What
// cannot be read becomes a Trouble in the observation, never a silence. The
// error, where there is one, joins the failures that will pass (throttled,
// unavailable): the observation beside it is as complete as it could be.
func (g *Gateway) Survey(ctx context.Context, inv roll.Inventory) (roll.Observation, error) {
	s := g.surveyor(inv)
	s.readAll(ctx, inv.UsesExchange())
	if len(inv.Keys) > 0 && len(inv.Policies) > 0 { // a plan can come of it
		s.wait.Go(func() { s.azure(ctx) })
	}
	return s.end()
}

// Discover reads what Survey reads, and which multi-workload policy is
// assigned: for comparisons, which a plan's patience does not depend on. What
// Resource Manager shows is for the checklist.
func (g *Gateway) Discover(ctx context.Context, inv roll.Inventory) (roll.Observation, error) {
	s := g.surveyor(inv)
	s.assigned = true
	s.readAll(ctx, inv.UsesExchange())
	if len(inv.Keys) > 0 {
		s.wait.Go(func() { s.azure(ctx) })
	}
	return s.end()
}

// Probe reads what has a transport, and returns which one each place has; one
// that cannot be decided now is missing.
func (g *Gateway) Probe(ctx context.Context, inv roll.Inventory) map[string]roll.ChosenTransport {
	s := g.surveyor(inv)
	s.readPlaces(ctx, inv.UsesExchange())
	s.wait.Wait()
	return s.obs.Transports
}

// Explore reads everything that can be read without a declaration: all
// policies, the assignment, and the geos and keys that inv happens to name.
func (g *Gateway) Explore(ctx context.Context, inv roll.Inventory) (roll.Observation, error) {
	s := g.surveyor(inv)
	s.assigned = true
	s.readAll(ctx, true)
	return s.end()
}

func (g *Gateway) surveyor(inv roll.Inventory) *surveyor {
	return &surveyor{g: g, inv: inv, slots: make(chan struct{}, parallel), obs: roll.Observation{At: time.Now().UTC(),
		Keys: map[string]roll.KeyObservation{}, Policies: map[string]roll.PolicyObservation{},
		SharePoint: map[string]roll.SharePointObservation{}, Troubles: map[roll.Workload]roll.Trouble{}, Transports: map[string]roll.ChosenTransport{}}}
}

// readAll begins to read all keys and geos. A tenant with only SharePoint
// policies needs no rights in Exchange. One with either kind of Exchange policy
// is read for both, since an undeclared policy of the other kind may use the
// same keys.
func (s *surveyor) readAll(ctx context.Context, exchange bool) {
	for _, k := range s.inv.Keys {
		s.read(func() { s.key(ctx, k) })
	}
	s.readPlaces(ctx, exchange)
}

// readPlaces begins to read what has a transport.
func (s *surveyor) readPlaces(ctx context.Context, exchange bool) {
	if exchange {
		s.read(func() { s.exchange(ctx) })
	}
	for _, geo := range s.inv.SharePoint.Geos {
		s.read(func() { s.geo(ctx, geo) })
	}
}

func (s *surveyor) end() (roll.Observation, error) {
	s.wait.Wait()
	return s.obs, errors.Join(s.passing...)
}

type surveyor struct {
	g     *Gateway
	inv   roll.Inventory
	slots chan struct{}
	wait  sync.WaitGroup
	// assigned: the assignment is read too.
	assigned bool

	mu      sync.Mutex
	obs     roll.Observation
	passing []error
}

func (s *surveyor) read(f func()) {
	s.wait.Add(1)
	go func() {
		defer s.wait.Done()
		s.slots <- struct{}{}
		defer func() { <-s.slots }()
		f()
	}()
}

// trouble turns a failed read into what an observation keeps.
func (s *surveyor) trouble(err error) *roll.Trouble {
	if e, ok := msapi.AsError(err); ok {
		if e.Retryable() {
			s.mu.Lock()
			s.passing = append(s.passing, err)
			s.mu.Unlock()
		}
		return &roll.Trouble{Code: string(e.Kind), Detail: e.Error()}
	}
	return &roll.Trouble{Code: "failed", Detail: err.Error()}
}

func (s *surveyor) key(ctx context.Context, k roll.Key) {
	ko, err := s.g.Key(ctx, s.inv, k)
	if err != nil {
		ko = roll.KeyObservation{Trouble: s.trouble(err)}
	}
	ko.ManagedHSM = s.g.managedHSM(s.inv, k)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.obs.Keys[k.ID] = ko
}

// Key reads one key: its newest version in full, and the one before it; all
// versions as they are listed; and its rotation policy.
func (g *Gateway) Key(ctx context.Context, inv roll.Inventory, k roll.Key) (roll.KeyObservation, error) {
	c, err := g.Vault(inv, k)
	if err != nil {
		return roll.KeyObservation{}, err
	}
	var ko roll.KeyObservation
	if ko.Latest, err = c.Get(ctx, k.Name, ""); err != nil {
		return ko, err
	}
	if ko.Versions, err = c.Versions(ctx, k.Name); err != nil {
		return ko, err
	}
	if n := len(ko.Versions); n > 1 {
		// What the newest is held against where it is to be adopted: a list
		// shows no type, size or operations.
		before := &ko.Versions[n-2]
		if before.Version == ko.Latest.Version {
			before = &ko.Versions[n-1] // made within the same second
		}
		if *before, err = c.Get(ctx, k.Name, before.Version); err != nil {
			return ko, err
		}
	}
	if ko.Rotation, err = c.RotationPolicy(ctx, k.Name); err != nil {
		return ko, err
	}
	return ko, nil
}

// Look reads a key for the ledger: its versions, its rotation policy, and
// where the vault has no such key, whether it keeps it as a deleted one. A
// recorded version that the list leaves out is asked for by itself, since a
// list may lag. It sends nothing but reads, and never asks for the key without
// a version: the list has all that the ledger asks about, and a vault may
// refuse to show a disabled version. An error means that nothing is known.
func (g *Gateway) Look(ctx context.Context, inv roll.Inventory, k roll.Key, recorded []string) (roll.LedgerLook, error) {
	c, err := g.Vault(inv, k)
	if err != nil {
		return roll.LedgerLook{}, err
	}
	var l roll.LedgerLook
	l.Versions, err = c.Versions(ctx, k.Name)
	if notFound(err) || err == nil && len(l.Versions) == 0 {
		l.Gone = true
		l.Deleted, err = c.Deleted(ctx, k.Name)
		return l, err
	}
	if err != nil {
		return l, err
	}
	for _, version := range recorded {
		if slices.ContainsFunc(l.Versions, func(v roll.KeyVersion) bool { return v.Version == version }) {
			continue
		}
		v, err := c.Get(ctx, k.Name, version)
		switch {
		case err == nil:
			l.Versions = append(l.Versions, v)
		case !notFound(err):
			return l, err
		}
	}
	l.Rotation, err = c.RotationPolicy(ctx, k.Name)
	if e, ok := msapi.AsError(err); ok && !e.Retryable() {
		l.Rotation, err = roll.RotationPolicy{}, nil
	}
	return l, err
}

func notFound(err error) bool {
	e, ok := msapi.AsError(err)
	return ok && e.Service == msapi.ServiceKeyVault && e.Kind == msapi.KindNotFound
}

// policies enters what was read of a workload.
func (s *surveyor) policies(w roll.Workload, found []roll.PolicyObservation, err error) {
	if err != nil {
		t := s.trouble(err)
		s.mu.Lock()
		defer s.mu.Unlock()
		s.obs.Troubles[w] = *t
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	declared := map[string]string{}
	for _, p := range s.inv.Policies {
		if p.Workload == w {
			declared[strings.ToLower(p.GUID)] = p.ID
			s.obs.Policies[p.ID] = roll.PolicyObservation{Workload: w, GUID: p.GUID}
		}
	}
	for _, p := range found {
		if id, ok := declared[strings.ToLower(p.GUID)]; ok {
			s.obs.Policies[id] = p
		} else {
			s.obs.Undeclared = append(s.obs.Undeclared, p)
		}
	}
}

func (s *surveyor) assignment(o roll.AssignmentObservation, err error) {
	if err != nil {
		o = roll.AssignmentObservation{Trouble: s.trouble(err)}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.obs.Assignment = &o
}

// Policy reads one Exchange or multi-workload policy, by a transport, and the
// newest version of each of its keys: what rule 5 asks about. Where no
// transport shows policies (roll.ReadsNothing), only the keys are read.
func (g *Gateway) Policy(ctx context.Context, inv roll.Inventory, p roll.Policy, via roll.Transport) (roll.PolicyObservation, map[string]roll.KeyObservation, error) {
	var seen roll.PolicyObservation
	if via != roll.ReadsNothing {
		c, err := g.policyReader(inv, via)
		if err != nil {
			return roll.PolicyObservation{}, nil, err
		}
		if seen, err = c.Policy(ctx, p.Workload, p.GUID); err != nil {
			return seen, nil, err
		}
	}
	keys := map[string]roll.KeyObservation{}
	for _, id := range p.KeyIDs() {
		k, ok := inv.KeyByID(id)
		if !ok {
			continue
		}
		v, err := g.Vault(inv, k)
		if err != nil {
			return seen, nil, err
		}
		latest, err := v.Get(ctx, k.Name, "")
		if err != nil {
			return seen, nil, err
		}
		keys[id] = roll.KeyObservation{Latest: latest}
	}
	return seen, keys, nil
}
