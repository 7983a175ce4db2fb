// Package access says who may do what: principals, their roles, and the one
// table of permissions that the API, the page and the documentation share.
//
// It is pure. That an approver is not the requester of the same roll depends
// on the roll and is checked where rolls are changed, not here.
package access

// Kind says whether a principal is a human being.
type Kind string

// The kinds. Acts that need a person's judgement are closed to services.
const (
	Person  Kind = "person"
	Service Kind = "service"
)

// Kinds lists every kind.
func Kinds() []Kind { return []Kind{Person, Service} }

// Role is a set of acts that a principal may do; a principal may have several.
type Role string

// The roles.
const (
	Requester Role = "requester"
	Approver  Role = "approver"
	Operator  Role = "operator"
	Auditor   Role = "auditor"
	Admin     Role = "admin"
)

// Roles lists every role.
func Roles() []Role { return []Role{Requester, Approver, Operator, Auditor, Admin} }

// ValidRole says whether the string names a role.
func ValidRole(s string) bool {
	for _, r := range Roles() {
		if string(r) == s {
			return true
		}
	}
	return false
}

// ValidKind says whether the string names a kind.
func ValidKind(s string) bool { return s == string(Person) || s == string(Service) }

// Principal is who acts. The subject is immutable: four eyes are told apart by
// it, never by a display name or by the token.
type Principal struct {
	TokenID string
	Subject string
	Kind    Kind
	Roles   []Role
}

// Has says whether the principal has the role.
func (p Principal) Has(role Role) bool {
	for _, r := range p.Roles {
		if r == role {
			return true
		}
	}
	return false
}
