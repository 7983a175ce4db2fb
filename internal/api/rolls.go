package api

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/keyroll/keyroll/internal/control"
	"github.com/keyroll/keyroll/internal/roll"
	"github.com/keyroll/keyroll/internal/store"
)

// view collects what is shown beside a roll.
func (h *handlers) view(ctx context.Context, r roll.Roll) (view, error) {
	v := view{now: h.now(), bounds: h.Bounds}
	var err error
	if v.backups, err = h.Store.BackupsSince(ctx, r); err != nil {
		return v, err
	}
	if v.mailboxes, err = h.Store.Mailboxes(ctx, r.ID); err != nil {
		return v, err
	}
	if r.State == roll.Succeeded {
		v.logs, err = h.Store.EvidenceWatches(ctx, r.ID)
		return v, err
	}
	if r.State.Final() || !slices.Contains(r.Workloads(), roll.SharePoint) {
		return v, nil
	}
	v.leases, err = h.Store.Leases(ctx, r.TenantID)
	return v, err
}

// show is a roll as it is now.
func (h *handlers) show(ctx context.Context, r roll.Roll) (Roll, error) {
	v, err := h.view(ctx, r)
	return v.roll(r), err
}

// CreatePlan is a dry run of a roll.
func (h *handlers) CreatePlan(ctx context.Context, r CreatePlanRequestObject) (CreatePlanResponseObject, error) {
	b := r.Body
	p, err := h.Control.Plan(ctx, PrincipalOf(ctx), request(b.TenantID, askedFor{b.Policies, b.Keys, b.Replace, b.Emergency}, b.Reason, b.StartAt, ""))
	if err != nil {
		return nil, err
	}
	return CreatePlan200JSONResponse(plan(p)), nil
}

// CreateRoll requests a roll. The answer is stored with the idempotency key in
// the transaction that makes the roll, and given again byte for byte.
func (h *handlers) CreateRoll(ctx context.Context, r CreateRollRequestObject) (CreateRollResponseObject, error) {
	b := r.Body
	replayed := true
	answer, err := h.Control.Request(ctx, PrincipalOf(ctx), request(b.TenantID, askedFor{b.Policies, b.Keys, b.Replace, b.Emergency}, b.Reason, b.StartAt, b.PlanHash), control.Idempotency{
		Key: r.Params.IdempotencyKey, BodyHash: bodyHash("POST /v1/rolls", exchangeOf(ctx).body),
		Render: func(made roll.Roll) (store.Answer, error) {
			replayed = false
			body, err := json.Marshal(view{now: made.CreatedAt, bounds: h.Bounds}.roll(made))
			if err != nil {
				return store.Answer{}, fmt.Errorf("encoding roll %s: %w", made.ID, err)
			}
			return store.Answer{Status: http.StatusAccepted, Body: append(body, '\n'), Location: path(made)}, nil
		},
	})
	if err != nil {
		return nil, err
	}
	return storedAnswer{answer: answer, replayed: replayed}, nil
}

// bodyHash tells requests apart by their route and every byte of their body.
func bodyHash(route string, body []byte) []byte {
	sum := sha256.New()
	sum.Write([]byte(route + "\n"))
	sum.Write(body)
	return sum.Sum(nil)
}

// storedAnswer writes the answer to the first request with an idempotency key.
type storedAnswer struct {
	answer   store.Answer
	replayed bool
}

// VisitCreateRollResponse writes it.
func (s storedAnswer) VisitCreateRollResponse(w http.ResponseWriter) error {
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("ETag", formatETag(1)) // of the roll in the body, which was new
	h.Set("Idempotency-Replayed", strconv.FormatBool(s.replayed))
	h.Set("Location", s.answer.Location)
	w.WriteHeader(s.answer.Status)
	_, err := w.Write(s.answer.Body)
	return err
}

// GetRoll reads a roll.
func (h *handlers) GetRoll(ctx context.Context, r GetRollRequestObject) (GetRollResponseObject, error) {
	found, err := h.Store.Roll(ctx, r.RollID)
	if err != nil {
		return nil, err
	}
	body, err := h.show(ctx, found)
	if err != nil {
		return nil, err
	}
	return GetRoll200JSONResponse{Body: body, Headers: GetRoll200ResponseHeaders{ETag: formatETag(found.Version)}}, nil
}

// ListRolls lists rolls.
func (h *handlers) ListRolls(ctx context.Context, r ListRollsRequestObject) (ListRollsResponseObject, error) {
	q := r.Params
	list := []string{"rolls", q.TenantID, string(q.State), q.Key, q.Ticket, q.Actor, moment(q.Since), moment(q.Until)}
	after, _, err := readRowCursor(q.Cursor, list...)
	if err != nil {
		return nil, err
	}
	limit := pageLimit(q.Limit)
	found, err := h.Store.Rolls(ctx, store.RollFilter{
		TenantID: q.TenantID, State: string(q.State), Key: q.Key, Actor: q.Actor, TicketID: q.Ticket,
		Since: q.Since, Until: q.Until, AfterTime: after.At, AfterID: after.ID, Limit: limit + 1,
	})
	if err != nil {
		return nil, err
	}
	found, next := pageOf(found, limit, func(r roll.Roll) position { return position{At: r.CreatedAt, ID: r.ID} }, list...)
	v := view{now: h.now(), bounds: h.Bounds}
	return ListRolls200JSONResponse{Items: each(found, v.summary), NextCursor: next}, nil
}

func moment(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339Nano)
}

// ListRollEvents lists the audit entries of a roll, or follows them.
func (h *handlers) ListRollEvents(ctx context.Context, r ListRollEventsRequestObject) (ListRollEventsResponseObject, error) {
	list := []string{"events", r.RollID}
	after, ok, err := readCursor(r.Params.Cursor, list...)
	if err != nil {
		return nil, err
	}
	var before int64
	if ok {
		if before, err = strconv.ParseInt(after.ID, 10, 64); err != nil || before < 1 {
			return nil, badCursor()
		}
	}
	if _, err := h.Store.Roll(ctx, r.RollID); err != nil {
		return nil, err
	}
	if exchangeOf(ctx).streaming {
		return h.follow(ctx, r.RollID, r.Params.LastEventID)
	}
	limit := pageLimit(r.Params.Limit)
	found, err := h.Store.RollEvents(ctx, r.RollID, before, limit+1)
	if err != nil {
		return nil, err
	}
	found, next := pageOf(found, limit, func(e store.RollEvent) position { return position{ID: strconv.FormatInt(e.ID, 10)} }, list...)
	return ListRollEvents200JSONResponse{Items: each(found, event), NextCursor: next}, nil
}

// event is an audit entry: of the roll, or of the lease that it held, which
// counts its own versions.
func event(e store.RollEvent) RollEvent {
	out := RollEvent{ID: strconv.FormatInt(e.ID, 10), At: e.Entry.At.UTC(), Actor: e.Entry.Actor.Subject, Types: []string{}}
	if strings.HasPrefix(e.Entry.Subject, "roll/") {
		out.RollVersion = e.Entry.Version
	}
	for _, ev := range e.Entry.Events {
		out.Types = append(out.Types, ev.Type)
	}
	out.Detail = members(struct {
		From   string `json:"from,omitempty"`
		To     string `json:"to,omitempty"`
		Events any    `json:"events"`
	}{e.Entry.From, e.Entry.To, e.Entry.Events})
	return out
}
