package whiteout

import "syscall"

// DeviceMode and DeviceNumber are what mknod needs to make a whiteout, as the kernel's vfs_whiteout does.
const (
	DeviceMode   = syscall.S_IFCHR
	DeviceNumber = 0
)

// IsDevice reports whether a file with this st_mode and st_rdev is a whiteout: a character device with number 0:0, whatever
// its permissions (ovl_is_whiteout).
func IsDevice(mode uint32, rdev uint64) bool {
	return mode&syscall.S_IFMT == syscall.S_IFCHR && rdev == DeviceNumber
}

// MayBeXattrWhiteout reports whether a file with this st_mode and st_size (bytes) can be a whiteout by xattr, so that it is
// worth asking for the xattr: an empty regular file.
func MayBeXattrWhiteout(mode uint32, size int64) bool {
	return mode&syscall.S_IFMT == syscall.S_IFREG && size == 0
}

// IsXattrWhiteout reports whether a file with this st_mode and st_size (bytes) is a whiteout, where present says whether it
// has the xattr [Namespace.Whiteout]; what that holds does not matter (ovl_path_check_xwhiteout_xattr).
func IsXattrWhiteout(mode uint32, size int64, present bool) bool {
	return present && MayBeXattrWhiteout(mode, size)
}
