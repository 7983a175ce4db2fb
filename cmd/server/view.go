package main

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/keyroll/keyroll/internal/api"
)

// view shows a roll as it goes on: drawn over on a terminal, else a line for
// each change.
type view struct {
	w             io.Writer
	redraw        bool
	width, height int

	begun time.Time
	drawn int // lines to draw over
	seen  map[int]shownStep
}

// shownStep is what the last plain line of a step said.
type shownStep struct {
	state   api.StepState
	waiting string
	quarter int
	attempt int
}

func newView(w io.Writer, width, height int, redraw bool) *view {
	return &view{w: w, redraw: redraw, width: width, height: height, begun: time.Now(), seen: map[int]shownStep{}}
}

// show shows the roll as it is now.
func (v *view) show(r api.Roll) {
	// A block that scrolls cannot be drawn over.
	if v.redraw && len(r.Steps)+3 <= v.height {
		v.draw(r)
		return
	}
	v.tell(r)
}

func (v *view) draw(r api.Roll) {
	lines := []string{fmt.Sprintf("  %s", pad("Roll "+r.ID+"  "+words(string(r.State)), v.width-13)) + fmt.Sprintf("%9s", seconds(time.Since(v.begun)))}
	titles := 0
	for _, s := range r.Steps {
		titles = max(titles, len([]rune(s.Title)))
	}
	titles = min(titles, v.width-36)
	for _, s := range r.Steps {
		lines = append(lines, v.stepLine(s, titles))
	}
	var b strings.Builder
	if v.drawn > 0 {
		fmt.Fprintf(&b, "\x1b[%dA", v.drawn)
	}
	for _, l := range lines {
		b.WriteString("\r" + l + "\x1b[K\n")
	}
	_, _ = io.WriteString(v.w, b.String())
	v.drawn = len(lines)
}

// stepLine is: glyph, number, title, state or bar, time.
func (v *view) stepLine(s api.Step, titles int) string {
	room := v.width - titles - 6 - 9
	state := pad(clip(stateWords(s), room-1), room)
	if s.Percent != nil && busy(s.State) {
		state = pad(bar(*s.Percent, min(room-8, 20)), room)
	}
	return fmt.Sprintf("%s %2d %s %s%8s", paint(glyph(s)), s.N, pad(s.Title, titles), state, took(s))
}

// glyph tells a step's state at a glance.
func glyph(s api.Step) string {
	switch s.State {
	case api.StepStateSucceeded:
		return "✓"
	case api.StepStateFailed, api.StepStateCancelled:
		return "✗"
	case api.StepStateNeedsAttention:
		return "!"
	case api.StepStateRunning, api.StepStateWaiting:
		return "▸"
	case api.StepStateSkipped:
		return "–"
	}
	return "◦"
}

// stateWords say what a step does, or waits for, or failed of.
func stateWords(s api.Step) string {
	switch {
	case s.State == api.StepStateNeedsAttention:
		return "needs attention: " + s.Error.Code
	case s.State == api.StepStatePending:
		return ""
	case s.State == api.StepStateWaiting && s.WaitingFor == "microsoft":
		return "Microsoft is at work"
	case s.State == api.StepStateWaiting && s.WaitingFor != "":
		return "waits for " + words(s.WaitingFor)
	case s.State == api.StepStateReady && s.Error.Code != "":
		return "tries again: " + words(s.Error.Code)
	}
	return words(string(s.State))
}

func words(wire string) string { return strings.ReplaceAll(wire, "_", " ") }

// bar draws a percentage.
func bar(percent float64, width int) string {
	percent = min(max(percent, 0), 100)
	full := int(percent / 100 * float64(width))
	return strings.Repeat("█", full) + strings.Repeat("░", width-full) + fmt.Sprintf(" %3.0f %%", percent)
}

// took is how long a step has been at work, or was.
func took(s api.Step) string {
	switch {
	case s.StartedAt.IsZero():
		return ""
	case s.EndedAt.IsZero():
		return seconds(max(time.Since(s.StartedAt), 0))
	}
	if d := s.EndedAt.Sub(s.StartedAt); d >= 100*time.Millisecond {
		return seconds(d)
	}
	return fmt.Sprintf("%d ms", s.EndedAt.Sub(s.StartedAt).Milliseconds())
}

// tell writes a line for each step that has changed since the last one.
func (v *view) tell(r api.Roll) {
	for _, s := range r.Steps {
		now := shownStep{state: s.State, waiting: s.WaitingFor, attempt: s.Attempt}
		old, known := v.seen[s.N]
		now.quarter = old.quarter // where SharePoint shows no percentage any more
		if s.Percent != nil {
			now.quarter = int(*s.Percent / 25)
		}
		v.seen[s.N] = now
		// Before it begins, a step is not worth a line; running after
		// waiting and waiting after running is how a poll looks.
		quiet := s.State == api.StepStatePending || s.State == api.StepStateReady && s.Error.Code == ""
		polls := known && busy(old.state) && busy(s.State) && old.quarter == now.quarter && (now.waiting == old.waiting || now.waiting == "")
		if quiet || polls || known && old == now {
			if polls {
				now.waiting, now.state = old.waiting, old.state
				v.seen[s.N] = now
			}
			continue
		}
		text := stateWords(s)
		if s.Percent != nil && busy(s.State) {
			text = fmt.Sprintf("%d %%", 25*now.quarter)
		}
		fmt.Fprintf(v.w, "%7s  step %2d  %s: %s\n", seconds(time.Since(v.begun)), s.N, s.Title, text)
	}
}

func busy(s api.StepState) bool { return s == api.StepStateRunning || s == api.StepStateWaiting }
