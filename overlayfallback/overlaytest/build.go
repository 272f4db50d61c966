package overlaytest

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// Layout is a set on disk, ready to be mounted.
type Layout struct {
	Lower   []string // topmost first
	Data    []string
	Upper   string // empty: read-only
	Work    string
	Options []string // overlay options of the mount, "k=v"
}

// TempDir makes a short directory that lives as long as the test. The directory's removal is not the test's failure: an
// aborted FUSE mount may stay busy for a while.
func TempDir(t testing.TB) string {
	t.Helper()
	dir, err := makeTemp()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// makeTemp makes a new directory. All have paths of the same length, since how long a path may be depends on its root.
func makeTemp() (string, error) {
	dir := filepath.Join(os.TempDir(), fmt.Sprintf("ot%08x", rand.Uint32()))
	return dir, os.Mkdir(dir, 0o755)
}

// Build makes the set's lower and data-only layers below dir. The layout has no upper yet: see [Layout.WithUpper].
func (s Set) Build(dir string) (Layout, error) {
	l := Layout{Options: s.Options}
	for i, layer := range s.Lower {
		p := filepath.Join(dir, fmt.Sprintf("l%d", i))
		if err := layer.build(p); err != nil {
			return Layout{}, err
		}
		l.Lower = append(l.Lower, p)
	}
	for i, layer := range s.Data {
		p := filepath.Join(dir, fmt.Sprintf("d%d", i))
		if err := layer.build(p); err != nil {
			return Layout{}, err
		}
		l.Data = append(l.Data, p)
	}
	return l, nil
}

// WithUpper returns the layout with an upper and a work directory of its own below dir, the upper filled as the set says.
func (l Layout) WithUpper(s Set, dir string) (Layout, error) {
	l.Upper, l.Work = filepath.Join(dir, "u"), filepath.Join(dir, "w")
	if err := s.Upper.build(l.Upper); err != nil {
		return Layout{}, err
	}
	return l, os.MkdirAll(l.Work, 0o755)
}

// build makes the layer at dir. An entry whose place is taken, or whose parent is no directory, is left out: so any part of
// a description is itself a description, and shrinking needs no care.
func (l Layer) build(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	times := map[string]Time{}
	for _, e := range l {
		err := e.make(dir)
		if err == nil {
			times[filepath.Join(dir, e.Path)] = e.time()
		} else if !leftOut(err) {
			return fmt.Errorf("make %s %s: %w", e.Kind, filepath.Join(dir, e.Path), err)
		}
	}
	return setTimes(dir, times)
}

// leftOut tells whether the error means that the entry has no place in the layer.
func leftOut(err error) bool {
	for _, e := range []error{unix.EEXIST, unix.ENOTDIR, unix.ENOENT, unix.ELOOP, unix.ENAMETOOLONG, errNotAFile} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// errNotAFile is for a hard link to what can have none.
var errNotAFile = errors.New("hard link to a directory")

// setTimes sets the times of everything at and below dir, children before parents; what has no time gets the default, since
// directories' times change as their entries are made.
func setTimes(dir string, times map[string]Time) error {
	var all []string
	err := filepath.WalkDir(dir, func(p string, _ os.DirEntry, err error) error {
		all = append(all, p)
		return err
	})
	for _, p := range slices.Backward(all) {
		at, ok := times[p]
		if !ok {
			at = DefaultTime
		}
		err = errors.Join(err, setTime(p, at))
	}
	return err
}

// make makes the entry in the layer at dir, with everything but its time.
func (e Entry) make(dir string) error {
	p := filepath.Join(dir, e.Path)
	if err := makeParents(dir, path.Dir(e.Path)); err != nil {
		return err
	}
	if err := e.node(dir, p); err != nil {
		return err
	}
	if e.Kind == HardLink {
		return nil
	}
	if err := os.Lchown(p, e.UID, e.GID); err != nil {
		return err
	}
	if e.Kind != Symlink {
		if err := unix.Chmod(p, e.perm()); err != nil {
			return err
		}
	}
	for _, x := range e.Xattrs {
		if err := unix.Lsetxattr(p, x.Name, []byte(x.Value), 0); err != nil {
			return fmt.Errorf("setxattr %s: %w", x.Name, err)
		}
	}
	return nil
}

// makeParents makes the missing directories of rel below dir.
func makeParents(dir, rel string) error {
	if rel == "." || rel == "/" {
		return nil
	}
	for i, c := range rel + "/" {
		if c != '/' {
			continue
		}
		if err := unix.Mkdir(filepath.Join(dir, rel[:i]), 0o755); err != nil && err != unix.EEXIST {
			return err
		}
	}
	return nil
}

// node makes the bare file system object of the entry at p.
func (e Entry) node(dir, p string) error {
	switch e.Kind {
	case Dir:
		if st, err := os.Lstat(p); err == nil && st.IsDir() {
			return nil
		}
		return unix.Mkdir(p, 0o755)
	case Symlink:
		return unix.Symlink(e.Target, p)
	case HardLink:
		if err := unix.Link(filepath.Join(dir, e.Target), p); !errors.Is(err, unix.EPERM) {
			return err
		}
		return errNotAFile
	case Fifo:
		return unix.Mknod(p, unix.S_IFIFO|0o644, 0)
	case Socket:
		return unix.Mknod(p, unix.S_IFSOCK|0o644, 0)
	case CharDevice, Whiteout:
		return unix.Mknod(p, unix.S_IFCHR|0o644, int(unix.Mkdev(e.Major, e.Minor)))
	case BlockDevice:
		return unix.Mknod(p, unix.S_IFBLK|0o644, int(unix.Mkdev(e.Major, e.Minor)))
	}
	return e.file(p)
}

// file writes a regular file with its hole and content.
func (e Entry) file(p string) error {
	f, err := os.OpenFile(p, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := f.Truncate(int64(e.Hole)); err != nil {
		return err
	}
	_, err = f.WriteAt(e.Content(), int64(e.Hole))
	return err
}

// setTime sets the access and modification times of p itself.
func setTime(p string, at Time) error {
	ts := unix.Timespec{Sec: at.Sec, Nsec: at.Nsec}
	return unix.UtimesNanoAt(unix.AT_FDCWD, p, []unix.Timespec{ts, ts}, unix.AT_SYMLINK_NOFOLLOW)
}

// acl returns the value of a POSIX ACL xattr (version 2, little-endian) for entries like "u::rwx,u:1000:r-x,g::r-x,m::rwx,o::---".
func acl(text string) string {
	tags := map[string]uint16{"u": 0x01, "u:": 0x02, "g": 0x04, "g:": 0x08, "m": 0x10, "o": 0x20}
	out := []byte{2, 0, 0, 0}
	for entry := range strings.SplitSeq(text, ",") {
		f := strings.SplitN(entry, ":", 3)
		tag, id := tags[f[0]], uint32(0xffffffff)
		if f[1] != "" {
			tag = tags[f[0]+":"]
			fmt.Sscan(f[1], &id)
		}
		var perm uint16
		for i, c := range []byte("rwx") {
			if f[2][i] == c {
				perm |= 4 >> i
			}
		}
		out = append(out, byte(tag), byte(tag>>8), byte(perm), byte(perm>>8))
		out = append(out, byte(id), byte(id>>8), byte(id>>16), byte(id>>24))
	}
	return string(out)
}
