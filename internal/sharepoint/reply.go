package sharepoint

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/keyroll/keyroll/internal/msapi"
	"github.com/keyroll/keyroll/internal/roll"
)

// errorInfo is how CSOM says that a call failed, with HTTP 200 around it.
type errorInfo struct {
	Message     string `json:"ErrorMessage"`
	Code        int    `json:"ErrorCode"`
	Type        string `json:"ErrorTypeName"`
	Correlation string `json:"TraceCorrelationId"`
}

// keyStatus is SP.CustomerKeyStatusInfo. Pointers tell what is missing.
type keyStatus struct {
	Primary   *string      `json:"PrimaryKeyVaultUri"`
	Secondary *string      `json:"SecondaryKeyVaultUri"`
	Status    *json.Number `json:"Status"`
	Progress  *float64     `json:"RegistrationProgress"`
}

// read makes an observation of a reply, or the error that it is.
func (c *Client) read(call msapi.Call, r msapi.Reply) (roll.SharePointObservation, *msapi.Error) {
	if r.Status < 200 || r.Status >= 300 {
		return roll.SharePointObservation{}, c.refused(call, r)
	}
	if isHTML(r.Body) {
		return roll.SharePointObservation{}, c.api.Unreadable(call, r, "html",
			"SharePoint answered with a page: a sign-in or an error page stands where the API should be")
	}
	result, info, err := decode(r.Body)
	if err != nil {
		return roll.SharePointObservation{}, c.api.Unreadable(call, r, "answer_not_understood", err.Error())
	}
	if info != nil {
		return roll.SharePointObservation{}, c.applicationError(call, r, *info)
	}
	obs, err := observation(result)
	if err != nil {
		return roll.SharePointObservation{}, c.api.Unreadable(call, r, "answer_not_understood", err.Error())
	}
	return obs, nil
}

// decode takes the reply array apart: its first element, which holds ErrorInfo,
// and the element after our action's id. Other actions' results may stand before it.
func decode(body []byte) (result json.RawMessage, info *errorInfo, err error) {
	var elements []json.RawMessage
	if err := json.Unmarshal(body, &elements); err != nil {
		return nil, nil, errors.New("the answer is not a JSON array")
	}
	if len(elements) == 0 {
		return nil, nil, errors.New("the answer is an empty array")
	}
	var head struct {
		SchemaVersion *string         `json:"SchemaVersion"`
		ErrorInfo     json.RawMessage `json:"ErrorInfo"`
	}
	if err := json.Unmarshal(elements[0], &head); err != nil || head.SchemaVersion == nil {
		return nil, nil, errors.New("the answer has no header")
	}
	if len(head.ErrorInfo) > 0 && string(head.ErrorInfo) != "null" {
		info = &errorInfo{}
		if err := json.Unmarshal(head.ErrorInfo, info); err != nil {
			return nil, nil, errors.New("the answer's ErrorInfo cannot be read")
		}
		return nil, info, nil
	}
	for i := 1; i+1 < len(elements); i++ {
		id := string(bytes.TrimSpace(elements[i]))
		next := bytes.TrimSpace(elements[i+1])
		if id == strconv.Itoa(actionID) && len(next) > 0 && next[0] == '{' {
			return next, nil, nil
		}
	}
	return nil, nil, errors.New("the answer holds no result of the call")
}

// observation reads the status object. An unknown status number is kept as it
// is: the rules about it are the roll's. A missing one is no observation.
func observation(raw json.RawMessage) (roll.SharePointObservation, error) {
	var ks keyStatus
	if err := json.Unmarshal(raw, &ks); err != nil {
		return roll.SharePointObservation{}, errors.New("the status object cannot be read")
	}
	if ks.Status == nil {
		return roll.SharePointObservation{}, errors.New("the status object has no status")
	}
	n, err := strconv.ParseInt(ks.Status.String(), 10, 32)
	if err != nil {
		return roll.SharePointObservation{}, fmt.Errorf("the status %q is not a number", msapi.Token(ks.Status.String()))
	}
	obs := roll.SharePointObservation{Status: roll.SharePointStatus(n)}
	if ks.Primary != nil {
		obs.PrimaryURI = strings.TrimSpace(*ks.Primary)
	}
	if ks.Secondary != nil {
		obs.SecondaryURI = strings.TrimSpace(*ks.Secondary)
	}
	underWay := obs.Status != roll.Registered && obs.Status != roll.Unregistered
	if p := ks.Progress; underWay && p != nil && !math.IsNaN(*p) && *p >= 0 && *p <= 100 {
		obs.Percent = p
	}
	return obs, nil
}

// applicationError is an ErrorInfo. It is a refusal, except for the types
// behind which SharePoint hides that it does not know itself what happened.
func (c *Client) applicationError(call msapi.Call, r msapi.Reply, info errorInfo) *msapi.Error {
	e := c.api.Refusal(call, r)
	e.Kind, e.Message = msapi.KindRejected, msapi.Sanitize(info.Message)
	e.Code, e.InnerCode = msapi.Token(info.Type), strconv.Itoa(info.Code)
	unclear := strings.HasSuffix(info.Type, ".UnknownError") || strings.Contains(info.Type, "Timeout")
	e.MaybeApplied = call.Mutating && unclear
	if info.Correlation != "" {
		e.RequestID = msapi.Token(info.Correlation)
	}
	return e
}

// refused reads the few forms in which SharePoint explains an HTTP error.
func (c *Client) refused(call msapi.Call, r msapi.Reply) *msapi.Error {
	e := c.api.Refusal(call, r)
	var doc struct {
		Description string `json:"error_description"`
		OData       struct {
			Code    string `json:"code"`
			Message struct {
				Value string `json:"value"`
			} `json:"message"`
		} `json:"odata.error"`
	}
	switch {
	case json.Unmarshal(r.Body, &doc) == nil && (doc.Description != "" || doc.OData.Code != ""):
		e.Code, e.Message = msapi.Token(doc.OData.Code), msapi.Sanitize(doc.Description)
		if v := doc.OData.Message.Value; v != "" {
			e.Message = msapi.Sanitize(v)
		}
	case isHTML(r.Body) || len(r.Body) == 0:
		e.Message = "SharePoint gave no reason"
	default:
		e.Message = msapi.Sanitize(string(r.Body))
	}
	if e.Kind == msapi.KindProtocol {
		e.Code = "unexpected_status"
	}
	return e
}

func isHTML(body []byte) bool { return bytes.HasPrefix(bytes.TrimSpace(body), []byte("<")) }
