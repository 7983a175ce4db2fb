// Package evidence makes the bundle that an auditor takes away from a roll: one
// zip with the same content for programs (JSON) and for people (HTML), and the
// roll's audit entries byte for byte. It is pure: what it says it is given.
package evidence

import (
	"archive/zip"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"time"

	"github.com/keyroll/keyroll/internal/audit"
	"github.com/keyroll/keyroll/internal/roll"
)

// Format is the version of the bundle's format; it stands in evidence.json and
// in manifest.json.
const Format = "keyroll.evidence/1"

// Bundle is what is known of a roll when it is taken. Times are UTC.
type Bundle struct {
	Format    string    `json:"format"`
	TakenAt   time.Time `json:"taken_at"`
	TakenBy   string    `json:"taken_by"`
	Simulated bool      `json:"simulated"`
	// Final says that the roll had ended.
	Final bool `json:"final"`

	TenantID   string `json:"tenant_id"`
	TenantName string `json:"tenant_name"`
	Cloud      string `json:"cloud"`
	Roll       Roll   `json:"roll"`
	// Plan is the plan that holds now; earlier ones are in the audit entries by their hash.
	Plan      roll.Plan       `json:"plan"`
	Approvals []roll.Approval `json:"approvals"`
	Keys      []Key           `json:"keys"`
	Policies  []Policy        `json:"policies"`
	Steps     []roll.Step     `json:"steps"`
	Mailboxes []Mailbox       `json:"mailboxes"`
	Audit     Audit           `json:"audit"`

	// entries are for the page; audit.jsonl has their bytes.
	entries []audit.Entry
	lines   [][]byte
}

// Roll is the roll's own part.
type Roll struct {
	ID      string     `json:"id"`
	Version int64      `json:"version"`
	State   roll.State `json:"state"`
	EndCode string     `json:"end_code,omitempty"`
	EndNote string     `json:"end_note,omitempty"`
	// Outcome is the weakest evidence at the roll's end; CurrentOutcome counts
	// what was found since.
	Outcome        roll.Evidence `json:"outcome,omitempty"`
	CurrentOutcome roll.Evidence `json:"current_outcome,omitempty"`
	Reason         roll.Reason   `json:"reason"`
	// Emergency says why the roll went through change windows and freezes.
	Emergency   string      `json:"emergency,omitempty"`
	RequestedBy string      `json:"requested_by"`
	RequestedAt time.Time   `json:"requested_at"`
	EndedAt     *time.Time  `json:"ended_at,omitempty"`
	LeftBehind  []roll.Made `json:"left_behind,omitempty"`
}

// Key is a root key before and after the roll.
type Key struct {
	ID         string `json:"id"`
	VaultURL   string `json:"vault_url"`
	Name       string `json:"name"`
	OldVersion string `json:"old_version"`
	NewVersion string `json:"new_version,omitempty"`
	Adopted    bool   `json:"adopted,omitempty"`
	// Backup that holds the new version, as a person attested it; nil where nobody has.
	Backup *Backup `json:"backup,omitempty"`
	// Ledger has the key's versions as they were last seen in the vault.
	Ledger []LedgerVersion `json:"ledger"`
}

// Backup is a person's word that a key was backed up with its new version.
type Backup struct {
	TakenAt    time.Time `json:"taken_at"`
	AttestedBy string    `json:"attested_by"`
	AttestedAt time.Time `json:"attested_at"`
	Note       string    `json:"note,omitempty"`
}

// LedgerVersion is one version of a key in the ledger.
type LedgerVersion struct {
	Version        string    `json:"version"`
	State          string    `json:"state"`
	Origin         string    `json:"origin"`
	CreatedAt      time.Time `json:"created_at"`
	LastVerifiedAt time.Time `json:"last_verified_at"`
}

// Policy says how well it is known that a policy took up its keys, and by what.
type Policy struct {
	ID       string        `json:"id"`
	Workload roll.Workload `json:"workload"`
	Name     string        `json:"name,omitempty"`
	GUID     string        `json:"guid,omitempty"`
	Geo      string        `json:"geo,omitempty"`
	Covers   string        `json:"covers"`
	// Evidence, its Source and since when it is known, as it stands now;
	// EvidenceAtEnd is what it was when the roll ended.
	Evidence      roll.Evidence `json:"evidence"`
	Source        string        `json:"source,omitempty"`
	At            *time.Time    `json:"at,omitempty"`
	EvidenceAtEnd roll.Evidence `json:"evidence_at_end"`
}

// Mailbox is a sample mailbox that was watched. A change of its value proves
// that the value changed, and no more.
type Mailbox struct {
	Policy    string     `json:"policy"`
	Mailbox   string     `json:"mailbox"`
	Before    string     `json:"before"`
	Last      string     `json:"last"`
	LookedAt  *time.Time `json:"looked_at,omitempty"`
	ChangedAt *time.Time `json:"changed_at,omitempty"`
	Until     time.Time  `json:"watched_until"`
}

// Audit ties audit.jsonl to the roll: the entries of subject "roll/<id>" in it
// are numbered 1 to Version, and Chain is their running digest in hex.
type Audit struct {
	Subject string `json:"subject"`
	Version int64  `json:"version"`
	Chain   string `json:"chain_sha256"`
	Entries int    `json:"entries"`
}

