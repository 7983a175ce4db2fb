<#
.SYNOPSIS
Reads the Customer Key status of a SharePoint geo, or begins to roll one of its two keys, for Keyroll.

.DESCRIPTION
A runbook for Azure Automation, PowerShell 5.1, with the module Microsoft.Online.SharePoint.PowerShell. It does one of
two things and has no parameter for a third. It writes exactly one line of JSON (docs/transports.md).

The account's variables say for whom it works: Keyroll-TenantId, and for a certificate instead of the account's managed
identity Keyroll-AppId, with the certificate asset Keyroll-Certificate. No parameter is a secret: Azure keeps and shows
the parameters of a job.
#>
[CmdletBinding()]
param(
    [Parameter(Mandatory = $true)][ValidatePattern('^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$')][string] $RequestId,
    [Parameter(Mandatory = $true)][ValidatePattern('^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$')][string] $TenantId,
    [Parameter(Mandatory = $true)][ValidateSet('status', 'roll')][string] $Action,
    [Parameter(Mandatory = $true)][ValidatePattern('^https://[0-9a-zA-Z-]+-admin\.sharepoint(-mil)?\.(com|us|cn)$')][string] $AdminUrl,
    [ValidatePattern('^[0-9A-Za-z-]{1,63}$')][string] $KeyVaultName,
    [ValidatePattern('^[0-9A-Za-z-]{1,127}$')][string] $KeyName,
    [ValidatePattern('^[0-9a-f]{32}$')][string] $KeyVersion,
    [ValidatePattern('^https://[0-9a-z.-]{1,253}/keys/[0-9A-Za-z-]{1,127}/[0-9a-f]{32}$')][string] $KeyVaultUri,
    [ValidateSet('Primary', 'Secondary')][string] $KeyType
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

# 5.1 would print enums as numbers: every value is cast. The names of the
# properties are not documented; they are those of the client object model.
function Get-Status {
    $policy = Get-SPODataEncryptionPolicy
    $percent = $null
    if ($null -ne $policy.RegistrationProgress) { $percent = [double] $policy.RegistrationProgress }
    return @{
        status       = [string] $policy.Status
        primaryUri   = [string] $policy.PrimaryKeyVaultUri
        secondaryUri = [string] $policy.SecondaryKeyVaultUri
        percent      = $percent
    }
}

try {
    $serves = [string] (Get-AutomationVariable -Name 'Keyroll-TenantId')
    if ($serves -ne $TenantId) { throw [System.ArgumentException] 'This account serves another tenant.' }
    Import-Module Microsoft.Online.SharePoint.PowerShell -DisableNameChecking | Out-Null

    $connect = @{ Url = $AdminUrl }
    if ($AdminUrl -like '*.us') { $connect.Region = 'ITAR' }
    if ($AdminUrl -like '*.cn') { $connect.Region = 'China' }
    $certificate = Get-AutomationCertificate -Name 'Keyroll-Certificate' -ErrorAction SilentlyContinue
    if ($null -ne $certificate) {
        $connect.ClientId = [string] (Get-AutomationVariable -Name 'Keyroll-AppId')
        $connect.TenantId = $TenantId
        $connect.Certificate = $certificate
    }
    else {
        $connect.ManagedIdentity = $true
    }
    Connect-SPOService @connect | Out-Null

    if ($Action -eq 'roll') {
        # The cmdlet's two forms: a Managed HSM has no short name and is named by URI alone.
        $key = $null
        if ($KeyVaultUri -and -not ($KeyVaultName -or $KeyName -or $KeyVersion)) {
            $key = @{ KeyVaultUri = $KeyVaultUri }
        }
        elseif ($KeyVaultName -and $KeyName -and $KeyVersion -and -not $KeyVaultUri) {
            $key = @{ KeyVaultName = $KeyVaultName; KeyName = $KeyName; KeyVersion = ([guid] $KeyVersion) }
        }
        if ($null -eq $key -or -not $KeyType) {
            throw [System.ArgumentException] 'A roll needs KeyType, and KeyVaultUri or KeyVaultName, KeyName and KeyVersion.'
        }
        $called = $true
        Update-SPODataEncryptionPolicy @key -KeyType $KeyType -Confirm:$false | Out-Null
    }
    Write-Line @{ schema = 1; requestId = $RequestId; ok = $true; result = (Get-Status) }
}
catch {
    Write-Line @{
        schema = 1; requestId = $RequestId; ok = $false
        error  = @{ type = $_.Exception.GetType().FullName; message = [string] $_.Exception.Message; called = $called }
    }
}
finally {
    try { Disconnect-SPOService } catch { $null = $_ }
}
