package msapi

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/cloud"
)

// ReadClouds reads the operator's own clouds (KEYROLL_CLOUDS_FILE), for clouds
// that Microsoft runs apart from all others and for hosts that changed:
//
//	{"airgap": {
//	  "authority": "https://login.example",
//	  "vault_suffix": "vault.core.example", "hsm_suffix": "managedhsm.core.example",
//	  "exchange_url": "https://outlook.mail.example", "exchange_redirects": ["mail.example"],
//	  "sharepoint_admin_suffix": "-admin.sharepoint.example",
//	  "resource_manager": "https://management.core.example",
//	  "log_analytics_url": "https://api.loganalytics.example",
//	  "portal_url": "https://portal.core.example"}}
//
// Every host must be named: one left out would have to be guessed, and a token
// would go to the guess. vault_scope, hsm_scope and log_analytics_scope may be
// left out and are then the suffix or URL with "/.default"; token_exchange is
// then the public cloud's. A cloud of the
// table is replaced only by a row that says "override": true.
//
// The error names file, cloud and member.
func ReadClouds(path string) (Clouds, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return Clouds{}, fmt.Errorf("reading the clouds file: %w", err)
	}
	out, err := parseClouds(raw)
	if err != nil {
		return Clouds{}, fmt.Errorf("clouds file %s: %w", path, err)
	}
	return out, nil
}

// cloudName is what a cloud may be called; it stands in declarations and in URLs.
var cloudName = regexp.MustCompile(`^[a-z][a-z0-9_]{0,31}$`)

func parseClouds(raw []byte) (Clouds, error) {
	members, err := object(raw)
	if err != nil {
		return Clouds{}, err
	}
	if len(members) == 0 {
		return Clouds{}, errors.New("it names no cloud")
	}
	var out Clouds
	for _, m := range members {
		if !cloudName.MatchString(m.name) {
			return Clouds{}, fmt.Errorf("cloud %q: a name is a lower-case letter, then letters, digits and _, 32 at most", m.name)
		}
		c, override, err := parseCloud(m.name, m.value)
		known := slices.Contains(CloudNames(), m.name)
		switch {
		case err != nil:
			return Clouds{}, fmt.Errorf("cloud %q: %w", m.name, err)
		case known && !override:
			return Clouds{}, fmt.Errorf(`cloud %q: Keyroll knows this cloud; to put these hosts in the place of Microsoft's, say "override": true`, m.name)
		case !known && override:
			return Clouds{}, fmt.Errorf(`cloud %q: member "override": Keyroll knows no cloud of this name, so there is nothing to override; is the name mistyped?`, m.name)
		}
		out.own = append(out.own, c)
	}
	return out, nil
}

// hostMember is one member of a cloud in the file.
type hostMember struct {
	name  string
	check func(string) error
	to    *string
}

// parseCloud reads one cloud.
func parseCloud(name string, raw []byte) (c Cloud, override bool, err error) {
	members, err := object(raw)
	if err != nil {
		return Cloud{}, false, err
	}
	c = Cloud{Name: name, Own: true}
	required := []hostMember{
		{"authority", origin, &c.Authority}, {"vault_suffix", domain, &c.VaultSuffix}, {"hsm_suffix", domain, &c.HSMSuffix},
		{"exchange_url", origin, &c.ExchangeURL}, {"sharepoint_admin_suffix", adminSuffix, &c.SharePointAdminSuffix},
		{"resource_manager", origin, &c.ResourceManager}, {"log_analytics_url", origin, &c.LogAnalyticsURL}, {"portal_url", origin, &c.PortalURL},
	}
	optional := []hostMember{{"vault_scope", scope, &c.VaultScope}, {"hsm_scope", scope, &c.HSMScope}, {"log_analytics_scope", scope, &c.LogAnalyticsScope},
		{"token_exchange", tokenExchange, &c.TokenExchange}}
	seen := map[string]bool{}
	for _, m := range members {
		seen[m.name] = true
		if err := readMember(m, slices.Concat(required, optional), &c, &override); err != nil {
			return Cloud{}, false, err
		}
	}
	for _, f := range required {
		if !seen[f.name] {
			return Cloud{}, false, fmt.Errorf("member %q is missing: every host of the cloud must be named", f.name)
		}
	}
	if len(c.ExchangeRedirects) == 0 {
		return Cloud{}, false, errors.New(`member "exchange_redirects" is missing: name the domains to which Exchange may send a request on, the host of exchange_url at least`)
	}
	c.complete()
	return c, override, nil
}

