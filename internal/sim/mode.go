package sim

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
)

// Mode is what can go wrong: one row of the table of faults.
type Mode struct {
	Name string
	// Meets says which calls it can meet; others do not use it up.
	Meets string
	// Does says what happens.
	Does string
	// Params are the members of FaultParams that it reads.
	Params []string

	// stops: the call ends there, without an effect, and no later fault meets it.
	stops bool
	// meets tells whether the mode means anything to a call; nil: to any.
	meets func(c *call) bool
}

func onToken(c *call) bool { return c.service != ServiceEntra }

// Modes returns every mode of a fault, in the order of the documentation.
func Modes() []Mode {
	is := func(op string) func(*call) bool { return func(c *call) bool { return c.op == op } }
	return []Mode{
		{Name: ModeRefuse, Meets: "any call", Does: "an error answer, 503 unless `status` says otherwise; no effect",
			Params: []string{"status", "code", "message", "body", "retry_after"}, stops: true},
		{Name: ModeThrottle, Meets: "any call", Does: "429 with `Retry-After` (1 unless `retry_after` says otherwise, none if it is negative); no effect",
			Params: []string{"retry_after", "status", "code", "message", "body"}, stops: true},
		{Name: ModeHTMLPage, Meets: "any call", Does: "the HTML page of a proxy or front end, 503 unless `status` says otherwise, in place of the service's own answer; no effect",
			Params: []string{"status", "message"}, stops: true},
		{Name: ModeErrorIn200, Meets: "any call", Does: "status 200 with the service's error document as body (SharePoint: ErrorInfo); no effect",
			Params: []string{"code", "message"}, stops: true},
		{Name: ModeLoseBefore, Meets: "any call", Does: "the connection is closed without an answer; no effect", stops: true},
		{Name: ModeReset, Meets: "any call", Does: "the connection is reset (TCP RST); no effect", stops: true},
		{Name: ModeExpireToken, Meets: "calls with a token", Does: "the service's own 401, as if the token of this call had ended; no effect", stops: true, meets: onToken},
		{Name: ModeRevokeTokens, Meets: "calls with a token", Does: "every token of the tenant that was issued until now is refused with 401 from now on, that of this call first; tokens issued later are good; no effect",
			stops: true, meets: onToken},
		{Name: ModeApplyAndLose, Meets: "any call", Does: "the effect, then the connection is closed without an answer"},
		{Name: ModeApplyAndReset, Meets: "any call", Does: "the effect, then the connection is reset"},
		{Name: ModeErrorAfter, Meets: "any call", Does: "the effect, then an error answer, 500 unless `status` says otherwise",
			Params: []string{"status", "code", "message", "body", "retry_after"}},
		{Name: ModeHold, Meets: "any call", Does: "waits until the fault is released or removed, then goes on, even if the client has hung up"},
		{Name: ModeHoldAfter, Meets: "any call", Does: "the effect, then the answer waits until the fault is released or removed"},
		{Name: ModeDelay, Meets: "any call", Does: "waits for `seconds` of real time, then goes on", Params: []string{"seconds"}},
		{Name: ModeStrangerBefore, Meets: "calls that work with a key", Does: "somebody else makes a version of the key just before the effect",
			meets: func(c *call) bool { return len(c.keys) > 0 }},
		{Name: ModeStrangerAfter, Meets: "calls that work with a key", Does: "somebody else makes a version of the key just after the effect",
			meets: func(c *call) bool { return len(c.keys) > 0 }},
		{Name: ModeListingLag, Meets: "`list_key_versions`", Does: "new versions are missing from lists for `seconds` of the world's time after they were made, and in the first `requests` lists that would have shown them; getting the key shows them at once",
			Params: []string{"seconds", "requests"}, meets: is(OpListVersions)},
		{Name: ModeRollingForever, Meets: "`roll_key`", Does: "the roll stops at `percent` (40) until the fault is removed",
			Params: []string{"percent"}, meets: is(OpRollKey)},
		{Name: ModeStatus, Meets: "`get_status`", Does: "SharePoint shows the status number `status`", Params: []string{"status"}, meets: is(OpGetStatus)},
		{Name: ModeStatusRegress, Meets: "`get_status`", Does: "SharePoint shows what it showed `back` (1) changes ago: status, percentage and key URIs",
			Params: []string{"back"}, meets: is(OpGetStatus)},
		{Name: ModeWarning, Meets: "Exchange's cmdlets", Does: "the successful answer carries `warning`", Params: []string{"warning"},
			meets: func(c *call) bool { return c.service == ServiceExchange }},
		{Name: ModeJobSlow, Meets: "`" + OpPutJob + "`", Does: "the runbook job takes `seconds` of the world's time more; 0: until the fault is removed",
			Params: []string{"seconds"}, meets: is(OpPutJob)},
		{Name: ModeJobFails, Meets: "`" + OpPutJob + "`", Does: "the job ends as `code` (Failed, Suspended, Stopped) before its effect",
			Params: []string{"code"}, meets: is(OpPutJob)},
		{Name: ModeJobFailsAfter, Meets: "`" + OpPutJob + "`", Does: "the same, after its effect and without output",
			Params: []string{"code"}, meets: is(OpPutJob)},
		{Name: ModeJobOutput, Meets: "`" + OpPutJob + "`", Does: "the job writes `body`; `{output}` in it is what it would have written",
			Params: []string{"body"}, meets: is(OpPutJob)},
	}
}

func modeNames() []string {
	var out []string
	for _, m := range Modes() {
		out = append(out, m.Name)
	}
	return out
}

func modeNamed(name string) (Mode, bool) {
	for _, m := range Modes() {
		if m.Name == name {
			return m, true
		}
	}
	return Mode{}, false
}

// checkParams refuses params that the mode would not read: they are a mistake.
func (m Mode) checkParams(p FaultParams) error {
	v := reflect.ValueOf(p)
	for i := range v.NumField() {
		name, _, _ := strings.Cut(v.Type().Field(i).Tag.Get("json"), ",")
		if v.Field(i).IsZero() || slices.Contains(m.Params, name) {
			continue
		}
		if len(m.Params) == 0 {
			return misfit("params/"+name, fmt.Errorf("mode %s reads no params", m.Name))
		}
		return misfit("params/"+name, fmt.Errorf("mode %s does not read %s; it reads %s", m.Name, name, strings.Join(m.Params, ", ")))
	}
	return nil
}

// Service is a simulated service with the operations that a fault may name.
type Service struct {
	Name       string
	Operations []string
}

// Services returns every service, in alphabetical order.
func Services() []Service {
	var out []Service
	all := operations()
	for _, name := range slices.Sorted(maps.Keys(all)) {
		out = append(out, Service{name, all[name]})
	}
	return out
}
