package main

import (
	"context"
	"crypto/rand"
	"fmt"

	"github.com/keyroll/keyroll/internal/api"
	"github.com/keyroll/keyroll/internal/sim"
)

func contosoRoll() api.RollRequest {
	return api.RollRequest{TenantID: sim.ContosoTenant, Policies: []string{"global", "exo-na", "spo"},
		Reason: api.Reason{Code: "compliance_requirement", Text: "annual, control 8.24", Ticket: api.Ticket{Source: "servicenow", ID: "CHG0031337"}}}
}

// request declares the tenant, plans, requests and approves.
func (d *demo) request(ctx context.Context) (made api.Roll, err error) {
	steps := []struct {
		doing string
		f     func() (string, error)
	}{
		{"declaring tenant Contoso", func() (string, error) { return declareContoso(ctx, d.ada) }},
		{"planning", func() (string, error) {
			var plan api.Plan
			want := contosoRoll()
			_, err := d.rita.call(ctx, "POST", "/v1/plans", api.PlanRequest{TenantID: want.TenantID, Policies: want.Policies}, &plan)
			return fmt.Sprintf("Plan of %d steps: %s; %s", len(plan.Steps), findings(plan.Findings), clip(plan.Hash, 20)), err
		}},
		{"requesting the roll", func() (string, error) {
			_, err := d.rita.call(ctx, "POST", "/v1/rolls", contosoRoll(), &made, "Idempotency-Key", "demo-"+rand.Text())
			return "Roll requested by rita@contoso.com: annual, control 8.24 (CHG0031337)", err
		}},
		{"approving the roll", func() (string, error) {
			// What she read is what he approves: its version, and its plan's hash.
			etag, err := d.arno.call(ctx, "GET", "/v1/rolls/"+made.ID, nil, &made)
			if err != nil {
				return "", err
			}
			_, err = d.arno.call(ctx, "POST", "/v1/rolls/"+made.ID+"/approve", api.ApproveRequest{PlanHash: made.PlanHash, Comment: "go ahead"}, &made, "If-Match", etag)
			return "Approved by arno@contoso.com: exactly this plan", err
		}},
	}
	for _, s := range steps {
		if err := d.tell.do(s.doing, func(func(string)) (string, error) { return s.f() }); err != nil {
			return made, err
		}
	}
	return made, nil
}

func declareContoso(ctx context.Context, as *client) (string, error) {
	declaration := contosoDeclaration()
	var t api.Tenant
	_, err := as.call(ctx, "PUT", "/v1/tenants/"+sim.ContosoTenant, declaration, &t, "If-None-Match", "*")
	return fmt.Sprintf("Contoso declared by ada@contoso.com: %d policies, %d keys, %d vaults", len(declaration.Policies), len(declaration.Keys), len(declaration.Keys)), err
}

func findings(list []api.Finding) string {
	of := map[api.FindingLevel]int{}
	for _, f := range list {
		of[f.Level]++
	}
	return fmt.Sprintf("%d errors, %d warnings, %d not checked", of["error"], of["warning"], of["not_checked"])
}
