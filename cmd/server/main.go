// Command server is Keyroll: the service itself, and the commands around it.
// Run it without arguments for a list of them.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	// The first signal asks for an orderly end. From then on signals have
	// their usual effect, so that a second one ends the process at once.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	err := run(ctx, os.Args[1:], os.Environ(), os.Stdout, os.Stderr)
	os.Exit(exitCode(err, os.Stderr))
}

// Exit codes.
const (
	exitDone   = 0
	exitFailed = 1
	exitUsage  = 2
)

// exitCode says on stderr what went wrong, unless the command has said so
// itself, and which code the process ends with.
func exitCode(err error, stderr io.Writer) int {
	var usage *usageError
	switch {
	case err == nil, errors.Is(err, flag.ErrHelp):
		return exitDone
	case errors.As(err, &usage):
		fmt.Fprintf(stderr, "server: %v\n", err)
		return exitUsage
	case errors.Is(err, errTold):
		return exitFailed
	}
	fmt.Fprintf(stderr, "server: %v\n", err)
	return exitFailed
}

// errTold is the error of a command that has told what is wrong already.
var errTold = errors.New("failed, as told above")

// usageError is a command line that cannot be understood.
type usageError struct{ text string }

func (e *usageError) Error() string { return e.text }

func misused(format string, args ...any) error { return &usageError{fmt.Sprintf(format, args...)} }

// run runs one command. environ is the environment as "NAME=value"; ctx ends
// when the command is to end.
func run(ctx context.Context, args, environ []string, stdout, stderr io.Writer) error {
	p := &program{env: environment(environ), stdout: stdout, stderr: stderr,
		about: "Keyroll rolls the root keys of Microsoft 365 Customer Key, from the request to the proof."}
	return p.dispatch(ctx, commands(), "server", args)
}
