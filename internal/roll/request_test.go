package roll_test

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/keyroll/keyroll/internal/roll"
)

func TestResolve(t *testing.T) {
	spare := declared("spare")
	adopt := ver("exo-a", 2)
	keys := func(k ...roll.KeyRequest) roll.Request { return roll.Request{Reason: reason(), Keys: k} }
	for _, c := range []struct {
		name    string
		req     roll.Request
		pointer string
		want    []string
	}{
		{"policies stand for their keys", roll.Request{Reason: reason(), Policies: []string{"spo", "exo-na"}}, "", []string{"exo-a new", "exo-b new", "spo-a new", "spo-b new"}},
		{"union, and the named key wins", roll.Request{Reason: reason(), Policies: []string{"exo-na"}, Keys: []roll.KeyRequest{{ID: "m-a"}, {ID: "exo-a", Version: adopt}}}, "", []string{"m-a new", "exo-a " + adopt, "exo-b new"}},
		{"nothing", roll.Request{Reason: reason()}, "/keys", nil},
		{"no reason", roll.Request{Policies: []string{"spo"}}, "/reason/code", nil},
		{"a reason without words", roll.Request{Policies: []string{"spo"}, Reason: roll.Reason{Code: "other", Text: " \t"}}, "/reason/text", nil},
		{"unknown policy", roll.Request{Reason: reason(), Policies: []string{"spo", "x"}}, "/policies/1", nil},
		{"policy with an undeclared key", roll.Request{Reason: reason(), Policies: []string{"broken"}}, "/policies/0", nil},
		{"unknown key", keys(roll.KeyRequest{ID: "x"}), "/keys/0/id", nil},
		{"unknown type", keys(roll.KeyRequest{Type: "tenant", ID: "m-a"}), "/keys/0/type", nil},
		{"named twice", keys(roll.KeyRequest{ID: "m-a"}, roll.KeyRequest{ID: "m-a"}), "/keys/1/id", nil},
		{"no policy uses it", keys(roll.KeyRequest{ID: "spare"}), "/keys/0/id", nil},
		{"bad version", keys(roll.KeyRequest{ID: "m-a", Version: strings.ToUpper(ver("m-a", 1))}), "/keys/0/version", nil},
		{"a size that no vault makes", keys(roll.KeyRequest{ID: "m-a", Size: 1024}), "/keys/0/size", nil},
		{"adopt with an nbf", keys(roll.KeyRequest{ID: "exo-a", Version: adopt, KeyNotBefore: &start}), "/keys/0/key_not_before", nil},
	} {
		inv := contoso()
		inv.Keys = append(inv.Keys, spare)
		inv.Policies = append(inv.Policies, roll.Policy{ID: "broken", Workload: roll.Exchange, Keys: []string{"nowhere", "m-b"}})
		got, err := roll.Resolve(inv, c.req)
		var ids []string
		for _, k := range got.Keys {
			ids = append(ids, k.ID+" "+k.Version)
		}
		var bad *roll.InvalidError
		pointer := ""
		if errors.As(err, &bad) {
			pointer = bad.Pointer
			if bad.Detail == "" || bad.Error() == "" {
				t.Errorf("%s: no words", c.name)
			}
		}
		if pointer != c.pointer || !cmp.Equal(ids, c.want) || (err == nil) != (c.pointer == "") {
			t.Errorf("%s: %v %v", c.name, ids, err)
		}
	}
}

// Rule 3.
func TestAvailabilityKey(t *testing.T) {
	for policy, want := range map[string]string{"global": "documents nothing", "exo-na": "a new policy makes", "spo": "forest level", "": "forest-level"} {
		_, err := roll.Resolve(contoso(), roll.Request{Reason: reason(), Keys: []roll.KeyRequest{{Type: roll.AvailabilityKey, Policy: policy}}})
		var e *roll.AvailabilityKeyError
		if !errors.As(err, &e) {
			t.Errorf("%q: %v", policy, err)
			continue
		}
		text := strings.ReplaceAll(e.Error(), "creating a new policy makes", "a new policy makes")
		if !strings.Contains(text, want) || !strings.Contains(text, "own internal schedule") && policy != "" {
			t.Errorf("%q: %s", policy, text)
		}
	}
}

func TestDuration(t *testing.T) {
	raw, err := json.Marshal(roll.Duration(90 * time.Minute))
	if err != nil || string(raw) != `"1h30m0s"` {
		t.Errorf("%s %v", raw, err)
	}
	var d roll.Duration
	if err := json.Unmarshal([]byte(`"24h"`), &d); err != nil || d != roll.Duration(24*time.Hour) {
		t.Error(d, err)
	}
	for _, bad := range []string{`"-1h"`, `"x"`, `3`} {
		if json.Unmarshal([]byte(bad), &d) == nil {
			t.Errorf("%s is taken", bad)
		}
	}
}
