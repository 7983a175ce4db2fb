package roll_test

import (
	"errors"
	"testing"
	"time"

	"github.com/keyroll/keyroll/internal/roll"
)

func utc(s string) time.Time {
	t, err := time.Parse(time.RFC3339, s)
	if err != nil {
		panic(err)
	}
	return t
}

func weekend() roll.Window {
	return roll.Window{Days: []string{"sat", "sun"}, Start: "22:00", Duration: roll.Duration(8 * time.Hour), Zone: "Europe/Berlin"}
}

// When the next step with an effect may begin, over windows, freezes and
// nights in which the clocks change.
func TestOpensAt(t *testing.T) {
	every := func(start, zone string, lasts time.Duration) roll.Window {
		return roll.Window{Days: []string{"mon", "tue", "wed", "thu", "fri", "sat", "sun"}, Start: start, Duration: roll.Duration(lasts), Zone: zone}
	}
	freeze := func(from, to string) roll.Freeze {
		return roll.Freeze{From: utc(from), To: utc(to), Reason: "year-end"}
	}
	for name, c := range map[string]struct {
		windows []roll.Window
		freezes []roll.Freeze
		now, at string // at "" where it is open now
		waits   string
	}{
		"no calendar":                    {nil, nil, "2026-11-24T12:00:00Z", "", ""},
		"before the window":              {[]roll.Window{weekend()}, nil, "2026-11-24T12:00:00Z", "2026-11-28T21:00:00Z", roll.WaitWindow},
		"at its first moment":            {[]roll.Window{weekend()}, nil, "2026-11-28T21:00:00Z", "", ""},
		"over midnight":                  {[]roll.Window{weekend()}, nil, "2026-11-29T04:59:59Z", "", ""},
		"at its end":                     {[]roll.Window{weekend()}, nil, "2026-11-29T05:00:00Z", "2026-11-29T21:00:00Z", roll.WaitWindow},
		"after the last of the week":     {[]roll.Window{weekend()}, nil, "2026-11-30T05:00:00Z", "2026-12-05T21:00:00Z", roll.WaitWindow},
		"a week long":                    {[]roll.Window{{Days: []string{"mon"}, Start: "00:00", Duration: roll.Duration(7 * 24 * time.Hour), Zone: "UTC"}}, nil, "2026-11-29T23:59:59Z", "", ""},
		"two windows":                    {[]roll.Window{weekend(), every("12:30", "UTC", time.Hour)}, nil, "2026-11-24T12:00:00Z", "2026-11-24T12:30:00Z", roll.WaitWindow},
		"freeze":                         {nil, []roll.Freeze{freeze("2026-11-24T00:00:00Z", "2026-11-25T00:00:00Z")}, "2026-11-24T12:00:00Z", "2026-11-25T00:00:00Z", roll.WaitFreeze},
		"freeze at its last moment":      {nil, []roll.Freeze{freeze("2026-11-24T00:00:00Z", "2026-11-25T00:00:00Z")}, "2026-11-24T23:59:59Z", "2026-11-25T00:00:00Z", roll.WaitFreeze},
		"freeze over":                    {nil, []roll.Freeze{freeze("2026-11-24T00:00:00Z", "2026-11-25T00:00:00Z")}, "2026-11-25T00:00:00Z", "", ""},
		"freezes one after another":      {nil, []roll.Freeze{freeze("2026-11-25T00:00:00Z", "2026-11-26T00:00:00Z"), freeze("2026-11-24T00:00:00Z", "2026-11-25T00:00:00Z")}, "2026-11-24T12:00:00Z", "2026-11-26T00:00:00Z", roll.WaitFreeze},
		"freeze in the window":           {[]roll.Window{weekend()}, []roll.Freeze{freeze("2026-11-28T00:00:00Z", "2026-11-29T03:00:00Z")}, "2026-11-28T22:00:00Z", "2026-11-29T03:00:00Z", roll.WaitFreeze},
		"freeze over the next window":    {[]roll.Window{weekend()}, []roll.Freeze{freeze("2026-11-28T00:00:00Z", "2026-11-29T12:00:00Z")}, "2026-11-24T12:00:00Z", "2026-11-29T21:00:00Z", roll.WaitWindow},
		"freeze, and then no window":     {[]roll.Window{weekend()}, []roll.Freeze{freeze("2026-11-24T00:00:00Z", "2026-11-25T00:00:00Z")}, "2026-11-24T12:00:00Z", "2026-11-28T21:00:00Z", roll.WaitFreeze},
		"summer time":                    {[]roll.Window{weekend()}, nil, "2026-07-22T12:00:00Z", "2026-07-25T20:00:00Z", roll.WaitWindow},
		"night the clocks go forward":    {[]roll.Window{every("22:00", "Europe/Berlin", 8*time.Hour)}, nil, "2026-03-29T04:59:59Z", "", ""}, // eight hours are eight hours
		"and its end":                    {[]roll.Window{every("22:00", "Europe/Berlin", 8*time.Hour)}, nil, "2026-03-29T05:00:00Z", "2026-03-29T20:00:00Z", roll.WaitWindow},
		"night the clocks go back":       {[]roll.Window{every("22:00", "Europe/Berlin", 8*time.Hour)}, nil, "2026-10-25T03:59:59Z", "", ""},
		"and its end too":                {[]roll.Window{every("22:00", "Europe/Berlin", 8*time.Hour)}, nil, "2026-10-25T04:00:00Z", "2026-10-25T21:00:00Z", roll.WaitWindow},
		"a start that never comes":       {[]roll.Window{every("02:30", "Europe/Berlin", time.Hour)}, nil, "2026-03-29T00:00:00Z", "2026-03-29T01:00:00Z", roll.WaitWindow},
		"a start that comes twice":       {[]roll.Window{every("02:30", "Europe/Berlin", 15*time.Minute)}, nil, "2026-10-25T00:00:00Z", "2026-10-25T00:30:00Z", roll.WaitWindow},
		"and not a second time":          {[]roll.Window{every("02:30", "Europe/Berlin", 15*time.Minute)}, nil, "2026-10-25T01:00:00Z", "2026-10-26T01:30:00Z", roll.WaitWindow},
		"clocks at midnight":             {[]roll.Window{every("00:15", "America/Havana", time.Hour)}, nil, "2026-03-08T04:00:00Z", "2026-03-08T05:00:00Z", roll.WaitWindow},
		"half an hour of summer time":    {[]roll.Window{every("02:15", "Australia/Lord_Howe", time.Hour)}, nil, "2026-10-03T15:00:00Z", "2026-10-03T15:30:00Z", roll.WaitWindow},
		"the other side of the dateline": {[]roll.Window{{Days: []string{"mon"}, Start: "01:00", Duration: roll.Duration(time.Hour), Zone: "Pacific/Kiritimati"}}, nil, "2026-11-29T09:00:00Z", "2026-11-29T11:00:00Z", roll.WaitWindow},
	} {
		inv := roll.Inventory{Windows: c.windows, Freezes: c.freezes}
		now := utc(c.now)
		at, open := roll.OpensAt(inv, now)
		switch closed := inv.Closed(now); {
		case c.at == "" && (!open || !at.Equal(now)):
			t.Errorf("%s: shut until %s", name, at)
		case c.at != "" && (open || !at.Equal(utc(c.at))):
			t.Errorf("%s: opens at %s (open %v), want %s", name, at, open, c.at)
		case c.at != "" && (closed.For != c.waits || closed.Why == ""):
			t.Errorf("%s: %+v, want %s", name, closed, c.waits)
		}
		if _, open := roll.OpensAt(inv, at); !open {
			t.Errorf("%s: an opening at %s that is none", name, at)
		}
	}
}

