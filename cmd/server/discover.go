package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"regexp"
	"strings"
	"text/tabwriter"

	"github.com/keyroll/keyroll/internal/api"
	"github.com/keyroll/keyroll/internal/control"
	"github.com/keyroll/keyroll/internal/msapi"
	"github.com/keyroll/keyroll/internal/roll"
	"github.com/keyroll/keyroll/internal/store"
	"github.com/keyroll/keyroll/internal/survey"
)

// adminURLs are the values of --admin-url: an address, or GEO=address.
type adminURLs []string

func (a *adminURLs) String() string     { return strings.Join(*a, ",") }
func (a *adminURLs) Set(v string) error { *a = append(*a, v); return nil }

type discovery struct {
	tenant, name, cloud, credential string
	admin                           adminURLs
	asJSON, checklist               bool
	db                              databaseFlags
}

func discoverCommand() command {
	return command{
		name:  "discover",
		short: "propose a tenant's declaration from what Microsoft has, or show how the two differ",
		long: `Discover reads a tenant's data encryption policies, their keys, the assignment and SharePoint's
key status, and changes nothing.

With --credential it needs no database: it proposes the whole declaration of a tenant that is not
declared yet, as JSON on stdout, ready for PUT /v1/tenants/{id}. What a person should look at, and
what could not be read, is told on stderr.

Without --credential it holds the declaration in the database against what Microsoft has, and
shows the drift as a table. It records nothing: POST /v1/tenants/{id}/discover does.

Credentials come from KEYROLL_CREDENTIALS_FILE. Exit code 1 says that something could not be
proposed, differs, or could not be read.`,
		examples: []string{
			"server discover --tenant 6c1f… --credential contoso \\",
			"  --admin-url https://contoso-admin.sharepoint.com > contoso.json",
			"server discover --tenant 6c1f… --credential contoso --checklist \\",
			"  --admin-url NAM=https://contoso-admin.sharepoint.com \\",
			"  --admin-url EUR=https://contosoeur-admin.sharepoint.com",
			"server discover --tenant 6c1f…",
		},
		setup: func(p *program, flags *flag.FlagSet) func(context.Context, []string) error {
			var d discovery
			d.db.declare(flags)
			flags.StringVar(&d.tenant, "tenant", "", "`GUID` of the Entra tenant")
			flags.StringVar(&d.cloud, "cloud", msapi.CloudPublic, "`NAME` of the tenant's cloud")
			flags.StringVar(&d.credential, "credential", "", "`NAME` in the credentials file; proposes a declaration")
			flags.StringVar(&d.name, "name", "", "the tenant's `NAME` in the proposal (default: from its SharePoint address)")
			flags.Var(&d.admin, "admin-url", "`URL` of a geo's SharePoint admin centre, or GEO=URL; once for each geo")
			flags.BoolVar(&d.asJSON, "json", false, "print the drift as JSON instead of a table")
			flags.BoolVar(&d.checklist, "checklist", false, "print what is still to be granted in the tenant, with the commands, instead")
			return func(ctx context.Context, _ []string) error { return p.discover(ctx, d) }
		},
	}
}

func (p *program) discover(ctx context.Context, d discovery) error {
	d.tenant = strings.ToLower(d.tenant)
	if !regexp.MustCompile(`^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`).MatchString(d.tenant) {
		return misused("which tenant? Give --tenant and the GUID of its Entra tenant")
	}
	if d.credential == "" && len(d.admin) > 0 {
		return misused("--admin-url goes with --credential: together they propose a declaration")
	}
	gw, done, err := p.gateway()
	if err != nil {
		return err
	}
	defer done()
	if d.credential != "" {
		return p.propose(ctx, d, gw)
	}
	return p.compare(ctx, d, gw)
}

