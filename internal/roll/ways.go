package roll

import (
	"errors"
	"fmt"
	"strings"
	"time"
)

// Way is one cell of the table of situations and acts: what comes of the act,
// and what a user reads then.
type Way struct {
	State     State
	Situation string
	Act       string
	// Refused is the code of the refusal; Already says that it had happened.
	Refused string
	Already bool
	// Next is the roll's state after it, Code that of its attention, Sees its
	// next action.
	Next State
	Code string
	Sees string
}

// Situations in which a roll can be when something is done to it.
const (
	InApproval       = "waits for its approval"
	InSecondApproval = "an emergency with the first of its two approvals"
	InSchedule       = "waits for its start time"
	InRun            = "at work, nothing under way at Microsoft"
	InFlightRun      = "SharePoint rolls for it"
	InHands          = "a person has been shown the line to run by hand"
	InHalt           = "halted, nothing under way"
	InHaltFlight     = "halted, while SharePoint rolls for another step"
	InHaltUnproven   = "halted at a SharePoint operation whose end is unproven"
	InCancel         = "cancelled while SharePoint rolls for it"
	InSuccess        = "ended well"
	InAbandoned      = "given up by two people"
	InCancelled      = "cancelled"
	InRejected       = "refused"
)

// Acts on a roll, as docs/state_machine.md names them.
const (
	ActApprove     = "approve"
	ActApproveOwn  = "approve, by the requester"
	ActReject      = "reject"
	ActCancel      = "cancel"
	ActRetry       = "retry"
	ActAssume      = "retry, assume applied"
	ActReplan      = "replan"
	ActAbandon     = "abandon, the first person"
	ActAbandonTwo  = "abandon, a second person"
	ActReport      = "report of a manual step: done"
	ActReportNot   = "report of a manual step: not done"
	ActDue         = "the start time comes"
	ActExpire      = "the approval expires"
	ActWorkerDies  = "the worker dies"
	ActPlanChanges = "preflight makes another plan"
)

// Acts lists every act, those of people first.
func Acts() []string {
	return []string{ActApprove, ActApproveOwn, ActReject, ActCancel, ActRetry, ActAssume, ActReplan, ActAbandon, ActAbandonTwo, ActReport, ActReportNot,
		ActDue, ActExpire, ActWorkerDies, ActPlanChanges}
}

// Ways is every situation × every act, as Apply answers it.
func Ways() ([]Way, error) {
	s := &sample{now: time.Date(2026, 3, 2, 8, 0, 0, 0, time.UTC)}
	var out []Way
	for _, situation := range []string{InApproval, InSecondApproval, InSchedule, InRun, InFlightRun, InHands, InHalt, InHaltFlight, InHaltUnproven,
		InCancel, InSuccess, InAbandoned, InCancelled, InRejected} {
		r := s.in(situation)
		for _, act := range Acts() {
			w := Way{State: r.State, Situation: situation, Act: act}
			before := r
			if act == ActAbandonTwo && !r.State.Final() {
				before.Abandon = &Abandon{By: Actor{"olga", Person}, At: s.now, Reason: "no hope"}
			}
			now := s.now
			if act == ActDue || act == ActExpire {
				now = now.Add(30 * 24 * time.Hour)
			}
			next, _, err := before.Apply(s.event(act, r), now)
			var refused *TransitionError
			switch {
			case errors.Is(err, ErrAlreadyApplied):
				w.Already = true
			case errors.As(err, &refused):
				w.Refused = refused.Code
			}
			w.Next, w.Sees = next.State, plainWords(next.NextAction(s.now, DefaultBounds()), next)
			if next.Attention != nil {
				w.Code = next.Attention.Code
			}
			out = append(out, w)
		}
	}
	return out, s.err
}

// plainWords takes the ids out of a next action.
func plainWords(text string, r Roll) string {
	return strings.NewReplacer(r.ID, "{id}", r.Plan.Hash, "{plan_hash}").Replace(text)
}

// sample brings a roll of two policies into each situation, by events only.
type sample struct {
	now time.Time
	err error
}

