package store

import (
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/keyroll/keyroll/internal/audit"
	"github.com/keyroll/keyroll/internal/roll"
)

// describe turns an event into what the audit log keeps of it: who, which
// step, which versions and hashes; no prose that could hold a secret beyond
// what people typed as reasons.
func describe(r roll.Roll, ev roll.Event) audit.Event {
	out := audit.Event{Type: ev.Type(), Detail: map[string]any{}}
	put := func(k string, v string) {
		if v != "" {
			out.Detail[k] = v
		}
	}
	switch e := ev.(type) {
	case roll.Approve:
		put("plan_hash", e.PlanHash)
		put("comment", e.Comment)
	case roll.Reject:
		put("reason", e.Reason)
	case roll.Cancel:
		put("reason", e.Reason)
	case roll.Retry:
		out.Step = e.Step
		put("assume", e.Assume)
	case roll.Replan:
		put("plan_hash", e.Plan.Hash)
	case roll.GiveUp:
		put("reason", e.Reason)
	case roll.Reported:
		out.Step = e.N
		put("outcome", e.Outcome)
		put("note", e.Note)
		put("ran_at", stamp(e.RanAt))
	case roll.Begun:
		out.Step = e.N
		put("worker", e.Worker)
		if s, ok := r.StepByN(e.N); ok {
			put("kind", string(s.Kind))
			if s.IntentOpen {
				put("op_id", s.OpID)
				put("intent_deadline", stamp(s.IntentDeadline))
			}
		}
		if e.Takeover {
			put("takeover", "true")
		}
	case roll.Done:
		out.Step = e.N
		describeResult(&out, put, e.Result)
	default:
		describeLook(&out, put, ev)
	}
	if len(out.Detail) == 0 {
		out.Detail = nil
	}
	return out
}

func describeResult(out *audit.Event, put func(k, v string), res roll.Result) {
	put("version", res.Version)
	put("evidence", string(res.Evidence))
	put("source", res.Source)
	put("request_id", res.RequestID)
	put("attested_by", res.AttestedBy)
	if res.Unproven {
		out.Detail["unproven"] = "true"
	}
	if res.Adopted {
		put("adopted", "true")
	}
	if res.ByTag {
		put("found_by_tag", "true")
	}
	for _, k := range slices.Sorted(maps.Keys(res.Versions)) {
		put("version:"+k, res.Versions[k])
	}
	if len(res.Warnings) > 0 {
		out.Detail["warnings"] = res.Warnings
	}
}

func describeLook(out *audit.Event, put func(k, v string), ev roll.Event) {
	switch e := ev.(type) {
	case roll.Waits:
		out.Step = e.N
		put("waiting_for", e.For)
		put("seen", e.Look.Seen)
		if e.Look.Percent != nil {
			put("percent", strconv.FormatFloat(*e.Look.Percent, 'f', -1, 64))
		}
		put("until", e.Until.UTC().Format(time.RFC3339))
	case roll.Polled:
		out.Step = e.N
	case roll.WillRetry:
		out.Step = e.N
		put("code", e.Code)
		put("detail", e.Detail)
		put("at", e.At.UTC().Format(time.RFC3339))
		if e.NotApplied {
			put("not_applied", "true")
		}
		if e.Over {
			put("over", "true")
		}
	case roll.Halted:
		out.Step = e.N
		put("code", e.Code)
		put("detail", e.Detail)
		if e.NotApplied {
			put("not_applied", "true")
		}
		if e.Unproven {
			put("unproven", "true")
		}
		describeResult(out, put, e.Result)
	case roll.Crashed:
		put("worker", e.Worker)
		put("detail", e.Detail)
	case roll.PlanChanged:
		out.Step = e.N
		put("plan_hash", e.Plan.Hash)
	case roll.Offered:
		out.Step = e.N
		put("line", e.Offer.Line)
		if e.Offer.Until != nil {
			put("until", e.Offer.Until.UTC().Format(time.RFC3339))
		}
	case roll.EvidenceSeen:
		put("policy", e.Policy)
		put("evidence", string(e.Evidence))
		put("source", e.Source)
	case roll.LeaseGranted:
		out.Step = e.N
	case roll.LeaseQueued:
		out.Step = e.N
		out.Detail["position"] = e.Position
	}
}

func stamp(t *time.Time) string {
	if t == nil {
		return ""
	}
	return t.UTC().Format(time.RFC3339)
}