// readMember reads one member of a cloud into its place.
func readMember(m member, fields []hostMember, c *Cloud, override *bool) error {
	switch m.name {
	case "override":
		if json.Unmarshal(m.value, override) != nil || string(m.value) == "null" {
			return errors.New(`member "override" must be true or false`)
		}
		return nil
	case "exchange_redirects":
		if json.Unmarshal(m.value, &c.ExchangeRedirects) != nil {
			return errors.New(`member "exchange_redirects" must be a list of host names`)
		}
		for _, d := range c.ExchangeRedirects {
			if err := domain(d); err != nil {
				return fmt.Errorf(`member "exchange_redirects": %w`, err)
			}
		}
		return nil
	}
	names := []string{"override", "exchange_redirects"}
	for _, f := range fields {
		if names = append(names, f.name); f.name != m.name {
			continue
		}
		s, err := text(m)
		if err == nil {
			err = f.check(s)
		}
		if err != nil {
			return fmt.Errorf("member %q: %w", m.name, err)
		}
		*f.to = strings.TrimSuffix(s, "/")
		return nil
	}
	slices.Sort(names)
	return fmt.Errorf("unknown member %q: use %s", m.name, strings.Join(names, ", "))
}

// complete fills in the scopes left out and azcore's form of the cloud.
func (c *Cloud) complete() {
	for _, d := range []struct {
		to   *string
		from string
	}{{&c.VaultScope, "https://" + c.VaultSuffix}, {&c.HSMScope, "https://" + c.HSMSuffix}, {&c.LogAnalyticsScope, c.LogAnalyticsURL}} {
		if *d.to == "" {
			*d.to = d.from + "/.default"
		}
	}
	if c.TokenExchange == "" {
		c.TokenExchange = "api://AzureADTokenExchange"
	}
	c.Azure = cloud.Configuration{
		ActiveDirectoryAuthorityHost: c.Authority + "/",
		Services: map[cloud.ServiceName]cloud.ServiceConfiguration{
			cloud.ResourceManager: {Audience: c.ResourceManager, Endpoint: c.ResourceManager},
		},
	}
}

// origin accepts https://host in the one form in which hosts are compared.
func origin(s string) error {
	u, err := Origin(s)
	if err != nil {
		return err
	}
	if u.Port() != "" {
		return fmt.Errorf("%q: leave the port away", s)
	}
	return domain(u.Host)
}

// domain accepts a host name of two labels or more: of one label ("com") it
// would be everybody's.
func domain(s string) error {
	labels := strings.Split(s, ".")
	if len(labels) < 2 {
		return fmt.Errorf("%q is not a domain of two labels or more", s)
	}
	for _, l := range labels {
		if !isLabel(l) {
			return fmt.Errorf("%q is not a host name in lower case", s)
		}
	}
	return nil
}

func adminSuffix(s string) error {
	rest, ok := strings.CutPrefix(s, "-admin.")
	if !ok {
		return fmt.Errorf("%q must begin with -admin. and go on with SharePoint's domain", s)
	}
	return domain(rest)
}

func scope(s string) error {
	resource, ok := strings.CutSuffix(s, "/.default")
	if !ok {
		return fmt.Errorf("%q must end in /.default", s)
	}
	return origin(resource)
}

func tokenExchange(s string) error {
	if !strings.HasPrefix(s, "api://") || strings.HasSuffix(s, "/.default") {
		return fmt.Errorf("%q must begin with api:// and name the audience without /.default", s)
	}
	return nil
}
