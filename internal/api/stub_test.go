package api_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/keyroll/keyroll/internal/access"
	"github.com/keyroll/keyroll/internal/api"
	"github.com/keyroll/keyroll/internal/evidence"
	"github.com/keyroll/keyroll/internal/roll"
)

const (
	someTenant = "7d3c1f0e-52a4-4c1b-9d0a-0b9f5a8e6c21"
	someRoll   = "0f6cf5b7-7b1e-4c55-8f26-1a0c6f9ad1c2"
	someHash   = "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
)

var someTime = time.Date(2026, 1, 31, 8, 0, 0, 0, time.UTC)

// stub answers every route with a plausible thing. fail, where set, is what
// every act returns instead.
type stub struct {
	fail  func() error
	calls int
	last  any
}

func (s *stub) act(request any) error {
	s.calls++
	s.last = request
	if s.fail != nil {
		return s.fail()
	}
	return nil
}

func sampleTenant() api.Tenant {
	return api.Tenant{TenantID: someTenant, Version: 3, DeclaredAt: someTime, Attention: []api.TenantAttention{}, Declaration: api.TenantDeclaration{
		Name: "Contoso", Cloud: "public", Credential: "contoso", Keys: []api.Key{}, Policies: []api.Policy{},
		SharePoint: api.SharePointSettings{Lease: "tenant", MinGap: "24h0m0s"},
	}}
}

func samplePlan() api.Plan {
	return api.Plan{
		Hash: someHash, TenantID: someTenant, MadeAt: someTime, Keys: []api.PlanKey{}, Policies: []api.PlanPolicy{},
		Steps:    []api.PlanStep{{N: 1, Kind: api.StepKindPreflight, After: []int{}, Title: "Check"}},
		Findings: []api.Finding{{Code: "key_disabled", Level: "error", Subject: "spo-a", Seen: "disabled", Remedy: "enable it"}},
	}
}

func sampleRoll() api.Roll {
	percent := 0.0
	return api.Roll{
		ID: someRoll, TenantID: someTenant, Version: 7, State: api.RollStateRunning, Workloads: []api.Workload{"sharepoint"},
		PlanHash: someHash, Plan: samplePlan(), Reason: api.Reason{Code: "other", Text: "why not"}, RequestedBy: "alice",
		RequestedAt: someTime, Approvals: []api.Approval{}, Keys: []api.RollKey{}, Policies: []api.RollPolicy{}, NextAction: "wait",
		Steps:      []api.Step{{N: 1, Kind: "preflight", Title: "Check", State: "running", After: []int{}, Percent: &percent}},
		LeftBehind: []api.LeftBehind{}, CreatedAt: someTime, UpdatedAt: someTime,
	}
}

func (s *stub) GetHealth(_ context.Context, r api.GetHealthRequestObject) (api.GetHealthResponseObject, error) {
	return api.GetHealth200JSONResponse{Status: "ok"}, s.act(r)
}

func (s *stub) GetReadiness(_ context.Context, r api.GetReadinessRequestObject) (api.GetReadinessResponseObject, error) {
	return api.GetReadiness200JSONResponse{Status: "ok"}, s.act(r)
}

func (s *stub) CreatePlan(_ context.Context, r api.CreatePlanRequestObject) (api.CreatePlanResponseObject, error) {
	return api.CreatePlan200JSONResponse(samplePlan()), s.act(r)
}

func (s *stub) ListRolls(_ context.Context, r api.ListRollsRequestObject) (api.ListRollsResponseObject, error) {
	if _, _, err := api.ReadCursor(r.Params.Cursor, "rolls"); err != nil {
		return nil, err
	}
	return api.ListRolls200JSONResponse{Items: []api.RollSummary{}}, s.act(r)
}

func (s *stub) CreateRoll(_ context.Context, r api.CreateRollRequestObject) (api.CreateRollResponseObject, error) {
	return api.CreateRoll202JSONResponse{Body: sampleRoll(), Headers: api.CreateRoll202ResponseHeaders{
		ETag: api.FormatETag(7), Location: "/v1/rolls/" + someRoll,
	}}, s.act(r)
}

func (s *stub) GetRoll(_ context.Context, r api.GetRollRequestObject) (api.GetRollResponseObject, error) {
	return api.GetRoll200JSONResponse{Body: sampleRoll(), Headers: api.GetRoll200ResponseHeaders{ETag: api.FormatETag(7)}}, s.act(r)
}

