package sim

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"
)

// CustomerKeyStatus numbers.
const (
	StatusUnregistered = 0
	StatusRegistering  = 1
	StatusRegistered   = 2
	StatusRolling      = 3
	StatusRecovering   = 4
)

// CustomerKeyVaultKeyType numbers.
const (
	slotPrimary   = 0
	slotSecondary = 1
)

func slotName(slot int) string { return [...]string{"primary", "secondary"}[slot] }

func statusNames() []string {
	return []string{"Unregistered", "Registering", "Registered", "Rolling", "Recovering"}
}

// geo is one SharePoint geography.
type geo struct {
	tenant     *tenant
	id, host   string
	status     int     // while nothing rolls
	progress   float64 // while nothing rolls
	sites      int
	perSecond  float64
	uriVersion bool
	uriForm    string

	progressForm string
	changeAtEnd  bool
	slots        [2]*version
	rolling      []*rolling // more than one in trap mode only
	shown        []geoView  // what status reads have shown, each change once
}

// rolling is one key roll under way.
type rolling struct {
	slot     int
	to       *version
	start    time.Time
	duration time.Duration
	record   *Effect
	frozenBy *fault // while set, the roll stops at frozenAt percent
	frozenAt float64
}

func (w *World) addGeo(t *tenant, s SharePoint, g Geo) error {
	host := strings.ToLower(g.AdminHost)
	status := slices.Index(statusNames(), or(g.Status, "Registered"))
	switch {
	case !strings.HasSuffix(host, t.cloud.admin):
		return fmt.Errorf("admin_host %q does not end in %s", g.AdminHost, t.cloud.admin)
	case w.geos[host] != nil:
		return fmt.Errorf("admin_host %q is used twice", g.AdminHost)
	case status < 0:
		return fmt.Errorf("unknown status %q", g.Status)
	case s.URIChange != "" && s.URIChange != "end" && s.URIChange != "start":
		return fmt.Errorf("uri_change %q is not end or start", s.URIChange)
	}
	out := &geo{tenant: t, id: g.ID, host: host, status: status, progress: g.Progress, sites: g.SiteCount,
		perSecond: or(s.SitesPerSecond, 80), uriVersion: s.URIVersion == nil || *s.URIVersion, changeAtEnd: s.URIChange != "start"}
	t.change(out, s.SharePointOddities.withDefaults())
	if status == StatusRegistered {
		out.progress = 100
	}
	for i, slot := range []Slot{g.Primary, g.Secondary} {
		if slot == (Slot{}) && status == StatusUnregistered {
			continue
		}
		v := w.slotVersion(t, slot)
		if v == nil {
			return fmt.Errorf("the %s slot names no key version of the tenant", slotName(i))
		}
		out.slots[i] = v
	}
	w.geos[host] = out
	t.geos = append(t.geos, out)
	return nil
}

func (w *World) slotVersion(t *tenant, s Slot) *version {
	v := w.vaultOf(s.Vault)
	if v == nil || v.tenant != t {
		return nil
	}
	k := v.key(s.Key)
	if k == nil {
		return nil
	}
	if s.Version == "" {
		return k.newest()
	}
	return k.version(s.Version)
}

// roll begins a key roll and writes its effect's interval.
func (g *geo) roll(slot int, to *version, record *Effect, freeze *fault, now time.Time) {
	r := &rolling{slot: slot, to: to, start: now, record: record,
		duration: seconds(float64(g.sites) / g.perSecond), frozenBy: freeze}
	if freeze != nil {
		r.frozenAt = or(freeze.Params.Percent, 40)
	}
	record.Start, record.End = now, time.Time{}
	if !g.changeAtEnd {
		g.slots[slot] = to
	}
	g.rolling = append(g.rolling, r)
	g.settle(now) // a geo without sites is done at once
}

// settle ends the rolls that are due by now.
func (g *geo) settle(now time.Time) {
	if len(g.rolling) == 0 {
		return
	}
	slices.SortStableFunc(g.rolling, func(a, b *rolling) int { return a.end().Compare(b.end()) })
	g.rolling = slices.DeleteFunc(g.rolling, func(r *rolling) bool {
		if r.frozenBy != nil || now.Before(r.end()) {
			return false
		}
		g.slots[r.slot], r.record.End = r.to, r.end()
		return true
	})
}

func (r *rolling) end() time.Time { return r.start.Add(r.duration) }

// thaw lets the rolls go on that a fault has stopped, from where they stood.
func (g *geo) thaw(f *fault, now time.Time) {
	for _, r := range g.rolling {
		if r.frozenBy == f {
			done := time.Duration(r.percent(now) / 100 * float64(r.duration))
			r.frozenBy, r.start = nil, now.Add(-done)
		}
	}
	g.settle(now)
}

// percent of the sites that the roll has gone through.
func (r *rolling) percent(now time.Time) float64 {
	p := 100.0
	if r.duration > 0 {
		p = min(100, 100*float64(now.Sub(r.start))/float64(r.duration))
	}
	if r.frozenBy != nil {
		p = min(p, r.frozenAt)
	}
	return math.Round(p*100) / 100
}

// seen is the status number and percentage that the service reports.
func (g *geo) seen(now time.Time) (status int, progress float64) {
	if len(g.rolling) == 0 {
		return g.status, g.progress
	}
	progress = 100
	for _, r := range g.rolling {
		progress = min(progress, r.percent(now))
	}
	return StatusRolling, progress
}

// uri is a slot's key as the status shows it.
func (g *geo) uri(slot int) string {
	v := g.slots[slot]
	switch {
	case v == nil:
		return ""
	case g.uriVersion:
		return g.writeURI(v.kid())
	default:
		return g.writeURI(v.key.id())
	}
}

// keys returns the keys in the slots.
func (g *geo) keys() []*key {
	var out []*key
	for _, v := range g.slots {
		if v != nil {
			out = append(out, v.key)
		}
	}
	return out
}
