package whiteout

import "syscall"

// Types of the file handles that an overlay mount gives to name_to_handle_at, with the mount option nfs_export.
const (
	FileHandleV0 = 0xfb // the origin, then padding: its handle is not aligned; no longer made
	FileHandleV1 = 0xf8 // padding, then the origin: its handle begins at a multiple of 4 bytes
)

// fileHandlePadding is struct ovl_fh's: with it the header of 21 bytes takes 24.
const fileHandlePadding = 3

// ParseFileHandle reads a file handle that an overlay mount gave for a file: type and bytes as of name_to_handle_at
// (ovl_fid_to_fh). The error wraps EINVAL for another type or no room for the padding, else it is that of [ParseOrigin].
func ParseFileHandle(handleType int32, handle []byte) (Origin, error) {
	if len(handle) <= fileHandlePadding {
		return Origin{}, originError("file handle of %d bytes: %w", len(handle), syscall.EINVAL)
	}
	switch handleType {
	case FileHandleV0:
		return ParseOrigin(handle[:len(handle)-fileHandlePadding])
	case FileHandleV1:
		return ParseOrigin(handle[fileHandlePadding:])
	default:
		return Origin{}, originError("file handle of type %#x: %w", handleType, syscall.EINVAL)
	}
}

// FileHandle returns what an overlay mount gives to name_to_handle_at for the file (ovl_encode_fh): always FileHandleV1.
func (o Origin) FileHandle() (handleType int32, handle []byte) {
	return FileHandleV1, append(make([]byte, fileHandlePadding), o.Bytes()...)
}
