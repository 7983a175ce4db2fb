package survey_test

import (
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// The scripts were not run: there is no PowerShell 5.1 here. What can be held
// without one is held here: what they may call, and that they take what the
// connector sends.

// cmdlets are all that a script may call, besides the language itself.
var cmdlets = []string{
	"Get-AutomationVariable", "Get-AutomationCertificate", "Import-Module", "Out-Null", "ConvertTo-Json", "Write-Output", "Write-Line", "Where-Object", "ForEach-Object",
	"Connect-SPOService", "Disconnect-SPOService", "Get-SPODataEncryptionPolicy", "Update-SPODataEncryptionPolicy", "Get-Status",
	"Connect-ExchangeOnline", "Disconnect-ExchangeOnline", "Get-DataEncryptionPolicy", "Set-DataEncryptionPolicy",
	"Get-M365DataAtRestEncryptionPolicy", "Set-M365DataAtRestEncryptionPolicy", "Get-M365DataAtRestEncryptionPolicyAssignment",
	"Get-MailboxStatistics", "ConvertTo-Policy", "Get-Identity",
}

func script(t *testing.T, name string) (whole, code string) {
	t.Helper()
	raw, err := os.ReadFile("../../deploy/runbook/" + name + ".ps1")
	if err != nil {
		t.Fatal(err)
	}
	code = regexp.MustCompile(`(?s)<#.*?#>`).ReplaceAllString(string(raw), "")
	return string(raw), regexp.MustCompile(`(?m)#.*$`).ReplaceAllString(code, "")
}

func TestRunbooksCallOnlyWhatIsAllowed(t *testing.T) {
	called := regexp.MustCompile(`\b[A-Z][A-Za-z]+-[A-Z][A-Za-z0-9]+\b`)
	for _, name := range []string{"Keyroll-SharePoint", "Keyroll-Exchange"} {
		_, code := script(t, name)
		quoted := regexp.MustCompile(`'[^']*'`)
		for _, c := range called.FindAllString(quoted.ReplaceAllString(code, "''"), -1) {
			if !slices.Contains(cmdlets, c) {
				t.Errorf("%s calls %s", name, c)
			}
		}
		for _, never := range []string{"-Replace", "-Force", "-PermanentDataPurge", "PurgeRequested $true", "-AzureKeyIDs", "Invoke-Expression", "iex ", "Remove-", "Register-", "Restore-", "DownloadString", "-Debug", "Start-Transcript"} {
			if strings.Contains(strings.ToLower(code), strings.ToLower(never)) {
				t.Errorf("%s says %s", name, never)
			}
		}
		for _, must := range []string{"$ErrorActionPreference = 'Stop'", "try {", "catch {", "schema = 1; requestId = $RequestId", "called = $called", "-Depth 6 -Compress", "Keyroll-TenantId"} {
			if !strings.Contains(code, must) {
				t.Errorf("%s does not say %s", name, must)
			}
		}
		if n := strings.Count(code, "{") - strings.Count(code, "}"); n != 0 {
			t.Errorf("%s has %d braces too many", name, n)
		}
		if n := strings.Count(code, "Write-Output"); n != 1 {
			t.Errorf("%s writes in %d places", name, n)
		}
	}
}

// TestRunbookChangesAreUnderTheirFlag: whatever can change something stands
// after the line that says so, and each Exchange change is unattended.
func TestRunbookChangesAreUnderTheirFlag(t *testing.T) {
	for name, changes := range map[string]int{"Keyroll-SharePoint": 1, "Keyroll-Exchange": 2} {
		_, code := script(t, name)
		flag := strings.Index(code, "$called = $true")
		found := regexp.MustCompile(`(?m)^\s*(Set|Update)-\S+.*$`).FindAllStringIndex(code, -1)
		if flag < 0 || len(found) != changes {
			t.Fatalf("%s: flag at %d, %d changes", name, flag, len(found))
		}
		for _, at := range found {
			line := code[at[0]:at[1]]
			if at[0] < flag || !strings.Contains(line, "-Confirm:$false") {
				t.Errorf("%s: %s", name, strings.TrimSpace(line))
			}
		}
	}
}

// TestRunbookNamesKeyInOneForm: the cmdlet's two parameter sets, each whole,
// never mixed, and nothing called where neither is given.
func TestRunbookNamesKeyInOneForm(t *testing.T) {
	_, code := script(t, "Keyroll-SharePoint")
	flat := regexp.MustCompile(`\s+`).ReplaceAllString(code, " ")
	for _, must := range []string{
		"$key = $null if ($KeyVaultUri -and -not ($KeyVaultName -or $KeyName -or $KeyVersion)) { $key = @{ KeyVaultUri = $KeyVaultUri } }",
		"elseif ($KeyVaultName -and $KeyName -and $KeyVersion -and -not $KeyVaultUri) { $key = @{ KeyVaultName = $KeyVaultName; KeyName = $KeyName; KeyVersion = ([guid] $KeyVersion) } }",
		"if ($null -eq $key -or -not $KeyType) { throw",
		"Update-SPODataEncryptionPolicy @key -KeyType $KeyType -Confirm:$false",
	} {
		if !strings.Contains(flat, must) {
			t.Errorf("the script does not say %s", must)
		}
	}
	if n := strings.Count(code, "$key ="); n != 3 {
		t.Errorf("$key is set in %d places", n)
	}
	pattern := regexp.MustCompile(`ValidatePattern\('([^']+)'\)\]\[string\] \$KeyVaultUri`).FindStringSubmatch(code)
	if len(pattern) != 2 {
		t.Fatal("KeyVaultUri is not held to a pattern")
	}
	const hsm, version = "https://contoso-hsm.managedhsm.azure.net/keys/", "0123456789abcdef0123456789abcdef"
	for uri, want := range map[string]bool{
		hsm + "Key-1/" + version: true, hsm + "Key-1": false, hsm + "Key-1/" + version + ";x": false, hsm + "Key 1/" + version: false,
		"http://contoso-hsm.managedhsm.azure.net/keys/Key-1/" + version: false, hsm + "a/b/" + version: false,
	} {
		if regexp.MustCompile(pattern[1]).MatchString(uri) != want {
			t.Errorf("%s: want %t", uri, want)
		}
	}
}

// TestRunbooksTakeWhatIsSent: the names of the parameters that the connector
// sends, and no parameter that it does not.
func TestRunbooksTakeWhatIsSent(t *testing.T) {
	for name, want := range map[string][]string{
		"Keyroll-SharePoint": {"Action", "AdminUrl", "KeyName", "KeyType", "KeyVaultName", "KeyVaultUri", "KeyVersion", "RequestId", "TenantId"},
		"Keyroll-Exchange":   {"Action", "Identity", "RequestId", "TenantId", "Workload"},
	} {
		_, code := script(t, name)
		head := code[:strings.Index(code, "$ErrorActionPreference")]
		got := map[string]bool{}
		for _, m := range regexp.MustCompile(`\[string\] \$([A-Za-z]+)`).FindAllStringSubmatch(head, -1) {
			got[m[1]] = true
		}
		if names := slices.Sorted(maps.Keys(got)); !slices.Equal(names, want) {
			t.Errorf("%s takes %v, sent are %v", name, names, want)
		}
	}
}
