package jobs_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/keyroll/keyroll/internal/roll"
	"github.com/keyroll/keyroll/internal/sim"
)

const runbooks = "/subscriptions/11111111-2222-4333-8444-555555555555/resourceGroups/keyroll/providers/Microsoft.Automation/automationAccounts/keyroll-runbooks"

// byRunbook is a tenant whose native interfaces refuse, with an Automation account.
func byRunbook(s *sim.Seed, inv *roll.Inventory) {
	s.Tenants[0].Automation = []sim.AutomationAccount{{ID: runbooks}}
	s.Apps[0].Grants[0].Exchange, s.Apps[0].Grants[0].SharePoint = "app_role", false
	inv.Automation = &roll.AutomationAccount{Account: runbooks}
}

// byHand is a tenant whose declaration has everything done by hand, but whose
// state Keyroll may read.
func byHand(_ *sim.Seed, inv *roll.Inventory) {
	inv.Transports = roll.TransportSettings{Exchange: "manual", SharePoint: "manual"}
}

// blind is byHand, and Keyroll may read nothing.
func blind(s *sim.Seed, inv *roll.Inventory) {
	byHand(s, inv)
	s.Apps[0].Grants[0].Exchange, s.Apps[0].Grants[0].SharePoint = "none", false
}

// TestWholeRollByEachTransport rolls each workload to its end by each
// transport, and holds plan, evidence and Microsoft against it.
func TestWholeRollByEachTransport(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name     string
		change   func(*sim.Seed, *roll.Inventory)
		policy   string
		via      roll.Transport
		evidence roll.Evidence
		source   string
	}{
		{"exchange native", nil, "exo-na", roll.Native, roll.Accepted, "does not document"},
		{"exchange by runbook", byRunbook, "exo-na", roll.Automation, roll.Accepted, "runbook"},
		{"exchange by hand", byHand, "exo-na", roll.Manual, roll.Attested, "arno@contoso.com says"},
		{"exchange by hand, unseen", blind, "exo-na", roll.Manual, roll.Attested, "arno@contoso.com says"},
		{"multi-workload native", nil, "global", roll.Native, roll.Accepted, "does not document"},
		{"multi-workload by runbook", byRunbook, "global", roll.Automation, roll.Accepted, "runbook"},
		{"multi-workload by hand", byHand, "global", roll.Manual, roll.Attested, "arno@contoso.com says"},
		{"sharepoint native", nil, "spo", roll.Native, roll.Confirmed, "does not document"},
		{"sharepoint by runbook", byRunbook, "spo", roll.Automation, roll.Confirmed, "runbook"},
		{"sharepoint by hand", byHand, "spo", roll.Manual, roll.Confirmed, "by a person"},
		{"sharepoint by hand, unseen", blind, "spo", roll.Manual, roll.Attested, "arno@contoso.com says"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			var changes []func(*sim.Seed, *roll.Inventory)
			if c.change != nil {
				changes = append(changes, c.change)
			}
			h := newHouse(t, changes...)
			h.declare()
			r := h.request(c.policy)
			for _, s := range r.Plan.Steps {
				if (s.Kind.HasEffect() && s.Kind != roll.CreateKeyVersion || s.Kind == roll.SharePointAwait || s.Kind == roll.Verify) && s.Params.Transport != c.via {
					t.Errorf("step %d (%s) is planned by %q, want %q", s.N, s.Kind, s.Params.Transport, c.via)
				}
			}
			h.work(quick())
			h.approve(r.ID)
			if c.via == roll.Manual {
				h.hands(r.ID)
			}
			r = h.ended(r.ID)
			if r.State != roll.Succeeded || r.Outcome != c.evidence {
				t.Fatalf("ended %s with outcome %s, want %s\n%s", r.State, r.Outcome, c.evidence, show(r))
			}
			if _, source := r.PolicyEvidence(c.policy); !strings.Contains(source, c.source) {
				t.Errorf("the evidence's source says %q, want %q in it", source, c.source)
			}
			for _, k := range r.Keys {
				inv, _ := h.inv.KeyByID(k.ID)
				if n := h.sim.World.VersionsCreated(inv.VaultName(), inv.Name); n != 1 {
					t.Errorf("%d versions of key %s", n, k.ID)
				}
			}
			h.taken(r)
			if v := h.sim.World.Violations(); len(v) > 0 {
				t.Errorf("violations: %+v", v)
			}
			report, err := h.st.VerifyAudit(t.Context(), nil)
			must(t, err)
			if !report.OK() {
				t.Errorf("audit log: %+v", report)
			}
		})
	}
}

