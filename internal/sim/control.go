package sim

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"
)

// ControlHandler serves the control API; the package comment lists its routes.
// It asks for no credential: it belongs on a loopback address.
func (w *World) ControlHandler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(rw http.ResponseWriter, _ *http.Request) {
		reply(rw, http.StatusOK, map[string]string{"status": "ok"})
	})
	mux.HandleFunc("GET /state", func(rw http.ResponseWriter, _ *http.Request) { reply(rw, http.StatusOK, w.State()) })
	mux.HandleFunc("GET /witness", func(rw http.ResponseWriter, _ *http.Request) { reply(rw, http.StatusOK, w.Report()) })
	mux.HandleFunc("GET /faults", func(rw http.ResponseWriter, _ *http.Request) { reply(rw, http.StatusOK, w.Faults()) })
	mux.HandleFunc("POST /faults", w.postFault)
	mux.HandleFunc("GET /faults/{id}", w.getFault)
	mux.HandleFunc("DELETE /faults/{id}", func(rw http.ResponseWriter, r *http.Request) { done(rw, w.RemoveFault(r.PathValue("id"))) })
	mux.HandleFunc("POST /faults/{id}/release", func(rw http.ResponseWriter, r *http.Request) { done(rw, w.ReleaseFault(r.PathValue("id"))) })
	mux.HandleFunc("POST /keys/stranger", w.postStranger)
	mux.HandleFunc("POST /federated-token", w.postFederatedToken)
	w.identityRoutes(mux)
	for _, kind := range Acts() {
		if kind.Name != "keys/stranger" { // which answers with the version
			mux.HandleFunc("POST /"+kind.Name, w.postAct(kind))
		}
	}
	act(mux, "POST /advance", func(in advance) error {
		if in.Seconds < 0 {
			return fmt.Errorf("time goes forward only: %w", ErrRefused)
		}
		w.Advance(seconds(in.Seconds))
		return nil
	})
	return mux
}

// The bodies of the control API that are not types of the package's API.
type (
	keyChange struct {
		Vault   string `json:"vault"`
		Key     string `json:"key"`
		Version string `json:"version"`
		Enabled bool   `json:"enabled"`
	}
	keyDeletion struct {
		Vault   string `json:"vault"`
		Key     string `json:"key"`
		Deleted *bool  `json:"deleted"`
		// Deleting: the vault is not done with it.
		Deleting bool `json:"deleting"`
	}
	keyRotation struct {
		Vault  string          `json:"vault"`
		Key    string          `json:"key"`
		Policy *RotationPolicy `json:"policy"`
	}
	keyStranger struct {
		Vault string            `json:"vault"`
		Key   string            `json:"key"`
		Tags  map[string]string `json:"tags"`
	}
	federatedTokenFor struct {
		ClientID string `json:"client_id"`
		Subject  string `json:"subject"`
	}
	handRoll struct {
		Tenant  string `json:"tenant"`
		Geo     string `json:"geo"`
		Slot    string `json:"slot"`
		Vault   string `json:"vault"`
		Key     string `json:"key"`
		Version string `json:"version"`
	}
	tenantLogs struct {
		Tenant string `json:"tenant"`
		Logs   Logs   `json:"logs"`
	}
	tenantLine struct {
		Tenant string  `json:"tenant"`
		Line   LogLine `json:"line"`
	}
	tenantPolicy struct {
		Tenant string `json:"tenant"`
		Policy Policy `json:"policy"`
	}
	appCertificate struct {
		ClientID    string `json:"client_id"`
		Certificate string `json:"certificate"`
	}
	jobByHand struct {
		Tenant string `json:"tenant"`
		Job    string `json:"job"`
	}
	tokenOwner struct {
		Tenant   string `json:"tenant"`
		ClientID string `json:"client_id"`
	}
	trapSwitch struct {
		On bool `json:"on"`
	}
	advance struct {
		Seconds float64 `json:"seconds"`
	}
)

