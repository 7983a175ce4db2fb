package msapi

import (
	"fmt"
	"net/url"
	"strings"
)

// CheckVaultURL says whether the URL is that of a Key Vault or Managed HSM of
// this cloud. The text of the error may be shown to the one who declared it.
func (c Cloud) CheckVaultURL(raw string) error {
	u, err := Origin(raw)
	if err != nil {
		return fmt.Errorf("vault URL: %w", err)
	}
	host := strings.ToLower(u.Hostname())
	for _, suffix := range []string{c.VaultSuffix, c.HSMSuffix} {
		if name, ok := strings.CutSuffix(host, "."+suffix); ok && isLabel(name) {
			return nil
		}
	}
	return fmt.Errorf("vault URL %q is not in the cloud %q: expected https://{vault}.%s or https://{hsm}.%s",
		raw, c.Name, c.VaultSuffix, c.HSMSuffix)
}

// IsManagedHSM says whether a host is that of a Managed HSM of this cloud.
func (c Cloud) IsManagedHSM(host string) bool {
	name, ok := strings.CutSuffix(strings.ToLower(host), "."+c.HSMSuffix)
	return ok && isLabel(name)
}

// CheckAdminURL says whether the URL is that of a SharePoint admin site of this cloud.
func (c Cloud) CheckAdminURL(raw string) error {
	u, err := Origin(raw)
	if err != nil {
		return fmt.Errorf("SharePoint admin URL: %w", err)
	}
	host := strings.ToLower(u.Hostname())
	if name, ok := strings.CutSuffix(host, c.SharePointAdminSuffix); ok && isLabel(name) {
		return nil
	}
	return fmt.Errorf("SharePoint admin URL %q is not in the cloud %q: expected https://{tenant}%s",
		raw, c.Name, c.SharePointAdminSuffix)
}

// Origin reads a URL that names a host and nothing more: https, port 443 at
// most, no user, no path, no query. Anything else could send a token astray.
func Origin(raw string) (*url.URL, error) {
	u, err := url.Parse(raw)
	if err != nil {
		return nil, fmt.Errorf("%q is not a URL", raw)
	}
	switch {
	case u.Scheme != "https":
		return nil, fmt.Errorf("%q must begin with https://", raw)
	case u.User != nil:
		return nil, fmt.Errorf("a URL with a user name or password in it is refused")
	case u.Hostname() == "":
		return nil, fmt.Errorf("%q names no host", raw)
	case u.Port() != "" && u.Port() != "443", strings.HasSuffix(u.Host, ":"):
		return nil, fmt.Errorf("%q names a port: only 443, which needs no mention, is allowed", raw)
	case u.Path != "" && u.Path != "/":
		return nil, fmt.Errorf("%q has a path: give only https://host", raw)
	case u.RawQuery != "" || u.ForceQuery || u.Fragment != "" || strings.HasSuffix(raw, "#"):
		return nil, fmt.Errorf("%q has a query or fragment: give only https://host", raw)
	}
	return u, nil
}

// isLabel says whether s is one label of a host name.
func isLabel(s string) bool {
	if s == "" || len(s) > 63 || s[0] == '-' || s[len(s)-1] == '-' {
		return false
	}
	for _, r := range s {
		if (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '-' {
			return false
		}
	}
	return true
}