func (s *stub) AbandonRoll(_ context.Context, r api.AbandonRollRequestObject) (api.AbandonRollResponseObject, error) {
	return api.AbandonRoll202JSONResponse{
		Body:    api.AbandonResult{Roll: sampleRoll(), AbandonPending: true, By: "alice", At: someTime},
		Headers: api.AbandonRoll202ResponseHeaders{ETag: api.FormatETag(8)},
	}, s.act(r)
}

func (s *stub) ApproveRoll(_ context.Context, r api.ApproveRollRequestObject) (api.ApproveRollResponseObject, error) {
	return api.ApproveRoll200JSONResponse{Body: sampleRoll(), Headers: api.ApproveRoll200ResponseHeaders{ETag: api.FormatETag(8)}}, s.act(r)
}

func (s *stub) CancelRoll(_ context.Context, r api.CancelRollRequestObject) (api.CancelRollResponseObject, error) {
	return api.CancelRoll200JSONResponse{Body: sampleRoll(), Headers: api.CancelRoll200ResponseHeaders{ETag: api.FormatETag(8)}}, s.act(r)
}

func (s *stub) ListRollEvents(_ context.Context, r api.ListRollEventsRequestObject) (api.ListRollEventsResponseObject, error) {
	return api.ListRollEvents200JSONResponse{Items: []api.RollEvent{{
		ID: "12", RollVersion: 1, At: someTime, Actor: "alice",
		Types: []string{"requested"}, Detail: map[string]any{"plan_hash": someHash},
	}}}, s.act(r)
}

func (s *stub) RejectRoll(_ context.Context, r api.RejectRollRequestObject) (api.RejectRollResponseObject, error) {
	return api.RejectRoll200JSONResponse{Body: sampleRoll(), Headers: api.RejectRoll200ResponseHeaders{ETag: api.FormatETag(8)}}, s.act(r)
}

func (s *stub) ReplanRoll(_ context.Context, r api.ReplanRollRequestObject) (api.ReplanRollResponseObject, error) {
	return api.ReplanRoll200JSONResponse{Body: sampleRoll(), Headers: api.ReplanRoll200ResponseHeaders{ETag: api.FormatETag(8)}}, s.act(r)
}

func (s *stub) ReportStep(_ context.Context, r api.ReportStepRequestObject) (api.ReportStepResponseObject, error) {
	return api.ReportStep200JSONResponse{Body: sampleRoll(), Headers: api.ReportStep200ResponseHeaders{ETag: api.FormatETag(8)}}, s.act(r)
}

func (s *stub) RetryRoll(_ context.Context, r api.RetryRollRequestObject) (api.RetryRollResponseObject, error) {
	return api.RetryRoll200JSONResponse{Body: sampleRoll(), Headers: api.RetryRoll200ResponseHeaders{ETag: api.FormatETag(8)}}, s.act(r)
}

func (s *stub) ListTenants(_ context.Context, r api.ListTenantsRequestObject) (api.ListTenantsResponseObject, error) {
	return api.ListTenants200JSONResponse{Items: []api.Tenant{sampleTenant()}}, s.act(r)
}

func (s *stub) GetTenant(_ context.Context, r api.GetTenantRequestObject) (api.GetTenantResponseObject, error) {
	return api.GetTenant200JSONResponse{Body: sampleTenant(), Headers: api.GetTenant200ResponseHeaders{ETag: api.FormatETag(3)}}, s.act(r)
}

func (s *stub) PutTenant(_ context.Context, r api.PutTenantRequestObject) (api.PutTenantResponseObject, error) {
	pre, err := api.ReadPrecondition(r.Params.IfMatch, r.Params.IfNoneMatch)
	if err != nil {
		return nil, err
	}
	if pre.Create {
		return api.PutTenant201JSONResponse{Body: sampleTenant(), Headers: api.PutTenant201ResponseHeaders{
			ETag: api.FormatETag(1), Location: "/v1/tenants/" + someTenant,
		}}, s.act(r)
	}
	return api.PutTenant200JSONResponse{Body: sampleTenant(), Headers: api.PutTenant200ResponseHeaders{ETag: api.FormatETag(4)}}, s.act(r)
}

