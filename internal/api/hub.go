package api

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/keyroll/keyroll/internal/store"
)

// source tells of new entries of rolls. All of it may be called at will.
type source interface {
	// FollowRolls returns only when the connection ends; connected means that
	// what came before may have been missed. Its callbacks must not block.
	FollowRolls(ctx context.Context, connected func(), changed func(rollID string)) error
	RollHorizon(ctx context.Context, rollID string) (store.Horizon, error)
	Settled(ctx context.Context, h store.Horizon) (bool, error)
	RollEventsUpTo(ctx context.Context, rollID string, after, upTo int64, limit int) ([]store.RollEvent, error)
}

// Limits of a Hub.
const (
	// DefaultWatchers bounds the streams of one process.
	DefaultWatchers = 10_000
	// backlog is how many reads a watcher may be behind; one that is slower
	// is cut off, and resumes from the last entry that it has.
	backlog = 64
	// readers bounds the reads for watched rolls at once.
	readers = 4
	// readBatch bounds the entries of one read.
	readBatch = 200
)

// Hub hands the new entries of rolls to those who watch them: one connection
// that listens and one read for each change, however many watch.
type Hub struct {
	src source
	log *slog.Logger
	max int

	watching prometheus.Gauge
	cut      prometheus.Counter

	mu      sync.Mutex
	topics  map[string]*topic
	pending []*topic // to be read, each once
	bell    chan struct{}
	count   int
	closed  bool
}

// topic is a roll that is watched. Its entries up to mark have been handed
// out; where ready is false, mark is not known yet.
type topic struct {
	rollID   string
	mark     int64
	ready    bool
	queued   bool // to be read, or to be read once more by the one who reads it
	reading  bool
	watchers map[*watcher]bool
}

// watcher is one stream. entries is closed when the hub lets go of it.
type watcher struct {
	entries chan []store.RollEvent
	// from is the entry behind which the hub feeds it.
	from  int64
	begun chan struct{}
}

// NewHub makes a hub; Run feeds it. max bounds the watchers, 0 means DefaultWatchers.
func NewHub(src source, reg prometheus.Registerer, log *slog.Logger, max int) *Hub {
	if max == 0 {
		max = DefaultWatchers
	}
	h := &Hub{src: src, log: log, max: max, topics: map[string]*topic{}, bell: make(chan struct{}, readers),
		watching: prometheus.NewGauge(prometheus.GaugeOpts{Name: "keyroll_event_watchers", Help: "Streams of events that are open in this process."}),
		cut: prometheus.NewCounter(prometheus.CounterOpts{Name: "keyroll_event_watchers_cut_total",
			Help: "Streams of events that were cut off because their reader was too slow."}),
	}
	reg.MustRegister(h.watching, h.cut)
	return h
}

// Run listens and feeds until ctx ends; then every stream ends.
func (h *Hub) Run(ctx context.Context) {
	var under sync.WaitGroup
	for range readers {
		under.Add(1)
		go func() {
			defer under.Done()
			h.readPending(ctx)
		}()
	}
	pause := time.Second
	for ctx.Err() == nil {
		err := h.src.FollowRolls(ctx, func() { pause = time.Second; h.touchAll() }, h.touch)
		if ctx.Err() != nil {
			break
		}
		h.log.Warn("following rolls failed", "err", err)
		// Watchers are still fed, a little later: nothing is missed for want of a bell.
		h.touchAll()
		wait(ctx, pause)
		pause = min(2*pause, 15*time.Second)
	}
	under.Wait()
	h.close()
}

func wait(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

func (h *Hub) readPending(ctx context.Context) {
	for {
		if t := h.take(); t != nil {
			h.read(ctx, t)
			continue
		}
		select {
		case <-h.bell:
		case <-ctx.Done():
			return
		}
	}
}

// take takes the next topic to read, and rings for another reader where there are more.
func (h *Hub) take() *topic {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.pending) == 0 {
		return nil
	}
	t := h.pending[0]
	h.pending = h.pending[1:]
	t.queued, t.reading = false, true
	if len(h.pending) > 0 {
		h.ring()
	}
	return t
}

func (h *Hub) ring() {
	select {
	case h.bell <- struct{}{}:
	default:
	}
}

