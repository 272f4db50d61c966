package unionfs

import (
	"unsafe"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/unionfs-deep/unionfs-deep/unionfs/layers"
)

// GetAttr answers a node's attributes.
func (f *FS) GetAttr(cancel <-chan struct{}, in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	n, err := f.node(in.NodeId)
	if err != nil {
		return status(err)
	}
	return status(f.attr(n, out))
}

func (f *FS) attr(n *node, out *fuse.AttrOut) error {
	var st unix.Statx_t
	if err := f.stat(n, &st); err != nil {
		return err
	}
	out.AttrValid, out.AttrValidNsec = f.attrValidity(n)
	fillAttr(&out.Attr, &st)
	return nil
}

// Statx answers a node's attributes with the time of birth.
func (f *FS) Statx(cancel <-chan struct{}, in *fuse.StatxIn, out *fuse.StatxOut) fuse.Status {
	n, err := f.node(in.NodeId)
	if err != nil {
		return status(err)
	}
	var st unix.Statx_t
	if err := f.stat(n, &st); err != nil {
		return status(err)
	}
	out.AttrValid, out.AttrValidNsec = f.attrValidity(n)
	out.Statx.FromStatx(&st)
	return fuse.OK
}

// stat returns a node's attributes as the union shows them (ovl_getattr): those of the topmost inode, with an inode number
// that stays over copy-up and the link count that the union gives it.
func (f *FS) stat(n *node, st *unix.Statx_t) error {
	*st = unix.Statx_t{}
	return f.statKnown(n, st)
}

// statKnown is stat with the attributes of the topmost inode, unless st is empty, where they have just been read.
func (f *FS) statKnown(n *node, st *unix.Statx_t) error {
	if st.Mask == 0 {
		if err := f.statReal(n, st); err != nil {
			return err
		}
	}
	if uint32(st.Mode)&unix.S_IFMT != n.kind {
		return unix.ESTALE // a lower layer changed under us
	}
	st.Ino = n.ino.Load()
	if n.dir != nil {
		if n.merged() {
			st.Nlink = 1 // nobody counts the subdirectories; find(1) takes 1 for "not known"
		}
		return nil
	}
	f.tree.RLock()
	x := n.ext
	if x == nil {
		f.tree.RUnlock()
		return nil
	}
	st.Nlink = x.kept.links(st.Nlink)
	gone, meta, data, name, indexed := x.gone, x.metacopy, x.data, x.dataName, x.index != ""
	f.tree.RUnlock()
	if indexed {
		if err := f.indexedLinks(n, st); err != nil {
			return err
		}
	} else if gone && n.upper.Load() == 0 {
		st.Nlink = 0
	}
	if meta && data != nil {
		return f.dataBlocks(*data, name, st)
	}
	return nil
}

// dataBlocks puts in how much room a metacopy file's data takes.
func (f *FS) dataBlocks(at layers.Place, name string, st *unix.Statx_t) error {
	dir, err := f.stack.OpenDir(at)
	if err != nil {
		return err
	}
	defer dir.Release()
	var data unix.Statx_t
	if err := layers.Stat(dir, name, &data); err != nil {
		return err
	}
	st.Blocks = data.Blocks
	return nil
}

func fillAttr(a *fuse.Attr, st *unix.Statx_t) {
	a.Ino, a.Size, a.Blocks, a.Blksize = st.Ino, st.Size, st.Blocks, st.Blksize
	a.Mode, a.Nlink = uint32(st.Mode), st.Nlink
	a.Uid, a.Gid = st.Uid, st.Gid
	a.Rdev = uint32(unix.Mkdev(st.Rdev_major, st.Rdev_minor))
	a.Atime, a.Atimensec = uint64(st.Atime.Sec), st.Atime.Nsec
	a.Mtime, a.Mtimensec = uint64(st.Mtime.Sec), st.Mtime.Nsec
	a.Ctime, a.Ctimensec = uint64(st.Ctime.Sec), st.Ctime.Nsec
}

// SetAttr changes attributes. The kernel holds the inode's lock meanwhile, so that its name stays.
func (f *FS) SetAttr(cancel <-chan struct{}, in *fuse.SetAttrIn, out *fuse.AttrOut) fuse.Status {
	n, err := f.node(in.NodeId)
	if err == nil {
		err = f.unsure(f.setAttr(cancel, n, in), n)
	}
	if err != nil {
		return status(err)
	}
	return status(f.attr(n, out))
}

func (f *FS) setAttr(cancel <-chan struct{}, n *node, in *fuse.SetAttrIn) error {
	if err := f.writable(); err != nil {
		return err
	}
	const what = fuse.FATTR_MODE | fuse.FATTR_UID | fuse.FATTR_GID | fuse.FATTR_SIZE | fuse.FATTR_ATIME | fuse.FATTR_MTIME
	nothing := in.Valid&what == 0
	if nothing {
		if left, err := f.leaveSetID(n, &in.Caller); left || err != nil {
			return err
		}
	}
	if size, ok := in.GetSize(); ok {
		if err := f.truncate(cancel, n, size, in); err != nil {
			return err
		}
	}
	moded, err := f.copyUpToSet(cancel, n, in)
	if err != nil {
		return err
	}
	p, err := f.upperPlace(n)
	if err != nil {
		return err
	}
	defer p.Release()
	if err := f.chown(p, n, in, nothing); err != nil {
		return err
	}
	if mode, ok := in.GetMode(); ok && !moded {
		if err := chmod(p, mode); err != nil {
			return err
		}
	}
	return setTimes(p, in)
}

