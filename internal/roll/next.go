package roll

import (
	"slices"
	"time"
)

// Work is one thing that a worker may do now.
type Work struct {
	N int
	// Poll: look at a waiting step without claiming it.
	Poll bool
	// Takeover: the step is running under a worker that is gone.
	Takeover bool
}

// Next returns what may be done now, in step order. gone says whether the
// worker of a running step is known to drive it no more.
func (r Roll) Next(now time.Time, gone func(Step) bool) []Work {
	var out []Work
	for i := range r.Steps {
		s := &r.Steps[i]
		switch {
		case s.State == StepRunning:
			if gone(*s) && r.mayTakeOver(s, now) {
				out = append(out, Work{N: s.N, Takeover: true})
			}
		case s.State == StepWaiting && polled(s):
			if at := r.opens(s); r.mayPoll(s) && !at.IsZero() && !now.Before(at) {
				out = append(out, Work{N: s.N, Poll: true})
			}
		case r.mayBegin(s, now, false):
			out = append(out, Work{N: s.N})
		}
	}
	return out
}

// mayTakeOver: in a roll that has stopped, a claim without intent is taken
// over too, so that it can be let go.
func (r *Roll) mayTakeOver(s *Step, now time.Time) bool {
	return r.mayBegin(s, now, true)
}

func (r *Roll) mayPoll(s *Step) bool {
	switch r.State {
	case Running:
		return true
	case NeedsAttention, Cancelling:
		return r.mustWatch(s)
	}
	return false
}

// polled says whether a waiting step is looked at without a claim.
func polled(s *Step) bool {
	if s.WaitingFor == WaitManual {
		return false
	}
	switch s.Kind {
	case SharePointAwait, SharePointLease:
		return true
	case SharePointRollKey:
		return s.WaitingFor == WaitExternal || s.WaitingFor == WaitOwnUnproven
	}
	return false
}

// wake is when the roll needs a worker next; nil when it ended or a person must act.
func (r *Roll) wake(now time.Time) *time.Time {
	switch {
	case r.State.Final():
		return nil
	case r.State == AwaitingApproval:
		return r.ApprovalExpires
	case r.State == Scheduled:
		return r.Request.StartAt
	}
	var at *time.Time
	sooner := func(t time.Time) {
		if at == nil || t.Before(*at) {
			at = &t
		}
	}
	for i := range r.Steps {
		s := &r.Steps[i]
		if s.State.Final() || s.State == StepNeedsAttention {
			continue
		}
		if r.State != Running && !r.mustWatch(s) {
			continue
		}
		switch s.State {
		case StepRunning:
			if s.RunUntil != nil {
				sooner(*s.RunUntil)
			}
		case StepPending:
			if r.State == Running && r.givenBack(s) {
				if t := r.opens(s); t.After(now) {
					sooner(t)
				} else {
					sooner(now)
				}
			}
		case StepReady, StepWaiting:
			switch t := r.opens(s); {
			case t.IsZero(): // held up by another step, which has its own time
			case t.Before(now):
				sooner(now)
			default:
				sooner(t)
			}
		}
	}
	return at
}

// leadKind is the kind of the first step that has not ended: a label for the job.
func (r *Roll) leadKind() StepKind {
	for i := range r.Steps {
		s := &r.Steps[i]
		if !s.State.Final() {
			return s.Kind
		}
	}
	return Verify
}

// LeadKind names the kind of the step that a job of the roll begins with.
func (r Roll) LeadKind() StepKind { return r.leadKind() }

// lastProgress is the newest sign of progress over all steps.
func (r *Roll) lastProgress() time.Time {
	last := r.CreatedAt
	for i := range r.Steps {
		s := &r.Steps[i]
		if s.ProgressAt != nil && s.ProgressAt.After(last) {
			last = *s.ProgressAt
		}
	}
	return last
}