// touch has the roll's new entries read, if anybody watches it.
func (h *Hub) touch(rollID string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if t, ok := h.topics[rollID]; ok {
		h.queue(t)
	}
}

func (h *Hub) touchAll() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, t := range h.topics {
		h.queue(t)
	}
}

// queue has the topic read; while somebody reads it, once more after that. The
// lock is held.
func (h *Hub) queue(t *topic) {
	if !t.queued && !t.reading {
		h.pending = append(h.pending, t)
		h.ring()
	}
	t.queued = true
}

// read hands out what is new in a topic. A read that fails is made again: a
// watcher must not wait for the roll's next change to hear of this one.
func (h *Hub) read(ctx context.Context, t *topic) {
	err := h.feed(ctx, t)
	if err != nil && ctx.Err() == nil {
		h.log.Warn("reading a watched roll failed", "roll", t.rollID, "err", err)
		wait(ctx, time.Second)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	again := (t.queued || err != nil) && len(t.watchers) > 0
	t.queued, t.reading = false, false
	if again {
		h.queue(t)
	}
}

// feed hands the entries behind the topic's mark to its watchers, in order and
// only when none with a smaller number can come any more.
func (h *Hub) feed(ctx context.Context, t *topic) error {
	bound, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	horizon, err := h.src.RollHorizon(bound, t.rollID)
	if err != nil {
		return err
	}
	for pause := 5 * time.Millisecond; ; pause = min(2*pause, 200*time.Millisecond) {
		settled, err := h.src.Settled(bound, horizon)
		if err != nil {
			return err
		}
		if settled {
			break
		}
		wait(bound, pause)
		if bound.Err() != nil {
			return bound.Err()
		}
	}
	if !t.ready {
		h.begin(t, horizon.Entry)
		return nil
	}
	for t.mark < horizon.Entry {
		list, err := h.src.RollEventsUpTo(bound, t.rollID, t.mark, horizon.Entry, readBatch)
		if err != nil {
			return err
		}
		if len(list) == 0 {
			break
		}
		h.hand(t, list)
	}
	return nil
}

// begin fixes where a new topic starts; its watchers read what is older themselves.
func (h *Hub) begin(t *topic, mark int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	t.mark, t.ready = mark, true
	for w := range t.watchers {
		w.from = mark
		close(w.begun)
	}
}

// hand gives entries to all watchers; one whose backlog is full is cut off.
func (h *Hub) hand(t *topic, list []store.RollEvent) {
	h.mu.Lock()
	defer h.mu.Unlock()
	t.mark = list[len(list)-1].ID
	for w := range t.watchers {
		select {
		case w.entries <- list:
		default:
			h.cut.Inc()
			h.drop(t, w)
		}
	}
}

// errTooMany and errClosing say why nobody can watch now.
var (
	errTooMany = errors.New("this process has as many event streams open as it may")
	errClosing = errors.New("the process is ending")
)

// watch begins to follow a roll. The caller lets go by leave.
func (h *Hub) watch(rollID string) (*watcher, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case h.closed:
		return nil, errClosing
	case h.count >= h.max:
		return nil, errTooMany
	}
	w := &watcher{entries: make(chan []store.RollEvent, backlog), begun: make(chan struct{})}
	t := h.topics[rollID]
	if t == nil {
		t = &topic{rollID: rollID, watchers: map[*watcher]bool{}}
		h.topics[rollID] = t
		h.queue(t)
	}
	if t.ready {
		w.from = t.mark
		close(w.begun)
	}
	t.watchers[w] = true
	h.count++
	h.watching.Set(float64(h.count))
	return w, nil
}

// leave ends a stream; it may be called after the hub has dropped it.
func (h *Hub) leave(rollID string, w *watcher) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if t := h.topics[rollID]; t != nil && t.watchers[w] {
		h.drop(t, w)
	}
}

// drop lets go of a watcher. The lock is held.
func (h *Hub) drop(t *topic, w *watcher) {
	delete(t.watchers, w)
	close(w.entries)
	h.count--
	h.watching.Set(float64(h.count))
	if len(t.watchers) == 0 {
		delete(h.topics, t.rollID)
	}
}

func (h *Hub) close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.closed = true
	for _, t := range h.topics {
		for w := range t.watchers {
			h.drop(t, w)
		}
	}
}
