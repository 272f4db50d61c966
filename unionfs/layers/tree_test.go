package layers

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/unionfs-deep/unionfs-deep/whiteout"
)

// needRoot skips a test that makes devices, trusted xattrs or mounts.
func needRoot(t testing.TB) {
	t.Helper()
	m, err := os.ReadFile("/proc/self/uid_map")
	if os.Geteuid() != 0 || err == nil && strings.Join(strings.Fields(string(m)), " ") != "0 0 4294967295" {
		t.Skip("makes devices and trusted xattrs, which takes root in the initial user namespace")
	}
}

// namespace is the xattr prefix of the layers that tests make.
const namespace = whiteout.Trusted

// plant makes a layer by hand in dir, an entry a line: a kind, a path, and what the kind takes.
//
//	d PATH            directory
//	f PATH TEXT       file
//	l PATH TARGET     symbolic link
//	p PATH            FIFO
//	w PATH            whiteout, a device
//	x PATH            whiteout by xattr; its directory is marked
//	o PATH            makes a directory opaque
//	r PATH REDIRECT   redirects a directory or file
//	m PATH SIZE       metacopy file
//	h PATH OLD        hard link
func plant(t testing.TB, dir, tree string) string {
	t.Helper()
	for line := range strings.Lines(tree) {
		fields := append(strings.Fields(line), "", "")
		if fields[0] == "" {
			continue
		}
		if err := plantOne(dir, fields[0], filepath.Join(dir, fields[1]), fields[2]); err != nil {
			t.Fatalf("%s: %v", strings.TrimSpace(line), err)
		}
	}
	return dir
}

// plantOne makes one entry; arg is what its kind takes.
func plantOne(dir, kind, path, arg string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	switch kind {
	case "d":
		return os.MkdirAll(path, 0o755)
	case "f":
		return os.WriteFile(path, []byte(arg), 0o644)
	case "l":
		return os.Symlink(arg, path)
	case "p":
		return unix.Mkfifo(path, 0o644)
	case "w":
		return unix.Mknod(path, whiteout.DeviceMode, whiteout.DeviceNumber)
	case "x":
		return plantXattrWhiteout(path)
	case "o":
		return unix.Lsetxattr(path, namespace.Opaque(), whiteout.Opaque.Bytes(), 0)
	case "r":
		return unix.Lsetxattr(path, namespace.Redirect(), []byte(arg), 0)
	case "m":
		return plantMetacopy(path, arg)
	case "h":
		return os.Link(filepath.Join(dir, arg), path)
	}
	return fmt.Errorf("unknown kind %q", kind)
}

func plantXattrWhiteout(path string) error {
	if err := unix.Lsetxattr(filepath.Dir(path), namespace.Opaque(), whiteout.XattrWhiteouts.Bytes(), 0); err != nil {
		return err
	}
	if err := os.WriteFile(path, nil, 0o644); err != nil {
		return err
	}
	return unix.Lsetxattr(path, namespace.Whiteout(), nil, 0)
}

func plantMetacopy(path, size string) error {
	var n int64
	if _, err := fmt.Sscan(size, &n); err != nil {
		return err
	}
	if err := os.WriteFile(path, nil, 0o644); err != nil {
		return err
	}
	if err := os.Truncate(path, n); err != nil {
		return err
	}
	return unix.Lsetxattr(path, namespace.Metacopy(), nil, 0)
}

// openStack opens layers that are named topmost first.
func openStack(t testing.TB, cfg Config) *Stack {
	t.Helper()
	if cfg.Namespace == "" {
		cfg.Namespace = namespace
	}
	if cfg.Descriptors == 0 {
		cfg.Descriptors = 64
	}
	s, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

// plantLayers makes a layer of each tree and returns their directories.
func plantLayers(t testing.TB, trees ...string) []string {
	t.Helper()
	root := t.TempDir()
	var dirs []string
	for i, tree := range trees {
		dir := filepath.Join(root, fmt.Sprintf("layer%d", i))
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		dirs = append(dirs, plant(t, dir, tree))
	}
	return dirs
}

// union is what a walk through a union has seen: a line a path.
type union map[string]string

// walkStack reads a whole union through Merge and Lookup.
func walkStack(s *Stack) union {
	u := union{}
	root := Dir{Places: s.Roots()}
	if s.Upper != nil {
		fd, err := s.Upper.OpenRoot()
		if err != nil {
			return union{"": describeError(err)}
		}
		defer unix.Close(fd)
		root.Upper = Borrow(fd)
	}
	walkDir(s, u, "", &root)
	return u
}

// walkDir adds what a directory holds.
func walkDir(s *Stack, u union, path string, dir *Dir) {
	l, err := Merge[struct{}](s, dir.Upper, dir.Places)
	if err != nil {
		u[path+"/"] = describeError(err)
		return
	}
	l.All(func(e *Entry[struct{}]) bool {
		at := Candidates{InUpper: e.Place == InUpper}
		if !at.InUpper {
			at.Places = append(at.Places, e.Place)
		}
		at.Places = append(at.Places, l.More[e.Cookie]...)
		walkEntry(s, u, JoinPath(path, e.Name), dir, e.Name, at)
		return true
	})
}

func walkEntry(s *Stack, u union, path string, dir *Dir, name string, at Candidates) {
	found, err := s.Lookup(dir, name, at)
	if err != nil {
		u[path] = describeError(err)
		return
	}
	switch found.Mode {
	case unix.S_IFDIR:
		u[path] = "directory"
		sub := Dir{Places: found.Places, Origin: found.Origin}
		if found.InUpper {
			fd, err := OpenBeneath(dir.Upper.FD, name)
			if err != nil {
				u[path] = describeError(err)
				return
			}
			defer unix.Close(fd)
			sub.Upper = Borrow(fd)
		}
		walkDir(s, u, path, &sub)
	case unix.S_IFREG:
		u[path] = readFound(s, dir, name, found)
	default:
		u[path] = fmt.Sprintf("type %o", found.Mode)
	}
}

// readFound reads the data of a file that was found.
func readFound(s *Stack, dir *Dir, name string, found *Found) string {
	at, place := dir.Upper, found.Lower
	if found.Metacopy {
		if at, place, name = nil, found.Data, found.DataName; place == nil {
			return describeError(unix.ENOENT)
		}
	} else if !found.InUpper {
		at, name = nil, found.LowerName
	}
	if at == nil {
		f, err := s.OpenDir(*place)
		if err != nil {
			return describeError(err)
		}
		defer f.Release()
		at = f
	}
	fd, err := OpenFile(at, name, unix.O_RDONLY)
	if err != nil {
		return describeError(err)
	}
	defer unix.Close(fd)
	buf := make([]byte, 256)
	n, err := unix.Read(fd, buf)
	if err != nil {
		return describeError(err)
	}
	return fmt.Sprintf("file %q", buf[:n])
}

func describeError(err error) string {
	e, ok := errnoOf(err).(unix.Errno)
	if !ok {
		return err.Error()
	}
	return "error " + unix.ErrnoName(e)
}
