package sim

import (
	"slices"
	"strings"
	"time"
)

// Who did something.
const (
	byAPI      = "api"
	byHand     = "hand"
	byStranger = "stranger"
	bySeed     = "seed"
)

// Effect is one change at Microsoft, or the attempt of one: what an auditor
// who sat there would have seen.
type Effect struct {
	Seq       int       `json:"seq"`
	Start     time.Time `json:"start"`
	End       time.Time `json:"end,omitzero"` // of the remote operation; zero while it runs or when nothing was applied
	Service   string    `json:"service"`
	Operation string    `json:"operation"`
	Tenant    string    `json:"tenant"`
	Target    string    `json:"target"` // vault/key, policy GUID, or geo/slot
	Geo       string    `json:"geo,omitempty"`
	// OperationID is the tag keyroll-op where there is one, else the request id.
	OperationID string   `json:"operation_id,omitempty"`
	RequestID   string   `json:"request_id,omitempty"`
	Versions    []string `json:"versions,omitempty"` // key identifiers made, taken up or rolled to
	Applied     bool     `json:"applied"`
	Answered    bool     `json:"answered"`
	By          string   `json:"by"` // "api", "hand", "stranger", or "policy": a vault's own rotation
}

// Violation is a request that no rolling of keys ever needs, and that could
// cost data.
type Violation struct {
	Seq         int       `json:"seq"`
	At          time.Time `json:"at"`
	Service     string    `json:"service"`
	Operation   string    `json:"operation"`
	Tenant      string    `json:"tenant"`
	Target      string    `json:"target"`
	OperationID string    `json:"operation_id,omitempty"`
	Detail      string    `json:"detail"`
}

// witness opens an entry; the lock is held.
func (w *World) witness(e Effect) *Effect {
	e.Seq = len(w.effects) + len(w.violations) + 1
	w.effects = append(w.effects, &e)
	return &e
}

// violation records one; the lock is held.
func (w *World) violation(c *call, detail string, now time.Time) {
	w.violations = append(w.violations, Violation{Seq: len(w.effects) + len(w.violations) + 1, At: now, Service: c.service,
		Operation: c.op, Tenant: c.tenant.id, Target: c.target, OperationID: c.operationID, Detail: detail})
}

func (w *World) count(service, op string) {
	if w.requests[service] == nil {
		w.requests[service] = map[string]int{}
	}
	w.requests[service][op]++
}

// unauthorized counts a request without an acceptable token.
func (w *World) unauthorized(service string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.count(service, OpUnauthorized)
}

// Witness returns every effect and attempt so far, in order of arrival.
func (w *World) Witness() []Effect {
	w.lock()
	defer w.mu.Unlock()
	out := make([]Effect, 0, len(w.effects))
	for _, e := range w.effects {
		c := *e
		c.Versions = slices.Clone(e.Versions)
		out = append(out, c)
	}
	return out
}

// Violations returns every violation so far.
func (w *World) Violations() []Violation {
	w.lock()
	defer w.mu.Unlock()
	return slices.Clone(w.violations)
}

// Requests counts the authorised requests of an operation, reads too, however
// they ended; op "" counts the whole service.
func (w *World) Requests(service, op string) int {
	w.lock()
	defer w.mu.Unlock()
	if op != "" {
		return w.requests[service][op]
	}
	n := 0
	for name, count := range w.requests[service] {
		if name != OpUnauthorized {
			n += count
		}
	}
	return n
}

// VersionsCreated counts the versions of a key that were made over the API,
// answered or not; strangers' are not among them.
func (w *World) VersionsCreated(vault, key string) int {
	v := w.vaultOf(vault)
	if v == nil {
		return 0
	}
	n := 0
	for _, e := range w.Witness() {
		if e.Operation == OpCreateKey && e.Applied && e.By == byAPI && strings.EqualFold(e.Target, v.name+"/"+key) {
			n++
		}
	}
	return n
}

// SharePointOperations counts the key rolls that a tenant's SharePoint has
// begun for the API.
func (w *World) SharePointOperations(tenant string) int {
	n := 0
	for _, e := range w.rolls(tenant, nil) {
		if e.By == byAPI {
			n++
		}
	}
	return n
}

// Overlaps counts the pairs of SharePoint key rolls of a tenant, by whomever,
// that ran at the same time; with geos, those within these geos only.
func (w *World) Overlaps(tenant string, geos ...string) int {
	rolls, n := w.rolls(tenant, geos), 0
	before := func(start, end time.Time) bool { return end.IsZero() || start.Before(end) }
	for i, a := range rolls {
		for _, b := range rolls[i+1:] {
			if before(a.Start, b.End) && before(b.Start, a.End) {
				n++
			}
		}
	}
	return n
}

// rolls returns the SharePoint key rolls that were begun.
func (w *World) rolls(tenant string, geos []string) []Effect {
	t := w.tenantOf(tenant)
	if t == nil {
		return nil
	}
	var out []Effect
	for _, e := range w.Witness() {
		if e.Service == ServiceSharePoint && e.Operation == OpRollKey && e.Applied && e.Tenant == t.id &&
			(len(geos) == 0 || slices.Contains(geos, e.Geo)) {
			out = append(out, e)
		}
	}
	return out
}
