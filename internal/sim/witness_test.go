package sim_test

import (
	"errors"
	"testing"
	"time"

	"github.com/keyroll/keyroll/internal/sim"
)

func TestOverlapsInTrapMode(t *testing.T) {
	b := start(t)
	a := b.w.KeyVersions("contoso-spo-a", keyA)[0].Version
	second := b.w.KeyVersions("contoso-spo-b", "Contoso-SPO-B-Key001")[0].Version
	rollA := rollXML("0", "contoso-spo-a", keyA, a)
	rollB := rollXML("1", "contoso-spo-b", "Contoso-SPO-B-Key001", second)
	b.query(rollA)
	b.w.Advance(3 * time.Second)
	b.query(rollB) // begins in the very moment in which the first has ended
	if n := b.w.Overlaps(tenantID); n != 0 {
		t.Errorf("one after the other: %d overlaps", n)
	}
	if r := b.query(rollA); r.errType == "" {
		t.Error("accepted while rolling, without trap mode")
	}
	b.w.SetTrap(true)
	b.w.Advance(time.Second)
	if r := b.query(rollA); r.errType != "" {
		t.Errorf("trap mode: %+v", r)
	}
	if n := b.w.Overlaps(tenantID); n != 1 || b.w.Overlaps("contoso.com", "NAM") != 1 || b.w.Overlaps(tenantID, "EUR") != 0 {
		t.Errorf("%d overlaps", n)
	}
	b.w.Advance(2 * time.Second) // the second ends, the third goes on
	if g := b.w.State().Tenants[0].Geos[0]; g.Rolls != 1 || g.SecondaryVersion != second || g.Status != "Rolling" {
		t.Errorf("%+v", g)
	}
	b.w.Advance(time.Hour)
	if n := b.w.Overlaps(tenantID); n != 1 || b.w.SharePointOperations(tenantID) != 3 {
		t.Errorf("later: %d overlaps, %d operations", n, b.w.SharePointOperations(tenantID))
	}
}

func TestRollByHand(t *testing.T) {
	b := start(t)
	version := b.newVersion("contoso-spo-a", keyA)
	if err := b.w.RollByHand("contoso.com", "", "Primary", sim.Slot{}); err != nil {
		t.Fatal(err)
	}
	if err := b.w.RollByHand(tenantID, "NAM", "secondary", sim.Slot{}); !errors.Is(err, sim.ErrRefused) {
		t.Errorf("second: %v", err)
	}
	if r := b.query(statusXML).result; r["Status"] != 3.0 {
		t.Errorf("status: %v", r)
	}
	b.w.Advance(3 * time.Second)
	if g := b.w.State().Tenants[0].Geos[0]; g.PrimaryVersion != version || g.Status != "Registered" {
		t.Errorf("%+v", g)
	}
	var by []string
	for _, e := range b.w.Witness() {
		by = append(by, e.By)
	}
	if len(by) != 2 || by[0] != "stranger" || by[1] != "hand" || b.w.SharePointOperations(tenantID) != 0 {
		t.Errorf("witness: %v", by)
	}
}

func TestSameKeyInBothSlots(t *testing.T) {
	b := start(t)
	b.query(rollXML("1", "contoso-spo-a", keyA, b.w.KeyVersions("contoso-spo-a", keyA)[1].Version))
	if v := b.w.Violations(); len(v) != 1 || v[0].Operation != sim.OpRollKey {
		t.Errorf("%+v", v)
	}
}

func TestLostRollIsWitnessed(t *testing.T) {
	b := start(t)
	b.token(spoScope)
	add(t, b, sim.Fault{Operation: sim.OpRollKey, Target: "NAM/primary", Mode: sim.ModeApplyAndLose, Count: 1})
	version := b.w.KeyVersions("contoso-spo-a", keyA)[0].Version
	_, err := b.try("POST", "https://contoso-admin.sharepoint.com/_vti_bin/client.svc/ProcessQuery", rollXML("0", "contoso-spo-a", keyA, version),
		"Authorization", "Bearer "+b.token(spoScope), "Content-Type", "text/xml")
	if err == nil {
		t.Error("there was an answer")
	}
	e := b.w.Witness()[0]
	if !e.Applied || e.Answered || !e.End.IsZero() || b.w.SharePointOperations(tenantID) != 1 {
		t.Errorf("%+v", e)
	}
	if s := b.query(statusXML).result; s["Status"] != 3.0 {
		t.Errorf("status: %v", s)
	}
}