// act registers a route that decodes a body, does something and answers 204.
func act[T any](mux *http.ServeMux, route string, do func(T) error) {
	mux.HandleFunc(route, func(rw http.ResponseWriter, r *http.Request) {
		if in, ok := body[T](rw, r); ok {
			done(rw, do(in))
		}
	})
}

// body decodes a request body strictly; on failure it has answered already.
func body[T any](rw http.ResponseWriter, r *http.Request) (T, bool) {
	var in T
	if err := decodeStrict(http.MaxBytesReader(rw, r.Body, 1<<20), &in); err != nil {
		reply(rw, http.StatusBadRequest, map[string]string{"error": "decoding the body: " + err.Error()})
		return in, false
	}
	return in, true
}

func done(rw http.ResponseWriter, err error) {
	switch {
	case err == nil:
		rw.WriteHeader(http.StatusNoContent)
	case errors.Is(err, ErrNoFault), errors.Is(err, ErrUnknown):
		reply(rw, http.StatusNotFound, map[string]string{"error": err.Error()})
	case errors.Is(err, ErrRefused):
		reply(rw, http.StatusConflict, map[string]string{"error": err.Error()})
	default:
		reply(rw, http.StatusBadRequest, map[string]string{"error": err.Error()})
	}
}

func reply(rw http.ResponseWriter, status int, v any) {
	rw.Header().Set("Content-Type", "application/json")
	rw.WriteHeader(status)
	e := json.NewEncoder(rw)
	e.SetIndent("", " ")
	_ = e.Encode(v) // a client that has gone is no business of ours
}

func (w *World) postFault(rw http.ResponseWriter, r *http.Request) {
	in, ok := body[Fault](rw, r)
	if !ok {
		return
	}
	id, err := w.AddFault(in)
	if err != nil {
		done(rw, err)
		return
	}
	w.replyFault(rw, http.StatusCreated, id)
}

// getFault shows a fault; with ?wait=10s it waits for the fault to fire
// (?fired=2: twice), and answers 408 when it did not.
func (w *World) getFault(rw http.ResponseWriter, r *http.Request) {
	id, status := r.PathValue("id"), http.StatusOK
	if text := r.URL.Query().Get("wait"); text != "" {
		wait, err := time.ParseDuration(text)
		times := 1
		if n := r.URL.Query().Get("fired"); n != "" && err == nil {
			times, err = strconv.Atoi(n)
		}
		if err != nil {
			reply(rw, http.StatusBadRequest, map[string]string{"error": "wait is a duration such as 10s, fired a number"})
			return
		}
		ctx, cancel := context.WithTimeout(r.Context(), wait)
		defer cancel()
		if err := w.WaitFaultN(ctx, id, times); errors.Is(err, context.DeadlineExceeded) {
			status = http.StatusRequestTimeout
		}
	}
	w.replyFault(rw, status, id)
}

func (w *World) replyFault(rw http.ResponseWriter, status int, id string) {
	for _, f := range w.Faults() {
		if f.ID == id {
			reply(rw, status, f)
			return
		}
	}
	done(rw, ErrNoFault)
}

func (w *World) postStranger(rw http.ResponseWriter, r *http.Request) {
	in, ok := body[keyStranger](rw, r)
	if !ok {
		return
	}
	version, err := w.StrangerVersion(in.Vault, in.Key, in.Tags)
	if err != nil {
		done(rw, err)
		return
	}
	reply(rw, http.StatusCreated, map[string]string{"version": version})
}

func (w *World) postFederatedToken(rw http.ResponseWriter, r *http.Request) {
	in, ok := body[federatedTokenFor](rw, r)
	if !ok {
		return
	}
	token, err := w.FederatedToken(in.ClientID, in.Subject)
	if err != nil {
		done(rw, err)
		return
	}
	reply(rw, http.StatusCreated, map[string]string{"token": token})
}