func TestCalendarsRefused(t *testing.T) {
	now := utc("2026-11-24T12:00:00Z")
	long := roll.Freeze{From: now, To: now.Add(400 * 24 * time.Hour), Reason: "x"}
	later := roll.Freeze{From: long.To, To: long.To.Add(400 * 24 * time.Hour), Reason: "x"}
	change := func(f func(*roll.Window)) roll.Inventory {
		w := weekend()
		f(&w)
		return roll.Inventory{Windows: []roll.Window{weekend(), w}}
	}
	frozen := func(f ...roll.Freeze) roll.Inventory { return roll.Inventory{Freezes: f} }
	for name, c := range map[string]struct {
		inv     roll.Inventory
		pointer string
	}{
		"no days":             {change(func(w *roll.Window) { w.Days = nil }), "/windows/1/days"},
		"day unknown":         {change(func(w *roll.Window) { w.Days = []string{"sat", "Sunday"} }), "/windows/1/days"},
		"day twice":           {change(func(w *roll.Window) { w.Days = []string{"sat", "sat"} }), "/windows/1/days"},
		"start":               {change(func(w *roll.Window) { w.Start = "24:00" }), "/windows/1/start"},
		"start in short":      {change(func(w *roll.Window) { w.Start = "9:00" }), "/windows/1/start"},
		"no time":             {change(func(w *roll.Window) { w.Duration = 0 }), "/windows/1/duration"},
		"more than a week":    {change(func(w *roll.Window) { w.Duration = roll.Duration(169 * time.Hour) }), "/windows/1/duration"},
		"zone unknown":        {change(func(w *roll.Window) { w.Zone = "Mars/Olympus" }), "/windows/1/zone"},
		"zone of the machine": {change(func(w *roll.Window) { w.Zone = "Local" }), "/windows/1/zone"},
		"no zone":             {change(func(w *roll.Window) { w.Zone = "" }), "/windows/1/zone"},
		"freeze backwards":    {frozen(roll.Freeze{From: now, To: now, Reason: "x"}), "/freezes/0/to"},
		"freeze of years":     {frozen(roll.Freeze{From: now, To: now.Add(401 * 24 * time.Hour), Reason: "x"}), "/freezes/0/to"},
		"freeze without why":  {frozen(roll.Freeze{From: now, To: now.Add(time.Hour), Reason: " "}), "/freezes/0/reason"},
		"never":               {frozen(long, later), "/freezes"},
		"many windows":        {roll.Inventory{Windows: make([]roll.Window, 51)}, "/windows"},
		"many freezes":        {roll.Inventory{Freezes: make([]roll.Freeze, 101)}, "/freezes"},
	} {
		err := roll.CheckCalendar(c.inv, now)
		var bad *roll.InvalidError
		if !errors.As(err, &bad) || bad.Pointer != c.pointer || bad.Detail == "" {
			t.Errorf("%s: %v, want %s", name, err, c.pointer)
		}
	}
	good := roll.Inventory{Windows: []roll.Window{weekend()}, Freezes: []roll.Freeze{long}}
	if err := roll.CheckCalendar(good, now); err != nil {
		t.Error(err)
	}
}

