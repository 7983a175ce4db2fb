package sim

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"
)

// Operations of Azure Automation.
const (
	OpGetAccount   = "get_automation_account"
	OpPutJob       = "put_job"
	OpGetJob       = "get_job"
	OpGetJobOutput = "get_job_output"
)

// The runbooks that a simulated account has. What they do is written down in
// docs/transports.md; these play it, and are not the scripts themselves.
const (
	RunbookSharePoint = "Keyroll-SharePoint"
	RunbookExchange   = "Keyroll-Exchange"
)

// AutomationAccount is an Azure Automation account. Its jobs take their time
// and then do what they do at once.
type AutomationAccount struct {
	// ID is its Azure resource id.
	ID string `json:"id"`
	// Runbooks are Keyroll-SharePoint and Keyroll-Exchange when left out.
	Runbooks []string `json:"runbooks,omitempty"`
	// JobSeconds is how long a job takes in the world's time.
	JobSeconds float64 `json:"job_seconds,omitempty"`
	// Denied takes the right of its identity away: "exchange", "sharepoint".
	Denied []string `json:"denied,omitempty"`
}

// account is an AutomationAccount that lives in a world.
type account struct {
	AutomationAccount
	tenant *tenant
	jobs   []*runbookJob // in order of arrival
}

// runbookJob is a job of a runbook: New until it starts, Running until its
// time is up, then whatever it ends in.
type runbookJob struct {
	name, runbook, status, output, exception string
	parameters                               map[string]string
	start, due, ended                        time.Time
	slow, fails, says                        *fault // of its put_job
}

// States of a job that end it or stop it.
const (
	jobCompleted = "Completed"
	jobFailed    = "Failed"
	jobStopped   = "Stopped"
	jobSuspended = "Suspended"
)

func (w *World) addAccount(t *tenant, s AutomationAccount) error {
	path := armPath(accountPattern, s.ID)
	if path == nil {
		return fmt.Errorf("id is not /subscriptions/…/resourceGroups/…/providers/Microsoft.Automation/automationAccounts/…")
	}
	if t.accountOf(s.ID) != nil {
		return fmt.Errorf("id is used twice")
	}
	if len(s.Runbooks) == 0 {
		s.Runbooks = []string{RunbookSharePoint, RunbookExchange}
	}
	s.Denied = slices.Clone(s.Denied)
	t.accounts = append(t.accounts, &account{AutomationAccount: s, tenant: t})
	return nil
}

func (t *tenant) accountOf(id string) *account {
	for _, a := range t.accounts {
		if strings.EqualFold(strings.Trim(a.ID, "/"), strings.Trim(id, "/")) {
			return a
		}
	}
	return nil
}

func (a *account) job(name string) *runbookJob {
	for _, j := range a.jobs {
		if strings.EqualFold(j.name, name) {
			return j
		}
	}
	return nil
}

const (
	accountPattern = "/subscriptions/{subscription}/resourceGroups/{group}/providers/Microsoft.Automation/automationAccounts/{account}"
	jobPattern     = accountPattern + "/jobs/{job}"
)

// automationRoutes are those of Microsoft.Automation.
func automationRoutes() []armRoute {
	return []armRoute{
		{op: OpGetAccount, method: http.MethodGet, pattern: accountPattern, do: withAccount(
			func(_ *World, a *account, _ *armRequest, _ *call, _ time.Time) answer {
				return jsonAnswer(http.StatusOK, map[string]any{"id": a.ID, "type": "Microsoft.Automation/AutomationAccounts",
					"properties": map[string]any{"state": "Ok"}})
			})},
		{op: OpPutJob, method: http.MethodPut, pattern: jobPattern, write: true, do: withAccount((*World).putJob),
			prepare: func(_ *World, r *armRequest, c *call) {
				c.target, c.effect, c.operationID = r.path["job"], true, r.path["job"]
			}},
		{op: OpGetJob, method: http.MethodGet, pattern: jobPattern, do: withJob(func(a *account, j *runbookJob) answer {
			return jsonAnswer(http.StatusOK, j.object(a))
		}), prepare: forJob},
		{op: OpGetJobOutput, method: http.MethodGet, pattern: jobPattern + "/output", do: withJob(func(_ *account, j *runbookJob) answer {
			return textAnswer(http.StatusOK, j.output)
		}), prepare: forJob},
	}
}

// forJob lets a fault aim at the reads of one job.
func forJob(_ *World, r *armRequest, c *call) { c.target = r.path["job"] }

func withAccount(do func(*World, *account, *armRequest, *call, time.Time) answer) func(*World, *armRequest, *call, time.Time) answer {
	return func(w *World, r *armRequest, c *call, now time.Time) answer {
		p := r.path
		id := "/subscriptions/" + p["subscription"] + "/resourceGroups/" + p["group"] + "/providers/Microsoft.Automation/automationAccounts/" + p["account"]
		a := r.tenant.accountOf(id)
		if a == nil {
			return armError(http.StatusNotFound, "ResourceNotFound", "The Resource 'Microsoft.Automation/automationAccounts/"+p["account"]+"' was not found.")
		}
		return do(w, a, r, c, now)
	}
}