// taken holds what Microsoft uses against what the roll recorded.
func (h *house) taken(r roll.Roll) {
	h.t.Helper()
	state, _ := h.sim.World.Tenant(h.inv.TenantID)
	for _, p := range r.Plan.Policies {
		for _, id := range p.Keys {
			rk, ok := r.KeyByID(id)
			if !ok {
				continue
			}
			k, _ := h.inv.KeyByID(id)
			if p.Workload != roll.SharePoint {
				if got := h.sim.World.PolicyVersions(h.inv.TenantID, p.GUID)[k.URI("")]; got != rk.NewVersion {
					h.t.Errorf("policy %s uses version %q of %s, the roll says %s", p.ID, got, id, rk.NewVersion)
				}
				continue
			}
			if got := state.Geos[0]; got.PrimaryVersion != rk.NewVersion && got.SecondaryVersion != rk.NewVersion {
				h.t.Errorf("no slot holds version %s of %s", rk.NewVersion, id)
			}
		}
	}
}

// hands runs each line that the roll shows, as it stands, and reports it, until
// the roll ends. It also reports looks that show what was asked for.
func (h *house) hands(id string) {
	h.t.Helper()
	for {
		r := h.await(id, "at its end or at a line to run", func(r roll.Roll) bool { return r.State != roll.Running || offeredStep(r) != nil })
		s := offeredStep(r)
		if s == nil {
			return
		}
		h.run(s.Offer.Line)
		_, err := h.ctl.Report(h.t.Context(), approver(), id, s.N, roll.Reported{Outcome: roll.ReportDone, Note: "as shown"})
		must(h.t, err)
	}
}

func offeredStep(r roll.Roll) *roll.Step {
	for _, s := range r.Steps {
		if s.WaitingFor == roll.WaitManual {
			return &s
		}
	}
	return nil
}

// run does at the simulated Microsoft what the line would do; a look lasts
// until SharePoint is Registered.
func (h *house) run(line string) {
	h.t.Helper()
	words := strings.Fields(line)
	arg := func(name string) string {
		for i, w := range words {
			if w == name && i+1 < len(words) {
				return words[i+1]
			}
		}
		h.t.Fatalf("no %s in %q", name, line)
		return ""
	}
	switch words[0] {
	case "Update-SPODataEncryptionPolicy":
		if slices.Contains(words, "-KeyVaultUri") {
			ref, ok := roll.ParseKeyURI(arg("-KeyVaultUri"))
			if !ok || slices.Contains(words, "-KeyVaultName") {
				h.t.Fatalf("the cmdlet would not take %q", line)
			}
			must(h.t, h.sim.World.RollByHand(h.inv.TenantID, "", arg("-KeyType"), sim.Slot{Vault: ref.Host, Key: ref.Name, Version: ref.Version}))
			return
		}
		must(h.t, h.sim.World.RollByHand(h.inv.TenantID, "", arg("-KeyType"), sim.Slot{Vault: arg("-KeyVaultName"), Key: arg("-KeyName"), Version: arg("-KeyVersion")}))
	case "Set-DataEncryptionPolicy", "Set-M365DataAtRestEncryptionPolicy":
		must(h.t, h.sim.World.RefreshByHand(h.inv.TenantID, arg("-Identity")))
	case "Get-SPODataEncryptionPolicy":
		h.sim.World.Advance(time.Hour)
	default:
		h.t.Fatalf("no such cmdlet: %q", line)
	}
}

