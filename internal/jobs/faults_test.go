package jobs_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/keyroll/keyroll/internal/control"
	"github.com/keyroll/keyroll/internal/roll"
	"github.com/keyroll/keyroll/internal/sim"
)

// effectOp is an operation with an effect, and the key whose roll reaches it.
type effectOp struct{ key, service, op string }

var (
	createOp  = effectOp{"exo-a", "keyvault", sim.OpCreateKey}
	refreshOp = effectOp{"exo-a", "exchange", sim.OpSetDEP}
	multiOp   = effectOp{"m-a", "exchange", sim.OpSetM365DEP}
	rollOp    = effectOp{"spo-a", "sharepoint", sim.OpRollKey}
)

// broken is what a fault does to a roll while it holds, and the way out once
// it is gone.
type broken struct {
	// state that the roll reaches while the fault holds. Succeeded: the fault
	// does not keep it from its end.
	state roll.State
	// codes of which one is shown: that of the attention, or of the step that is
	// tried again or waits.
	codes string
	// way out: "" nothing, "retry", or what replan does with strangers.
	way string
}

var (
	goesOn = broken{state: roll.Succeeded}
	// tried again: the service does not answer, or its answer was lost.
	again = broken{roll.Running, "_unavailable lost_answer", ""}
)

func haltsAt(code, way string) broken { return broken{roll.NeedsAttention, code, way} }

// faultRow is a mode of the simulator's faults: what it does to each operation
// with an effect. A nil entry is one that the mode cannot meet.
type faultRow struct {
	create, refresh, roll *broken
	// fault changes what is armed; ops other than the effect itself.
	fault func(f *sim.Fault)
	// before arms what the mode needs besides itself.
	before func(h *house)
}

func all3(b broken) faultRow { return faultRow{create: &b, refresh: &b, roll: &b} }

// faultRows has one row for each mode of the simulator.
func faultRows() map[string]faultRow {
	once := func(f *sim.Fault) { f.Count = 1 }
	stranger := haltsAt(roll.CodeStranger, control.StrangersAdopt)
	lostIn := faultRow{create: &goesOn, refresh: &again, roll: &goesOn}
	p := func(b broken) *broken { return &b }
	return map[string]faultRow{
		sim.ModeRefuse:     all3(again),
		sim.ModeHTMLPage:   all3(again),
		sim.ModeLoseBefore: all3(again),
		sim.ModeReset:      all3(again),
		sim.ModeHold:       all3(again),
		sim.ModeThrottle:   all3(broken{roll.Running, "_throttled", ""}),
		sim.ModeErrorIn200: {create: p(broken{roll.Running, "keyvault_protocol lost_answer", ""}), refresh: &again, roll: p(haltsAt("sharepoint_rejected", "retry"))},
		sim.ModeExpireToken: {create: p(haltsAt("keyvault_unauthorized", "retry")), refresh: p(haltsAt("exchange_unauthorized", "retry")),
			roll: p(haltsAt("sharepoint_unauthorized", "retry"))},
		// Key Vault's client gets another token by itself; Exchange then refuses its own.
		sim.ModeRevokeTokens: {create: p(haltsAt("exchange_unauthorized", "retry")), refresh: p(haltsAt("exchange_unauthorized", "retry")),
			roll: p(haltsAt("sharepoint_unauthorized", "retry")), fault: once},
		sim.ModeApplyAndLose:   lostIn,
		sim.ModeApplyAndReset:  lostIn,
		sim.ModeErrorAfter:     lostIn,
		sim.ModeHoldAfter:      lostIn,
		sim.ModeDelay:          {create: &goesOn, refresh: &goesOn, roll: &goesOn, fault: func(f *sim.Fault) { f.Params.Seconds = 0.3 }},
		sim.ModeStrangerBefore: {create: &goesOn, refresh: &stranger, roll: &goesOn, fault: once},
		sim.ModeStrangerAfter:  {create: &stranger, refresh: &stranger, roll: &goesOn, fault: once},
		sim.ModeWarning:        {refresh: p(haltsAt("unknown_warning", "retry")), fault: func(f *sim.Fault) { f.Params.Warning = "The policy may be in an odd state." }},
		sim.ModeListingLag: {create: &goesOn, fault: func(f *sim.Fault) { f.Operation, f.Params.Seconds = sim.OpListVersions, 3600 },
			before: func(h *house) {
				h.fault(sim.Fault{Service: "keyvault", Operation: sim.OpCreateKey, Mode: sim.ModeApplyAndLose, Count: 1})
			}},
		sim.ModeRollingForever: {roll: p(broken{roll.Running, roll.WaitMicrosoft, ""})},
		sim.ModeStatus: {roll: p(broken{roll.Running, roll.WaitExternal + " " + roll.WaitMicrosoft + " " + roll.WaitOwnUnproven, ""}),
			fault: func(f *sim.Fault) { f.Operation, f.Params.Status, f.After = sim.OpGetStatus, 99, 1 }},
		sim.ModeStatusRegress: {roll: &goesOn, fault: func(f *sim.Fault) { f.Operation, f.After, f.Count = sim.OpGetStatus, 4, 2 }},
	}
}

