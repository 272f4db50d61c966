package unionfs

import (
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/unionfs-deep/unionfs-deep/unionfs/layers"
	"github.com/unionfs-deep/unionfs-deep/whiteout"
)

// Unlink removes a name of a file.
func (f *FS) Unlink(cancel <-chan struct{}, h *fuse.InHeader, name string) fuse.Status {
	return status(f.remove(cancel, h.NodeId, name, false))
}

// Rmdir removes an empty directory.
func (f *FS) Rmdir(cancel <-chan struct{}, h *fuse.InHeader, name string) fuse.Status {
	return status(f.remove(cancel, h.NodeId, name, true))
}

func (f *FS) remove(cancel <-chan struct{}, parentID uint64, name string, isDir bool) error {
	parent, err := f.directory(parentID)
	if err == nil {
		err = f.writable()
	}
	if err != nil {
		return err
	}
	n, err := f.child(parent, name)
	if err != nil {
		return err
	}
	defer f.Forget(n.id, 1)
	if err := f.mayRemove(n, isDir); err != nil {
		return err
	}
	up, err := f.prepareParent(cancel, parent, name)
	if err != nil {
		return err
	}
	defer up.Release()
	return f.unsure(f.removeNode(cancel, parent, up, name, n), parent, n)
}

// removeNode takes a name from a node, on disk and then in memory. An error means that neither has been done.
func (f *FS) removeNode(cancel <-chan struct{}, parent *node, up *layers.File, name string, n *node) error {
	if err := f.intoIndex(cancel, n); err != nil {
		return err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	defer f.letGoNamed(n)
	if err := f.keep(n); err != nil {
		return err
	}
	parent.dir.mu.Lock()
	defer parent.dir.mu.Unlock()
	inUpper, covers, ok := f.entryState(parent, name)
	if !ok {
		return unix.ENOENT
	}
	hidden := hiddenBy(!inUpper)
	if err := f.beforeLinks(n, hidden); err != nil {
		return err
	}
	if err := f.removeIn(up, name, n.dir != nil, inUpper, covers || !inUpper); err != nil {
		f.restoreLinks(n, hidden)
		return err
	}
	f.unname(parent, name, n)
	f.afterUnlink(n)
	return nil
}

// mayRemove checks what unlink(2) and rmdir(2) say of the kind of file.
func (f *FS) mayRemove(n *node, isDir bool) error {
	if !isDir {
		if n.dir != nil {
			return unix.EISDIR
		}
		return nil
	}
	if n.dir == nil {
		return unix.ENOTDIR
	}
	return f.mustBeEmpty(n)
}

func (f *FS) mustBeEmpty(n *node) error {
	if err := f.list(n); err != nil {
		return err
	}
	f.tree.RLock()
	defer f.tree.RUnlock()
	if n.dir.listing.Len() > 0 {
		return unix.ENOTEMPTY
	}
	return nil
}

// entryState says where an entry is: in the upper layer, and over a lower one.
func (f *FS) entryState(parent *node, name string) (inUpper, covers, ok bool) {
	f.tree.RLock()
	defer f.tree.RUnlock()
	e := parent.dir.listing.Find(name)
	if e == nil {
		return false, false, false
	}
	return e.Place == layers.InUpper, e.Covers, true
}

// removeIn takes a name out of an upper directory, and leaves a whiteout where something below is to be hidden. One system
// call does it, and an error means that it has not been done: what comes after that call cannot fail the removal any more.
func (f *FS) removeIn(up *layers.File, name string, isDir, inUpper, hide bool) error {
	switch {
	case !inUpper:
		return f.whiteout(up, name)
	case hide:
		return f.replaceByWhiteout(up, name, isDir)
	case !isDir:
		return unix.Unlinkat(up.FD, name, 0)
	}
	err := unix.Unlinkat(up.FD, name, unix.AT_REMOVEDIR)
	if err != unix.ENOTEMPTY && err != unix.EEXIST {
		return err
	}
	// What is left in it are whiteouts.
	temp := f.upper.temp()
	if err := unix.Renameat(up.FD, name, f.upper.work, temp); err != nil {
		return err
	}
	f.discard(temp)
	return nil
}

// whiteout hides a lower name.
func (f *FS) whiteout(up *layers.File, name string) error {
	err := f.upper.linkWhiteout(up.FD, name)
	if err != unix.EPERM {
		return err
	}
	return f.xattrWhiteout(up.FD, name, up)
}

// linkWhiteout makes a whiteout under a name of a directory. All are links of one, made in the work directory, whose owner
// is the server's whatever the directory passes on (ovl_whiteout). EPERM means that devices may not be made here.
func (u *upperLayer) linkWhiteout(dir int, name string) error {
	u.whiteoutMu.Lock()
	defer u.whiteoutMu.Unlock()
	if u.whiteout != "" {
		err := unix.Linkat(u.work, u.whiteout, dir, name, 0)
		if err == nil || err == unix.EEXIST {
			return err
		}
		// It has as many links as it may, or has gone.
		_ = unix.Unlinkat(u.work, u.whiteout, 0)
		u.whiteout = ""
	}
	temp := u.temp()
	if err := unix.Mknodat(u.work, temp, whiteout.DeviceMode, whiteout.DeviceNumber); err != nil {
		return err
	}
	err := unix.Linkat(u.work, temp, dir, name, 0)
	if err == unix.EPERM || err == unix.EOPNOTSUPP {
		err = unix.Renameat2(u.work, temp, dir, name, unix.RENAME_NOREPLACE) // no hard links here
		if err != nil {
			_ = unix.Unlinkat(u.work, temp, 0)
		}
		return err
	}
	u.whiteout = temp
	return err
}

// xattrWhiteout makes a whiteout of the other kind, where devices may not be made: an empty file with an xattr, in a
// directory that says that it has such. It is built in the work directory: a file without the xattr would be seen.
func (f *FS) xattrWhiteout(dir int, name string, up *layers.File) error {
	ns := f.stack.Namespace()
	if f.stack.Opaqueness(up, "") == whiteout.NotOpaque {
		if err := layers.Setxattr(up.FD, "", ns.Opaque(), whiteout.XattrWhiteouts.Bytes(), 0); err != nil {
			return err
		}
	}
	temp := f.upper.temp()
	fd, err := unix.Openat(f.upper.work, temp, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	err = layers.Setxattr(fd, "", ns.Whiteout(), nil, 0)
	unix.Close(fd)
	if err == nil {
		err = unix.Renameat2(f.upper.work, temp, dir, name, unix.RENAME_NOREPLACE)
	}
	return f.orRemove(temp, err)
}

// replaceByWhiteout puts a whiteout in the place of an upper file or directory by one rename (ovl_remove_and_whiteout).
func (f *FS) replaceByWhiteout(up *layers.File, name string, isDir bool) error {
	temp := f.upper.temp()
	err := f.upper.linkWhiteout(f.upper.work, temp)
	if err == unix.EPERM {
		err = f.xattrWhiteout(f.upper.work, temp, up)
	}
	if err != nil {
		return err
	}
	if !isDir {
		return f.orRemove(temp, unix.Renameat(f.upper.work, temp, up.FD, name))
	}
	err = unix.Renameat2(f.upper.work, temp, up.FD, name, unix.RENAME_EXCHANGE)
	f.discard(temp)
	return err
}

// unname takes a name from a node, in memory.
func (f *FS) unname(parent *node, name string, n *node) {
	f.tree.Lock()
	if f.detachLocked(n, parent, name) {
		n.extraLocked().gone = true
	}
	parent.dir.listing.Remove(name)
	f.handles.remove(parent, name)
	f.tree.Unlock()
	if n.dir == nil {
		return
	}
	if f.isKept(n) {
		return // closeNode lets go of it
	}
	f.stack.Cache.Drop(layers.Key{Ino: n.upper.Load()})
}
