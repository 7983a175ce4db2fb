package sim

import (
	"net/http"
	"strconv"
	"time"
)

// verdict is where a call goes after its faults.
type verdict int

const (
	goOn    verdict = iota // to the effect, or to the answer
	goStop                 // to the answer, without an effect
	goLost                 // the connection is closed
	goReset                // the connection is reset
)

// draw takes the faults that this call meets, in order, up to the first that
// ends the call before its effect. The lock is held.
func (w *World) draw(c *call, now time.Time) []*fault {
	var out []*fault
	for _, f := range w.faults {
		if now.Before(f.begins) || f.Lasts > 0 && !now.Before(f.begins.Add(seconds(f.Lasts))) || !f.meets(c, w) {
			continue
		}
		f.seen++
		if f.seen <= f.After || f.Count > 0 && f.used >= f.Count {
			continue
		}
		if f.Probability > 0 && f.dice.Float64() >= f.Probability {
			continue
		}
		f.used++
		out = append(out, f)
		if f.mode.stops {
			break
		}
	}
	return out
}

// before runs the faults that come before the effect.
func (w *World) before(c *call, faults []*fault) (answer, verdict) {
	for _, f := range faults {
		if f.mode.stops {
			w.fireNow(f)
			return w.stop(c, f)
		}
		switch f.Mode {
		case ModeDelay:
			w.fireNow(f)
			if !w.pause(seconds(f.Params.Seconds)) {
				return answer{}, goLost
			}
		case ModeHold:
			if !w.wait(f) {
				return answer{}, goLost
			}
		case ModeListingLag:
			w.fireNow(f)
			c.lag = append(c.lag, f)
		case ModeStatusRegress:
			w.fireNow(f)
			c.back = or(f.Params.Back, 1)
		case ModeStatus:
			w.fireNow(f)
			c.status = &f.Params.Status
		case ModeWarning:
			w.fireNow(f)
			c.warnings = append(c.warnings, f.Params.Warning)
		case ModeJobSlow, ModeJobFails, ModeJobFailsAfter, ModeJobOutput:
			w.fireNow(f)
			c.jobFaults = append(c.jobFaults, f)
		case ModeRollingForever:
			w.fireNow(f)
			c.freeze = f
		}
	}
	return answer{}, goOn
}

// stop ends a call before its effect, as the fault's mode wants it.
func (w *World) stop(c *call, f *fault) (answer, verdict) {
	switch f.Mode {
	case ModeReset:
		return answer{}, goReset
	case ModeLoseBefore:
		return answer{}, goLost
	case ModeThrottle:
		return w.throttled(c.service, f.Params), goStop
	case ModeHTMLPage:
		return htmlPage(f.Params), goStop
	case ModeErrorIn200:
		return w.errorIn200(c.service, f.Params), goStop
	case ModeExpireToken:
		return w.tokenRefusal(c, errTokenExpired), goStop
	case ModeRevokeTokens:
		w.lock()
		w.revoke(c.tenant, "")
		w.mu.Unlock()
		return w.tokenRefusal(c, errTokenRevoked), goStop
	default:
		return w.refusal(c.service, f.Params, http.StatusServiceUnavailable), goStop
	}
}

// after runs the faults that come when the effect is there.
func (w *World) after(c *call, faults []*fault, ans answer) (answer, verdict) {
	for _, f := range faults {
		switch f.Mode {
		case ModeHoldAfter:
			if !w.wait(f) {
				return ans, goLost
			}
		case ModeErrorAfter:
			w.fireNow(f)
			return w.refusal(c.service, f.Params, http.StatusInternalServerError), goStop
		case ModeApplyAndLose:
			w.fireNow(f)
			return ans, goLost
		case ModeApplyAndReset:
			w.fireNow(f)
			return ans, goReset
		}
	}
	return ans, goOn
}

func (w *World) fireNow(f *fault) {
	w.lock()
	w.fire(f)
	w.mu.Unlock()
}

// pause sleeps in real time; false when the world closed.
func (w *World) pause(d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-w.closed:
		return false
	}
}

// refusal is an error answer as the fault's params want it.
func (w *World) refusal(service string, p FaultParams, status int) answer {
	var ans answer
	switch {
	case p.Body != "":
		ans = textAnswer(or(p.Status, status), p.Body)
	case service == ServiceEntra:
		ans = w.entraFault(p, status)
	default:
		status = or(p.Status, status)
		ans = w.errorAnswer(service, status, or(p.Code, defaultCode(service, status)), or(p.Message, http.StatusText(status)))
	}
	if p.RetryAfter > 0 {
		ans.header.Set("Retry-After", strconv.Itoa(p.RetryAfter))
	}
	return ans
}

// throttled is a refusal that says when to come back: after one second by
// default, and nothing of it where retry_after is negative.
func (w *World) throttled(service string, p FaultParams) answer {
	p.RetryAfter = or(p.RetryAfter, 1)
	p.Message = or(p.Message, "Too many requests. Please try again later.")
	return w.refusal(service, p, http.StatusTooManyRequests)
}

// defaultCode is the error code that a service would use for a status.
func defaultCode(service string, status int) string {
	switch {
	case service == ServiceExchange && status == http.StatusTooManyRequests:
		return "Microsoft.Exchange.Data.Directory.OverBudgetException"
	case service == ServiceExchange:
		return "Microsoft.Exchange.Data.Directory.TransientException"
	case service == ServiceSharePoint:
		return "Microsoft.SharePoint.Client.ServerException"
	case service == ServiceResourceManager && status == http.StatusTooManyRequests:
		return "TooManyRequests"
	case service == ServiceResourceManager && status == http.StatusForbidden:
		return "AuthorizationFailed"
	case status == http.StatusTooManyRequests:
		return "Throttled"
	case status == http.StatusForbidden:
		return "Forbidden/ForbiddenByRbac"
	case status == http.StatusConflict:
		return "Conflict"
	case status == http.StatusServiceUnavailable:
		return "ServiceUnavailable"
	default:
		return "InternalServerError"
	}
}
