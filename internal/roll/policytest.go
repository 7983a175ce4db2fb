package roll

import "time"

// TestVerdict is what a test of a policy comes to.
type TestVerdict string

// The verdicts of a policy test.
const (
	TestHealthy   TestVerdict = "healthy"
	TestUnhealthy TestVerdict = "unhealthy"
	// TestUnclear means that the answer was read and not understood. It is no
	// sign of health, and no sign of a fault.
	TestUnclear TestVerdict = "unclear"
	// TestNotAvailable: the tenant has no such cmdlet, Keyroll may not run it, or
	// it did not answer. Detail says which.
	TestNotAvailable TestVerdict = "not_available"
)

// PolicyTest is what Test-M365DataAtRestEncryptionPolicy said of a policy.
// Microsoft documents neither its output nor what it tries, so a verdict is
// shown beside a policy and never raises the evidence of a roll.
type PolicyTest struct {
	Verdict TestVerdict `json:"verdict"`
	// Detail is the cmdlet's own word, one line, for people.
	Detail   string   `json:"detail,omitempty"`
	Warnings []string `json:"warnings,omitempty"`
	// RequestID is Microsoft's id of the call.
	RequestID string    `json:"request_id,omitempty"`
	At        time.Time `json:"at"`
}
