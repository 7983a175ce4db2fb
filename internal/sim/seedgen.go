package sim

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	_ "embed"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"regexp"
	"strings"
	"time"
)

const (
	// ContosoTenant is the tenant id of ContosoSeed.
	ContosoTenant = "7a3b6c1e-0d52-4a0f-9f53-2f4d8b1c5e01"
	// ContosoClientID is the app of ContosoSeed. It has every right and, until
	// AllowCertificate, no credential.
	ContosoClientID = "3f0c9f5e-9a53-4c39-8c39-6d2b7f0a1c77"
)

//go:embed contoso.json
var contosoJSON []byte

// ContosoSeed is tenant Contoso with six keys, two policies and one geo.
func ContosoSeed() Seed {
	s, err := ReadSeed(bytes.NewReader(contosoJSON))
	if err != nil {
		panic(fmt.Sprintf("sim: embedded contoso.json: %v", err)) // a build error, seen by every test
	}
	return s
}

// FleetSeed is n tenants shaped like Contoso, named fleet0001, fleet0002 and
// so on, with ids of their own that are the same in every run.
func FleetSeed(n int) Seed {
	contoso := ContosoSeed()
	raw, err := json.Marshal(contoso.Tenants[0])
	if err != nil {
		panic(fmt.Sprintf("sim: encoding contoso: %v", err))
	}
	seed := Seed{TokenLifetimeSeconds: contoso.TokenLifetimeSeconds, Apps: contoso.Apps}
	ids := regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}|\b[0-9a-f]{32}\b`)
	for i := 1; i <= n; i++ {
		name := fmt.Sprintf("fleet%04d", i)
		text := strings.ReplaceAll(string(raw), "contoso", name)
		text = strings.ReplaceAll(text, "Contoso", "F"+name[1:])
		text = ids.ReplaceAllStringFunc(text, func(old string) string {
			sum := sha256.Sum256([]byte(name + "/" + old))
			if strings.Contains(old, "-") {
				return guidOf(sum[:16])
			}
			return hex.EncodeToString(sum[:16])
		})
		var t Tenant
		if err := json.Unmarshal([]byte(text), &t); err != nil {
			panic(fmt.Sprintf("sim: decoding tenant %s: %v", name, err))
		}
		seed.Tenants = append(seed.Tenants, t)
	}
	return seed
}

// AllowCertificate lets the app sign its assertions with the certificate. An
// app that the seed does not know is added with every right in every tenant.
func (s *Seed) AllowCertificate(clientID string, certPEM []byte) {
	for i := range s.Apps {
		if strings.EqualFold(s.Apps[i].ClientID, clientID) {
			// A fresh slice: seeds are copied by value and must not share one.
			old := s.Apps[i].Certificates
			s.Apps[i].Certificates = append(old[:len(old):len(old)], string(certPEM))
			return
		}
	}
	s.Apps = append(s.Apps, App{ClientID: clientID, Certificates: []string{string(certPEM)},
		Grants: []Grant{{Tenant: "*", KeyVault: map[string]bool{"*": true}, Exchange: "full", SharePoint: true, ARM: armContributor}}})
}

// NewAppCertificate makes a self-signed certificate and its PKCS #8 key for an
// app to sign client assertions with.
func NewAppCertificate(commonName string) (certPEM, keyPEM []byte, err error) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return nil, nil, fmt.Errorf("generating app key: %w", err)
	}
	now := time.Now()
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(now.UnixNano()),
		Subject:      pkix.Name{CommonName: commonName},
		NotBefore:    now.Add(-time.Hour),
		NotAfter:     now.AddDate(1, 0, 0),
		KeyUsage:     x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		return nil, nil, fmt.Errorf("signing app certificate: %w", err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, nil, fmt.Errorf("encoding app key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}), nil
}

// newGUID returns a random version 4 GUID.
func newGUID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails (crypto/rand)
	return guidOf(b[:])
}

// guidOf writes 16 bytes as a GUID with version and variant bits set.
func guidOf(b []byte) string {
	c := bytes.Clone(b[:16])
	c[6] = c[6]&0x0f | 0x40
	c[8] = c[8]&0x3f | 0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", c[0:4], c[4:6], c[6:8], c[8:10], c[10:16])
}

// newVersionID returns 32 random hex digits.
func newVersionID() string {
	var b [16]byte
	_, _ = rand.Read(b[:])
	return hex.EncodeToString(b[:])
}

// AddGeo gives the tenant one more SharePoint geo, Registered, with an admin
// site, two vaults and two keys of its own. For Contoso and "EUR" they are
// contosoeur-admin…, contoso-eur-a and contoso-eur-b, and Contoso-EUR-A-Key001
// and Contoso-EUR-B-Key001. The tenant must have a geo already, whose admin
// host, site count and keys it is made after.
func (t *Tenant) AddGeo(id string) {
	like := t.SharePoint.Geos[0]
	prefix, rest, _ := strings.Cut(like.AdminHost, "-admin.")
	lower := strings.ToLower(id)
	g := Geo{ID: id, AdminHost: prefix + lower + "-admin." + rest, SiteCount: like.SiteCount}
	for i, slot := range []*Slot{&g.Primary, &g.Secondary} {
		letter := string(rune('a' + i))
		*slot = Slot{Vault: prefix + "-" + lower + "-" + letter, Key: t.Name + "-" + strings.ToUpper(id+"-"+letter) + "-Key001"}
		sum := sha256.Sum256([]byte(t.ID + "/" + slot.Vault))
		t.Vaults = append(t.Vaults, Vault{Name: slot.Vault, Keys: []Key{{Name: slot.Key, Versions: []KeyVersion{
			{Version: hex.EncodeToString(sum[:16]), Created: time.Date(2025, 3, 3, 9, 0, 0, 0, time.UTC)}}}}})
	}
	t.SharePoint.Geos = append(t.SharePoint.Geos, g)
}