// Of begins a bundle with what the roll itself knows.
func Of(r roll.Roll) Bundle {
	b := Bundle{Format: Format, Simulated: r.Simulated, Final: r.State.Final(), TenantID: r.TenantID, Plan: r.Plan, Steps: r.Steps,
		Approvals: []roll.Approval{}, Keys: []Key{}, Policies: []Policy{}, Mailboxes: []Mailbox{},
		Roll: Roll{ID: r.ID, Version: r.Version, State: r.State, EndCode: r.EndCode, EndNote: r.EndNote, Outcome: r.Outcome, CurrentOutcome: r.CurrentOutcome(), Reason: r.Request.Reason,
			RequestedBy: r.Requester.Subject, RequestedAt: r.CreatedAt, EndedAt: r.EndedAt, LeftBehind: r.LeftBehind}}
	if e := r.Request.Emergency; e != nil {
		b.Roll.Emergency = e.Reason
	}
	for _, k := range r.Keys {
		b.Keys = append(b.Keys, Key{ID: k.ID, VaultURL: k.VaultURL, Name: k.Name, OldVersion: k.OldVersion, NewVersion: k.NewVersion, Adopted: k.Adopted, Ledger: []LedgerVersion{}})
	}
	for _, p := range r.Plan.Policies {
		evidence, source, at := r.CurrentEvidence(p.ID)
		end, _ := r.PolicyEvidence(p.ID)
		b.Policies = append(b.Policies, Policy{ID: p.ID, Workload: p.Workload, Name: p.Name, GUID: p.GUID, Geo: p.Geo, Covers: p.Covers,
			Evidence: evidence, Source: source, At: at, EvidenceAtEnd: end})
	}
	return b
}

// SetAudit takes the roll's entries, byte for byte, and its digest. An entry
// that is not in canonical form is an error: a bundle must not hide it.
func (b *Bundle) SetAudit(lines [][]byte, version int64, chain []byte) error {
	b.Audit = Audit{Subject: "roll/" + b.Roll.ID, Version: version, Chain: hex.EncodeToString(chain), Entries: len(lines)}
	b.lines, b.entries = lines, nil
	for _, line := range lines {
		e, err := audit.Parse(line)
		if err != nil {
			return err
		}
		b.entries = append(b.entries, e)
	}
	return nil
}

// Files of the zip.
const (
	fileJSON     = "evidence.json"
	fileHTML     = "evidence.html"
	fileAudit    = "audit.jsonl"
	fileReadMe   = "README.txt"
	fileManifest = "manifest.json"
)

// Write writes the zip. Equal bundles give equal bytes.
func (b Bundle) Write(w io.Writer) error {
	encoded, err := json.MarshalIndent(b, "", "  ")
	if err != nil {
		return fmt.Errorf("encoding the evidence of roll %s: %w", b.Roll.ID, err)
	}
	page, err := b.page()
	if err != nil {
		return err
	}
	files := []struct {
		name    string
		content []byte
	}{
		{fileReadMe, []byte(readMe)}, {fileHTML, page}, {fileJSON, append(encoded, '\n')},
		{fileAudit, append(bytes.Join(b.lines, []byte("\n")), '\n')},
	}
	sums := map[string]string{}
	for _, f := range files {
		sum := sha256.Sum256(f.content)
		sums[f.name] = hex.EncodeToString(sum[:])
	}
	manifest, err := json.MarshalIndent(map[string]any{"format": Format, "roll_id": b.Roll.ID, "taken_at": b.TakenAt, "sha256": sums}, "", "  ")
	if err != nil {
		return fmt.Errorf("encoding the manifest: %w", err)
	}
	files = append(files, struct {
		name    string
		content []byte
	}{fileManifest, append(manifest, '\n')})
	z := zip.NewWriter(w)
	for _, f := range files {
		out, err := z.CreateHeader(&zip.FileHeader{Name: f.name, Method: zip.Deflate, Modified: b.TakenAt})
		if err != nil {
			return fmt.Errorf("writing %s: %w", f.name, err)
		}
		if _, err := out.Write(f.content); err != nil {
			return fmt.Errorf("writing %s: %w", f.name, err)
		}
	}
	return z.Close()
}

const readMe = `Evidence of one roll of Microsoft 365 Customer Key root keys, taken from Keyroll.

evidence.html   for people
evidence.json   the same for programs (format keyroll.evidence/1)
audit.jsonl     the roll's audit entries, one a line, byte for byte as they were written
manifest.json   the SHA-256 of each file

To check:
1. The SHA-256 of each file is the one in manifest.json (sha256sum FILE).
2. The lines of audit.jsonl whose subject is the roll are numbered 1, 2, 3 ... by "version", up to "audit.version" of
   evidence.json. Their running digest is "audit.chain_sha256": begin with nothing, and for each line in that order take
   the SHA-256 of the digest so far (32 bytes; none at first) followed by the bytes of the line without its line break.
3. In Keyroll itself, "server audit verify" holds every entry of the whole log against the rolls' own rows.

How well an end is known:
confirmed  observed at Microsoft
in_use     Key Vault's log shows Microsoft wrapping with the version
accepted   Microsoft took the call, and documents no signal that its work is done
attested   a named person says so
unknown    nobody knows

None of the key versions named here may ever be deleted or disabled: content may still be encrypted with them.
`
