package jobs_test

import (
	"testing"
	"time"

	"github.com/keyroll/keyroll/internal/jobs"
)

// TestPace: so many in a second on average, a bounded burst after a pause, and
// a pause between two on one host.
func TestPace(t *testing.T) {
	t.Parallel()
	p := jobs.NewPace(2, time.Second)
	now := time.Now()
	got := p.Take(now, 100)
	for range 100 {
		now = now.Add(100 * time.Millisecond)
		got += p.Take(now, 100)
	}
	if got < 20 || got > 21 {
		t.Errorf("%d turns in ten seconds at two a second", got)
	}
	now = now.Add(24 * time.Hour)
	if got := p.Take(now, 1000); got != 40 {
		t.Errorf("%d turns at once after a day, want 40", got)
	}
	p.Give(5)
	if got := p.Take(now, 1000); got != 5 {
		t.Errorf("%d turns after five were given back", got)
	}
	for i, want := range []time.Duration{0, time.Second, 2 * time.Second} {
		if got := p.Next("a", now); got != want {
			t.Errorf("look %d at a vault waits %s, want %s", i, got, want)
		}
	}
	if got := p.Next("b", now); got != 0 {
		t.Errorf("another vault waits %s", got)
	}
}
