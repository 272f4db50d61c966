package unionfs

import (
	"unsafe"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/unionfs-deep/unionfs-deep/unionfs/layers"
)

// Requests that are passed on to the layer's file system, which alone knows what they mean. The argument of each is
// copied by the kernel.
const (
	fsIocFSGetXattr = 0x801c581f // FS_IOC_FSGETXATTR
	fsIocFSSetXattr = 0x401c5820 // FS_IOC_FSSETXATTR
)

// Ioctl gets and sets the flags of a file or directory (chattr(1)). Any other request is ENOTTY.
func (f *FS) Ioctl(cancel <-chan struct{}, in *fuse.IoctlIn, inbuf []byte, out *fuse.IoctlOut, outbuf []byte) fuse.Status {
	n, err := f.node(in.NodeId)
	if err != nil {
		return status(err)
	}
	set := false
	arg := make([]byte, 32)
	switch in.Cmd {
	case unix.FS_IOC_GETFLAGS, fsIocFSGetXattr:
	case unix.FS_IOC_SETFLAGS, fsIocFSSetXattr:
		set = true
		copy(arg, inbuf)
	default:
		return fuse.Status(unix.ENOTTY)
	}
	if err := f.fileFlags(cancel, n, in.Cmd, set, arg); err != nil {
		return status(err)
	}
	copy(outbuf, arg)
	return fuse.OK
}

func (f *FS) fileFlags(cancel <-chan struct{}, n *node, cmd uint32, set bool, arg []byte) error {
	if set {
		if err := f.writable(); err != nil {
			return err
		}
		if err := f.copyUpMeta(cancel, n); err != nil {
			return err
		}
	}
	fd, err := f.openForFlags(n)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := ioctl(fd, cmd, arg); err != nil || !set {
		return err
	}
	f.attributesChanged(n) // its time of change
	return nil
}

// openForFlags opens the topmost inode of a file or directory.
func (f *FS) openForFlags(n *node) (fd int, err error) {
	err = f.real(n, func(p place) (uint64, error) {
		if n.dir != nil {
			fd, err = unix.Openat(p.FD, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
			return n.upper.Load(), err
		}
		if n.kind != unix.S_IFREG {
			return n.upper.Load(), unix.ENOTTY
		}
		if fd, err = openForReading(p); err != nil {
			return 0, err
		}
		var st unix.Stat_t
		if err = unix.Fstat(fd, &st); err != nil || n.upper.Load() != 0 && st.Ino != n.upper.Load() {
			unix.Close(fd)
		}
		return st.Ino, err
	})
	return fd, err
}

func openForReading(p place) (int, error) {
	if p.name == "" {
		return unix.Open(procName(p), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	}
	return layers.OpenFile(p.File, p.name, unix.O_RDONLY)
}

// ioctl passes a request on. The flags are an int for some callers and a long for others; the kernel uses 4 bytes.
func ioctl(fd int, cmd uint32, arg []byte) error {
	_, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), uintptr(cmd), uintptr(unsafe.Pointer(unsafe.SliceData(arg))))
	if e != 0 {
		return e
	}
	return nil
}
