package overlaytest

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// listed is a difference of docs/differences.md that the comparisons keep away from.
type listed struct {
	name         string
	route        Route
	set          Set
	prepare      func(t *testing.T, layer string) // what happens to the lower layer before it is mounted; nil for nothing
	observe      func(root string) string
	kernel, here string // what is observed on kernel overlayfs, and on the route
}

// TestListed shows each such difference, and that it still is one.
func TestListed(t *testing.T) {
	plain := Set{Lower: []Layer{{dir("d"), file("low", "old")}}}
	twice := Set{Options: []string{"redirect_dir=on"}, Lower: []Layer{{dir("a/d")}}, Upper: Layer{dir("b/e", ovl("redirect", "/a/d"))}}
	for _, l := range []listed{
		{"mount_inside_a_layer", "fuse", plain, mountInside, func(root string) string { return statSize(root, "d/inside") }, "ENOENT", "6"},
		{"seek_holes_with_writeback", "fuse,writeback", plain, nil, seekPastHole, "1048576", "0"},
		{"ctime_with_writeback", "fuse,writeback", plain, nil, ctimeOnceForgotten, "kept", "another"},
		{"write_too_far_with_writeback", "fuse,writeback", plain, nil, writeTooFar, "EFBIG at write", "EIO at close"},
		{"seek_in_a_directory", "fuse", plain, nil, seekDirectory, "not its size", "its size"},
		{"statfs_type", "fuse", plain, nil, statfsType, "0x794c7630", "0x65735546"},
		{"statx_attributes", "fuse", plain, nil, statxAppendOnly, "true", "false"},
		{"ioctls_of_the_kernel", "fuse", plain, nil, kernelIoctls, "FIGETBSZ EINVAL FS_IOC_GETFSUUID ok", "FIGETBSZ ok FS_IOC_GETFSUUID ENOTTY"},
		{"direct_from_any_memory", "fuse", plain, nil, writeFromAnyMemory, "EINVAL", "ok"},
		{"chown_to_nobody_with_capabilities", "fuse", plain, nil, chownToNobody, "755", "6755"},
		{"chown_to_nobody_while_writing", "fuse", plain, nil, chownWhileWriting, "EPERM 6755", "ok 6755"},
		{"chown_to_nobody_of_a_writable_file", "fuse", plain, nil, chownOfAWritableFile, "EPERM ok", "EPERM ENODATA"},
		{"link_after_acl", "fuse", plain, nil, linkAfterACL, "EPERM", "EACCES"},
		{"mapping_of_a_lower_file", "fuse", plain, nil, mapThenWrite, "old", "new"},
		{"mapping_of_a_lower_file_passed_through", "fuse,fastpath=passthrough", plain, nil, mapThenWrite, "old", "new"},
		{"marks_of_a_whole_file_system", "fuse", plain, nil, markFileSystem, "ENOTSUP", "ENODEV"},
		{"redirected_twice", "fuse", twice, nil, lookUpTwice, "ESTALE", "ok"},
	} {
		t.Run(l.name, l.run)
	}
}

// run makes the observation on the kernel first, and then on the route.
func (l listed) run(t *testing.T) {
	for _, side := range []struct {
		route Route
		want  string
	}{{Kernel, l.kernel}, {l.route, l.here}} {
		layout := mustBuild(t, l.set, TempDir(t))
		if l.prepare != nil {
			l.prepare(t, layout.Lower[0])
		}
		m := Mount(t, side.route, layout)
		Bound(t, caseTime, m)
		if got := l.observe(m.Root); got != side.want {
			t.Errorf("%s answers %s, want %s", side.route, got, side.want)
		}
	}
}

