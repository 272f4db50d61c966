package layers

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/unionfs-deep/unionfs-deep/whiteout"
)

// Config says which directories make a stack and how their xattrs are read.
type Config struct {
	Upper string   // path of the upper layer, empty for none
	Lower []string // paths of the lower layers, topmost first
	Data  []string // paths of the data-only layers, topmost first

	Namespace whiteout.Namespace
	Redirect  bool // follow redirects (redirect_dir=on or follow)
	Metacopy  bool // follow metacopy files to their data anywhere in the lower layers
	AUFS      bool // honour the names .wh.NAME and .wh..wh..opq

	// MountPoint, an O_PATH descriptor taken before the mount, is where layers below the mount point are reached from:
	// their paths lead into the union itself once it is mounted. May be nil.
	MountPoint *os.File
	// Descriptors bounds the descriptors kept open.
	Descriptors int
}

// Layer is one directory tree of a stack.
type Layer struct {
	Index int // 0 is the upper layer, 1 the topmost lower one

	base     int    // descriptor from which path is opened, or AT_FDCWD
	path     string // of the root directory, free of symbolic links
	dev, ino uint64 // what path must lead to
	opaque   bool   // AUFS's mark in the root directory hides all lower layers below
}

// Path returns the path of the layer's root directory, for messages.
func (l *Layer) Path() string { return l.path }

// Place is a directory in a lower layer. It never changes while the stack is in use.
type Place struct {
	Layer *Layer
	Path  string // from the layer's root, empty for the root itself

	whiteouts whiteouts
}

// whiteouts tells whether reading a directory must look for xattr whiteouts, as far as its look-up has found out.
type whiteouts uint8

const (
	whiteoutsUnknown whiteouts = iota
	whiteoutsNone
	whiteoutsXattr
)

// Stack is the layers of a union.
type Stack struct {
	Upper *Layer   // nil where nothing may be written
	Lower []*Layer // without those below one whose root directory is opaque, of which nothing can be seen
	Data  []*Layer
	Cache *Cache

	cfg  Config
	nums numbering
}

// Open opens each layer once, to see that it is a directory, and returns the stack. An error names the layer.
func Open(cfg Config) (*Stack, error) {
	s := &Stack{cfg: cfg, Cache: NewCache(cfg.Descriptors)}
	below, err := mountPointPath(cfg.MountPoint)
	if err != nil {
		return nil, err
	}
	if cfg.Upper != "" {
		if s.Upper, err = s.openLayer(cfg.Upper, 0, below); err != nil {
			return nil, err
		}
	}
	hidden := s.Upper != nil && s.Upper.opaque
	index := 1
	for _, group := range []struct {
		paths  []string
		layers *[]*Layer
	}{{cfg.Lower, &s.Lower}, {cfg.Data, &s.Data}} {
		for _, path := range group.paths {
			l, err := s.openLayer(path, index, below)
			if err != nil {
				return nil, err
			}
			if hidden && group.layers == &s.Lower {
				continue
			}
			*group.layers = append(*group.layers, l)
			index++
			hidden = hidden || l.opaque
		}
	}
	return s, nil
}

// Close closes every descriptor that nobody uses.
func (s *Stack) Close() { s.Cache.Close() }

// Namespace returns the xattr prefix of the stack.
func (s *Stack) Namespace() whiteout.Namespace { return s.cfg.Namespace }

// Roots returns the places of the union's root directory.
func (s *Stack) Roots() []Place {
	places := make([]Place, len(s.Lower))
	for i, l := range s.Lower {
		places[i] = Place{Layer: l}
	}
	return places
}

func mountPointPath(mp *os.File) (string, error) {
	if mp == nil {
		return "", nil
	}
	return os.Readlink("/proc/self/fd/" + strconv.Itoa(int(mp.Fd())))
}

// openLayer finds out what path leads to. Its symbolic links are followed here and never again.
func (s *Stack) openLayer(path string, index int, mountPoint string) (*Layer, error) {
	fd, err := retry(func() (int, error) { return unix.Open(path, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0) })
	if err != nil {
		return nil, &os.PathError{Op: "open layer", Path: path, Err: err}
	}
	defer unix.Close(fd)
	var st unix.Statx_t
	if err := StatFD(fd, "", &st); err != nil {
		return nil, &os.PathError{Op: "stat layer", Path: path, Err: err}
	}
	real, err := os.Readlink("/proc/self/fd/" + strconv.Itoa(fd))
	if err != nil {
		return nil, fmt.Errorf("layer %s: %w: /proc must be mounted", path, err)
	}
	l := &Layer{Index: index, base: unix.AT_FDCWD, path: real, dev: unix.Mkdev(st.Dev_major, st.Dev_minor), ino: st.Ino}
	if rest, ok := below(real, mountPoint); ok {
		l.base, l.path = int(s.cfg.MountPoint.Fd()), rest
	}
	l.opaque = s.cfg.AUFS && StatFD(fd, whiteout.AUFSOpaque, &st) == nil
	s.nums.add(l.dev)
	return l, nil
}

// below returns path relative to the directory dir, if it is that or lies in it.
func below(path, dir string) (string, bool) {
	if dir == "" {
		return "", false
	}
	if path == dir {
		return ".", true
	}
	return strings.CutPrefix(path, strings.TrimSuffix(dir, "/")+"/")
}

// root opens the root directory of a layer and checks that it still is the one it was.
func (l *Layer) root() (int, error) {
	fd, err := openRoot(l.base, l.path)
	if err != nil {
		return -1, err
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil || st.Dev != l.dev || st.Ino != l.ino {
		unix.Close(fd)
		return -1, unix.ESTALE
	}
	return fd, nil
}

func openRoot(base int, path string) (int, error) {
	fd, err := retry(func() (int, error) { return unix.Openat(base, path, dirFlags, 0) })
	if err == unix.EACCES {
		fd, err = retry(func() (int, error) { return unix.Openat(base, path, dirFlags|unix.O_PATH, 0) })
	}
	return fd, err
}

// OpenRoot opens the root directory of a layer for good: the caller owns the descriptor.
func (l *Layer) OpenRoot() (int, error) { return l.root() }

// OpenDir returns the open directory of a place, to be released by the caller.
func (s *Stack) OpenDir(p Place) (*File, error) {
	key := p.key()
	if f := s.Cache.Get(key); f != nil {
		return f, nil
	}
	if p.Path == "" {
		fd, err := p.Layer.root()
		if err != nil {
			return nil, err
		}
		return s.Cache.Put(key, fd, false), nil
	}
	root, err := s.OpenDir(Place{Layer: p.Layer})
	if err != nil {
		return nil, err
	}
	defer root.Release()
	fd, err := OpenBeneath(root.FD, p.Path)
	if err != nil {
		return nil, err
	}
	return s.Cache.Put(key, fd, false), nil
}

func (p Place) key() Key { return Key{Layer: p.Layer.Index, Path: p.Path} }

// child returns the place of a name in a place.
func (p Place) child(name string) Place {
	if p.Path == "" {
		return Place{Layer: p.Layer, Path: name}
	}
	return Place{Layer: p.Layer, Path: p.Path + "/" + name}
}

// absent tells the errors by which a layer says that it has no such name: the look-up then goes on below it
// (ovl_lookup_single).
func absent(err error) bool {
	return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENAMETOOLONG) || errors.Is(err, unix.ENOTDIR)
}