// gateway opens Microsoft as serve does, without a database.
func (p *program) gateway() (*survey.Gateway, func(), error) {
	env := func(name string) string { return p.env[envPrefix+name] }
	cfg := Config{CredentialsFile: env("CREDENTIALS_FILE"), CloudsFile: env("CLOUDS_FILE"), AllowSimulator: env("ALLOW_SIMULATOR") == "true",
		DialMap: env("DIAL_MAP"), ExtraCAFile: env("EXTRA_CA_FILE")}
	if cfg.CredentialsFile == "" {
		return nil, nil, misused("which credentials? Set %sCREDENTIALS_FILE", envPrefix)
	}
	k := &checker{}
	if cfg.checkMicrosoft(k); len(k.problems) > 0 {
		return nil, nil, &configError{k.problems}
	}
	s := &service{cfg: cfg}
	if err := s.openMicrosoft(context.Background()); err != nil {
		return nil, nil, err
	}
	return survey.NewGateway(s.creds, s.hc, msapi.WithClouds(s.clouds)), s.hc.CloseIdleConnections, nil
}

// progress tells people what takes its time.
func (p *program) progress(format string, args ...any) {
	if isTerminal(p.stderr) {
		fmt.Fprintf(p.stderr, format+"\n", args...)
	}
}

// base is what is known of the tenant before Microsoft is read.
func (d discovery) base() (roll.Inventory, error) {
	inv := roll.Inventory{TenantID: d.tenant, Name: d.name, Cloud: d.cloud, Credential: d.credential}
	for _, v := range d.admin {
		id, url, named := strings.Cut(v, "=")
		if !named {
			id, url = "", v
		}
		label, _, _ := strings.Cut(strings.TrimPrefix(url, "https://"), ".")
		label = strings.TrimSuffix(label, "-admin")
		if id == "" {
			id = label[:min(len(label), 16)]
		}
		if !regexp.MustCompile(`^[A-Za-z0-9-]{1,16}$`).MatchString(id) {
			return inv, misused("--admin-url %q: a geo's id has up to 16 letters, digits and dashes", v)
		}
		inv.Name = cmp.Or(inv.Name, label)
		inv.SharePoint.Geos = append(inv.SharePoint.Geos, roll.Geo{ID: id, AdminURL: strings.TrimSuffix(strings.ToLower(url), "/")})
	}
	inv.Name = cmp.Or(inv.Name, d.tenant)
	return inv, nil
}

