package unionfs

import (
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/unionfs-deep/unionfs-deep/perf"
	"github.com/unionfs-deep/unionfs-deep/unionfs/layers"
	"github.com/unionfs-deep/unionfs-deep/whiteout"
)

// creation is what is to be made under a name (struct ovl_cattr).
type creation struct {
	mode   uint32 // type and permissions, umask not applied
	umask  uint32
	rdev   uint32
	target string // of a symbolic link
	caller *fuse.Caller
}

// at makes it.
func (c *creation) at(dir int, name string) error {
	switch c.mode & unix.S_IFMT {
	case unix.S_IFDIR:
		return unix.Mkdirat(dir, name, c.mode&07777)
	case unix.S_IFLNK:
		return unix.Symlinkat(c.target, dir, name)
	}
	return unix.Mknodat(dir, name, c.mode, int(c.rdev))
}

// Mkdir makes a directory.
func (f *FS) Mkdir(cancel <-chan struct{}, in *fuse.MkdirIn, name string, out *fuse.EntryOut) fuse.Status {
	c := creation{mode: unix.S_IFDIR | in.Mode&07777, umask: in.Umask, caller: &in.Caller}
	return status(f.make(cancel, in.NodeId, name, &c, out))
}

// Mknod makes a file, FIFO, socket or device. Whiteouts cannot be made (ovl_mknod).
func (f *FS) Mknod(cancel <-chan struct{}, in *fuse.MknodIn, name string, out *fuse.EntryOut) fuse.Status {
	if whiteout.IsDevice(in.Mode, uint64(in.Rdev)) {
		return fuse.EPERM
	}
	c := creation{mode: in.Mode, rdev: in.Rdev, umask: in.Umask, caller: &in.Caller}
	return status(f.make(cancel, in.NodeId, name, &c, out))
}

// Symlink makes a symbolic link.
func (f *FS) Symlink(cancel <-chan struct{}, h *fuse.InHeader, target, name string, out *fuse.EntryOut) fuse.Status {
	c := creation{mode: unix.S_IFLNK | 0777, target: target, caller: &h.Caller}
	return status(f.make(cancel, h.NodeId, name, &c, out))
}

// Create makes a file and opens it. With the profile cache the kernel is told to use MKNOD, which takes a message less.
func (f *FS) Create(cancel <-chan struct{}, in *fuse.CreateIn, name string, out *fuse.CreateOut) fuse.Status {
	if f.profile == perf.Cache {
		return fuse.ENOSYS
	}
	c := creation{mode: unix.S_IFREG | in.Mode&07777, umask: in.Umask, caller: &in.Caller}
	if err := f.make(cancel, in.NodeId, name, &c, &out.EntryOut); err != nil {
		return status(err)
	}
	return f.openCreated(in.Flags, out)
}

// openCreated opens what was just made for its maker.
func (f *FS) openCreated(flags uint32, out *fuse.CreateOut) fuse.Status {
	n, err := f.node(out.NodeId)
	if err != nil {
		return status(err)
	}
	if err := f.opened(n, flags, &out.OpenOut); err != nil {
		return status(err)
	}
	if f.profile == perf.Passthrough && f.opts.Timeout > moment {
		// As in attrValidity, but not at once: the kernel checks the mode right after this answer.
		out.AttrValid, out.AttrValidNsec = 0, uint32(moment)
	}
	return fuse.OK
}

// make makes something in the upper layer and answers it.
func (f *FS) make(cancel <-chan struct{}, parentID uint64, name string, c *creation, out *fuse.EntryOut) error {
	parent, err := f.directory(parentID)
	if err != nil {
		return err
	}
	up, err := f.prepareParent(cancel, parent, name)
	if err != nil {
		return err
	}
	defer up.Release()
	var st unix.Statx_t
	n, err := f.makeIn(parent, up, name, c, &st)
	if err != nil {
		return err
	}
	return f.entryStat(n, &st, out)
}

// prepareParent makes a directory ready for a change of its names, and returns its upper directory.
func (f *FS) prepareParent(cancel <-chan struct{}, parent *node, name string) (*layers.File, error) {
	if err := f.writable(); err != nil {
		return nil, err
	}
	if len(name) > maxName {
		return nil, unix.ENAMETOOLONG
	}
	if err := f.copyUpMeta(cancel, parent); err != nil {
		return nil, err
	}
	if err := f.list(parent); err != nil {
		return nil, err
	}
	return f.upperDir(parent)
}

func (f *FS) makeIn(parent *node, up *layers.File, name string, c *creation, st *unix.Statx_t) (*node, error) {
	parent.dir.mu.Lock()
	defer parent.dir.mu.Unlock()
	if f.exists(parent, name) {
		return nil, unix.EEXIST
	}
	if c.mode&unix.S_IFMT != unix.S_IFLNK && !parent.dir.inheritsACL(up) {
		c.mode &^= c.umask
	}
	overWhiteout := false
	fd, err := f.makeDirectly(up, name, c)
	if err == unix.EEXIST {
		overWhiteout = true
		err = f.makeOver(up, name, c)
	}
	if err != nil {
		return nil, err
	}
	if c.mode&unix.S_IFMT == unix.S_IFDIR && !overWhiteout && len(parent.dir.places) > 0 && !f.opts.offlineChanges() {
		// Nothing is below it. The mark spares looking, now and at later mounts; it is no loss where it cannot be set.
		_ = f.setOpaque(place{up, name})
	}
	return f.adoptNew(parent, up, name, overWhiteout, fd, st)
}

