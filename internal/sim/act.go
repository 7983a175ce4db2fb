package sim

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"reflect"
	"slices"
	"time"
)

// ActKind is something that a person or Microsoft does by hand: a route of the
// control API (POST /{Name}), and in a scenario an act with a time.
type ActKind struct {
	Name string
	// Does says what it does.
	Does string
	body reflect.Type
	do   func(w *World, raw []byte) error
}

// Members are the names of what the act's body may have.
func (a ActKind) Members() []string {
	var out []string
	for _, f := range fileMembers(a.body) {
		out = append(out, f.name)
	}
	return out
}

// kind makes an ActKind whose body is a T.
func kind[T any](name, does string, do func(*World, T) error) ActKind {
	return ActKind{Name: name, Does: does, body: reflect.TypeFor[T](), do: func(w *World, raw []byte) error {
		var in T
		if err := decodeStrict(bytes.NewReader(raw), &in); err != nil {
			return fmt.Errorf("decoding the body: %w", err)
		}
		return do(w, in)
	}}
}

// Acts returns every act that a scenario may have, in the order of the
// documentation.
func Acts() []ActKind {
	return []ActKind{
		kind("keys/stranger", "somebody else makes a version of the key", func(w *World, in keyStranger) error {
			_, err := w.StrangerVersion(in.Vault, in.Key, in.Tags)
			return err
		}),
		kind("keys/disable", "a version (left out: all) is disabled, or with `enabled` true enabled", func(w *World, in keyChange) error {
			return w.SetEnabled(in.Vault, in.Key, in.Version, in.Enabled)
		}),
		kind("keys/soft-delete", "the key is deleted and can be recovered; with `deleting` the vault is not done with it; with `deleted` false it is recovered",
			func(w *World, in keyDeletion) error {
				return w.setDeleted(in.Vault, in.Key, in.Deleted == nil || *in.Deleted, in.Deleting)
			}),
		kind("keys/rotation-policy", "the key gets a rotation policy; left out, it loses the one it has", func(w *World, in keyRotation) error {
			return w.SetRotationPolicy(in.Vault, in.Key, in.Policy)
		}),
		kind("sharepoint/roll-by-hand", "an administrator begins a SharePoint roll of `slot` primary or secondary, to the newest version of the slot's key unless told otherwise",
			func(w *World, in handRoll) error {
				return w.RollByHand(in.Tenant, in.Geo, in.Slot, Slot{Vault: in.Vault, Key: in.Key, Version: in.Version})
			}),
		kind("sharepoint/settings", "changes how a geo looks and behaves", (*World).SetSharePoint),
		kind("exchange/settings", "changes how Exchange behaves", (*World).SetExchange),
		kind("permissions", "rights of apps, or of Microsoft 365 itself (`service`), are given or taken away", (*World).SetPermission),
		kind("logs", "the tenant's vaults send their diagnostic log to the workspace", func(w *World, in tenantLogs) error { return w.SetLogs(in.Tenant, in.Logs) }),
		kind("logs/line", "a line is added to the diagnostic log: `operation` KeyWrap or KeyUnwrap by `app_id` with `key`", func(w *World, in tenantLine) error {
			return w.WriteLog(in.Tenant, in.Line)
		}),
		kind("policies", "a policy is added, or the one with its GUID replaced", func(w *World, in tenantPolicy) error { return w.PutPolicy(in.Tenant, in.Policy) }),
		kind("apps", "an app gets one more certificate; an unknown app is added with every right", func(w *World, in appCertificate) error {
			return w.AllowCertificate(in.ClientID, []byte(in.Certificate))
		}),
		kind("automation/resume", "a suspended runbook job goes on", func(w *World, in jobByHand) error { return w.ResumeJob(in.Tenant, in.Job) }),
		kind("automation/stop", "a runbook job is stopped", func(w *World, in jobByHand) error { return w.StopJob(in.Tenant, in.Job) }),
		kind("tokens/revoke", "every token issued until now is refused: of a tenant, of an app, or all", func(w *World, in tokenOwner) error {
			return w.RevokeTokens(in.Tenant, in.ClientID)
		}),
		kind("trap", "SharePoint accepts a roll while another runs, and the witness log counts the overlap", func(w *World, in trapSwitch) error {
			w.SetTrap(in.On)
			return nil
		}),
	}
}

func actNamed(name string) (ActKind, bool) {
	all := Acts()
	i := slices.IndexFunc(all, func(a ActKind) bool { return a.Name == name })
	if i < 0 {
		return ActKind{}, false
	}
	return all[i], true
}

func actNames() []string {
	var out []string
	for _, a := range Acts() {
		out = append(out, a.Name)
	}
	return out
}

// postAct serves an act over the control API.
func (w *World) postAct(kind ActKind) http.HandlerFunc {
	return func(rw http.ResponseWriter, r *http.Request) {
		raw, ok := body[json.RawMessage](rw, r)
		if !ok {
			return
		}
		done(rw, kind.do(w, raw))
	}
}

// scheduled is an act that waits for its time.
type scheduled struct {
	at  time.Duration // after the world's beginning
	do  func(w *World) error
	why string
}

// dueAct takes the next act whose time has come; nil when there is none, or
// when one is being done. The lock is held.
func (w *World) dueAct(now time.Time) *scheduled {
	if w.acting || len(w.schedule) == 0 || now.Before(w.beginning.Add(w.schedule[0].at)) {
		return nil
	}
	next := w.schedule[0]
	w.schedule, w.acting = w.schedule[1:], true
	return &next
}
