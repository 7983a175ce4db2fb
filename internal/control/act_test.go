package control_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/keyroll/keyroll/internal/access"
	"github.com/keyroll/keyroll/internal/control"
	"github.com/keyroll/keyroll/internal/roll"
	"github.com/keyroll/keyroll/internal/store"
)

// A plan reads, and changes nothing: neither at Microsoft nor here.
func TestPlanChangesNothing(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.declare()
	before := versions(t, h)
	req := roll.Request{TenantID: h.inv.TenantID, Policies: []string{"global", "exo-na", "spo"}}
	plan, err := h.ctl.Plan(t.Context(), paul(), req) // no reason is needed
	must(t, err)
	req.Reason = roll.Reason{Code: "other", Text: "with a reason"}
	again, err := h.ctl.Plan(t.Context(), paul(), req)
	must(t, err)
	if plan.Hash == "" || plan.Hash != again.Hash || len(plan.Keys) != 6 {
		t.Errorf("plans %s and %s of %d keys", plan.Hash, again.Hash, len(plan.Keys))
	}
	if w := h.sim.World.Witness(); len(w) != 0 {
		t.Errorf("effects at Microsoft: %+v", w)
	}
	if v := h.sim.World.Violations(); len(v) != 0 {
		t.Errorf("violations: %+v", v)
	}
	rolls, err := h.st.Rolls(t.Context(), store.RollFilter{Limit: 1})
	must(t, err)
	if diff := cmp.Diff(before, versions(t, h)); len(rolls) != 0 || diff != "" {
		t.Errorf("%d rolls, ledger:\n%s", len(rolls), diff)
	}
	var denied *access.Denied
	if _, err := h.ctl.Plan(t.Context(), person("aud", access.Auditor), req); !errors.As(err, &denied) {
		t.Errorf("planned by an auditor: %v", err)
	}
}

// A roll needs its reason; a refused request leaves its idempotency key free,
// and nothing behind.
func TestRequestRefusals(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.declare()
	idem := control.Idempotency{Key: "k", BodyHash: []byte("x"), Render: func(roll.Roll) (store.Answer, error) { return store.Answer{}, nil }}
	var bad *roll.InvalidError
	if _, err := h.ctl.Request(t.Context(), rita(), roll.Request{TenantID: h.inv.TenantID, Policies: []string{"spo"}}, idem); !errors.As(err, &bad) || bad.Pointer != "/reason/code" {
		t.Errorf("requested without a reason: %v", err)
	}
	var changed *control.PlanChanged
	if _, err := h.request(roll.Request{Policies: []string{"spo"}, PlanHash: "sha256:0"}, "k"); !errors.As(err, &changed) || changed.Plan.Hash == "" {
		t.Errorf("requested with another hash: %v", err)
	}
	must(t, h.sim.World.SetEnabled("contoso-spo-a", "Contoso-SPO-A-Key001", "", false))
	var faults *control.PlanErrors
	if _, err := h.request(roll.Request{Policies: []string{"spo"}}, "k"); !errors.As(err, &faults) {
		t.Errorf("requested with a disabled key: %v", err)
	}
	must(t, h.sim.World.SetEnabled("contoso-spo-a", "Contoso-SPO-A-Key001", "", true))
	first, err := h.request(roll.Request{Policies: []string{"spo"}}, "k")
	must(t, err)
	var open *store.OpenRollError
	if _, err := h.request(roll.Request{Policies: []string{"spo"}}, "k2"); !errors.As(err, &open) || open.RollID != first.ID {
		t.Errorf("requested twice: %v", err)
	}
	if w := h.sim.World.Witness(); len(w) != 2 { // the key switched off and on, by this test
		t.Errorf("effects at Microsoft: %+v", w)
	}
}

func TestRetiredTenant(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.declare()
	_, err := h.ctl.Retire(t.Context(), admin(), h.inv.TenantID, "gone")
	must(t, err)
	if _, err := h.request(roll.Request{Policies: []string{"spo"}}, "k"); !errors.Is(err, control.ErrRetired) || !errors.Is(err, store.ErrNotFound) {
		t.Errorf("rolled: %v", err)
	}
}

// An approval and a rejection are bound to what was read.
func TestDecisionsAreBound(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.declare()
	r, err := h.request(roll.Request{Policies: []string{"spo"}}, uuid.NewString())
	must(t, err)
	var stale *control.VersionError
	if _, err := h.ctl.Reject(t.Context(), paul(), r.ID, 5, "no"); !errors.As(err, &stale) || stale.Have != 1 {
		t.Errorf("rejected at version 5: %v", err)
	}
	var changed *control.PlanChanged
	if _, err := h.ctl.Approve(t.Context(), paul(), r.ID, 1, "sha256:0", ""); !errors.As(err, &changed) || changed.Plan.Hash != r.Plan.Hash {
		t.Errorf("approved another plan: %v", err)
	}
	// Somebody replans between the reading and the writing: what was read is
	// not what would be decided on.
	next, err := h.ctl.Replan(t.Context(), rita(), r.ID, "")
	must(t, err)
	if _, err := h.st.TransitionAt(t.Context(), r, roll.Reject{By: roll.Actor{Subject: "paul", Kind: roll.Person}}); !errors.Is(err, store.ErrStale) {
		t.Errorf("a decision on an older reading: %v", err)
	}
	if _, err := h.ctl.Reject(t.Context(), paul(), r.ID, next.Version, "no"); err != nil {
		t.Errorf("rejected as it stands: %v", err)
	}
}