// makeDirectly makes something in its directory, where the layer's file system does all that the caller may expect. A
// regular file is opened on the way, if that is not done under another user's name: it will be written to.
func (f *FS) makeDirectly(up *layers.File, name string, c *creation) (fd int, err error) {
	if c.mode&unix.S_IFMT == unix.S_IFREG && f.creds.are(c.caller) {
		const flags = unix.O_RDWR | unix.O_CREAT | unix.O_EXCL | unix.O_NOFOLLOW | unix.O_CLOEXEC
		return unix.Openat(up.FD, name, flags, c.mode&07777)
	}
	return -1, f.creds.as(c.caller, func() error { return c.at(up.FD, name) })
}

func (f *FS) exists(parent *node, name string) bool {
	f.tree.RLock()
	defer f.tree.RUnlock()
	return parent.dir.listing.Find(name) != nil
}

// makeOver makes something where a whiteout hides a lower name: in the work directory, put in the whiteout's place by one
// rename (ovl_create_over_whiteout). What the layer's file system would do for the caller in the directory itself is done
// by hand here.
func (f *FS) makeOver(up *layers.File, name string, c *creation) error {
	temp := f.upper.temp()
	if err := c.at(f.upper.work, temp); err != nil {
		return err
	}
	at := place{layers.Borrow(f.upper.work), temp}
	err := f.inherit(at, up, c)
	if err == nil && c.mode&unix.S_IFMT == unix.S_IFDIR {
		err = f.setOpaque(at)
		if err == nil {
			err = unix.Renameat2(f.upper.work, temp, up.FD, name, unix.RENAME_EXCHANGE)
		}
	} else if err == nil {
		return f.orRemove(temp, unix.Renameat(f.upper.work, temp, up.FD, name))
	}
	f.discard(temp) // the whiteout, or what could not be finished
	return err
}

// orRemove removes a name of the work directory where an operation on it failed.
func (f *FS) orRemove(temp string, err error) error {
	if err != nil {
		f.discard(temp)
	}
	return err
}

func (f *FS) setOpaque(at place) error {
	return layers.Setxattr(at.FD, at.name, f.stack.Namespace().Opaque(), whiteout.Opaque.Bytes(), 0)
}

// adoptNew makes the node of what was just made, opened as fd if that is not -1, and counts a look-up.
func (f *FS) adoptNew(parent *node, up *layers.File, name string, covers bool, fd int, st *unix.Statx_t) (*node, error) {
	at := place{up, name}
	if fd >= 0 {
		at = place{layers.Borrow(fd), ""}
	}
	if err := layers.Stat(at.File, at.name, st); err != nil {
		if fd >= 0 {
			unix.Close(fd)
		}
		return nil, err
	}
	n := newUpperNode(f, st)
	f.nameNew(parent, name, n, covers)
	if fd >= 0 {
		f.stack.Cache.Put(dataKey(n, true), fd, true).Release()
	}
	return n, nil
}

// nameNew puts a new node into the table and its directory's listing.
func (f *FS) nameNew(parent *node, name string, n *node, covers bool) {
	f.tree.Lock()
	defer f.tree.Unlock()
	e := parent.dir.listing.Add(layers.Entry[*node]{
		Name: name, Ino: n.upper.Load(), Place: layers.InUpper, Type: uint8(n.kind >> 12), Covers: covers,
	})
	f.handles.remove(parent, name)
	f.insertLocked(n, parent, e.Name)
	f.attachLocked(n, parent, e.Name)
}

func newUpperNode(f *FS, st *unix.Statx_t) *node {
	n := &node{kind: uint32(st.Mode) & unix.S_IFMT}
	n.upper.Store(st.Ino)
	n.ino.Store(f.stack.InoOf(st))
	if n.kind == unix.S_IFDIR {
		n.dir = &directory{listing: layers.NewListing[*node]()}
	}
	return n
}

// Tmpfile makes a file without a name, which may be linked later.
func (f *FS) Tmpfile(cancel <-chan struct{}, in *fuse.CreateIn, out *fuse.CreateOut) fuse.Status {
	n, err := f.tmpfile(cancel, in)
	if err == nil {
		err = f.entry(n, &out.EntryOut)
	}
	if err != nil {
		return status(err)
	}
	return f.openCreated(in.Flags, out)
}