// copyUpToSet copies a node up so that its attributes can be set, and tells whether the copy has got the mode already: unless it is to have
// another owner, which would drop bits of it.
func (f *FS) copyUpToSet(cancel <-chan struct{}, n *node, in *fuse.SetAttrIn) (moded bool, err error) {
	if n.upper.Load() != 0 {
		return false, nil
	}
	w := f.forMeta(n)
	w.answered = true
	if mode, ok := in.GetMode(); ok && in.Valid&(fuse.FATTR_UID|fuse.FATTR_GID) == 0 {
		w.mode = &mode
	}
	copied, err := f.copyUp(cancel, n, w)
	return copied && w.mode != nil, err
}

// truncate sets a file's size. What lies beyond is not copied up first.
func (f *FS) truncate(cancel <-chan struct{}, n *node, size uint64, in *fuse.SetAttrIn) error {
	if n.kind != unix.S_IFREG {
		return unix.EINVAL
	}
	same, err := f.staysAsLong(n, size, in)
	if err != nil {
		return err
	}
	if err := f.copyUpData(cancel, n, int64(size)); err != nil {
		return err
	}
	file, err := f.dataToWrite(n)
	if err != nil {
		return err
	}
	defer file.Release()
	if in.Valid&fuse.FATTR_KILL_SUIDGID != 0 {
		if _, err := killSuidgid(place{file, ""}, &in.Caller); err != nil {
			return err
		}
	}
	if same {
		err := unix.Truncate(procName(place{file, ""}), int64(size))
		if err != unix.EACCES && err != unix.ENOENT { // open for writing, though the server might not open it; no /proc
			return err
		}
	}
	return unix.Ftruncate(file.FD, int64(size))
}

// staysAsLong tells a truncate(2) to the size that a file has, which leaves the time of modification alone where the layer's file
// system does, such as tmpfs and XFS. ftruncate(2) and O_TRUNC, which set it, come with a handle.
func (f *FS) staysAsLong(n *node, size uint64, in *fuse.SetAttrIn) (bool, error) {
	if in.Valid&fuse.FATTR_FH != 0 {
		return false, nil
	}
	var st unix.Statx_t
	err := f.stat(n, &st)
	return st.Size == size, err
}

// capability is the xattr of a file's capabilities.
const capability = "security.capability"

// leaveSetID tells whether a request with no change is to do nothing. It is a chown(2) that names no owner, which drops
// set-id bits and sets the time of change. But the kernel sends the same before a user writes to a file with set-id bits, and
// after it has removed a file's capabilities for a write (ATTR_KILL_PRIV), even root's, with which set-id bits stay: root's
// chown, which cannot be told apart where a file has both, is by far the rarer.
//
// A user's chown may not drop the set-id bits of another's file (setattr_prepare), and its EPERM must not meet a writer: who has
// the file open for writing is taken for one, and the bits are left to the WRITE that may follow. Only what the kernel writes past
// the server has to be seen to at once: a file with set-id bits is not opened so, but may get them later.
func (f *FS) leaveSetID(n *node, caller *fuse.Caller) (bool, error) {
	if n.dir != nil {
		return false, nil
	}
	beforeWrite := f.setDropsPrivileges(n, false)
	if caller.Uid == 0 {
		return beforeWrite, nil
	}
	writes, err := f.mayDropSetID(n, caller)
	return writes && !f.opens.passingThrough(n.id), err
}

// mayDropSetID gives EPERM to a user who would drop another's file's set-id bits (setattr_prepare). Of a writer it only says that it
// is one.
func (f *FS) mayDropSetID(n *node, caller *fuse.Caller) (writes bool, err error) {
	var st unix.Statx_t
	if err := f.stat(n, &st); err != nil {
		return false, err
	}
	switch {
	case st.Uid == caller.Uid || withoutSetID(&st, caller) == uint32(st.Mode):
		return false, nil
	case n.kind != unix.S_IFREG || !mayWriteTo(caller.Pid, st.Ino):
		return false, unix.EPERM
	}
	return true, nil
}

// mayDropCapabilities gives EPERM to a user who may not have a file's capabilities dropped. For a chown(2) that names no owner the
// kernel removes them before it is known that it is refused for the set-id bits, which would go as well. It removes them before a
// write or a truncation too: who may do those may.
func (f *FS) mayDropCapabilities(n *node, caller *fuse.Caller) error {
	if caller.Uid == 0 {
		return nil
	}
	_, err := f.mayDropSetID(n, caller)
	if err == unix.EPERM && f.mayWrite(n, caller) {
		return nil
	}
	return err
}

