package automation_test

import (
	"context"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/keyroll/keyroll/internal/automation"
	"github.com/keyroll/keyroll/internal/msapi"
	"github.com/keyroll/keyroll/internal/msapi/msapitest"
	"github.com/keyroll/keyroll/internal/roll"
	"github.com/keyroll/keyroll/internal/sim"
)

const account = "/subscriptions/11111111-2222-4333-8444-555555555555/resourceGroups/keyroll/providers/Microsoft.Automation/automationAccounts/keyroll-runbooks"

// simulated starts Contoso with an Automation account and gives a client that
// gets its tokens with a client certificate, as in production.
func simulated(t *testing.T) (*automation.Client, *sim.World) {
	t.Helper()
	seed := sim.ContosoSeed()
	cert, key, err := sim.NewAppCertificate("automation test")
	if err != nil {
		t.Fatal(err)
	}
	seed.AllowCertificate(sim.ContosoClientID, cert)
	seed.Tenants[0].Automation = []sim.AutomationAccount{{ID: account}}
	srv, err := sim.Start(t.Context(), sim.Options{Seed: seed})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = srv.Close() })
	cloud, err := msapi.CloudByName(msapi.CloudPublic)
	if err != nil {
		t.Fatal(err)
	}
	cred, hc := msapitest.Connect(t, srv.DialMap(), srv.CAPEM(),
		msapitest.App{ClientID: sim.ContosoClientID, Cert: cert, Key: key}, sim.ContosoTenant, cloud)
	c, err := automation.New(cloud, roll.AutomationAccount{Account: account}, cred, hc)
	if err != nil {
		t.Fatal(err)
	}
	return c, srv.World
}

// status is a job that changes nothing.
func status() automation.Job {
	return automation.Job{Name: uuid.NewString(), Runbook: "Keyroll-SharePoint", Operation: "get_status",
		Parameters: map[string]string{"TenantId": sim.ContosoTenant, "Action": "status", "AdminUrl": "https://contoso-admin.sharepoint.com"}}
}

// change is the same job, said to change something.
func change() automation.Job {
	j := status()
	j.Mutating = true
	return j
}

// Exercise is what holds for an account whose runbooks answer: a job runs to
// its end, is found by its name, and an unknown one is not. It changes nothing.
func Exercise(t *testing.T, c *automation.Client, j automation.Job) {
	ctx := t.Context()
	if err := c.Account(ctx); err != nil {
		t.Fatal(err)
	}
	raw, err := c.Run(ctx, j)
	if err != nil {
		t.Fatal(err)
	}
	var seen struct {
		Status string `json:"status"`
	}
	if json.Unmarshal(raw, &seen) != nil || seen.Status == "" {
		t.Errorf("the status job says %s", raw)
	}
	out, err := c.Outcome(ctx, j)
	if err != nil || !out.Found || !out.Ended || out.Failed != nil || string(out.Result) != string(raw) {
		t.Errorf("found again: %+v %v", out, err)
	}
	j.Name = uuid.NewString()
	if out, err = c.Outcome(ctx, j); err != nil || out.Found {
		t.Errorf("a job that never was: %+v %v", out, err)
	}
}

func TestExerciseSimulator(t *testing.T) {
	c, w := simulated(t)
	Exercise(t, c, status())
	if v := w.Violations(); len(v) != 0 {
		t.Errorf("violations: %+v", v)
	}
}

// TestOutputContract: what a runbook writes counts only as far as the contract
// goes; everything else leaves open what it did.
func TestOutputContract(t *testing.T) {
	c, w := simulated(t)
	for name, tt := range map[string]struct {
		body   string // {id} is the request's
		code   string // "" where it is taken
		called bool   // what MaybeApplied must be
	}{
		"as written":            {"{output}", "", false},
		"with a byte order":     {"\xef\xbb\xbf{output}\r\n", "", false},
		"nothing":               {" ", "output_not_understood", true},
		"garbage":               {"WARNING: module is old", "output_not_understood", true},
		"a warning before":      {"WARNING: x\r\n{output}", "output_not_understood", true},
		"truncated":             {`{"schema":1,"requestId":"{id}","ok":tr`, "output_not_understood", true},
		"two":                   {"{output} {output}", "output_not_understood", true},
		"another request's":     {`{"schema":1,"requestId":"00000000-0000-4000-8000-000000000000","ok":true,"result":{}}`, "output_not_understood", true},
		"another schema":        {`{"schema":2,"requestId":"{id}","ok":true,"result":{}}`, "output_not_understood", true},
		"a member too many":     {`{"schema":1,"requestId":"{id}","ok":true,"result":{},"secret":"x"}`, "output_not_understood", true},
		"not ok, and not why":   {`{"schema":1,"requestId":"{id}","ok":false}`, "output_not_understood", true},
		"ok without a result":   {`{"schema":1,"requestId":"{id}","ok":true}`, "output_not_understood", true},
		"ok with an error":      {`{"schema":1,"requestId":"{id}","ok":true,"result":{},"error":{"type":"X","message":"","called":false}}`, "output_not_understood", true},
		"called or not unknown": {`{"schema":1,"requestId":"{id}","ok":false,"error":{"type":"X","message":"no"}}`, "output_not_understood", true},
		"refused before":        {`{"schema":1,"requestId":"{id}","ok":false,"error":{"type":"X","message":"no","called":false}}`, "cmdlet_failed", false},
		"failed in the call":    {`{"schema":1,"requestId":"{id}","ok":false,"error":{"type":"X","message":"no","called":true}}`, "cmdlet_failed", true},
		"too long":              {strings.Repeat(" ", 300<<10) + "{output}", "output_not_understood", true},
	} {
		j := change()
		id, err := w.AddFault(sim.Fault{Operation: sim.OpPutJob, Mode: sim.ModeJobOutput, Count: 1, Params: sim.FaultParams{Body: strings.ReplaceAll(tt.body, "{id}", j.Name)}})
		if err != nil {
			t.Fatal(err)
		}
		_, err = c.Run(t.Context(), j)
		if err := w.RemoveFault(id); err != nil {
			t.Fatal(err)
		}
		e, _ := msapi.AsError(err)
		switch {
		case tt.code == "" && err != nil:
			t.Errorf("%s: %v", name, err)
		case tt.code != "" && (e == nil || e.Code != tt.code || e.MaybeApplied != tt.called):
			t.Errorf("%s: %v, want %s with maybe applied %t", name, err, tt.code, tt.called)
		}
	}
}

