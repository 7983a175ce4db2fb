package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"

	"github.com/keyroll/keyroll/internal/msapi"
	"github.com/keyroll/keyroll/internal/roll"
	"github.com/keyroll/keyroll/internal/survey"
)

// checkPatience bounds the reads of one tenant; expirySoon is when the end of
// a certificate is worth a warning.
const (
	checkPatience = 2 * time.Minute
	expirySoon    = 30 * 24 * time.Hour
)

// tenant looks at one tenant: its tokens, and what a plan of everything would
// find. A plan that would begin is one without errors here.
func (c *checking) tenant(ctx context.Context, s *service, inv roll.Inventory) error {
	ctx, cancel := context.WithTimeout(ctx, checkPatience)
	defer cancel()
	gateway := survey.NewGateway(s.creds, s.hc, msapi.WithClouds(s.clouds))
	if err := gateway.Check(inv); err != nil {
		c.bad(inv.TenantID, "declaration", "declaration_unusable", err, "mend the declaration, or what of the server's settings it names")
		return nil
	}
	c.credential(s, inv)
	if err := c.tokens(ctx, s, gateway, inv); err != nil {
		return err
	}
	if len(inv.Policies) == 0 {
		c.add(checkLine{Tenant: inv.TenantID, Subject: "declaration", Status: checkWarning, Code: "no_policies",
			Seen: "no policy is declared, so there is nothing to roll", Remedy: "declare the tenant's policies"})
		return nil
	}
	req := roll.Request{TenantID: inv.TenantID, Reason: roll.Reason{Code: "other", Text: "a check"}}
	for _, p := range inv.Policies {
		req.Policies = append(req.Policies, p.ID)
	}
	resolved, err := roll.Resolve(inv, req)
	if err != nil {
		return fmt.Errorf("planning for tenant %s: %w", inv.TenantID, err)
	}
	// What could not be read stands in the observation, with its reason.
	obs, _ := gateway.Survey(ctx, inv)
	plan, err := roll.Build(inv, resolved, obs, time.Now().UTC())
	if err != nil {
		return fmt.Errorf("planning for tenant %s: %w", inv.TenantID, err)
	}
	c.findings(inv, plan, obs)
	return nil
}

func (c *checking) credential(s *service, inv roll.Inventory) {
	at, known := s.creds.Expires(inv.Credential)
	switch left := time.Until(at); {
	case !known:
		c.ok(inv.TenantID, "credential", "%s is known to this server", inv.Credential)
	case left <= 0:
		c.bad(inv.TenantID, "credential", "certificate_expired", fmt.Errorf("the certificate of %s ended on %s", inv.Credential, at.UTC().Format(time.RFC3339)),
			"make a new certificate, add it to the app registration, and put it into the credentials file")
	case left < expirySoon:
		c.add(checkLine{Tenant: inv.TenantID, Subject: "credential", Status: checkWarning, Code: "certificate_expires_soon",
			Seen:   fmt.Sprintf("the certificate of %s ends on %s", inv.Credential, at.UTC().Format(time.RFC3339)),
			Remedy: "make a new certificate, add it to the app registration, and put it into the credentials file"})
	default:
		c.ok(inv.TenantID, "credential", "the certificate of %s holds until %s", inv.Credential, at.UTC().Format(time.DateOnly))
	}
}

// tokens gets one for each service that a roll of this tenant calls.
func (c *checking) tokens(ctx context.Context, s *service, gateway *survey.Gateway, inv roll.Inventory) error {
	cloud, err := gateway.Cloud(inv)
	if err != nil {
		return err
	}
	cred, err := s.creds.For(inv.Credential, inv.TenantID, cloud, s.hc)
	if err != nil {
		return err
	}
	scopes := []struct{ name, scope string }{{"Key Vault", cloud.VaultScope}}
	if inv.UsesExchange() {
		scopes = append(scopes, struct{ name, scope string }{"Exchange Online", cloud.ExchangeURL + "/.default"})
	}
	for _, g := range inv.SharePoint.Geos {
		scopes = append(scopes, struct{ name, scope string }{"SharePoint geo " + g.ID, strings.TrimSuffix(g.AdminURL, "/") + "/.default"})
	}
	scopes = append(scopes, struct{ name, scope string }{"Azure Resource Manager", cloud.ResourceManager + "/.default"})
	for _, sc := range scopes {
		c.doing("asking Entra for a token for " + sc.name)
		if _, err := cred.GetToken(ctx, policy.TokenRequestOptions{Scopes: []string{sc.scope}}); err != nil {
			c.bad(inv.TenantID, "token:"+sc.name, "token_refused", msapi.TokenError(err, "get_token", time.Now()),
				"see that the application exists in the tenant with consent, and that its credential in the credentials file is the registered one")
			continue
		}
		c.ok(inv.TenantID, "token:"+sc.name, "Entra gives a token")
	}
	return nil
}

// findings shows what a plan found, and what it found nothing about.
func (c *checking) findings(inv roll.Inventory, plan roll.Plan, obs roll.Observation) {
	about := map[string][]roll.Finding{}
	for _, f := range plan.Findings {
		about[f.Subject] = append(about[f.Subject], f)
	}
	order := subjects(inv, plan)
	for _, subject := range slices.Sorted(maps.Keys(about)) {
		if _, listed := order.of[subject]; !listed {
			order.add(subject, "")
		}
	}
	for _, subject := range order.list {
		for _, f := range about[subject] {
			c.add(checkLine{Tenant: inv.TenantID, Subject: subject, Status: string(f.Level), Code: f.Code, Seen: f.Seen, Remedy: f.Remedy})
		}
		if len(about[subject]) == 0 {
			c.ok(inv.TenantID, subject, "%s", order.of[subject])
		}
	}
}

// subjectList is what a check looks at, in order, with what is said where
// nothing is wrong.
type subjectList struct {
	list []string
	of   map[string]string
}

func (s *subjectList) add(subject, fine string) {
	s.list = append(s.list, subject)
	s.of[subject] = fine
}

func subjects(inv roll.Inventory, plan roll.Plan) subjectList {
	s := subjectList{of: map[string]string{}}
	for _, k := range slices.Concat(plan.Keys, plan.OtherKeys) {
		s.add("key:"+k.ID, "key "+k.Name+" is in order; its newest version is "+k.OldVersion)
	}
	for _, k := range inv.Keys {
		host := k.Ref().Host
		if _, listed := s.of["vault:"+host]; !listed {
			s.add("vault:"+host, "vault "+host+" is set up as Microsoft asks, and whoever must use its keys may")
		}
	}
	for _, p := range inv.Policies {
		s.add("policy:"+p.ID, string(p.Workload)+" policy "+p.ID+" uses the declared keys")
	}
	return s
}
