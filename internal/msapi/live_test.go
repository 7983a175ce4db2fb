package msapi_test

import (
	"strings"
	"testing"

	"github.com/keyroll/keyroll/internal/msapi/msapitest"
)

func TestReadLive(t *testing.T) {
	whole := map[string]string{"TENANT": "7a3b6c1e-0d52-4a0f-9f53-2f4d8b1c5e01", "CLOUD": "public", "CREDENTIALS_FILE": "c.json", "CREDENTIAL": "contoso"}
	with := func(name, value string) map[string]string {
		out := map[string]string{name: value}
		for k, v := range whole {
			if k != name {
				out[k] = v
			}
		}
		return out
	}
	for _, tt := range []struct {
		name         string
		env          map[string]string
		named, write bool
		err          string
	}{
		{"none", map[string]string{"WRITE": "yes"}, false, false, ""},
		{"whole", whole, true, false, ""},
		{"write", with("WRITE", "yes"), true, true, ""},
		{"no write", with("WRITE", "no"), true, false, ""},
		{"write in other words", with("WRITE", "true"), true, false, `KEYROLL_LIVE_WRITE is "true": say yes or no`},
		{"no cloud", with("CLOUD", ""), true, false, "KEYROLL_LIVE_CLOUD is missing"},
		{"no credential", with("CREDENTIAL", " "), true, false, "KEYROLL_LIVE_CREDENTIAL is missing"},
		{"no file", with("CREDENTIALS_FILE", ""), true, false, "KEYROLL_LIVE_CREDENTIALS_FILE is missing"},
	} {
		c, named, err := msapitest.ReadLive(func(s string) string { return tt.env[strings.TrimPrefix(s, "KEYROLL_LIVE_")] })
		if named != tt.named || c.Write != tt.write || (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) {
			t.Errorf("%s: %+v, %v, %v", tt.name, c, named, err)
		}
	}
}
