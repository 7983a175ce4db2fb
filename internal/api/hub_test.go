package api_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/keyroll/keyroll/internal/api"
	"github.com/keyroll/keyroll/internal/audit"
	"github.com/keyroll/keyroll/internal/store"
)

// tape is a source that a test plays by hand.
type tape struct {
	ring  chan string
	reads chan int64
	last  int64
	fails int
	// settled, where not nil, gives the answers of Settled.
	settled chan bool
}

// open watches, and waits until the hub feeds the watcher.
func open(t *testing.T, hub *api.Hub) api.Watcher {
	t.Helper()
	w, err := hub.Open(someRoll)
	must(t, err)
	<-w.Begun()
	return w
}

// run runs the hub until stop, or the test's end.
func run(t *testing.T, hub *api.Hub) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() { defer close(ended); hub.Run(ctx) }()
	stop = func() { cancel(); <-ended }
	t.Cleanup(stop)
	return stop
}

func (s *tape) FollowRolls(ctx context.Context, connected func(), changed func(string)) error {
	connected()
	for {
		select {
		case id := <-s.ring:
			changed(id)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (s *tape) RollHorizon(context.Context, string) (store.Horizon, error) {
	return store.Horizon{Entry: s.last}, nil
}

func (s *tape) Settled(context.Context, store.Horizon) (bool, error) {
	if s.settled == nil {
		return true, nil
	}
	return <-s.settled, nil
}

func (s *tape) RollEventsUpTo(_ context.Context, _ string, after, upTo int64, _ int) ([]store.RollEvent, error) {
	if s.fails > 0 {
		s.fails--
		return nil, errors.New("the database is away")
	}
	s.reads <- after
	return []store.RollEvent{{ID: upTo, Entry: audit.Entry{Subject: "roll/" + someRoll}}}, nil
}

// A watcher that takes nothing is cut off and counted, and the others go on.
func TestSlowWatcherIsCutOff(t *testing.T) {
	src := &tape{ring: make(chan string), reads: make(chan int64, 1000)}
	reg := prometheus.NewRegistry()
	hub := api.NewHub(src, reg, quietLog(), 0)
	stop := run(t, hub)
	slow, quick := open(t, hub), open(t, hub)
	for n := int64(1); n <= api.Backlog+1; n++ {
		src.last = n // read by the hub only after the ring
		src.ring <- someRoll
		<-src.reads
		if got, ok := <-quick.Entries(); !ok || got[0].ID != n {
			t.Fatalf("the quick one gets %v, want %d", got, n)
		}
	}
	left := 0
	for range slow.Entries() {
		left++
	}
	if left != api.Backlog {
		t.Errorf("the slow one was given %d reads before it was cut off, want %d", left, api.Backlog)
	}
	if n, err := testutil.GatherAndCount(reg, "keyroll_event_watchers_cut_total"); err != nil || n != 1 {
		t.Errorf("metric: %d %v", n, err)
	}
	stop()
	if _, ok := <-quick.Entries(); ok {
		t.Error("a watcher is left when the hub has ended")
	}
}

// A read that fails is made again, without waiting for the roll's next change.
func TestFailedReadIsMadeAgain(t *testing.T) {
	src := &tape{ring: make(chan string), reads: make(chan int64, 10), fails: 1}
	hub := api.NewHub(src, prometheus.NewRegistry(), quietLog(), 0)
	run(t, hub)
	w := open(t, hub)
	src.last = 5
	src.ring <- someRoll
	select {
	case got := <-w.Entries():
		if got[0].ID != 5 {
			t.Errorf("got %v", got)
		}
	case <-time.After(30 * time.Second):
		t.Error("nothing came")
	}
}

// Nothing is read, and nothing given out, while an entry with a smaller number
// may still be on its way.
func TestNothingIsGivenOutTooEarly(t *testing.T) {
	src := &tape{ring: make(chan string), reads: make(chan int64, 10), settled: make(chan bool)}
	hub := api.NewHub(src, prometheus.NewRegistry(), quietLog(), 0)
	run(t, hub)
	w, err := hub.Open(someRoll)
	must(t, err)
	src.settled <- true
	<-w.Begun()
	src.last = 5
	src.ring <- someRoll
	for range 3 {
		src.settled <- false
	}
	if len(src.reads) != 0 || len(w.Entries()) != 0 {
		t.Error("entries were read before all earlier ones were there")
	}
	src.settled <- true
	if got := <-w.Entries(); got[0].ID != 5 {
		t.Errorf("got %v", got)
	}
	close(src.settled) // whoever asks once more at the end gets an answer
}

// A full process refuses one more, and takes one again when a place is free.
func TestWatchersAreBounded(t *testing.T) {
	hub := api.NewHub(&tape{}, prometheus.NewRegistry(), quietLog(), 1)
	if _, err := hub.Open(someRoll); err != nil {
		t.Fatal(err)
	}
	if _, err := hub.Open(someRoll); err == nil {
		t.Error("one more than there may be was taken")
	}
}
