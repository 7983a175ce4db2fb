package api

import (
	"encoding/json"
	"time"

	"github.com/keyroll/keyroll/internal/roll"
)

// plan is a plan as the contract shows it.
func plan(p roll.Plan) Plan {
	out := Plan{
		Hash: p.Hash, TenantID: p.TenantID, MadeAt: p.MadeAt.UTC(), Kind: PlanKind(p.KindWord()), Keys: each(p.Keys, planKey),
		Policies: each(p.Policies, func(q roll.PlanPolicy) PlanPolicy {
			return PlanPolicy{
				ID: q.ID, Workload: Workload(q.Workload), Name: q.Name, GUID: q.GUID, Covers: q.Covers, Geo: q.Geo, Keys: notNil(q.Keys),
			}
		}),
		Steps: each(p.Steps, planStep), Findings: findings(p.Findings),
		EstimateSeconds: p.EstimateSeconds, Emergency: p.Emergency, CanRun: len(p.Errors()) == 0,
	}
	if len(p.OtherKeys) > 0 {
		out.OtherKeys = each(p.OtherKeys, planKey)
	}
	if len(p.Replaces) > 0 {
		out.Replaces = each(p.Replaces, func(r roll.PlanReplacement) PlanReplacement {
			return PlanReplacement{
				Policy: r.Policy, Slot: Slot(r.Slot), Key: r.Key, OldKey: r.OldKey, OldVaultURL: r.OldVaultURL, OldName: r.OldName, OldVersion: r.OldVersion,
			}
		})
	}
	return out
}

func planKey(k roll.PlanKey) PlanKey {
	return PlanKey{
		ID: k.ID, VaultURL: k.VaultURL, Name: k.Name, OldVersion: k.OldVersion, Version: k.Version,
		KeyNotBefore: utc(k.KeyNotBefore), Size: k.Size, Policies: notNil(k.Policies),
	}
}

func planStep(s roll.PlanStep) PlanStep {
	params := StepParams{OldVersion: s.Params.OldVersion, Adopt: s.Params.Adopt, NotBefore: utc(s.Params.NotBefore), Scope: s.Params.Scope,
		Size: s.Params.Size, Migrate: s.Params.Migrate, Replaces: s.Params.Replaces, ByURI: s.Params.ByURI, Account: s.Params.Account}
	if t := s.Params.Transport; t != roll.Native {
		params.Transport = TransportName(t)
	} else if hasTransport(s.Kind) {
		params.Transport = TransportName(t.Name(nativeOf(s)))
	}
	if s.Params.Gap > 0 {
		params.Gap = time.Duration(s.Params.Gap).String()
	}
	return PlanStep{
		N: s.N, Kind: StepKind(s.Kind), After: notNil(s.After), Policy: s.Policy, Key: s.Key, Slot: Slot(s.Slot), Geo: s.Geo,
		Params: params, Title: s.Title, EstimateSeconds: s.EstimateSeconds,
	}
}

// nativeOf is the workload whose native interface a plan's step uses: a step
// with a geo is SharePoint's.
func nativeOf(s roll.PlanStep) roll.Workload {
	if s.Geo != "" {
		return roll.SharePoint
	}
	return roll.Exchange
}

func findings(in []roll.Finding) []Finding {
	return each(in, func(f roll.Finding) Finding {
		return Finding{Code: f.Code, Level: FindingLevel(f.Level), Subject: f.Subject, Seen: f.Seen, Remedy: f.Remedy, Passing: f.Passing, OwnLevel: FindingLevel(f.OwnLevel)}
	})
}

// askedFor is which keys are to be rolled or replaced.
type askedFor struct {
	policies []string
	keys     []KeyRequest
	replace  []Replacement
	// emergency lets it through windows and freezes.
	emergency Emergency
}

// request reads what a roll is asked for.
func request(tenantID string, what askedFor, why Reason, startAt time.Time, hash string) roll.Request {
	req := roll.Request{
		TenantID: tenantID, Policies: what.policies, StartAt: optional(startAt), PlanHash: hash, Emergency: emergency(what.emergency),
		Reason: roll.Reason{Code: string(why.Code), Text: why.Text},
	}
	if why.Ticket != (Ticket{}) {
		req.Reason.Ticket = &roll.Ticket{Source: why.Ticket.Source, ID: why.Ticket.ID}
	}
	for _, k := range what.keys {
		req.Keys = append(req.Keys, roll.KeyRequest{
			Type: string(k.Type), ID: k.ID, Policy: k.Policy, Version: k.Version, KeyNotBefore: optional(k.KeyNotBefore), Size: int(k.Size),
		})
	}
	for _, r := range what.replace {
		req.Replace = append(req.Replace, roll.Replacement{Policy: r.Policy, Slot: roll.Slot(r.Slot), Key: r.Key, Version: r.Version})
	}
	return req
}

func reason(r roll.Reason) Reason {
	out := Reason{Code: ReasonCode(r.Code), Text: r.Text}
	if r.Ticket != nil {
		out.Ticket = Ticket{Source: r.Ticket.Source, ID: r.Ticket.ID}
	}
	return out
}

// members are the members of a value that has JSON tags; nil where it has none.
func members(v any) map[string]any {
	raw, err := json.Marshal(v)
	if err != nil {
		return nil // nothing of ours fails to encode
	}
	var out map[string]any
	if json.Unmarshal(raw, &out) != nil || len(out) == 0 {
		return nil
	}
	return out
}
