package roll

import (
	"fmt"
	"slices"
	"strings"
	"time"
	_ "time/tzdata" // zones are known on machines that have none
)

// Window is a time of the week in which steps with an effect may begin. Start
// is a time of day in Zone; Duration is elapsed time from there, so that a
// night in which the clocks change has an hour more or less of local time.
type Window struct {
	// Days on which the window begins: mon, tue, wed, thu, fri, sat, sun.
	Days     []string `json:"days"`
	Start    string   `json:"start"`
	Duration Duration `json:"duration"`
	// Zone is an IANA name.
	Zone string `json:"zone"`
}

// Freeze is a time in which nothing with an effect begins, window or not.
type Freeze struct {
	From   time.Time `json:"from"`
	To     time.Time `json:"to"`
	Reason string    `json:"reason"`
}

// Bounds of the calendar. A week is the longest window: it comes round again.
const (
	minWindow  = 5 * time.Minute
	maxWindow  = 7 * 24 * time.Hour
	maxFreeze  = 400 * 24 * time.Hour
	maxWindows = 50
	maxFreezes = 100
	// reach is how far ahead an opening must lie at the latest.
	reach = 500 * 24 * time.Hour
)

// weekdays by their short names.
var weekdays = []string{"sun", "mon", "tue", "wed", "thu", "fri", "sat"}

// Closed says why nothing with an effect may begin now, and until when. Until
// is an opening: a time inside a window and outside every freeze.
type Closed struct {
	// For is WaitWindow or WaitFreeze.
	For   string
	Until time.Time
	Why   string
}

// OpensAt is the next time from now on at which a step with an effect may
// begin; open says that this is now. The zero time means never within reach.
func OpensAt(inv Inventory, now time.Time) (at time.Time, open bool) {
	c := inv.Closed(now)
	if c == nil {
		return now, true
	}
	return c.Until, false
}

// Closed is nil where a step with an effect may begin now.
func (inv Inventory) Closed(now time.Time) *Closed {
	if len(inv.Windows) == 0 && len(inv.Freezes) == 0 {
		return nil
	}
	var out *Closed
	because := func(what, why string) {
		if out == nil {
			out = &Closed{For: what, Why: why}
		}
	}
	// Each turn goes on to the end of a freeze or to the beginning of a window.
	for at := now; at.Before(now.Add(reach)); {
		if f := inv.frozen(at); f != nil {
			because(WaitFreeze, f.Reason)
			at = f.To
			continue
		}
		next := inv.windowAt(at)
		if next.After(at) {
			because(WaitWindow, "outside of every change window")
			at = next
			continue
		}
		if next.IsZero() {
			because(WaitWindow, "outside of every change window")
			return out
		}
		if out != nil {
			out.Until = at.UTC()
		}
		return out
	}
	return out
}

func (inv Inventory) frozen(at time.Time) *Freeze {
	for i := range inv.Freezes {
		if f := &inv.Freezes[i]; !at.Before(f.From) && at.Before(f.To) {
			return f
		}
	}
	return nil
}

// ClosesAt is when a step that may begin now may do so no more: the end of the
// windows that overlap now, or the beginning of a freeze. Zero where windows
// follow each other without a gap for a month, and no freeze is declared.
func (inv Inventory) ClosesAt(now time.Time) time.Time {
	var freeze time.Time
	for _, f := range inv.Freezes {
		if f.To.After(now) && (freeze.IsZero() || f.From.Before(freeze)) {
			freeze = f.From
		}
	}
	for at := now; len(inv.Windows) > 0 && at.Before(now.AddDate(0, 1, 0)); {
		end := at
		for _, w := range inv.Windows {
			for _, begin := range w.near(at) {
				if e := begin.Add(time.Duration(w.Duration)); !at.Before(begin) && e.After(end) {
					end = e
				}
			}
		}
		if end.Equal(at) {
			if freeze.IsZero() || at.Before(freeze) {
				return at.UTC()
			}
			break
		}
		at = end
	}
	return freeze.UTC()
}

// windowAt is at itself inside a window, else the beginning of the next one;
// zero where there is none.
func (inv Inventory) windowAt(at time.Time) time.Time {
	if len(inv.Windows) == 0 {
		return at
	}
	var next time.Time
	for _, w := range inv.Windows {
		for _, begin := range w.near(at) {
			switch end := begin.Add(time.Duration(w.Duration)); {
			case !at.Before(begin) && at.Before(end):
				return at
			case begin.After(at) && (next.IsZero() || begin.Before(next)):
				next = begin
			}
		}
	}
	return next
}

