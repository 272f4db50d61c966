package unionfs

import (
	"strings"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/unionfs-deep/unionfs-deep/unionfs/layers"
	"github.com/unionfs-deep/unionfs-deep/whiteout"
)

// GetXAttr reads an xattr of the topmost inode. The union's own are not seen: a name in their space is that of a nested
// overlay, and kept escaped (ovl_own_xattr_get).
func (f *FS) GetXAttr(cancel <-chan struct{}, h *fuse.InHeader, attr string, dest []byte) (uint32, fuse.Status) {
	n, err := f.node(h.NodeId)
	if err != nil {
		return 0, status(err)
	}
	name, err := f.storedName(attr)
	if err != nil {
		return 0, status(err)
	}
	size, err := f.getxattr(n, name, dest)
	if err == unix.EOPNOTSUPP && isACL(attr) {
		err = unix.ENODATA // where layers know no ACLs there are none: else each check of permissions would fail (fuse_get_acl)
	}
	return uint32(size), status(err)
}

func (f *FS) getxattr(n *node, attr string, dest []byte) (size int, err error) {
	err = f.real(n, func(p place) (uint64, error) {
		var xerr error
		size, xerr = layers.Getxattr(p.File, p.name, attr, dest)
		if xerr == unix.ENOENT || n.upper.Load() == 0 || p.name == "" {
			return n.upper.Load(), xerr
		}
		var st unix.Statx_t
		if err := layers.Stat(p.File, p.name, &st); err != nil || st.Ino != n.upper.Load() {
			return st.Ino, err
		}
		return st.Ino, xerr
	})
	return size, err
}

// hasXattr gives the error with which an xattr cannot be read.
func (f *FS) hasXattr(n *node, attr string) error {
	name, err := f.storedName(attr)
	if err == nil {
		_, err = f.getxattr(n, name, nil)
	}
	return err
}

// storedName is the name under which the layers keep an xattr that is seen as attr.
func (f *FS) storedName(attr string) (string, error) {
	ns := f.stack.Namespace()
	if attr == string(ns) {
		return "", unix.EINVAL
	}
	name := ns.Escape(attr)
	if len(name) > whiteout.MaxXattrName {
		return "", unix.EOPNOTSUPP
	}
	return name, nil
}

// ListXAttr lists the names of the xattrs of the topmost inode: of trusted ones only to root.
func (f *FS) ListXAttr(cancel <-chan struct{}, h *fuse.InHeader, dest []byte) (uint32, fuse.Status) {
	n, err := f.node(h.NodeId)
	if err != nil {
		return 0, status(err)
	}
	names, err := f.listxattr(n)
	if err != nil {
		return 0, status(err)
	}
	size := 0
	for _, name := range names {
		if f.stack.Namespace().Private(name) || strings.HasPrefix(name, "trusted.") && h.Uid != 0 {
			continue
		}
		name = f.stack.Namespace().Unescape(name)
		if size+len(name)+1 <= len(dest) {
			copy(dest[size:], name)
			dest[size+len(name)] = 0
		}
		size += len(name) + 1
	}
	if size > len(dest) {
		return uint32(size), fuse.ERANGE
	}
	return uint32(size), fuse.OK
}

func (f *FS) listxattr(n *node) (names []string, err error) {
	err = f.real(n, func(p place) (uint64, error) {
		var st unix.Statx_t
		var xerr error
		names, xerr = layers.Listxattr(p.FD, p.name)
		if xerr != nil {
			return n.upper.Load(), xerr
		}
		err := layers.Stat(p.File, p.name, &st)
		return st.Ino, err
	})
	return names, err
}

