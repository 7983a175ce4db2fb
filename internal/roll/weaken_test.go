package roll_test

import (
	"encoding/json"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/keyroll/keyroll/internal/roll"
)

// Whatever a declaration may say is classified: a member that somebody adds
// to the inventory without a thought for weakening makes this red.
func TestEveryMemberIsClassified(t *testing.T) {
	var got, want []string
	for _, m := range roll.Members() {
		got = append(got, m.Pointer)
		if m.Why == "" {
			t.Errorf("%s says not why", m.Pointer)
		}
	}
	members(reflect.TypeFor[roll.Inventory](), "", &want)
	slices.Sort(got)
	slices.Sort(want)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("roll.Members, with a case in TestWeakens, is to have what Inventory has (-type +list):\n%s", diff)
	}
}

// members collects the JSON pointers of a type's leaves, lists without index.
func members(t reflect.Type, at string, out *[]string) {
	for t.Kind() == reflect.Slice && t != reflect.TypeFor[json.RawMessage]() || t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if t.Kind() != reflect.Struct || t == reflect.TypeFor[time.Time]() {
		*out = append(*out, at)
		return
	}
	for i := range t.NumField() {
		name, _, _ := strings.Cut(t.Field(i).Tag.Get("json"), ",")
		if name == "-" {
			continue // no member of a declaration
		}
		members(t.Field(i).Type, at+"/"+name, out)
	}
}

