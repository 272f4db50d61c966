package unionfs

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"strconv"
	"sync"
	"sync/atomic"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/unionfs-deep/unionfs-deep/unionfs/layers"
	"github.com/unionfs-deep/unionfs-deep/whiteout"
)

// upperLayer is the upper layer and its work directory, in which what is to be published by one rename is built. As with
// the kernel, the work directory W holds W/work, emptied at each mount, and with index=on W/index.
type upperLayer struct {
	rootIno  uint64
	root     int // descriptor of the upper layer's root
	lock     int // descriptor of W, locked while the union lives
	work     int // descriptor of W/work
	index    int // descriptor of W/index, -1 without
	volatile bool
	nextTemp atomic.Uint64
	noClone  atomic.Bool // its file system shares no blocks between files

	whiteoutMu sync.Mutex
	whiteout   string // name in W/work of the whiteout of which others are links, empty for none; guarded by whiteoutMu
}

// openUpper takes the work directory into use. EBUSY means that another union uses it.
func openUpper(s *layers.Stack, o Options) (*upperLayer, error) {
	u := &upperLayer{root: -1, lock: -1, work: -1, index: -1, volatile: o.Volatile}
	if err := u.open(s, o); err != nil {
		u.close()
		return nil, err
	}
	return u, nil
}

func (u *upperLayer) open(s *layers.Stack, o Options) (err error) {
	if u.root, err = s.Upper.OpenRoot(); err != nil {
		return &os.PathError{Op: "open upper directory", Path: o.Upper, Err: err}
	}
	var st unix.Stat_t
	if err := unix.Fstat(u.root, &st); err != nil {
		return &os.PathError{Op: "stat", Path: o.Upper, Err: err}
	}
	u.rootIno = st.Ino
	if u.lock, err = openDirectory(unix.AT_FDCWD, o.Work); err != nil {
		return &os.PathError{Op: "open work directory", Path: o.Work, Err: err}
	}
	if err := unix.Flock(u.lock, unix.LOCK_EX|unix.LOCK_NB); err != nil {
		if err == unix.EWOULDBLOCK {
			err = unix.EBUSY
		}
		return &os.PathError{Op: "lock work directory (another mount uses it)", Path: o.Work, Err: err}
	}
	if o.ReadOnly {
		return nil
	}
	return u.prepare(s, o)
}

// prepare empties W/work and makes what is to be there.
func (u *upperLayer) prepare(s *layers.Stack, o Options) (err error) {
	if err := u.refuseIncompatible(o.Work); err != nil {
		return err
	}
	if err := removeAll(u.lock, "work"); err != nil && err != unix.ENOENT {
		return &os.PathError{Op: "clean work directory", Path: o.Work + "/work", Err: err}
	}
	if u.work, err = makeDirectory(u.lock, "work", workMode()); err != nil {
		return &os.PathError{Op: "make work directory", Path: o.Work + "/work", Err: err}
	}
	if o.Index {
		if u.index, err = makeDirectory(u.lock, "index", workMode()); err != nil {
			return &os.PathError{Op: "make index", Path: o.Work + "/index", Err: err}
		}
		if err := u.bindIndex(s, o); err != nil {
			return err
		}
	}
	u.giveUUID(s.Namespace())
	if o.Volatile {
		return u.markVolatile(o.Work)
	}
	return nil
}

// bindIndex ties the index to the layers for which it holds: the upper layer's root names the topmost lower layer's as its
// origin, and the index names the upper layer's root (ovl_get_indexdir). With other layers an index would be wrong.
func (u *upperLayer) bindIndex(s *layers.Stack, o Options) error {
	if len(s.Lower) == 0 {
		return nil
	}
	lower, err := s.OpenDir(layers.Place{Layer: s.Lower[0]})
	if err != nil {
		return &os.PathError{Op: "open layer", Path: s.Lower[0].Path(), Err: err}
	}
	defer lower.Release()
	ns := s.Namespace()
	if err := verifyOrigin(u.root, ns.Origin(), encodeOrigin(place{lower, ""}, false)); err != nil {
		return fmt.Errorf("index=on: upper directory %s was used with another lower layer than %s: %w", o.Upper, s.Lower[0].Path(), err)
	}
	if err := verifyOrigin(u.index, ns.Upper(), encodeOrigin(place{layers.Borrow(u.root), ""}, true)); err != nil {
		return fmt.Errorf("index=on: work directory %s was used with another upper directory than %s: %w", o.Work, o.Upper, err)
	}
	return nil
}

// verifyOrigin checks that a directory's xattr names an inode, or sets it (ovl_verify_set_fh).
func verifyOrigin(dir int, attr string, want []byte) error {
	have, err := layers.ReadXattr(dir, "", attr)
	if err == unix.ENODATA {
		err = layers.Setxattr(dir, "", attr, want, 0)
		if err == unix.EOPNOTSUPP {
			return nil
		}
		return err
	}
	if err == nil && len(have) > 0 && !bytes.Equal(have, want) {
		return unix.ESTALE
	}
	return err
}

// giveUUID gives a new upper layer the UUID by which the kernel will know the overlay, as it does itself at the first mount
// (ovl_init_uuid_xattr): one that was used without stays without.
func (u *upperLayer) giveUUID(ns whiteout.Namespace) {
	root := layers.Borrow(u.root)
	for _, attr := range []string{ns.UUID(), ns.Impure()} {
		if _, err := layers.Getxattr(root, "", attr, nil); err != unix.ENODATA {
			return
		}
	}
	var uuid [16]byte
	_, _ = rand.Read(uuid[:])
	uuid[6], uuid[8] = uuid[6]&0x0f|0x40, uuid[8]&0x3f|0x80 // version 4
	_ = layers.Setxattr(u.root, "", ns.UUID(), uuid[:], unix.XATTR_CREATE)
}