// SetXAttr sets an xattr, after copying the file up.
func (f *FS) SetXAttr(cancel <-chan struct{}, in *fuse.SetXAttrIn, attr string, data []byte) fuse.Status {
	return status(f.changeXattr(cancel, in.NodeId, attr, func(p place, name string) error {
		if err := layers.Setxattr(p.FD, p.name, name, data, int(in.Flags)); err != nil {
			return err
		}
		if attr == aclAccess && in.SetXAttrFlags&fuse.SETXATTR_ACL_KILL_SGID != 0 { // the kernel says so with a default ACL too
			return killSgid(p)
		}
		return nil
	}))
}

// RemoveXAttr removes an xattr. That the file has none such is found out before it is copied up (ovl_xattr_set). The kernel
// drops the set-group-id bit before it looks for an ACL to remove (ovl_set_acl), by when the file is copied up.
func (f *FS) RemoveXAttr(cancel <-chan struct{}, h *fuse.InHeader, attr string) fuse.Status {
	n, err := f.node(h.NodeId)
	if err != nil {
		return status(err)
	}
	if attr == capability {
		err = f.mayDropCapabilities(n, &h.Caller)
	}
	dropsSgid := false
	if err == nil {
		dropsSgid, err = f.aclDropsSgid(n, attr, &h.Caller)
	}
	if err != nil {
		return status(err)
	}
	if n.upper.Load() == 0 && !dropsSgid {
		if err := f.hasXattr(n, attr); err != nil {
			return status(err)
		}
	}
	st := status(f.changeXattr(cancel, h.NodeId, attr, func(p place, name string) error {
		if dropsSgid {
			if err := killSgid(p); err != nil {
				return err
			}
		}
		return layers.Removexattr(p.FD, p.name, name)
	}))
	if st.Ok() && attr == capability {
		f.setDropsPrivileges(n, true)
	}
	return st
}

// aclDropsSgid tells whether removing an xattr drops the set-group-id bit: removing an access ACL does, for a caller who is
// not of the file's group. With a removal, unlike with a change, the kernel does not say so.
func (f *FS) aclDropsSgid(n *node, attr string, caller *fuse.Caller) (bool, error) {
	if attr != aclAccess || caller.Uid == 0 {
		return false, nil
	}
	var st unix.Statx_t
	if err := f.stat(n, &st); err != nil {
		return false, err
	}
	return st.Mode&unix.S_ISGID != 0 && !inGroup(caller, st.Gid), nil
}

// setDropsPrivileges remembers that a file's capabilities were removed. The kernel does so before a write, and then sends
// the SETATTR that leaveSetID has to understand.
func (f *FS) setDropsPrivileges(n *node, drops bool) (before bool) {
	f.tree.Lock()
	defer f.tree.Unlock()
	if n.ext == nil && !drops {
		return false
	}
	x := n.extraLocked()
	before, x.dropsPrivileges = x.dropsPrivileges, drops
	return before
}

func (f *FS) changeXattr(cancel <-chan struct{}, id uint64, attr string, change func(p place, name string) error) error {
	n, err := f.node(id)
	if err != nil {
		return err
	}
	if err := f.writable(); err != nil {
		return err
	}
	name, err := f.storedName(attr)
	if err != nil {
		return err
	}
	if isACL(attr) && n.upper.Load() == 0 && f.hasXattr(n, attr) == unix.EOPNOTSUPP {
		return unix.EOPNOTSUPP // as with kernel overlayfs, until the file is copied up from where there are no ACLs (ovl_set_acl)
	}
	if err := f.copyUpMeta(cancel, n); err != nil {
		return err
	}
	p, err := f.upperPlace(n)
	if err != nil {
		return err
	}
	defer p.Release()
	if n.dir != nil {
		defer n.dir.noDefaultACL.Store(false)
	}
	return f.unsure(change(p, name), n)
}

// killSgid drops the set-group-id bit.
func killSgid(p place) error {
	var st unix.Statx_t
	if err := layers.Stat(p.File, p.name, &st); err != nil || st.Mode&unix.S_ISGID == 0 {
		return err
	}
	return chmod(p, uint32(st.Mode)&07777&^unix.S_ISGID)
}
