package sim

import (
	"errors"
	"strings"
)

// MisfitError says where in a seed or scenario something is that no world can
// be made of, so that a reader of the file can be told its line.
type MisfitError struct {
	// Path is the way to the member, its names and indices between slashes:
	// tenants/0/vaults/2/name. It may end early, at what holds the mistake.
	Path string
	Err  error
}

func (e *MisfitError) Error() string { return e.Path + ": " + e.Err.Error() }
func (e *MisfitError) Unwrap() error { return e.Err }

// misfit puts a step of the path before an error; nil stays nil.
func misfit(step string, err error) error {
	if err == nil {
		return nil
	}
	if inner, ok := errors.AsType[*MisfitError](err); ok {
		return &MisfitError{Path: strings.TrimSuffix(step+"/"+inner.Path, "/"), Err: inner.Err}
	}
	return &MisfitError{Path: step, Err: err}
}
