package sharepoint

import (
	"encoding/xml"
	"strconv"
	"strings"
)

// actionID is the id of our one action; its result follows this number in the reply.
const actionID = 7

// The parts of a request. The types and the path to the current site are those
// of the public client object model.
const (
	requestHead = `<Request AddExpandoFieldTypeSuffix="true" SchemaVersion="15.0.0.0" LibraryVersion="16.0.0.0"` +
		` ApplicationName="Keyroll" xmlns="http://schemas.microsoft.com/sharepoint/clientquery/2009"><Actions>`
	requestTail = `</Actions><ObjectPaths>` +
		`<StaticProperty Id="1" TypeId="{3747adcd-a3c3-41b9-bfab-4a64dd2f1e0a}" Name="Current"/>` +
		`<Property Id="5" ParentId="1" Name="Site"/></ObjectPaths></Request>`
	typeKeyVaultInfo = "{19d15bc5-c167-4d4f-a469-a9d7de4bdcc1}"
)

func statusRequest() string {
	return requestHead + `<Method Name="GetBringYourOwnKeyTenantStatus" Id="` + strconv.Itoa(actionID) + `" ObjectPathId="5"/>` + requestTail
}

func rollRequest(slot int, vault, key, version string) string {
	return requestHead +
		`<Method Name="RollTenantBringYourOwnKey" Id="` + strconv.Itoa(actionID) + `" ObjectPathId="5"><Parameters>` +
		`<Parameter Type="Enum">` + strconv.Itoa(slot) + `</Parameter>` +
		`<Parameter TypeId="` + typeKeyVaultInfo + `">` +
		`<Property Name="KeyName" Type="String">` + escape(key) + `</Property>` +
		`<Property Name="KeyVersion" Type="Guid">` + guidForm(version) + `</Property>` +
		`<Property Name="VaultName" Type="String">` + escape(vault) + `</Property>` +
		`</Parameter></Parameters></Method>` + requestTail
}

// guidForm writes 32 hex digits as the Guid that SharePoint takes a version for.
func guidForm(v string) string {
	v = strings.ToLower(v)
	return "{" + v[:8] + "-" + v[8:12] + "-" + v[12:16] + "-" + v[16:20] + "-" + v[20:] + "}"
}

func escape(s string) string {
	var b strings.Builder
	// A strings.Builder does not fail.
	_ = xml.EscapeText(&b, []byte(s))
	return b.String()
}