func (s *stub) ListKeyVersions(_ context.Context, r api.ListKeyVersionsRequestObject) (api.ListKeyVersionsResponseObject, error) {
	return api.ListKeyVersions200JSONResponse{Items: []api.KeyVersion{{
		KeyID: "spo-a", VaultURL: "https://contoso-spo-a.vault.azure.net",
		Name: "Contoso-SPO-A-Key001", Version: strings.Repeat("0a", 16), State: "enabled", FirstSeenAt: someTime, Origin: "backfill",
		Policies: []string{"spo"}, MustKeep: true, Why: "a policy used it",
	}}}, s.act(r)
}

func sampleChange() api.TenantChange {
	return api.TenantChange{
		ID: someRoll, TenantID: someTenant, State: "pending", BaseVersion: 3, Hash: someHash, Declaration: sampleTenant().Declaration,
		Weakens:     []api.Weakening{{Pointer: "/approval", What: "rolls begin without a second person", From: "required", To: "not_required"}},
		RequestedBy: "alice", RequestedAt: someTime, ExpiresAt: someTime, NextAction: "ask somebody",
	}
}

func (s *stub) ListTenantChanges(_ context.Context, r api.ListTenantChangesRequestObject) (api.ListTenantChangesResponseObject, error) {
	return api.ListTenantChanges200JSONResponse{Items: []api.TenantChange{sampleChange()}}, s.act(r)
}

func (s *stub) GetTenantChange(_ context.Context, r api.GetTenantChangeRequestObject) (api.GetTenantChangeResponseObject, error) {
	return api.GetTenantChange200JSONResponse(sampleChange()), s.act(r)
}

func (s *stub) ApproveTenantChange(_ context.Context, r api.ApproveTenantChangeRequestObject) (api.ApproveTenantChangeResponseObject, error) {
	return api.ApproveTenantChange200JSONResponse{Body: sampleTenant(), Headers: api.ApproveTenantChange200ResponseHeaders{ETag: api.FormatETag(4)}}, s.act(r)
}

func (s *stub) RejectTenantChange(_ context.Context, r api.RejectTenantChangeRequestObject) (api.RejectTenantChangeResponseObject, error) {
	return api.RejectTenantChange200JSONResponse(sampleChange()), s.act(r)
}

func (s *stub) RetireTenant(_ context.Context, r api.RetireTenantRequestObject) (api.RetireTenantResponseObject, error) {
	return api.RetireTenant200JSONResponse{Body: sampleTenant(), Headers: api.RetireTenant200ResponseHeaders{ETag: api.FormatETag(4)}}, s.act(r)
}

func (s *stub) ListBackups(_ context.Context, r api.ListBackupsRequestObject) (api.ListBackupsResponseObject, error) {
	return api.ListBackups200JSONResponse{Items: []api.Backup{sampleBackup()}}, s.act(r)
}

func (s *stub) AttestBackup(_ context.Context, r api.AttestBackupRequestObject) (api.AttestBackupResponseObject, error) {
	return api.AttestBackup201JSONResponse(sampleBackup()), s.act(r)
}

func sampleBackup() api.Backup {
	return api.Backup{ID: someRoll, VaultURL: "https://contoso-exo-a.vault.azure.net", TakenAt: someTime, AttestedBy: "alice", AttestedAt: someTime}
}

func (s *stub) ReleaseSharePointLease(_ context.Context, r api.ReleaseSharePointLeaseRequestObject) (api.ReleaseSharePointLeaseResponseObject, error) {
	return api.ReleaseSharePointLease202JSONResponse{
		TenantID: someTenant, Scope: "tenant", ReleasePending: true,
		RequestedBy: "alice", RequestedAt: someTime, NextAction: "ask a second person",
	}, s.act(r)
}

// keyring is an Authenticator over tokens that the test mints.
type keyring struct {
	principals map[string]access.Principal
	fail       error
}

func (k *keyring) Authenticate(_ context.Context, secret string) (access.Principal, error) {
	if k.fail != nil {
		return access.Principal{}, k.fail
	}
	p, ok := k.principals[secret]
	if !ok {
		return access.Principal{}, access.ErrUnknownToken
	}
	return p, nil
}

