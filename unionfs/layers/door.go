package layers

import (
	"strings"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// beneath is how every path in a layer is resolved: never out of it, never through a symbolic link.
const beneath = unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS

// dirFlags opens a directory of a layer for reading and as a base for names.
const dirFlags = unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC

// noOpenat2 says that openat2 is forbidden, as by a seccomp filter that does not know it. probeOpenat2 sets it.
var noOpenat2 atomic.Bool

// maxPath is the longest path that one system call takes; longer ones are walked in steps.
const maxPath = unix.PathMax - 1

// OpenBeneath opens a directory by its path below the directory root. An empty path is the root itself. The descriptor
// may be one that was opened with O_PATH, where reading the directory is not permitted.
func OpenBeneath(root int, path string) (int, error) {
	if path == "" {
		path = "."
	}
	at, owned := root, false
	for {
		step, rest, err := splitPath(path)
		fd := -1
		if err == nil {
			fd, err = openStep(at, step)
		}
		if owned {
			unix.Close(at)
		}
		if err != nil {
			return -1, err
		}
		if rest == "" {
			return fd, nil
		}
		at, owned, path = fd, true, rest
	}
}

// splitPath cuts a path at a slash so that the first part fits one system call. A path that comes from a redirect may have a
// component that is longer than that: it gives ENAMETOOLONG.
func splitPath(path string) (step, rest string, err error) {
	if len(path) <= maxPath {
		return path, "", nil
	}
	i := strings.LastIndexByte(path[:maxPath+1], '/')
	if i <= 0 {
		return "", "", unix.ENAMETOOLONG
	}
	return path[:i], path[i+1:], nil
}

// openStep opens one step of OpenBeneath. The access time of a lower directory is left alone where that is permitted.
func openStep(at int, path string) (int, error) {
	var err error
	for _, flags := range []int{dirFlags | unix.O_NOATIME, dirFlags, dirFlags | unix.O_PATH} {
		var fd int
		if fd, err = openSafely(at, path, flags); err == nil {
			return fd, nil
		}
		if err != unix.EPERM && err != unix.EACCES {
			break
		}
	}
	return -1, err
}

// openSafely opens path below the directory at with openat2, or by components where openat2 is forbidden.
func openSafely(at int, path string, flags int) (int, error) {
	probeOpenat2()
	if noOpenat2.Load() {
		return openByComponents(at, path, flags)
	}
	how := unix.OpenHow{Flags: uint64(flags), Resolve: beneath}
	return retry(func() (int, error) { return unix.Openat2(at, path, &how) })
}

// probeOpenat2 finds out whether the call works: filters that do not know it answer ENOSYS, and older ones EPERM, which is
// not to be taken for the file system's own.
var probeOpenat2 = sync.OnceFunc(func() {
	fd, err := unix.Openat2(unix.AT_FDCWD, "/", &unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC})
	if err == nil {
		unix.Close(fd)
	}
	noOpenat2.Store(err == unix.EPERM || err == unix.ENOSYS)
})

// openByComponents is openat2's resolution done by hand: each component is opened with O_NOFOLLOW and none may be "..".
func openByComponents(at int, path string, flags int) (int, error) {
	dir := at
	for more := true; more; {
		var name string
		name, path, more = strings.Cut(path, "/")
		f := flags
		if more {
			f = unix.O_PATH | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC
		}
		fd, err := openComponent(dir, name, f)
		if dir != at {
			unix.Close(dir)
		}
		if err != nil {
			return -1, err
		}
		dir = fd
	}
	return dir, nil
}

func openComponent(dir int, name string, flags int) (int, error) {
	if name == ".." {
		return -1, unix.EXDEV
	}
	return retry(func() (int, error) { return unix.Openat(dir, name, flags, 0) })
}

// OpenFile opens the non-directory (dir, name) for its data. It never blocks on a FIFO or a device: what is not a regular
// file once it is open gives ENXIO. A lower file's access time is left alone where that is permitted.
func OpenFile(dir *File, name string, flags int) (int, error) {
	flags |= unix.O_NOFOLLOW | unix.O_CLOEXEC | unix.O_NONBLOCK | unix.O_NOCTTY
	fd, err := retry(func() (int, error) { return unix.Openat(dir.FD, name, flags, 0) })
	if err == unix.EPERM && flags&unix.O_NOATIME != 0 {
		flags &^= unix.O_NOATIME
		fd, err = retry(func() (int, error) { return unix.Openat(dir.FD, name, flags, 0) })
	}
	if err != nil {
		return -1, err
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFREG {
		unix.Close(fd)
		return -1, unix.ENXIO
	}
	return fd, nil
}

// Stat returns the attributes of (dir, name) and never follows a symbolic link. An empty name is the directory itself.
func Stat(dir *File, name string, st *unix.Statx_t) error {
	return StatFD(dir.FD, name, st)
}

// StatFD is Stat on a bare descriptor.
func StatFD(fd int, name string, st *unix.Statx_t) error {
	const mask = unix.STATX_BASIC_STATS | unix.STATX_BTIME
	flags := unix.AT_SYMLINK_NOFOLLOW | unix.AT_NO_AUTOMOUNT
	if name == "" {
		flags |= unix.AT_EMPTY_PATH
	}
	return retryErr(func() error { return unix.Statx(fd, name, flags, mask, st) })
}

// Readlink returns the target of the symbolic link (dir, name).
func Readlink(dir *File, name string) ([]byte, error) {
	buf := make([]byte, 256)
	for {
		n, err := unix.Readlinkat(dir.FD, name, buf)
		if err != nil {
			return nil, err
		}
		if n < len(buf) {
			return buf[:n], nil
		}
		buf = make([]byte, 2*len(buf))
	}
}

// retry calls f again while a signal interrupts it: the Go runtime's own signals reach a thread at any time.
func retry(f func() (int, error)) (int, error) {
	for {
		n, err := f()
		if err != unix.EINTR {
			return n, err
		}
	}
}

func retryErr(f func() error) error {
	_, err := retry(func() (int, error) { return 0, f() })
	return err
}
