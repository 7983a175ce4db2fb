package sim

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"
)

// SharePointOddities are what SharePoint may do that Microsoft does not
// document. In a seed they are the tenant's; settings may change one geo's,
// except RollsPer and SecretTokenStatus, which stay the tenant's.
type SharePointOddities struct {
	// RollsPer is how many key operations may run at once: one per "geo"
	// (default), or one per "tenant". A second one gets an ErrorInfo.
	RollsPer string `json:"rolls_per,omitempty"`
	// ProgressForm is how the percentage is shown: "value" (default), "null", or
	// "absent".
	ProgressForm string `json:"progress_form,omitempty"`
	// URIForm is how key URIs are written: "plain" (default), "trailing_slash",
	// "upper_case" or "port" (":443" after the host).
	URIForm string `json:"uri_form,omitempty"`
	// SecretTokenStatus is the status with which a token bought by a secret is
	// refused: 401 (default) or 403.
	SecretTokenStatus int `json:"secret_token_status,omitempty"`
}

// withDefaults names what was left out.
func (o SharePointOddities) withDefaults() SharePointOddities {
	o.RollsPer, o.ProgressForm, o.URIForm = or(o.RollsPer, "geo"), or(o.ProgressForm, "value"), or(o.URIForm, "plain")
	o.SecretTokenStatus = or(o.SecretTokenStatus, http.StatusUnauthorized)
	return o
}

// check says which member means nothing.
func (o SharePointOddities) check() error {
	o = o.withDefaults()
	for _, f := range []struct {
		name, value string
		known       []string
	}{
		{"rolls_per", o.RollsPer, []string{"geo", "tenant"}},
		{"progress_form", o.ProgressForm, []string{"value", "null", "absent"}},
		{"uri_form", o.URIForm, []string{"plain", "trailing_slash", "upper_case", "port"}},
	} {
		if !slices.Contains(f.known, f.value) {
			return misfit(f.name, fmt.Errorf("%s %q is none of %s", f.name, f.value, strings.Join(f.known, ", ")))
		}
	}
	if o.SecretTokenStatus != http.StatusUnauthorized && o.SecretTokenStatus != http.StatusForbidden {
		return misfit("secret_token_status", fmt.Errorf("secret_token_status %d is neither 401 nor 403", o.SecretTokenStatus))
	}
	return nil
}

// change takes over what is named; the lock is held.
func (t *tenant) change(g *geo, o SharePointOddities) {
	t.rollsPer, t.secretStatus = or(o.RollsPer, t.rollsPer), or(o.SecretTokenStatus, t.secretStatus)
	g.progressForm, g.uriForm = or(o.ProgressForm, g.progressForm), or(o.URIForm, g.uriForm)
}

// elsewhere is another geo of the tenant whose operation keeps this one from
// beginning, or nil.
func (g *geo) elsewhere() *geo {
	if g.tenant.rollsPer != "tenant" {
		return nil
	}
	for _, other := range g.tenant.geos {
		if other != g && len(other.rolling) > 0 {
			return other
		}
	}
	return nil
}

// writeURI puts a key identifier into the geo's form.
func (g *geo) writeURI(id string) string {
	switch g.uriForm {
	case "trailing_slash":
		return id + "/"
	case "upper_case":
		return strings.ToUpper(id)
	case "port":
		return strings.Replace(id, "/keys/", ":443/keys/", 1)
	default:
		return id
	}
}

// statusInfo is the value object of a status answer.
func (g *geo) statusInfo(c *call, now time.Time) map[string]any {
	view := g.view(c, now)
	out := map[string]any{
		"_ObjectType_":         "SP.CustomerKeyStatusInfo",
		"PrimaryKeyVaultUri":   view.primary,
		"SecondaryKeyVaultUri": view.secondary,
		"RecoveryEnabled":      view.status == StatusRecovering,
		"Status":               view.status,
		"RegistrationProgress": view.progress,
	}
	switch g.progressForm {
	case "null":
		out["RegistrationProgress"] = nil
	case "absent":
		delete(out, "RegistrationProgress")
	}
	return out
}