// TestJobStates: what is known of a job in each state, and of one whose PUT
// was lost.
func TestJobStates(t *testing.T) {
	c, w := simulated(t)
	type known struct{ found, ended, stuck, failed, maybe bool }
	for name, tt := range map[string]struct {
		fault sim.Fault
		want  known
		code  string // of Run's error
	}{
		"PUT lost before":        {sim.Fault{Mode: sim.ModeLoseBefore}, known{}, "connection_lost"},
		"PUT lost after":         {sim.Fault{Mode: sim.ModeApplyAndLose}, known{found: true, ended: true}, "connection_lost"},
		"PUT answered 500 after": {sim.Fault{Mode: sim.ModeErrorAfter}, known{found: true, ended: true}, "InternalServerError"},
		"failed":                 {sim.Fault{Mode: sim.ModeJobFails}, known{found: true, ended: true, failed: true, maybe: true}, "job_failed"},
		"failed after":           {sim.Fault{Mode: sim.ModeJobFailsAfter}, known{found: true, ended: true, failed: true, maybe: true}, "job_failed"},
		"stopped":                {sim.Fault{Mode: sim.ModeJobFails, Params: sim.FaultParams{Code: "Stopped"}}, known{found: true, ended: true, failed: true, maybe: true}, "job_stopped"},
		"suspended":              {sim.Fault{Mode: sim.ModeJobFails, Params: sim.FaultParams{Code: "Suspended"}}, known{found: true, stuck: true}, "job_running"},
		"blocked":                {sim.Fault{Mode: sim.ModeJobFails, Params: sim.FaultParams{Code: "Blocked"}}, known{found: true, stuck: true}, "job_running"},
		"a state nobody knows":   {sim.Fault{Mode: sim.ModeJobFails, Params: sim.FaultParams{Code: "Removing"}}, known{found: true}, "job_running"},
		"slow":                   {sim.Fault{Mode: sim.ModeJobSlow}, known{found: true}, "job_running"},
	} {
		tt.fault.Operation, tt.fault.Count = sim.OpPutJob, 1
		id, err := w.AddFault(tt.fault)
		if err != nil {
			t.Fatal(err)
		}
		j := change()
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		_, err = c.Run(ctx, j)
		cancel()
		if e, ok := msapi.AsError(err); !ok || e.Code != tt.code || !e.MaybeApplied {
			t.Errorf("%s: Run says %v, want %s that may have been applied", name, err, tt.code)
		}
		out, err := c.Outcome(t.Context(), j)
		got := known{out.Found, out.Ended, out.Stuck, out.Failed != nil, out.Failed != nil && out.Failed.MaybeApplied}
		if err != nil || got != tt.want {
			t.Errorf("%s: %+v %v, want %+v", name, got, err, tt.want)
		}
		if err := w.RemoveFault(id); err != nil {
			t.Fatal(err)
		}
	}
}

// TestAccountThatIsGone: its 404 is no proof that a job never was.
func TestAccountThatIsGone(t *testing.T) {
	c, w := simulated(t)
	for _, f := range []sim.Fault{
		{Operation: sim.OpGetAccount, Mode: sim.ModeRefuse, Params: sim.FaultParams{Status: 404, Code: "ResourceNotFound"}},
		{Operation: sim.OpGetJob, Mode: sim.ModeRefuse, Params: sim.FaultParams{Status: 403}},
		{Operation: sim.OpGetJob, Mode: sim.ModeThrottle},
	} {
		id, err := w.AddFault(f)
		if err != nil {
			t.Fatal(err)
		}
		if out, err := c.Outcome(t.Context(), change()); err == nil {
			t.Errorf("%s %s: %+v", f.Operation, f.Mode, out)
		}
		if err := w.RemoveFault(id); err != nil {
			t.Fatal(err)
		}
	}
}

// TestNameIsSentOnce: a name that is taken means that an earlier call arrived.
func TestNameIsSentOnce(t *testing.T) {
	c, w := simulated(t)
	j := change()
	if _, err := c.Run(t.Context(), j); err != nil {
		t.Fatal(err)
	}
	err := c.Start(t.Context(), j)
	if e, ok := msapi.AsError(err); !ok || !e.MaybeApplied || !e.Retryable() {
		t.Errorf("the same name again: %v", err)
	}
	if n := w.Requests("resource_manager", sim.OpPutJob); n != 2 {
		t.Errorf("%d requests for two starts", n)
	}
}

func TestCheckAccount(t *testing.T) {
	for id, ok := range map[string]bool{
		account: true, strings.ToUpper(account[:15]) + account[15:]: true, "": false, account + "/jobs/x": false, account + "?x=": false,
		strings.Replace(account, "Microsoft.Automation", "Microsoft.KeyVault", 1): false, "https://evil" + account: false,
		strings.Replace(account, "keyroll/", "../", 1): false,
	} {
		if err := automation.CheckAccount(id); (err == nil) != ok {
			t.Errorf("%s: %v", id, err)
		}
	}
}
