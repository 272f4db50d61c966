package perf

import (
	"fmt"
	"unsafe"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// RegisterBacking makes the open regular file fd known to the kernel as a file that opens may be passed through to, and
// returns the id to put into OpenOut.BackingID (with fuse.FOPEN_PASSTHROUGH). The kernel keeps a reference of its own: fd
// may be closed afterwards. The errors to expect, all of which mean that this file is served without passthrough:
// EPERM (no CAP_SYS_ADMIN in the initial user namespace), ELOOP (the file's file system is stacked too deep for
// MaxStackDepth), EOPNOTSUPP or ENOTTY (a kernel older than 6.9, or passthrough not negotiated), EINVAL (not a regular file).
func (c *Conn) RegisterBacking(fd int) (int32, error) {
	m := fuse.BackingMap{Fd: int32(fd)}
	id, err := c.control(iocBackingOpen, unsafe.Pointer(&m))
	if err != nil {
		return 0, fmt.Errorf("register file descriptor %d for passthrough: %w", fd, err)
	}
	return id, nil
}

// UnregisterBacking gives an id of RegisterBacking back. Files that were opened with it stay passed through until they
// are closed.
func (c *Conn) UnregisterBacking(id int32) error {
	if _, err := c.control(iocBackingClose, unsafe.Pointer(&id)); err != nil {
		return fmt.Errorf("unregister backing file %d: %w", id, err)
	}
	return nil
}