// elsewhere are the modes that meet no native transport, and the file whose
// tests break rolls with them.
var elsewhere = []string{sim.ModeJobSlow, sim.ModeJobFails, sim.ModeJobFailsAfter, sim.ModeJobOutput}

// TestEveryFault: for every mode of the simulator's faults and every operation
// with an effect, the state that a roll reaches while the fault holds, what a
// person is told, and that the roll ends well once it is gone: one version of
// each key, one SharePoint operation for each slot, and an audit log that is
// whole. A mode without a row fails.
func TestEveryFault(t *testing.T) {
	t.Parallel()
	rows := faultRows()
	for _, m := range sim.Modes() {
		row, ok := rows[m.Name]
		if slices.Contains(elsewhere, m.Name) {
			continue
		}
		if !ok {
			t.Errorf("mode %s of the simulator has no row: what does it do to a roll?", m.Name)
			continue
		}
		for _, c := range []struct {
			effectOp
			*broken
		}{{createOp, row.create}, {refreshOp, row.refresh}, {multiOp, row.refresh}, {rollOp, row.roll}} {
			if c.broken == nil || c.effectOp == multiOp && m.Name != sim.ModeApplyAndLose {
				continue // both refreshes are one code
			}
			t.Run(m.Name+" "+c.op, func(t *testing.T) {
				t.Parallel()
				underFault(t, m.Name, row, c.effectOp, *c.broken)
			})
		}
	}
}

func underFault(t *testing.T, mode string, row faultRow, e effectOp, want broken) {
	h := newHouse(t)
	h.declare()
	h.rate(400)
	r := h.requestKey(e.key)
	f := sim.Fault{Service: e.service, Operation: e.op, Mode: mode}
	if row.fault != nil {
		row.fault(&f)
	}
	if row.before != nil {
		row.before(h)
	}
	id := h.fault(f)
	h.work(late(1500*time.Millisecond, 300*time.Millisecond))
	h.approve(r.ID)
	h.fired(id)
	said := ""
	r = h.await(r.ID, string(want.state)+" with "+want.codes, func(r roll.Roll) bool {
		said = r.NextAction(h.st.Now(), roll.DefaultBounds())
		return r.State == want.state && shows(r, want.codes)
	})
	switch {
	case want.state == roll.Running && !strings.HasPrefix(said, "Nothing"):
		t.Errorf("told to do %q", said)
	case want.state == roll.NeedsAttention && (r.Attention.Detail == "" || r.Attention.Action == "" || !strings.Contains(said, "/retry")):
		t.Errorf("attention %+v, told %q", r.Attention, said)
	}
	must(t, h.sim.World.RemoveFault(id))
	if want.way != "" {
		r = h.await(r.ID, "settled", func(r roll.Roll) bool {
			return !slices.ContainsFunc(r.Steps, func(s roll.Step) bool { return s.State == roll.StepRunning })
		})
		h.goOn(r, want.way)
	}
	if r = h.ended(r.ID); r.State != roll.Succeeded {
		t.Fatalf("ended %s\n%s", r.State, show(r))
	}
	h.checkVersions(r, nil)
	slots := 0
	if e == rollOp {
		slots = 1
	}
	if n := h.sim.World.SharePointOperations(h.inv.TenantID); n != slots {
		t.Errorf("%d SharePoint operations, want %d\n%s", n, slots, show(r))
	}
	h.leaseIsFree()
}

// shows: one of the codes is the attention's, or that of a step that is tried
// again or waits. A code that begins with _ stands for any service's.
func shows(r roll.Roll, codes string) bool {
	if codes == "" {
		return true
	}
	for _, code := range strings.Fields(codes) {
		is := func(got string) bool { return got == code || code[0] == '_' && strings.HasSuffix(got, code) }
		if r.Attention != nil {
			if is(r.Attention.Code) {
				return true
			}
			continue
		}
		for _, s := range r.Steps {
			if !s.State.Final() && (s.Error != nil && is(s.Error.Code) || is(s.WaitingFor)) {
				return true
			}
		}
	}
	return false
}
