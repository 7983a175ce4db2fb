package sim

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"time"
)

// ServiceLogs is Log Analytics, where a tenant's vaults send their diagnostic log.
const ServiceLogs = "log_analytics"

// OpQuery asks the log.
const OpQuery = "query"

// The operations of Key Vault's diagnostic log that a root key sees.
const (
	LogWrap   = "KeyWrap"
	LogUnwrap = "KeyUnwrap"
)

// Logs is a tenant's Log Analytics workspace. What happens at a vault can be
// read DelaySeconds of the world's time later.
type Logs struct {
	// WorkspaceID is the workspace's GUID.
	WorkspaceID string `json:"workspace_id"`
	// DelaySeconds is how late a line can be read, in the world's time.
	DelaySeconds float64 `json:"delay_seconds,omitempty"`
	// Denied: no app may read it.
	Denied bool `json:"denied,omitempty"`
}

// LogLine is one line of the diagnostic log.
type LogLine struct {
	// At is when it happened; now where left out.
	At time.Time `json:"at,omitzero"`
	// Arrives is when it can be read; the workspace's delay after At where left out.
	Arrives time.Time `json:"arrives,omitzero"`
	// Operation is KeyWrap or KeyUnwrap.
	Operation string `json:"operation"`
	// AppID is the application that called.
	AppID string `json:"app_id"`
	// Key is a key identifier with its version.
	Key string `json:"key"`
}

// logHosts are the hosts of Log Analytics and the audience of its tokens, by cloud.
func logHosts() map[string][2]string {
	return map[string][2]string{
		"public":   {"api.loganalytics.azure.com", "https://api.loganalytics.io"},
		"gcc_high": {"api.loganalytics.us", "https://api.loganalytics.us"},
		"dod":      {"api.loganalytics.us", "https://api.loganalytics.us"},
		"china":    {"api.loganalytics.azure.cn", "https://api.loganalytics.azure.cn"},
	}
}

func isLogHost(host string) bool {
	for _, h := range logHosts() {
		if h[0] == host {
			return true
		}
	}
	return false
}

// The applications under which Microsoft 365 uses a customer's keys.
const (
	appExchange   = "00000002-0000-0ff1-ce00-000000000000"
	appSharePoint = "00000003-0000-0ff1-ce00-000000000000"
	appMulti      = "c066d759-24ae-40e7-a56f-027002b5d3e4"
)

// WriteLog adds a line that the world itself has no reason for; one without a
// time is of now.
func (w *World) WriteLog(tenant string, l LogLine) error {
	now := w.lock()
	defer w.mu.Unlock()
	t := w.tenantOf(tenant)
	if t == nil || t.logs == nil {
		return fmt.Errorf("diagnostic log of tenant %q: %w", tenant, ErrUnknown)
	}
	if l.At.IsZero() {
		l.At = now
	}
	t.written = append(t.written, l)
	return nil
}

// SetLogs changes a tenant's workspace.
func (w *World) SetLogs(tenant string, l Logs) error {
	w.lock()
	defer w.mu.Unlock()
	t := w.tenantOf(tenant)
	if t == nil {
		return fmt.Errorf("tenant %q: %w", tenant, ErrUnknown)
	}
	return t.setLogs(&l)
}

func (t *tenant) setLogs(l *Logs) error {
	if l == nil {
		return nil
	}
	if !isGUID(l.WorkspaceID) {
		return fmt.Errorf("workspace_id %q is not a GUID", l.WorkspaceID)
	}
	t.logs = new(*l)
	return nil
}

// log is everything that the tenant's vaults have logged of root keys and that
// has arrived by now: each policy that took versions up has wrapped with them,
// and has unwrapped what the older ones had wrapped.
func (w *World) log(t *tenant, now time.Time) []LogLine {
	lines := slices.Clone(t.written)
	for _, e := range w.effects {
		if !e.Applied || e.Tenant != t.id {
			continue
		}
		app, at := "", e.Start
		switch {
		case e.Service == ServiceSharePoint && e.Operation == OpRollKey:
			app, at = appSharePoint, e.End
		case e.Service == ServiceExchange && len(e.Versions) > 0:
			if p := t.policyOf(e.Target, ""); p != nil {
				app = map[string]string{WorkloadExchange: appExchange, WorkloadMulti: appMulti}[p.Workload]
			}
		}
		if app == "" || at.IsZero() {
			continue
		}
		for _, kid := range e.Versions {
			for _, op := range []string{LogWrap, LogUnwrap} {
				lines = append(lines, LogLine{At: at, Operation: op, AppID: app, Key: kid})
			}
		}
	}
	delay := seconds(t.logs.DelaySeconds)
	return slices.DeleteFunc(lines, func(l LogLine) bool { return or(l.Arrives, l.At.Add(delay)).After(now) })
}

