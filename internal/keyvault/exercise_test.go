package keyvault_test

import (
	"context"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/keyroll/keyroll/internal/keyvault"
	"github.com/keyroll/keyroll/internal/msapi"
	"github.com/keyroll/keyroll/internal/msapi/msapitest"
	"github.com/keyroll/keyroll/internal/roll"
)

// vault is what Exercise asks of the connector.
type vault interface {
	Versions(ctx context.Context, name string) ([]roll.KeyVersion, error)
	Get(ctx context.Context, name, version string) (roll.KeyVersion, error)
	RotationPolicy(ctx context.Context, name string) (roll.RotationPolicy, error)
	Create(ctx context.Context, name string, spec keyvault.CreateSpec, opID string) (roll.KeyVersion, error)
}

// Exercised says what Exercise works with. Its zero value changes nothing.
type Exercised struct {
	Key   string // a key of the vault
	Write bool   // give the key a new version
	OpID  string // its operation
}

// Exercise is what holds for any vault with a key that the credential may
// read, and, with Write, give a new version.
func Exercise(t *testing.T, c vault, o Exercised) {
	ctx := t.Context()
	before, err := c.Versions(ctx, o.Key)
	if err != nil || len(before) == 0 {
		t.Fatalf("%d versions, %v", len(before), err)
	}
	newest, err := c.Get(ctx, o.Key, "")
	if err != nil {
		t.Fatal(err)
	}
	again, err := c.Get(ctx, o.Key, newest.Version)
	if diff := cmp.Diff(newest, again); err != nil || diff != "" {
		t.Error(err, diff)
	}
	if last := before[len(before)-1]; last.Version != newest.Version {
		t.Errorf("the newest of the list is %s, the key's is %s", last.Version, newest.Version)
	}
	// A role that rolls keys need not let a client read rotation policies.
	if _, err := c.RotationPolicy(ctx, o.Key); err != nil && kindOf(err) != msapi.KindForbidden {
		t.Error(err)
	}
	if _, err := c.Get(ctx, "keyroll-no-such-key", ""); kindOf(err) != msapi.KindNotFound {
		t.Errorf("a key that is not there: %v", err)
	}
	if o.Write {
		exerciseCreate(t, c, o, newest, len(before))
	}
}

func exerciseCreate(t *testing.T, c vault, o Exercised, old roll.KeyVersion, before int) {
	ctx := t.Context()
	made, err := c.Create(ctx, o.Key, keyvault.CreateSpec{Kty: old.Kty, Size: old.Size, KeyOps: old.KeyOps, Tags: old.Tags}, o.OpID)
	if err != nil {
		t.Fatal(err)
	}
	if made.Version == old.Version || made.Tags[keyvault.OpTag] != o.OpID || !made.Enabled || made.Expires != nil {
		t.Errorf("made %+v", made)
	}
	same := func(v roll.KeyVersion) roll.KeyVersion {
		return roll.KeyVersion{Kty: v.Kty, Size: v.Size, KeyOps: v.KeyOps, RecoveryLevel: v.RecoveryLevel, RecoverableDays: v.RecoverableDays}
	}
	if diff := cmp.Diff(same(old), same(made)); diff != "" {
		t.Error(diff)
	}
	newest, err := c.Get(ctx, o.Key, "")
	if diff := cmp.Diff(made, newest); err != nil || diff != "" {
		t.Error(err, diff)
	}
	after, err := c.Versions(ctx, o.Key)
	if err != nil || len(after) != before+1 || after[len(after)-1].Tags[keyvault.OpTag] != o.OpID {
		t.Errorf("%+v, %v", after, err)
	}
}

const exerciseOp = "6f1d1f52-0000-5000-8000-000000000001"

func TestExerciseSimulator(t *testing.T) {
	c, w := simulated(t)
	Exercise(t, c, Exercised{Key: simKey, Write: true, OpID: exerciseOp})
	if n := w.VersionsCreated(simVault, simKey); n != 1 {
		t.Errorf("%d versions made, want 1", n)
	}
	if v := w.Violations(); len(v) != 0 {
		t.Errorf("violations: %+v", v)
	}
	for _, e := range w.Witness() {
		if e.RequestID != exerciseOp {
			t.Errorf("the vault saw request id %q", e.RequestID)
		}
	}
}

// TestExerciseLive reads a live vault, and makes a version only where the
// environment permits it.
func TestExerciseLive(t *testing.T) {
	l := msapitest.LiveTenant(t)
	url, key := l.Var(t, "VAULT_URL"), l.Var(t, "KEY")
	if err := l.Cloud.CheckVaultURL(url); err != nil {
		t.Fatal(err)
	}
	c, err := keyvault.New(url, l.Credential, l.HTTP)
	if err != nil {
		t.Fatal(err)
	}
	Exercise(t, c, Exercised{Key: key, Write: l.Write, OpID: uuid.NewString()})
}

// watched counts the calls that change something.
type watched struct {
	*keyvault.Client
	changes int
}

func (w *watched) Create(ctx context.Context, name string, spec keyvault.CreateSpec, opID string) (roll.KeyVersion, error) {
	w.changes++
	return w.Client.Create(ctx, name, spec, opID)
}

func TestExerciseReadsOnlyByDefault(t *testing.T) {
	c, w := simulated(t)
	for _, write := range []bool{false, true} {
		seen := &watched{Client: c}
		Exercise(t, seen, Exercised{Key: simKey, Write: write, OpID: exerciseOp})
		if n := len(w.Witness()); (seen.changes > 0) != write || (n > 0) != write {
			t.Errorf("write %v: %d changing calls, %d effects", write, seen.changes, n)
		}
	}
}
