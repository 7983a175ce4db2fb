package api

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"regexp"
	"runtime/debug"
	"time"

	"github.com/google/uuid"

	"github.com/keyroll/keyroll/internal/access"
)

// exchange is what is known of one request while it is served. Each middleware
// fills in its part; the log line at the end reads all of it.
type exchange struct {
	requestID string
	op        *operation
	principal access.Principal
	// body is what was sent, byte for byte.
	body     []byte
	status   int
	bytes    int64
	answered bool
	err      error
	stack    string
	// head: the request was a HEAD. streaming: its answer may take as long as it likes.
	head, streaming bool
	// broken: a panic came after the head of the answer.
	broken bool
}

type exchangeKey struct{}

// exchangeOf returns the request's exchange; an empty one outside of a request.
func exchangeOf(ctx context.Context) *exchange {
	if ex, ok := ctx.Value(exchangeKey{}).(*exchange); ok {
		return ex
	}
	return &exchange{requestID: uuid.NewString()}
}

// PrincipalOf returns who sends the request; empty on routes that need no token.
func PrincipalOf(ctx context.Context) access.Principal { return exchangeOf(ctx).principal }

// RequestIDOf returns the id of the request, for audit entries and for people.
func RequestIDOf(ctx context.Context) string { return exchangeOf(ctx).requestID }

var requestIDPattern = regexp.MustCompile(`^[A-Za-z0-9._-]{8,64}$`)

// observe gives the request its id, keeps a panic from ending the process, and
// writes one log line for it when it is over.
func observe(log *slog.Logger) func(http.Handler) http.Handler {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			begin := time.Now()
			ex := &exchange{requestID: r.Header.Get("X-Request-Id")}
			if !requestIDPattern.MatchString(ex.requestID) {
				ex.requestID = uuid.NewString()
			}
			w.Header().Set("X-Request-Id", ex.requestID)
			method := r.Method
			r = r.WithContext(context.WithValue(r.Context(), exchangeKey{}, ex))
			rec := &recorder{ResponseWriter: w, ex: ex}
			serveRecovering(next, rec, r, ex)
			logExchange(r.Context(), log, method, ex, time.Since(begin))
			if ex.broken {
				// net/http then breaks the connection off, so that the client
				// does not take half an answer for a whole one.
				panic(http.ErrAbortHandler)
			}
		})
	}
}

// serveRecovering turns a panic into a 500.
func serveRecovering(next http.Handler, w *recorder, r *http.Request, ex *exchange) {
	defer func() {
		v := recover()
		if v == nil {
			return
		}
		ex.broken = ex.answered
		ex.stack = string(debug.Stack())
		writeProblem(w, r, fmt.Errorf("panic: %v", v))
	}()
	next.ServeHTTP(w, r)
}

func logExchange(ctx context.Context, log *slog.Logger, method string, ex *exchange, took time.Duration) {
	route, level := "", slog.LevelInfo
	if ex.op != nil {
		route = ex.op.path
		if ex.op.open {
			level = slog.LevelDebug // probes and scrapes would drown the rest
		}
	}
	attrs := []slog.Attr{
		slog.String("method", method),
		slog.String("route", route),
		slog.Int("status", ex.status),
		slog.Int64("bytes", ex.bytes),
		slog.Float64("duration_ms", float64(took.Microseconds())/1000),
		slog.String("request_id", ex.requestID),
		slog.String("subject", ex.principal.Subject),
	}
	if ex.err != nil {
		attrs = append(attrs, slog.String("error", ex.err.Error()))
		switch {
		case ex.status == http.StatusInternalServerError || ex.stack != "":
			level = slog.LevelError
		case ex.status == http.StatusServiceUnavailable:
			level = slog.LevelWarn
		}
	}
	if ex.stack != "" {
		attrs = append(attrs, slog.String("stack", ex.stack))
	}
	log.LogAttrs(ctx, level, "request served", attrs...)
}

// recorder counts what is answered. Unwrap lets http.ResponseController reach
// what is under it.
type recorder struct {
	http.ResponseWriter
	ex *exchange
}

func (w *recorder) WriteHeader(status int) {
	if !w.ex.answered && status >= http.StatusOK {
		w.ex.answered, w.ex.status = true, status
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *recorder) Write(b []byte) (int, error) {
	if !w.ex.answered {
		w.ex.answered, w.ex.status = true, http.StatusOK
	}
	n, err := w.ResponseWriter.Write(b)
	w.ex.bytes += int64(n)
	return n, err
}

func (w *recorder) Unwrap() http.ResponseWriter { return w.ResponseWriter }
