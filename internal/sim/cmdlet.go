package sim

import (
	"sort"
	"strings"
	"time"
)

// getPolicies returns the named policy; without an identity, or with one that
// no policy has, all of them, as the documentation of the cmdlets warns.
func (t *tenant) getPolicies(c *call, p parameters) answer {
	workload := workloadOf(c.op)
	if found := t.policyOf(p.text("Identity"), workload); found != nil {
		return t.envelope(c, []map[string]any{found.object()}, nil)
	}
	var out []map[string]any
	for _, found := range t.policies {
		if found.Workload == workload {
			out = append(out, found.object())
		}
	}
	return t.envelope(c, out, nil)
}

// setPolicy knows one thing to set: Refresh. A purge is recorded as what it is.
func (w *World) setPolicy(c *call, p parameters, now time.Time) answer {
	const binding = "System.Management.Automation.ParameterBindingException"
	var unknown []string
	for name := range p {
		if strings.HasPrefix(strings.ToLower(name), "permanentdatapurge") || strings.Contains(strings.ToLower(name), "purge") {
			w.violation(c, "parameter "+name+" asks for a data purge", now)
			return exchangeError(403, "Microsoft.Exchange.Configuration.Authorization.CmdletAccessDeniedException",
				"The simulator permits no purge.")
		}
		switch strings.ToLower(name) {
		case "identity", "refresh", "confirm":
		default:
			unknown = append(unknown, name)
		}
	}
	sort.Strings(unknown)
	t := c.tenant
	found := t.policyOf(p.text("Identity"), workloadOf(c.op))
	switch {
	case found == nil:
		return notFound(p.text("Identity"))
	case len(unknown) > 0:
		return exchangeError(400, binding, "A parameter cannot be found that matches parameter name '"+unknown[0]+"'.")
	case p.get("Refresh") != true:
		return exchangeError(400, binding, "Parameter set cannot be resolved using the specified named parameters.")
	case c.op == OpSetDEP && p.get("Confirm") != false:
		return exchangeError(400, "System.Management.Automation.PSInvalidOperationException",
			"A command that prompts the user failed because the host program or the command type does not support user interaction. The host was attempting to request confirmation: Are you sure you want to perform this action?")
	case found.PurgeRequested:
		return exchangeError(400, "Microsoft.Exchange.Configuration.Tasks.TaskInvalidOperationException",
			"A permanent data purge has been requested for the policy '"+found.Name+"'.")
	}
	versions, err := t.takeUp(found, now)
	if err != nil {
		// The real exception's name is not known; clients must not depend on it.
		return exchangeError(400, "Microsoft.Exchange.Management.DataEncryption.AzureKeyVaultAccessException", err.Error())
	}
	c.applied(versions...)
	c.record.End = now
	return t.envelope(c, nil, t.warnings)
}

// object is a policy on the wire, with the sidecar members that a client must
// skip.
func (p *policy) object() map[string]any {
	contact, reason := "", ""
	if p.PurgeRequested {
		contact, reason = "Contoso Security", "Purge requested by hand"
	}
	return map[string]any{
		"Identity": p.Name, "Name": p.Name,
		"Guid@odata.type": "#Guid", "Guid": p.GUID,
		"Description":            p.Description,
		"Enabled":                p.enabled,
		"AzureKeyIDs@odata.type": "#Collection(String)", "AzureKeyIDs": append([]string{}, p.AzureKeyIDs...),
		"PermanentDataPurgeRequested": p.PurgeRequested,
		"PermanentDataPurgeReason":    reason,
		"PermanentDataPurgeContact":   contact,
		"ObjectState":                 "Unchanged",
	}
}

// object is Get-MailboxStatistics' answer, as far as it concerns encryption.
func (m *mailbox) object() map[string]any {
	return map[string]any{
		"Identity": m.guid, "DisplayName": m.address,
		"MailboxGuid@odata.type": "#Guid", "MailboxGuid": m.guid,
		"DataEncryptionPolicyID@odata.type": "#Guid", "DataEncryptionPolicyID": m.shown,
		"IsEncrypted":             m.policy != "",
		"ItemCount@odata.type":    "#Int32",
		"ItemCount":               1204,
		"TotalItemSize":           "1.2 GB (1,288,490,189 bytes)",
		"LastLogonTime@data.type": "System.DateTime", "LastLogonTime": nil,
	}
}
