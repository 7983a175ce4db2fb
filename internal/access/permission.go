package access

import (
	"fmt"
	"strings"
)

// Action is an act that a principal may or may not do. openapi.yaml names the
// action of each route, so the strings are part of the contract.
type Action string

// The actions.
const (
	ReadTenants            Action = "tenant.read"
	WriteTenants           Action = "tenant.write"
	ApproveTenantChange    Action = "tenant_change.approve"
	RejectTenantChange     Action = "tenant_change.reject"
	Discover               Action = "tenant.discover"
	ReleaseSharePointLease Action = "sharepoint_lease.release"
	AttestBackup           Action = "backup.attest"
	MakePlan               Action = "plan.make"
	ReadRolls              Action = "roll.read"
	RequestRoll            Action = "roll.request"
	ApproveRoll            Action = "roll.approve"
	RejectRoll             Action = "roll.reject"
	CancelRoll             Action = "roll.cancel"
	RetryRoll              Action = "roll.retry"
	ReplanRoll             Action = "roll.replan"
	AbandonRoll            Action = "roll.abandon"
	ReportStep             Action = "roll.report_step"
	ExportAudit            Action = "audit.export"
)

// Rule says who may do an action: any one of the roles, and with PersonOnly no
// service. The two people of an act for two, and that nobody approves a roll
// of their own, are checked where the act is done.
type Rule struct {
	Action     Action
	Roles      []Role
	PersonOnly bool
}

// Rules is the table of permissions, the only one. What it does not name is denied.
func Rules() []Rule {
	return []Rule{
		{ReadTenants, Roles(), false},
		{WriteTenants, []Role{Admin}, false},
		{ApproveTenantChange, []Role{Admin}, true},
		{RejectTenantChange, []Role{Admin}, true},
		// It calls Microsoft with the tenant's credential, as a plan does.
		{Discover, []Role{Requester, Approver, Operator, Admin}, false},
		{ReleaseSharePointLease, []Role{Operator, Admin}, true},
		{AttestBackup, []Role{Operator, Admin}, true},
		// A dry run calls Microsoft with the tenant's credential, so it is more than reading.
		{MakePlan, []Role{Requester, Approver, Operator, Admin}, false},
		{ReadRolls, Roles(), false},
		{RequestRoll, []Role{Requester}, false},
		{ApproveRoll, []Role{Approver}, true},
		{RejectRoll, []Role{Approver}, true},
		{CancelRoll, []Role{Requester, Operator}, false},
		{RetryRoll, []Role{Requester, Operator}, false},
		{ReplanRoll, []Role{Requester, Operator}, false},
		{AbandonRoll, []Role{Approver, Operator}, true},
		// Whoever runs cmdlets at Microsoft by hand says so in person.
		{ReportStep, []Role{Operator}, true},
		{ExportAudit, []Role{Auditor}, false},
	}
}

// Denied says that the principal may not do the action, and who may.
type Denied struct {
	Action Action
	// Needs says in words who may do it.
	Needs string
}

func (e *Denied) Error() string {
	return fmt.Sprintf("%s is not allowed: it needs %s", e.Action, e.Needs)
}

// Allowed returns nil where the principal may do the action, else *Denied.
func Allowed(p Principal, action Action) error {
	for _, r := range Rules() {
		if r.Action == action {
			return r.allows(p)
		}
	}
	return &Denied{Action: action, Needs: "nothing that can be granted: nobody may do this"}
}

func (r Rule) allows(p Principal) error {
	// A kind that is neither person nor service comes from a damaged row; it may do nothing.
	if !ValidKind(string(p.Kind)) || (r.PersonOnly && p.Kind != Person) {
		return &Denied{Action: r.Action, Needs: r.needs()}
	}
	for _, role := range r.Roles {
		if p.Has(role) {
			return nil
		}
	}
	return &Denied{Action: r.Action, Needs: r.needs()}
}

func (r Rule) needs() string {
	names := make([]string, len(r.Roles))
	for i, role := range r.Roles {
		names[i] = string(role)
	}
	who := "a token"
	if r.PersonOnly {
		who = "a person's token"
	}
	if len(names) == 1 {
		return who + " with the role " + names[0]
	}
	return who + " with one of the roles " + strings.Join(names, ", ")
}
