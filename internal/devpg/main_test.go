//go:build linux

package devpg_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"testing"

	"github.com/keyroll/keyroll/internal/devpg"
	"go.uber.org/goleak"
)

// helperEnv turns the test binary into a process that starts a server, says
// where it is, and waits to be killed.
const helperEnv = "KEYROLL_DEVPG_HELPER_DIR"

// hello is what the helper says.
type hello struct {
	PID    int
	Socket string
	URL    string
}

func TestMain(m *testing.M) {
	if dir, ok := os.LookupEnv(helperEnv); ok {
		os.Exit(help(dir))
	}
	goleak.VerifyTestMain(m)
}

func help(dir string) int {
	s, err := devpg.Start(context.Background(), devpg.Options{Dir: dir, NoFsync: dir == ""})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	if err := json.NewEncoder(os.Stdout).Encode(hello{s.PID(), s.SocketDir(), s.URL("postgres")}); err != nil {
		return 1
	}
	_, _ = os.Stdin.Read(make([]byte, 1)) // until the test kills us
	return 0
}
