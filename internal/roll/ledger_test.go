package roll_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/keyroll/keyroll/internal/roll"
)

var ledgerNow = time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)

func ledgerKey() roll.LedgerKey {
	return roll.LedgerKey{Key: roll.Key{ID: "spo-a", VaultURL: "https://contoso-spo-a.vault.azure.net", Name: "Key001"}, Versions: []string{"old", "new"},
		Policies: []roll.LedgerPolicy{{ID: "spo", Workload: roll.SharePoint}, {ID: "eu", Name: "EU Mailboxes", Workload: roll.Exchange}}}
}

func ledgerLook() roll.LedgerLook {
	level := "Recoverable+ProtectedSubscription"
	return roll.LedgerLook{At: ledgerNow, Rotation: roll.RotationPolicy{Readable: true},
		Versions: []roll.KeyVersion{{Version: "old", Enabled: true, RecoveryLevel: level}, {Version: "new", Enabled: true, RecoveryLevel: level}}}
}

// TestCheckLedger: each promise broken by itself, and nothing else said.
func TestCheckLedger(t *testing.T) {
	t.Parallel()
	expires := func(d time.Duration) func(*roll.LedgerKey, *roll.LedgerLook) {
		return func(_ *roll.LedgerKey, l *roll.LedgerLook) { l.Versions[0].Expires = new(ledgerNow.Add(d)) }
	}
	level := func(s string) func(*roll.LedgerKey, *roll.LedgerLook) {
		return func(k *roll.LedgerKey, l *roll.LedgerLook) {
			k.Level = "Recoverable+ProtectedSubscription"
			l.Versions[1].RecoveryLevel = s
		}
	}
	gone := func(d roll.DeletedKey) func(*roll.LedgerKey, *roll.LedgerLook) {
		return func(_ *roll.LedgerKey, l *roll.LedgerLook) {
			*l = roll.LedgerLook{At: ledgerNow, Gone: true, Deleted: d}
		}
	}
	for name, c := range map[string]struct {
		change        func(*roll.LedgerKey, *roll.LedgerLook)
		code, version string
		level         roll.Level
		state         string // of the version old
		remedy        string
	}{
		"well":         {func(*roll.LedgerKey, *roll.LedgerLook) {}, "", "", "", "enabled", ""},
		"disabled":     {func(_ *roll.LedgerKey, l *roll.LedgerLook) { l.Versions[0].Enabled = false }, "version_disabled", "old", "error", "disabled", "Update-AzKeyVaultKey -VaultName 'contoso-spo-a' -Name 'Key001' -Version 'old' -Enable $true"},
		"missing":      {func(_ *roll.LedgerKey, l *roll.LedgerLook) { l.Versions = l.Versions[1:] }, "version_missing", "old", "error", "missing", "Microsoft support"},
		"expired now":  {expires(0), "version_expired", "old", "error", "expired", "9999-12-31"},
		"expires soon": {expires(90 * 24 * time.Hour), "version_expires_soon", "old", "error", "enabled", "9999-12-31"},
		"expires":      {expires(90*24*time.Hour + time.Second), "version_expires", "old", "warning", "enabled", "9999-12-31"},
		"last day": {func(_ *roll.LedgerKey, l *roll.LedgerLook) {
			l.Versions[0].Expires = new(time.Date(9999, 12, 31, 0, 0, 0, 0, time.UTC))
		}, "", "", "", "enabled", ""},
		"purgeable":     {level("Recoverable+Purgeable"), "recovery_level_purgeable", "", "error", "enabled", "-EnablePurgeProtection"},
		"weakened":      {level("Recoverable"), "recovery_level_weakened", "", "error", "enabled", "restore it"},
		"never strong":  {func(_ *roll.LedgerKey, l *roll.LedgerLook) { l.Versions[0].RecoveryLevel = "Recoverable" }, "", "", "", "enabled", ""},
		"expiry policy": {func(_ *roll.LedgerKey, l *roll.LedgerLook) { l.Rotation.ExpiryTime = "P2Y" }, "rotation_policy_expiry", "", "warning", "enabled", "Rotation policy"},
		"both": {func(_ *roll.LedgerKey, l *roll.LedgerLook) {
			l.Rotation.ExpiryTime, l.Rotation.AutoRotate = "P2Y", true
		}, "rotation_policy_expiry", "", "error", "enabled",
			"Rotation policy"},
		"rotates":           {func(_ *roll.LedgerKey, l *roll.LedgerLook) { l.Rotation.AutoRotate = true }, "rotation_policy_rotates", "", "warning", "enabled", "off"},
		"unreadable policy": {func(_ *roll.LedgerKey, l *roll.LedgerLook) { l.Rotation = roll.RotationPolicy{AutoRotate: true} }, "", "", "", "enabled", ""},
		"stranger": {func(_ *roll.LedgerKey, l *roll.LedgerLook) {
			l.Versions = append(l.Versions, roll.KeyVersion{Version: "x"})
		}, "", "", "", "enabled", ""},
		"soft-deleted":       {gone(roll.DeletedKey{Readable: true, Found: true, PurgeAt: new(ledgerNow)}), "key_soft_deleted", "", "error", "soft_deleted", "Undo-AzKeyVaultKeyRemoval -VaultName 'contoso-spo-a' -Name 'Key001'"},
		"purged":             {gone(roll.DeletedKey{Readable: true}), "key_missing", "", "error", "missing", "backup"},
		"gone, nobody knows": {gone(roll.DeletedKey{}), "key_missing", "", "error", "missing", "-InRemovedState"},
		"a version of an HSM": {func(k *roll.LedgerKey, l *roll.LedgerLook) {
			k.Key.VaultURL = "https://contoso.managedhsm.azure.net"
			l.Versions[0].Enabled = false
		}, "version_disabled", "old", "error", "disabled", "-HsmName 'contoso' -Name 'Key001'"},
	} {
		k, l := ledgerKey(), ledgerLook()
		c.change(&k, &l)
		if got := l.State("old"); got != c.state {
			t.Errorf("%s: state %s, want %s", name, got, c.state)
		}
		found := roll.CheckLedger(k, l)
		if c.code == "" {
			if len(found) > 0 {
				t.Errorf("%s: %+v", name, found)
			}
			continue
		}
		if len(found) != 1 || found[0].Code != c.code || found[0].Version != c.version || found[0].Level != c.level {
			t.Errorf("%s: %+v", name, found)
			continue
		}
		if v := found[0]; !strings.Contains(v.Remedy, c.remedy) || !strings.Contains(v.Detail, "spo, SharePoint, OneDrive and Teams files") ||
			!strings.Contains(v.Detail, "eu (EU Mailboxes), the mailboxes") || !slices.Contains(roll.LedgerCodes(), v.Code) {
			t.Errorf("%s: %+v", name, v)
		}
	}
}

