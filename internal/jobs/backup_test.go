package jobs_test

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/keyroll/keyroll/internal/access"
	"github.com/keyroll/keyroll/internal/control"
	"github.com/keyroll/keyroll/internal/roll"
)

// TestBackups: the plan reminds, a person attests, the roll shows what covers
// its new version; and no plan is another one for it.
func TestBackups(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.declare()
	h.work(quick())
	due := func() (codes []string, hash string) {
		p, err := h.ctl.Plan(t.Context(), requester(), roll.Request{TenantID: h.inv.TenantID, Keys: []roll.KeyRequest{{ID: "exo-a"}}})
		must(t, err)
		for _, f := range p.Findings {
			if f.Code == "backup_due" && f.Level == roll.LevelWarning && f.Passing {
				codes = append(codes, f.Subject)
			}
		}
		return codes, p.Hash
	}
	attest := func(p access.Principal, vault, key string, at time.Time) error {
		_, err := h.ctl.AttestBackup(t.Context(), p, h.inv.TenantID, control.BackupAttestation{VaultURL: vault, KeyID: key, TakenAt: at, Note: "safe"})
		return err
	}
	const vault = "https://contoso-exo-a.vault.azure.net"
	now := h.st.Now()
	before, hash := due()
	if !slices.Equal(before, []string{"key:exo-a"}) {
		t.Errorf("due: %v", before)
	}
	robot := admin()
	robot.Kind = access.Service
	var denied *access.Denied
	if err := attest(robot, vault, "", now); !errors.As(err, &denied) {
		t.Errorf("a service attested: %v", err)
	}
	for pointer, err := range map[string]error{"/vault_url": attest(admin(), "https://elsewhere.vault.azure.net", "", now),
		"/key": attest(admin(), vault, "exo-b", now), "/taken_at": attest(admin(), vault, "", now.Add(time.Hour))} {
		var bad *roll.InvalidError
		if !errors.As(err, &bad) || bad.Pointer != pointer {
			t.Errorf("%s: %v", pointer, err)
		}
	}
	// One older than the newest version covers nothing; one of the whole vault does.
	must(t, attest(admin(), vault, "exo-a", time.Date(2001, 1, 1, 0, 0, 0, 0, time.UTC)))
	if still, _ := due(); len(still) != 1 {
		t.Errorf("an old backup counts: %v", still)
	}
	must(t, attest(admin(), vault, "", now))
	if after, same := due(); len(after) != 0 || same != hash {
		t.Errorf("due: %v, hash changed: %v", after, same != hash)
	}
	r := h.requestKey("exo-a")
	h.approve(r.ID)
	r = h.ended(r.ID)
	if got, err := h.st.BackupsSince(t.Context(), r); err != nil || len(got) != 0 {
		t.Errorf("a backup from before the roll covers its version: %v %v", got, err)
	}
	must(t, attest(admin(), vault, "exo-a", h.st.Now().Add(2*time.Second)))
	got, err := h.st.BackupsSince(t.Context(), r)
	must(t, err)
	if b := got["exo-a"]; b.AttestedBy != admin().Subject || b.Note != "safe" || len(got) != 1 {
		t.Errorf("%+v", got)
	}
	h.check(r) // the audit log verifies, attestations and all
	list, err := h.st.Backups(t.Context(), h.inv.TenantID, time.Time{}, "", 10)
	must(t, err)
	if len(list) != 3 || list[0].KeyName != "Contoso-EXO-A-Key001" {
		t.Errorf("%+v", list)
	}
	for _, sql := range []string{`UPDATE backups SET note = 'x'`, `DELETE FROM backups`} {
		if _, err := h.pool.Exec(t.Context(), sql); err == nil {
			t.Errorf("%s was taken", sql)
		}
	}
}
