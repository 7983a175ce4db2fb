package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/keyroll/keyroll/internal/api"
	"github.com/keyroll/keyroll/internal/audit"
)

// report writes what came of a roll, for people.
type report struct {
	w     io.Writer
	width int
}

// text writes a paragraph.
func (o report) text(text, indent string) { io.WriteString(o.w, wrap(text, indent, o.width)) }

func (o report) title(text string) { fmt.Fprintf(o.w, "\n%s\n", text) }

// keys shows full version ids, which do not fit beside vault and key on one line.
func (o report) keys(s summary) {
	o.title("Keys: old version → new version, and how many the vault saw made")
	for _, k := range s.Keys {
		fmt.Fprintf(o.w, "  %s / %s\n    %s → %s  %d made\n", k.Vault, k.Name, k.OldVersion, k.NewVersion, k.VersionsCreated)
	}
}

// evidenceMeans says what each word means, and no more than that.
var evidenceMeans = map[api.Evidence]string{
	api.EvidenceConfirmed: "observed at Microsoft",
	api.EvidenceInUse:     "Key Vault's log shows Microsoft wrapping with the new version",
	api.EvidenceAccepted:  "Microsoft took the call, and documents no signal that its work is done",
	api.EvidenceAttested:  "a named person says so",
	api.EvidenceUnknown:   "not known",
}

func (o report) evidence(r api.Roll) {
	o.title("Evidence: how well each policy's end is known")
	said := map[string]bool{}
	for _, p := range r.Policies {
		fmt.Fprintf(o.w, "  %-14s  %-16s  %s\n", p.Workload, clip(policyName(p), 16), strings.ToUpper(string(p.Evidence)))
		o.text("covers "+p.Covers, "    ")
		source := p.EvidenceSource
		if said[source] {
			source = "as above"
		}
		said[p.EvidenceSource] = true
		o.text("known from: "+source, "    ")
	}
	o.text(fmt.Sprintf("Outcome: %s, the weakest of these: %s. Microsoft was played by simulators, so it is evidence of nothing real.",
		r.Outcome, evidenceMeans[r.Outcome]), "  ")
	o.text("What to do now? "+r.NextAction, "  ")
}

// auditRows bounds the table of the log.
const auditRows = 20

// auditRow is an event of an entry, or the same one of several in a row.
type auditRow struct {
	at                 time.Time
	actor, step, event string
	times              int
}

// auditTail shows the last events of the roll, oldest first. While Microsoft
// is at work each look is an entry; those are shown as one.
func (o report) auditTail(entries []api.RollEvent) {
	var rows []auditRow
	actors := 0
	for i := len(entries) - 1; i >= 0; i-- {
		for _, row := range rowsOf(entries[i]) {
			if n := len(rows); n > 0 && rows[n-1].event == row.event && rows[n-1].step == row.step && rows[n-1].actor == row.actor {
				rows[n-1].times++
				continue
			}
			rows = append(rows, row)
			actors = max(actors, len([]rune(row.actor)))
		}
	}
	rows = rows[max(len(rows)-auditRows, 0):]
	actors = min(actors, 20)
	o.title(fmt.Sprintf("Audit log: the last %d events of this roll", len(rows)))
	fmt.Fprintf(o.w, "  %-12s  %s  %4s  %s\n", "TIME (UTC)", pad("ACTOR", actors), "STEP", "EVENT")
	for _, r := range rows {
		event := r.event
		if r.times > 1 {
			event = fmt.Sprintf("%s (%d times)", event, r.times)
		}
		fmt.Fprintf(o.w, "  %-12s  %s  %4s  %s\n", r.at.Format("15:04:05.000"), pad(r.actor, actors), r.step, clip(event, o.width-24-actors))
	}
}

// rowsOf reads an entry's events. The state that the entry brought about
// stands with its last one.
func rowsOf(e api.RollEvent) []auditRow {
	var detail struct {
		From   string        `json:"from"`
		To     string        `json:"to"`
		Events []audit.Event `json:"events"`
	}
	raw, err := json.Marshal(e.Detail)
	if err == nil {
		err = json.Unmarshal(raw, &detail)
	}
	if err != nil || len(detail.Events) == 0 {
		return []auditRow{{e.At, e.Actor, "", strings.Join(e.Types, ", "), 1}}
	}
	var rows []auditRow
	for _, ev := range detail.Events {
		row := auditRow{e.At, e.Actor, "", eventText(ev), 1}
		if ev.Step != 0 {
			row.step = fmt.Sprint(ev.Step)
		}
		rows = append(rows, row)
	}
	if detail.From != detail.To {
		last := &rows[len(rows)-1]
		last.event = "roll " + words(detail.To) + "; " + last.event
	}
	return rows
}

// eventText names the event, and the first thing that there is to say of it.
func eventText(ev audit.Event) string {
	text := words(ev.Type)
	for _, name := range []string{"kind", "waiting_for", "evidence", "version", "code", "plan_hash"} {
		if v, ok := ev.Detail[name].(string); ok && v != "" {
			return text + ": " + strings.TrimPrefix(words(v), "sha256:")
		}
	}
	return text
}

// verdict is the end: what was verified, and what is wrong where something is.
func (o report) verdict(s summary, log audit.Report) {
	o.title("Verified")
	o.text(capital(auditLine(log))+".", "  ")
	for _, p := range log.Problems {
		fmt.Fprintf(o.w, "  %s\n", p)
	}
	o.text(fmt.Sprintf("The simulators saw %d SharePoint key operations, %d overlaps, and %d requests that could cost data.",
		s.SharePoint.Operations, s.SharePoint.Overlaps, s.violations), "  ")
	wrong := s.wrong()
	for _, text := range wrong {
		o.text("WRONG: "+text, "  ")
	}
	if len(wrong) == 0 {
		o.text(fmt.Sprintf("All of it holds. %.1f seconds in all.", s.Seconds), "  ")
	}
}

func capital(s string) string {
	if s == "" {
		return s
	}
	return strings.ToUpper(s[:1]) + s[1:]
}
