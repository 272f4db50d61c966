package layers

import (
	"bytes"
	"strconv"
	"sync"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// System call numbers of the xattr calls that take (directory, name), Linux 6.13; the same on every architecture.
const (
	sysSetxattrat    = 463
	sysGetxattrat    = 464
	sysListxattrat   = 465
	sysRemovexattrat = 466
)

// xattrArgs is the kernel's struct xattr_args, whose value is 8 bytes on every (little-endian) architecture. A real pointer
// is kept, so that the collector follows it.
type xattrArgs struct {
	value unsafe.Pointer
	_     [8 - unsafe.Sizeof(uintptr(0))]byte
	size  uint32
	flags uint32
}

// noXattrat says that the kernel is without the calls above, or a filter forbids them: the same is then done through
// /proc/self/fd/N/name, of which the last component is not followed either. probeXattrat sets it.
var noXattrat atomic.Bool

// probeXattrat finds out whether the calls work: filters that do not know them answer ENOSYS, and older ones EPERM, which
// is not to be taken for the file system's own.
var probeXattrat = sync.OnceFunc(func() {
	_, err := getxattrat(unix.AT_FDCWD, "/", "user.none", nil)
	noXattrat.Store(err == unix.EPERM || err == unix.ENOSYS)
})

// refusesPath reports whether an error is that of a descriptor that was opened with O_PATH, which these calls do not take,
// and the way through /proc does.
func refusesPath(name string, err error) bool { return name == "" && err == unix.EBADF }

// useXattrat reports whether the calls work.
func useXattrat() bool {
	probeXattrat()
	return !noXattrat.Load()
}

// MaxXattr is the longest value, and list of names, that the kernel passes on (XATTR_SIZE_MAX, XATTR_LIST_MAX).
const MaxXattr = 65536

// Getxattr reads an xattr of (dir, name), of the directory itself where name is empty. It returns the size; dest may be
// empty to ask for it alone.
func Getxattr(dir *File, name, attr string, dest []byte) (int, error) {
	return GetxattrFD(dir.FD, name, attr, dest)
}

// GetxattrFD is Getxattr on a bare descriptor, of which it may be a file's.
func GetxattrFD(fd int, name, attr string, dest []byte) (int, error) {
	if useXattrat() {
		n, err := getxattrat(fd, name, attr, dest)
		if !refusesPath(name, err) {
			return n, err
		}
	}
	get := unix.Lgetxattr
	if name == "" {
		get = unix.Getxattr // the link in /proc leads to the file itself
	}
	return retry(func() (int, error) { return get(procPath(fd, name), attr, dest) })
}

func getxattrat(fd int, name, attr string, dest []byte) (int, error) {
	args := xattrArgs{value: unsafe.Pointer(unsafe.SliceData(dest)), size: uint32(len(dest))}
	return xattrat(sysGetxattrat, fd, name, attr, unsafe.Pointer(&args), unsafe.Sizeof(args))
}

// Setxattr sets an xattr of (dir, name); flags as for setxattr(2).
func Setxattr(fd int, name, attr string, value []byte, flags int) error {
	if useXattrat() {
		args := xattrArgs{value: unsafe.Pointer(unsafe.SliceData(value)), size: uint32(len(value)), flags: uint32(flags)}
		_, err := xattrat(sysSetxattrat, fd, name, attr, unsafe.Pointer(&args), unsafe.Sizeof(args))
		if !refusesPath(name, err) {
			return err
		}
	}
	set := unix.Lsetxattr
	if name == "" {
		set = unix.Setxattr
	}
	return retryErr(func() error { return set(procPath(fd, name), attr, value, flags) })
}

// Removexattr removes an xattr of (dir, name).
func Removexattr(fd int, name, attr string) error {
	if useXattrat() {
		_, err := xattrat(sysRemovexattrat, fd, name, attr, nil, 0)
		if !refusesPath(name, err) {
			return err
		}
	}
	remove := unix.Lremovexattr
	if name == "" {
		remove = unix.Removexattr
	}
	return retryErr(func() error { return remove(procPath(fd, name), attr) })
}

// Listxattr returns the names of the xattrs of (dir, name).
func Listxattr(fd int, name string) ([]string, error) {
	buf := make([]byte, 1024)
	n, err := listxattr(fd, name, buf)
	if err == unix.ERANGE {
		buf = make([]byte, MaxXattr)
		n, err = listxattr(fd, name, buf)
	}
	if err != nil {
		return nil, err
	}
	var names []string
	for _, b := range bytes.Split(buf[:n], []byte{0}) {
		if len(b) > 0 {
			names = append(names, string(b))
		}
	}
	return names, nil
}

func listxattr(fd int, name string, dest []byte) (int, error) {
	if useXattrat() {
		n, err := listxattrat(fd, name, dest)
		if !refusesPath(name, err) {
			return n, err
		}
	}
	list := unix.Llistxattr
	if name == "" {
		list = unix.Listxattr
	}
	return retry(func() (int, error) { return list(procPath(fd, name), dest) })
}

func listxattrat(fd int, name string, dest []byte) (int, error) {
	p, err := unix.BytePtrFromString(name)
	if err != nil {
		return 0, err
	}
	return retry(func() (int, error) {
		n, _, e := unix.Syscall6(sysListxattrat, uintptr(fd), uintptr(unsafe.Pointer(p)), atFlags(name),
			uintptr(unsafe.Pointer(unsafe.SliceData(dest))), uintptr(len(dest)), 0)
		return int(n), errno(e)
	})
}

// ReadXattr reads a whole xattr of (dir, name).
func ReadXattr(fd int, name, attr string) ([]byte, error) {
	buf := make([]byte, 256)
	for {
		n, err := GetxattrFD(fd, name, attr, buf)
		if err == unix.ERANGE && len(buf) < MaxXattr {
			buf = make([]byte, MaxXattr)
			continue
		}
		if err != nil {
			return nil, err
		}
		return buf[:n], nil
	}
}

func xattrat(call uintptr, fd int, name, attr string, args unsafe.Pointer, size uintptr) (int, error) {
	p, err := unix.BytePtrFromString(name)
	if err != nil {
		return 0, err
	}
	a, err := unix.BytePtrFromString(attr)
	if err != nil {
		return 0, err
	}
	for {
		n, _, e := unix.Syscall6(call, uintptr(fd), uintptr(unsafe.Pointer(p)), atFlags(name), uintptr(unsafe.Pointer(a)), uintptr(args), size)
		if e != unix.EINTR {
			return int(n), errno(e)
		}
	}
}

func atFlags(name string) uintptr {
	if name == "" {
		return unix.AT_EMPTY_PATH
	}
	return unix.AT_SYMLINK_NOFOLLOW
}

func errno(e unix.Errno) error {
	if e == 0 {
		return nil
	}
	return e
}

func procPath(fd int, name string) string {
	p := "/proc/self/fd/" + strconv.Itoa(fd)
	if name != "" {
		p += "/" + name
	}
	return p
}