// mountInside mounts a file system with one file on the layer's directory d.
func mountInside(t *testing.T, layer string) {
	at := filepath.Join(layer, "d")
	if err := unix.Mount("tmpfs", at, "tmpfs", 0, "size=1m"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(at, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	if err := os.WriteFile(filepath.Join(at, "inside"), []byte("inside"), 0o644); err != nil {
		t.Fatal(err)
	}
}

// statSize returns a file's size, or why there is none.
func statSize(root, name string) string {
	var st unix.Stat_t
	if err := unix.Lstat(filepath.Join(root, name), &st); err != nil {
		return Errno(err)
	}
	return fmt.Sprint(st.Size)
}

// mapThenWrite reads by a mapping of a lower file what is written to the file after that.
func mapThenWrite(root string) string {
	at := filepath.Join(root, "low")
	fd, err := unix.Open(at, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return Errno(err)
	}
	defer unix.Close(fd)
	data, err := unix.Mmap(fd, 0, 3, unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return Errno(err)
	}
	defer unix.Munmap(data)
	to, err := unix.Open(at, unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err == nil {
		defer unix.Close(to)
		_, err = unix.Pwrite(to, []byte("new"), 0)
	}
	if err != nil {
		return Errno(err)
	}
	return string(data)
}

// markFileSystem asks for the events of a whole file system, by the handles of its files.
func markFileSystem(root string) string {
	fd, err := unix.FanotifyInit(unix.FAN_CLASS_NOTIF|unix.FAN_REPORT_FID|unix.FAN_CLOEXEC, 0)
	if err != nil {
		return Errno(err)
	}
	defer unix.Close(fd)
	return Errno(unix.FanotifyMark(fd, unix.FAN_MARK_ADD|unix.FAN_MARK_FILESYSTEM, unix.FAN_CREATE, unix.AT_FDCWD, root))
}

// linkedInode tells whether a link to a file that was copied up has the file's inode number.
func linkedInode(root string) string {
	at := filepath.Join(root, "low")
	if err := errors.Join(unix.Chmod(at, 0o600), unix.Link(at, at+"2")); err != nil {
		return Errno(err)
	}
	var one, other unix.Stat_t
	if err := errors.Join(unix.Stat(at, &one), unix.Stat(at+"2", &other)); err != nil {
		return Errno(err)
	}
	if one.Ino == other.Ino {
		return "the same"
	}
	return "another"
}

// statfsType is the file system's type as statfs(2) tells it.
func statfsType(root string) string {
	var st unix.Statfs_t
	if err := unix.Statfs(root, &st); err != nil {
		return Errno(err)
	}
	return fmt.Sprintf("%#x", st.Type)
}

// statxAppendOnly tells whether statx(2) calls a directory append-only that is.
func statxAppendOnly(root string) string {
	fd, err := unix.Open(filepath.Join(root, "d"), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return Errno(err)
	}
	defer unix.Close(fd)
	flags, err := unix.IoctlGetInt(fd, unix.FS_IOC_GETFLAGS)
	if err == nil {
		err = unix.IoctlSetPointerInt(fd, unix.FS_IOC_SETFLAGS, flags|flagAppend)
	}
	if err != nil {
		return Errno(err)
	}
	defer unix.IoctlSetPointerInt(fd, unix.FS_IOC_SETFLAGS, flags)
	var st unix.Statx_t
	if err := unix.Statx(fd, "", unix.AT_EMPTY_PATH, unix.STATX_BASIC_STATS, &st); err != nil {
		return Errno(err)
	}
	return fmt.Sprint(st.Attributes&unix.STATX_ATTR_APPEND != 0)
}

// kernelIoctls makes requests that the kernel answers without asking a FUSE server.
func kernelIoctls(root string) string {
	fd, err := unix.Open(filepath.Join(root, "new"), unix.O_RDWR|unix.O_CREAT|unix.O_CLOEXEC, 0o644)
	if err != nil {
		return Errno(err)
	}
	defer unix.Close(fd)
	var answer [17]byte // an int, or struct fsuuid2
	ask := func(request uintptr) string {
		if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), request, uintptr(unsafe.Pointer(&answer))); errno != 0 {
			return Errno(errno)
		}
		return "ok"
	}
	return fmt.Sprintf("FIGETBSZ %s FS_IOC_GETFSUUID %s", ask(ioctlBlockSize), ask(ioctlUUID))
}

// chownToNobody is root's chown without an owner of a file with set-id bits and capabilities.
func chownToNobody(root string) string {
	at := filepath.Join(root, "new")
	fd, err := unix.Open(at, unix.O_RDWR|unix.O_CREAT|unix.O_CLOEXEC, 0o644)
	if err != nil {
		return Errno(err)
	}
	defer unix.Close(fd)
	for _, err := range []error{
		unix.Setxattr(at, capabilityXattr, []byte(capability), 0), unix.Fchmod(fd, 0o6755),
		unix.Removexattr(at, capabilityXattr), unix.Fchown(fd, -1, -1),
	} {
		if err != nil {
			return Errno(err)
		}
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return Errno(err)
	}
	return fmt.Sprintf("%o", st.Mode&0o7777)
}

// chownWhileWriting is a user's chown without an owner of root's file with set-id bits, by a process that has it open for writing.
func chownWhileWriting(root string) (result string) {
	fd, err := unix.Open(filepath.Join(root, "new"), unix.O_RDWR|unix.O_CREAT|unix.O_CLOEXEC, 0o644)
	if err == nil {
		defer unix.Close(fd)
		err = unix.Fchmod(fd, 0o6755)
	}
	if err != nil {
		return Errno(err)
	}
	As(user, func() { result = Errno(unix.Fchown(fd, -1, -1)) })
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return Errno(err)
	}
	return fmt.Sprintf("%s %o", result, st.Mode&0o7777)
}

