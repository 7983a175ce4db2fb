package roll_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/keyroll/keyroll/internal/roll"
)

// TestCheckUse: only a wrap, by the workload's own application, with every new
// version, since Microsoft was asked.
func TestCheckUse(t *testing.T) {
	t.Parallel()
	since := start
	ref := func(name, version string) roll.KeyRef {
		return roll.KeyRef{Host: name + ".vault.azure.net", Name: "Key001", Version: version}
	}
	taken := []roll.TakenVersion{{Ref: ref("a", "1"), Since: since}, {Ref: ref("b", "2"), Since: since}}
	use := func(op, app string, r roll.KeyRef, at time.Time) roll.KeyUse {
		return roll.KeyUse{Operation: op, AppID: app, Ref: r, First: at, Calls: 3}
	}
	exo := roll.Exchange.AppID()
	a, b := use(roll.UseWrap, exo, ref("a", "1"), since), use(roll.UseWrap, strings.ToUpper(exo), ref("b", "2"), since.Add(time.Hour))
	for name, c := range map[string]struct {
		uses []roll.KeyUse
		want bool
	}{
		"both wrapped":           {[]roll.KeyUse{a, b}, true},
		"one only":               {[]roll.KeyUse{a}, false},
		"unwrapped":              {[]roll.KeyUse{a, use(roll.UseUnwrap, exo, ref("b", "2"), since)}, false},
		"by another application": {[]roll.KeyUse{a, use(roll.UseWrap, roll.SharePoint.AppID(), ref("b", "2"), since)}, false},
		"with the old version":   {[]roll.KeyUse{a, use(roll.UseWrap, exo, ref("b", "1"), since)}, false},
		"of another key":         {[]roll.KeyUse{a, use(roll.UseWrap, exo, ref("c", "2"), since)}, false},
		"before it was asked":    {[]roll.KeyUse{a, use(roll.UseWrap, exo, ref("b", "2"), since.Add(-time.Second))}, false},
		"no call":                {[]roll.KeyUse{a, {Operation: roll.UseWrap, AppID: exo, Ref: ref("b", "2"), First: since}}, false},
		"nothing":                {nil, false},
	} {
		got, source := roll.CheckUse(roll.Exchange, taken, c.uses)
		if got != c.want || got != (source != "") {
			t.Errorf("%s: %t %q", name, got, source)
		}
	}
	if got, _ := roll.CheckUse(roll.Exchange, nil, []roll.KeyUse{a, b}); got {
		t.Error("nothing that was taken up is in use")
	}
	if _, source := roll.CheckUse(roll.Exchange, taken, []roll.KeyUse{a, b}); !strings.Contains(source, b.First.UTC().Format(time.RFC3339)) || !strings.Contains(source, exo) {
		t.Error(source)
	}
}

// ended is a roll of exo-na that succeeded with the evidence.
func ended(t *testing.T, e roll.Evidence) roll.Roll {
	r := running(t, contoso(), "exo-na")
	for i := range r.Steps {
		s := &r.Steps[i]
		s.State, s.StartedAt, s.EndedAt = roll.StepSucceeded, &start, &start
		if s.Kind == roll.Verify {
			s.Result = roll.Result{Evidence: e, Source: "then"}
		}
	}
	for i := range r.Keys {
		r.Keys[i].NewVersion = "new"
	}
	r.State, r.Outcome, r.EndedAt = roll.Succeeded, e, &start
	return r
}

// TestEvidenceOnlyRises: from accepted or attested to in_use, once; the state,
// the outcome and the evidence at the end stay as they were.
func TestEvidenceOnlyRises(t *testing.T) {
	t.Parallel()
	seen := roll.EvidenceSeen{Policy: "exo-na", Evidence: roll.InUse, Source: "the log"}
	now := start.Add(time.Hour)
	for _, e := range []roll.Evidence{roll.Accepted, roll.Attested} {
		r := ended(t, e)
		next, effects, err := r.Apply(seen, now)
		if err != nil {
			t.Fatalf("%s: %v", e, err)
		}
		got, source, at := next.CurrentEvidence("exo-na")
		if end, _ := next.PolicyEvidence("exo-na"); got != roll.InUse || source != "the log" || !at.Equal(now) || end != e {
			t.Errorf("%s: now %s (%s, %v), at the end %s", e, got, source, at, end)
		}
		if next.State != roll.Succeeded || next.Outcome != e || next.CurrentOutcome() != roll.InUse || !next.EndedAt.Equal(start) || next.WakeAt != nil {
			t.Errorf("%s: the roll itself changed: %+v", e, next)
		}
		if len(effects) != 1 || effects[0] != (roll.Announce{Name: "roll.evidence_improved"}) {
			t.Errorf("%s: effects %v", e, effects)
		}
		if _, _, err := next.Apply(seen, now); !errors.Is(err, roll.ErrAlreadyApplied) {
			t.Errorf("%s: seen again: %v", e, err)
		}
	}
	for name, c := range map[string]struct {
		r  roll.Roll
		ev roll.EvidenceSeen
	}{
		"confirmed is better":  {ended(t, roll.Confirmed), seen},
		"no word of unknown":   {ended(t, roll.Unknown), seen},
		"nothing is confirmed": {ended(t, roll.Accepted), roll.EvidenceSeen{Policy: "exo-na", Evidence: roll.Confirmed}},
		"nothing is lowered":   {ended(t, roll.Accepted), roll.EvidenceSeen{Policy: "exo-na", Evidence: roll.Unknown}},
		"another policy":       {ended(t, roll.Accepted), roll.EvidenceSeen{Policy: "spo", Evidence: roll.InUse}},
		"not ended":            {running(t, contoso(), "exo-na"), seen},
	} {
		if _, _, err := c.r.Apply(c.ev, now); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
}

// TestTakenIsWhatMicrosoftWasAskedFor: a key without its new version, or a
// policy that was never refreshed, can be in no use.
func TestTakenIsWhatMicrosoftWasAskedFor(t *testing.T) {
	t.Parallel()
	r := ended(t, roll.Accepted)
	if got := r.Taken("exo-na"); len(got) != 2 || got[0].Ref.Version != "new" || !got[0].Since.Equal(start) {
		t.Errorf("%+v", got)
	}
	if got := r.Taken("spo"); got != nil {
		t.Errorf("of a policy that is not the roll's: %+v", got)
	}
	r.Keys[1].NewVersion = ""
	if got := r.Taken("exo-na"); got != nil {
		t.Errorf("with a key that has no new version: %+v", got)
	}
}