func (s *sample) plan(emergency bool) Plan {
	id := func(n int) string { return fmt.Sprintf("%032x", n) }
	step := func(n int, k StepKind, after ...int) PlanStep {
		return PlanStep{N: n, Kind: k, After: after, Title: string(k)}
	}
	steps := []PlanStep{step(1, Preflight), step(2, CreateKeyVersion, 1), step(3, RefreshPolicy, 2), step(4, Verify, 3),
		step(5, SharePointLease, 1), step(6, CreateKeyVersion, 5), step(7, SharePointRollKey, 6), step(8, SharePointAwait, 7), step(9, Verify, 8)}
	for i := range steps {
		p := &steps[i]
		switch {
		case p.N == 2:
			p.Key = "exo-a"
		case p.N == 3 || p.N == 4:
			p.Policy = "exo"
		case p.N == 6:
			p.Key, p.Params.Scope = "spo-a", LeasePerTenant
		case p.N >= 5:
			p.Policy, p.Key, p.Slot, p.Geo, p.Params.Scope = "spo", "spo-a", Primary, "NAM", LeasePerTenant
		}
	}
	plan := Plan{TenantID: "t", MadeAt: s.now, Emergency: emergency, Steps: steps,
		Keys:     []PlanKey{{ID: "exo-a", OldVersion: id(1), Version: NewVersion}, {ID: "spo-a", OldVersion: id(2), Version: NewVersion}},
		Policies: []PlanPolicy{{ID: "exo", Workload: Exchange, Keys: []string{"exo-a", "exo-b"}}, {ID: "spo", Workload: SharePoint, Geo: "NAM", Keys: []string{"spo-a", "spo-b"}}}}
	hash, err := plan.ComputeHash()
	s.err = errors.Join(s.err, err)
	plan.Hash = hash
	return plan
}

func (s *sample) apply(r Roll, evs ...Event) Roll {
	for _, ev := range evs {
		next, _, err := r.Apply(ev, s.now)
		if err != nil {
			s.err = errors.Join(s.err, fmt.Errorf("%s: %w", ev.Type(), err))
		}
		r = next
	}
	return r
}

// do claims step n, and ends it well unless ends says otherwise.
func (s *sample) do(r Roll, n int, ends func(n int, epoch int64) Event) Roll {
	r = s.apply(r, Begun{N: n, Worker: "w", RunFor: time.Minute, Settle: time.Minute})
	res := Result{Evidence: Confirmed}
	if r.Steps[n-1].Kind == CreateKeyVersion {
		res.Version = fmt.Sprintf("%032x", 100+n)
	}
	switch epoch := r.Steps[n-1].Epoch; {
	case ends != nil:
		return s.apply(r, ends(n, epoch))
	case r.Steps[n-1].Kind == SharePointLease:
		return s.apply(r, LeaseGranted{N: n, Epoch: epoch})
	default:
		return s.apply(r, Done{N: n, Epoch: epoch, Result: res})
	}
}

func (s *sample) new(start *time.Time, emergency bool) Roll {
	req := Request{TenantID: "t", StartAt: start}
	if emergency {
		req.Emergency = &Emergency{Reason: "a key may be in the wrong hands"}
	}
	r, _ := New("00000000-0000-4000-8000-000000000001", req, s.plan(emergency), Actor{"rita", Person}, true, 7*24*time.Hour, s.now)
	return r
}

// byHand is a roll whose Exchange refresh is a manual step.
func (s *sample) byHand() Roll {
	r := s.new(nil, false)
	r.Steps[2].Params.Transport, r.Plan.Steps[2].Params.Transport = Manual, Manual
	return r
}

func (s *sample) in(situation string) Roll {
	arno, olga := Actor{"arno", Person}, Actor{"olga", Person}
	r := s.new(nil, situation == InSecondApproval)
	yes := Approve{By: arno, PlanHash: r.Plan.Hash}
	halt := func(n int, epoch int64) Event {
		return Halted{N: n, Epoch: epoch, Code: "keyvault_forbidden", Detail: "the vault refused", Action: "grant the right", NotApplied: true}
	}
	rolling := func(n int, epoch int64) Event {
		return Waits{N: n, Epoch: epoch, For: WaitMicrosoft, Until: s.now.Add(time.Minute), Look: Look{Seen: "Rolling", Rolling: true}}
	}
	at := func(r Roll, steps ...int) Roll {
		for _, n := range steps {
			r = s.do(r, n, nil)
		}
		return r
	}
	run := func() Roll { return at(s.apply(r, yes), 1) }
	switch situation {
	case InApproval:
		return r
	case InSecondApproval:
		return s.apply(r, yes)
	case InSchedule:
		soon := s.now.Add(time.Hour)
		return s.apply(s.new(&soon, false), yes)
	case InRun:
		return s.apply(r, yes)
	case InFlightRun:
		return s.do(at(run(), 5, 6, 7), 8, rolling)
	case InHands:
		return s.do(at(s.apply(s.byHand(), yes), 1, 2), 3, func(n int, epoch int64) Event {
			return Offered{N: n, Epoch: epoch, Offer: Offer{Connect: "Connect-ExchangeOnline", Line: "Set-DataEncryptionPolicy -Identity {guid} -Refresh", At: s.now}}
		})
	case InHalt:
		return s.do(run(), 2, halt)
	case InHaltFlight:
		return s.do(s.do(at(run(), 5, 6, 7), 8, rolling), 2, halt)
	case InHaltUnproven:
		return s.do(at(run(), 5, 6), 7, func(n int, epoch int64) Event {
			return Halted{N: n, Epoch: epoch, Code: "sharepoint_roll_unproven", Detail: "nobody can tell", Action: "find out what became of it, then say so by a retry with assume", OpEnded: true, Unproven: true}
		})
	case InCancel:
		return s.apply(s.do(at(run(), 5, 6, 7), 8, rolling), Cancel{By: olga, Reason: "enough"})
	case InSuccess:
		return at(run(), 2, 3, 4, 5, 6, 7, 8, 9)
	case InAbandoned:
		return s.apply(run(), GiveUp{By: olga, Reason: "no hope"}, GiveUp{By: arno, Reason: "none"})
	case InCancelled:
		return s.apply(r, Cancel{By: olga, Reason: "enough"})
	case InRejected:
		return s.apply(r, Reject{By: arno, Reason: "no"})
	}
	s.err = errors.Join(s.err, fmt.Errorf("unknown situation %q", situation))
	return r
}

