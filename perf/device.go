package perf

import (
	"fmt"
	"os"
	"sync"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ioctls of /dev/fuse, from include/uapi/linux/fuse.h: _IOR(229, 0, u32), _IOW(229, 1, struct fuse_backing_map) and
// _IOW(229, 2, u32).
const (
	iocClone        = 0x8004e500
	iocBackingOpen  = 0x4010e501
	iocBackingClose = 0x4004e502
)

const devicePath = "/dev/fuse"

// device is two descriptors of a FUSE connection: one in non-blocking mode, to try on, and one to sleep on. The answer to a
// request goes to the one that it was read from.
type device struct {
	fd       int
	sleeping int // the same as fd where there is no second one, and then sleeping is done in poll(2)
}

// openDevice returns descriptors of dev's connection. They are clones where the kernel lets us, since O_NONBLOCK belongs to
// the open file, which others may hold as well. Without a /dev/fuse to open (a sandbox that was handed the descriptor) the
// given one is duplicated, and put into non-blocking mode.
func openDevice(dev *os.File) (device, error) {
	given := int(dev.Fd())
	if d, err := cloneDevice(given); err == nil {
		return d, nil
	}
	fd, err := duplicateDevice(given)
	return device{fd, fd}, err
}

func duplicateDevice(given int) (int, error) {
	fd, err := unix.FcntlInt(uintptr(given), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return -1, fmt.Errorf("duplicate the FUSE descriptor %d: %w", given, err)
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("make the FUSE descriptor %d non-blocking: %w", given, err)
	}
	return fd, nil
}

func cloneDevice(given int) (d device, err error) {
	if d.fd, err = cloneDescriptor(given, unix.O_NONBLOCK); err != nil {
		return d, err
	}
	if d.sleeping, err = cloneDescriptor(given, 0); err != nil {
		unix.Close(d.fd)
	}
	return d, err
}

func cloneDescriptor(given, mode int) (int, error) {
	fd, err := unix.Open(devicePath, unix.O_RDWR|unix.O_CLOEXEC|mode, 0)
	if err != nil {
		return -1, err
	}
	if err := unix.IoctlSetPointerInt(fd, iocClone, given); err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// tryRead reads one request, or fails with EAGAIN when there is none. It never sleeps, so it need not tell the
// scheduler (RawSyscall), which makes a try cheap.
func (d device) tryRead(buf []byte) (int, syscall.Errno) {
	n, _, errno := syscall.RawSyscall(syscall.SYS_READ, uintptr(d.fd), uintptr(unsafe.Pointer(&buf[0])), uintptr(len(buf)))
	return int(n), errno
}

// sleepRead reads one request, asleep until there is one. Of several who sleep so the kernel wakes one, the one that has slept
// longest. It may fail with EINTR, or EAGAIN where somebody else was faster.
func (d device) sleepRead(buf []byte) (int, syscall.Errno) {
	if d.sleeping == d.fd {
		fds := unix.PollFd{Fd: int32(d.fd), Events: unix.POLLIN}
		if _, _, errno := syscall.Syscall6(syscall.SYS_PPOLL, uintptr(unsafe.Pointer(&fds)), 1, 0, 0, 0, 0); errno != 0 {
			return 0, errno
		}
		return d.tryRead(buf)
	}
	n, _, errno := syscall.Syscall(syscall.SYS_READ, uintptr(d.sleeping), uintptr(unsafe.Pointer(&buf[0])), uintptr(len(buf)))
	return int(n), errno
}

// write sends a notification, which the kernel takes whole or not at all.
func (d device) write(msg []byte) syscall.Errno { return writeTo(d.fd, msg) }

// writeTo sends an answer or a notification on one of the descriptors.
func writeTo(fd int, msg []byte) syscall.Errno {
	for {
		_, _, errno := syscall.Syscall(syscall.SYS_WRITE, uintptr(fd), uintptr(unsafe.Pointer(&msg[0])), uintptr(len(msg)))
		if errno != syscall.EINTR {
			return errno
		}
	}
}

// door lets notifications and ioctls, which may come at any time, to the device until it is closed; its number may then
// stand for another file. The loops need none: the device is closed after they have ended.
type door struct {
	mu     sync.RWMutex
	closed bool // guarded by mu
}

// send writes a notification.
func (c *Conn) send(msg []byte) error {
	c.door.mu.RLock()
	defer c.door.mu.RUnlock()
	if c.door.closed {
		return syscall.ENODEV
	}
	if errno := c.dev.write(msg); errno != 0 {
		return errno
	}
	return nil
}

// control makes an ioctl and returns the kernel's non-negative answer.
func (c *Conn) control(request uintptr, arg unsafe.Pointer) (int32, error) {
	c.door.mu.RLock()
	defer c.door.mu.RUnlock()
	if c.door.closed {
		return 0, syscall.ENODEV
	}
	return c.dev.ioctl(request, arg)
}

func (c *Conn) closeDevice() error {
	c.door.mu.Lock()
	defer c.door.mu.Unlock()
	c.door.closed = true
	return c.dev.close()
}

// ioctl returns the kernel's non-negative answer.
func (d device) ioctl(request uintptr, arg unsafe.Pointer) (int32, error) {
	n, _, errno := syscall.Syscall(syscall.SYS_IOCTL, uintptr(d.fd), request, uintptr(arg))
	if errno != 0 {
		return 0, errno
	}
	return int32(n), nil
}

func (d device) close() error {
	if d.sleeping != d.fd {
		defer unix.Close(d.sleeping)
	}
	return unix.Close(d.fd)
}

func yieldProcessor() {
	syscall.RawSyscall(syscall.SYS_SCHED_YIELD, 0, 0, 0)
}
