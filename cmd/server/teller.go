package main

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"time"
)

// teller tells people what a long command does: one line for each piece of
// work, drawn over on a terminal once it is done.
type teller struct {
	w      io.Writer
	redraw bool
	width  int

	mu    sync.Mutex
	doing string
	begun time.Time
}

// do runs a piece of work under its line. f returns what the line says in the
// end; say tells what it is at meanwhile.
func (t *teller) do(doing string, f func(say func(string)) (string, error)) error {
	t.mu.Lock()
	t.doing, t.begun = doing, time.Now()
	t.mu.Unlock()
	stop := t.spin()
	done, err := f(t.say)
	stop()
	took := time.Since(t.begun)
	if err != nil {
		if t.redraw {
			fmt.Fprint(t.w, "\r\x1b[K")
		}
		t.line("✗", "fail", doing, took)
		return err
	}
	if t.redraw {
		fmt.Fprint(t.w, "\r\x1b[K")
	}
	t.line("✓", "ok", done, took)
	return nil
}

// line writes a finished line.
func (t *teller) line(glyph, word, text string, took time.Duration) {
	if !t.redraw {
		fmt.Fprintf(t.w, "%-4s  %s (%s)\n", word, text, seconds(took))
		return
	}
	clock := seconds(took)
	room := t.width - 4 - len(clock)
	fmt.Fprintf(t.w, "%s %s %s\n", paint(glyph), pad(text, room), clock)
}

// say replaces what the line says that is being worked at.
func (t *teller) say(doing string) {
	t.mu.Lock()
	t.doing = doing
	t.mu.Unlock()
	if !t.redraw {
		fmt.Fprintf(t.w, "...   %s\n", doing)
	}
}

// spin keeps the line in work drawn, with the time that it has taken.
func (t *teller) spin() (stop func()) {
	if !t.redraw {
		return func() {}
	}
	quit, ended := make(chan struct{}), make(chan struct{})
	draw := func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		text := t.doing
		if d := time.Since(t.begun); d >= time.Second {
			text += " (" + seconds(d) + ")"
		}
		fmt.Fprint(t.w, "\r\x1b[K· "+clip(text, t.width-3))
	}
	draw()
	go func() {
		defer close(ended)
		tick := time.NewTicker(200 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				draw()
			case <-quit:
				return
			}
		}
	}()
	return func() { close(quit); <-ended }
}

// seconds writes a duration for people, always with one decimal.
func seconds(d time.Duration) string { return fmt.Sprintf("%.1f s", d.Seconds()) }

// clip cuts a text to a width, and pad fills it up to that as well.
func clip(s string, width int) string {
	r := []rune(s)
	if len(r) <= width {
		return s
	}
	if width < 1 {
		return ""
	}
	return string(r[:width-1]) + "…"
}

func pad(s string, width int) string {
	s = clip(s, width)
	return s + strings.Repeat(" ", max(width-len([]rune(s)), 0))
}

// colours of the glyphs; only where lines are redrawn, so never in a file.
var colours = map[string]string{"✓": "32", "✗": "31", "!": "33", "▸": "36", "◦": "2"}

func paint(glyph string) string {
	if c, ok := colours[glyph]; ok {
		return "\x1b[" + c + "m" + glyph + "\x1b[0m"
	}
	return glyph
}

// wrap breaks a text into lines of a width, each after an indent.
func wrap(text, indent string, width int) string {
	var b strings.Builder
	line := indent
	for word := range strings.FieldsSeq(text) {
		if line != indent && len([]rune(line))+1+len([]rune(word)) > width {
			b.WriteString(line + "\n")
			line = indent
		}
		if line != indent {
			line += " "
		}
		line += word
	}
	b.WriteString(line + "\n")
	return b.String()
}
