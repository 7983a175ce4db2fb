package api_test

import (
	"archive/zip"
	"bytes"
	"crypto/sha256"
	"encoding/csv"
	"encoding/hex"
	"encoding/json"
	"html"
	"io"

	"slices"
	"strings"
	"testing"

	"github.com/keyroll/keyroll/internal/api"
	"github.com/keyroll/keyroll/internal/audit"
)

// table reads an export: a map for each line, by the header's names.
func (h *house) table(who, path string) []map[string]string {
	h.t.Helper()
	rec := h.as(who, "GET", path, nil)
	if rec.Code != 200 || !strings.HasPrefix(rec.Header().Get("Content-Type"), "text/csv") || rec.Header().Get("Content-Disposition") == "" {
		h.t.Fatalf("%s answers %d %v: %s", path, rec.Code, rec.Header(), rec.Body)
	}
	lines, err := csv.NewReader(rec.Body).ReadAll()
	must(h.t, err)
	var out []map[string]string
	for _, line := range lines[1:] {
		row := map[string]string{}
		for i, name := range lines[0] {
			row[name] = line[i]
		}
		out = append(out, row)
	}
	return out
}

// What an auditor takes away of a roll, a rejected one beside it, and of the keys.
func TestReadouts(t *testing.T) {
	h := newHouse(t)
	h.declare()
	h.work()
	r := h.request(policies("exo-na"))
	h.approve(r.ID)
	r = h.awaitState(r.ID, api.RollStateSucceeded)
	odd := body(map[string]any{"policies": []string{"spo"}})
	odd["reason"] = map[string]any{"code": "other", "text": "=HYPERLINK(\"http://x\"); \t-1;\"=cmd|' /C calc'!A0\nor 5-3=2; so"}
	other := h.request(odd)

	t.Run("rolls", func(t *testing.T) {
		rows := h.table("rita", "/v1/exports/rolls")
		if len(rows) != 2 || rows[0]["id"] != other.ID || rows[1]["id"] != r.ID {
			t.Fatalf("rows %v", rows)
		}
		if got := rows[0]["reason"]; got != "'=HYPERLINK(\"http://x\"); \t'-1;\"'=cmd|' /C calc'!A0\nor 5-3=2; so" {
			t.Errorf("a formula is exported as %q", got)
		}
		one := rows[1]
		if one["state"] != "succeeded" || one["outcome"] != "accepted" || one["policies"] != "exo-na (accepted)" || one["approved_by"] != "paul@contoso.com" ||
			!strings.Contains(one["versions"], "exo-a "+r.Keys[0].OldVersion+" > "+r.Keys[0].NewVersion) {
			t.Errorf("row %v", one)
		}
		if rows := h.table("aud", "/v1/exports/rolls?state=awaiting_approval"); len(rows) != 1 || rows[0]["id"] != other.ID {
			t.Errorf("by state: %v", rows)
		}
	})
	t.Run("audit", func(t *testing.T) {
		refused(t, h.as("rita", "GET", "/v1/exports/audit", nil), 403, api.ProblemCodeForbidden)
		rows := h.table("aud", "/v1/exports/audit?roll_id="+r.ID)
		if int64(len(rows)) < r.Version || rows[0]["types"] != "requested" || rows[0]["actor"] != "rita@contoso.com" || len(rows[0]["sha256"]) != 64 {
			t.Errorf("%d rows, first %v", len(rows), rows[0])
		}
		if !slices.ContainsFunc(h.table("aud", "/v1/exports/audit"), func(row map[string]string) bool { return strings.HasPrefix(row["subject"], "tenant/") }) {
			t.Error("the tenant's entry is missing")
		}
	})
	t.Run("key ages", func(t *testing.T) { h.checkKeyAges(r) })
	t.Run("evidence", func(t *testing.T) { h.checkEvidence(r) })
	refused(t, h.as("aud", "GET", "/v1/rolls/"+someRoll+"/evidence", nil), 404, api.ProblemCodeNotFound)
}

