package sim

import (
	"strings"
	"time"
)

// The cmdlets of the multi-workload assignment and test.
const (
	OpSetM365Assignment = "Set-M365DataAtRestEncryptionPolicyAssignment"
	OpTestM365DEP       = "Test-M365DataAtRestEncryptionPolicy"
)

// PolicyTest is what Test-M365DataAtRestEncryptionPolicy says of a policy. With
// no Result, the simulator looks itself: "Success" where Microsoft could wrap
// with each of the policy's keys now, else "Failure" and why. Any other text
// stands there as it is, as a word of Microsoft's that no client knows would.
type PolicyTest struct {
	// Result is what Result says.
	Result string `json:"result,omitempty"`
	// Detail is what Detail says.
	Detail string `json:"detail,omitempty"`
}

// getAssignment shows the policy that is assigned to the tenant. Microsoft
// documents no output. Assumed are two: the policy as Get shows it, and, by
// the seed, an object that names it.
func (t *tenant) getAssignment(c *call) answer {
	var out []map[string]any
	for _, p := range t.policies {
		switch {
		case p.Workload != WorkloadMulti || !p.Assigned:
		case t.exo.AssignmentByName:
			out = append(out, map[string]any{"Identity": "DataAtRestEncryptionPolicyAssignment",
				"Guid@odata.type": "#Guid", "Guid": t.id, "DataEncryptionPolicy": p.Name})
		default:
			out = append(out, p.object())
		}
	}
	return t.envelope(c, out, nil)
}

// setAssignment assigns another policy to the tenant. Rolling keys never needs
// it: whoever calls it shows in the witness log.
func (t *tenant) setAssignment(c *call, p parameters, now time.Time) answer {
	const binding = "System.Management.Automation.ParameterBindingException"
	for name := range p {
		if !strings.EqualFold(name, "DataEncryptionPolicy") && !strings.EqualFold(name, "Confirm") {
			return exchangeError(400, binding, "A parameter cannot be found that matches parameter name '"+name+"'.")
		}
	}
	found := t.policyOf(p.text("DataEncryptionPolicy"), WorkloadMulti)
	if found == nil {
		return notFound(p.text("DataEncryptionPolicy"))
	}
	for _, other := range t.policies {
		if other.Workload == WorkloadMulti {
			other.Assigned = other == found
		}
	}
	c.applied()
	c.record.End = now
	return t.envelope(c, nil, t.warnings)
}

// testPolicy tests the named policy, or all where none is named or known, as
// Get does. Microsoft documents no output: the shape is assumed, after that of
// other Test- cmdlets.
func (t *tenant) testPolicy(c *call, p parameters, now time.Time) answer {
	if t.exo.NoTestCmdlet {
		return t.noRole()
	}
	one := t.policyOf(p.text("Identity"), WorkloadMulti)
	var out []map[string]any
	for _, found := range t.policies {
		if found.Workload == WorkloadMulti && (one == nil || one == found) {
			out = append(out, t.testObject(found, now))
		}
	}
	return t.envelope(c, out, nil)
}

func (t *tenant) testObject(p *policy, now time.Time) map[string]any {
	result, detail := "Success", ""
	if p.Test != nil && p.Test.Result != "" {
		result, detail = p.Test.Result, p.Test.Detail
	} else if _, err := t.serving(p, now); err != nil {
		result, detail = "Failure", err.Error()
	}
	return map[string]any{"Identity": p.Name, "Guid@odata.type": "#Guid", "Guid": p.GUID, "Result": result, "Detail": detail}
}
