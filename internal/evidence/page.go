package evidence

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"fmt"
	"html/template"
	"time"

	"github.com/keyroll/keyroll/internal/audit"
	"github.com/keyroll/keyroll/internal/roll"
)

//go:embed page.html
var pageSource string

// page renders evidence.html. It stands alone: no script, nothing from elsewhere.
func (b Bundle) page() ([]byte, error) {
	t, err := template.New("evidence").Funcs(template.FuncMap{
		"at": func(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05 UTC") },
		"when": func(t *time.Time) string {
			if t == nil {
				return "–"
			}
			return t.UTC().Format("2006-01-02 15:04:05 UTC")
		},
		"means":  means,
		"detail": detail,
		"words":  words,
	}).Parse(pageSource)
	if err != nil {
		return nil, fmt.Errorf("reading the page of evidence: %w", err)
	}
	var out bytes.Buffer
	if err := t.Execute(&out, struct {
		Bundle
		Entries []audit.Entry
	}{b, b.entries}); err != nil {
		return nil, fmt.Errorf("writing the page of evidence: %w", err)
	}
	return out.Bytes(), nil
}

// means says what an evidence level stands for.
func means(e roll.Evidence) string {
	switch e {
	case roll.Confirmed:
		return "observed at Microsoft"
	case roll.InUse:
		return "Key Vault's log shows Microsoft wrapping with the version"
	case roll.Accepted:
		return "Microsoft took the call, and documents no signal that its work is done"
	case roll.Attested:
		return "a named person says so"
	}
	return "not known"
}

func words(state any) string {
	return string(bytes.ReplaceAll([]byte(fmt.Sprint(state)), []byte("_"), []byte(" ")))
}

// detail is what an audit event keeps, as JSON.
func detail(e audit.Event) string {
	if len(e.Detail) == 0 {
		return ""
	}
	raw, err := json.Marshal(e.Detail)
	if err != nil {
		return ""
	}
	return string(raw)
}
