package msapi

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// The kinds of credential. A certificate is the only one that is sure to be
// taken by all services across tenants: SharePoint refuses app-only tokens
// that a client secret bought, so there is no kind for a secret; whether it
// takes one bought with a federated token is told by no page of Microsoft's.
const (
	kindClientCertificate = "client_certificate"
	kindWorkloadIdentity  = "workload_identity"
	kindManagedIdentity   = "managed_identity"
)

// kinds are the supported kinds, each with the members it takes besides kind.
func kinds() []string {
	return []string{kindClientCertificate, kindWorkloadIdentity, kindManagedIdentity}
}

func membersOf(kind string) []string {
	switch kind {
	case kindClientCertificate:
		return []string{"client_id", "certificate_path", "key_path"}
	case kindWorkloadIdentity:
		return []string{"client_id", "assertion", "token_file", "identity_client_id"}
	case kindManagedIdentity:
		return []string{"tenant_id", "client_id", "object_id", "resource_id"}
	}
	return nil
}

func readEntries(path string) (map[string]identity, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("reading the credentials file: %w", err)
	}
	members, err := object(raw)
	if err != nil {
		return nil, fmt.Errorf("credentials file %s: %w", path, err)
	}
	if len(members) == 0 {
		return nil, fmt.Errorf("credentials file %s names no credential", path)
	}
	entries := make(map[string]identity, len(members))
	for _, m := range members {
		if strings.TrimSpace(m.name) == "" {
			return nil, fmt.Errorf("credentials file %s: a credential has an empty name", path)
		}
		entry, err := readEntry(filepath.Dir(path), m.value)
		if err != nil {
			return nil, fmt.Errorf("credential %q in %s: %w", m.name, path, err)
		}
		entries[m.name] = entry
	}
	return entries, nil
}

// readEntry reads one credential. Relative paths are relative to the file
// that names them.
func readEntry(dir string, raw []byte) (identity, error) {
	members, err := object(raw)
	if err != nil {
		return nil, err
	}
	f := map[string]string{}
	for _, m := range members {
		if !known(m.name) {
			return nil, fmt.Errorf("unknown member %q: use kind and, by kind, %s", m.name, memberTable())
		}
		if f[m.name], err = text(m); err != nil {
			return nil, err
		}
	}
	kind := f["kind"]
	allowed := membersOf(kind)
	if allowed == nil {
		return nil, fmt.Errorf("kind %q is not supported: the supported kinds are %s", kind, strings.Join(kinds(), ", "))
	}
	for _, m := range members {
		if m.name != "kind" && !slices.Contains(allowed, m.name) {
			return nil, fmt.Errorf("a credential of kind %q has no member %q: it takes %s", kind, m.name, strings.Join(allowed, ", "))
		}
	}
	switch kind {
	case kindWorkloadIdentity:
		return readWorkload(dir, f)
	case kindManagedIdentity:
		return readManaged(f)
	}
	return readCertificate(dir, f)
}

func known(name string) bool {
	return name == "kind" || slices.ContainsFunc(kinds(), func(k string) bool { return slices.Contains(membersOf(k), name) })
}

func memberTable() string {
	var out []string
	for _, k := range kinds() {
		out = append(out, k+": "+strings.Join(membersOf(k), ", "))
	}
	return strings.Join(out, "; ")
}

func readCertificate(dir string, f map[string]string) (identity, error) {
	switch {
	case f["client_id"] == "":
		return nil, errors.New("client_id is missing: give the application (client) id of the app registration")
	case f["certificate_path"] == "":
		return nil, errors.New("certificate_path is missing: give the path of a PEM file with the certificate")
	}
	return readPEM(f["client_id"], in(dir, f["certificate_path"]), in(dir, f["key_path"]))
}

// The words for where a workload identity's assertion comes from.
const (
	assertionTokenFile       = "token_file"
	assertionManagedIdentity = "managed_identity"
)

// federatedTokenFile is what the workload identity webhook of Kubernetes sets.
const federatedTokenFile = "AZURE_FEDERATED_TOKEN_FILE"

func readWorkload(dir string, f map[string]string) (identity, error) {
	if f["client_id"] == "" {
		return nil, errors.New("client_id is missing: give the application (client) id of the app registration that has the federated credential")
	}
	switch f["assertion"] {
	case "", assertionTokenFile:
		if f["identity_client_id"] != "" {
			return nil, errors.New(`identity_client_id goes with "assertion": "managed_identity" only`)
		}
		path := in(dir, f["token_file"])
		if path == "" {
			path = os.Getenv(federatedTokenFile)
		}
		if path == "" {
			return nil, errors.New("token_file is missing, and the environment has no " + federatedTokenFile + ": give the path of the projected service account token")
		}
		// Read once, so that a mistake shows at start; Kubernetes changes it later.
		if err := checkTokenFile(path); err != nil {
			return nil, err
		}
		return workload{clientID: f["client_id"], tokenFile: path}, nil
	case assertionManagedIdentity:
		switch {
		case f["token_file"] != "":
			return nil, errors.New(`token_file goes with "assertion": "token_file" only`)
		case f["identity_client_id"] == "":
			return nil, errors.New("identity_client_id is missing: give the client id of the user-assigned managed identity that the federated credential names")
		}
		return workload{clientID: f["client_id"], identityClientID: f["identity_client_id"]}, nil
	}
	return nil, fmt.Errorf("assertion %q is not supported: use %q or %q", f["assertion"], assertionTokenFile, assertionManagedIdentity)
}

// checkTokenFile: the file holds what looks like a token. Its content is never shown.
func checkTokenFile(path string) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("reading token_file: %w", err)
	}
	if parts := strings.Split(strings.TrimSpace(string(data)), "."); len(parts) != 3 || slices.Contains(parts, "") {
		return fmt.Errorf("token_file %s holds no service account token (three parts, joined by dots)", path)
	}
	return nil
}

func readManaged(f map[string]string) (identity, error) {
	m := managed{tenantID: strings.ToLower(f["tenant_id"])}
	if m.tenantID == "" {
		return nil, errors.New("tenant_id is missing: give the Entra tenant that the managed identity lives in; it gives tokens for no other")
	}
	for _, id := range []string{"client_id", "object_id", "resource_id"} {
		if f[id] == "" {
			continue
		}
		if m.id != "" {
			return nil, fmt.Errorf("%s and %s both name a managed identity: give one of them, or none for the system-assigned one", m.idKind, id)
		}
		m.idKind, m.id = id, f[id]
	}
	return m, nil
}

func in(dir, path string) string {
	if path == "" || filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(dir, path)
}
