package sharepoint_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/keyroll/keyroll/internal/msapi"
	"github.com/keyroll/keyroll/internal/msapi/msapitest"
	"github.com/keyroll/keyroll/internal/roll"
	"github.com/keyroll/keyroll/internal/sharepoint"
	"github.com/keyroll/keyroll/internal/sim"
)

// site is what Exercise asks of the connector.
type site interface {
	Status(ctx context.Context) (roll.SharePointObservation, error)
	Roll(ctx context.Context, slot roll.Slot, vault, key, version, opID string) (roll.SharePointObservation, error)
}

// Exercised says what Exercise works with. Its zero value changes nothing.
type Exercised struct {
	Write               bool // roll the Primary to the version of its key
	Vault, Key, Version string
	OpID                string
	// Finish lets the time pass that a roll takes; nil does not wait for its end.
	Finish func()
}

// Exercise is what holds for any geo, and, with Write, for one that is
// Registered and whose Primary may be rolled.
func Exercise(t *testing.T, c site, o Exercised) {
	before, err := c.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if before.Status != roll.Unregistered {
		for _, slot := range []roll.Slot{roll.Primary, roll.Secondary} {
			if _, ok := roll.ParseKeyURI(before.SlotURI(slot)); !ok {
				t.Errorf("the %s slot holds %q, which is no key URI", slot, before.SlotURI(slot))
			}
		}
	}
	if before.Status.String() == "unknown" {
		t.Errorf("SharePoint shows a status that Keyroll does not know: %d", before.Status)
	}
	if o.Write {
		exerciseRoll(t, c, o, before)
	}
}

func exerciseRoll(t *testing.T, c site, o Exercised, before roll.SharePointObservation) {
	ctx := t.Context()
	if before.Status != roll.Registered {
		t.Fatalf("%+v", before)
	}
	if ref, ok := roll.ParseKeyURI(before.PrimaryURI); !ok || !strings.HasPrefix(ref.Host, o.Vault+".") || !strings.EqualFold(ref.Name, o.Key) {
		// Another key in the slot would be replaced for good.
		t.Fatalf("the primary slot holds %q", before.PrimaryURI)
	}
	begun, err := c.Roll(ctx, roll.Primary, o.Vault, o.Key, o.Version, o.OpID)
	if err != nil || begun.Status != roll.Rolling {
		t.Fatalf("%+v, %v", begun, err)
	}
	if o.Finish == nil {
		return
	}
	_, err = c.Roll(ctx, roll.Primary, o.Vault, o.Key, o.Version, o.OpID)
	if e, ok := msapi.AsError(err); !ok || e.Kind != msapi.KindRejected || e.MaybeApplied {
		t.Errorf("a second roll while the first runs: %v", err)
	}
	o.Finish()
	after, err := c.Status(ctx)
	want := before
	if ref, ok := roll.ParseKeyURI(after.PrimaryURI); !ok || ref.Version != o.Version {
		t.Errorf("the primary slot holds %q", after.PrimaryURI)
	}
	want.PrimaryURI = after.PrimaryURI
	if diff := cmp.Diff(want, after); err != nil || diff != "" {
		t.Error(err, diff)
	}
}

func TestExerciseSimulator(t *testing.T) {
	c, w := simulated(t)
	Exercise(t, c, exercised(t, w))
	if n := w.SharePointOperations(sim.ContosoTenant); n != 1 {
		t.Errorf("%d operations, want 1", n)
	}
	if v := w.Violations(); len(v) != 0 {
		t.Errorf("violations: %+v", v)
	}
}

func exercised(t *testing.T, w *sim.World) Exercised {
	return Exercised{Write: true, Vault: simVault, Key: simKey, Version: newVersion(t, w), OpID: "op-1", Finish: func() { w.Advance(time.Hour) }}
}

// TestExerciseLive reads a live geo, and rolls its Primary only where the
// environment permits it and names vault, key and version.
func TestExerciseLive(t *testing.T) {
	l := msapitest.LiveTenant(t)
	c, err := sharepoint.New(l.Cloud, l.Var(t, "ADMIN_URL"), l.Credential, l.HTTP)
	if err != nil {
		t.Fatal(err)
	}
	o := Exercised{Write: l.Write, OpID: uuid.NewString()}
	if l.Write {
		parts := strings.Split(l.Var(t, "SHAREPOINT_PRIMARY"), "/")
		if len(parts) != 3 {
			t.Fatal("KEYROLL_LIVE_SHAREPOINT_PRIMARY is not vault/key/version")
		}
		o.Vault, o.Key, o.Version = parts[0], parts[1], parts[2]
	}
	Exercise(t, c, o)
}

// watched counts the calls that change something.
type watched struct {
	*sharepoint.Client
	changes int
}

func (w *watched) Roll(ctx context.Context, slot roll.Slot, vault, key, version, opID string) (roll.SharePointObservation, error) {
	w.changes++
	return w.Client.Roll(ctx, slot, vault, key, version, opID)
}

func TestExerciseReadsOnlyByDefault(t *testing.T) {
	c, w := simulated(t)
	for _, write := range []bool{false, true} {
		seen := &watched{Client: c}
		o := exercised(t, w)
		o.Write = write
		Exercise(t, seen, o)
		if n := w.SharePointOperations(sim.ContosoTenant); (seen.changes > 0) != write || (n > 0) != write {
			t.Errorf("write %v: %d changing calls, %d operations", write, seen.changes, n)
		}
	}
}