// checkKeyAges: after a roll of the Exchange keys the four others are old.
func (h *house) checkKeyAges(r api.Roll) {
	h.t.Helper()
	var all []api.KeyAge
	cursor := ""
	for {
		page := answer[api.KeyAgeList](h.t, h.as("aud", "GET", "/v1/reports/key-ages?limit=2"+cursor, nil), 200)
		all = append(all, page.Items...)
		if page.NextCursor == "" {
			break
		}
		cursor = "&cursor=" + page.NextCursor
	}
	if len(all) != 6 || !slices.IsSortedFunc(all, func(a, b api.KeyAge) int { return a.NewestVersionAt.Compare(b.NewestVersionAt) }) {
		h.t.Fatalf("keys %+v", all)
	}
	for _, k := range all {
		if rolled := strings.HasPrefix(k.Key, "exo-"); rolled != (k.LastRollID == r.ID) || rolled != (k.AgeDays == 0) || len(k.Policies) != 1 {
			h.t.Errorf("key %+v", k)
		}
	}
	old := answer[api.KeyAgeList](h.t, h.as("aud", "GET", "/v1/reports/key-ages?not_rolled_for_days=1", nil), 200)
	if len(old.Items) != 4 || slices.ContainsFunc(old.Items, func(k api.KeyAge) bool { return strings.HasPrefix(k.Key, "exo-") }) {
		h.t.Errorf("not rolled for a day: %+v", old.Items)
	}
	if rows := h.table("aud", "/v1/exports/key-ages?not_rolled_for_days=1"); len(rows) != 4 || rows[0]["key"] != old.Items[0].Key {
		h.t.Errorf("exported: %v", rows)
	}
	refused(h.t, h.as("aud", "GET", "/v1/reports/key-ages?cursor="+api.WriteCursor(api.Position{At: someTime, ID: "no uuid"}, "key-ages", "", "0"), nil), 400, api.ProblemCodeBadCursor)
}

// checkEvidence checks the bundle as its README tells an auditor to.
func (h *house) checkEvidence(r api.Roll) {
	h.t.Helper()
	rec := h.as("aud", "GET", rollPath(r.ID)+"/evidence", nil)
	if rec.Code != 200 {
		h.t.Fatalf("answer %d: %s", rec.Code, rec.Body)
	}
	z, err := zip.NewReader(bytes.NewReader(rec.Body.Bytes()), int64(rec.Body.Len()))
	must(h.t, err)
	files := map[string][]byte{}
	for _, f := range z.File {
		in, err := f.Open()
		must(h.t, err)
		files[f.Name], err = io.ReadAll(in)
		must(h.t, err)
	}
	var manifest struct {
		SHA256 map[string]string `json:"sha256"`
	}
	must(h.t, json.Unmarshal(files["manifest.json"], &manifest))
	if len(manifest.SHA256) != len(files)-1 {
		h.t.Errorf("the manifest names %d of %d files", len(manifest.SHA256), len(files)-1)
	}
	for name, want := range manifest.SHA256 {
		if sum := sha256.Sum256(files[name]); hex.EncodeToString(sum[:]) != want {
			h.t.Errorf("%s is not what the manifest says", name)
		}
	}
	var bundle struct {
		Audit struct {
			Subject string `json:"subject"`
			Version int64  `json:"version"`
			Chain   string `json:"chain_sha256"`
		} `json:"audit"`
		Policies []struct{ ID, Evidence, Source string }         `json:"policies"`
		Keys     []struct{ ID, Old_Version, New_Version string } `json:"keys"` //nolint:revive // as in JSON
	}
	must(h.t, json.Unmarshal(files["evidence.json"], &bundle))
	var chain []byte
	version := int64(0)
	for _, line := range bytes.Split(bytes.TrimSuffix(files["audit.jsonl"], []byte("\n")), []byte("\n")) {
		e, err := audit.Parse(line)
		must(h.t, err)
		if e.Subject != bundle.Audit.Subject {
			continue
		}
		if version++; e.Version != version {
			h.t.Fatalf("entry %d has version %d", version, e.Version)
		}
		chain = audit.Link(chain, line)
	}
	if version != bundle.Audit.Version || version != r.Version || hex.EncodeToString(chain) != bundle.Audit.Chain {
		h.t.Errorf("the entries end at version %d with %x, the bundle says %+v", version, chain, bundle.Audit)
	}
	if len(bundle.Policies) != 1 || bundle.Policies[0].Evidence != "accepted" || bundle.Policies[0].Source == "" || len(bundle.Keys) != 2 {
		h.t.Errorf("bundle %+v", bundle)
	}
	page := html.UnescapeString(string(files["evidence.html"]))
	for _, want := range []string{r.ID, r.PlanHash, r.Keys[0].OldVersion, r.Keys[0].NewVersion, "paul@contoso.com", "annual, control 8.24", "simulators", bundle.Policies[0].Source} {
		if !strings.Contains(page, want) {
			h.t.Errorf("the page does not say %q", want)
		}
	}
	for _, never := range []string{"<script", "http://", "src="} {
		if strings.Contains(page, never) {
			h.t.Errorf("the page has %q", never)
		}
	}
}
