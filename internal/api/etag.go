package api

import (
	"strconv"
)

// formatETag is the strong entity tag of a version.
func formatETag(version int64) ETag { return `"` + strconv.FormatInt(version, 10) + `"` }

// parseETag reads an If-Match strictly: one strong tag of ours. Lists, weak
// tags and * would say that the client does not know what it has read.
func parseETag(tag ETag) (int64, error) {
	bad := &requestError{code: ProblemCodeInvalidRequest, errs: []ProblemError{{
		In: ProblemErrorInHeader, Name: "If-Match", Detail: `use the ETag that you have read, one version in quotes such as "7"`,
	}}}
	if len(tag) < 3 || tag[0] != '"' || tag[len(tag)-1] != '"' {
		return 0, bad
	}
	version, err := strconv.ParseInt(tag[1:len(tag)-1], 10, 64)
	if err != nil || version < 1 || formatETag(version) != tag {
		return 0, bad
	}
	return version, nil
}

// precondition is what a PUT binds itself to.
type precondition struct {
	// Create: the thing must not exist yet. Else Version is the one to replace.
	Create  bool
	Version int64
}

// readPrecondition wants exactly one of If-None-Match: * and If-Match.
func readPrecondition(ifMatch ETag, ifNoneMatch PutTenantParamsIfNoneMatch) (precondition, error) {
	switch {
	case ifMatch == "" && ifNoneMatch == "":
		return precondition{}, refuse(ProblemCodePreconditionRequired, "")
	case ifMatch != "" && ifNoneMatch != "":
		return precondition{}, &requestError{code: ProblemCodeInvalidRequest, errs: []ProblemError{{
			In: ProblemErrorInHeader, Name: "If-None-Match", Detail: "give If-Match or If-None-Match, not both",
		}}}
	case ifNoneMatch != "":
		return precondition{Create: true}, nil
	}
	version, err := parseETag(ifMatch)
	return precondition{Version: version}, err
}
