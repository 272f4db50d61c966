package layers

import (
	"encoding/binary"
	"math"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/unionfs-deep/unionfs-deep/whiteout"
)

// Merge reads a directory of the union: its directory in the upper layer, or nil, and its places in lower layers, topmost
// first. A name that a whiteout hides is left out, and of a name found in several places the topmost counts
// (ovl_dir_read_merged). The places must have been cut off at the first opaque one already, as Lookup does.
func Merge[V any](s *Stack, upper *File, places []Place) (*Listing[V], error) {
	m := merger[V]{s: s, out: NewListing[V]()}
	if upper != nil {
		in := instance[V]{m: &m, dir: upper, place: InUpper}
		if err := in.readAgain(); err != nil {
			return nil, err
		}
	}
	for i, p := range places {
		in := instance[V]{m: &m, place: int32(i), whiteouts: p.whiteouts}
		if err := in.readLower(p); err != nil {
			return nil, err
		}
	}
	m.dropWhiteouts()
	return m.out, nil
}

// merger is the state of one Merge.
type merger[V any] struct {
	s         *Stack
	out       *Listing[V]
	whiteouts []string // entries of out that hide a name and are taken out at the end
	names     arena
}

// dtWhiteout is the type of an entry that hides a name (as BSD calls it).
const dtWhiteout = unix.DT_WHT

// direntBufs are buffers for getdents64.
var direntBufs = sync.Pool{New: func() any { b := make([]byte, 64<<10); return &b }}

// readLower adds what a lower directory holds. One that is not open yet is read as it is opened, before others share it.
func (in *instance[V]) readLower(p Place) error {
	s := in.m.s
	fd := s.openToRead(p)
	if fd < 0 {
		dir, err := s.OpenDir(p)
		if err != nil {
			return err
		}
		defer dir.Release()
		in.dir = dir
		return in.readAgain()
	}
	in.dir = Borrow(fd)
	defer func() { s.Cache.Put(p.key(), fd, false).Release() }()
	return in.read(fd)
}

// openToRead opens a directory that is not in the cache. It returns -1 for one that is, and where OpenDir does it better.
func (s *Stack) openToRead(p Place) int {
	if p.Path == "" || len(p.Path) > maxPath || s.Cache.Has(p.key()) {
		return -1
	}
	root, err := s.OpenDir(Place{Layer: p.Layer})
	if err != nil {
		return -1
	}
	defer root.Release()
	fd, err := openSafely(root.FD, p.Path, dirFlags|unix.O_NOATIME)
	if err != nil {
		return -1
	}
	return fd
}

// openAgain opens a directory once more, to have a position of its own. A lower one's access time is left alone where that is
// permitted, as the kernel does.
func openAgain(fd int, lower bool) (int, error) {
	if lower {
		again, err := retry(func() (int, error) { return unix.Openat(fd, ".", dirFlags|unix.O_NOATIME, 0) })
		if err != unix.EPERM {
			return again, err
		}
	}
	return retry(func() (int, error) { return unix.Openat(fd, ".", dirFlags, 0) })
}

// instance is one directory being merged.
type instance[V any] struct {
	m      *merger[V]
	dir    *File
	place  int32
	hidden []string // names that an AUFS whiteout of this directory hides below it

	whiteouts whiteouts
}

// readAgain reads the directory through a descriptor of its own, since a cached one is shared and has one position.
func (in *instance[V]) readAgain() error {
	fd, err := openAgain(in.dir.FD, in.place != InUpper)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return in.read(fd)
}

// endOfDirectory is the position after a directory's last entry, where the file system gives it one that nothing comes after: ext4
// and btrfs do. Others, and a read that a signal cut short, are known by the next read's giving nothing.
const endOfDirectory = math.MaxInt64

// read adds what the directory holds, from a descriptor at its beginning.
func (in *instance[V]) read(fd int) error {
	buf := direntBufs.Get().(*[]byte)
	defer direntBufs.Put(buf)
	for {
		n, err := retry(func() (int, error) { return unix.Getdents(fd, *buf) })
		if err != nil || n == 0 {
			in.finish()
			return err
		}
		next, err := in.addAll((*buf)[:n])
		if err != nil {
			return err
		}
		if next == endOfDirectory {
			in.finish()
			return nil
		}
	}
}

// addAll adds the entries of a buffer that getdents64 filled: ino, position of the next, record length, type, name. It returns
// the position after the last.
func (in *instance[V]) addAll(buf []byte) (next uint64, err error) {
	const header = 19
	for len(buf) >= header {
		next = binary.NativeEndian.Uint64(buf[8:])
		reclen := int(binary.NativeEndian.Uint16(buf[16:]))
		if reclen < header || reclen > len(buf) {
			return 0, unix.EIO
		}
		name := buf[header:reclen]
		for i, c := range name {
			if c == 0 {
				name = name[:i]
				break
			}
		}
		if err := in.add(name, buf[18], binary.NativeEndian.Uint64(buf)); err != nil {
			return 0, err
		}
		buf = buf[reclen:]
	}
	return next, nil
}

