package api

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"

	"github.com/keyroll/keyroll/internal/access"
	"github.com/keyroll/keyroll/internal/control"
	"github.com/keyroll/keyroll/internal/roll"
	"github.com/keyroll/keyroll/internal/store"
)

// requestError is a refusal that this package finds by itself: a request that
// is not as the contract says.
type requestError struct {
	code   ProblemCode
	detail string
	errs   []ProblemError
}

func (e *requestError) Error() string {
	text := string(e.code)
	if e.detail != "" {
		text += ": " + e.detail
	}
	for _, one := range e.errs {
		text += "; " + one.Pointer + one.Name + ": " + one.Detail
	}
	return text
}

func refuse(code ProblemCode, detail string) *requestError {
	return &requestError{code: code, detail: detail}
}

// refuseMember refuses a request for one member of its body.
func refuseMember(code ProblemCode, pointer, detail string) *requestError {
	return &requestError{code: code, errs: []ProblemError{{In: ProblemErrorInBody, Pointer: pointer, Detail: detail}}}
}

// problemOf is the only place where an error becomes an answer. What it does
// not know is a fault of ours: a bare 500, whose cause only the log tells.
func problemOf(err error) Problem {
	if p, ok := requestProblem(err); ok {
		return p
	}
	if p, ok := domainProblem(err); ok {
		return p
	}
	// Our own time limit, or a database that does not answer within it.
	if errors.Is(err, context.DeadlineExceeded) {
		return newProblem(ProblemCodeUnavailable, "the answer took too long")
	}
	// The client went away; nobody reads this, and it is no fault of ours.
	if errors.Is(err, context.Canceled) {
		return newProblem(ProblemCodeUnavailable, "the request was given up")
	}
	return newProblem(ProblemCodeInternal, "")
}

// requestProblem knows what is wrong with the request or its sender.
func requestProblem(err error) (Problem, bool) {
	var (
		bad    *requestError
		denied *access.Denied
	)
	switch {
	case errors.As(err, &bad):
		p := newProblem(bad.code, bad.detail)
		p.Errors = bad.errs
		return p, true
	case errors.As(err, &denied):
		p := newProblem(ProblemCodeForbidden, denied.Error())
		p.NextAction = "Ask somebody who has " + denied.Needs + "."
		return p, true
	case errors.Is(err, access.ErrUnknownToken):
		return newProblem(ProblemCodeUnauthenticated, "the token is unknown, revoked or expired"), true
	}
	return Problem{}, false
}

// domainProblem knows what the inner rooms refuse: roll, store and control,
// one case for each sentinel or error type, and no text of theirs parsed.
func domainProblem(err error) (Problem, bool) {
	var (
		invalid      *roll.InvalidError
		availability *roll.AvailabilityKeyError
		transition   *roll.TransitionError
	)
	switch {
	case errors.As(err, &transition):
		return transitionProblem(transition)
	case errors.As(err, &invalid):
		p := newProblem(ProblemCodeUnprocessable, invalid.Detail)
		p.Errors = []ProblemError{{In: ProblemErrorInBody, Pointer: invalid.Pointer, Detail: invalid.Detail}}
		return p, true
	case errors.As(err, &availability):
		return newProblem(ProblemCodeAvailabilityKey, availability.Error()), true
	}
	if p, ok := controlProblem(err); ok {
		return p, true
	}
	return storeProblem(err)
}