// bench is the API over a stub, with every answer checked against the contract.
type bench struct {
	t       *testing.T
	stub    *stub
	keys    *keyring
	log     *bytes.Buffer
	handler http.Handler
	// token belongs to a person with every role.
	token string
}

func newBench(t *testing.T) *bench {
	t.Helper()
	b := &bench{t: t, stub: &stub{}, keys: &keyring{principals: map[string]access.Principal{}}, log: &bytes.Buffer{}}
	b.token = b.mint(access.Principal{TokenID: "t1", Subject: "alice@contoso.com", Kind: access.Person, Roles: access.Roles()})
	h, err := api.New(api.Config{
		Handlers: b.stub, Authenticator: b.keys,
		Log: slog.New(slog.NewJSONHandler(b.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
		Metrics: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
			_, _ = io.WriteString(w, "keyroll_up 1\n")
		}),
	})
	if err != nil {
		t.Fatal(err)
	}
	b.handler = ValidateResponses(t, h)
	return b
}

func (b *bench) mint(p access.Principal) string {
	secret := access.NewToken().Secret
	b.keys.principals[secret] = p
	return secret
}

// call is one request; header pairs follow the body.
func (b *bench) call(method, path, body string, headers ...string) *httptest.ResponseRecorder {
	b.t.Helper()
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	r.Header.Set("Authorization", "Bearer "+b.token)
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i+1 < len(headers); i += 2 {
		if headers[i+1] == "" {
			r.Header.Del(headers[i])
			continue
		}
		r.Header.Add(headers[i], headers[i+1])
	}
	rec := httptest.NewRecorder()
	b.handler.ServeHTTP(rec, r)
	return rec
}

// problem reads the answer as a problem and checks what every problem has.
func problem(t *testing.T, rec *httptest.ResponseRecorder) api.Problem {
	t.Helper()
	if got := rec.Header().Get("Content-Type"); got != "application/problem+json" {
		t.Fatalf("Content-Type = %q, want a problem; body %s", got, rec.Body)
	}
	var p api.Problem
	if err := json.Unmarshal(rec.Body.Bytes(), &p); err != nil {
		t.Fatal(err)
	}
	if p.Status != rec.Code || p.RequestID != rec.Header().Get("X-Request-Id") || p.NextAction == "" ||
		p.Type != "urn:keyroll:problem:"+string(p.Code) {
		t.Errorf("problem %+v does not fit its answer", p)
	}
	return p
}

func (s *stub) GetRollEvidence(_ context.Context, r api.GetRollEvidenceRequestObject) (api.GetRollEvidenceResponseObject, error) {
	var zipped bytes.Buffer
	err := evidence.Of(roll.Roll{ID: someRoll}).Write(&zipped)
	return api.GetRollEvidence200ApplicationZipResponse{Body: &zipped, ContentLength: int64(zipped.Len()),
		Headers: api.GetRollEvidence200ResponseHeaders{ContentDisposition: "attachment"}}, errors.Join(err, s.act(r))
}

func (s *stub) ExportRolls(_ context.Context, r api.ExportRollsRequestObject) (api.ExportRollsResponseObject, error) {
	return api.ExportRolls200TextCsvResponse{Body: strings.NewReader("id\r\n"), Headers: api.ExportRolls200ResponseHeaders{ContentDisposition: "attachment"}}, s.act(r)
}

func (s *stub) ExportAudit(_ context.Context, r api.ExportAuditRequestObject) (api.ExportAuditResponseObject, error) {
	return api.ExportAudit200TextCsvResponse{Body: strings.NewReader("id\r\n"), Headers: api.ExportAudit200ResponseHeaders{ContentDisposition: "attachment"}}, s.act(r)
}

func (s *stub) ExportKeyAges(_ context.Context, r api.ExportKeyAgesRequestObject) (api.ExportKeyAgesResponseObject, error) {
	return api.ExportKeyAges200TextCsvResponse{Body: strings.NewReader("id\r\n"), Headers: api.ExportKeyAges200ResponseHeaders{ContentDisposition: "attachment"}}, s.act(r)
}

func (s *stub) ListKeyAges(_ context.Context, r api.ListKeyAgesRequestObject) (api.ListKeyAgesResponseObject, error) {
	return api.ListKeyAges200JSONResponse{Items: []api.KeyAge{}}, s.act(r)
}