// TestRunbookLostAnswers breaks each effect by runbook in each way, and holds
// the roll against the witness log: no SharePoint operation twice, no key twice.
func TestRunbookLostAnswers(t *testing.T) {
	t.Parallel()
	at := func(mode string, after int, p sim.FaultParams) sim.Fault {
		return sim.Fault{Service: "resource_manager", Operation: sim.OpPutJob, Mode: mode, Count: 1, After: after, Params: p}
	}
	for _, c := range []struct {
		name, policy string
		fault        sim.Fault
		halts        string // the code with which the roll halts first, "" where it does not
		mend         func(h *house, r roll.Roll)
		effects      int // that take effect at Microsoft
	}{
		// The changing job's PUT is found by the name that the step shows.
		{"refresh, PUT applied and lost", "exo-na", at(sim.ModeApplyAndLose, 0, sim.FaultParams{}), "", nil, 1},
		{"refresh, PUT lost before", "exo-na", at(sim.ModeLoseBefore, 0, sim.FaultParams{}), "", nil, 1},
		{"refresh, PUT throttled", "exo-na", at(sim.ModeThrottle, 0, sim.FaultParams{}), "", nil, 1},
		{"refresh, slow job", "exo-na", at(sim.ModeJobSlow, 0, sim.FaultParams{Seconds: 7}), "", nil, 1},
		{"refresh, job fails before", "exo-na", at(sim.ModeJobFails, 0, sim.FaultParams{}), "automation_rejected", nil, 1},
		{"refresh, job fails after", "exo-na", at(sim.ModeJobFailsAfter, 0, sim.FaultParams{}), "automation_rejected", nil, 2},
		{"refresh, job suspended", "exo-na", at(sim.ModeJobFails, 0, sim.FaultParams{Code: "Suspended"}), "runbook_job_suspended",
			func(h *house, r roll.Roll) {
				must(h.t, h.sim.World.ResumeJob(h.inv.TenantID, r.Steps[r.Attention.Step-1].OpID))
			}, 1},
		{"refresh, output truncated", "exo-na", at(sim.ModeJobOutput, 0, sim.FaultParams{Body: `{"schema":1`}), "automation_protocol", nil, 2},
		{"roll, PUT applied and lost", "spo", at(sim.ModeApplyAndLose, 0, sim.FaultParams{}), "", nil, 2},
		{"roll, PUT lost before", "spo", at(sim.ModeLoseBefore, 0, sim.FaultParams{}), "", nil, 2},
		{"roll, slow job", "spo", at(sim.ModeJobSlow, 0, sim.FaultParams{Seconds: 7}), "", nil, 2},
		{"roll, job fails before", "spo", at(sim.ModeJobFails, 0, sim.FaultParams{}), "automation_rejected", nil, 2},
		{"roll, job fails after", "spo", at(sim.ModeJobFailsAfter, 0, sim.FaultParams{}), "", nil, 2},
		{"roll, job stopped after", "spo", at(sim.ModeJobFailsAfter, 0, sim.FaultParams{Code: "Stopped"}), "", nil, 2},
		{"roll, output missing", "spo", at(sim.ModeJobOutput, 0, sim.FaultParams{Body: " "}), "", nil, 2},
		{"roll, output of another job", "spo", at(sim.ModeJobOutput, 0, sim.FaultParams{Body: `{"schema":1,"requestId":"00000000-0000-4000-8000-000000000000","ok":true,"result":{"status":"Registered","primaryUri":"","secondaryUri":"","percent":null}}`}), "", nil, 2},
		{"roll, job suspended, then stopped", "spo", at(sim.ModeJobFails, 0, sim.FaultParams{Code: "Suspended"}), "runbook_job_suspended",
			func(h *house, r roll.Roll) {
				must(h.t, h.sim.World.StopJob(h.inv.TenantID, r.Steps[r.Attention.Step-1].OpID))
			}, 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t, byRunbook)
			h.declare()
			r := h.request(c.policy)
			kind := roll.RefreshPolicy
			if c.policy == "spo" {
				kind = roll.SharePointRollKey
			}
			c.fault.Target = roll.OperationID(r.ID, firstOf(r, kind), 0) // the changing job only
			_, err := h.sim.World.AddFault(c.fault)
			must(t, err)
			h.work(quick())
			h.approve(r.ID)
			if c.halts != "" {
				r = h.halted(r.ID)
				if r.Attention.Code != c.halts {
					t.Fatalf("halted with %s, want %s\n%s", r.Attention.Code, c.halts, show(r))
				}
				if c.mend != nil {
					c.mend(h, r)
				}
				h.retryUntilEnd(r.ID)
			}
			r = h.ended(r.ID)
			if r.State != roll.Succeeded {
				t.Fatalf("ended %s\n%s", r.State, show(r))
			}
			h.taken(r)
			if f := h.sim.World.Faults()[0]; f.Fired != 1 {
				t.Errorf("the fault fired %d times", f.Fired)
			}
			n := h.applied(sim.OpSetDEP)
			if c.policy == "spo" {
				n = h.sim.World.SharePointOperations(h.inv.TenantID)
			}
			if n != c.effects {
				t.Errorf("%d effects, want %d\n%s", n, c.effects, show(r))
			}
			if n := h.sim.World.Overlaps(h.inv.TenantID); n != 0 {
				t.Errorf("%d overlaps", n)
			}
		})
	}
}

