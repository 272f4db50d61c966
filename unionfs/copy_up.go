package unionfs

import (
	"math"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/unionfs-deep/unionfs-deep/unionfs/layers"
	"github.com/unionfs-deep/unionfs-deep/whiteout"
)

// wholeFile, as the length to copy up, is all of it.
const wholeFile int64 = math.MaxInt64

// wish is what a copy-up is asked for.
type wish struct {
	limit    int64   // how much of a file's data is wanted, in bytes
	metaOnly bool    // the metadata will do
	mode     *uint32 // the mode that the copy gets, nil for the lower file's
	answered bool    // the answer to the request has the new attributes
}

// forMeta is the wish to change a node's metadata: with metacopy=on a copy without data will do.
func (f *FS) forMeta(n *node) *wish {
	return &wish{limit: wholeFile, metaOnly: f.opts.Metacopy && n.kind == unix.S_IFREG}
}

// copyUpMeta makes sure that a node is in the upper layer so that its metadata can be changed.
func (f *FS) copyUpMeta(cancel <-chan struct{}, n *node) error {
	if n.upper.Load() != 0 {
		return nil
	}
	_, err := f.copyUp(cancel, n, f.forMeta(n))
	return err
}

// copyUpData makes sure that a node's data is in the upper layer: its first limit bytes, where the caller is going to cut
// it off there.
func (f *FS) copyUpData(cancel <-chan struct{}, n *node, limit int64) error {
	if n.upper.Load() != 0 && !f.isMetacopy(n) {
		return nil
	}
	if n.kind != unix.S_IFREG {
		return f.copyUpMeta(cancel, n)
	}
	_, err := f.copyUp(cancel, n, &wish{limit: limit})
	return err
}

func (f *FS) isMetacopy(n *node) bool {
	f.tree.RLock()
	defer f.tree.RUnlock()
	return n.ext != nil && n.ext.metacopy
}

