package main

import (
	"context"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/keyroll/keyroll/internal/sim"
)

// simulators are Microsoft's services on this machine, with the files by which
// a client reaches them.
type simulators struct {
	*sim.Server
	dir string
}

// Files that startSimulators leaves in its directory.
const (
	fileCA          = "ca.pem"
	fileApp         = "app.pem"
	fileCredentials = "credentials.json"
	fileEnv         = "keyroll.env"
)

// startSimulators starts them and writes the files; an application certificate
// that is there already is kept, so that a server which knows it goes on working.
func startSimulators(ctx context.Context, o sim.Options, dir string) (*simulators, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	// Absolute, since the files name each other for programs started elsewhere.
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	cert, err := appCertificate(filepath.Join(dir, fileApp))
	if err != nil {
		return nil, err
	}
	clientID := sim.ContosoClientID
	if len(o.Seed.Apps) > 0 {
		clientID = o.Seed.Apps[0].ClientID
	}
	o.Seed.AllowCertificate(clientID, cert)
	credentials, err := credentialsFile(o.Seed, clientID)
	if err != nil {
		return nil, err
	}
	server, err := sim.Start(ctx, o)
	if err != nil {
		return nil, err
	}
	s := &simulators{Server: server, dir: dir}
	err = errors.Join(
		writeFile(s.file(fileCA), s.CAPEM(), 0o644),
		writeFile(s.file(fileCredentials), credentials, 0o600),
		writeFile(s.file(fileEnv), []byte(s.sampleEnv()), 0o644),
	)
	if err != nil {
		return nil, errors.Join(err, server.Close())
	}
	return s, nil
}

func (s *simulators) file(name string) string { return filepath.Join(s.dir, name) }

// dialMap is that of the server, with addresses that can be dialled.
func (s *simulators) dialMap() string {
	control := strings.TrimPrefix(s.ControlURL, "http://")
	return strings.NewReplacer("="+s.Addr, "="+reachable(s.Addr), "="+control, "="+reachable(control)).Replace(s.DialMap())
}

func (s *simulators) controlURL() string {
	return "http://" + reachable(strings.TrimPrefix(s.ControlURL, "http://"))
}

// settings are what serve needs to work against the simulators.
func (s *simulators) settings() map[string]string {
	return map[string]string{
		"ALLOW_SIMULATOR":  "true",
		"DIAL_MAP":         s.dialMap(),
		"EXTRA_CA_FILE":    s.file(fileCA),
		"CREDENTIALS_FILE": s.file(fileCredentials),
	}
}

func (s *simulators) sampleEnv() string {
	var b strings.Builder
	b.WriteString("# Settings of \"server serve\" against these simulators; nothing here reaches Microsoft.\n")
	fmt.Fprintf(&b, "#   set -a; . %s; set +a; server serve\n", shellQuote(s.file(fileEnv)))
	all := s.settings()
	for _, name := range []string{"ALLOW_SIMULATOR", "DIAL_MAP", "EXTRA_CA_FILE", "CREDENTIALS_FILE"} {
		fmt.Fprintf(&b, "%s%s=%s\n", envPrefix, name, shellQuote(all[name]))
	}
	fmt.Fprintf(&b, "# and a database of your own:\n# %sDATABASE_URL=postgres://USER@HOST/DATABASE\n# %sAUTO_MIGRATE=true\n", envPrefix, envPrefix)
	return b.String()
}

func shellQuote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

// appCertificate reads the certificate in the file, or makes one with its key.
func appCertificate(path string) (certPEM []byte, err error) {
	all, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		cert, key, err := sim.NewAppCertificate("keyroll")
		if err != nil {
			return nil, err
		}
		return cert, writeFile(path, append(cert[:len(cert):len(cert)], key...), 0o600)
	}
	if err != nil {
		return nil, err
	}
	for block, rest := pem.Decode(all); block != nil; block, rest = pem.Decode(rest) {
		if block.Type == "CERTIFICATE" {
			return pem.EncodeToMemory(block), nil
		}
	}
	return nil, fmt.Errorf("%s holds no certificate: take the file away, and a new one is made", path)
}

// credentialsFile names one credential per tenant of the seed, after the
// tenant; all are the same application.
func credentialsFile(seed sim.Seed, clientID string) ([]byte, error) {
	type entry struct {
		Kind            string `json:"kind"`
		ClientID        string `json:"client_id"`
		CertificatePath string `json:"certificate_path"`
	}
	all := map[string]entry{}
	for _, t := range seed.Tenants {
		all[credentialName(t.Name)] = entry{"client_certificate", clientID, fileApp}
	}
	out, err := json.MarshalIndent(all, "", "  ")
	return append(out, '\n'), err
}

// credentialName makes a tenant's name a name that a declaration may use.
func credentialName(tenant string) string {
	name := strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= '0' && r <= '9', r == '-', r == '.':
			return r
		case r >= 'A' && r <= 'Z':
			return r - 'A' + 'a'
		}
		return '-'
	}, tenant)
	if name = strings.Trim(name, "-."); name == "" {
		return "simulated"
	}
	return name
}
