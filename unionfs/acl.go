package unionfs

import (
	"encoding/binary"

	"golang.org/x/sys/unix"

	"github.com/unionfs-deep/unionfs-deep/unionfs/layers"
)

const (
	aclAccess  = "system.posix_acl_access"
	aclDefault = "system.posix_acl_default"
)

func isACL(attr string) bool { return attr == aclAccess || attr == aclDefault }

// inheritsACL reports whether what is made in a directory, of which up is the upper one, gets its permissions from there:
// the umask then does not count (posix_acl_create). That there is no such ACL is remembered until one may have been set.
func (d *directory) inheritsACL(up *layers.File) bool {
	if d.noDefaultACL.Load() {
		return false
	}
	_, err := layers.Getxattr(up, "", aclDefault, nil)
	if err != nil {
		d.noDefaultACL.Store(true)
	}
	return err == nil
}

// inherit gives what was made in the work directory what it would have got in its directory: the caller as owner, the
// group of a set-group-id directory, the permissions of a default ACL.
func (f *FS) inherit(at place, dir *layers.File, c *creation) error {
	var st unix.Statx_t
	if err := layers.Stat(dir, "", &st); err != nil {
		return err
	}
	gid, mode := c.caller.Gid, c.mode&07777
	isDir := c.mode&unix.S_IFMT == unix.S_IFDIR
	if st.Mode&unix.S_ISGID != 0 {
		gid = st.Gid
		if isDir {
			mode |= unix.S_ISGID
		}
	}
	if err := unix.Fchownat(at.FD, at.name, int(c.caller.Uid), int(gid), unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	if c.mode&unix.S_IFMT == unix.S_IFLNK {
		return nil
	}
	if acl, err := layers.ReadXattr(dir.FD, "", aclDefault); err == nil {
		if err := inheritACL(at, acl, &mode, isDir); err != nil {
			return err
		}
	}
	return chmod(at, mode)
}

// inheritACL sets the access ACL that comes from a directory's default ACL, and passes that on to a directory.
func inheritACL(at place, acl []byte, mode *uint32, isDir bool) error {
	if isDir {
		if err := layers.Setxattr(at.FD, at.name, aclDefault, acl, 0); err != nil {
			return err
		}
	}
	access, extended := createMasq(acl, mode)
	if !extended {
		return nil
	}
	return layers.Setxattr(at.FD, at.name, aclAccess, access, 0)
}

// Tags and layout of the xattr form of an ACL (uapi/linux/posix_acl_xattr.h): a 4-byte version, then entries of tag,
// permissions and id.
const (
	aclUserObj  = 0x01
	aclGroupObj = 0x04
	aclMask     = 0x10
	aclOther    = 0x20

	aclHeader = 4
	aclEntry  = 8
)

// createMasq takes from an ACL and a mode what neither allows (posix_acl_create_masq). It reports whether the result says
// more than a mode can.
func createMasq(acl []byte, mode *uint32) (access []byte, extended bool) {
	access = append([]byte(nil), acl...)
	var group []byte
	result := *mode &^ 0777
	for e := access[min(aclHeader, len(access)):]; len(e) >= aclEntry; e = e[aclEntry:] {
		switch binary.LittleEndian.Uint16(e) {
		case aclUserObj:
			result |= masq(e, *mode>>6) << 6
		case aclOther:
			result |= masq(e, *mode)
		case aclGroupObj:
			group = e
		case aclMask:
			extended = true
			result |= masq(e, *mode>>3) << 3
		default:
			extended = true
		}
	}
	if !hasMask(access) && group != nil {
		result |= masq(group, *mode>>3) << 3
	}
	*mode = result
	return access, extended
}

func hasMask(acl []byte) bool {
	for e := acl[min(aclHeader, len(acl)):]; len(e) >= aclEntry; e = e[aclEntry:] {
		if binary.LittleEndian.Uint16(e) == aclMask {
			return true
		}
	}
	return false
}

// masq cuts an entry's permissions down to those of three mode bits and returns them.
func masq(e []byte, bits uint32) uint32 {
	perm := uint32(binary.LittleEndian.Uint16(e[2:])) & bits & 7
	binary.LittleEndian.PutUint16(e[2:], uint16(perm))
	return perm
}
