// Package msapitest stands in for a Microsoft service in tests of the
// connectors: a TLS server with a certificate for the real host names, the
// client that reaches it through a dial map, and what was seen on the wire.
package msapitest

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"math/big"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"

	"github.com/keyroll/keyroll/internal/msapi"
)

// Request is one request as it was seen on the wire.
type Request struct {
	Method, Host, URI string
	Header            http.Header
	Body              []byte
}

// Server is a TLS server on a loopback port that keeps what it receives.
type Server struct {
	// HTTP reaches the server under each of its hosts' real names.
	HTTP *http.Client
	// CA is the server's certificate authority in PEM form.
	CA []byte
	// DialMap is the dial map with which HTTP was made.
	DialMap map[string]string

	mu   sync.Mutex
	seen []Request
}

// Start serves handler under the host names until the test ends.
func Start(t testing.TB, handler http.HandlerFunc, hosts ...string) *Server {
	t.Helper()
	s := &Server{}
	ts := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Errorf("reading a request: %v", err)
		}
		s.mu.Lock()
		s.seen = append(s.seen, Request{r.Method, r.Host, r.RequestURI, r.Header.Clone(), body})
		s.mu.Unlock()
		r.Body = io.NopCloser(bytes.NewReader(body))
		handler(w, r)
	}))
	var cert tls.Certificate
	cert, s.CA = certificate(t, hosts)
	ts.TLS = &tls.Config{Certificates: []tls.Certificate{cert}}
	ts.EnableHTTP2 = true
	ts.StartTLS()
	s.DialMap = map[string]string{}
	for _, h := range hosts {
		s.DialMap[h] = ts.Listener.Addr().String()
	}
	hc, err := msapi.HTTPClient(s.DialMap, s.CA)
	if err != nil {
		t.Fatal(err)
	}
	s.HTTP = hc
	t.Cleanup(func() {
		hc.CloseIdleConnections()
		ts.CloseClientConnections()
		ts.Close()
	})
	return s
}

// Seen gives what was received so far.
func (s *Server) Seen() []Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]Request(nil), s.seen...)
}

func certificate(t testing.TB, hosts []string) (tls.Certificate, []byte) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, DNSNames: hosts,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key},
		pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

// Token is a credential that gives this token.
type Token string

// GetToken implements azcore.TokenCredential.
func (t Token) GetToken(context.Context, policy.TokenRequestOptions) (azcore.AccessToken, error) {
	return azcore.AccessToken{Token: string(t), ExpiresOn: time.Now().Add(time.Hour)}, nil
}

// NoToken is a credential that fails with this error.
type NoToken struct{ Err error }

// GetToken implements azcore.TokenCredential.
func (n NoToken) GetToken(context.Context, policy.TokenRequestOptions) (azcore.AccessToken, error) {
	return azcore.AccessToken{}, n.Err
}

// Drop ends a request without an answer, as a lost connection does.
func Drop(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }
