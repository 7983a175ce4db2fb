package sim

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"time"
)

// runbookLine is what a runbook writes: one line of JSON.
type runbookLine struct {
	Schema    int            `json:"schema"`
	RequestID string         `json:"requestId"`
	OK        bool           `json:"ok"`
	Result    map[string]any `json:"result,omitempty"`
	Error     *runbookError  `json:"error,omitempty"`
}

// runbookError says what went wrong, and whether the cmdlet that changes
// something had been called by then.
type runbookError struct {
	Type    string `json:"type"`
	Message string `json:"message"`
	Called  bool   `json:"called"`
}

// runbook plays a job; the lock is held.
func (w *World) runbook(a *account, j *runbookJob, now time.Time) runbookLine {
	p := parameters{}
	for k, v := range j.parameters {
		p[k] = v
	}
	line := runbookLine{Schema: 1, RequestID: p.text("RequestId")}
	fail := func(typ, message string, called bool) runbookLine {
		line.Error = &runbookError{typ, message, called}
		return line
	}
	service := map[string]string{strings.ToLower(RunbookExchange): "exchange", strings.ToLower(RunbookSharePoint): "sharepoint"}[strings.ToLower(j.runbook)]
	if slices.Contains(a.Denied, service) {
		return fail("System.UnauthorizedAccessException", "Access is denied.", false)
	}
	if !strings.EqualFold(p.text("TenantId"), a.tenant.id) {
		return fail("System.ArgumentException", "This account serves another tenant.", false)
	}
	if service == "exchange" {
		return w.exchangeRunbook(a.tenant, j, p, line, now)
	}
	return w.sharePointRunbook(a.tenant, j, p, line, now)
}

// inJob makes the call of a cmdlet in a job, with its witness entry.
func (w *World) inJob(t *tenant, service, op, target string, j *runbookJob, now time.Time) *call {
	c := &call{service: service, op: op, tenant: t, target: target, operationID: j.name, requestID: j.name}
	c.effect = op == OpSetDEP || op == OpSetM365DEP || op == OpRollKey
	w.count(service, op)
	if c.effect {
		c.record = w.witness(Effect{Start: now, Service: service, Operation: op, Tenant: t.id, Target: target, OperationID: j.name, RequestID: j.name, By: byAPI})
		c.record.Answered = true
	}
	return c
}

// inJobFaults draws the faults of a call in a job, those that need no waiting:
// a refusal, or what it adds.
func (w *World) inJobFaults(c *call, now time.Time) *answer {
	for _, f := range w.draw(c, now) {
		w.fire(f)
		switch f.Mode {
		case ModeRefuse:
			ans := w.refusal(c.service, f.Params, http.StatusServiceUnavailable)
			return &ans
		case ModeThrottle:
			ans := w.throttled(c.service, f.Params)
			return &ans
		case ModeWarning:
			c.warnings = append(c.warnings, f.Params.Warning)
		case ModeStatus:
			c.status = &f.Params.Status
		case ModeStatusRegress:
			c.back = or(f.Params.Back, 1)
		case ModeRollingForever:
			c.freeze = f
		}
	}
	return nil
}

// exchangeRunbook plays Keyroll-Exchange.
func (w *World) exchangeRunbook(t *tenant, j *runbookJob, p parameters, line runbookLine, now time.Time) runbookLine {
	get, set := OpGetDEP, OpSetDEP
	if p.text("Workload") == WorkloadMulti {
		get, set = OpGetM365DEP, OpSetM365DEP
	}
	op, in := map[string]string{"policies": get, "policy": get, "refresh": set, "mailbox": OpGetMailboxStatistics, "assignment": OpGetM365Assignment}[p.text("Action")], parameters{}
	if op == "" {
		line.Error = &runbookError{"System.ArgumentException", "Unknown action.", false}
		return line
	}
	if id := p.text("Identity"); id != "" && p.text("Action") != "policies" {
		in["Identity"] = id
	}
	if op == set {
		in["Refresh"] = true
		if op == OpSetDEP {
			in["Confirm"] = false
		}
	}
	c := w.inJob(t, ServiceExchange, op, p.text("Identity"), j, now)
	if found := t.policyOf(c.target, workloadOf(op)); found != nil {
		c.keys, c.target, c.aliases = t.policyKeys(found), found.GUID, []string{found.Name}
	}
	ans := w.inJobFaults(c, now)
	if ans == nil {
		done := w.cmdlet(c, in, now)
		ans = &done
	}
	var doc struct {
		Value    []map[string]any `json:"value"`
		Warnings []string         `json:"@adminapi.warnings"`
		Error    *struct {
			Inner struct {
				Exception struct {
					Message string `json:"message"`
					Type    string `json:"type"`
				} `json:"internalexception"`
			} `json:"innererror"`
		} `json:"error"`
	}
	if err := json.Unmarshal(ans.body, &doc); err != nil || doc.Error != nil || ans.status != http.StatusOK {
		line.Error = &runbookError{Type: "System.Exception", Message: "The cmdlet failed.", Called: op == set}
		if doc.Error != nil {
			line.Error.Type, line.Error.Message = doc.Error.Inner.Exception.Type, doc.Error.Inner.Exception.Message
		}
		return line
	}
	line.OK = true
	line.Result = exchangeResult(p.text("Action"), doc.Value, doc.Warnings)
	return line
}