func (f *FS) tmpfile(cancel <-chan struct{}, in *fuse.CreateIn) (*node, error) {
	parent, err := f.directory(in.NodeId)
	if err != nil {
		return nil, err
	}
	up, err := f.prepareParent(cancel, parent, "")
	if err != nil {
		return nil, err
	}
	defer up.Release()
	mode := in.Mode & 07777
	if !parent.dir.inheritsACL(up) {
		mode &^= in.Umask
	}
	fd := -1
	err = f.creds.as(&in.Caller, func() (err error) {
		fd, err = unix.Openat(up.FD, ".", unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, mode)
		return err
	})
	if err != nil {
		return nil, err
	}
	var st unix.Statx_t
	if err := layers.StatFD(fd, "", &st); err != nil {
		unix.Close(fd)
		return nil, err
	}
	n := newUpperNode(f, &st)
	f.tree.Lock()
	n.lookups = 1
	f.lastID++
	n.id = f.lastID
	f.nodes[n.id] = n
	f.tree.Unlock()
	if err := f.keepOpen(n, fd); err != nil {
		f.Forget(n.id, 1)
		return nil, err
	}
	return n, nil
}

// Link gives a file another name.
func (f *FS) Link(cancel <-chan struct{}, in *fuse.LinkIn, name string, out *fuse.EntryOut) fuse.Status {
	n, err := f.node(in.Oldnodeid)
	if err == nil {
		err = f.link(cancel, in.NodeId, name, n)
	}
	if err != nil {
		return status(err)
	}
	return status(f.entry(n, out))
}

func (f *FS) link(cancel <-chan struct{}, parentID uint64, name string, n *node) error {
	parent, err := f.directory(parentID)
	if err != nil {
		return err
	}
	if n.upper.Load() == 0 && f.isGone(n) { // of an upper one its file system knows
		return unix.ENOENT
	}
	up, err := f.prepareParent(cancel, parent, name)
	if err != nil {
		return err
	}
	defer up.Release()
	return f.unsure(f.linkIn(cancel, parent, up, name, n), parent, n)
}

// linkIn gives a node a name in a directory that is ready for it.
func (f *FS) linkIn(cancel <-chan struct{}, parent *node, up *layers.File, name string, n *node) error {
	if err := f.copyUpMeta(cancel, n); err != nil {
		return err
	}
	from, err := f.upperPlace(n)
	if err != nil {
		return err
	}
	defer from.Release()
	parent.dir.mu.Lock()
	defer parent.dir.mu.Unlock()
	if f.exists(parent, name) {
		return unix.EEXIST
	}
	if err := f.beforeLinks(n, 0); err != nil {
		return err
	}
	if err := f.markLinked(n, from, parent, up); err != nil {
		return err
	}
	covers := false
	if err = linkat(from, up.FD, name); err == unix.EEXIST {
		covers = true
		err = f.linkOver(from, up, name)
	}
	if err != nil {
		return err
	}
	f.named(parent, name, n, covers)
	return nil
}

// markLinked marks what a link changes the meaning of: its directory, which now holds what came from below, and a metacopy
// file, whose data is not to be found by its name alone any more.
func (f *FS) markLinked(n *node, from place, parent *node, up *layers.File) error {
	if _, err := layers.Getxattr(from.File, from.name, f.stack.Namespace().Origin(), nil); err == nil {
		if err := f.setImpure(parent, up); err != nil {
			return err
		}
	}
	if !f.isMetacopy(n) {
		return nil
	}
	return f.setFileRedirect(n, from, "")
}

// linkOver puts a link in the place of a whiteout.
func (f *FS) linkOver(from place, up *layers.File, name string) error {
	temp := f.upper.temp()
	if err := linkat(from, f.upper.work, temp); err != nil {
		return err
	}
	return f.orRemove(temp, unix.Renameat(f.upper.work, temp, up.FD, name))
}

func linkat(from place, dir int, name string) error {
	if from.name != "" {
		return unix.Linkat(from.FD, from.name, dir, name, 0)
	}
	err := unix.Linkat(from.FD, "", dir, name, unix.AT_EMPTY_PATH)
	if err == unix.ENOENT { // before Linux 6.10 this takes CAP_DAC_READ_SEARCH, later it may as well; and the directory may be gone
		err = unix.Linkat(unix.AT_FDCWD, procName(from), dir, name, unix.AT_SYMLINK_FOLLOW)
	}
	return err
}

// named gives a node a further name, and counts a look-up.
func (f *FS) named(parent *node, name string, n *node, covers bool) {
	f.tree.Lock()
	e := parent.dir.listing.Add(layers.Entry[*node]{
		Name: name, Ino: n.upper.Load(), Place: layers.InUpper, Type: uint8(n.kind >> 12), Covers: covers,
	})
	f.handles.remove(parent, name)
	f.attachLocked(n, parent, e.Name)
	n.lookups++
	k := f.unkeepLocked(n)
	x := n.extraLocked()
	x.gone = false
	if !x.shared {
		x.shared, x.inoKey = true, inodeKey{upper: true, ino: n.upper.Load()}
		f.byInode[x.inoKey] = n
	}
	f.tree.Unlock()
	f.letGo(n, k)
}

func (f *FS) isGone(n *node) bool {
	f.tree.RLock()
	defer f.tree.RUnlock()
	return n.ext != nil && n.ext.gone
}
