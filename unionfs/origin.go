package unionfs

import (
	"encoding/binary"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/unionfs-deep/unionfs-deep/unionfs/layers"
	"github.com/unionfs-deep/unionfs-deep/whiteout"
)

// originOf is encodeOrigin for a lower inode with the attributes st.
func (f *FS) originOf(p place, st *unix.Statx_t) []byte {
	f.uuidsOnce.Do(f.readUUIDs)
	if uuid, ok := f.deviceUUID[unix.Mkdev(st.Dev_major, st.Dev_minor)]; ok {
		return originWith(uuid, p, false)
	}
	return encodeOrigin(p, false) // of a file system that is mounted inside a layer
}

// encodeOrigin is the value of overlay.origin for an inode: its file handle, or nothing where it has none
// (ovl_get_origin_fh).
func encodeOrigin(p place, upper bool) []byte {
	uuid, err := fsUUID(p.FD)
	if err != nil {
		return nil
	}
	return originWith(uuid, p, upper)
}

func originWith(uuid [16]byte, p place, upper bool) []byte {
	flags := 0
	if p.name == "" {
		flags = unix.AT_EMPTY_PATH
	}
	handle, _, err := unix.NameToHandleAt(p.FD, p.name, flags)
	if err != nil {
		return nil
	}
	origin, err := whiteout.NewOrigin(uuid, handle.Type(), handle.Bytes(), upper)
	if err != nil {
		return nil
	}
	return origin.Bytes()
}

// fsUUID asks a file system for its UUID (FS_IOC_GETFSUUID, Linux 6.9), or in its own way where that is not known: before, and by
// btrfs still.
func fsUUID(fd int) (uuid [16]byte, err error) {
	const getFSUUID = 0x80111500 // _IOR(0x15, 0, struct fsuuid2), the length in a byte and then the UUID
	var answer [17]byte
	if err := ioctl(fd, getFSUUID, answer[:]); err != nil {
		return ownUUID(fd)
	}
	return [16]byte(answer[1:]), nil
}

// ownUUID asks by the call that a file system has of its own. Some have no UUID, for which zeroes stand.
func ownUUID(fd int) (uuid [16]byte, err error) {
	var st unix.Statfs_t
	if err := unix.Fstatfs(fd, &st); err != nil {
		return uuid, err
	}
	if slices.Contains(withoutUUID, st.Type) {
		return uuid, nil
	}
	call, ok := uuidCalls[st.Type]
	if !ok {
		return uuid, unix.ENOTTY
	}
	answer := make([]byte, 1024)
	copy(answer, call.question)
	err = ioctl(fd, call.request, answer)
	return [16]byte(answer[call.at:]), err
}

// uuidCalls are those calls, by the types that statfs(2) gives.
var uuidCalls = map[int64]struct {
	request  uint32
	question []byte // what the structure holds before
	at       int    // where the UUID is in it
}{
	unix.BTRFS_SUPER_MAGIC: {0x8400941f, nil, 16},                // BTRFS_IOC_FS_INFO
	unix.XFS_SUPER_MAGIC:   {0x80705864, nil, 64},                // XFS_IOC_FSGEOMETRY_V1
	unix.EXT4_SUPER_MAGIC:  {0x8008662c, []byte{16, 0, 0, 0}, 8}, // EXT4_IOC_GETFSUUID, Linux 6.0, given the length
}

// withoutUUID are file systems that give handles, but have no UUID.
var withoutUUID = []int64{unix.SQUASHFS_MAGIC, unix.ISOFS_SUPER_MAGIC, unix.NFS_SUPER_MAGIC}

// fixUpperFile gives an upper file the inode number of the lower one that it was copied up from (ovl_getattr), and finds
// it in the index.
func (f *FS) fixUpperFile(n *node, up *layers.File, name string) {
	value, err := layers.ReadXattr(up.FD, name, f.stack.Namespace().Origin())
	if err != nil || len(value) == 0 {
		return
	}
	origin, err := whiteout.ParseOrigin(value)
	if err != nil {
		return
	}
	if ino, ok := f.originInode(origin); ok {
		n.ino.Store(ino)
	}
	f.findIndex(n, origin.IndexName())
}

// originInode returns the union's number for the lower inode that an origin names, if some layer's file system still has
// it, with one name.
func (f *FS) originInode(o whiteout.Origin) (uint64, bool) {
	layer := f.layerOf(o.UUID)
	if layer == nil {
		return 0, false
	}
	root, err := f.stack.OpenDir(layers.Place{Layer: layer})
	if err != nil {
		return 0, false
	}
	defer root.Release()
	fd, err := unix.OpenByHandleAt(root.FD, unix.NewFileHandle(int32(o.FIDType), o.Handle), unix.O_PATH)
	if err == unix.EPERM {
		// Without CAP_DAC_READ_SEARCH the number is still to be read off the handle.
		ino, ok := inodeInHandle(o)
		return f.stack.Ino(layer.Dev(), ino), ok
	}
	if err != nil {
		return 0, false
	}
	defer unix.Close(fd)
	var st unix.Statx_t
	if err := layers.StatFD(fd, "", &st); err != nil || st.Nlink != 1 && !f.opts.Index {
		return 0, false
	}
	return f.stack.InoOf(&st), true
}

