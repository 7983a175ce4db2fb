package sim

import (
	"net/http"
	"strconv"
	"strings"
)

// entraFailure is one of Entra's errors, as a fault that names its code gives it.
type entraFailure struct {
	status int
	code   string
	text   string
}

// entraFailures are those that a client of these services meets, by number.
// Others, under a fault, are temporarily_unavailable with status 503.
func entraFailures() map[int]entraFailure {
	return map[int]entraFailure{
		53003:   {400, "access_denied", "Access has been blocked by Conditional Access policies. The access policy does not allow token issuance."},
		90002:   {400, "invalid_request", "Tenant not found. Check to make sure you have the correct tenant ID."},
		700016:  {400, "unauthorized_client", "Application was not found in the directory."},
		700024:  {401, "invalid_client", "Client assertion is not within its valid time range."},
		700027:  {401, "invalid_client", "The certificate with identifier used to sign the client assertion is expired on application. [Reason - The key used is expired.]"},
		7000112: {400, "unauthorized_client", "Application is disabled."},
		7000215: {401, "invalid_client", "Invalid client secret provided."},
		7000229: {401, "invalid_client", "The client application is missing service principal in the tenant."},
		500011:  {400, "invalid_resource", "The resource principal was not found in the tenant."},
		90033:   {503, "temporarily_unavailable", "A transient error has occurred. Please try again."},
	}
}

// entraFault is Entra's error document for a fault's params.
func (w *World) entraFault(p FaultParams, status int) answer {
	number, err := strconv.Atoi(strings.TrimPrefix(p.Code, "AADSTS"))
	if err != nil {
		number = 90033
	}
	f, known := entraFailures()[number]
	if !known || p.Code == "" {
		f = entraFailure{status: status, code: "temporarily_unavailable", text: http.StatusText(status)}
	}
	return entraError(or(p.Status, f.status), f.code, number, or(p.Message, f.text), w.Wall())
}