// copyUp copies a node up, its parents first. The node's own lock is held for as long as it takes: others who need the
// copy wait for it, and so does who removes or renames the file, while reading it and everything else goes on. It tells whether the
// copy is this one's, and so as was wished, or was there already.
func (f *FS) copyUp(cancel <-chan struct{}, n *node, w *wish) (copied bool, err error) {
	f.tree.RLock()
	parent := n.parent
	f.tree.RUnlock()
	if parent != nil {
		if err := f.copyUpMeta(cancel, parent); err != nil {
			return false, err
		}
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	return f.copyUpLocked(cancel, n, w)
}

func (f *FS) copyUpLocked(cancel <-chan struct{}, n *node, w *wish) (copied bool, err error) {
	if n.upper.Load() != 0 {
		if w.metaOnly || !f.isMetacopy(n) {
			return false, nil
		}
		return false, f.completeMetacopy(cancel, n, w.limit)
	}
	from, err := f.lowerPlace(n)
	if err != nil {
		return false, err
	}
	defer from.Release()
	c := copyUp{f: f, n: n, cancel: cancel, from: from, wish: w, fd: -1}
	defer c.close()
	err = c.run()
	return err == nil, err
}

// copyUp is the state of one copy-up (struct ovl_copy_up_ctx). The copy is built in the work directory, whole, and published
// by one link or rename, so that a crash leaves the file as it was or as it became.
type copyUp struct {
	*wish
	f      *FS
	n      *node
	cancel <-chan struct{}
	from   place

	st     unix.Statx_t // of the lower inode, with the mode that is wished for
	made   unix.Statx_t // of the copy, as it was made
	temp   string       // name in the work directory, empty where it has none and once published
	fd     int          // the copy, open, of a regular file
	traced bool         // overlay.origin says where it came from
	broken bool         // it is no longer the same file as the other names of the lower one
	index  string       // name that it gets in the index, empty for none
}

func (c *copyUp) run() error {
	if err := layers.Stat(c.from.File, c.from.name, &c.st); err != nil {
		return err
	}
	if err := c.f.owners.check(c.from, &c.st); err != nil {
		return err
	}
	if c.mode != nil {
		c.st.Mode = c.st.Mode&unix.S_IFMT | uint16(*c.mode&07777)
	}
	for _, step := range []func() error{c.make, c.copyData, c.setOrigin, c.copyMetadata, c.sync} {
		if err := step(); err != nil {
			return err
		}
	}
	if err := c.publish(); err != nil {
		return err
	}
	c.f.copyUps.Add(1)
	return nil
}

// close removes a copy that was not published.
func (c *copyUp) close() {
	if c.fd >= 0 {
		unix.Close(c.fd)
	}
	if c.temp != "" {
		c.f.discard(c.temp)
	}
}

// place is where the copy is while it is built.
func (c *copyUp) place() place {
	if c.fd >= 0 {
		return place{layers.Borrow(c.fd), ""}
	}
	return place{layers.Borrow(c.f.upper.work), c.temp}
}

// make makes the empty copy, or takes one that was made before.
func (c *copyUp) make() (err error) {
	if uint32(c.st.Mode)&unix.S_IFMT == unix.S_IFREG {
		mode := uint32(c.st.Mode)&0777 | 0600
		if s, ok := c.f.helper.takeSpare(mode); ok {
			c.fd, c.made = s.fd, s.st
			return nil
		}
		err = c.makeFile(mode)
	} else {
		err = c.makeOther()
	}
	if err != nil {
		return err
	}
	made := c.place()
	return layers.Stat(made.File, made.name, &c.made)
}

// makeFile makes the copy of a regular file. It gets no name before it is published, so that nothing is left of it whatever
// happens, or one in the work directory where the upper layer's file system has no such files.
func (c *copyUp) makeFile(mode uint32) (err error) {
	c.fd, err = c.f.upper.makeNameless(mode)
	if err == unix.EOPNOTSUPP {
		c.temp = c.f.upper.temp()
		c.fd, err = unix.Openat(c.f.upper.work, c.temp, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL|unix.O_CLOEXEC|unix.O_NOFOLLOW, mode)
	}
	return err
}

// makeOther makes the copy of what is no regular file, in the work directory.
func (c *copyUp) makeOther() error {
	work := c.f.upper.work
	c.temp = c.f.upper.temp()
	switch uint32(c.st.Mode) & unix.S_IFMT {
	case unix.S_IFDIR:
		return unix.Mkdirat(work, c.temp, 0700)
	case unix.S_IFLNK:
		target, err := layers.Readlink(c.from.File, c.from.name)
		if err != nil {
			return err
		}
		return unix.Symlinkat(string(target), work, c.temp)
	}
	return unix.Mknodat(work, c.temp, uint32(c.st.Mode), int(unix.Mkdev(c.st.Rdev_major, c.st.Rdev_minor)))
}

// copyData copies a regular file's data, or gives the copy its size alone.
func (c *copyUp) copyData() error {
	if c.fd < 0 {
		return nil
	}
	if c.metaOnly {
		return unix.Ftruncate(c.fd, int64(c.st.Size))
	}
	from, err := c.f.openData(c.n, c.f.dataState(c.n))
	if err != nil {
		return err
	}
	defer from.Release()
	size := min(int64(c.st.Size), c.limit)
	err = c.f.copyData(c.cancel, from.FD, c.fd, size)
	if err == nil {
		c.f.copied.Add(uint64(size))
	}
	return err
}

// copyMetadata gives the copy the owner, xattrs, mode and times of the lower file.
func (c *copyUp) copyMetadata() error {
	return c.f.copyAttributes(c.from, c.place(), &c.st, &c.made, c.modeToMove())
}

// copyAttributes gives what is built at a place, and was made with the attributes made, those of an inode, with a mode that may
// differ. The owner comes first, since changing it drops capabilities and set-id bits; the times last.
func (f *FS) copyAttributes(from, to place, st, made *unix.Statx_t, mode uint32) error {
	if st.Uid != made.Uid || st.Gid != made.Gid {
		if err := unix.Fchownat(to.FD, to.name, int(st.Uid), int(st.Gid), unix.AT_SYMLINK_NOFOLLOW|emptyPath(to.name)); err != nil {
			return err
		}
	}
	acl, err := f.copyXattrs(from, to)
	if err != nil {
		return err
	}
	if uint32(st.Mode)&unix.S_IFMT != unix.S_IFLNK && (acl || mode != uint32(made.Mode)&07777) {
		if err := chmod(to, mode); err != nil {
			return err
		}
	}
	return utimens(to, timesOf(st))
}

// modeToMove is the mode that the copy has while it is built. A directory that its owner may not write cannot be moved to
// another by a server without capabilities: it becomes read-only in its place.
func (c *copyUp) modeToMove() uint32 {
	mode := uint32(c.st.Mode) & 07777
	if c.n.dir != nil && c.f.creds.uid != 0 {
		mode |= unix.S_IWUSR
	}
	return mode
}

func timesOf(st *unix.Statx_t) *[2]unix.Timespec {
	return &[2]unix.Timespec{
		{Sec: st.Atime.Sec, Nsec: int64(st.Atime.Nsec)},
		{Sec: st.Mtime.Sec, Nsec: int64(st.Mtime.Nsec)},
	}
}

// copyXattrs copies all xattrs but the union's own (ovl_copy_xattr). Those that guard the file must not be lost; another
// that the upper file system does not take is left out. acl tells that one has set the mode as well.
func (f *FS) copyXattrs(from, to place) (acl bool, err error) {
	names, err := layers.Listxattr(from.FD, from.name)
	if err != nil {
		if err == unix.EOPNOTSUPP {
			return false, nil
		}
		return false, err
	}
	ns := f.stack.Namespace()
	for _, name := range names {
		if ns.Private(name) {
			continue
		}
		value, err := layers.ReadXattr(from.FD, from.name, name)
		if err == unix.ENODATA {
			continue
		}
		if err == nil {
			err = layers.Setxattr(to.FD, to.name, name, value, 0)
		}
		if err != nil && !(mayLose(name) && (err == unix.EOPNOTSUPP || err == unix.EPERM)) {
			return acl, err
		}
		acl = acl || name == aclAccess
	}
	return acl, nil
}

// mayLose tells the xattrs that are no loss where the upper layer cannot hold them (ovl_must_copy_xattr). Labels of
// security modules are set by these themselves.
func mayLose(name string) bool {
	return name != capability && !strings.HasPrefix(name, "system.posix_acl_")
}

// setOrigin marks the copy with where it came from, so that it keeps its inode number, and with being without data. It comes
// before the copy gets its mode, which may withhold from a server without capabilities the right to set xattrs.
func (c *copyUp) setOrigin() error {
	ns := c.f.stack.Namespace()
	to := c.place()
	c.broken = c.n.dir == nil && c.st.Nlink > 1 && !c.f.opts.Index
	var value []byte
	if !c.broken {
		value = c.f.originOf(c.from, &c.st)
		err := layers.Setxattr(to.FD, to.name, ns.Origin(), value, 0)
		if err != nil && err != unix.EOPNOTSUPP && err != unix.EPERM {
			return err
		}
		c.traced = err == nil
	}
	if c.n.dir == nil && c.st.Nlink > 1 && c.traced {
		if err := c.setIndex(to, value); err != nil {
			return err
		}
	}
	if !c.metaOnly {
		return nil
	}
	return layers.Setxattr(to.FD, to.name, ns.Metacopy(), nil, 0)
}

// sync makes the copy durable before it replaces what is.
func (c *copyUp) sync() error {
	if c.fd < 0 || c.metaOnly {
		return nil
	}
	return c.f.syncFile(c.fd, false)
}

// publish puts the copy under its name. The node's lock keeps the name; a node without one keeps its copy open instead.
func (c *copyUp) publish() error {
	f, n := c.f, c.n
	f.tree.RLock()
	parent, name := n.parent, n.name
	f.tree.RUnlock()
	if parent == nil {
		return c.publishNameless()
	}
	parent.dir.mu.Lock()
	defer parent.dir.mu.Unlock()
	up, err := f.upperDir(parent)
	if err != nil {
		return err
	}
	defer up.Release()
	if err := f.setImpure(parent, up); err != nil {
		return err
	}
	var before unix.Statx_t
	if err := layers.Stat(up, "", &before); err != nil {
		return err
	}
	if err := c.install(up, name); err != nil {
		return err
	}
	if mode := uint32(c.st.Mode) & 07777; mode != c.modeToMove() {
		_ = chmod(place{up, name}, mode)
	}
	_ = utimens(place{up, ""}, timesOf(&before)) // the directory has not changed for those who see the union
	c.settle(parent, name)
	return nil
}

// install gives the copy its name, or with an index one in that first.
func (c *copyUp) install(up *layers.File, name string) error {
	to, toName := up.FD, name
	if c.index != "" {
		to, toName = c.f.upper.index, c.index
	}
	if err := c.giveName(to, toName); err != nil || c.index == "" {
		return err
	}
	if err := unix.Linkat(to, toName, up.FD, name, 0); err != nil {
		_ = unix.Unlinkat(to, toName, 0) // where it would be in the way of the next copy-up
		return err
	}
	// From now on the count is relative to the upper inode, which has the name and the one in the index. Where that cannot be
	// stored it stays relative to the lower one, which is as right until the next change of names stores it again.
	_ = c.f.storeLinks(place{layers.Borrow(to), toName}, whiteout.Nlink{Upper: true, Diff: int32(c.st.Nlink) - 2})
	return nil
}

// giveName gives the copy the name that it will have, where nothing has that name yet.
func (c *copyUp) giveName(dir int, name string) error {
	if c.temp == "" {
		return linkat(c.place(), dir, name)
	}
	err := unix.Renameat2(c.f.upper.work, c.temp, dir, name, unix.RENAME_NOREPLACE)
	if err == nil {
		c.temp = ""
	}
	return err
}

// publishNameless keeps the copy of a file that was unlinked and may still be open.
func (c *copyUp) publishNameless() (err error) {
	if c.temp == "" {
		fd := c.fd
		c.fd = -1
		err = c.f.keepOpen(c.n, fd)
	} else if err = c.f.keepTemp(c.n, c.temp); err == nil {
		c.temp = ""
	}
	if err != nil {
		return err
	}
	c.settle(nil, "")
	return nil
}

// settle makes the node one of the upper layer. What was open of the lower file is let go after that, so that whoever
// opens its data from here on finds the copy.
func (c *copyUp) settle(parent *node, name string) {
	f, n := c.f, c.n
	f.tree.Lock()
	if c.metaOnly {
		x := n.extraLocked()
		if !x.metacopy {
			x.metacopy, x.data, x.dataName = true, n.lower, n.lowerName
		}
	} else if n.ext != nil {
		n.ext.metacopy, n.ext.data = false, nil
	}
	n.upper.Store(c.made.Ino)
	if c.index != "" {
		n.extraLocked().index = c.index
	}
	if c.broken {
		n.ino.Store(f.stack.Ino(f.stack.Upper.Dev(), c.made.Ino))
	}
	if parent != nil && parent.dir.listing != nil {
		if e := parent.dir.listing.Find(name); e != nil {
			parent.dir.listing.CopiedUp(e, c.made.Ino)
		}
	}
	parents := n.parentsLocked()
	f.tree.Unlock()
	for _, p := range parents {
		f.dropLookedUp(p) // an upper inode that is known is kept when it loses its name
	}
	if n.dir == nil && !c.metaOnly {
		f.stack.Cache.Drop(dataKey(n, false))
		f.backings.Drop(n.id)
	}
	// The copy has another time of change, maybe another link count, and its directory has changed as well.
	if !c.answered {
		f.attributesChanged(n)
	}
	switch {
	case parent == nil:
	case c.broken:
		f.listingChanged(parent) // the entry has another inode number
	default:
		f.attributesChangedSoon(parent)
	}
}

// completeMetacopy copies the data of a file of which the upper layer has the metadata (ovl_copy_up_meta_inode_data). Until
// the mark is taken off, readers go on with the lower data.
func (f *FS) completeMetacopy(cancel <-chan struct{}, n *node, limit int64) error {
	p, err := f.upperPlace(n)
	if err != nil {
		return err
	}
	defer p.Release()
	var st unix.Statx_t
	if err := layers.Stat(p.File, p.name, &st); err != nil {
		return err
	}
	fd, err := openPlace(p, unix.O_RDWR)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	from, err := f.openData(n, f.dataState(n))
	if err != nil {
		return err
	}
	defer from.Release()
	if err := f.fillMetacopy(cancel, from.FD, fd, &st, limit); err != nil {
		return err
	}
	if err := layers.Removexattr(fd, "", f.stack.Namespace().Metacopy()); err != nil {
		return err
	}
	f.tree.Lock()
	n.ext.metacopy, n.ext.data = false, nil
	f.tree.Unlock()
	f.stack.Cache.Drop(dataKey(n, false))
	f.backings.Drop(n.id)
	f.copyUps.Add(1)
	f.attributesChanged(n) // its times and its blocks
	return nil
}

// fillMetacopy writes the data and puts back the capabilities that writing dropped. The time of modification stays as
// writing left it, as with the kernel.
func (f *FS) fillMetacopy(cancel <-chan struct{}, from, to int, st *unix.Statx_t, limit int64) error {
	caps, capErr := layers.ReadXattr(to, "", capability)
	size := min(int64(st.Size), limit)
	if err := f.copyData(cancel, from, to, size); err != nil {
		return err
	}
	f.copied.Add(uint64(size))
	if capErr == nil {
		if err := layers.Setxattr(to, "", capability, caps, 0); err != nil {
			return err
		}
	}
	return f.syncFile(to, false)
}
