package roll

import "slices"

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