// serveLogs answers POST /v1/workspaces/{id}/query. The simulator runs no
// Kusto: it takes the key identifiers and the first datetime out of the query,
// and answers with one line for each operation, application and key.
func (w *World) serveLogs(rw http.ResponseWriter, r *http.Request, host string) {
	parts := strings.Split(strings.Trim(r.URL.Path, "/"), "/")
	if r.Method != http.MethodPost || len(parts) != 4 || parts[0] != "v1" || parts[1] != "workspaces" || parts[3] != "query" {
		writeAnswer(rw, logError(http.StatusNotFound, "PathNotFoundError", "The requested path does not exist."))
		return
	}
	w.mu.Lock()
	var t *tenant
	for _, other := range w.tenants {
		if other.logs != nil && strings.EqualFold(other.logs.WorkspaceID, parts[2]) && logHosts()[other.cloud.name][0] == host {
			t = other
		}
	}
	w.mu.Unlock()
	if t == nil {
		writeAnswer(rw, logError(http.StatusForbidden, "InsufficientAccessError", "The provided credentials have insufficient access to perform the requested operation."))
		return
	}
	if _, err := w.bearer(r, logHosts()[t.cloud.name][1], t); err != nil {
		w.unauthorized(ServiceLogs)
		writeAnswer(rw, logError(http.StatusUnauthorized, "InvalidTokenError", "The provided authentication is not valid for this resource: "+err.Error()+"."))
		return
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		writeAnswer(rw, logError(http.StatusBadRequest, "BadArgumentError", "The request body could not be read."))
		return
	}
	w.run(rw, r, &call{service: ServiceLogs, op: OpQuery, tenant: t, target: parts[2], requestID: r.Header.Get("x-ms-client-request-id"),
		do: func(_ *call, now time.Time) answer { return w.query(t, body, now) }})
}

var (
	queryKeys  = regexp.MustCompile(`"(https://[^"]+/keys/[^"]+)"`)
	querySince = regexp.MustCompile(`datetime\(([^)]+)\)`)
)

func (w *World) query(t *tenant, body []byte, now time.Time) answer {
	var in struct {
		Query string `json:"query"`
	}
	if err := json.Unmarshal(body, &in); err != nil || in.Query == "" {
		return logError(http.StatusBadRequest, "BadArgumentError", "The request had some invalid properties")
	}
	if t.logs.Denied {
		return logError(http.StatusForbidden, "InsufficientAccessError", "The provided credentials have insufficient access to perform the requested operation.")
	}
	since := time.Time{}
	if m := querySince.FindStringSubmatch(in.Query); m != nil {
		since, _ = time.Parse(time.RFC3339Nano, m[1])
	}
	type group struct{ op, app, key string }
	first, calls := map[group]time.Time{}, map[group]int{}
	var order []group
	for _, l := range w.log(t, now) {
		asked := slices.ContainsFunc(queryKeys.FindAllStringSubmatch(in.Query, -1), func(m []string) bool { return strings.EqualFold(m[1], l.Key) })
		if !asked || l.At.Before(since) {
			continue
		}
		g := group{l.Operation, l.AppID, l.Key}
		if calls[g]++; calls[g] == 1 {
			order = append(order, g)
			first[g] = l.At
		} else if l.At.Before(first[g]) {
			first[g] = l.At
		}
	}
	rows := [][]any{}
	for _, g := range order {
		rows = append(rows, []any{g.op, g.app, g.key, first[g].UTC().Format(time.RFC3339Nano), calls[g]})
	}
	column := func(name, kind string) map[string]string { return map[string]string{"name": name, "type": kind} }
	return jsonAnswer(http.StatusOK, map[string]any{"tables": []any{map[string]any{"name": "PrimaryResult", "rows": rows, "columns": []any{
		column("operation", "string"), column("app", "string"), column("key", "string"), column("first", "datetime"), column("calls", "long")}}}})
}

func logError(status int, code, message string) answer {
	return jsonAnswer(status, map[string]any{"error": map[string]any{"code": code, "message": message}})
}
