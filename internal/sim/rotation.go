package sim

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"time"
)

// byPolicy marks the versions that a rotation policy has made.
const byPolicy = "policy"

// Stamps of a RotationPolicy.
const (
	stampAll       = "all"
	stampRotations = "rotations"
)

// rotation is a RotationPolicy that acts.
type rotation struct {
	RotationPolicy
	since  time.Time // when it was set: it does not act on what should have been before
	expiry span      // zero: stamps nothing
	rotate bool
	// after a version's creation, or before its expiry, the next one is made.
	after, before span
}

// span is an ISO 8601 duration of whole days, months and years, which is all
// that Key Vault takes.
type span struct{ years, months, days int }

var spanText = regexp.MustCompile(`^P(?:(\d{1,4})Y)?(?:(\d{1,4})M)?(?:(\d{1,4})D)?$`)

func parseSpan(text string) (span, error) {
	m := spanText.FindStringSubmatch(text)
	if m == nil || text == "P" {
		return span{}, fmt.Errorf("%q is not a duration of years, months and days such as P90D, P18M or P2Y", text)
	}
	var s span
	for i, part := range []*int{&s.years, &s.months, &s.days} {
		if m[i+1] != "" {
			*part, _ = strconv.Atoi(m[i+1]) // digits by the expression
		}
	}
	if s == (span{}) {
		return span{}, fmt.Errorf("%q is no time at all", text)
	}
	return s, nil
}

func (s span) from(t time.Time) time.Time   { return t.AddDate(s.years, s.months, s.days) }
func (s span) before(t time.Time) time.Time { return t.AddDate(-s.years, -s.months, -s.days) }

// atLeast reports whether the span is that many days or more.
func (s span) atLeast(days int) bool { return s.years*365+s.months*30+s.days >= days }

// newRotation checks a policy as the vault does when it is set. nil is none.
func newRotation(v *vault, p *RotationPolicy, now time.Time) (*rotation, error) {
	if p == nil {
		return nil, nil
	}
	out := &rotation{RotationPolicy: RotationPolicy{ExpiryTime: p.ExpiryTime, Actions: slices.Clone(p.Actions), Stamps: p.Stamps}, since: now}
	if !slices.Contains([]string{"", stampAll, stampRotations}, p.Stamps) {
		return nil, misfit("stamps", fmt.Errorf("stamps %q is not %s or %s", p.Stamps, stampAll, stampRotations))
	}
	if p.ExpiryTime != "" {
		var err error
		if out.expiry, err = parseSpan(p.ExpiryTime); err != nil {
			return nil, misfit("expiry_time", err)
		}
	}
	for i, a := range p.Actions {
		if err := out.add(v, a); err != nil {
			return nil, misfit(fmt.Sprintf("actions/%d", i), err)
		}
	}
	return out, nil
}

// minimumDays is how often a policy may rotate at most.
func (v *vault) minimumDays() int {
	if v.hsm {
		return 28
	}
	return 7
}

func (r *rotation) add(v *vault, a RotationAction) error {
	if a.Action != "Rotate" && a.Action != "Notify" {
		return fmt.Errorf("action %q is not Rotate or Notify", a.Action)
	}
	if (a.TimeAfterCreate == "") == (a.TimeBeforeExpiry == "") {
		return errors.New("an action has time_after_create or time_before_expiry, one of them")
	}
	s, err := parseSpan(a.TimeAfterCreate + a.TimeBeforeExpiry)
	switch {
	case err != nil:
		return err
	case a.Action == "Notify":
		return nil
	case r.rotate:
		return errors.New("there is another action Rotate already")
	case a.TimeAfterCreate != "" && !s.atLeast(v.minimumDays()):
		return fmt.Errorf("a key is rotated every %d days at most", v.minimumDays())
	case a.TimeBeforeExpiry != "" && r.expiry == (span{}):
		return errors.New("time_before_expiry needs expiry_time")
	case a.TimeAfterCreate != "":
		r.rotate, r.after = true, s
	default:
		r.rotate, r.before = true, s
	}
	return nil
}

// stamp is the expiry that a version made now gets; nil for none.
func (r *rotation) stamp(now time.Time, rotated bool) *int64 {
	if r == nil || r.expiry == (span{}) || !rotated && r.Stamps == stampRotations {
		return nil
	}
	exp := r.expiry.from(now).Unix()
	return &exp
}

// due is when the policy makes the next version of the key; false when it does not.
func (r *rotation) due(k *key) (time.Time, bool) {
	newest := k.newest()
	if r == nil || !r.rotate || newest == nil || k.softDeleted {
		return time.Time{}, false
	}
	if r.after != (span{}) {
		from := time.Unix(newest.created, 0).UTC()
		if from.Before(r.since) {
			from = r.since
		}
		return r.after.from(from), true
	}
	if newest.exp == nil {
		return time.Time{}, false
	}
	due := r.before.before(time.Unix(*newest.exp, 0).UTC())
	if due.Before(r.since) {
		due = r.since
	}
	return due, true
}

// maxRotations bounds what one look at a key makes, however far Advance went.
const maxRotations = 500

// rotate lets the policies of the keys make the versions that are due by now,
// each at its own time. The lock is held.
func (w *World) rotate(now time.Time) {
	for _, k := range w.rotating {
		for range maxRotations {
			due, ok := k.rotation.due(k)
			if !ok || due.After(now) || k.full() {
				break
			}
			v := k.addStranger(due)
			v.by, v.exp = byPolicy, k.rotation.stamp(due, true)
			w.witness(Effect{Start: due, End: due, Service: ServiceKeyVault, Operation: OpCreateKey, Tenant: k.vault.tenant.id,
				Target: k.ref(), Versions: []string{v.kid()}, Applied: true, By: byPolicy})
			if r := k.rotation; r.after == (span{}) && v.exp != nil && !r.before.before(time.Unix(*v.exp, 0)).After(due) {
				break // made already within its own time before expiry: one is enough
			}
		}
	}
}

// setRotation puts a policy in force, or takes it out; the lock is held.
func (w *World) setRotation(k *key, p *RotationPolicy, now time.Time) error {
	r, err := newRotation(k.vault, p, now)
	if err != nil {
		return err
	}
	k.rotation = r
	w.rotating = slices.DeleteFunc(w.rotating, func(other *key) bool { return other == k })
	if r != nil && r.rotate {
		w.rotating = append(w.rotating, k)
	}
	return nil
}