func emergencyOf(policies ...string) roll.Request {
	req := request(contoso(), policies...)
	req.Emergency = &roll.Emergency{Reason: "a key may be in the wrong hands"}
	return req
}

// Two people approve an emergency, neither of them who asked, whatever the
// tenant's declaration says; and no plan makes one of an ordinary roll.
func TestEmergencyTakesTwo(t *testing.T) {
	dave := roll.Actor{Subject: "dave", Kind: roll.Person}
	plan := build(t, contoso(), emergencyOf("spo"), healthy(contoso()))
	plain := planFor(t, contoso(), "spo")
	if plan.Hash == plain.Hash || !plan.Emergency {
		t.Fatal("the hash does not cover the emergency")
	}
	r, fx := roll.New(rollID, emergencyOf("spo"), plan, alice, false, patience, start)
	if r.State != roll.AwaitingApproval || !r.NeedsApproval || r.ApprovalsNeeded() != 2 || len(fx) != 2 {
		t.Fatalf("%s, needs approval %v, effects %v", r.State, r.NeedsApproval, fx)
	}
	for _, who := range []roll.Actor{alice, robot} {
		if _, _, err := r.Apply(roll.Approve{By: who, PlanHash: r.Plan.Hash}, start); err == nil {
			t.Errorf("%s approved", who.Subject)
		}
	}
	one, fx := mustFx(t, r, roll.Approve{By: bob, PlanHash: r.Plan.Hash}, start)
	if one.State != roll.AwaitingApproval || len(one.Approvals) != 1 || len(fx) != 1 || one.WakeAt == nil {
		t.Fatalf("after one approval %s, %v", one.State, fx)
	}
	if _, _, err := one.Apply(roll.Approve{By: bob, PlanHash: r.Plan.Hash}, start); code(err) != "already" {
		t.Errorf("one person approved twice: %v", err)
	}
	two := must(t, one, roll.Approve{By: carol, PlanHash: r.Plan.Hash}, start)
	if two.State != roll.Running || len(two.Approvals) != 2 {
		t.Fatalf("after two approvals %s", two.State)
	}
	if no := must(t, one, roll.Reject{By: carol}, start); no.State != roll.Rejected {
		t.Error(no.State)
	}
	if gone := must(t, one, roll.ApprovalExpired{}, start.Add(patience)); gone.EndCode != "approval_expired" {
		t.Error(gone.EndCode)
	}
	// A new plan needs both again, and stays what the roll was asked for.
	if _, _, err := one.Apply(roll.Replan{By: dave, Plan: plain}, start); code(err) != roll.RefusedState {
		t.Errorf("an emergency became an ordinary roll: %v", err)
	}
	again := must(t, one, roll.Replan{By: dave, Plan: plan}, start)
	again = must(t, again, roll.Approve{By: bob, PlanHash: plan.Hash}, start)
	if again.State != roll.AwaitingApproval {
		t.Errorf("%s after one approval of the new plan", again.State)
	}
	ordinary, _ := roll.New(rollID, request(contoso(), "spo"), plain, alice, true, patience, start)
	if _, _, err := ordinary.Apply(roll.Replan{By: bob, Plan: plan}, start); code(err) != roll.RefusedState {
		t.Errorf("an ordinary roll became an emergency: %v", err)
	}
	run, s := begin(t, running(t, contoso(), "spo"), roll.Preflight, "", start)
	if _, _, err := run.Apply(roll.PlanChanged{N: s.N, Epoch: s.Epoch, Plan: plan}, start); code(err) != roll.RefusedState {
		t.Errorf("preflight made an emergency: %v", err)
	}
}

