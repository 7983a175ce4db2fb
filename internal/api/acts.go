package api

import (
	"context"
	"errors"

	"github.com/keyroll/keyroll/internal/roll"
)

// acted is the roll after an act. An act that has happened already is no
// error: the roll is shown as it is.
func (h *handlers) acted(ctx context.Context, id string, r roll.Roll, err error) (roll.Roll, Roll, ETag, error) {
	if errors.Is(err, roll.ErrAlreadyApplied) {
		r, err = h.Store.Roll(ctx, id)
	}
	if err != nil {
		return r, Roll{}, "", err
	}
	body, err := h.show(ctx, r)
	return r, body, formatETag(r.Version), err
}

// ApproveRoll says yes to an exact plan.
func (h *handlers) ApproveRoll(ctx context.Context, q ApproveRollRequestObject) (ApproveRollResponseObject, error) {
	version, err := parseETag(q.Params.IfMatch)
	if err != nil {
		return nil, err
	}
	r, err := h.Control.Approve(ctx, PrincipalOf(ctx), q.RollID, version, q.Body.PlanHash, q.Body.Comment)
	_, body, tag, err := h.acted(ctx, q.RollID, r, err)
	return ApproveRoll200JSONResponse{Body: body, Headers: ApproveRoll200ResponseHeaders{ETag: tag}}, err
}

// RejectRoll says no to a plan.
func (h *handlers) RejectRoll(ctx context.Context, q RejectRollRequestObject) (RejectRollResponseObject, error) {
	version, err := parseETag(q.Params.IfMatch)
	if err != nil {
		return nil, err
	}
	r, err := h.Control.Reject(ctx, PrincipalOf(ctx), q.RollID, version, q.Body.Reason)
	_, body, tag, err := h.acted(ctx, q.RollID, r, err)
	return RejectRoll200JSONResponse{Body: body, Headers: RejectRoll200ResponseHeaders{ETag: tag}}, err
}

// CancelRoll stops a roll before its next effect.
func (h *handlers) CancelRoll(ctx context.Context, q CancelRollRequestObject) (CancelRollResponseObject, error) {
	r, err := h.Control.Cancel(ctx, PrincipalOf(ctx), q.RollID, q.Body.Reason)
	_, body, tag, err := h.acted(ctx, q.RollID, r, err)
	return CancelRoll200JSONResponse{Body: body, Headers: CancelRoll200ResponseHeaders{ETag: tag}}, err
}

// RetryRoll resumes halted steps.
func (h *handlers) RetryRoll(ctx context.Context, q RetryRollRequestObject) (RetryRollResponseObject, error) {
	b := value(q.Body)
	if b.Assume != "" && b.StepID == 0 {
		return nil, refuseMember(ProblemCodeUnprocessable, "/step_id", "say of which step: assume is about one operation")
	}
	var r roll.Roll
	var err error
	if b.Assume == "" {
		r, err = h.Control.Retry(ctx, PrincipalOf(ctx), q.RollID, b.StepID)
	} else {
		r, err = h.Control.Assume(ctx, PrincipalOf(ctx), q.RollID, b.StepID, string(b.Assume))
	}
	_, body, tag, err := h.acted(ctx, q.RollID, r, err)
	return RetryRoll200JSONResponse{Body: body, Headers: RetryRoll200ResponseHeaders{ETag: tag}}, err
}

// ReportStep takes a person's word on a manual step.
func (h *handlers) ReportStep(ctx context.Context, q ReportStepRequestObject) (ReportStepResponseObject, error) {
	said := roll.Reported{Outcome: string(q.Body.Outcome), Note: q.Body.Note}
	if !q.Body.RanAt.IsZero() {
		said.RanAt = &q.Body.RanAt
	}
	r, err := h.Control.Report(ctx, PrincipalOf(ctx), q.RollID, q.N, said)
	var refused *roll.TransitionError
	if errors.As(err, &refused) && refused.Code == roll.RefusedReportTime {
		return nil, refuseMember(ProblemCodeUnprocessable, "/ran_at", refused.Detail)
	}
	_, body, tag, err := h.acted(ctx, q.RollID, r, err)
	return ReportStep200JSONResponse{Body: body, Headers: ReportStep200ResponseHeaders{ETag: tag}}, err
}

// ReplanRoll gives a halted roll a new plan.
func (h *handlers) ReplanRoll(ctx context.Context, q ReplanRollRequestObject) (ReplanRollResponseObject, error) {
	r, err := h.Control.Replan(ctx, PrincipalOf(ctx), q.RollID, string(value(q.Body).Strangers))
	_, body, tag, err := h.acted(ctx, q.RollID, r, err)
	return ReplanRoll200JSONResponse{Body: body, Headers: ReplanRoll200ResponseHeaders{ETag: tag}}, err
}

// AbandonRoll is one of the two people's calls that give a roll up.
func (h *handlers) AbandonRoll(ctx context.Context, q AbandonRollRequestObject) (AbandonRollResponseObject, error) {
	r, err := h.Control.Abandon(ctx, PrincipalOf(ctx), q.RollID, q.Body.Reason)
	r, body, tag, err := h.acted(ctx, q.RollID, r, err)
	if err != nil {
		return nil, err
	}
	asked := value(r.Abandon)
	out := AbandonResult{Roll: body, AbandonPending: !r.State.Final(), By: asked.By.Subject, At: asked.At.UTC()}
	if out.AbandonPending {
		return AbandonRoll202JSONResponse{Body: out, Headers: AbandonRoll202ResponseHeaders{ETag: tag}}, nil
	}
	return AbandonRoll200JSONResponse{Body: out, Headers: AbandonRoll200ResponseHeaders{ETag: tag}}, nil
}