// Of several decisions at once on one reading one holds, and the others are
// told that what they read is no more.
func TestDecisionsAtOnce(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.declare()
	for range 8 {
		r, err := h.request(roll.Request{Policies: []string{"spo"}}, uuid.NewString())
		must(t, err)
		begin, results := make(chan struct{}), make(chan error)
		for i := range 6 {
			go func() {
				<-begin
				who := person(fmt.Sprintf("p%d", i), access.Approver)
				if i%2 == 0 {
					_, err := h.ctl.Approve(context.Background(), who, r.ID, r.Version, r.Plan.Hash, "")
					results <- err
					return
				}
				_, err := h.ctl.Reject(context.Background(), who, r.ID, r.Version, "no")
				results <- err
			}()
		}
		close(begin)
		held := 0
		for range 6 {
			var stale *control.VersionError
			switch err := <-results; {
			case err == nil:
				held++
			case !errors.As(err, &stale) || stale.Have != 2:
				t.Errorf("a decision that came too late: %v", err)
			}
		}
		if held != 1 {
			t.Fatalf("%d decisions held", held)
		}
		if _, err := h.ctl.Cancel(t.Context(), rita(), r.ID, "next"); err != nil && !strings.Contains(err.Error(), "rejected") {
			t.Fatal(err)
		}
	}
}

// late is a surveyor that takes the end of its time for trouble with a key.
type late struct{}

func (late) Probe(context.Context, roll.Inventory) map[string]roll.ChosenTransport { return nil }
func (late) Check(roll.Inventory) error                                            { return nil }

func (late) Survey(ctx context.Context, inv roll.Inventory) (roll.Observation, error) {
	<-ctx.Done()
	obs := roll.Observation{Keys: map[string]roll.KeyObservation{}}
	for _, k := range inv.Keys {
		obs.Keys[k.ID] = roll.KeyObservation{Trouble: &roll.Trouble{Code: "failed", Detail: ctx.Err().Error()}}
	}
	return obs, nil
}

func (late) Grantee(roll.Inventory) roll.Grantee { return roll.Grantee{} }

func (l late) Discover(ctx context.Context, inv roll.Inventory) (roll.Observation, error) {
	return l.Survey(ctx, inv)
}

// Reads that were cut off are not taken for findings about the tenant.
func TestPlanOutOfTime(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.declare()
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	_, err := control.New(h.st, late{}, control.Config{}).Plan(ctx, paul(), roll.Request{TenantID: h.inv.TenantID, Policies: []string{"spo"}})
	var unavailable *control.UnavailableError
	if !errors.As(err, &unavailable) {
		t.Errorf("planned out of time: %v", err)
	}
}

const (
	v1 = "11111111111111111111111111111111"
	v2 = "22222222222222222222222222222222"
	v3 = "33333333333333333333333333333333"
)

// What a new plan does with each key, by what the roll has made of it and what
// the vault shows.
func TestChoose(t *testing.T) {
	t.Parallel()
	nbf := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	for name, c := range map[string]struct {
		planned   string // new, or the version to adopt
		own       string // recorded by the roll in this round
		made      string // made by the roll in any round
		latest    string
		strangers string
		want      string // "" where a decision is wanted
		keepsNbf  bool
	}{
		"untouched":                          {planned: "new", latest: v1, want: "new", keepsNbf: true},
		"untouched, whatever is said":        {planned: "new", latest: v1, strangers: "adopt", want: "new", keepsNbf: true},
		"made in this round":                 {planned: "new", own: v2, made: v2, latest: v2, want: v2},
		"made in an earlier round":           {planned: "new", made: v2, latest: v2, want: v2},
		"made, whatever is said":             {planned: "new", own: v2, made: v2, latest: v2, strangers: "roll_again", want: v2},
		"adopted":                            {planned: v2, own: v2, latest: v2, want: v2},
		"to be adopted from the first":       {planned: v2, latest: v2, want: v2},
		"unreadable":                         {planned: "new", latest: "", want: "new", keepsNbf: true},
		"stranger, undecided":                {planned: "new", latest: v2},
		"stranger, adopted":                  {planned: "new", latest: v2, strangers: "adopt", want: v2},
		"stranger, rolled over":              {planned: "new", latest: v2, strangers: "roll_again", want: "new", keepsNbf: true},
		"stranger over our own":              {planned: "new", own: v2, made: v2, latest: v3},
		"stranger over our own, adopted":     {planned: "new", own: v2, made: v2, latest: v3, strangers: "adopt", want: v3},
		"stranger over our own, rolled over": {planned: "new", own: v2, made: v2, latest: v3, strangers: "roll_again", want: "new", keepsNbf: true},
		"stranger over what was to be taken": {planned: v2, latest: v3},
		"a word that means nothing":          {planned: "new", latest: v2, strangers: "delete"},
	} {
		r := roll.Roll{
			Keys: []roll.RollKey{{ID: "a", Name: "A", OldVersion: v1, NewVersion: c.own}},
			Plan: roll.Plan{Keys: []roll.PlanKey{{ID: "a", OldVersion: v1, Version: c.planned, KeyNotBefore: &nbf}}},
		}
		if c.made != "" {
			r.Made = []roll.Made{{Key: "a", Version: c.made}}
		}
		obs := roll.Observation{Keys: map[string]roll.KeyObservation{"a": {Latest: roll.KeyVersion{Version: c.latest}}}}
		got, err := control.Choose(r, obs, c.strangers)
		var undecided *control.ErrStrangers
		switch {
		case c.want == "":
			if !errors.As(err, &undecided) || len(undecided.Findings) != 1 || !strings.Contains(err.Error(), c.latest) {
				t.Errorf("%s: %+v, %v", name, got, err)
			}
		case err != nil || len(got) != 1 || got[0].Version != c.want || (got[0].KeyNotBefore != nil) != c.keepsNbf:
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
}