// exchangeResult is what the runbook makes of the cmdlet's objects.
func exchangeResult(action string, objects []map[string]any, warnings []string) map[string]any {
	switch action {
	case "refresh":
		return map[string]any{"warnings": append([]string{}, warnings...)}
	case "mailbox":
		return map[string]any{"dataEncryptionPolicyId": objects[0]["DataEncryptionPolicyID"]}
	}
	policies := []map[string]any{}
	for _, o := range objects {
		policies = append(policies, map[string]any{"name": o["Name"], "guid": o["Guid"], "enabled": o["Enabled"],
			"purgeRequested": o["PermanentDataPurgeRequested"], "azureKeyIds": o["AzureKeyIDs"]})
	}
	return map[string]any{"policies": policies}
}

// sharePointRunbook plays Keyroll-SharePoint.
func (w *World) sharePointRunbook(t *tenant, j *runbookJob, p parameters, line runbookLine, now time.Time) runbookLine {
	fail := func(typ, message string, called bool) runbookLine {
		line.Error = &runbookError{typ, message, called}
		return line
	}
	g := w.geos[strings.TrimPrefix(strings.ToLower(p.text("AdminUrl")), "https://")]
	if g == nil || g.tenant != t {
		return fail("Microsoft.Online.SharePoint.PowerShell.AuthenticationException", "No admin site at "+p.text("AdminUrl")+".", false)
	}
	switch p.text("Action") {
	case "status":
		c := w.inJob(t, ServiceSharePoint, OpGetStatus, g.id, j, now)
		c.geo = g.id
		if ans := w.inJobFaults(c, now); ans != nil {
			return fail("Microsoft.SharePoint.Client.ServerException", "The remote server returned an error.", false)
		}
		line.OK, line.Result = true, g.runbookStatus(c, now)
		return line
	case "roll":
	default:
		return fail("System.ArgumentException", "Unknown action.", false)
	}
	slot := slices.Index([]string{"Primary", "Secondary"}, p.text("KeyType"))
	if slot < 0 {
		return fail("System.ArgumentException", "KeyType is Primary or Secondary.", false)
	}
	if (p.text("KeyVaultUri") != "") == (p.text("KeyVaultName") != "" || p.text("KeyName") != "" || p.text("KeyVersion") != "") {
		return fail("System.ArgumentException", "A roll needs KeyVaultUri, or KeyVaultName, KeyName and KeyVersion.", false)
	}
	c := w.inJob(t, ServiceSharePoint, OpRollKey, g.id+"/"+slotName(slot), j, now)
	c.geo, c.record.Geo, c.aliases = g.id, g.id, []string{g.id}
	named, version := w.namedInJob(t, p)
	c.keys = named
	if ans := w.inJobFaults(c, now); ans != nil {
		return fail("Microsoft.SharePoint.Client.ServerException", "The remote server returned an error.", true)
	}
	to, bad := w.mayRoll(g, slot, c.keys, version, now)
	if bad != nil {
		return fail(bad.typ, bad.message, true)
	}
	if other := g.slots[1-slot]; other != nil && other.key == to.key {
		w.violation(c, "key "+to.key.ref()+" would be in both slots", now)
	}
	c.applied(to)
	g.roll(slot, to, c.record, c.freeze, now)
	line.OK, line.Result = true, g.runbookStatus(c, now)
	return line
}

// namedInJob is the key that a roll by runbook names, as a list of one or none,
// and the version. The cmdlet names a key by the short names of vault and key,
// or by the URI of its version; a Managed HSM has no short name.
func (w *World) namedInJob(t *tenant, p parameters) (keys []*key, version string) {
	v, name := w.vaults[strings.ToLower(p.text("KeyVaultName"))], p.text("KeyName")
	version = p.text("KeyVersion")
	byURI := p.text("KeyVaultUri") != ""
	if byURI {
		host, path, _ := strings.Cut(strings.TrimPrefix(p.text("KeyVaultUri"), "https://"), "/keys/")
		v = w.hosts[strings.ToLower(host)]
		name, version, _ = strings.Cut(path, "/")
	}
	version = strings.ToLower(strings.ReplaceAll(version, "-", ""))
	if v == nil || v.tenant != t || v.hsm && !byURI {
		return nil, version
	}
	if k := v.key(name); k != nil {
		keys = []*key{k}
	}
	return keys, version
}

// runbookStatus is what the runbook makes of Get-SPODataEncryptionPolicy.
func (g *geo) runbookStatus(c *call, now time.Time) map[string]any {
	v, word := g.view(c, now), "Unknown"
	if v.status >= 0 && v.status < len(statusNames()) {
		word = statusNames()[v.status]
	}
	return map[string]any{"status": word, "primaryUri": v.primary, "secondaryUri": v.secondary, "percent": v.progress}
}