// mayWrite tells whether a file's mode may let a user write to it who is not its owner: surely where it is false.
func (f *FS) mayWrite(n *node, caller *fuse.Caller) bool {
	var st unix.Statx_t
	if f.stat(n, &st) != nil || st.Mode&unix.S_IWOTH != 0 {
		return true
	}
	if st.Mode&unix.S_IWGRP == 0 { // with an ACL that is the mask
		return false
	}
	_, err := f.getxattr(n, aclAccess, nil)
	return err == nil || inGroup(caller, st.Gid)
}

// chown changes the owner; a request that changes nothing is one to nobody. The layer's file system drops set-id bits and
// capabilities as chown(2) says; a set-group-id bit of a file that its group may not execute goes only if the caller is not
// of that group (setattr_should_drop_sgid), which the server, being root, has to see to.
func (f *FS) chown(p place, n *node, in *fuse.SetAttrIn, nothing bool) error {
	uid, hasUID := in.GetUID()
	gid, hasGID := in.GetGID()
	if !hasUID && !hasGID && !nothing {
		return nil
	}
	to := func(has bool, id uint32) int {
		if !has {
			return -1
		}
		return int(id)
	}
	if n.dir == nil && n.kind != unix.S_IFLNK && in.Caller.Uid != 0 {
		if err := dropForeignSgid(p, &in.Caller); err != nil {
			return err
		}
	}
	return unix.Fchownat(p.FD, p.name, to(hasUID, uid), to(hasGID, gid), unix.AT_SYMLINK_NOFOLLOW|emptyPath(p.name))
}

func emptyPath(name string) int {
	if name == "" {
		return unix.AT_EMPTY_PATH
	}
	return 0
}

// chmod changes the mode without following a symbolic link.
func chmod(p place, mode uint32) error {
	err := unix.Fchmodat(p.FD, p.name, mode, unix.AT_SYMLINK_NOFOLLOW|emptyPath(p.name)) // fchmodat2, Linux 6.6
	if err == unix.EOPNOTSUPP || err == unix.ENOSYS || err == unix.EINVAL {
		return chmodOpened(p, mode)
	}
	return err
}

// chmodOpened is chmod on kernels without the call: by a descriptor, since a path would be followed.
func chmodOpened(p place, mode uint32) error {
	if p.name == "" {
		return unix.Chmod(procName(p), mode)
	}
	fd, err := unix.Openat(p.FD, p.name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT == unix.S_IFLNK {
		return unix.EOPNOTSUPP
	}
	return unix.Chmod(procName(place{layers.Borrow(fd), ""}), mode)
}

// setTimes changes the times that the request has.
func setTimes(p place, in *fuse.SetAttrIn) error {
	const either = fuse.FATTR_ATIME | fuse.FATTR_MTIME
	if in.Valid&either == 0 {
		return nil
	}
	ts := [2]unix.Timespec{
		timespec(in.Valid, fuse.FATTR_ATIME, fuse.FATTR_ATIME_NOW, in.Atime, in.Atimensec),
		timespec(in.Valid, fuse.FATTR_MTIME, fuse.FATTR_MTIME_NOW, in.Mtime, in.Mtimensec),
	}
	return utimens(p, &ts)
}

func timespec(valid, set, now uint32, sec uint64, nsec uint32) unix.Timespec {
	switch {
	case valid&set == 0:
		return unix.Timespec{Nsec: unix.UTIME_OMIT}
	case valid&now != 0:
		return unix.Timespec{Nsec: unix.UTIME_NOW}
	}
	return unix.Timespec{Sec: int64(sec), Nsec: int64(nsec)}
}

func utimens(p place, ts *[2]unix.Timespec) error {
	if p.name != "" {
		return unix.UtimesNanoAt(p.FD, p.name, ts[:], unix.AT_SYMLINK_NOFOLLOW)
	}
	// A null path stands for the descriptor itself, which may not be one of O_PATH then.
	_, _, e := unix.Syscall6(unix.SYS_UTIMENSAT, uintptr(p.FD), 0, uintptr(unsafe.Pointer(ts)), 0, 0, 0)
	switch e {
	case 0:
		return nil
	case unix.EBADF:
		return unix.UtimesNanoAt(unix.AT_FDCWD, procName(p), ts[:], 0)
	}
	return e
}

// Readlink returns a symbolic link's target.
func (f *FS) Readlink(cancel <-chan struct{}, h *fuse.InHeader) (target []byte, code fuse.Status) {
	n, err := f.node(h.NodeId)
	if err != nil {
		return nil, status(err)
	}
	err = f.real(n, func(p place) (uint64, error) {
		var err error
		if target, err = layers.Readlink(p.File, p.name); err != nil || p.name == "" {
			return n.upper.Load(), err
		}
		var st unix.Statx_t
		err = layers.Stat(p.File, p.name, &st)
		return st.Ino, err
	})
	return target, status(err)
}