// refuseIncompatible refuses a work directory whose upper layer was last mounted volatile: a crash since may have lost any
// part of it (ovl_workdir_cleanup).
func (u *upperLayer) refuseIncompatible(work string) error {
	var st unix.Stat_t
	if unix.Fstatat(u.lock, "work/incompat/volatile", &st, unix.AT_SYMLINK_NOFOLLOW) != nil {
		return nil
	}
	return fmt.Errorf("work directory %s was used with the option volatile and may be incomplete: check the upper directory, "+
		"then remove %s/work/incompat/volatile: %w", work, work, unix.EINVAL)
}

// markVolatile leaves the mark that refuseIncompatible looks for (ovl_create_volatile_dirty).
func (u *upperLayer) markVolatile(work string) error {
	at := u.work
	for _, name := range []string{"incompat", "volatile"} {
		fd, err := makeDirectory(at, name, 0700)
		if at != u.work {
			unix.Close(at)
		}
		if err != nil {
			return &os.PathError{Op: "mark as volatile", Path: work, Err: err}
		}
		at = fd
	}
	defer unix.Close(at)
	fd, err := unix.Openat(at, "dirty", unix.O_WRONLY|unix.O_CREAT|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0600)
	if err != nil {
		return &os.PathError{Op: "mark as volatile", Path: work, Err: err}
	}
	return unix.Close(fd)
}

func (u *upperLayer) close() {
	for _, fd := range []int{u.root, u.work, u.index, u.lock} {
		if fd >= 0 {
			unix.Close(fd)
		}
	}
}

// sync writes everything back that the upper layer's file system has.
func (u *upperLayer) sync() error {
	if u.volatile {
		return nil
	}
	return unix.Syncfs(u.root)
}

// openDir opens a directory by its path from the upper layer's root.
func (u *upperLayer) openDir(path string) (int, error) { return layers.OpenBeneath(u.root, path) }

// temp returns a name in W/work that is in use nowhere, in the kernel's own form.
func (u *upperLayer) temp() string { return "#" + strconv.FormatUint(u.nextTemp.Add(1), 16) }

// workMode closes what the union builds to all others: to everyone, as the kernel does, where the server is root and needs
// no permission.
func workMode() uint32 {
	if os.Geteuid() == 0 {
		return 0
	}
	return 0700
}

func openDirectory(at int, path string) (int, error) {
	return unix.Openat(at, path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
}

func makeDirectory(at int, name string, mode uint32) (int, error) {
	if err := unix.Mkdirat(at, name, mode); err != nil && err != unix.EEXIST {
		return -1, err
	}
	return unix.Openat(at, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
}

// discard removes a name of the work directory. What cannot be removed stays until the next mount (ovl_cleanup): what it is
// left over from has been done, or has failed for a reason of its own, and neither is changed by this.
func (f *FS) discard(temp string) {
	if err := removeAll(f.upper.work, temp); err != nil && err != unix.ENOENT {
		f.log.Warn("left in the work directory until the next mount", "name", temp, "error", err)
	}
}

// maxRemoveDepth bounds the recursion of removeAll: the descriptors that it holds.
const maxRemoveDepth = 200

// removeAll removes a name of a directory and all below it.
func removeAll(at int, name string) error { return removeTree(at, name, maxRemoveDepth) }

func removeTree(at int, name string, depth int) error {
	err := unix.Unlinkat(at, name, 0)
	if err != unix.EISDIR && err != unix.EPERM {
		return err
	}
	err = unix.Unlinkat(at, name, unix.AT_REMOVEDIR)
	if err != unix.ENOTEMPTY && err != unix.EEXIST {
		return err
	}
	if depth == 0 {
		return unix.ELOOP
	}
	fd, err := unix.Openat(at, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	dir := os.NewFile(uintptr(fd), name)
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return err
	}
	for _, child := range names {
		if err := removeTree(fd, child, depth-1); err != nil && !errors.Is(err, unix.ENOENT) {
			return err
		}
	}
	return unix.Unlinkat(at, name, unix.AT_REMOVEDIR)
}

// StatFs answers how full the upper layer's file system is, or the topmost layer's (ovl_statfs).
func (f *FS) StatFs(cancel <-chan struct{}, in *fuse.InHeader, out *fuse.StatfsOut) fuse.Status {
	dir, err := f.topRoot()
	if err != nil {
		return status(err)
	}
	defer dir.Release()
	f.helper.settle()
	var st unix.Statfs_t
	if err := unix.Fstatfs(dir.FD, &st); err != nil {
		return status(err)
	}
	*out = fuse.StatfsOut{
		Blocks: st.Blocks, Bfree: st.Bfree, Bavail: st.Bavail, Files: st.Files, Ffree: st.Ffree,
		Bsize: uint32(st.Bsize), Frsize: uint32(st.Frsize), NameLen: maxName,
	}
	return fuse.OK
}

// topRoot returns the root directory of the topmost layer.
func (f *FS) topRoot() (*layers.File, error) {
	if f.upper != nil {
		return f.upperDir(f.root)
	}
	return f.stack.OpenDir(f.root.dir.places[0])
}