// inodeInHandle reads the inode number from the handles of file systems that are known to put it there.
func inodeInHandle(o whiteout.Origin) (uint64, bool) {
	const (
		ino32Gen  = 0x01 // ext4, and with three words tmpfs
		btrfs     = 0x4d
		xfsIno64  = 0x81
		word      = 4
		tmpfsSize = 3 * word
	)
	h := o.Handle
	switch {
	case o.FIDType == ino32Gen && len(h) == tmpfsSize:
		return uint64(binary.NativeEndian.Uint32(h[word:])) | uint64(binary.NativeEndian.Uint32(h[2*word:]))<<32, true
	case o.FIDType == ino32Gen && len(h) >= word:
		return uint64(binary.NativeEndian.Uint32(h)), true
	case (o.FIDType == btrfs || o.FIDType == xfsIno64) && len(h) >= 2*word:
		return binary.NativeEndian.Uint64(h), true
	}
	return 0, false
}

// layerOf returns a lower layer on the file system with a UUID.
func (f *FS) layerOf(uuid [16]byte) *layers.Layer {
	f.uuidsOnce.Do(f.readUUIDs)
	return f.uuids[uuid]
}

// readUUIDs asks each file system once. A UUID that two have stands for neither, unless one is the upper layer's. One of zeroes counts for
// that alone where layers may be changed between mounts: an image that was made anew would be taken for the one before
// (ovl_lower_uuid_ok).
func (f *FS) readUUIDs() {
	f.uuids = make(map[[16]byte]*layers.Layer)
	f.deviceUUID = make(map[uint64][16]byte)
	seen := make(map[uint64]bool)
	for _, l := range f.stack.Lower {
		if seen[l.Dev()] {
			continue
		}
		seen[l.Dev()] = true
		root, err := f.stack.OpenDir(layers.Place{Layer: l})
		if err != nil {
			continue
		}
		uuid, err := fsUUID(root.FD)
		root.Release()
		if err != nil {
			continue
		}
		f.deviceUUID[l.Dev()] = uuid
		if uuid != [16]byte{} || f.onUpper(l) || !f.opts.offlineChanges() {
			f.addUUID(uuid, l)
		}
	}
}

func (f *FS) addUUID(uuid [16]byte, l *layers.Layer) {
	if first, twice := f.uuids[uuid]; twice {
		f.uuidShared = true
		if f.onUpper(first) {
			return
		}
		if !f.onUpper(l) {
			l = nil
		}
	}
	f.uuids[uuid] = l
}

// onUpper tells whether a lower layer is on the upper one's file system.
func (f *FS) onUpper(l *layers.Layer) bool {
	return l != nil && f.stack.Upper != nil && l.Dev() == f.stack.Upper.Dev()
}

// fixUpperDirectory gives a merged directory the inode number of its topmost lower one, and reads whether it is impure. What was
// found of it is made to be read again where its time of change is a new one.
func (f *FS) fixUpperDirectory(n, parent *node, up *layers.File, name string, found *layers.Found) error {
	value, err := layers.ReadXattr(up.FD, name, f.stack.Namespace().Impure())
	if err == nil && whiteout.ParseImpure(value) {
		n.dir.impure.Store(true)
	}
	if len(n.dir.places) > 0 && f.writable() == nil && f.completeOrigin(n, parent, up, name) {
		found.Stat.Mask = 0
	}
	return f.fixDirectoryIno(n)
}

// completeOrigin gives a merged upper directory that was not copied up, but met a lower one when it was mounted, the origin
// that makes its inode number last (ovl_fix_origin). That it cannot is no error.
func (f *FS) completeOrigin(n, parent *node, up *layers.File, name string) (changed bool) {
	ns := f.stack.Namespace()
	if _, err := layers.Getxattr(up, name, ns.Origin(), nil); err != unix.ENODATA {
		return false
	}
	p, err := f.lowerPlace(n)
	if err != nil {
		return false
	}
	defer p.Release()
	if layers.Setxattr(up.FD, name, ns.Origin(), encodeOrigin(p, false), 0) != nil {
		return false
	}
	_ = f.setImpure(parent, up)
	return true
}

// fixDirectoryIno gives a merged directory the inode number of its topmost lower one.
func (f *FS) fixDirectoryIno(n *node) error {
	if len(n.dir.places) == 0 || n.upper.Load() == 0 {
		return nil
	}
	var st unix.Statx_t
	if err := f.statLower(n, &st); err != nil {
		return err
	}
	n.ino.Store(f.stack.InoOf(&st))
	return nil
}

// setImpure marks an upper directory as holding entries that came from below, whose inode numbers readdir has to look up
// (ovl_set_impure).
func (f *FS) setImpure(n *node, up *layers.File) error {
	if n.dir.impure.Load() {
		return nil
	}
	err := layers.Setxattr(up.FD, "", f.stack.Namespace().Impure(), []byte(whiteout.ImpureValue), 0)
	if err != nil && err != unix.EOPNOTSUPP && err != unix.EPERM {
		return err
	}
	n.dir.impure.Store(true)
	f.attributesChanged(n) // its time of change
	return nil
}
