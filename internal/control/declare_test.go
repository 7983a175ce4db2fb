package control_test

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/keyroll/keyroll/internal/access"
	"github.com/keyroll/keyroll/internal/control"
	"github.com/keyroll/keyroll/internal/roll"
	"github.com/keyroll/keyroll/internal/sim"
	"github.com/keyroll/keyroll/internal/store"
)

// Declarations that contradict themselves, each with the member that is wrong.
func TestDeclarationsRefused(t *testing.T) {
	t.Parallel()
	type inv = roll.Inventory
	for name, c := range map[string]struct {
		change  func(*inv)
		pointer string
	}{
		"tenant id":       {func(i *inv) { i.TenantID = "contoso" }, "/tenant_id"},
		"key id":          {func(i *inv) { i.Keys[1].ID = "A B" }, "/keys/1/id"},
		"key id twice":    {func(i *inv) { i.Keys[1].ID = "m-a" }, "/keys/1"},
		"key twice":       {func(i *inv) { i.Keys[1].VaultURL, i.Keys[1].Name = i.Keys[0].VaultURL, "CONTOSO-M365-A-KEY001" }, "/keys/1"},
		"former id taken": {func(i *inv) { i.FormerKeys = []roll.Key{{ID: "m-a", VaultURL: "https://x.vault.azure.net", Name: "x"}} }, "/former_keys/0"},
		"former key still here": {func(i *inv) {
			i.FormerKeys = []roll.Key{{ID: "old", VaultURL: i.Keys[0].VaultURL, Name: i.Keys[0].Name}}
		}, "/former_keys/0"},
		"policy on former key": {func(i *inv) {
			i.FormerKeys = []roll.Key{{ID: "old", VaultURL: "https://x.vault.azure.net", Name: "x"}}
			i.Policies[0].Keys[1] = "old"
		}, "/policies/0"},
		"geo twice":              {func(i *inv) { i.SharePoint.Geos = append(i.SharePoint.Geos, i.SharePoint.Geos[0]) }, "/sharepoint/geos/1/id"},
		"policy id":              {func(i *inv) { i.Policies[1].ID = "" }, "/policies/1/id"},
		"policy twice":           {func(i *inv) { i.Policies[1].ID = "global" }, "/policies/1/id"},
		"guid twice":             {func(i *inv) { i.Policies[1].GUID = i.Policies[0].GUID }, "/policies/1/guid"},
		"no guid":                {func(i *inv) { i.Policies[0].GUID = "" }, "/policies/0/guid"},
		"workload":               {func(i *inv) { i.Policies[0].Workload = "teams" }, "/policies/0/workload"},
		"unknown geo":            {func(i *inv) { i.Policies[2].Geo = "EUR" }, "/policies/2/geo"},
		"one key in two slots":   {func(i *inv) { i.Policies[2].Secondary = "spo-a" }, "/policies/2/secondary"},
		"undeclared key":         {func(i *inv) { i.Policies[2].Primary = "x" }, "/policies/2"},
		"key named twice":        {func(i *inv) { i.Policies[0].Keys[1] = "m-a" }, "/policies/0"},
		"one key":                {func(i *inv) { i.Policies[0].Keys = []string{"m-a"} }, "/policies/0/keys"},
		"three keys":             {func(i *inv) { i.Policies[0].Keys = []string{"m-a", "m-b", "exo-a"} }, "/policies/0/keys"},
		"second policy of a geo": {func(i *inv) { p := i.Policies[2]; p.ID = "spo-2"; i.Policies = append(i.Policies, p) }, "/policies/3/geo"},
		"keys at SharePoint":     {func(i *inv) { i.Policies[2].Keys = []string{"spo-a"} }, "/policies/2/keys"},
		"guid at SharePoint":     {func(i *inv) { i.Policies[2].GUID = i.Policies[0].GUID[:35] + "0" }, "/policies/2/guid"},
		"mailbox at SharePoint":  {func(i *inv) { i.Policies[2].SampleMailboxes = []string{"a@b"} }, "/policies/2/sample_mailboxes"},
		"geo at Exchange":        {func(i *inv) { i.Policies[1].Geo = "NAM" }, "/policies/1/geo"},
		"slots at Exchange":      {func(i *inv) { i.Policies[1].Primary = "exo-a" }, "/policies/1/primary"},
		"veto on nothing":        {func(i *inv) { i.Vetoes = map[string]string{"key_disable": "error"} }, "/vetoes/key_disable"},
		"veto of safety":         {func(i *inv) { i.Vetoes = map[string]string{"key_disabled": "warning"} }, "/vetoes/key_disabled"},
		"slot at multi-workload": {func(i *inv) { i.Policies[0].Secondary = "m-a" }, "/policies/0/secondary"},
	} {
		i := contoso()
		c.change(&i)
		_, err := control.Normalise(i)
		var bad *roll.InvalidError
		if !errors.As(err, &bad) || bad.Pointer != c.pointer || bad.Detail == "" {
			t.Errorf("%s: %v, want %s", name, err, c.pointer)
		}
	}
}

func TestDeclarationDefaults(t *testing.T) {
	t.Parallel()
	in := contoso()
	in.Policies[0].GUID = "ABCDEF00" + in.Policies[0].GUID[8:]
	given := in.Policies[0].GUID
	out, err := control.Normalise(in)
	must(t, err)
	if out.Approval != roll.ApprovalRequired || out.SharePoint.Lease != roll.LeasePerTenant || out.Policies[0].GUID == given || in.Policies[0].GUID != given {
		t.Errorf("normalised %+v, and left %s", out, in.Policies[0].GUID)
	}
	gap := 3 * time.Hour
	if control.MinGap(nil) != roll.Duration(24*time.Hour) || control.MinGap(&gap) != roll.Duration(gap) {
		t.Error("the default of min_gap is a day")
	}
}

