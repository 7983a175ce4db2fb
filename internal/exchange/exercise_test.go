package exchange_test

import (
	"context"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/keyroll/keyroll/internal/exchange"
	"github.com/keyroll/keyroll/internal/msapi"
	"github.com/keyroll/keyroll/internal/msapi/msapitest"
	"github.com/keyroll/keyroll/internal/roll"
)

// organisation is what Exercise asks of the connector.
type organisation interface {
	Policies(ctx context.Context, w roll.Workload) ([]roll.PolicyObservation, error)
	Policy(ctx context.Context, w roll.Workload, guid string) (roll.PolicyObservation, error)
	Assignment(ctx context.Context) (roll.AssignmentObservation, error)
	Test(ctx context.Context, guid string) (roll.PolicyTest, error)
	MailboxPolicyID(ctx context.Context, mailbox string) (string, error)
	Refresh(ctx context.Context, w roll.Workload, guid, opID string) (exchange.Receipt, error)
}

// Exercised says what Exercise works with. Its zero value changes nothing.
type Exercised struct {
	Workload roll.Workload // exchange or multi-workload, with one policy at least
	Mailbox  string        // "" for none
	Write    bool          // refresh the first policy
	OpID     string        // its operation
}

// Exercise is what holds for any tenant with at least one policy of the
// workload that the credential may read, and, with Write, refresh.
func Exercise(t *testing.T, c organisation, o Exercised) {
	ctx := t.Context()
	all, err := c.Policies(ctx, o.Workload)
	if err != nil || len(all) == 0 {
		t.Fatalf("%d policies, %v", len(all), err)
	}
	first := all[0]
	if !first.Found || first.Workload != o.Workload || first.GUID == "" || first.Name == "" || len(first.AzureKeyIDs) < 2 {
		t.Errorf("a policy lacks what a roll needs: %+v", first)
	}
	for _, id := range first.AzureKeyIDs {
		if _, ok := roll.ParseKeyURI(id); !ok {
			t.Errorf("%q is no key URI", id)
		}
	}
	if none, err := c.Policy(ctx, o.Workload, "00000000-1111-4222-8333-444444444444"); err != nil || none.Found {
		t.Errorf("a policy that is not there: %+v, %v", none, err)
	}
	if o.Workload == roll.MultiWorkload {
		exerciseMulti(t, c, all)
	}
	if o.Mailbox != "" {
		if _, err := c.MailboxPolicyID(ctx, o.Mailbox); err != nil {
			t.Error(err)
		}
	}
	if o.Write {
		receipt, err := c.Refresh(ctx, o.Workload, first.GUID, o.OpID)
		if err != nil || time.Since(receipt.At) > time.Minute {
			t.Errorf("%+v, %v", receipt, err)
		}
	}
	again, err := c.Policy(ctx, o.Workload, first.GUID)
	if diff := cmp.Diff(first, again); err != nil || diff != "" {
		t.Error(err, diff)
	}
}

// exerciseMulti reads the assignment, and lets the first policy be tested where
// the tenant has the cmdlet.
func exerciseMulti(t *testing.T, c organisation, all []roll.PolicyObservation) {
	at, err := c.Assignment(t.Context())
	known := slices.ContainsFunc(all, func(p roll.PolicyObservation) bool { return p.GUID == at.GUID || p.Name == at.Name })
	if err != nil || at.Assigned && !known {
		t.Errorf("the assignment names no policy of the tenant: %+v, %v", at, err)
	}
	if got, err := c.Test(t.Context(), all[0].GUID); kindOf(err) != msapi.KindForbidden && (err != nil || got.Verdict == "") {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestExerciseSimulator(t *testing.T) {
	for _, w := range []roll.Workload{roll.Exchange, roll.MultiWorkload} {
		t.Run(string(w), func(t *testing.T) {
			c, world := simulated(t)
			Exercise(t, c, Exercised{Workload: w, Mailbox: "vip@contoso.com", Write: true, OpID: "op-1"})
			if v := world.Violations(); len(v) != 0 {
				t.Errorf("violations: %+v", v)
			}
			seen := world.Witness()
			if len(seen) != 1 || !seen[0].Applied || seen[0].OperationID != "op-1" {
				t.Errorf("witness: %+v", seen)
			}
		})
	}
}

// TestExerciseLive reads a live tenant, and refreshes a policy only where the
// environment permits it.
func TestExerciseLive(t *testing.T) {
	l := msapitest.LiveTenant(t)
	w := roll.Workload(l.Var(t, "EXCHANGE_WORKLOAD"))
	c := exchange.New(l.Cloud, l.TenantID, l.Credential, l.HTTP)
	Exercise(t, c, Exercised{Workload: w, Mailbox: os.Getenv("KEYROLL_LIVE_MAILBOX"), Write: l.Write, OpID: uuid.NewString()})
}

// watched counts the calls that change something.
type watched struct {
	*exchange.Client
	changes int
}

func (w *watched) Refresh(ctx context.Context, workload roll.Workload, guid, opID string) (exchange.Receipt, error) {
	w.changes++
	return w.Client.Refresh(ctx, workload, guid, opID)
}

func TestExerciseReadsOnlyByDefault(t *testing.T) {
	c, w := simulated(t)
	for _, write := range []bool{false, true} {
		seen := &watched{Client: c}
		Exercise(t, seen, Exercised{Workload: roll.MultiWorkload, Write: write, OpID: "op-1"})
		if n := len(w.Witness()); (seen.changes > 0) != write || (n > 0) != write {
			t.Errorf("write %v: %d changing calls, %d effects", write, seen.changes, n)
		}
	}
}
