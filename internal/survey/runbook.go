package survey

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/keyroll/keyroll/internal/automation"
	"github.com/keyroll/keyroll/internal/exchange"
	"github.com/keyroll/keyroll/internal/msapi"
	"github.com/keyroll/keyroll/internal/roll"
)

// The runbooks under deploy/runbook, by the names that they are published under.
const (
	runbookSharePoint = "Keyroll-SharePoint"
	runbookExchange   = "Keyroll-Exchange"
)

// RunbookMail is a tenant's Exchange Online by Microsoft's cmdlets in a
// runbook. Its reads are jobs of their own, with names of their own; a refresh
// is the job named by its operation id.
type RunbookMail struct {
	jobs     *automation.Client
	tenantID string
}

func (m *RunbookMail) job(operation, action string, more map[string]string) automation.Job {
	j := automation.Job{Name: uuid.NewString(), Runbook: runbookExchange, Operation: operation,
		Parameters: map[string]string{"TenantId": m.tenantID, "Action": action}}
	for k, v := range more {
		j.Parameters[k] = v
	}
	return j
}

// Account looks at the Automation account, and starts nothing.
func (m *RunbookMail) Account(ctx context.Context) error { return m.jobs.Account(ctx) }

// Policies reads all policies of the workload.
func (m *RunbookMail) Policies(ctx context.Context, w roll.Workload) ([]roll.PolicyObservation, error) {
	return m.policies(ctx, m.job("get_policies", "policies", map[string]string{"Workload": string(w)}), w)
}

func (m *RunbookMail) policies(ctx context.Context, j automation.Job, w roll.Workload) ([]roll.PolicyObservation, error) {
	raw, err := m.jobs.Run(ctx, j)
	if err != nil {
		return nil, err
	}
	var in struct {
		Policies []struct {
			Name           string   `json:"name"`
			GUID           string   `json:"guid"`
			Enabled        bool     `json:"enabled"`
			PurgeRequested bool     `json:"purgeRequested"`
			AzureKeyIDs    []string `json:"azureKeyIds"`
		} `json:"policies"`
	}
	if err := automation.Decode(raw, &in); err != nil {
		return nil, err
	}
	out := make([]roll.PolicyObservation, 0, len(in.Policies))
	for _, p := range in.Policies {
		out = append(out, roll.PolicyObservation{Workload: w, Found: true, Name: p.Name, GUID: strings.ToLower(p.GUID), Enabled: p.Enabled,
			PurgeRequested: p.PurgeRequested, AzureKeyIDs: p.AzureKeyIDs})
	}
	return out, nil
}

// Policy reads the policy with this GUID; Found is false where there is none.
// The cmdlet answers with all policies where it knows none of the name, so
// what comes back counts only by its own GUID.
func (m *RunbookMail) Policy(ctx context.Context, w roll.Workload, guid string) (roll.PolicyObservation, error) {
	all, err := m.policies(ctx, m.job("get_policy", "policy", map[string]string{"Workload": string(w), "Identity": guid}), w)
	if err != nil {
		return roll.PolicyObservation{}, err
	}
	for _, p := range all {
		if strings.EqualFold(p.GUID, guid) {
			return p, nil
		}
	}
	return roll.PolicyObservation{Workload: w, GUID: guid}, nil
}

// Assignment reads which multi-workload policy is assigned to the tenant.
func (m *RunbookMail) Assignment(ctx context.Context) (roll.AssignmentObservation, error) {
	all, err := m.policies(ctx, m.job("get_policy_assignment", "assignment", nil), roll.MultiWorkload)
	switch {
	case err != nil || len(all) == 0:
		return roll.AssignmentObservation{}, err
	case len(all) > 1:
		return roll.AssignmentObservation{}, &msapi.Error{Service: msapi.ServiceAutomation, Operation: "get_policy_assignment", Kind: msapi.KindProtocol,
			Code: "not_one_policy", Message: fmt.Sprintf("asked for the one assigned policy, got %d", len(all))}
	}
	return roll.AssignmentObservation{Assigned: true, GUID: all[0].GUID, Name: all[0].Name}, nil
}

func (m *RunbookMail) refresh(opID string, w roll.Workload, guid string) automation.Job {
	j := m.job("refresh_policy", "refresh", map[string]string{"Workload": string(w), "Identity": guid})
	j.Name, j.Mutating = opID, true
	return j
}

// Refresh makes the policy take up its keys' newest versions, by the job named opID.
func (m *RunbookMail) Refresh(ctx context.Context, w roll.Workload, guid, opID string) (roll.Receipt, error) {
	raw, err := m.jobs.Run(ctx, m.refresh(opID, w, guid))
	if err != nil {
		return roll.Receipt{}, err
	}
	return receipt(raw, opID)
}

// Fate says what became of the refresh with this operation id.
func (m *RunbookMail) Fate(ctx context.Context, opID string) (roll.Fate, error) {
	out, err := m.jobs.Outcome(ctx, m.refresh(opID, "", ""))
	f := fate(out)
	if err == nil && out.Ended && out.Failed == nil {
		f.Receipt, f.Failed = receipt(out.Result, opID)
	}
	return f, err
}

func receipt(raw []byte, opID string) (roll.Receipt, error) {
	var in struct {
		Warnings []string `json:"warnings"`
	}
	if err := automation.Decode(raw, &in); err != nil {
		return roll.Receipt{}, applied(err)
	}
	out := roll.Receipt{RequestID: opID}
	for _, w := range in.Warnings {
		w = msapi.Sanitize(w)
		out.Warnings = append(out.Warnings, w)
		if !exchange.KnownHarmless(w) {
			out.Unknown = append(out.Unknown, w)
		}
	}
	return out, nil
}

