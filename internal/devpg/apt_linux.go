package devpg

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
)

// noCluster stops Debian's package from making and starting a server of its
// own on port 5432, which nobody asked for.
const noCluster = `# Written by Keyroll, which needs PostgreSQL's programs and no running server.
create_main_cluster = false
`

// fromAPT installs Debian's package, which only root can. It says so first,
// because it changes the machine.
func (f finder) fromAPT(ctx context.Context) (binaries, error) {
	if !f.owner.drop {
		return binaries{}, next("only root can install a package")
	}
	apt, err := f.lookPath("apt-get")
	if err != nil {
		return binaries{}, next("apt-get is not on PATH")
	}
	f.progress("installing Debian's package postgresql with apt-get, its default cluster switched off")
	if err := f.switchOffCluster(); err != nil {
		return binaries{}, next("switching off the default cluster: " + err.Error())
	}
	env := []string{"DEBIAN_FRONTEND=noninteractive"}
	// A list that is out of date or partly out of reach may still do.
	_, updateErr := f.run(ctx, command{name: apt, args: []string{"update", "-qq"}, dir: "/", env: env})
	// confold keeps the file that we have just written, without a question.
	install := []string{"install", "-y", "-qq", "--no-install-recommends", "-o", "Dpkg::Options::=--force-confold", "postgresql"}
	if _, err := f.run(ctx, command{name: apt, args: install, dir: "/", env: env}); err != nil {
		return binaries{}, next(errors.Join(fmt.Errorf("apt-get install: %w", err), updateErr).Error())
	}
	bin, err := f.fromKnownPlaces(ctx)
	if err != nil {
		return binaries{}, next("installed, but: " + err.Error())
	}
	bin.source = "apt-get (" + bin.dir + ")"
	return bin, nil
}

// switchOffCluster writes the setting before the package is installed. In a
// file that exists already it is added only where its owner has not decided.
func (f finder) switchOffCluster() error {
	path := f.root + "/etc/postgresql-common/createcluster.conf"
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	old, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if clusterDecided.Match(old) {
		return nil
	}
	if len(old) > 0 && old[len(old)-1] != '\n' {
		old = append(old, '\n')
	}
	return os.WriteFile(path, append(old, noCluster...), 0o644)
}

var clusterDecided = regexp.MustCompile(`(?m)^\s*create_main_cluster\s*=`)
