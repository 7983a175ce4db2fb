package roll_test

import (
	"errors"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/keyroll/keyroll/internal/roll"
)

// emitted are the places in which a finding's code stands as a literal.
var emitted = regexp.MustCompile(`c\.(?:err|warn|advise|unchecked)\([^"\n]*("policy:"\+p\.ID, |"key:"\+pk\.ID, )?"([a-z_]+)"|Fault\{"([a-z_]+)"|Finding\{Code: "([a-z_]+)"`)

// Every code that the findings' sources name is in the catalogue, so that the
// documents tell of it and a veto can name it.
func TestFindingsAreInTheCatalogue(t *testing.T) {
	// Faults that halt a step, and that no plan shows.
	apart := map[string]bool{}
	seen := map[string]bool{}
	files, err := os.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if !strings.HasPrefix(f.Name(), "findings") && f.Name() != "rules.go" || strings.HasSuffix(f.Name(), "_test.go") {
			continue
		}
		src, err := os.ReadFile(f.Name())
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range emitted.FindAllStringSubmatch(string(src), -1) {
			for _, code := range m[2:] {
				if code != "" && !strings.HasPrefix(code, "policy:") {
					seen[code] = true
				}
			}
		}
	}
	if len(seen) < 30 {
		t.Fatalf("only %d codes were found", len(seen))
	}
	for code := range seen {
		if _, ok := roll.KindOfFinding(code); !ok && !apart[code] {
			t.Errorf("finding %s is not in roll.FindingKinds", code)
		}
	}
}

func TestCatalogue(t *testing.T) {
	form := regexp.MustCompile(`^[a-z][a-z0-9_]*$`)
	once := map[string]bool{}
	for _, k := range roll.FindingKinds() {
		if !form.MatchString(k.Code) || once[k.Code] || k.Seen == "" || k.Means == "" || k.Remedy == "" {
			t.Errorf("the catalogue's %+v is twice there or not complete", k)
		}
		once[k.Code] = true
		if k.Weakenable != "" && k.Level != roll.LevelError {
			t.Errorf("%s is no error and yet weakenable", k.Code)
		}
	}
}

// A tenant may judge more strictly at will, more mildly only what is listed,
// and never what the rules of a roll's safety rest on.
func TestCheckVetoes(t *testing.T) {
	for _, c := range []struct{ code, level, says string }{
		{"software_key", "error", ""},
		{"software_key", "warning", ""},
		{"rotation_policy_expiry", "warning", ""},
		{"rotation_policy_expiry", "error", ""},
		{"key_disabled", "error", ""},
		{"software_key", "off", "hushed up"},
		{"software_key", "not_checked", "hushed up"},
		{"rotation_policy_expire", "warning", "rotation_policy_expiry"},
		{"key_disabled", "warning", "stays an error"},
		{"key_has_expiry", "warning", "stays an error"},
		{"policy_keys_mismatch", "warning", "stays an error"},
		{"sharepoint_slot_mismatch", "warning", "stays an error"},
		{"undeclared_policy_uses_key", "warning", "stays an error"},
		{"version_differs", "warning", "stays an error"},
	} {
		err := roll.CheckVetoes(map[string]string{c.code: c.level})
		var bad *roll.InvalidError
		if c.says == "" {
			if err != nil {
				t.Errorf("%s %s: %v", c.code, c.level, err)
			}
		} else if !errors.As(err, &bad) || bad.Pointer != "/vetoes/"+c.code || !strings.Contains(bad.Detail, c.says) {
			t.Errorf("%s %s: %v, want one that says %q", c.code, c.level, err, c.says)
		}
	}
}

// A veto reaches the plan: its level, its own level beside it, and its hash.
func TestVetoes(t *testing.T) {
	soft := func(x *tenant) { x.latest("exo-a", func(v *roll.KeyVersion) { v.Kty = "RSA" }) }
	plan := func(vetoes map[string]string, do func(*tenant)) roll.Plan {
		x := &tenant{inv: contoso(), obs: healthy(contoso()), req: request(contoso(), "exo-na")}
		x.inv.Vetoes = vetoes
		do(x)
		return build(t, x.inv, x.req, x.obs)
	}
	plain := plan(nil, soft)
	strict := plan(map[string]string{"software_key": "error"}, soft)
	if len(plain.Errors()) != 0 || len(strict.Errors()) != 1 || strict.Errors()[0].OwnLevel != roll.LevelWarning || strict.Hash == plain.Hash {
		t.Errorf("a software key is an error by veto: %+v", strict.Findings)
	}
	// Whatever stands in the database: a plan's safety does not hang on it.
	off := plan(map[string]string{"key_disabled": "warning"}, func(x *tenant) {
		x.latest("exo-a", func(v *roll.KeyVersion) { v.Enabled = false })
	})
	if len(off.Errors()) != 1 || off.Errors()[0].OwnLevel != "" {
		t.Errorf("a disabled key is an error whatever the veto: %+v", off.Findings)
	}
	rolling := plan(map[string]string{"external_roll_under_way": "error"}, func(x *tenant) {
		x.req.Policies = []string{"spo"}
		x.sharePoint(func(o *roll.SharePointObservation) { o.Status = roll.Rolling })
	})
	if f := rolling.Errors(); len(f) != 1 || f[0].Passing {
		t.Errorf("an error is never passing: %+v", rolling.Findings)
	}
}