// near lists when the window begins, from one longest window before at to a
// good week after it.
func (w Window) near(at time.Time) []time.Time {
	loc, h, m, err := w.parse()
	if err != nil {
		return nil
	}
	y, mon, d := at.In(loc).Date()
	var out []time.Time
	for i := -8; i <= 8; i++ {
		day := time.Date(y, mon, d+i, 12, 0, 0, 0, time.UTC)
		if slices.Contains(w.Days, weekdays[day.Weekday()]) {
			out = append(out, wallTime(day.Year(), day.Month(), day.Day(), h, m, loc))
		}
	}
	return out
}

func (w Window) parse() (loc *time.Location, hour, minute int, err error) {
	t, err := time.Parse("15:04", w.Start)
	if err != nil || len(w.Start) != 5 {
		return nil, 0, 0, fmt.Errorf("start %q is no time of day", w.Start)
	}
	if w.Zone == "" || w.Zone == "Local" {
		return nil, 0, 0, fmt.Errorf("zone %q is no IANA zone", w.Zone)
	}
	if loc, err = time.LoadLocation(w.Zone); err != nil {
		return nil, 0, 0, fmt.Errorf("zone %q is no IANA zone", w.Zone)
	}
	return loc, t.Hour(), t.Minute(), nil
}

// wallTime is when a clock on the wall shows the time on that day: the first
// time where it shows it twice, and the moment of the change where it never does.
func wallTime(y int, mon time.Month, d, h, m int, loc *time.Location) time.Time {
	t := time.Date(y, mon, d, h, m, 0, 0, loc)
	begin, end := t.ZoneBounds()
	if t.Hour() != h || t.Minute() != m {
		// The clock jumps over it, just before t or just after it.
		if !begin.IsZero() && t.Sub(begin) < 3*time.Hour {
			return begin
		}
		return end
	}
	if begin.IsZero() {
		return t
	}
	_, now := t.Zone()
	_, before := begin.Add(-time.Second).Zone()
	if first := t.Add(time.Duration(now-before) * time.Second); first.Before(begin) && first.In(loc).Hour() == h && first.In(loc).Minute() == m {
		return first
	}
	return t
}

// CheckCalendar refuses windows and freezes that say nothing, or under which
// nothing could begin for more than a year. Its errors are *InvalidError.
func CheckCalendar(inv Inventory, now time.Time) error {
	if len(inv.Windows) > maxWindows {
		return &InvalidError{"/windows", fmt.Sprintf("at most %d windows", maxWindows)}
	}
	if len(inv.Freezes) > maxFreezes {
		return &InvalidError{"/freezes", fmt.Sprintf("at most %d freezes", maxFreezes)}
	}
	for i, w := range inv.Windows {
		if err := w.check(fmt.Sprintf("/windows/%d", i)); err != nil {
			return err
		}
	}
	for i, f := range inv.Freezes {
		at := fmt.Sprintf("/freezes/%d", i)
		switch {
		case f.From.IsZero() || f.To.IsZero() || !f.To.After(f.From):
			return &InvalidError{at + "/to", "to must lie after from"}
		case f.To.Sub(f.From) > maxFreeze:
			return &InvalidError{at + "/to", "a freeze lasts at most 400 days"}
		case strings.TrimSpace(f.Reason) == "":
			return &InvalidError{at + "/reason", "say why: whoever waits for its end reads it"}
		}
	}
	if c := inv.Closed(now); c != nil && c.Until.IsZero() {
		return &InvalidError{"/freezes", "windows and freezes together leave no time in which a step could begin"}
	}
	return nil
}

func (w Window) check(at string) error {
	if len(w.Days) == 0 {
		return &InvalidError{at + "/days", "name at least one of " + strings.Join(weekdays, ", ")}
	}
	for i, d := range w.Days {
		if !slices.Contains(weekdays, d) || slices.Contains(w.Days[:i], d) {
			return &InvalidError{at + "/days", fmt.Sprintf("%q is unknown or named twice: use %s", d, strings.Join(weekdays, ", "))}
		}
	}
	if t, err := time.Parse("15:04", w.Start); err != nil || len(w.Start) != 5 || t.Second() != 0 {
		return &InvalidError{at + "/start", "use a time of day such as \"22:00\""}
	}
	if d := time.Duration(w.Duration); d < minWindow || d > maxWindow {
		return &InvalidError{at + "/duration", fmt.Sprintf("use a duration from %s to %s, such as \"8h\"", minWindow, maxWindow)}
	}
	if _, _, _, err := w.parse(); err != nil {
		return &InvalidError{at + "/zone", "use an IANA time zone such as \"Europe/Berlin\" or \"UTC\""}
	}
	return nil
}
