package sim

import "time"

// geoView is what a status read shows of a geo.
type geoView struct {
	status             int
	progress           float64
	primary, secondary string
}

// maxViews is how far back a geo remembers what it has shown.
const maxViews = 32

// view is what the geo shows a call now, or showed some changes ago where a
// fault wants that.
func (g *geo) view(c *call, now time.Time) geoView {
	v := geoView{primary: g.uri(slotPrimary), secondary: g.uri(slotSecondary)}
	v.status, v.progress = g.seen(now)
	if n := len(g.shown); n == 0 || g.shown[n-1] != v {
		g.shown = append(g.shown, v)
	}
	if len(g.shown) > maxViews {
		g.shown = g.shown[1:]
	}
	if c.back > 0 {
		v = g.shown[max(0, len(g.shown)-1-c.back)]
	}
	if c.status != nil {
		v.status = *c.status
	}
	return v
}