// A chain that waits for a window gives the lease back and asks for it again
// when the window opens; nothing of it counts as standing still.
func TestLeaseGoesBackBeforeAWindow(t *testing.T) {
	opens := start.Add(5 * 24 * time.Hour)
	r := do(t, running(t, contoso(), "spo"), roll.Preflight, "", start)
	r = do(t, r, roll.SharePointLease, "", start)
	r, s := begin(t, r, roll.CreateKeyVersion, "spo-a", start)
	r, fx := mustFx(t, r, roll.Waits{N: s.N, Epoch: s.Epoch, For: roll.WaitWindow, Until: opens, NotApplied: true}, start)
	l := step(t, r, roll.SharePointLease, "")
	if leaves(fx) != 1 || l.State != roll.StepPending || r.WakeAt == nil || !r.WakeAt.Equal(opens) || r.Steps[s.N-1].IntentOpen {
		t.Fatalf("%d LeaveLease, lease step %s, wake %v", leaves(fx), l.State, r.WakeAt)
	}
	before := opens.Add(-time.Second)
	if got := offered(r, before); len(got) != 0 {
		t.Errorf("offered before the window: %v", got)
	}
	if got := r.Stuck(before, roll.DefaultBounds()); got != nil {
		t.Errorf("stuck: %+v", got)
	}
	if !offered(r, opens)[l.N] || offered(r, opens)[s.N] {
		t.Fatalf("at the opening offered %v", offered(r, opens))
	}
	r = do(t, r, roll.SharePointLease, "", opens)
	if !offered(r, opens)[s.N] {
		t.Error("the step is not offered in the window")
	}
	r, s = begin(t, r, roll.CreateKeyVersion, "spo-a", opens)
	if !s.IntentOpen || s.OpRound != 1 {
		t.Errorf("intent %v, round %d", s.IntentOpen, s.OpRound)
	}
	// An operation in flight keeps the lease, whatever the calendar says.
	r = must(t, r, roll.Done{N: s.N, Epoch: s.Epoch, Result: roll.Result{Version: ver("spo-a", 3)}}, opens)
	r = do(t, r, roll.SharePointRollKey, "spo-a", opens)
	if !r.InFlight("") {
		t.Fatal("nothing in flight")
	}
}

func TestClosesAt(t *testing.T) {
	now := time.Date(2026, 3, 2, 12, 0, 0, 0, time.UTC) // a Monday
	w := func(start string, d time.Duration, days ...string) roll.Window {
		return roll.Window{Days: days, Start: start, Duration: roll.Duration(d), Zone: "UTC"}
	}
	freeze := func(from, to time.Duration) roll.Freeze {
		return roll.Freeze{From: now.Add(from), To: now.Add(to), Reason: "x"}
	}
	for name, c := range map[string]struct {
		windows []roll.Window
		freezes []roll.Freeze
		in      time.Duration // 0: never
	}{
		"nothing":                  {},
		"a window":                 {windows: []roll.Window{w("11:00", 3*time.Hour, "mon")}, in: 2 * time.Hour},
		"two that follow":          {windows: []roll.Window{w("11:00", 3*time.Hour, "mon"), w("14:00", time.Hour, "mon")}, in: 3 * time.Hour},
		"one within the other":     {windows: []roll.Window{w("11:30", time.Hour, "mon"), w("11:00", 4*time.Hour, "mon")}, in: 3 * time.Hour},
		"a freeze before its end":  {windows: []roll.Window{w("11:00", 3*time.Hour, "mon")}, freezes: []roll.Freeze{freeze(time.Hour, 2*time.Hour)}, in: time.Hour},
		"a freeze after its end":   {windows: []roll.Window{w("11:00", 3*time.Hour, "mon")}, freezes: []roll.Freeze{freeze(5*time.Hour, 6*time.Hour)}, in: 2 * time.Hour},
		"freezes only":             {freezes: []roll.Freeze{freeze(900*time.Hour, 901*time.Hour), freeze(9*time.Hour, 10*time.Hour), freeze(-9*time.Hour, -8*time.Hour)}, in: 9 * time.Hour},
		"always open":              {windows: []roll.Window{w("00:00", 24*time.Hour, "mon", "tue", "wed", "thu", "fri", "sat", "sun")}},
		"always open, then freeze": {windows: []roll.Window{w("12:00", 7*24*time.Hour, "mon")}, freezes: []roll.Freeze{freeze(400*time.Hour, 401*time.Hour)}, in: 400 * time.Hour},
	} {
		want := time.Time{}
		if c.in != 0 {
			want = now.Add(c.in)
		}
		if got := (roll.Inventory{Windows: c.windows, Freezes: c.freezes}).ClosesAt(now); !got.Equal(want) {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
}