func TestWeakens(t *testing.T) {
	type inv = roll.Inventory
	for name, c := range map[string]struct {
		old, now func(*inv)
		want     []string // pointer from→to
	}{
		"nothing":                     {nil, nil, nil},
		"name and labels":             {nil, func(i *inv) { i.Name, i.Labels = "x", map[string]string{"a": "b"} }, nil},
		"first window":                {nil, func(i *inv) { i.Windows = []roll.Window{weekend()} }, nil},
		"no windows":                  {func(i *inv) { i.Windows = []roll.Window{weekend()} }, nil, []string{"/windows 1 windows→none"}},
		"another window":              {func(i *inv) { i.Windows = []roll.Window{weekend()} }, func(i *inv) { w := weekend(); w.Start = "21:00"; i.Windows = []roll.Window{weekend(), w} }, []string{"/windows/1 →21:00 sat,sun for 8h0m0s"}},
		"freeze":                      {nil, func(i *inv) { i.Freezes = []roll.Freeze{{From: start, To: start.Add(time.Hour), Reason: "x"}} }, nil},
		"freeze longer":               {func(i *inv) { i.Freezes = []roll.Freeze{{From: start, To: start.Add(time.Hour), Reason: "x"}} }, func(i *inv) { i.Freezes = []roll.Freeze{{From: start, To: start.Add(2 * time.Hour), Reason: "y"}} }, nil},
		"no freeze":                   {func(i *inv) { i.Freezes = []roll.Freeze{{From: start, To: start.Add(time.Hour), Reason: "x"}} }, nil, []string{"/freezes/0 2026-03-02T08:00:00Z to 2026-03-02T09:00:00Z→"}},
		"freeze cut short":            {func(i *inv) { i.Freezes = []roll.Freeze{{From: start, To: start.Add(time.Hour), Reason: "x"}} }, func(i *inv) { i.Freezes = []roll.Freeze{{From: start, To: start.Add(time.Minute), Reason: "x"}} }, []string{"/freezes/0 2026-03-02T08:00:00Z to 2026-03-02T09:00:00Z→"}},
		"cloud":                       {nil, func(i *inv) { i.Cloud = "dod" }, []string{"/cloud public→dod"}},
		"credential":                  {nil, func(i *inv) { i.Credential = "other" }, []string{"/credential contoso→other"}},
		"credential in other letters": {nil, func(i *inv) { i.Credential = "Contoso" }, []string{"/credential contoso→Contoso"}},
		"approval off":                {nil, func(i *inv) { i.Approval = roll.ApprovalNotRequired }, []string{"/approval required→not_required"}},
		"approval on":                 {func(i *inv) { i.Approval = roll.ApprovalNotRequired }, nil, nil},
		"approval left out, off":      {func(i *inv) { i.Approval = "" }, func(i *inv) { i.Approval = roll.ApprovalNotRequired }, []string{"/approval required→not_required"}},
		"lease per geo":               {nil, func(i *inv) { i.SharePoint.Lease = roll.LeasePerGeo }, []string{"/sharepoint/lease tenant→geo"}},
		"lease per tenant":            {func(i *inv) { i.SharePoint.Lease = roll.LeasePerGeo }, nil, nil},
		"gap shorter":                 {nil, func(i *inv) { i.SharePoint.MinGap = roll.Duration(time.Hour) }, []string{"/sharepoint/min_gap 24h0m0s→1h0m0s"}},
		"gap longer":                  {nil, func(i *inv) { i.SharePoint.MinGap = roll.Duration(48 * time.Hour) }, nil},
		"geo added": {nil, func(i *inv) {
			i.SharePoint.Geos = append(slices.Clone(i.SharePoint.Geos), roll.Geo{ID: "EUR", AdminURL: "https://e"})
		}, []string{"/sharepoint/geos/EUR →https://e"}},
		"geo gone":      {nil, func(i *inv) { i.SharePoint.Geos = nil }, []string{"/sharepoint/geos/NAM https://contoso-admin.sharepoint.com→"}},
		"geo elsewhere": {nil, func(i *inv) { i.SharePoint.Geos = []roll.Geo{{ID: "NAM", AdminURL: "https://e"}} }, []string{"/sharepoint/geos/NAM https://contoso-admin.sharepoint.com→https://e"}},
		"geo in other letters": {nil, func(i *inv) {
			i.SharePoint.Geos = []roll.Geo{{ID: "NAM", AdminURL: "https://CONTOSO-admin.sharepoint.com/"}}
		}, nil},
		"key elsewhere":        {nil, func(i *inv) { i.Keys[0].VaultURL = "https://evil.vault.azure.net" }, []string{"/keys/m-a contoso-m-a.vault.azure.net→evil.vault.azure.net"}},
		"keys change vaults":   {nil, func(i *inv) { i.Keys[0].VaultURL = i.Keys[1].VaultURL }, []string{"/keys/m-a contoso-m-a.vault.azure.net→contoso-m-b.vault.azure.net"}},
		"key in a known vault": {nil, func(i *inv) { i.Keys = append(i.Keys, roll.Key{ID: "n", VaultURL: i.Keys[0].VaultURL, Name: "N"}) }, nil},
		"key in a new vault": {nil, func(i *inv) {
			i.Keys = append(i.Keys, roll.Key{ID: "n", VaultURL: "https://n.vault.azure.net", Name: "N"})
		}, []string{"/keys/n →n.vault.azure.net"}},
		"key gone, another id elsewhere": {nil, func(i *inv) { i.Keys[0] = roll.Key{ID: "n", VaultURL: "https://n.vault.azure.net", Name: "N"} }, []string{"/keys/n →n.vault.azure.net"}},
		"key becomes a former one":       {nil, func(i *inv) { i.FormerKeys, i.Keys = i.Keys[:1], i.Keys[1:] }, nil},
		"former key in a new vault":      {nil, func(i *inv) { i.FormerKeys = []roll.Key{{ID: "f", VaultURL: "https://f.vault.azure.net", Name: "F"}} }, []string{"/former_keys/f →f.vault.azure.net"}},
		"key by another name":            {nil, func(i *inv) { i.Keys[0].Name = "X" }, nil},
		"policies":                       {nil, func(i *inv) { i.Policies = i.Policies[:1] }, nil},
		"a principal named":              {func(i *inv) { i.Azure = roll.AzureSettings{} }, func(i *inv) { i.Azure.ServicePrincipals.Exchange = "a" }, nil},
		"another principal":              {nil, func(i *inv) { i.Azure.ServicePrincipals.Exchange = "b" }, []string{"/azure/service_principals/exchange sp-exo→b"}},
		"no principal any more":          {nil, func(i *inv) { i.Azure.ServicePrincipals.MultiWorkload = "" }, []string{"/azure/service_principals/multi_workload sp-m→"}},
		"error weakened":                 {nil, func(i *inv) { i.Vetoes = map[string]string{"rotation_policy_expiry": "warning"} }, []string{"/vetoes/rotation_policy_expiry error→warning"}},
		"error said again":               {nil, func(i *inv) { i.Vetoes = map[string]string{"rotation_policy_expiry": "error"} }, nil},
		"error restored":                 {func(i *inv) { i.Vetoes = map[string]string{"rotation_policy_expiry": "warning"} }, nil, nil},
		"warning made an error":          {nil, func(i *inv) { i.Vetoes = map[string]string{"software_key": "error"} }, nil},
		"and no longer":                  {func(i *inv) { i.Vetoes = map[string]string{"software_key": "error"} }, nil, []string{"/vetoes/software_key error→warning"}},
		"exchange by hand":               {nil, func(i *inv) { i.Transports.Exchange = "manual" }, []string{"/transports/exchange auto→manual"}},
		"sharepoint by hand":             {nil, func(i *inv) { i.Transports.SharePoint = "manual" }, []string{"/transports/sharepoint auto→manual"}},
		"a geo by hand": {nil, func(i *inv) {
			i.SharePoint.Geos = []roll.Geo{{ID: "NAM", AdminURL: i.SharePoint.Geos[0].AdminURL, Transport: "manual"}}
		}, []string{"/sharepoint/geos/NAM/transport auto→manual"}},
		"a geo follows the tenant to hands": {func(i *inv) {
			i.Transports.SharePoint = "manual"
			i.SharePoint.Geos = []roll.Geo{{ID: "NAM", AdminURL: i.SharePoint.Geos[0].AdminURL, Transport: "csom"}}
		}, func(i *inv) { i.Transports.SharePoint = "manual" }, []string{"/sharepoint/geos/NAM/transport csom→manual"}},
		"no longer by hand":    {func(i *inv) { i.Transports.Exchange = "manual" }, func(i *inv) { i.Transports.Exchange = "automation" }, nil},
		"another log":          {func(i *inv) { i.Diagnostics = &roll.Diagnostics{WorkspaceID: "a"} }, func(i *inv) { i.Diagnostics = &roll.Diagnostics{WorkspaceID: "b"} }, []string{"/diagnostics/workspace_id a→b"}},
		"a log":                {nil, func(i *inv) { i.Diagnostics = &roll.Diagnostics{WorkspaceID: "b"} }, []string{"/diagnostics/workspace_id →b"}},
		"no log any more":      {func(i *inv) { i.Diagnostics = &roll.Diagnostics{WorkspaceID: "a"} }, nil, nil},
		"a runbook account":    {nil, func(i *inv) { i.Automation = &roll.AutomationAccount{Account: "/a", RunOn: "g"} }, []string{"/automation/account →/a"}},
		"on other machines":    {func(i *inv) { i.Automation = &roll.AutomationAccount{Account: "/a"} }, func(i *inv) { i.Automation = &roll.AutomationAccount{Account: "/a", RunOn: "g"} }, []string{"/automation/run_on →g"}},
		"no runbooks any more": {func(i *inv) { i.Automation = &roll.AutomationAccount{Account: "/a"} }, nil, nil},
		"two at once":          {nil, func(i *inv) { i.Credential, i.Approval = "x", roll.ApprovalNotRequired }, []string{"/approval required→not_required", "/credential contoso→x"}},
	} {
		old, now := contoso(), contoso()
		if c.old != nil {
			c.old(&old)
		}
		if c.now != nil {
			c.now(&now)
		}
		var got []string
		for _, w := range roll.Weakens(old, now) {
			got = append(got, w.Pointer+" "+w.From+"→"+w.To)
			if w.What == "" {
				t.Errorf("%s: says not what", name)
			}
		}
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

func TestWeakensDefaults(t *testing.T) {
	first := contoso()
	first.SharePoint.MinGap, first.SharePoint.Lease = 0, roll.LeasePerGeo
	if got := roll.WeakensDefaults(first); len(got) != 0 {
		t.Errorf("a first declaration weakens %v", got)
	}
	first.Approval, first.Vetoes = roll.ApprovalNotRequired, map[string]string{"rotation_policy_expiry": "warning"}
	// An account and a log say what Keyroll sees: nobody has agreed to them yet.
	first.Automation, first.Diagnostics = &roll.AutomationAccount{Account: "/a"}, &roll.Diagnostics{WorkspaceID: "w"}
	if got := roll.WeakensDefaults(first); len(got) != 4 {
		t.Errorf("a first declaration without approval, and with a veto down, weakens %v", got)
	}
}
