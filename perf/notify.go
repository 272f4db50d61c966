package perf

import (
	"errors"
	"fmt"
	"syscall"
	"unsafe"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// InvalInode makes the kernel drop the attributes of a node and length bytes of its cached pages from off; a length of 0
// means to the end, a negative off no pages at all. See the package comment for where notifications must not be sent.
func (c *Conn) InvalInode(node uint64, off, length int64) error {
	body := fuse.NotifyInvalInodeOut{Ino: node, Off: off, Length: length}
	err := c.notify(fuse.NOTIFY_INVAL_INODE, bytesOf(&body), "")
	if err != nil {
		return fmt.Errorf("invalidate node %d: %w", node, err)
	}
	return nil
}

// InvalEntry makes the kernel forget what name in the directory parent stands for, a missing name included.
func (c *Conn) InvalEntry(parent uint64, name string) error {
	body := fuse.NotifyInvalEntryOut{Parent: parent, NameLen: uint32(len(name))}
	err := c.notify(fuse.NOTIFY_INVAL_ENTRY, bytesOf(&body), name)
	if err != nil {
		return fmt.Errorf("invalidate entry %q of node %d: %w", name, parent, err)
	}
	return nil
}

// Delete tells the kernel that name in the directory parent, which stood for child, is gone. Unlike InvalEntry it reaches
// those who watch the directory and those who have it as working directory. It fails with EBUSY for a mount point and
// with ENOTEMPTY for a directory that still has entries known to the kernel.
func (c *Conn) Delete(parent, child uint64, name string) error {
	body := fuse.NotifyInvalDeleteOut{Parent: parent, Child: child, NameLen: uint32(len(name))}
	err := c.notify(fuse.NOTIFY_DELETE, bytesOf(&body), name)
	if err != nil {
		return fmt.Errorf("delete entry %q of node %d: %w", name, parent, err)
	}
	return nil
}

func bytesOf[T any](v *T) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(v)), unsafe.Sizeof(*v))
}

// notify sends one message. code is one of fuse.NOTIFY_*, negative; a name is followed by a zero byte.
func (c *Conn) notify(code int32, body []byte, name string) error {
	// The kernel knows notifications by their number in Status and by Unique being 0.
	head := fuse.OutHeader{Status: -code}
	msg := append(bytesOf(&head), body...)
	if name != "" {
		msg = append(append(msg, name...), 0)
	}
	(*fuse.OutHeader)(unsafe.Pointer(&msg[0])).Length = uint32(len(msg))
	c.counters.notices.Add(1)
	err := c.send(msg)
	if errors.Is(err, syscall.ENOENT) {
		return nil
	}
	return err
}