// controlProblem knows what acts are refused for.
func controlProblem(err error) (Problem, bool) {
	var (
		faults      *control.PlanErrors
		changed     *control.PlanChanged
		version     *control.VersionError
		strangers   *control.ErrStrangers
		unreadable  *control.UnreadableKeys
		unavailable *control.UnavailableError
		ended       *control.ChangeEnded
	)
	switch {
	case errors.As(err, &faults):
		p := newProblem(ProblemCodePlanHasErrors, faults.Error())
		p.Plan, p.Findings = plan(faults.Plan), findings(faults.Plan.Errors())
		return p, true
	case errors.As(err, &changed):
		p := newProblem(ProblemCodePlanChanged, changed.Error())
		p.Plan = plan(changed.Plan)
		return p, true
	case errors.As(err, &version):
		return newProblem(ProblemCodeVersionMismatch, version.Error()), true
	case errors.As(err, &strangers):
		p := newProblem(ProblemCodeStrangersUndecided, strangers.Error())
		p.Findings = findings(strangers.Findings)
		return p, true
	case errors.As(err, &unreadable):
		p := newProblem(ProblemCodeKeysUnreadable, unreadable.Error())
		p.Findings = findings(unreadable.Findings)
		return p, true
	case errors.As(err, &ended) && ended.Change.State == store.ChangeStale:
		return newProblem(ProblemCodeChangeStale, ended.Error()), true
	case errors.As(err, &ended):
		return newProblem(ProblemCodeWrongState, ended.Error()), true
	case errors.As(err, &unavailable):
		return newProblem(ProblemCodeUnavailable, unavailable.Error()), true
	case errors.Is(err, control.ErrRetired): // it is an ErrNotFound as well
		return newProblem(ProblemCodeTenantRetired, ""), true
	}
	return Problem{}, false
}

// storeProblem knows what the database's rules refuse.
func storeProblem(err error) (Problem, bool) {
	var (
		open  *store.OpenRollError
		taken *store.KeyTakenError
	)
	switch {
	case errors.As(err, &open):
		p := newProblem(ProblemCodeRollOpen, open.Error())
		p.RollID = open.RollID
		return p, true
	case errors.As(err, &taken):
		return newProblem(ProblemCodeKeyTaken, taken.Error()), true
	}
	for _, row := range []struct {
		err  error
		code ProblemCode
	}{
		{store.ErrOpenRolls, ProblemCodeRollOpen},
		{store.ErrLeaseFree, ProblemCodeLeaseFree},
		{store.ErrSamePerson, ProblemCodeSamePerson},
		{store.ErrKeyReused, ProblemCodeIdempotencyKeyReused},
		{store.ErrKeyRunning, ProblemCodeIdempotencyKeyInUse},
		{store.ErrStale, ProblemCodeConflict},
		{store.ErrExists, ProblemCodeAlreadyExists},
		{store.ErrNotFound, ProblemCodeNotFound},
	} {
		if errors.Is(err, row.err) {
			return newProblem(row.code, row.err.Error()), true
		}
	}
	return Problem{}, false
}

// transitionProblem knows why a roll refuses an act. A refusal that no request
// can bring about is a fault of ours.
func transitionProblem(e *roll.TransitionError) (Problem, bool) {
	var code ProblemCode
	switch e.Code {
	case roll.RefusedState, roll.RefusedStepState:
		code = ProblemCodeWrongState
	case roll.RefusedInFlight:
		code = ProblemCodeOperationInFlight
	case roll.RefusedUnproven:
		code = ProblemCodeOperationUnproven
	case roll.RefusedOwnApproval, roll.RefusedSamePerson, roll.RefusedServiceActor:
		code = ProblemCodeSamePerson
	case roll.RefusedPlanChanged:
		code = ProblemCodePlanChanged
	case roll.RefusedPlanHasErrors:
		code = ProblemCodePlanHasErrors
	case roll.RefusedNoSuchStep:
		code = ProblemCodeNotFound
	default:
		return Problem{}, false
	}
	return newProblem(code, e.Detail), true
}

// writeProblem answers with the error's problem and leaves the error itself to
// the request's log line, which is written once, at the end.
func writeProblem(w http.ResponseWriter, r *http.Request, err error) {
	ex := exchangeOf(r.Context())
	ex.err = err
	if ex.answered {
		return // the head is out: nothing that we write now would be understood
	}
	p := problemOf(err)
	p.RequestID = ex.requestID
	h := w.Header()
	h.Del("ETag")
	h.Del("Location")
	switch p.Code {
	case ProblemCodeUnauthenticated:
		h.Set("WWW-Authenticate", `Bearer realm="keyroll"`)
	case ProblemCodeUnavailable:
		h.Set("Retry-After", "2")
	}
	h.Set("Content-Type", "application/problem+json")
	w.WriteHeader(p.Status)
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	if encErr := enc.Encode(p); encErr != nil {
		ex.err = errors.Join(err, encErr)
	}
}
