<#
.SYNOPSIS
Reads data encryption policies of Exchange Online and of multi-workload, or refreshes one, for Keyroll.

.DESCRIPTION
A runbook for Azure Automation, PowerShell 5.1, with the module ExchangeOnlineManagement. It knows five actions, of
which one changes something: refresh. It writes exactly one line of JSON (docs/transports.md).

The account's variables say for whom it works: Keyroll-TenantId and Keyroll-Organization (the tenant's first domain,
contoso.onmicrosoft.com), and for a certificate instead of the account's managed identity Keyroll-AppId, with the
certificate asset Keyroll-Certificate. No parameter is a secret: Azure keeps and shows the parameters of a job.
#>
[CmdletBinding()]
param(
    [Parameter(Mandatory = $true)][ValidatePattern('^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$')][string] $RequestId,
    [Parameter(Mandatory = $true)][ValidatePattern('^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$')][string] $TenantId,
    [Parameter(Mandatory = $true)][ValidateSet('policies', 'policy', 'assignment', 'mailbox', 'refresh')][string] $Action,
    [ValidateSet('', 'exchange', 'multi-workload')][string] $Workload = '',
    [ValidateLength(0, 320)][string] $Identity = ''
)

$ErrorActionPreference = 'Stop'
$WarningPreference = 'SilentlyContinue'
$InformationPreference = 'SilentlyContinue'
$ProgressPreference = 'SilentlyContinue'
$VerbosePreference = 'SilentlyContinue'

# Whether the cmdlet that changes something has been called: what failed before it has changed nothing.
$called = $false

function Write-Line([hashtable] $Line) {
    Write-Output (ConvertTo-Json -InputObject $Line -Depth 6 -Compress)
}

# What is asked of a policy after it: a purge that somebody asked for stops a roll.
function ConvertTo-Policy($Policy) {
    $purge = [bool] $Policy.PermanentDataPurgeReason -or [bool] $Policy.PermanentDataPurgeContact -or [bool] $Policy.PermanentDataPurgeRequested
    return @{
        name           = [string] $Policy.Name
        guid           = [string] $Policy.Guid
        enabled        = [bool] $Policy.Enabled
        purgeRequested = $purge
        azureKeyIds    = @($Policy.AzureKeyIDs | ForEach-Object { [string] $_ })
    }
}

function Get-Identity {
    $guid = [guid]::Empty
    if (-not [guid]::TryParse($Identity, [ref] $guid)) { throw [System.ArgumentException] 'A policy is named by its GUID.' }
    return $guid.ToString()
}

try {
    $serves = [string] (Get-AutomationVariable -Name 'Keyroll-TenantId')
    if ($serves -ne $TenantId) { throw [System.ArgumentException] 'This account serves another tenant.' }
    Import-Module ExchangeOnlineManagement -DisableNameChecking | Out-Null

    $connect = @{ Organization = [string] (Get-AutomationVariable -Name 'Keyroll-Organization'); ShowBanner = $false }
    $environment = [string] (Get-AutomationVariable -Name 'Keyroll-ExchangeEnvironment' -ErrorAction SilentlyContinue)
    if ($environment) { $connect.ExchangeEnvironmentName = $environment }
    $certificate = Get-AutomationCertificate -Name 'Keyroll-Certificate' -ErrorAction SilentlyContinue
    if ($null -ne $certificate) {
        $connect.AppId = [string] (Get-AutomationVariable -Name 'Keyroll-AppId')
        $connect.Certificate = $certificate
    }
    else {
        $connect.ManagedIdentity = $true
    }
    Connect-ExchangeOnline @connect | Out-Null

    $multi = $Workload -eq 'multi-workload'
    switch ($Action) {
        'policies' {
            $found = if ($multi) { Get-M365DataAtRestEncryptionPolicy } else { Get-DataEncryptionPolicy }
            $result = @{ policies = @($found | Where-Object { $null -ne $_ } | ForEach-Object { ConvertTo-Policy $_ }) }
        }
        'policy' {
            $guid = Get-Identity
            $found = if ($multi) { Get-M365DataAtRestEncryptionPolicy -Identity $guid } else { Get-DataEncryptionPolicy -Identity $guid }
            $result = @{ policies = @($found | Where-Object { $null -ne $_ } | ForEach-Object { ConvertTo-Policy $_ }) }
        }
        'assignment' {
            $found = Get-M365DataAtRestEncryptionPolicyAssignment
            $result = @{ policies = @($found | Where-Object { $null -ne $_ } | ForEach-Object { ConvertTo-Policy $_ }) }
        }
        'mailbox' {
            if (-not $Identity) { throw [System.ArgumentException] 'No mailbox is named.' }
            $found = @(Get-MailboxStatistics -Identity $Identity)
            if ($found.Count -ne 1) { throw [System.InvalidOperationException] 'Not one mailbox was found.' }
            $result = @{ dataEncryptionPolicyId = [string] $found[0].DataEncryptionPolicyID }
        }
        'refresh' {
            $guid = Get-Identity
            if (-not $Workload) { throw [System.ArgumentException] 'A refresh needs the workload.' }
            $warnings = @()
            $called = $true
            if ($multi) {
                Set-M365DataAtRestEncryptionPolicy -Identity $guid -Refresh -Confirm:$false -WarningVariable warnings | Out-Null
            }
            else {
                Set-DataEncryptionPolicy -Identity $guid -Refresh -Confirm:$false -WarningVariable warnings | Out-Null
            }
            $result = @{ warnings = @($warnings | ForEach-Object { [string] $_ }) }
        }
    }
    Write-Line @{ schema = 1; requestId = $RequestId; ok = $true; result = $result }
}
catch {
    Write-Line @{
        schema = 1; requestId = $RequestId; ok = $false
        error  = @{ type = $_.Exception.GetType().FullName; message = [string] $_.Exception.Message; called = $called }
    }
}
finally {
    try { Disconnect-ExchangeOnline -Confirm:$false | Out-Null } catch { $null = $_ }
}
