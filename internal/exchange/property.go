package exchange

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/keyroll/keyroll/internal/roll"
)

// properties are those of one object that a cmdlet returned. Microsoft
// documents none of them, so each may be missing; one that is there in a shape
// nobody expects is an error, never a zero value.
type properties map[string]json.RawMessage

// find looks a property up without regard to case. Sidecar keys, which tell
// the type ("Guid@odata.type"), are other names and never match.
func (p properties) find(name string) (json.RawMessage, bool) {
	v, ok := p[name]
	if !ok {
		for k, other := range p {
			if strings.EqualFold(k, name) {
				v, ok = other, true
				break
			}
		}
	}
	if !ok || len(v) == 0 || string(v) == "null" {
		return nil, false
	}
	return v, true
}

// text reads a string; "" where it is missing.
func (p properties) text(name string) (string, error) {
	v, ok := p.find(name)
	if !ok {
		return "", nil
	}
	var s string
	if err := json.Unmarshal(v, &s); err != nil {
		return "", fmt.Errorf("property %s is not a string", name)
	}
	return s, nil
}

// flag reads a boolean, which some serialisations write as "True".
func (p properties) flag(name string) (bool, error) {
	v, ok := p.find(name)
	if !ok {
		return false, nil
	}
	switch strings.ToLower(strings.Trim(string(v), `"`)) {
	case "true":
		return true, nil
	case "false", "":
		return false, nil
	}
	return false, fmt.Errorf("property %s is not a boolean", name)
}

// texts reads a list of strings, or one string that stands for a list of one.
func (p properties) texts(name string) ([]string, error) {
	v, ok := p.find(name)
	if !ok {
		return nil, nil
	}
	var list []string
	if json.Unmarshal(v, &list) == nil {
		return list, nil
	}
	var one string
	if json.Unmarshal(v, &one) == nil {
		return []string{one}, nil
	}
	// A .NET Uri may come as an object.
	var uris []struct{ OriginalString, AbsoluteUri string }
	if json.Unmarshal(v, &uris) != nil {
		return nil, fmt.Errorf("property %s is not a list of strings", name)
	}
	list = nil // a failed decode may leave a part behind
	for _, u := range uris {
		s := u.OriginalString
		if s == "" {
			s = u.AbsoluteUri
		}
		if s == "" {
			return nil, fmt.Errorf("property %s holds something that is not a string", name)
		}
		list = append(list, s)
	}
	return list, nil
}

// policy reads a policy. A policy that does not say that it is enabled counts
// as not enabled: a roll stops there and asks.
func (p properties) policy(w roll.Workload) (roll.PolicyObservation, error) {
	obs := roll.PolicyObservation{Workload: w, Found: true}
	var err error
	read := func(f func() error) {
		if err == nil {
			err = f()
		}
	}
	read(func() (e error) { obs.Name, e = p.text("Name"); return e })
	read(func() (e error) { obs.GUID, e = p.guid(); return e })
	read(func() (e error) { obs.Enabled, e = p.flag("Enabled"); return e })
	read(func() (e error) { obs.AzureKeyIDs, e = p.texts("AzureKeyIDs"); return e })
	read(func() (e error) { obs.PurgeRequested, e = p.purge(); return e })
	if err != nil {
		return roll.PolicyObservation{}, err
	}
	return obs, nil
}

// guid is the policy's own; the other names are where it stands if Guid is missing.
func (p properties) guid() (string, error) {
	for _, name := range []string{"Guid", "ExchangeObjectId", "Identity", "Id"} {
		s, err := p.text(name)
		if err != nil && name == "Guid" {
			return "", err
		}
		if g, ok := normalGUID(s); ok {
			return g, nil
		}
	}
	return "", nil
}

// purge says whether a data purge was ever requested for the policy. Contact
// and reason can be given only together with that request.
func (p properties) purge() (bool, error) {
	asked, err := p.flag("PermanentDataPurgeRequested")
	if asked || err != nil {
		return asked, err
	}
	for _, name := range []string{"PermanentDataPurgeContact", "PermanentDataPurgeReason"} {
		if s, err := p.text(name); s != "" || err != nil {
			return s != "", err
		}
	}
	return false, nil
}

// normalGUID gives a GUID's lower-case form without braces.
func normalGUID(s string) (string, bool) {
	s = strings.ToLower(strings.TrimSpace(s))
	if strings.HasPrefix(s, "{") && strings.HasSuffix(s, "}") {
		s = s[1 : len(s)-1]
	}
	if len(s) != 36 {
		return "", false
	}
	for i, r := range s {
		dash := i == 8 || i == 13 || i == 18 || i == 23
		hex := r >= '0' && r <= '9' || r >= 'a' && r <= 'f'
		if dash != (r == '-') || !dash && !hex {
			return "", false
		}
	}
	return s, true
}