// Bounds say how long a workload's step may stand still before the roll is stuck.
type Bounds struct {
	Exchange             time.Duration
	SharePoint           time.Duration
	SharePointNoProgress time.Duration
}

// DefaultBounds are those of product.md.
func DefaultBounds() Bounds {
	return Bounds{Exchange: 30 * time.Minute, SharePoint: 24 * time.Hour, SharePointNoProgress: 7 * 24 * time.Hour}
}

// Standstill names a step that stands still.
type Standstill struct {
	Step     int       `json:"step"`
	Kind     StepKind  `json:"kind"`
	Workload Workload  `json:"workload"`
	Code     string    `json:"reason_code"`
	Since    time.Time `json:"since"`
}

// Reason codes of a standstill: a closed set, since they are metric labels.
const (
	StuckNeedsAttention = "needs_attention"
	StuckFailing        = "failing"
	StuckNoProgress     = "no_progress"
	StuckUnproven       = "lost_answer"
	StuckManual         = "manual_step"
)

// StuckReasons lists every reason code of a standstill.
func StuckReasons() []string {
	return []string{StuckNeedsAttention, StuckFailing, StuckNoProgress, StuckUnproven, StuckManual}
}

// Stuck returns the steps that have not moved for longer than their workload's
// bound. Time spent waiting for the queue, the gap, an external roll, an nbf
// or an approval does not count.
func (r Roll) Stuck(now time.Time, b Bounds) []Standstill {
	if r.State.Final() || r.State == AwaitingApproval || r.State == Scheduled {
		return nil
	}
	var out []Standstill
	for i := range r.Steps {
		s := &r.Steps[i]
		if s.State.Final() || s.State == StepPending || s.ProgressAt == nil || Patient(s.WaitingFor) {
			continue
		}
		if r.heldUp(s) {
			continue
		}
		since := *s.ProgressAt
		if g := r.gate(s); s.State == StepReady && !s.IntentOpen && g.After(since) {
			since = g
		}
		if now.Sub(since) <= r.bound(s, b) {
			continue
		}
		out = append(out, Standstill{Step: s.N, Kind: s.Kind, Workload: r.workloadOf(s), Code: stuckCode(s), Since: since})
	}
	return out
}

// heldUp: the step could go on, were it not for another one, for the lease, or
// for the roll having stopped; whatever that is has its own standstill.
func (r *Roll) heldUp(s *Step) bool {
	if s.State != StepReady && s.State != StepWaiting || s.WaitingFor == WaitManual {
		return false
	}
	return r.opens(s).IsZero() || r.State != Running && !r.mustWatch(s)
}

func stuckCode(s *Step) string {
	switch {
	case s.State == StepNeedsAttention:
		return StuckNeedsAttention
	case s.WaitingFor == WaitManual:
		return StuckManual
	case s.IntentOpen && s.State != StepRunning:
		return StuckUnproven
	case s.State == StepReady && s.Error != nil:
		return StuckFailing
	}
	return StuckNoProgress
}

func (r *Roll) bound(s *Step, b Bounds) time.Duration {
	atSharePoint := s.Kind == SharePointAwait || s.Kind == SharePointRollKey && s.State == StepWaiting
	if !atSharePoint || s.State == StepNeedsAttention || s.WaitingFor == WaitManual {
		return b.Exchange
	}
	if s.Percent != nil {
		return b.SharePoint
	}
	return b.SharePointNoProgress
}

// WorkloadOf is the step's own workload, as metrics count it.
func (r Roll) WorkloadOf(s Step) Workload { return r.workloadOf(&s) }

// workloadOf is the step's own workload, or that of the first policy that
// waits for it.
func (r *Roll) workloadOf(s *Step) Workload {
	if s.Workload != "" {
		return s.Workload
	}
	if s.Kind == SharePointLease {
		return SharePoint
	}
	for _, p := range r.Plan.Policies {
		if s.Key == "" || slices.Contains(p.Keys, s.Key) {
			return p.Workload
		}
	}
	return MultiWorkload
}