func (in *instance[V]) add(name []byte, typ uint8, ino uint64) error {
	if string(name) == "." || string(name) == ".." {
		return nil
	}
	if in.m.s.cfg.AUFS {
		if target, kind := whiteout.ParseAUFS(string(name)); kind != whiteout.AUFSNone {
			if kind == whiteout.AUFSWhiteout {
				in.hidden = append(in.hidden, target)
			}
			return nil
		}
	}
	e := in.m.out.Find(unsafe.String(unsafe.SliceData(name), len(name)))
	if e != nil {
		return in.again(e, string(name), typ)
	}
	typ, err := in.resolve(string(name), typ)
	if err != nil || typ == unix.DT_UNKNOWN {
		return err
	}
	kept := in.m.names.copy(name)
	e = in.m.out.Add(Entry[V]{Name: kept, Ino: ino, Place: in.place, Type: typ})
	if typ != unix.DT_DIR {
		e.merged = ended
	}
	if typ == dtWhiteout {
		in.m.whiteouts = append(in.m.whiteouts, kept)
	}
	return nil
}

// again meets a name that a place above has already: directories merge, anything else ends the name.
func (in *instance[V]) again(e *Entry[V], name string, typ uint8) error {
	if e.Place == in.place || e.merged&ended != 0 && (e.merged&asked != 0 || e.Place != InUpper) {
		return nil
	}
	typ, err := in.resolve(name, typ)
	if err != nil || typ == unix.DT_UNKNOWN {
		return err
	}
	if e.merged&asked == 0 {
		e.merged |= asked
		e.Covers = typ != dtWhiteout
	}
	if e.merged&ended != 0 || typ != unix.DT_DIR {
		e.merged |= ended
		return nil
	}
	l := in.m.out
	if l.More == nil {
		l.More = make(map[uint64][]int32)
	}
	l.More[e.Cookie] = append(l.More[e.Cookie], in.place)
	return nil
}

// resolve finds out what the directory entry alone does not say: the type where the file system gives none, and whether it
// is a whiteout. It returns DT_UNKNOWN for what has gone meanwhile.
func (in *instance[V]) resolve(name string, typ uint8) (uint8, error) {
	switch typ {
	case unix.DT_UNKNOWN, unix.DT_CHR:
	case unix.DT_REG:
		if !in.hasXattrWhiteouts() {
			return typ, nil
		}
	default:
		return typ, nil
	}
	var st unix.Statx_t
	if err := Stat(in.dir, name, &st); err != nil {
		if absent(err) {
			return unix.DT_UNKNOWN, nil
		}
		return 0, err
	}
	if IsWhiteout(in.m.s, in.dir, name, &st, in.hasXattrWhiteouts()) {
		return dtWhiteout, nil
	}
	return uint8(st.Mode & unix.S_IFMT >> 12), nil
}

func (in *instance[V]) hasXattrWhiteouts() bool {
	if in.whiteouts == whiteoutsUnknown {
		in.whiteouts = whiteoutsNone
		if in.m.s.Opaqueness(in.dir, "") == whiteout.XattrWhiteouts {
			in.whiteouts = whiteoutsXattr
		}
	}
	return in.whiteouts == whiteoutsXattr
}

// finish hides the names of this directory's AUFS whiteouts in the places below. A name that this directory itself has is
// not hidden.
func (in *instance[V]) finish() {
	for _, name := range in.hidden {
		if e := in.m.out.Find(name); e != nil {
			e.merged = ended | asked
			continue
		}
		in.m.out.Add(Entry[V]{Name: name, Place: in.place, Type: dtWhiteout, merged: ended})
		in.m.whiteouts = append(in.m.whiteouts, name)
	}
}

func (m *merger[V]) dropWhiteouts() {
	for _, name := range m.whiteouts {
		m.out.Remove(name)
	}
	m.out.Seal()
}

// arena copies names into few large pieces of memory.
type arena struct{ free []byte }

func (a *arena) copy(name []byte) string {
	if len(name) > cap(a.free)-len(a.free) {
		a.free = make([]byte, 0, max(len(name), min(4096, 2*cap(a.free)), 128))
	}
	start := len(a.free)
	a.free = append(a.free, name...)
	b := a.free[start:]
	return unsafe.String(unsafe.SliceData(b), len(b))
}
