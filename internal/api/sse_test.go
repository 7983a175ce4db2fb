package api_test

import (
	"bufio"
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/keyroll/keyroll/internal/api"
)

// reader reads one stream of events.
type reader struct {
	t    *testing.T
	resp *http.Response
	in   *bufio.Scanner
	end  context.CancelFunc
}

// follow opens a stream at a real server, as a browser would.
func (h *house) follow(url, rollID, lastID string) *reader {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(h.t.Context(), time.Minute)
	h.t.Cleanup(cancel)
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url+"/v1/rolls/"+rollID+"/events", nil)
	must(h.t, err)
	r.Header.Set("Authorization", "Bearer "+h.tokens["aud"])
	r.Header.Set("Accept", "text/event-stream")
	if lastID != "" {
		r.Header.Set("Last-Event-ID", lastID)
	}
	resp, err := http.DefaultClient.Do(r)
	must(h.t, err)
	h.t.Cleanup(func() { _ = resp.Body.Close() })
	if kind := resp.Header.Get("Content-Type"); resp.StatusCode != http.StatusOK || kind != "text/event-stream" {
		h.t.Fatalf("answer %d %s", resp.StatusCode, kind)
	}
	return &reader{t: h.t, resp: resp, in: bufio.NewScanner(resp.Body), end: cancel}
}

// next reads the next event; ok is false where the stream has ended.
func (r *reader) next() (e api.RollEvent, ok bool) {
	r.t.Helper()
	id := ""
	for r.in.Scan() {
		line := r.in.Text()
		if v, found := strings.CutPrefix(line, "id: "); found {
			id = v
		}
		if v, found := strings.CutPrefix(line, "data: "); found {
			must(r.t, json.Unmarshal([]byte(v), &e))
			if e.ID != id {
				r.t.Errorf("event %s carries id %s", id, e.ID)
			}
			return e, true
		}
	}
	return e, false
}

// until reads events up to one of the type.
func (r *reader) until(kind string) (types, ids []string) {
	r.t.Helper()
	for {
		e, ok := r.next()
		if !ok {
			r.t.Fatalf("the stream ended before %s: %v", kind, r.in.Err())
		}
		types, ids = append(types, e.Types...), append(ids, e.ID)
		if slices.Contains(e.Types, kind) {
			return types, ids
		}
	}
}

// root is a connection with the rights of the database's owner.
func (h *house) root() *pgx.Conn {
	h.t.Helper()
	conn, err := pgx.Connect(h.t.Context(), h.url)
	must(h.t, err)
	h.t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn
}

// serveStreams starts a real server whose hub runs until the test's end or stop.
func (h *house) serveStreams() (url string, stop func()) {
	h.t.Helper()
	srv := httptest.NewServer(h.raw)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		h.hub.Run(ctx)
	}()
	var once sync.Once
	stop = func() {
		once.Do(func() {
			cancel()
			<-ended
		})
	}
	h.t.Cleanup(func() {
		stop()
		srv.CloseClientConnections()
		srv.Close()
	})
	return srv.URL, stop
}

// A stream gives every entry once and in order: what was before, what comes,
// and after a break only what the client does not have.
func TestStreamFollowsARoll(t *testing.T) {
	h := newHouse(t)
	h.declare()
	r := h.request(policies("exo-na"))
	url, _ := h.serveStreams()
	first := h.follow(url, r.ID, "")
	if types, _ := first.until("requested"); len(types) != 1 {
		t.Errorf("a new roll shows %v", types)
	}
	h.approve(r.ID)
	_, ids := first.until("approved")
	first.end()
	h.work()
	h.awaitState(r.ID, api.RollStateSucceeded)

	second := h.follow(url, r.ID, ids[len(ids)-1])
	all := answer[api.RollEventList](t, h.as("aud", "GET", rollPath(r.ID)+"/events?limit=100", nil), 200).Items
	slices.Reverse(all)
	for _, want := range all[slices.IndexFunc(all, func(e api.RollEvent) bool { return e.ID == ids[len(ids)-1] })+1:] {
		if got, ok := second.next(); !ok || got.ID != want.ID || got.RollVersion != want.RollVersion {
			t.Fatalf("stream gives %+v, the list %+v", got, want)
		}
	}
}

// A thousand watchers hear of a change by one connection to the database, and
// by one read of it.
func TestManyWatchersOneConnection(t *testing.T) {
	const watchers = 1000
	h := newHouse(t)
	h.declare()
	r := h.request(policies("exo-na"))
	url, stop := h.serveStreams()
	streams := make([]*reader, watchers)
	for i := range streams {
		streams[i] = h.follow(url, r.ID, "")
		streams[i].until("requested")
	}
	root := h.root()
	var listening int
	must(t, root.QueryRow(t.Context(), `SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND query = 'LISTEN keyroll_roll'`).Scan(&listening))
	if listening != 1 {
		t.Errorf("%d connections listen", listening)
	}
	h.approve(r.ID)
	for _, s := range streams {
		s.until("approved")
	}
	stop()
	for _, s := range streams {
		if _, more := s.next(); more {
			t.Fatal("a stream goes on after its process has ended")
		}
	}
}

// When the connection that listens is cut, what was committed meanwhile is
// given out all the same.
func TestStreamSurvivesACutConnection(t *testing.T) {
	h := newHouse(t)
	h.declare()
	r := h.request(policies("exo-na"))
	url, _ := h.serveStreams()
	s := h.follow(url, r.ID, "")
	s.until("requested")
	_, err := h.root().Exec(t.Context(), `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'LISTEN%'`)
	must(t, err)
	h.approve(r.ID)
	s.until("approved")
}

func TestStreamRefusals(t *testing.T) {
	h := newHouse(t)
	h.declare()
	r := h.request(policies("exo-na"))
	path := "/v1/rolls/" + r.ID + "/events"
	stream := []string{"Accept", "text/event-stream"}
	refused(t, h.as("aud", "GET", "/v1/rolls/"+someRoll+"/events", nil, stream...), 404, api.ProblemCodeNotFound)
	refused(t, h.as("aud", "GET", path, nil, append(stream, "Last-Event-ID", "soon")...), 400, api.ProblemCodeInvalidRequest)
	refused(t, h.as("aud", "GET", path, nil, append(stream, "Last-Event-ID", "0")...), 400, api.ProblemCodeInvalidRequest)
	refused(t, h.as("", "GET", path, nil, stream...), 401, api.ProblemCodeUnauthenticated)
	if rec := h.as("aud", "HEAD", path, nil, stream...); rec.Code != 200 || rec.Header().Get("Content-Type") != "application/json" {
		t.Errorf("HEAD answers %d %s", rec.Code, rec.Header().Get("Content-Type"))
	}
}