// propose prints the declaration of a tenant that has none.
func (p *program) propose(ctx context.Context, d discovery, gw *survey.Gateway) error {
	base, err := d.base()
	if err != nil {
		return err
	}
	if err := gw.Check(base); err != nil {
		return err
	}
	p.progress("reading policies and %d geo(s) …", len(base.SharePoint.Geos))
	obs, _ := gw.Explore(ctx, base) // what failed is in obs, and becomes a finding
	if err := ctx.Err(); err != nil {
		return err
	}
	inv, found := roll.Propose(base, obs)
	if err := gw.Check(inv); err != nil {
		found = append(found, roll.Finding{Code: "not_declarable", Level: roll.LevelError, Subject: "declaration", Seen: err.Error(), Remedy: "correct it in the proposal, or name the right --cloud"})
	}
	p.progress("reading %d key(s) …", len(inv.Keys))
	only := roll.Inventory{TenantID: inv.TenantID, Cloud: inv.Cloud, Credential: inv.Credential, Keys: inv.Keys}
	keys, _ := gw.Discover(ctx, only)
	versions := 0
	for _, k := range inv.Keys {
		ko := keys.Keys[k.ID]
		versions += len(ko.Versions)
		if ko.Trouble != nil {
			found = append(found, roll.Finding{Code: "key_unreadable", Level: roll.LevelError, Subject: "key:" + k.ID,
				Seen:   fmt.Sprintf("key %s in vault %s cannot be read, so the declaration would be refused: %s", k.Name, k.VaultName(), ko.Trouble.Detail),
				Remedy: "grant Keyroll's application get and list on the vault's keys"})
		}
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	errs := p.findings(found)
	obs.Keys, obs.Self, obs.Vaults, obs.VaultsTrouble = keys.Keys, keys.Self, keys.Vaults, keys.VaultsTrouble
	grants := roll.Checklist(inv, gw.Grantee(inv), roll.Reads(inv, obs), roll.Proof{})
	if d.checklist {
		return p.grants(grants)
	}
	p.openGrants(grants)
	fmt.Fprintf(p.stderr, "proposed: %d policies, %d keys with %d versions, %d geos; put it with PUT /v1/tenants/%s and If-None-Match: *\n",
		len(inv.Policies), len(inv.Keys), versions, len(inv.SharePoint.Geos), inv.TenantID)
	if err := printJSON(p.stdout, api.DeclarationOf(inv)); err != nil {
		return err
	}
	if errs > 0 {
		fmt.Fprintf(p.stderr, "the proposal is not whole: %d error(s), see above\n", errs)
		return errTold
	}
	return nil
}

// findings prints them on stderr and counts the errors.
func (p *program) findings(found []roll.Finding) (errs int) {
	for _, f := range found {
		if f.Level == roll.LevelError {
			errs++
		}
		fmt.Fprintf(p.stderr, "%s: %s (%s): %s\n    %s\n", f.Level, f.Subject, f.Code, f.Seen, f.Remedy)
	}
	return errs
}

// compare shows how a declared tenant differs from what Microsoft has.
func (p *program) compare(ctx context.Context, d discovery, gw *survey.Gateway) error {
	st, done, err := d.db.open(ctx, p)
	if err != nil {
		return err
	}
	defer done()
	t, err := st.Tenant(ctx, d.tenant)
	if errors.Is(err, store.ErrNotFound) {
		return fmt.Errorf("tenant %s is not declared: give --credential and --admin-url, and a declaration is proposed", d.tenant)
	}
	if err != nil {
		return err
	}
	p.progress("reading %d keys, %d policies and %d geo(s) …", len(t.Inventory.Keys), len(t.Inventory.Policies), len(t.Inventory.SharePoint.Geos))
	out, err := control.Compare(ctx, st, gw, t)
	if err != nil {
		return err
	}
	if d.checklist {
		proof, err := st.Proof(ctx, d.tenant)
		if err != nil {
			return err
		}
		return p.grants(roll.Checklist(t.Inventory, gw.Grantee(t.Inventory), roll.Reads(t.Inventory, out.Observation), proof))
	}
	c := out.Comparison
	if d.asJSON {
		err = printJSON(p.stdout, map[string]any{"tenant_id": d.tenant, "drift": append([]roll.DriftItem{}, c.Drift...), "not_checked": append([]roll.NotChecked{}, c.NotChecked...)})
	} else {
		err = p.driftTable(c)
	}
	if err == nil && len(c.Drift)+c.Failed() > 0 {
		fmt.Fprintf(p.stderr, "%d difference(s), %d thing(s) not checked\n", len(c.Drift), c.Failed())
		return errTold
	}
	return err
}

// grants prints the checklist for people to work down.
func (p *program) grants(list []roll.Grant) error {
	for _, g := range list {
		fmt.Fprintf(p.stdout, "[%s] %s %s\n    for: %s\n    seen: %s\n", g.State, g.ID, g.Subject, g.NeededFor, g.Seen)
		for _, c := range g.Commands {
			fmt.Fprintf(p.stdout, "    %s> %s\n", g.Shell, c)
		}
		if g.Note != "" {
			fmt.Fprintf(p.stdout, "    note: %s\n", g.Note)
		}
	}
	return nil
}

// openGrants says which rights are missing or were not seen.
func (p *program) openGrants(list []roll.Grant) {
	var missing []string
	unknown := 0
	for _, g := range list {
		switch g.State {
		case roll.GrantMissing:
			missing = append(missing, g.ID+" "+g.Subject)
		case roll.GrantUnknown:
			unknown++
		case roll.GrantDone:
		}
	}
	for _, m := range missing {
		fmt.Fprintf(p.stderr, "still to be done: %s\n", m)
	}
	if len(missing)+unknown > 0 {
		fmt.Fprintf(p.stderr, "%d line(s) of the checklist to be done, %d not seen either way; the commands: the same with --checklist\n", len(missing), unknown)
	}
}

func (p *program) driftTable(c roll.Comparison) error {
	if len(c.Drift)+len(c.NotChecked) == 0 {
		fmt.Fprintln(p.stderr, "nothing differs")
		return nil
	}
	t := tabwriter.NewWriter(p.stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "CODE\tSUBJECT\tDECLARED\tSEEN\tWHAT TO DO")
	for _, it := range c.Drift {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\n", it.Code, it.Subject, it.Declared, it.Seen, it.Remedy)
	}
	for _, n := range c.NotChecked {
		fmt.Fprintf(t, "not checked: %s\t%s\t\t%s\t%s\n", n.Code, n.Subject, n.Detail, n.Remedy)
	}
	return t.Flush()
}
