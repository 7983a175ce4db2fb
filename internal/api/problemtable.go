package api

import "net/http"

// problemURN and a code make a problem's type.
const problemURN = "urn:keyroll:problem:"

// problemRow is what is always so for a code.
type problemRow struct {
	code   ProblemCode
	status int
	title  string
	next   string
}

// problemRows is one-to-one with ProblemCode in openapi.yaml. Codes are for
// programs and never renamed; titles and next actions are for people.
func problemRows() []problemRow {
	const mend = "Mend what errors names and send the request again."
	return []problemRow{
		{ProblemCodeMalformedBody, http.StatusBadRequest, "The body is not one well-formed JSON value", mend},
		{ProblemCodeDuplicateMember, http.StatusBadRequest, "A member is given twice", mend},
		{ProblemCodeInvalidRequest, http.StatusBadRequest, "The request is not as the contract says", mend},
		{
			ProblemCodeBadCursor, http.StatusBadRequest, "The cursor is not one of ours for this list",
			"Give next_cursor of the page before unchanged, with the same filters; or leave cursor out to begin anew.",
		},
		{
			ProblemCodeIdempotencyKeyRequired, http.StatusBadRequest, "Idempotency-Key is missing",
			"Send the header Idempotency-Key with a key of your own, and the same key again when you repeat the request.",
		},
		{
			ProblemCodeUnauthenticated, http.StatusUnauthorized, "Who are you?",
			"Send Authorization: Bearer and an API token; an administrator makes one with server token create.",
		},
		{ProblemCodeForbidden, http.StatusForbidden, "This token may not do that", "Ask somebody who may."},
		{
			ProblemCodeSamePerson, http.StatusForbidden, "This takes another person",
			"Ask another person: not the one who requested it or made the first call, and not a service.",
		},
		{ProblemCodeNotFound, http.StatusNotFound, "There is no such thing", "Check the id; the list of these shows what there is."},
		{ProblemCodeRouteNotFound, http.StatusNotFound, "There is no such route", "See /openapi.yaml for the routes."},
		{ProblemCodeMethodNotAllowed, http.StatusMethodNotAllowed, "The route does not take this method", "Use a method that Allow names."},
		{ProblemCodeConflict, http.StatusConflict, "Somebody else was quicker", "Read it again and decide anew."},
		{ProblemCodeWrongState, http.StatusConflict, "That is not possible in this state", "Read it again; next_action there says what is possible."},
		{
			ProblemCodeOperationInFlight, http.StatusConflict, "An operation of the roll is under way at Microsoft",
			"Wait until detail's step has ended, and send the request again; or cancel the roll.",
		},
		{
			ProblemCodeOperationUnproven, http.StatusConflict, "Nobody can tell what became of an operation of the roll",
			"Find out what became of it, and say so by a retry with step_id and assume; then ask again.",
		},
		{
			ProblemCodeChangeStale, http.StatusConflict, "The tenant has changed since this was asked for",
			"Read the tenant, and declare anew what is still wanted.",
		},
		{ProblemCodeRollOpen, http.StatusConflict, "An open roll is in the way", "Wait for the roll that roll_id names, or cancel it."},
		{
			ProblemCodePlanChanged, http.StatusConflict, "The plan has changed",
			"Read plan; where you agree with it, send the request again with its hash.",
		},
		{ProblemCodeTenantRetired, http.StatusConflict, "The tenant is retired", "Declare the tenant again if it is to be rolled."},
		{
			ProblemCodeKeyTaken, http.StatusConflict, "Another tenant declares one of these keys",
			"Declare each root key in one tenant only; detail says which one is taken.",
		},
		{ProblemCodeLeaseFree, http.StatusConflict, "Nobody holds the lease", "There is nothing to release."},
		{
			ProblemCodeIdempotencyKeyInUse, http.StatusConflict, "The first request with this key is still running",
			"Send the same request with the same key again in a few seconds.",
		},
		{
			ProblemCodeVersionMismatch, http.StatusPreconditionFailed, "It has changed since you read it",
			"Read it again, and decide anew with its ETag in If-Match.",
		},
		{ProblemCodeAlreadyExists, http.StatusPreconditionFailed, "It exists already", "Read it, and send its ETag in If-Match to replace it."},
		{ProblemCodeBodyTooLarge, http.StatusRequestEntityTooLarge, "The body is larger than 64 KiB", "Send a smaller body."},
		{
			ProblemCodeUnsupportedMediaType, http.StatusUnsupportedMediaType, "The body is not application/json",
			"Send the body as UTF-8 JSON with Content-Type: application/json.",
		},
		{ProblemCodeUnprocessable, http.StatusUnprocessableEntity, "This cannot be carried out as it stands", mend},
		{
			ProblemCodeAvailabilityKey, http.StatusUnprocessableEntity, "The availability key cannot be rolled by a customer",
			"Leave it out of keys; detail says what does roll it.",
		},
		{
			ProblemCodePlanHasErrors, http.StatusUnprocessableEntity, "Findings keep the roll from beginning",
			"Mend what findings name, each by its remedy, and send the request again.",
		},
		{
			ProblemCodeKeysUnreadable, http.StatusUnprocessableEntity, "Newly declared keys cannot be read",
			"Mend what findings name, each by its remedy, and declare again.",
		},
		{
			ProblemCodeStrangersUndecided, http.StatusUnprocessableEntity, "Somebody else made a key version since the plan",
			"Say strangers: adopt to take it, or strangers: roll_again to make another after it.",
		},
		{
			ProblemCodeIdempotencyKeyReused, http.StatusUnprocessableEntity, "This key was used for another request",
			"Use a new Idempotency-Key for a new request.",
		},
		{
			ProblemCodePreconditionRequired, http.StatusPreconditionRequired, "If-Match is missing",
			"Read it, and send its ETag in If-Match; to declare a new tenant send If-None-Match: *.",
		},
		{
			ProblemCodeInternal, http.StatusInternalServerError, "A fault of ours",
			"Try again; if it stays so, report the request_id to whoever runs this server.",
		},
		{ProblemCodeUnavailable, http.StatusServiceUnavailable, "Not now", "Try again in a few seconds."},
	}
}

// newProblem makes the problem of a code; detail is what was wrong this time.
func newProblem(code ProblemCode, detail string) Problem {
	for _, row := range problemRows() {
		if row.code == code {
			return Problem{
				Type: problemURN + string(code), Title: row.title, Status: row.status,
				Code: code, Detail: detail, NextAction: row.next,
			}
		}
	}
	return newProblem(ProblemCodeInternal, "")
}
