package sim

import (
	"fmt"
	"slices"
	"strings"
)

// cloud is the set of host names of one Microsoft cloud.
type cloud struct {
	name      string
	logins    []string // the first is the one that challenges name
	vault     string   // suffix of vault hosts
	hsm       string   // suffix of Managed HSM hosts
	exchange  string
	redirects []string // domains of Exchange's regional hosts
	admin     string   // suffix of SharePoint admin hosts
	arm       string   // Azure Resource Manager
	armCore   string   // the older name of its audience
}

// clouds returns the clouds in which a seed's tenant may live without naming
// hosts of its own. The names are the values of a tenant's member "cloud".
func clouds() []cloud {
	return []cloud{
		{name: "public",
			logins: []string{"login.microsoftonline.com", "login.windows.net", "login.microsoft.com", "sts.windows.net"},
			vault:  "vault.azure.net", hsm: "managedhsm.azure.net",
			exchange: "outlook.office365.com", redirects: []string{"outlook.office365.com", "outlook.com"},
			admin: "-admin.sharepoint.com",
			arm:   "management.azure.com", armCore: "management.core.windows.net"},
		{name: "gcc_high",
			logins: []string{"login.microsoftonline.us"},
			vault:  "vault.usgovcloudapi.net", hsm: "managedhsm.usgovcloudapi.net",
			exchange: "outlook.office365.us", redirects: []string{"office365.us"},
			admin: "-admin.sharepoint.us",
			arm:   "management.usgovcloudapi.net", armCore: "management.core.usgovcloudapi.net"},
		{name: "dod",
			logins: []string{"login.microsoftonline.us"},
			vault:  "vault.usgovcloudapi.net", hsm: "managedhsm.usgovcloudapi.net",
			exchange: "outlook-dod.office365.us", redirects: []string{"office365.us"},
			admin: "-admin.sharepoint-mil.us",
			arm:   "management.usgovcloudapi.net", armCore: "management.core.usgovcloudapi.net"},
		{name: "china",
			logins: []string{"login.chinacloudapi.cn", "login.partner.microsoftonline.cn"},
			vault:  "vault.azure.cn", hsm: "managedhsm.azure.cn",
			exchange: "outlook.office365.cn", redirects: []string{"outlook.office365.cn", "partner.outlook.cn"},
			admin: "-admin.sharepoint.cn",
			arm:   "management.chinacloudapi.cn", armCore: "management.core.chinacloudapi.cn"},
	}
}

// addCloud adds a cloud of the seed's own, in the place of one of that name.
func (w *World) addCloud(s Cloud) error {
	switch {
	case s.Name == "":
		return fmt.Errorf("name is missing")
	case len(s.Logins) == 0 || s.Vault == "" || s.HSM == "" || s.Exchange == "" || s.ResourceManager == "":
		return fmt.Errorf("logins, vault, hsm, exchange and resource_manager must be named")
	case !strings.HasPrefix(s.SharePointAdmin, "-admin."):
		return fmt.Errorf("sharepoint_admin %q must begin with \"-admin.\"", s.SharePointAdmin)
	}
	c := cloud{name: s.Name, logins: slices.Clone(s.Logins), vault: s.Vault, hsm: s.HSM, exchange: s.Exchange,
		redirects: append([]string{s.Exchange}, s.ExchangeRedirects...), admin: s.SharePointAdmin,
		arm: s.ResourceManager, armCore: s.ResourceManager}
	w.clouds = slices.DeleteFunc(w.clouds, func(other cloud) bool { return other.name == c.name })
	w.clouds = append(w.clouds, c)
	return nil
}

// cloudNamed finds a cloud by its seed name; "" means public.
func (w *World) cloudNamed(name string) (cloud, bool) {
	for _, c := range w.clouds {
		if c.name == or(name, "public") {
			return c, true
		}
	}
	return cloud{}, false
}

// cloudNames lists what a tenant's member "cloud" may say.
func (w *World) cloudNames() []string {
	var out []string
	for _, c := range w.clouds {
		out = append(out, c.name)
	}
	return out
}

// The services, as faults, counts and the witness log name them.
const (
	// ServiceEntra is the token service.
	ServiceEntra = "entra"
	// ServiceKeyVault is Azure Key Vault.
	ServiceKeyVault = "keyvault"
	// ServiceExchange is Exchange Online's InvokeCommand.
	ServiceExchange = "exchange"
	// ServiceSharePoint is SharePoint Online's ProcessQuery.
	ServiceSharePoint = "sharepoint"
	// ServiceResourceManager is Azure Resource Manager.
	ServiceResourceManager = "resource_manager"
)

// serviceOf tells which service answers at host, "" when none does.
func (w *World) serviceOf(host string) string {
	for _, c := range w.clouds {
		switch {
		case slices.Contains(c.logins, host):
			return ServiceEntra
		case strings.HasSuffix(host, "."+c.vault), strings.HasSuffix(host, "."+c.hsm):
			return ServiceKeyVault
		case host == c.exchange || c.regional(host):
			return ServiceExchange
		case isLogHost(host):
			return ServiceLogs
		case host == c.arm:
			return ServiceResourceManager
		case strings.HasSuffix(host, c.admin):
			return ServiceSharePoint
		}
	}
	return ""
}

// regional reports whether host is one to which Exchange may send a request on.
func (c cloud) regional(host string) bool {
	return slices.ContainsFunc(c.redirects, func(d string) bool { return host == d || strings.HasSuffix(host, "."+d) })
}

// serves reports whether anything answers at host, an astray one too.
func (w *World) serves(host string) bool { return w.serviceOf(host) != "" || w.isAstray(host) }

// dialSuffixes returns every host suffix that the world serves, each once.
func (w *World) dialSuffixes() []string {
	var out []string
	for _, c := range w.clouds {
		out = append(out, c.logins...)
		out = append(out, c.vault, c.hsm, c.exchange)
		out = append(out, c.redirects...)
		out = append(out, c.arm, strings.TrimPrefix(c.admin, "-admin."))
	}
	for _, h := range logHosts() {
		out = append(out, h[0])
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, t := range w.tenants {
		if host := t.exo.RedirectHost; host != "" && !t.cloud.regional(host) {
			out = append(out, host)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// hostOnly lower-cases a Host header and takes the port off.
func hostOnly(hostport string) string {
	host, _, _ := strings.Cut(strings.ToLower(hostport), ":")
	return host
}