func (s *sample) event(act string, r Roll) Event {
	paula, olga, rita := Actor{"paula", Person}, Actor{"olga", Person}, r.Requester
	halted, running := 1, 1
	for _, st := range r.Steps {
		if st.State == StepNeedsAttention || st.WaitingFor == WaitManual {
			halted = st.N
		}
		if st.State == StepReady && st.Kind == Preflight {
			running = st.N
		}
	}
	switch act {
	case ActApprove:
		return Approve{By: paula, PlanHash: r.Plan.Hash}
	case ActApproveOwn:
		return Approve{By: rita, PlanHash: r.Plan.Hash}
	case ActReject:
		return Reject{By: paula, Reason: "no"}
	case ActCancel:
		return Cancel{By: olga, Reason: "enough"}
	case ActRetry:
		return Retry{By: olga}
	case ActAssume:
		return Retry{By: olga, Step: halted, Assume: AssumeApplied}
	case ActReplan:
		return Replan{By: olga, Plan: s.plan(r.Emergency())}
	case ActAbandon:
		return GiveUp{By: olga, Reason: "no hope"}
	case ActAbandonTwo:
		return GiveUp{By: paula, Reason: "none"}
	case ActReport:
		return Reported{By: olga, N: halted, Outcome: ReportDone}
	case ActReportNot:
		return Reported{By: olga, N: halted, Outcome: ReportNotDone}
	case ActDue:
		return Due{}
	case ActExpire:
		return ApprovalExpired{}
	case ActWorkerDies:
		return Crashed{Worker: "w", Detail: "it died", At: s.now}
	case ActPlanChanges:
		return PlanChanged{N: running, Epoch: r.Steps[running-1].Epoch, Plan: s.plan(r.Emergency())}
	}
	return nil
}

// waysDoc writes the table for people: what each act comes to, and what is
// read then; acts that are refused alike in one line.
func waysDoc(b *strings.Builder) error {
	ways, err := Ways()
	if err != nil {
		return err
	}
	b.WriteString(`
## Every situation, and what comes of every act

Computed by the code that decides. A refusal changes nothing; the API answers it with 409 and the problem code shown, except that
own_approval and service_actor are 403 same_person, no_such_step is 404 not_found, and wrong_step_state is 409 wrong_state. "Nothing new" means
that the act is answered with the roll as it is, since it has happened already, or since there was nothing to do.
`)
	last := ""
	var refused map[string][]string
	var order []string
	flush := func() {
		for _, code := range order {
			fmt.Fprintf(b, "| %s | refused: `%s` | – |\n", strings.Join(refused[code], "; "), code)
		}
		refused, order = map[string][]string{}, nil
	}
	for _, w := range ways {
		if w.Situation != last {
			flush()
			fmt.Fprintf(b, "\n### `%s`: %s\n\n| act | comes to | what is read then (next_action) |\n|---|---|---|\n", w.State, w.Situation)
			last = w.Situation
		}
		switch {
		case w.Already:
			fmt.Fprintf(b, "| %s | nothing new | %s |\n", w.Act, cell(w.Sees))
		case w.Refused != "":
			if refused[w.Refused] == nil {
				order = append(order, w.Refused)
			}
			refused[w.Refused] = append(refused[w.Refused], w.Act)
		default:
			next := "→ `" + string(w.Next) + "`"
			if w.Code != "" {
				next += " (attention `" + w.Code + "`)"
			}
			fmt.Fprintf(b, "| %s | %s | %s |\n", w.Act, next, cell(w.Sees))
		}
	}
	flush()
	return nil
}

func cell(s string) string { return strings.ReplaceAll(s, "|", `\|`) }
