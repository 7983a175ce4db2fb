package exchange

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/keyroll/keyroll/internal/msapi"
	"github.com/keyroll/keyroll/internal/roll"
)

// Assignment reads which multi-workload policy is assigned to the tenant now
// (Get-M365DataAtRestEncryptionPolicyAssignment, which takes no parameter).
// Assigned is false where none is. It changes nothing.
//
// Microsoft documents no output. The policy may come as an object of its own
// (Guid, Name) or be named, by either, in a property DataEncryptionPolicy. An
// object that names no policy in either way is a *msapi.Error of KindProtocol,
// as are two policies at once: a tenant has one, and neither is taken for it.
func (c *Client) Assignment(ctx context.Context) (roll.AssignmentObservation, error) {
	none := roll.AssignmentObservation{}
	call := c.call(opAssignment, "Get-M365DataAtRestEncryptionPolicyAssignment", noParameters{}, "")
	ans, err := c.invoke(ctx, call)
	if err != nil {
		return none, err
	}
	switch len(ans.objects) {
	case 0:
		return none, nil
	case 1:
	default:
		return none, c.api.Unreadable(call, ans.reply, "not_one_assignment",
			fmt.Sprintf("one policy is assigned to a tenant, got %d", len(ans.objects)))
	}
	obs, err := ans.objects[0].assigned()
	if err != nil {
		return none, c.api.Unreadable(call, ans.reply, "property_not_understood", err.Error())
	}
	if obs.GUID == "" && obs.Name == "" {
		return none, c.api.Unreadable(call, ans.reply, "assignment_not_understood", "the assignment names no policy by GUID or name")
	}
	return obs, nil
}

// assigned reads an assignment: the policy itself, or its name in a property.
// An object that names the policy so has a Guid and a Name of its own, which
// are not the policy's.
func (p properties) assigned() (roll.AssignmentObservation, error) {
	out := roll.AssignmentObservation{Assigned: true}
	named, err := p.text("DataEncryptionPolicy")
	if err != nil {
		return out, err
	}
	if named == "" {
		own, err := p.policy(roll.MultiWorkload)
		out.GUID, out.Name = own.GUID, own.Name
		return out, err
	}
	if g, ok := normalGUID(named); ok {
		out.GUID = g
	} else {
		out.Name = named
	}
	return out, nil
}

// Test lets Exchange test the multi-workload policy with this GUID
// (Test-M365DataAtRestEncryptionPolicy). It changes nothing here; what the
// cmdlet tries at Microsoft is not documented.
//
// Its output is not documented either: see testVerdict for what is assumed. A
// cmdlet that the tenant does not have, or that the application may not run,
// is a *msapi.Error of KindForbidden (Exchange does not tell the two apart); a
// policy that is not there is KindNotFound; an answer about another policy is
// KindProtocol. What was answered and not understood is TestUnclear, no error.
func (c *Client) Test(ctx context.Context, guid string) (roll.PolicyTest, error) {
	want, ok := normalGUID(guid)
	if !ok {
		return roll.PolicyTest{}, msapi.Invalid(msapi.ServiceExchange, opTest, "a policy is tested by its GUID")
	}
	call := c.call(opTest, "Test-M365DataAtRestEncryptionPolicy", testParameters{Identity: want}, "")
	ans, err := c.invoke(ctx, call)
	if err != nil {
		return roll.PolicyTest{}, err
	}
	out := roll.PolicyTest{Warnings: ans.warnings, RequestID: msapi.RequestID(ans.reply.Header), At: c.api.Now().UTC()}
	var details []string
	for _, o := range ans.objects {
		// As with Get, an identity that is not known may mean all policies.
		if g, err := o.guid(); err != nil || g != "" && g != want {
			return roll.PolicyTest{}, c.api.Unreadable(call, ans.reply, "another_policy", "the answer is about another policy than the one asked for")
		}
		verdict, detail := o.testVerdict()
		out.Verdict = worse(out.Verdict, verdict)
		if detail != "" && !slices.Contains(details, detail) {
			details = append(details, detail)
		}
	}
	if len(ans.objects) == 0 {
		out.Verdict, details = roll.TestUnclear, []string{"the cmdlet said nothing"}
	}
	out.Detail = msapi.Sanitize(strings.Join(details, "; "))
	return out, nil
}

// worse joins the verdicts of an answer's objects: all must be healthy.
func worse(a, b roll.TestVerdict) roll.TestVerdict {
	order := []roll.TestVerdict{"", roll.TestHealthy, roll.TestUnclear, roll.TestUnhealthy}
	if slices.Index(order, a) > slices.Index(order, b) {
		return a
	}
	return b
}

// testVerdict reads one object of the test's output. What it assumes, from how
// other Test- cmdlets of Exchange answer: a property Result, OverallResult,
// ResultType, Status, IsValid or IsHealthy with one of the words below, and the
// text in Detail, Details, Error, ErrorMessage or Message. If they contradict
// each other, or there is none of them, the object is unclear.
func (p properties) testVerdict() (verdict roll.TestVerdict, detail string) {
	for _, name := range []string{"Result", "OverallResult", "ResultType", "Status", "IsValid", "IsHealthy"} {
		raw, ok := p.find(name)
		if !ok {
			continue
		}
		said := roll.TestUnclear
		switch strings.ToLower(strings.Trim(string(raw), `" `)) {
		case "true", "success", "succeeded", "pass", "passed", "ok", "valid", "healthy":
			said = roll.TestHealthy
		case "false", "failure", "failed", "fail", "error", "invalid", "unhealthy":
			said = roll.TestUnhealthy
		}
		if verdict != "" && verdict != said {
			said = roll.TestUnclear
		}
		verdict = said
	}
	if verdict == "" {
		verdict = roll.TestUnclear
	}
	for _, name := range []string{"Detail", "Details", "Error", "ErrorMessage", "Message"} {
		if list, err := p.texts(name); err == nil && len(list) > 0 && detail == "" {
			detail = strings.Join(list, "; ")
		}
	}
	return verdict, detail
}