// chownOfAWritableFile is a user's chown without an owner of root's file with set-id bits and capabilities, to which all may write.
func chownOfAWritableFile(root string) (result string) {
	at := filepath.Join(root, "new")
	err := errors.Join(os.WriteFile(at, nil, 0o644), unix.Setxattr(at, capabilityXattr, []byte(capability), 0), unix.Chmod(at, 0o6777))
	if err != nil {
		return err.Error()
	}
	As(user, func() { result = Errno(unix.Chown(at, -1, -1)) })
	_, err = GetXattr(at, capabilityXattr)
	return result + " " + Errno(err)
}

// linkAfterACL lets a user link a file that has become an executable set-group-id one by an ACL, in a directory that is not the
// user's.
func linkAfterACL(root string) (errno string) {
	at := filepath.Join(root, "new")
	fd, err := unix.Open(at, unix.O_RDWR|unix.O_CREAT|unix.O_CLOEXEC, 0o644)
	if err == nil {
		defer unix.Close(fd)
		err = unix.Fchmod(fd, 0o2644)
	}
	if err == nil {
		err = unix.Setxattr(at, "system.posix_acl_access", []byte(acl("u::rwx,u:1000:rwx,g::r-x,m::rwx,o::---")), 0)
	}
	if err != nil {
		return Errno(err)
	}
	As(user, func() { errno = Errno(unix.Link(at, at+"-link")) })
	return errno
}

// writeFromAnyMemory writes a block with O_DIRECT that lies on no block in memory.
func writeFromAnyMemory(root string) string {
	fd, err := unix.Open(filepath.Join(root, "new"), unix.O_RDWR|unix.O_CREAT|unix.O_DIRECT|unix.O_CLOEXEC, 0o644)
	if err != nil {
		return Errno(err)
	}
	defer unix.Close(fd)
	_, err = unix.Pwrite(fd, buffer(2 * 4096)[1:4097], 0)
	return Errno(err)
}

// lookUpTwice looks at a lower directory, and then at one of the upper that is redirected to it.
func lookUpTwice(root string) string {
	var st unix.Stat_t
	if err := unix.Lstat(filepath.Join(root, "a/d"), &st); err != nil {
		return Errno(err)
	}
	return Errno(unix.Lstat(filepath.Join(root, "b/e"), &st))
}

// seekPastHole writes behind a hole and asks for the first data.
func seekPastHole(root string) string {
	fd, err := unix.Open(filepath.Join(root, "new"), unix.O_RDWR|unix.O_CREAT|unix.O_CLOEXEC, 0o644)
	if err != nil {
		return Errno(err)
	}
	defer unix.Close(fd)
	if _, err := unix.Pwrite(fd, []byte("data"), 1<<20); err != nil {
		return Errno(err)
	}
	return seek(fd, unix.SEEK_DATA)
}

// ctimeOnceForgotten tells whether a file that has been written keeps its time of change when the kernel forgets it.
func ctimeOnceForgotten(root string) string {
	at := filepath.Join(root, "low")
	var told, later unix.Stat_t
	f, err := os.OpenFile(at, os.O_RDWR, 0)
	if err != nil {
		return Errno(err)
	}
	_, err = f.WriteString("new")
	err = errors.Join(err, unix.Stat(at, &told))
	time.Sleep(20 * time.Millisecond) // a few ticks
	err = errors.Join(err, f.Close(), callForget(nil, Op{}, nil), unix.Stat(at, &later))
	switch {
	case err != nil:
		return Errno(err)
	case told.Ctim != later.Ctim:
		return "another"
	}
	return "kept"
}

// writeTooFar writes behind the end of the largest file that the layer can have, and tells when that fails.
func writeTooFar(root string) string {
	fd, err := unix.Open(filepath.Join(root, "new"), unix.O_RDWR|unix.O_CREAT|unix.O_CLOEXEC, 0o644)
	if err != nil {
		return Errno(err)
	}
	_, werr := unix.Pwrite(fd, []byte("data"), 1<<62)
	cerr := unix.Close(fd)
	if werr != nil {
		return Errno(werr) + " at write"
	}
	return Errno(cerr) + " at close"
}

func seek(fd, whence int) string {
	at, err := unix.Seek(fd, 0, whence)
	if err != nil {
		return Errno(err)
	}
	return fmt.Sprint(at)
}

// seekDirectory asks where the hole of a directory is.
func seekDirectory(root string) string {
	fd, err := unix.Open(filepath.Join(root, "d"), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return Errno(err)
	}
	defer unix.Close(fd)
	if seek(fd, unix.SEEK_HOLE) == statSize(root, "d") {
		return "its size"
	}
	return "not its size"
}
