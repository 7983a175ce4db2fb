package roll

import (
	"fmt"
	"slices"
	"strings"
)

// codeMayDelete: Keyroll's identity has a right that it must never use.
const codeMayDelete = "credential_may_delete"

// judgement is what Resource Manager shows of something that should be so:
// code is that of the finding that says otherwise, "" where all is in order;
// more follows the finding's remedy. A plan's findings and a tenant's checklist
// are made of the same judgements.
type judgement struct {
	code, seen string
	more       []string
}

// unseen says why nothing of a vault is known at Resource Manager; nil where
// the vault is seen there. Code not_granted: all that the identity may see was
// listed, and the vault is not among it.
func (o Observation) unseen(host string) *Trouble {
	switch v, ok := o.Vaults[host]; {
	case v.Trouble != nil:
		return v.Trouble
	case ok:
		return nil
	case o.VaultsTrouble != nil:
		return o.VaultsTrouble
	case o.Vaults == nil:
		return &Trouble{Code: "unread", Detail: "it was not read"}
	}
	return &Trouble{Code: "not_granted", Detail: "Keyroll's identity sees no such vault there"}
}

const throughOthers = "only a group, or a role under a condition, has the rights, and who is meant cannot be seen"

func (v VaultObservation) judgeNetwork(host string) judgement {
	switch {
	case v.Network == nil:
		return judgement{code: "network_not_checked", seen: "vault " + host + " shows no network rules, so whether a firewall keeps Microsoft 365 out was not checked"}
	case !v.Network.Admits():
		return judgement{code: "vault_firewall_denies_microsoft", seen: fmt.Sprintf("vault %s has default action %s, public access %s, and lets no trusted services through (bypass %s)",
			host, v.Network.DefaultAction, v.Network.PublicAccess, v.Network.Bypass)}
	}
	return judgement{seen: "Azure Resource Manager shows a vault that lets trusted Microsoft services through"}
}

// judgeService: the service that wraps for a workload, by its object id in the
// tenant, must be able to use the keys.
func (v VaultObservation) judgeService(host string, w Workload, who string) judgement {
	not := func(why string, more ...string) judgement {
		return judgement{code: "service_principal_not_checked", seen: "whether the service of " + string(w) + " may use the keys of vault " + host + " was not checked: " + why, more: more}
	}
	switch {
	case v.GrantsTrouble != nil:
		return not(v.GrantsTrouble.Detail)
	case who == "":
		return not("its object id in this tenant is not declared", "(Get-AzADServicePrincipal -ApplicationId "+ServiceAppID(w)+").Id shows it")
	}
	use := []KeyRight{MayGet, MayWrap, MayUnwrap}
	switch missing, open := v.lacks(who, use...); {
	case open:
		return not(throughOthers)
	case len(missing) > 0:
		return judgement{code: "service_principal_denied", seen: fmt.Sprintf("the service of %s (%s) lacks %s on the keys of vault %s", w, who, join(missing), host)}
	}
	return judgement{seen: fmt.Sprintf("Azure Resource Manager shows %s for the service of %s (%s)", join(use), w, who)}
}

// ownUnseen says that nothing is known of what Keyroll's identity may do.
func (v VaultObservation) ownUnseen(host, self string) (judgement, bool) {
	why := "its token does not say which principal it is"
	switch {
	case v.GrantsTrouble != nil:
		why = v.GrantsTrouble.Detail
	case self != "":
		return judgement{}, false
	}
	return ownNotChecked(host, why), true
}

func ownNotChecked(host, why string) judgement {
	return judgement{code: "credential_not_checked", seen: "what Keyroll's own identity may do with the keys of vault " + host + " was not checked: " + why}
}

// judgeOwn: Keyroll's identity must have the wanted rights.
func (v VaultObservation) judgeOwn(host, self string, wanted ...KeyRight) judgement {
	if j, unseen := v.ownUnseen(host, self); unseen {
		return j
	}
	switch missing, open := v.lacks(self, wanted...); {
	case open:
		return ownNotChecked(host, throughOthers)
	case len(missing) > 0:
		return judgement{code: "credential_lacks_rights", seen: fmt.Sprintf("Keyroll's identity (%s) lacks %s on the keys of vault %s", self, join(missing), host)}
	}
	return judgement{seen: fmt.Sprintf("Azure Resource Manager shows %s for Keyroll's identity (%s)", join(wanted), self)}
}

// judgeBounds: it should have no right to delete or purge.
func (v VaultObservation) judgeBounds(host, self string) judgement {
	if j, unseen := v.ownUnseen(host, self); unseen {
		return j
	}
	never := []KeyRight{MayDelete, MayPurge}
	held := func(rights []KeyRight) []KeyRight {
		return slices.DeleteFunc(slices.Clone(never), func(r KeyRight) bool { return !slices.Contains(rights, r) })
	}
	may, unsure := v.rights(self)
	switch much := held(may); {
	case len(much) > 0:
		return judgement{code: codeMayDelete, seen: fmt.Sprintf("Keyroll's identity (%s) may %s keys of vault %s; it never does", self, join(much), host)}
	case len(held(unsure)) > 0:
		return ownNotChecked(host, "a group, or a role under a condition, may delete or purge, and who is meant cannot be seen")
	}
	return judgement{seen: fmt.Sprintf("Azure Resource Manager shows no right to %s for Keyroll's identity (%s)", strings.ReplaceAll(join(never), ", ", " or "), self)}
}

func join(rights []KeyRight) string {
	out := make([]string, len(rights))
	for i, r := range rights {
		out[i] = string(r)
	}
	return strings.Join(out, ", ")
}