// TestLedgerRemediesNeverDestroy: no remedy tells anybody to delete or purge.
func TestLedgerRemediesNeverDestroy(t *testing.T) {
	t.Parallel()
	for _, d := range []roll.DeletedKey{{Readable: true, Found: true}, {Readable: true}, {}} {
		for _, v := range roll.CheckLedger(ledgerKey(), roll.LedgerLook{Gone: true, Deleted: d}) {
			text := strings.ReplaceAll(v.Remedy, "Never purge it (Remove-AzKeyVaultKey -InRemovedState)", "")
			if strings.Contains(text, "Remove-") {
				t.Errorf("%s: %s", v.Code, v.Remedy)
			}
		}
	}
}

// TestWhatALookJudges: a key that is gone says nothing of its versions, and an
// unreadable rotation policy nothing of itself: neither ends a violation.
func TestWhatALookJudges(t *testing.T) {
	t.Parallel()
	gone := roll.LedgerLook{Gone: true}
	for _, code := range roll.LedgerCodes() {
		key := code == roll.LedgerKeySoftDeleted || code == roll.LedgerKeyMissing || code == roll.LedgerUnverified
		if gone.Judges(code) != key {
			t.Errorf("a key that is gone judges %s: %t", code, gone.Judges(code))
		}
		rotation := code == roll.LedgerRotationExpiry || code == roll.LedgerRotates
		if l := (roll.LedgerLook{}); l.Judges(code) == rotation {
			t.Errorf("an unreadable rotation policy: judges %s: %t", code, l.Judges(code))
		}
		if !ledgerLook().Judges(code) {
			t.Errorf("a whole look does not judge %s", code)
		}
	}
}

func TestAKeyWithoutPoliciesIsTreatedAsInUse(t *testing.T) {
	t.Parallel()
	k := ledgerKey()
	k.Policies = nil
	if got := k.AtStake(); !strings.Contains(got, "treat it as in use") {
		t.Error(got)
	}
	v := ledgerKey().Unverified(ledgerNow, roll.Trouble{Code: "keyvault_forbidden", Detail: "403"}, "grant it", false)
	if v.Level != roll.LevelWarning || !strings.Contains(v.Detail, "is not known: 403") || !strings.Contains(v.Detail, "eu (EU Mailboxes)") || v.Remedy != "grant it" {
		t.Errorf("%+v", v)
	}
}

// TestTheVaultItselfMayBeGone: where nothing shows that the vault is there, that
// is said, with the way back, and never to purge.
func TestTheVaultItselfMayBeGone(t *testing.T) {
	t.Parallel()
	for host, want := range map[string][]string{
		"https://contoso-spo-a.vault.azure.net": {"Get-AzKeyVault -VaultName 'contoso-spo-a' -Location LOCATION -InRemovedState",
			"Undo-AzKeyVaultRemoval -VaultName 'contoso-spo-a' -ResourceGroupName GROUP -Location LOCATION", "Never purge it (Remove-AzKeyVault -InRemovedState)"},
		"https://contoso-spo-a.managedhsm.azure.net": {"Get-AzKeyVaultManagedHsm -Name 'contoso-spo-a' -Location LOCATION -InRemovedState",
			"Undo-AzKeyVaultManagedHsmRemoval -Name 'contoso-spo-a' -ResourceGroupName GROUP -Location LOCATION", "Never purge it (Remove-AzKeyVaultManagedHsm -InRemovedState)"},
	} {
		k := ledgerKey()
		k.Key.VaultURL = host
		v := k.Unverified(ledgerNow, roll.Trouble{Code: "keyvault_unavailable", Detail: "the host cannot be resolved"}, "", true)
		if !strings.Contains(v.Detail, "the vault itself may be gone") {
			t.Errorf("detail %s", v.Detail)
		}
		for _, w := range want {
			if !strings.Contains(v.Remedy, w) {
				t.Errorf("%s is not in: %s", w, v.Remedy)
			}
		}
	}
	if v := ledgerKey().Unverified(ledgerNow, roll.Trouble{Detail: "503"}, "", false); strings.Contains(v.Detail, "gone") || !strings.Contains(v.Remedy, "firewall") {
		t.Errorf("%+v", v)
	}
}