func withJob(do func(*account, *runbookJob) answer) func(*World, *armRequest, *call, time.Time) answer {
	return withAccount(func(_ *World, a *account, r *armRequest, _ *call, _ time.Time) answer {
		j := a.job(r.path["job"])
		if j == nil {
			return armError(http.StatusNotFound, "NotFound", "The job "+r.path["job"]+" was not found.")
		}
		return do(a, j)
	})
}

// putJob takes a job in. A name that is taken is a conflict: whether the real
// service answers so, or with the job that is there, no client may rely on.
func (w *World) putJob(a *account, r *armRequest, c *call, now time.Time) answer {
	var in struct {
		Properties struct {
			Runbook struct {
				Name string `json:"name"`
			} `json:"runbook"`
			Parameters map[string]string `json:"parameters"`
			RunOn      string            `json:"runOn"`
		} `json:"properties"`
	}
	switch {
	case json.Unmarshal(r.body, &in) != nil || in.Properties.Runbook.Name == "":
		return armError(http.StatusBadRequest, "BadRequest", "The request body is not a job.")
	case !isGUID(r.path["job"]):
		return armError(http.StatusBadRequest, "BadRequest", "The job name is not a GUID.")
	case !slices.ContainsFunc(a.Runbooks, func(s string) bool { return strings.EqualFold(s, in.Properties.Runbook.Name) }):
		return armError(http.StatusNotFound, "NotFound", "The runbook "+in.Properties.Runbook.Name+" was not found.")
	case a.job(r.path["job"]) != nil:
		return armError(http.StatusConflict, "Conflict", "A job with this name exists.")
	}
	j := &runbookJob{name: r.path["job"], runbook: in.Properties.Runbook.Name, parameters: in.Properties.Parameters, status: "New",
		start: now, due: now.Add(seconds(a.JobSeconds))}
	for _, f := range c.jobFaults {
		switch f.Mode {
		case ModeJobSlow:
			j.slow, j.due = f, j.due.Add(seconds(f.Params.Seconds))
		case ModeJobFails, ModeJobFailsAfter:
			j.fails = f
		case ModeJobOutput:
			j.says = f
		}
	}
	a.jobs = append(a.jobs, j)
	c.record.Applied, c.record.End = true, now
	return jsonAnswer(http.StatusCreated, j.object(a))
}

// object is a job on the wire.
func (j *runbookJob) object(a *account) map[string]any {
	properties := map[string]any{"jobId": j.name, "status": j.status, "exception": j.exception,
		"runbook": map[string]any{"name": j.runbook}, "parameters": j.parameters, "startTime": j.start.UTC().Format(time.RFC3339)}
	if slices.Contains([]string{jobCompleted, jobFailed, jobStopped}, j.status) {
		properties["endTime"] = j.ended.UTC().Format(time.RFC3339Nano)
	}
	return map[string]any{"id": a.ID + "/jobs/" + j.name, "name": j.name, "type": "Microsoft.Automation/AutomationAccounts/Jobs", "properties": properties}
}

// settle lets jobs run whose time has come; the lock is held.
func (a *account) settle(w *World, now time.Time) {
	for _, j := range a.jobs {
		if j.status != "New" && j.status != "Running" {
			continue
		}
		j.status = "Running"
		held := j.slow != nil && j.slow.Params.Seconds == 0 && w.fault(j.slow.ID) == j.slow
		if held || now.Before(j.due) {
			continue
		}
		at := maxTime(j.due, j.start)
		if j.slow != nil {
			at = now // a fault held it up until somebody looked
		}
		w.runJob(a, j, at)
	}
}

// runJob is a job's whole doing, with what its fault makes of it.
func (w *World) runJob(a *account, j *runbookJob, now time.Time) {
	j.ended = now
	if f := j.fails; f != nil && f.Mode == ModeJobFails {
		j.status, j.exception = or(f.Params.Code, jobFailed), "The job was ended."
		return
	}
	line, err := json.Marshal(w.runbook(a, j, now))
	if err != nil {
		line = []byte(err.Error())
	}
	j.status, j.output = jobCompleted, string(line)+"\r\n"
	if j.says != nil {
		j.output = strings.ReplaceAll(j.says.Params.Body, "{output}", string(line))
	}
	if f := j.fails; f != nil {
		j.status, j.output, j.exception = or(f.Params.Code, jobFailed), "", "The job was ended."
	}
}

// ResumeJob lets a suspended job run on, by hand.
func (w *World) ResumeJob(tenant, name string) error {
	return w.onJob(tenant, name, func(a *account, j *runbookJob, now time.Time) { j.fails = nil; w.runJob(a, j, now) })
}

// StopJob ends a job that has not ended, by hand.
func (w *World) StopJob(tenant, name string) error {
	return w.onJob(tenant, name, func(_ *account, j *runbookJob, now time.Time) { j.status, j.ended = jobStopped, now })
}

func (w *World) onJob(tenant, name string, do func(*account, *runbookJob, time.Time)) error {
	now := w.lock()
	defer w.mu.Unlock()
	if t := w.tenantOf(tenant); t != nil {
		for _, a := range t.accounts {
			if j := a.job(name); j != nil {
				if slices.Contains([]string{jobCompleted, jobFailed, jobStopped}, j.status) {
					return fmt.Errorf("job %s has ended: %w", name, ErrRefused)
				}
				do(a, j, now)
				return nil
			}
		}
	}
	return fmt.Errorf("job %q: %w", name, ErrUnknown)
}

func maxTime(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
