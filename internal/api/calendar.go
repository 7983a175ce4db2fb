package api

import (
	"fmt"
	"time"

	"github.com/keyroll/keyroll/internal/roll"
)

// calendar reads the windows and freezes of a declaration.
func calendar(d TenantDeclaration) (windows []roll.Window, freezes []roll.Freeze, err error) {
	for i, w := range d.Windows {
		lasts, err := time.ParseDuration(w.Duration)
		if err != nil {
			return nil, nil, refuseMember(ProblemCodeUnprocessable, fmt.Sprintf("/windows/%d/duration", i), "use a duration such as 8h")
		}
		windows = append(windows, roll.Window{
			Days: each(w.Days, func(day WindowDays) string { return string(day) }), Start: w.Start, Duration: roll.Duration(lasts), Zone: w.Zone,
		})
	}
	for _, f := range d.Freezes {
		freezes = append(freezes, roll.Freeze{From: f.From.UTC(), To: f.To.UTC(), Reason: f.Reason})
	}
	return windows, freezes, nil
}

func window(w roll.Window) Window {
	return Window{
		Days: each(w.Days, func(day string) WindowDays { return WindowDays(day) }), Start: w.Start,
		Duration: time.Duration(w.Duration).String(), Zone: w.Zone,
	}
}

func freeze(f roll.Freeze) Freeze {
	return Freeze{From: f.From.UTC(), To: f.To.UTC(), Reason: f.Reason}
}

// emergency reads why a roll cannot wait; the contract sees to it that there is a reason.
func emergency(e Emergency) *roll.Emergency {
	if e == (Emergency{}) {
		return nil
	}
	return &roll.Emergency{Reason: e.Reason}
}

// approvalsNeeded is how many people must approve the roll.
func approvalsNeeded(r roll.Roll) int {
	if !r.NeedsApproval && r.State != roll.AwaitingApproval && len(r.Approvals) == 0 {
		return 0
	}
	return r.ApprovalsNeeded()
}
