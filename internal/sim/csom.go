package sim

import (
	"encoding/xml"
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// csomGUID is a Guid as CSOM writes it, in braces.
var csomGUID = regexp.MustCompile(`^\{(?i)[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\}$`)

// Type ids of the client object model.
const (
	typeContext      = "{3747adcd-a3c3-41b9-bfab-4a64dd2f1e0a}" // SP.RequestContext
	typeKeyVaultInfo = "{19d15bc5-c167-4d4f-a469-a9d7de4bdcc1}" // SP.CustomerKeyVaultInfo
	csomNamespace    = "http://schemas.microsoft.com/sharepoint/clientquery/2009"
)

// Methods of SP.Site.
const (
	methodStatus = "GetBringYourOwnKeyTenantStatus"
	methodRoll   = "RollTenantBringYourOwnKey"
)

// csomRequest is the XML of ProcessQuery, as far as these two methods need it.
type csomRequest struct {
	XMLName        xml.Name
	SchemaVersion  string `xml:"SchemaVersion,attr"`
	LibraryVersion string `xml:"LibraryVersion,attr"`
	Actions        struct {
		Items []csomAction `xml:",any"`
	} `xml:"Actions"`
	ObjectPaths struct {
		Items []csomPath `xml:",any"`
	} `xml:"ObjectPaths"`
	Rest []struct{ XMLName xml.Name } `xml:",any"`
}

type csomAction struct {
	XMLName    xml.Name
	Name       string          `xml:"Name,attr"`
	ID         string          `xml:"Id,attr"`
	PathID     string          `xml:"ObjectPathId,attr"`
	Parameters []csomParameter `xml:"Parameters>Parameter"`
}

type csomPath struct {
	XMLName  xml.Name
	ID       string `xml:"Id,attr"`
	ParentID string `xml:"ParentId,attr"`
	TypeID   string `xml:"TypeId,attr"`
	Name     string `xml:"Name,attr"`
}

type csomParameter struct {
	Type       string         `xml:"Type,attr"`
	TypeID     string         `xml:"TypeId,attr"`
	Text       string         `xml:",chardata"`
	Properties []csomProperty `xml:"Property"`
}

type csomProperty struct {
	Name string `xml:"Name,attr"`
	Type string `xml:"Type,attr"`
	Text string `xml:",chardata"`
}

// query is what a request asks for.
type query struct {
	method     string
	action     int   // id of the method
	objectPath []int // ids of ObjectPath actions, answered with IsNull
	slot       int
	vault, key string
	version    string // 32 hex digits
}

// csomError is an ErrorInfo; it comes with HTTP 200.
type csomError struct {
	typ     string
	code    int
	message string
}

func (e csomError) Error() string { return e.typ + ": " + e.message }

func (e csomError) answer() answer {
	head := csomHead()
	head["ErrorInfo"] = map[string]any{"ErrorMessage": e.message, "ErrorValue": nil,
		"TraceCorrelationId": head["TraceCorrelationId"], "ErrorCode": e.code, "ErrorTypeName": e.typ}
	return jsonAnswer(200, []any{head})
}

func csomHead() map[string]any {
	return map[string]any{"SchemaVersion": "15.0.0.0", "LibraryVersion": "16.0.26601.12004",
		"ErrorInfo": nil, "TraceCorrelationId": newGUID()}
}

func invalidQuery(format string, args ...any) error {
	return csomError{"Microsoft.SharePoint.Client.InvalidClientQueryException", -1, fmt.Sprintf(format, args...)}
}

// parseQuery reads a request and checks that its method is called on the
// current context's site. Every deviation is an InvalidClientQueryException.
func parseQuery(body []byte) (query, error) {
	var in csomRequest
	if err := xml.Unmarshal(body, &in); err != nil {
		return query{}, invalidQuery("The request is not well-formed: %v.", err)
	}
	switch {
	case in.XMLName.Space != csomNamespace || in.XMLName.Local != "Request":
		return query{}, invalidQuery("Root element is %s:%s.", in.XMLName.Space, in.XMLName.Local)
	case in.SchemaVersion != "15.0.0.0" || in.LibraryVersion != "16.0.0.0":
		return query{}, invalidQuery("SchemaVersion %q or LibraryVersion %q is not supported.", in.SchemaVersion, in.LibraryVersion)
	case len(in.Rest) > 0:
		return query{}, invalidQuery("Unexpected element %s.", in.Rest[0].XMLName.Local)
	}
	var q query
	for _, a := range in.Actions.Items {
		id, err := strconv.Atoi(a.ID)
		if err != nil {
			return query{}, invalidQuery("Action Id %q is not a number.", a.ID)
		}
		switch {
		case a.XMLName.Local == "ObjectPath":
			q.objectPath = append(q.objectPath, id)
		case a.XMLName.Local != "Method" || q.method != "":
			return query{}, invalidQuery("The simulator takes one Method per request, not %s.", a.XMLName.Local)
		default:
			q.method, q.action = a.Name, id
			if err := onSite(in.ObjectPaths.Items, a.PathID); err != nil {
				return query{}, err
			}
			if err := q.readParameters(a); err != nil {
				return query{}, err
			}
		}
	}
	if q.method == "" {
		return query{}, invalidQuery("There is no Method.")
	}
	return q, nil
}

// onSite follows an object path: Property "Site" of StaticProperty "Current".
func onSite(paths []csomPath, id string) error {
	find := func(id string) csomPath {
		for _, p := range paths {
			if p.ID == id {
				return p
			}
		}
		return csomPath{}
	}
	site := find(id)
	if site.XMLName.Local != "Property" || site.Name != "Site" {
		return invalidQuery("Object path %q is not the Property Site.", id)
	}
	current := find(site.ParentID)
	if current.XMLName.Local != "StaticProperty" || current.Name != "Current" || !strings.EqualFold(current.TypeID, typeContext) {
		return invalidQuery("Object path %q is not the StaticProperty Current of type %s.", site.ParentID, typeContext)
	}
	return nil
}

// readParameters decodes the arguments of the method.
func (q *query) readParameters(a csomAction) error {
	switch a.Name {
	case methodStatus:
		if len(a.Parameters) != 0 {
			return invalidQuery("Method %s takes no parameter.", a.Name)
		}
		return nil
	case methodRoll:
	default:
		return invalidQuery("Method %q is not a member of SP.Site that the simulator knows.", a.Name)
	}
	if len(a.Parameters) != 2 || a.Parameters[0].Type != "Enum" || !strings.EqualFold(a.Parameters[1].TypeID, typeKeyVaultInfo) {
		return invalidQuery("Method %s takes an Enum and a value of type %s.", a.Name, typeKeyVaultInfo)
	}
	switch strings.TrimSpace(a.Parameters[0].Text) {
	case "0":
		q.slot = slotPrimary
	case "1":
		q.slot = slotSecondary
	default:
		return csomError{"System.ArgumentOutOfRangeException", -2146233086, "Specified argument was out of the range of valid values. Parameter name: keyType"}
	}
	for _, p := range a.Parameters[1].Properties {
		switch {
		case p.Name == "VaultName" && p.Type == "String":
			q.vault = p.Text
		case p.Name == "KeyName" && p.Type == "String":
			q.key = p.Text
		case p.Name == "KeyVersion" && p.Type == "Guid":
			if !csomGUID.MatchString(p.Text) {
				return invalidQuery("KeyVersion %q is not a Guid.", p.Text)
			}
			q.version = strings.ToLower(strings.NewReplacer("{", "", "}", "", "-", "").Replace(p.Text))
		default:
			return invalidQuery("Property %q of type %q is not known.", p.Name, p.Type)
		}
	}
	if q.vault == "" || q.key == "" || q.version == "" {
		return csomError{"System.ArgumentException", -2147024809, "Value does not fall within the expected range. Parameter name: keyVaultInfo"}
	}
	return nil
}
