package roll

import (
	"fmt"
	"slices"
	"time"
)

// InFlight says whether an operation at SharePoint may be under way for the
// roll under the lease scope ("" for any): an open intent, or a roll that was
// taken and whose end was not seen.
func (r Roll) InFlight(scope string) bool {
	for i := range r.Steps {
		s := &r.Steps[i]
		if scope != "" && s.Params.Scope != scope {
			continue
		}
		switch s.Kind {
		case SharePointRollKey:
			if s.IntentOpen {
				return true
			}
		case SharePointAwait:
			if from, ok := r.rollStepOf(s); ok && from.State == StepSucceeded && s.State != StepSucceeded && !s.OpEnded {
				return true
			}
		}
	}
	return false
}

// rollStepOf finds the step whose operation an await watches.
func (r *Roll) rollStepOf(await *Step) (*Step, bool) {
	for _, n := range await.After {
		if n >= 1 && n <= len(r.Steps) && r.Steps[n-1].Kind == SharePointRollKey {
			return &r.Steps[n-1], true
		}
	}
	return nil, false
}

// Unsettled says whether any effect may be under way anywhere.
func (r Roll) Unsettled() bool {
	for i := range r.Steps {
		s := &r.Steps[i]
		if s.IntentOpen || s.State == StepRunning {
			return true
		}
	}
	return r.InFlight("")
}

// whenSettled says what is under way, and what must be seen of it before the
// roll can be planned anew.
func (r *Roll) whenSettled() string {
	for i := range r.Steps {
		s := &r.Steps[i]
		switch {
		case s.State == StepRunning:
			return fmt.Sprintf("step %d (%s) is at work: ask again when it has ended", s.N, s.Title)
		case s.WaitingFor == WaitManual && s.Offer != nil:
			return fmt.Sprintf("step %d (%s) has been shown to people, and may have been run by hand: ask again when a person has reported what became of it", s.N, s.Title)
		case s.IntentOpen && s.IntentDeadline != nil:
			return fmt.Sprintf("the answer to step %d (%s) was lost, and what became of it can be told from %s on at the latest: ask again then", s.N, s.Title, s.IntentDeadline.UTC().Format(time.RFC3339))
		case s.Kind == SharePointAwait && r.mustWatch(s):
			return fmt.Sprintf("step %d watches a SharePoint operation under way (%s), which cannot be stopped and may take days: ask again when it has ended, or cancel the roll, which is watched to that end too", s.N, s.Seen)
		}
	}
	return "an operation of this roll may still be under way at Microsoft: ask again when its end has been seen"
}

// mustWatch says whether the step has, or is there to see the end of, an
// operation that may be under way.
func (r *Roll) mustWatch(s *Step) bool {
	if s.IntentOpen || s.State == StepRunning {
		return true
	}
	if s.Kind == SharePointAwait {
		from, ok := r.rollStepOf(s)
		return ok && !s.OpEnded && (from.State == StepSucceeded || from.IntentOpen || from.State == StepRunning)
	}
	return false
}

// leftBehind lists the versions that the roll made and no policy took up. In a
// roll that succeeded these are the ones that a later round replaced.
func (r *Roll) leftBehind() []Made {
	var out []Made
	for _, m := range r.Made {
		taken := slices.ContainsFunc(r.Steps, func(s Step) bool {
			return s.State == StepSucceeded && s.Result.Versions[m.Key] == m.Version
		})
		if k, ok := r.KeyByID(m.Key); ok && r.State == Succeeded && k.NewVersion == m.Version {
			taken = true
		}
		if !taken {
			out = append(out, m)
		}
	}
	return out
}