// applied: the runbook says that all went well, in words that are not understood.
func applied(err error) error {
	if e, ok := msapi.AsError(err); ok {
		e.MaybeApplied = true
	}
	return err
}

func fate(out automation.Outcome) roll.Fate {
	f := roll.Fate{Found: out.Found, Ended: out.Ended, Stuck: out.Stuck, State: out.State, EndedAt: out.EndedAt}
	if out.Failed != nil {
		f.Failed = out.Failed
	}
	return f
}

// MailboxPolicyID reads a mailbox's DataEncryptionPolicyID, "" where it shows none.
func (m *RunbookMail) MailboxPolicyID(ctx context.Context, mailbox string) (string, error) {
	raw, err := m.jobs.Run(ctx, m.job("get_mailbox_statistics", "mailbox", map[string]string{"Identity": mailbox}))
	if err != nil {
		return "", err
	}
	var in struct {
		ID *string `json:"dataEncryptionPolicyId"`
	}
	if err := automation.Decode(raw, &in); err != nil || in.ID == nil {
		return "", err
	}
	if id := strings.ToLower(*in.ID); id != uuid.Nil.String() {
		return id, nil
	}
	return "", nil
}

// Test says that there is no such test here: the runbook has no action for it.
func (m *RunbookMail) Test(context.Context, string) (roll.PolicyTest, error) {
	return roll.PolicyTest{Verdict: roll.TestNotAvailable, Detail: "the runbook does not run Test-M365DataAtRestEncryptionPolicy", At: time.Now().UTC()}, nil
}

// RunbookSites is a SharePoint geo by Microsoft's cmdlets in a runbook.
type RunbookSites struct {
	jobs               *automation.Client
	tenantID, adminURL string
}

func (s *RunbookSites) job(operation, action string) automation.Job {
	return automation.Job{Name: uuid.NewString(), Runbook: runbookSharePoint, Operation: operation,
		Parameters: map[string]string{"TenantId": s.tenantID, "Action": action, "AdminUrl": s.adminURL}}
}

// Status reads the state of the geo's Customer Key. It changes nothing.
func (s *RunbookSites) Status(ctx context.Context) (roll.SharePointObservation, error) {
	raw, err := s.jobs.Run(ctx, s.job("get_status", "status"))
	if err != nil {
		return roll.SharePointObservation{}, err
	}
	return geoStatus(raw)
}

// Roll begins to move the slot to the version, by the job named opID.
func (s *RunbookSites) Roll(ctx context.Context, slot roll.Slot, vault, key, version, opID string) (roll.SharePointObservation, error) {
	return s.roll(ctx, slot, opID, map[string]string{"KeyVaultName": vault, "KeyName": key, "KeyVersion": version})
}

// RollURI is Roll to a version that is named by its URI, by the other form of
// Microsoft's cmdlet.
func (s *RunbookSites) RollURI(ctx context.Context, slot roll.Slot, uri, opID string) (roll.SharePointObservation, error) {
	return s.roll(ctx, slot, opID, map[string]string{"KeyVaultUri": uri})
}

func (s *RunbookSites) roll(ctx context.Context, slot roll.Slot, opID string, named map[string]string) (roll.SharePointObservation, error) {
	j := s.job("roll_key", "roll")
	j.Name, j.Mutating = opID, true
	keyType, ok := map[roll.Slot]string{roll.Primary: "Primary", roll.Secondary: "Secondary"}[slot]
	if !ok {
		return roll.SharePointObservation{}, msapi.Invalid(msapi.ServiceAutomation, j.Operation, fmt.Sprintf("%q is not a slot", slot))
	}
	j.Parameters["KeyType"] = keyType
	for name, value := range named {
		j.Parameters[name] = value
	}
	raw, err := s.jobs.Run(ctx, j)
	if err != nil {
		return roll.SharePointObservation{}, err
	}
	seen, err := geoStatus(raw)
	if err != nil {
		return seen, applied(err)
	}
	return seen, nil
}

// Fate says what became of the roll with this operation id.
func (s *RunbookSites) Fate(ctx context.Context, opID string) (roll.Fate, error) {
	out, err := s.jobs.Outcome(ctx, automation.Job{Name: opID, Operation: "roll_key", Mutating: true})
	f := fate(out)
	if err == nil && out.Ended && out.Failed == nil {
		if f.Seen, f.Failed = geoStatus(out.Result); f.Failed != nil {
			f.Failed = applied(f.Failed)
		}
	}
	return f, err
}

func geoStatus(raw []byte) (roll.SharePointObservation, error) {
	var in struct {
		Status       string   `json:"status"`
		PrimaryURI   string   `json:"primaryUri"`
		SecondaryURI string   `json:"secondaryUri"`
		Percent      *float64 `json:"percent"`
	}
	if err := automation.Decode(raw, &in); err != nil {
		return roll.SharePointObservation{}, err
	}
	// A word that nobody knows is a state in flight.
	out := roll.SharePointObservation{Status: -1, PrimaryURI: in.PrimaryURI, SecondaryURI: in.SecondaryURI}
	for _, known := range []roll.SharePointStatus{roll.Unregistered, roll.Registering, roll.Registered, roll.Rolling, roll.Recovering} {
		if strings.EqualFold(in.Status, known.String()) {
			out.Status = known
		}
	}
	if out.Status == roll.Rolling || out.Status == roll.Registering {
		out.Percent = in.Percent
	}
	return out, nil
}
