package survey

import (
	"errors"
	"testing"

	"github.com/keyroll/keyroll/internal/msapi"
)

// An empty list of subscriptions is a right that was not granted; and a failure
// that will pass counts before one that will not, in whichever order they came.
func TestAzureTrouble(t *testing.T) {
	t.Parallel()
	refused, busy := &msapi.Error{Kind: msapi.KindForbidden}, &msapi.Error{Kind: msapi.KindThrottled}
	for want, err := range map[string]error{
		"not_granted":               errNoSubscription,
		string(msapi.KindForbidden): firstPassing(refused, nil),
		string(msapi.KindThrottled): firstPassing(refused, busy),
		"failed":                    firstPassing(errors.New("odd")),
	} {
		if got := azureTrouble(err); got == nil || got.Code != want {
			t.Errorf("%v: %+v, want %s", err, got, want)
		}
	}
	if got := azureTrouble(firstPassing(nil, nil)); got != nil {
		t.Errorf("nothing failed: %+v", got)
	}
}
