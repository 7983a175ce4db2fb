package msapi

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// HTTPClient makes the client for all calls. It follows no redirects and has
// no overall timeout: a cmdlet may run for 15 minutes, so each call's context
// says how long it may take.
//
// dialMap sends connections for a host, or for all hosts below it, to another
// address; the TLS certificate is still checked against the real host name,
// with extraCA (PEM) trusted besides the system's roots. With a dial map no
// proxy is used: a proxy would resolve the name for itself.
func HTTPClient(dialMap map[string]string, extraCA []byte) (*http.Client, error) {
	tlsConfig := &tls.Config{MinVersion: tls.VersionTLS12}
	if len(extraCA) > 0 {
		pool, err := x509.SystemCertPool()
		if err != nil {
			pool = x509.NewCertPool()
		}
		if !pool.AppendCertsFromPEM(extraCA) {
			return nil, errors.New("the extra CA file holds no certificate in PEM form")
		}
		tlsConfig.RootCAs = pool
	}
	dialer := &net.Dialer{Timeout: 15 * time.Second, KeepAlive: 30 * time.Second}
	tr := &http.Transport{
		Proxy:                 proxy,
		DialContext:           dialer.DialContext,
		TLSClientConfig:       tlsConfig,
		TLSHandshakeTimeout:   15 * time.Second,
		ExpectContinueTimeout: time.Second,
		IdleConnTimeout:       90 * time.Second,
		MaxIdleConnsPerHost:   8,
		MaxIdleConns:          128,
		ForceAttemptHTTP2:     true,
		// A dead connection under a cmdlet of minutes is noticed by a ping.
		HTTP2: &http.HTTP2Config{SendPingTimeout: 30 * time.Second, PingTimeout: 15 * time.Second},
	}
	if len(dialMap) > 0 {
		tr.Proxy = nil
		tr.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
			return dialer.DialContext(ctx, network, mapAddress(dialMap, addr))
		}
	}
	return &http.Client{
		Transport:     tr,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}, nil
}

// proxy is the environment's, except for link-local addresses: the managed
// identity endpoint of a machine in Azure answers to that machine only.
func proxy(r *http.Request) (*url.URL, error) {
	if ip := net.ParseIP(r.URL.Hostname()); ip != nil && ip.IsLinkLocalUnicast() {
		return nil, nil
	}
	return http.ProxyFromEnvironment(r)
}

// mapAddress finds where a connection for addr goes: the longest entry that is
// the host or a domain above it wins.
func mapAddress(dialMap map[string]string, addr string) string {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return addr
	}
	host = strings.ToLower(host)
	for {
		if to, ok := dialMap[host]; ok {
			return to
		}
		_, parent, ok := strings.Cut(host, ".")
		if !ok {
			return addr
		}
		host = parent
	}
}

// ParseDialMap reads "host-suffix=address,…", such as
// "vault.azure.net=127.0.0.1:8443,login.microsoftonline.com=127.0.0.1:8443".
func ParseDialMap(s string) (map[string]string, error) {
	out := map[string]string{}
	for entry := range strings.SplitSeq(s, ",") {
		entry = strings.TrimSpace(entry)
		if entry == "" {
			continue
		}
		host, addr, ok := strings.Cut(entry, "=")
		if !ok {
			return nil, fmt.Errorf("dial map entry %q: expected host-suffix=address", entry)
		}
		host = strings.ToLower(strings.Trim(strings.TrimSpace(host), "."))
		if !isHost(host) {
			return nil, fmt.Errorf("dial map entry %q: %q is not a host name", entry, host)
		}
		addr = strings.TrimSpace(addr)
		if err := checkAddress(addr); err != nil {
			return nil, fmt.Errorf("dial map entry %q: %w", entry, err)
		}
		if _, twice := out[host]; twice {
			return nil, fmt.Errorf("dial map names %q twice", host)
		}
		out[host] = addr
	}
	return out, nil
}

func isHost(s string) bool {
	for label := range strings.SplitSeq(s, ".") {
		if !isLabel(label) {
			return false
		}
	}
	return true
}

func checkAddress(addr string) error {
	host, port, err := net.SplitHostPort(addr)
	if err != nil || host == "" {
		return fmt.Errorf("address %q: expected host:port", addr)
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return fmt.Errorf("address %q: %q is not a port", addr, port)
	}
	return nil
}

// isTLS says whether the failure is one of trust and not of the network.
func isTLS(err error) bool {
	var verify *tls.CertificateVerificationError
	var unknown x509.UnknownAuthorityError
	var name x509.HostnameError
	var invalid x509.CertificateInvalidError
	var record tls.RecordHeaderError
	return errors.As(err, &verify) || errors.As(err, &unknown) || errors.As(err, &name) ||
		errors.As(err, &invalid) || errors.As(err, &record)
}
