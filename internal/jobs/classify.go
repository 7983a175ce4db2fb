package jobs

import (
	"context"
	"errors"
	"math/rand/v2"
	"net/http"
	"time"

	"github.com/keyroll/keyroll/internal/msapi"
	"github.com/keyroll/keyroll/internal/roll"
)

// verdict is what a failed call means to its step. It is decided here only.
type verdict struct {
	// Maybe: a changing call may have been applied; it must be settled first.
	Maybe bool
	// Passing failures are tried again After; others stop the roll.
	Passing bool
	After   time.Duration
	// Throttled: the service asked for fewer calls.
	Throttled bool
	// Absent: nothing shows that the vault is there at all.
	Absent bool
	Code   string
	Detail string
	Action string
}

// classify turns the error of a call to Microsoft into a verdict. attempt
// counts from 1 and lengthens the wait.
func (c Config) classify(err error, attempt int) verdict {
	e, ok := msapi.AsError(err)
	if !ok {
		if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
			return verdict{Maybe: true, Passing: true, After: c.backoff(attempt), Code: "interrupted", Detail: "the attempt was interrupted"}
		}
		return verdict{Code: "failed", Detail: err.Error(), Action: "correct what the error names, then retry"}
	}
	v := verdict{Maybe: e.MaybeApplied, Throttled: e.Throttled(), Absent: absent(e), Code: e.Service + "_" + string(e.Kind), Detail: e.Error()}
	switch e.Kind {
	case msapi.KindThrottled, msapi.KindUnavailable:
		v.Passing, v.After = true, max(e.RetryAfter, c.backoff(attempt))
	case msapi.KindUnauthorized, msapi.KindToken:
		v.Action = "check Keyroll's credential for this tenant (its certificate, federated token or identity; consent; application roles), then retry"
	case msapi.KindForbidden:
		v.Action = forbidden[e.Service]
	case msapi.KindNotFound:
		v.Action = "correct the declaration, or restore what is missing, then retry"
		if e.Service == msapi.ServiceKeyVault {
			v.Action = "if the key was deleted, recover it in the vault (never purge it); else correct the declared vault and name; then retry"
		}
	case msapi.KindConflict:
		v.Action = "the key may be soft-deleted: recover it in the vault (never purge it), then retry"
	case msapi.KindProtocol:
		v.Action = "Microsoft's answer was not understood: keep the logs, report it, then retry"
	default:
		v.Action = "read what Microsoft answered, mend the cause, then retry"
	}
	return v
}

// absent: a vault that was deleted has no name in DNS any more, and what answers
// in its place knows nothing of it.
func absent(e *msapi.Error) bool {
	return e.Service == msapi.ServiceKeyVault && (e.Status == 0 && e.Kind == msapi.KindUnavailable || e.Status == http.StatusNotFound || e.Status == http.StatusMisdirectedRequest)
}

// forbidden says by service what to grant.
var forbidden = map[string]string{
	msapi.ServiceKeyVault:   "grant Keyroll's application get, list and create on this vault's keys, and let it through the vault's firewall; then retry",
	msapi.ServiceExchange:   "grant Keyroll's application Exchange.ManageAsApp and a role that may run the data encryption policy cmdlets; then retry",
	msapi.ServiceSharePoint: "grant Keyroll's application Sites.FullControl.All on SharePoint with admin consent, and use a certificate; then retry",
	msapi.ServiceLogs:       "grant Keyroll's application Log Analytics Reader on the declared workspace; then retry",
	msapi.ServiceAutomation: "grant Keyroll's application the role Automation Job Operator and Reader on the Automation account, and the account's own identity what docs/transports.md lists; then retry",
	msapi.ServiceEntra:      "check Keyroll's credential for this tenant, then retry",
}

// backoff doubles from the base to the bound, with a fifth of jitter.
func (c Config) backoff(attempt int) time.Duration {
	d := c.BackoffBase
	for i := 1; i < attempt && d < c.BackoffMax; i++ {
		d *= 2
	}
	d = min(d, c.BackoffMax)
	return d - time.Duration(rand.Int64N(int64(d)/5+1))
}

// failed makes the event of a failed read, or of a call known not to have been
// applied. A mutating call whose fate is not known is the step's own matter.
func (a *attempt) failed(err error) roll.Event {
	v := a.d.cfg.classify(err, a.step.Attempt)
	if v.Passing {
		return roll.WillRetry{N: a.step.N, Epoch: a.step.Epoch, At: a.now().Add(v.After), Code: v.Code, Detail: v.Detail, NotApplied: !a.settle}
	}
	return roll.Halted{N: a.step.N, Epoch: a.step.Epoch, Code: v.Code, Detail: v.Detail, Action: v.Action, NotApplied: !a.settle, OpEnded: a.ended}
}
