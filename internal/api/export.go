package api

import (
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/keyroll/keyroll/internal/roll"
	"github.com/keyroll/keyroll/internal/store"
)

const (
	csvType = "text/csv"
	// exportFor bounds one export.
	exportFor = 10 * time.Minute
	// exportPage is how many rows are read at once.
	exportPage = 500
)

// export is an answer in CSV that is written as it is read. One that fails
// half-way is broken off, so that nobody takes half a table for a whole one.
type export struct {
	ctx    context.Context
	name   string
	header []string
	// rows writes all rows; its error is that of a read.
	rows func(ctx context.Context, put func(...string)) error
}

func (e export) write(w http.ResponseWriter) error {
	ctx, cancel := context.WithTimeout(e.ctx, exportFor)
	defer cancel()
	h := w.Header()
	h.Set("Content-Type", csvType+"; charset=utf-8; header=present")
	h.Set("Content-Disposition", `attachment; filename="`+e.name+`"`)
	w.WriteHeader(http.StatusOK)
	out := csv.NewWriter(&patientWriter{w: w, control: http.NewResponseController(w)})
	out.UseCRLF = true // RFC 4180
	err := out.Write(e.header)
	if err == nil {
		err = e.rows(ctx, func(cells ...string) {
			for i := range cells {
				cells[i] = harmless(cells[i])
			}
			_ = out.Write(cells) // its error sticks, and Flush and Error give it
		})
	}
	out.Flush()
	if err = errors.Join(err, out.Error()); err != nil {
		ex := exchangeOf(e.ctx)
		ex.err, ex.broken = fmt.Errorf("writing %s: %w", e.name, err), true
	}
	return nil
}

// harmless keeps a cell from being taken for a formula by a program that opens
// the file: people typed some of these texts. Where a semicolon parts the cells
// (as in most of Europe) what stands behind one in the text is a cell too, and
// so is what stands behind a tab or a line's end; and a full-width sign begins
// a formula in East Asia.
func harmless(cell string) string {
	var out strings.Builder
	begins := true
	for i, r := range cell {
		if begins && (strings.ContainsRune("=+-@＝＋－＠", r) || i == 0 && strings.ContainsRune("\t\r\n", r)) {
			out.WriteByte('\'')
		}
		begins = strings.ContainsRune(";\t\r\n", r) || begins && (r == ' ' || r == '"')
		out.WriteRune(r)
	}
	return out.String()
}

// patientWriter gives each write its own time, in place of the server's for
// the whole answer.
type patientWriter struct {
	w       http.ResponseWriter
	control *http.ResponseController
}

// Write writes within writePatience.
func (p *patientWriter) Write(b []byte) (int, error) {
	if err := p.control.SetWriteDeadline(time.Now().Add(writePatience)); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return 0, err
	}
	return p.w.Write(b)
}

// ExportRolls lists rolls as CSV, newest first.
func (h *handlers) ExportRolls(ctx context.Context, r ExportRollsRequestObject) (ExportRollsResponseObject, error) {
	q := r.Params
	return rollsExport{export{ctx: ctx, name: "keyroll-rolls.csv",
		header: []string{"id", "tenant_id", "state", "end_code", "outcome", "workloads", "policies", "versions", "reason_code", "reason", "ticket_source", "ticket_id",
			"requested_by", "requested_at", "approved_by", "plan_hash", "last_progress_at", "ended_at", "simulated"},
		rows: func(ctx context.Context, put func(...string)) error {
			f := store.RollFilter{TenantID: q.TenantID, State: string(q.State), Since: q.Since, Until: q.Until, Limit: exportPage}
			return paged(exportPage, func() ([]roll.Roll, error) { return h.Store.Rolls(ctx, f) }, func(x roll.Roll) {
				f.AfterTime, f.AfterID = x.CreatedAt, x.ID
				put(rollCells(x)...)
			})
		}}}, nil
}

type rollsExport struct{ export }

// VisitExportRollsResponse writes it.
func (e rollsExport) VisitExportRollsResponse(w http.ResponseWriter) error { return e.write(w) }

func rollCells(r roll.Roll) []string {
	var policies, versions, approvers []string
	for _, p := range r.Plan.Policies {
		evidence, _ := r.PolicyEvidence(p.ID)
		policies = append(policies, p.ID+" ("+string(evidence)+")")
	}
	for _, k := range r.Keys {
		versions = append(versions, k.ID+" "+k.OldVersion+" > "+k.NewVersion)
	}
	for _, a := range r.Approvals {
		approvers = append(approvers, a.By.Subject)
	}
	ticket := roll.Ticket{}
	if t := r.Request.Reason.Ticket; t != nil {
		ticket = *t
	}
	workloads := each(r.Workloads(), func(w roll.Workload) string { return string(w) })
	return []string{r.ID, r.TenantID, string(r.State), r.EndCode, string(r.Outcome), strings.Join(workloads, "; "), strings.Join(policies, "; "), strings.Join(versions, "; "),
		r.Request.Reason.Code, r.Request.Reason.Text, ticket.Source, ticket.ID, r.Requester.Subject, moment(r.CreatedAt), strings.Join(approvers, "; "),
		r.Plan.Hash, moment(r.ProgressAt), moment(utc(r.EndedAt)), strconv.FormatBool(r.Simulated)}
}

// ExportAudit lists entries of the audit log as CSV, oldest first.
func (h *handlers) ExportAudit(ctx context.Context, r ExportAuditRequestObject) (ExportAuditResponseObject, error) {
	q := r.Params
	return auditExport{export{ctx: ctx, name: "keyroll-audit.csv",
		header: []string{"id", "at", "tenant_id", "roll_id", "subject", "version", "actor", "actor_kind", "from", "to", "types", "events", "sha256"},
		rows: func(ctx context.Context, put func(...string)) error {
			f := store.AuditFilter{TenantID: q.TenantID, RollID: q.RollID, Since: q.Since, Until: q.Until, Limit: exportPage}
			return paged(exportPage, func() ([]store.AuditLine, error) { return h.Store.AuditPage(ctx, f) }, func(l store.AuditLine) {
				f.AfterAt, f.AfterID = l.At, l.ID
				put(auditCells(l)...)
			})
		}}}, nil
}

type auditExport struct{ export }

// VisitExportAuditResponse writes it.
func (e auditExport) VisitExportAuditResponse(w http.ResponseWriter) error { return e.write(w) }

func auditCells(l store.AuditLine) []string {
	var types []string
	for _, ev := range l.Entry.Events {
		types = append(types, ev.Type)
	}
	events, err := json.Marshal(l.Entry.Events)
	if err != nil {
		events = nil // it was decoded from JSON
	}
	return []string{strconv.FormatInt(l.ID, 10), moment(l.At), l.TenantID, l.RollID, l.Entry.Subject, strconv.FormatInt(l.Entry.Version, 10),
		l.Entry.Actor.Subject, l.Entry.Actor.Kind, l.Entry.From, l.Entry.To, strings.Join(types, "; "), string(events), l.Digest}
}

// paged reads page by page until one is not full.
func paged[T any](size int, read func() ([]T, error), each func(T)) error {
	for {
		page, err := read()
		if err != nil {
			return err
		}
		for _, x := range page {
			each(x)
		}
		if len(page) < size {
			return nil
		}
	}
}