func TestDeclareVersions(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	_, err := h.ctl.Declare(t.Context(), rita(), h.inv, 0)
	var denied *access.Denied
	if !errors.As(err, &denied) {
		t.Errorf("declared by a requester: %v", err)
	}
	if _, err := h.ctl.Declare(t.Context(), admin(), h.inv, 4); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("replacing nothing: %v", err)
	}
	h.declare()
	if _, err := h.ctl.Declare(t.Context(), admin(), h.inv, 0); !errors.Is(err, store.ErrExists) {
		t.Errorf("declared twice: %v", err)
	}
	var stale *control.VersionError
	if _, err := h.ctl.Declare(t.Context(), admin(), h.inv, 2); !errors.As(err, &stale) || stale.Have != 1 {
		t.Errorf("version 2 of 1: %v", err)
	}
	if out, err := h.ctl.Declare(t.Context(), admin(), h.inv, 1); err != nil || out.Version != 2 {
		t.Errorf("replaced: version %d, %v", out.Version, err)
	}
}

func versions(t *testing.T, h *house) []string {
	t.Helper()
	rows, err := h.st.Ledger(t.Context(), h.inv.TenantID, store.LedgerPage{Limit: 1000})
	must(t, err)
	var out []string
	for _, r := range rows {
		out = append(out, r.KeyID+" "+r.Version+" "+r.Origin)
	}
	slices.Sort(out)
	return out
}

// Every version that is there enters the ledger, or nothing is declared; a key
// that leaves the declaration leaves its rows, and none is read again.
func TestBackfill(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	allow := func(on bool) {
		must(t, h.sim.World.SetPermission(sim.Permission{Tenant: h.inv.TenantID, KeyVault: map[string]bool{"contoso-exo-b": on}}))
	}
	allow(false)
	_, err := h.ctl.Declare(t.Context(), admin(), h.inv, 0)
	var unreadable *control.UnreadableKeys
	if !errors.As(err, &unreadable) || len(unreadable.Findings) != 1 || unreadable.Findings[0].Subject != "key:exo-b" {
		t.Fatalf("declared with an unreadable key: %v", err)
	}
	if _, err := h.st.Tenant(t.Context(), h.inv.TenantID); !errors.Is(err, store.ErrNotFound) || len(versions(t, h)) != 0 {
		t.Errorf("a refused declaration left something: %v", err)
	}
	allow(true)
	h.declare()
	var want []string
	for _, k := range h.inv.Keys {
		for _, v := range h.sim.World.KeyVersions(k.VaultName(), k.Name) {
			want = append(want, k.ID+" "+v.Version+" backfill")
		}
	}
	slices.Sort(want)
	if diff := cmp.Diff(want, versions(t, h)); diff != "" {
		t.Errorf("ledger (-vaults +got):\n%s", diff)
	}
	// exo-b becomes a former key of a vault that cannot be read any more.
	allow(false)
	next := contoso()
	next.FormerKeys = []roll.Key{next.Keys[3]}
	next.Keys = slices.Delete(next.Keys, 3, 4)
	next.Policies = slices.Delete(next.Policies, 1, 2)
	for version := range int64(2) {
		if _, err := h.ctl.Declare(t.Context(), admin(), next, version+1); err != nil {
			t.Fatalf("declaration %d: %v", version+2, err)
		}
	}
	if diff := cmp.Diff(want, versions(t, h)); diff != "" {
		t.Errorf("ledger after exo-b left (-before +after):\n%s", diff)
	}
}

// A vault that does not answer now is no fault of the declaration.
func TestDeclareUnavailable(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	_, err := h.sim.World.AddFault(sim.Fault{Service: "keyvault", Operation: sim.OpGetKey, Mode: sim.ModeThrottle, Params: sim.FaultParams{RetryAfter: 1}})
	must(t, err)
	_, err = h.ctl.Declare(t.Context(), admin(), h.inv, 0)
	var unavailable *control.UnavailableError
	if !errors.As(err, &unavailable) {
		t.Errorf("declared through a throttled vault: %v", err)
	}
}

// What the lease guards does not change under a roll that works under it.
func TestLeaseIsKeptWhileARollRuns(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.declare()
	r, err := h.request(roll.Request{Policies: []string{"spo"}}, uuid.NewString())
	must(t, err)
	next := contoso()
	next.SharePoint.Lease = roll.LeasePerGeo
	c := weaker(t, h, next, 1) // not begun: it will plan again
	_, err = h.ctl.ApproveChange(t.Context(), bea(), h.inv.TenantID, c.ID, c.Hash, "")
	must(t, err)
	_, err = h.ctl.Approve(t.Context(), paul(), r.ID, r.Version, r.Plan.Hash, "")
	must(t, err)
	var bad *roll.InvalidError
	if _, err := h.ctl.Declare(t.Context(), admin(), contoso(), 2); !errors.As(err, &bad) || bad.Pointer != "/sharepoint/lease" {
		t.Errorf("the lease changed under a running roll: %v", err)
	}
	next.Name = "Contoso Ltd"
	if _, err := h.ctl.Declare(t.Context(), admin(), next, 2); err != nil {
		t.Errorf("another name: %v", err)
	}
}
