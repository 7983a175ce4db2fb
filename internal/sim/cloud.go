package sim

import "strings"

// cloud is the set of host names of one Microsoft cloud.
type cloud struct {
	name     string
	logins   []string // the first is the one that challenges name
	vault    string   // suffix of vault hosts
	exchange string
	admin    string // suffix of SharePoint admin hosts
	arm      string // Azure Resource Manager
	armCore  string // the older name of its audience
}

// hsm is the suffix of Managed HSM hosts.
func (c cloud) hsm() string { return "managedhsm" + strings.TrimPrefix(c.vault, "vault") }

// clouds returns the clouds in which a seed's tenant may live. The names are
// the values of a tenant's member "cloud".
func clouds() []cloud {
	return []cloud{
		{"public", []string{"login.microsoftonline.com", "login.windows.net", "login.microsoft.com", "sts.windows.net"},
			"vault.azure.net", "outlook.office365.com", "-admin.sharepoint.com",
			"management.azure.com", "management.core.windows.net"},
		{"gcc_high", []string{"login.microsoftonline.us"},
			"vault.usgovcloudapi.net", "outlook.office365.us", "-admin.sharepoint.us",
			"management.usgovcloudapi.net", "management.core.usgovcloudapi.net"},
		{"dod", []string{"login.microsoftonline.us"},
			"vault.usgovcloudapi.net", "outlook-dod.office365.us", "-admin.sharepoint-mil.us",
			"management.usgovcloudapi.net", "management.core.usgovcloudapi.net"},
		{"china", []string{"login.chinacloudapi.cn", "login.partner.microsoftonline.cn"},
			"vault.azure.cn", "outlook.office365.cn", "-admin.sharepoint.cn",
			"management.chinacloudapi.cn", "management.core.chinacloudapi.cn"},
	}
}

// cloudNamed finds a cloud by its seed name; "" means public.
func cloudNamed(name string) (cloud, bool) {
	if name == "" {
		name = "public"
	}
	for _, c := range clouds() {
		if c.name == name {
			return c, true
		}
	}
	return cloud{}, false
}

func cloudNames() []string {
	var out []string
	for _, c := range clouds() {
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
func serviceOf(host string) string {
	for _, c := range clouds() {
		for _, l := range c.logins {
			if host == l {
				return ServiceEntra
			}
		}
		switch {
		case strings.HasSuffix(host, "."+c.vault), strings.HasSuffix(host, "."+c.hsm()):
			return ServiceKeyVault
		case host == c.exchange:
			return ServiceExchange
		case host == c.arm:
			return ServiceResourceManager
		case strings.HasSuffix(host, c.admin):
			return ServiceSharePoint
		}
	}
	return ""
}

// dialSuffixes returns every host suffix that the simulator serves, each once.
func dialSuffixes() []string {
	var out []string
	seen := map[string]bool{}
	add := func(s string) {
		if !seen[s] {
			seen[s] = true
			out = append(out, s)
		}
	}
	for _, c := range clouds() {
		for _, l := range c.logins {
			add(l)
		}
		add(c.vault)
		add(c.hsm())
		add(c.exchange)
		add(c.arm)
		add(strings.TrimPrefix(c.admin, "-admin."))
	}
	return out
}

// hostOnly lower-cases a Host header and takes the port off.
func hostOnly(hostport string) string {
	host, _, _ := strings.Cut(strings.ToLower(hostport), ":")
	return host
}
