package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/keyroll/keyroll/internal/store"
)

const (
	eventStream = "text/event-stream"
	// heartbeatEvery keeps proxies from taking a quiet stream for a dead one.
	heartbeatEvery = 15 * time.Second
	// writePatience bounds one write to a stream: a reader that takes no byte
	// for so long is gone or too slow.
	writePatience = 10 * time.Second
	// streamFor ends a stream in time for its token to be looked at again; the
	// client resumes by itself.
	streamFor = time.Hour
	// reconnectAfter is how long a client is asked to wait before it resumes.
	reconnectAfter = 2 * time.Second
)

// wantsStream says whether the request asks for the type of stream that the
// route has. A HEAD has no body to stream.
func wantsStream(r *http.Request, op *operation, head bool) bool {
	if op.streams == "" || head {
		return false
	}
	if op.onlyStreams {
		return true
	}
	for _, accepted := range strings.Split(strings.Join(r.Header.Values("Accept"), ","), ",") {
		if kind, _, err := mime.ParseMediaType(accepted); err == nil && kind == op.streams {
			return true
		}
	}
	return false
}

// rollStream follows a roll until its reader goes, or is cut off.
type rollStream struct {
	h      *handlers
	ctx    context.Context // of the request that this answers
	rollID string
	after  int64
	w      *watcher
}

// follow begins a stream behind the entry that the client has, 0 for none.
func (h *handlers) follow(ctx context.Context, rollID, lastEventID string) (ListRollEventsResponseObject, error) {
	var after int64
	if lastEventID != "" {
		var err error
		if after, err = strconv.ParseInt(lastEventID, 10, 64); err != nil || after < 1 {
			return nil, &requestError{code: ProblemCodeInvalidRequest, errs: []ProblemError{{In: ProblemErrorInHeader, Name: "Last-Event-ID",
				Detail: "use the id of an event of this roll, or leave the header out to have all of them"}}}
		}
	}
	if h.Hub == nil {
		return nil, refuse(ProblemCodeUnavailable, "this process follows no rolls")
	}
	w, err := h.Hub.watch(rollID)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", refuse(ProblemCodeUnavailable, err.Error()), err)
	}
	return &rollStream{h: h, ctx: ctx, rollID: rollID, after: after, w: w}, nil
}

// VisitListRollEventsResponse writes the stream. It ends with the request, with
// the process, when the reader is too slow, and after an hour; each time the
// client may resume from the last event that it has.
func (s *rollStream) VisitListRollEventsResponse(w http.ResponseWriter) error {
	defer s.h.Hub.leave(s.rollID, s.w)
	h := w.Header()
	h.Set("Content-Type", eventStream)
	h.Set("X-Accel-Buffering", "no") // a proxy that buffers would hold events back
	w.WriteHeader(http.StatusOK)
	out := &eventWriter{w: w, control: http.NewResponseController(w)}
	out.print(": events of roll %s\nretry: %d\n\n", s.rollID, reconnectAfter.Milliseconds())
	if out.flush() != nil {
		return nil // the head is out; there is nobody to tell
	}
	if err := s.write(out); err != nil && s.ctx.Err() == nil {
		exchangeOf(s.ctx).err = err
	}
	return nil
}

func (s *rollStream) write(out *eventWriter) error {
	end := time.NewTimer(streamFor)
	defer end.Stop()
	beat := time.NewTicker(heartbeatEvery)
	defer beat.Stop()
	for begun := false; !begun; {
		select {
		case <-s.w.begun:
			begun = true
		case <-s.w.entries:
			return errClosing
		case <-beat.C:
			if err := out.heartbeat(); err != nil {
				return err
			}
		case <-s.ctx.Done():
			return nil
		}
	}
	if err := s.catchUp(out); err != nil {
		return err
	}
	for {
		select {
		case list, open := <-s.w.entries:
			if !open {
				return errors.New("the stream was cut off: its reader is too slow, or the process ends")
			}
			if err := s.send(out, list); err != nil {
				return err
			}
		case <-beat.C:
			if err := out.heartbeat(); err != nil {
				return err
			}
		case <-end.C:
			return nil
		case <-s.ctx.Done():
			return nil
		}
	}
}

// catchUp writes what came before the hub began to feed this stream.
func (s *rollStream) catchUp(out *eventWriter) error {
	for s.after < s.w.from {
		ctx, cancel := context.WithTimeout(s.ctx, RequestTimeout)
		list, err := s.h.Store.RollEventsUpTo(ctx, s.rollID, s.after, s.w.from, readBatch)
		cancel()
		if err != nil {
			return err
		}
		if len(list) == 0 {
			return nil
		}
		if err := s.send(out, list); err != nil {
			return err
		}
	}
	return nil
}

// send writes those entries that the client does not have yet.
func (s *rollStream) send(out *eventWriter, list []store.RollEvent) error {
	for _, e := range list {
		if e.ID <= s.after {
			continue
		}
		out.event(e)
		s.after = e.ID
	}
	return out.flush()
}

// eventWriter writes events; the first error sticks.
type eventWriter struct {
	w       http.ResponseWriter
	control *http.ResponseController
	err     error
}

func (o *eventWriter) print(format string, args ...any) {
	if o.err != nil {
		return
	}
	// The server's own bound is for whole answers; here each write has one.
	if err := o.control.SetWriteDeadline(time.Now().Add(writePatience)); err != nil && !errors.Is(err, http.ErrNotSupported) {
		o.err = err
		return
	}
	_, o.err = fmt.Fprintf(o.w, format, args...)
}

func (o *eventWriter) flush() error {
	if o.err == nil {
		o.err = o.control.Flush()
	}
	return o.err
}

func (o *eventWriter) heartbeat() error {
	o.print(": still here\n\n")
	return o.flush()
}

// event writes an entry as the list of events shows it. Its JSON has no line
// break, so it is one data line.
func (o *eventWriter) event(e store.RollEvent) {
	data, err := json.Marshal(event(e))
	if err != nil && o.err == nil {
		o.err = fmt.Errorf("encoding event %d: %w", e.ID, err)
	}
	o.print("id: %d\ndata: %s\n\n", e.ID, data)
}