// retryUntilEnd retries whatever halts, as a person would.
func (h *house) retryUntilEnd(id string) {
	h.t.Helper()
	for {
		_, err := h.ctl.Retry(h.t.Context(), requester(), id, 0)
		must(h.t, err)
		r := h.await(id, "at its end or halted again", func(r roll.Roll) bool { return r.State.Final() || r.State == roll.NeedsAttention })
		if r.State.Final() {
			return
		}
	}
}

func firstOf(r roll.Roll, kind roll.StepKind) int {
	for _, s := range r.Steps {
		if s.Kind == kind {
			return s.N
		}
	}
	return 0
}

// TestRunbookJobOutlivesTheWorker: the process that sent the job is killed
// while the job runs; another one waits for the job's end and sends nothing.
func TestRunbookJobOutlivesTheWorker(t *testing.T) {
	t.Parallel()
	for policy, kind := range map[string]roll.StepKind{"exo-na": roll.RefreshPolicy, "spo": roll.SharePointRollKey} {
		t.Run(policy, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t, byRunbook)
			h.declare()
			r := h.request(policy)
			op := roll.OperationID(r.ID, firstOf(r, kind), 0)
			slow, err := h.sim.World.AddFault(sim.Fault{Operation: sim.OpPutJob, Target: op, Mode: sim.ModeJobSlow})
			must(t, err)
			kill := h.peer(quick()).live()
			h.approve(r.ID)
			h.fired(slow)
			kill()
			h.work(quick())
			r = h.await(r.ID, "waiting for the job", func(r roll.Roll) bool {
				s, _ := r.StepByN(firstOf(r, kind))
				return s.WaitingFor == roll.WaitRunbook && s.IntentOpen && s.State == roll.StepWaiting
			})
			must(t, h.sim.World.RemoveFault(slow))
			if r = h.ended(r.ID); r.State != roll.Succeeded {
				t.Fatalf("ended %s\n%s", r.State, show(r))
			}
			jobsOf := 0
			for _, e := range h.sim.World.Witness() {
				if e.Operation == sim.OpPutJob && e.Target == op {
					jobsOf++
				}
			}
			if jobsOf != 1 {
				t.Errorf("the job was sent %d times", jobsOf)
			}
			h.taken(r)
		})
	}
}
