package survey

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/keyroll/keyroll/internal/automation"
	"github.com/keyroll/keyroll/internal/msapi"
	"github.com/keyroll/keyroll/internal/roll"
)

// errNoAccount: a runbook is to be used, and no account is declared.
var errNoAccount = errors.New("no Azure Automation account is declared (automation.account)")

// Automation gives the connector of the tenant's Automation account.
func (g *Gateway) Automation(inv roll.Inventory) (*automation.Client, error) {
	if inv.Automation == nil {
		return nil, errNoAccount
	}
	return keep(g, g.accounts, clientID(inv, inv.Automation.Account+" "+inv.Automation.RunOn), func() (*automation.Client, error) {
		cloud, cred, err := g.credential(inv)
		if err != nil {
			return nil, err
		}
		return automation.New(cloud, *inv.Automation, cred, g.hc, g.opts...)
	})
}

// ExchangeRunbook gives the tenant's Exchange Online by runbook.
func (g *Gateway) ExchangeRunbook(inv roll.Inventory) (*RunbookMail, error) {
	c, err := g.Automation(inv)
	if err != nil {
		return nil, err
	}
	return &RunbookMail{jobs: c, tenantID: inv.TenantID}, nil
}

// SharePointRunbook gives a geo by runbook.
func (g *Gateway) SharePointRunbook(inv roll.Inventory, geoID string) (*RunbookSites, error) {
	geo, ok := inv.GeoByID(geoID)
	if !ok {
		return nil, fmt.Errorf("geo %q is not declared", geoID)
	}
	c, err := g.Automation(inv)
	if err != nil {
		return nil, err
	}
	return &RunbookSites{jobs: c, tenantID: inv.TenantID, adminURL: strings.TrimSuffix(geo.AdminURL, "/")}, nil
}

// policyReader reads policies, natively or by runbook.
type policyReader interface {
	Policies(ctx context.Context, w roll.Workload) ([]roll.PolicyObservation, error)
	Policy(ctx context.Context, w roll.Workload, guid string) (roll.PolicyObservation, error)
	Assignment(ctx context.Context) (roll.AssignmentObservation, error)
}

func (g *Gateway) policyReader(inv roll.Inventory, via roll.Transport) (policyReader, error) {
	if via == roll.Automation {
		return g.ExchangeRunbook(inv)
	}
	return g.Exchange(inv)
}

// statusReader reads a geo, natively or by runbook.
type statusReader interface {
	Status(ctx context.Context) (roll.SharePointObservation, error)
}

func (g *Gateway) statusReader(inv roll.Inventory, geo string, via roll.Transport) (statusReader, error) {
	if via == roll.Automation {
		return g.SharePointRunbook(inv, geo)
	}
	return g.SharePoint(inv, geo)
}

// candidates are the transports to probe for a declaration, in order.
func candidates(inv roll.Inventory, declared string) []roll.Transport {
	switch {
	case declared == string(roll.Automation):
		return []roll.Transport{roll.Automation}
	case declared == roll.TransportInvokeCommand, declared == roll.TransportCSOM, inv.Automation == nil:
		return []roll.Transport{roll.Native}
	}
	return []roll.Transport{roll.Native, roll.Automation}
}

// choose reads a place by one transport after the other, until one shows it,
// and notes which transport the tenant has for it. read says by its error how
// the probe went; matches, whether what it read is what is declared. It returns
// the error of the last read, nil where one went well.
func (s *surveyor) choose(place string, read func(via roll.Transport) error, matches func() string) error {
	declared := s.inv.DeclaredTransport(place)
	var recorded *roll.ChosenTransport
	if c, ok := s.inv.Recorded[place]; ok {
		recorded = &c
	}
	var probes []roll.Probe
	var err error
	for _, via := range candidates(s.inv, declared) {
		err = read(via)
		p := roll.Probe{Via: via, Outcome: roll.ProbeOK}
		switch {
		case err == nil:
			if other := matches(); other != "" {
				p.Outcome, p.Detail = roll.ProbeMismatch, other
			}
		case willPass(err):
			p.Outcome, p.Detail = roll.ProbePassing, err.Error()
		default:
			p.Outcome, p.Detail = roll.ProbeRefused, err.Error()
		}
		probes = append(probes, p)
		// A failure that will pass decides nothing, and starts no runbook where
		// none was needed so far.
		if err == nil || p.Outcome == roll.ProbePassing && (recorded == nil || recorded.Reads != roll.Automation) {
			break
		}
	}
	if chosen, ok := roll.ChooseTransport(declared, recorded, probes); ok {
		s.mu.Lock()
		s.obs.Transports[place] = chosen
		s.mu.Unlock()
	}
	return err
}

func willPass(err error) bool {
	e, ok := msapi.AsError(err)
	return ok && e.Retryable()
}

// exchange reads the policies of both workloads.
func (s *surveyor) exchange(ctx context.Context) {
	workloads := []roll.Workload{roll.MultiWorkload, roll.Exchange}
	var found [2][]roll.PolicyObservation
	var failed [2]error
	var assignment roll.AssignmentObservation
	var unassigned error
	_ = s.choose(roll.Place(roll.Exchange, ""), func(via roll.Transport) error {
		c, err := s.g.policyReader(s.inv, via)
		if err != nil {
			failed = [2]error{err, err}
			return err
		}
		var wait sync.WaitGroup
		for i, w := range workloads {
			wait.Go(func() { found[i], failed[i] = c.Policies(ctx, w) })
		}
		wait.Wait()
		for _, err := range failed {
			if err != nil && willPass(err) {
				return err
			}
		}
		if err := errors.Join(failed[:]...); err != nil {
			return err
		}
		if s.assigned {
			assignment, unassigned = c.Assignment(ctx)
		}
		return nil
	}, func() string { return "" })
	for i, w := range workloads {
		s.policies(w, found[i], failed[i])
	}
	if s.assigned {
		s.assignment(assignment, errors.Join(unassigned, failed[0]))
	}
}

// geo reads one SharePoint geo.
func (s *surveyor) geo(ctx context.Context, geo roll.Geo) {
	var o roll.SharePointObservation
	err := s.choose(roll.Place(roll.SharePoint, geo.ID), func(via roll.Transport) error {
		c, err := s.g.statusReader(s.inv, geo.ID, via)
		if err == nil {
			o, err = c.Status(ctx)
		}
		return err
	}, func() string { return mismatch(s.inv, geo, o) })
	if err != nil {
		o = roll.SharePointObservation{Trouble: s.trouble(err)}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.obs.SharePoint[geo.ID] = o
}

// mismatch says in what a geo's slots differ from what is declared; "" where
// they do not, or where nothing is declared to hold them against.
func mismatch(inv roll.Inventory, geo roll.Geo, o roll.SharePointObservation) string {
	for _, p := range inv.Policies {
		if p.Workload != roll.SharePoint || p.Geo != geo.ID {
			continue
		}
		for slot, id := range map[roll.Slot]string{roll.Primary: p.Primary, roll.Secondary: p.Secondary} {
			uri := o.SlotURI(slot)
			k, ok := inv.KeyByID(id)
			ref, parsed := roll.ParseKeyURI(uri)
			// Which of the declared keys stands in which slot is the plan's affair:
			// a swap is an error there, and a slot may be replaced on request.
			known := parsed && slices.ContainsFunc(inv.Keys, func(k roll.Key) bool { return ref.SameKey(k.Ref()) })
			if uri != "" && ok && !known {
				return fmt.Sprintf("the %s slot names %s, declared is %s", slot, uri, k.URI(""))
			}
		}
	}
	return ""
}
