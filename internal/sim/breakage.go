package sim

import (
	"crypto/tls"
	"html"
	"net"
	"net/http"
	"time"
)

// reset closes the connection with a TCP reset: what the client had not read
// yet is gone.
func reset(rw http.ResponseWriter) {
	conn, _, err := http.NewResponseController(rw).Hijack()
	if err != nil {
		panic(http.ErrAbortHandler) // no connection to take (a recorder): the server aborts it
	}
	under := conn
	if t, ok := conn.(*tls.Conn); ok {
		under = t.NetConn() // past TLS, which would say goodbye first
	}
	if tcp, ok := under.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	_ = under.Close()
}

// htmlPage is what a gateway in front of a service answers.
func htmlPage(p FaultParams) answer {
	status := or(p.Status, http.StatusServiceUnavailable)
	title := html.EscapeString(or(p.Message, http.StatusText(status)))
	return answer{status: status, header: http.Header{"Content-Type": {"text/html; charset=us-ascii"}},
		body: []byte("<!DOCTYPE HTML PUBLIC \"-//W3C//DTD HTML 4.01//EN\"\"http://www.w3.org/TR/html4/strict.dtd\">\r\n<HTML><HEAD><TITLE>" + title +
			"</TITLE></HEAD>\r\n<BODY><h2>" + title + "</h2>\r\n<hr><p>HTTP Error " + http.StatusText(status) + ".</p>\r\n</BODY></HTML>\r\n")}
}

// errorIn200 is an error under a status that says all went well.
func (w *World) errorIn200(service string, p FaultParams) answer {
	ans := w.errorAnswer(service, http.StatusOK, or(p.Code, defaultCode(service, http.StatusInternalServerError)), or(p.Message, "An internal error occurred."))
	ans.status = http.StatusOK
	return ans
}

// hides reports whether a fault keeps a version, which no list has shown yet,
// out of the list.
func (c *call) hides(v *version, now time.Time) bool {
	hidden := false
	for _, f := range c.lag {
		switch {
		case v.by == bySeed:
		case f.Params.Seconds > 0 && now.Before(time.Unix(v.created, 0).Add(seconds(f.Params.Seconds))):
			hidden = true
		case f.hidden[v] < f.Params.Requests:
			f.hidden[v]++
			hidden = true
		}
	}
	return hidden
}
