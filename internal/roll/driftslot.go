package roll

import (
	"fmt"
	"slices"
)

// sharePoint compares the status and the slots of a geo.
func (c *comparison) sharePoint(p Policy) {
	subject, source := "policy:"+p.ID, "geo:"+p.Geo
	o, ok := c.Observation.SharePoint[p.Geo]
	if !ok || o.Trouble != nil {
		t := Trouble{Code: "unread", Detail: "it was not read"}
		if o.Trouble != nil {
			t = *o.Trouble
		}
		c.skip(subject, source, t.Code, t.Detail, "grant Keyroll's application Sites.FullControl.All with a certificate, and check the geo's admin URL; the tenant's checklist has the commands")
		return
	}
	ours := c.moves(p.Geo)
	if o.Status != Registered && !(o.Status == Rolling && ours) {
		remedy := "wait for it, or speak to Microsoft support: a key can be rolled only when SharePoint is Registered"
		if o.Status == Rolling {
			remedy = "somebody rolls a key outside Keyroll: find out who; Keyroll waits until it has ended, and then compares the slots"
		}
		c.add(DriftGeoStatus, subject, source, "Registered", fmt.Sprintf("SharePoint's key status of geo %s is %s (%d)", p.Geo, o.Status, int(o.Status)), remedy, o.Status.String())
	}
	if o.Status == Unregistered {
		return // it shows no slots
	}
	if ours {
		c.skip(subject, source, "roll_under_way", "a roll of Keyroll moves a key of this geo now, so its slots are compared when that has ended", "nothing")
		return
	}
	a, _ := c.Inventory.KeyByID(p.Primary)
	b, _ := c.Inventory.KeyByID(p.Secondary)
	if names(o.PrimaryURI, b) && names(o.SecondaryURI, a) {
		c.add(DriftSlotsSwapped, subject, source, "primary "+a.URI("")+", secondary "+b.URI(""), "primary "+o.PrimaryURI+", secondary "+o.SecondaryURI,
			"correct which key is primary and which is secondary in the declaration: rolled as declared, one key would end up in both slots")
		return
	}
	c.slot(p, Primary, a, o)
	c.slot(p, Secondary, b, o)
}

// names says whether the URI names the key, in whatever version.
func names(uri string, k Key) bool {
	ref, ok := ParseKeyURI(uri)
	return ok && ref.SameKey(k.Ref())
}

func (c *comparison) slot(p Policy, slot Slot, k Key, o SharePointObservation) {
	subject, source := "slot:"+p.ID+"/"+string(slot), "geo:"+p.Geo
	uri := o.SlotURI(slot)
	if !names(uri, k) {
		c.add(DriftSlotOtherKey, subject, source, k.URI(""), fmt.Sprintf("SharePoint's %s key of geo %s is %q", slot, p.Geo, uri),
			"find out who replaced the key; then correct the declaration, keeping the old key under former_keys", uri)
		return
	}
	ref, _ := ParseKeyURI(uri)
	newest, known := newestAccepted(c.Ledger[k.ID])
	switch {
	case ref.Version == "":
		c.skip(subject, source, codeVersionNotShown, "SharePoint names the key without a version, so which version it uses is not known", "nothing: SharePoint shows no more")
	case !known:
		// The key itself has said that the ledger is empty.
	case !accepted(c.Ledger[k.ID], ref.Version):
		c.add(DriftSlotUnknown, subject, source, "a version on record", "SharePoint uses version "+ref.Version+" of key "+k.Name+", which no roll made or adopted",
			"find out who rolled this slot; then roll the key and adopt this version, or make another. Never delete or disable it", ref.Version)
	case ref.Version != newest.Version && !c.rolls(k.ID, newest.Version):
		c.add(DriftSlotBehind, subject, source, "version "+newest.Version+", the newest one recorded", "SharePoint uses version "+ref.Version+" of key "+k.Name,
			"roll the key and adopt version "+newest.Version+", which exists and is not in use here. Keep both", ref.Version, newest.Version)
	}
}

// rolls says whether an open roll is on its way to put the version into use.
func (c *comparison) rolls(keyID, version string) bool {
	return slices.ContainsFunc(c.Rolls, func(r Roll) bool {
		rk, ok := r.KeyByID(keyID)
		return ok && rk.NewVersion == version
	})
}

// moves says whether a roll of ours has, or may have, a SharePoint key
// operation under way in the geo.
func (c *comparison) moves(geo string) bool {
	return slices.ContainsFunc(c.Rolls, func(r Roll) bool {
		for i := range r.Steps {
			s := &r.Steps[i]
			if s.Geo != geo {
				continue
			}
			if s.Kind == SharePointRollKey && (s.IntentOpen || s.State == StepRunning) {
				return true
			}
			if from, ok := r.rollStepOf(s); ok && s.Kind == SharePointAwait && from.State == StepSucceeded && s.State != StepSucceeded && !s.OpEnded {
				return true
			}
		}
		return false
	})
}
