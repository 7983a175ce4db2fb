package arm

import (
	"context"
	"slices"
	"strings"
	"sync"

	"github.com/keyroll/keyroll/internal/roll"
)

// Roles are role definitions that have been read, so that each is read once in
// a survey: the same few hold at every vault. Safe for concurrent use.
type Roles struct {
	mu    sync.Mutex
	known map[string]rights
}

// rights are what a role lets its holder do with a vault.
type rights struct {
	may     []roll.KeyRight
	manages bool
}

// permission is a block of a role definition.
type permission struct {
	Actions        []string `json:"actions"`
	NotActions     []string `json:"notActions"`
	DataActions    []string `json:"dataActions"`
	NotDataActions []string `json:"notDataActions"`
}

// dataActions are Azure's words for rights on keys.
func dataActions() map[roll.KeyRight]string {
	const keys = "Microsoft.KeyVault/vaults/keys/"
	return map[roll.KeyRight]string{roll.MayGet: keys + "read", roll.MayList: keys + "read", roll.MayCreate: keys + "create/action",
		roll.MayWrap: keys + "wrap/action", roll.MayUnwrap: keys + "unwrap/action", roll.MayDelete: keys + "delete", roll.MayPurge: keys + "purge/action"}
}

// manage are actions by which a vault's holder could get at its keys: change
// the vault, or say who may do what.
func manage() []string {
	return []string{"Microsoft.KeyVault/vaults/write", "Microsoft.KeyVault/vaults/delete", "Microsoft.Authorization/roleAssignments/write"}
}

// Grants reads who has which rights at a vault by role, there and above.
func (c *Client) Grants(ctx context.Context, vaultID string, roles *Roles) ([]roll.VaultGrant, error) {
	type wire struct {
		Properties struct {
			PrincipalID      string `json:"principalId"`
			PrincipalType    string `json:"principalType"`
			RoleDefinitionID string `json:"roleDefinitionId"`
			Condition        string `json:"condition"`
		} `json:"properties"`
	}
	found, err := list[wire](ctx, c, opAssignments, vaultID+"/providers/Microsoft.Authorization/roleAssignments", versionAuthorization, "$filter=atScope()")
	if err != nil {
		return nil, err
	}
	var out []roll.VaultGrant
	for _, a := range found {
		p := a.Properties
		r, err := c.role(ctx, p.RoleDefinitionID, roles)
		if err != nil {
			return nil, err
		}
		if len(r.may) == 0 && !r.manages {
			continue
		}
		out = append(out, roll.VaultGrant{Principal: p.PrincipalID, Kind: p.PrincipalType, May: r.may, Manages: r.manages,
			Unsure: strings.HasSuffix(p.PrincipalType, "Group") || p.Condition != ""})
	}
	return out, nil
}

func (c *Client) role(ctx context.Context, id string, roles *Roles) (rights, error) {
	key := strings.ToLower(id[strings.LastIndex(id, "/")+1:])
	roles.mu.Lock()
	r, ok := roles.known[key]
	roles.mu.Unlock()
	if ok {
		return r, nil
	}
	// A built-in role's id may name no subscription.
	if err := segment(opDefinition, "/subscriptions"+id); err != nil || !strings.HasPrefix(id, "/") {
		return r, protocol(opDefinition, "an assignment names no role")
	}
	var doc struct {
		Properties struct {
			Permissions []permission `json:"permissions"`
		} `json:"properties"`
	}
	if err := c.get(ctx, opDefinition, c.base+id+"?api-version="+versionAuthorization, &doc); err != nil {
		return r, err
	}
	r = rightsOf(doc.Properties.Permissions)
	roles.mu.Lock()
	defer roles.mu.Unlock()
	if roles.known == nil {
		roles.known = map[string]rights{}
	}
	roles.known[key] = r
	return r, nil
}

func rightsOf(blocks []permission) rights {
	var out rights
	actions := dataActions()
	for _, r := range roll.KeyRights() {
		if slices.ContainsFunc(blocks, func(p permission) bool { return matches(p.DataActions, p.NotDataActions, actions[r]) }) {
			out.may = append(out.may, r)
		}
	}
	for _, a := range manage() {
		out.manages = out.manages || slices.ContainsFunc(blocks, func(p permission) bool { return matches(p.Actions, p.NotActions, a) })
	}
	return out
}

// matches says whether a block permits an action: any pattern of yes, and none of no.
func matches(yes, no []string, action string) bool {
	has := func(patterns []string) bool {
		return slices.ContainsFunc(patterns, func(p string) bool { return matchPattern(strings.ToLower(p), strings.ToLower(action)) })
	}
	return has(yes) && !has(no)
}

// matchPattern: in Azure's patterns a star stands for anything, slashes too.
func matchPattern(pattern, s string) bool {
	head, rest, star := strings.Cut(pattern, "*")
	if !star {
		return pattern == s
	}
	if !strings.HasPrefix(s, head) {
		return false
	}
	s = s[len(head):]
	for i := 0; i <= len(s); i++ {
		if matchPattern(rest, s[i:]) {
			return true
		}
	}
	return false
}
