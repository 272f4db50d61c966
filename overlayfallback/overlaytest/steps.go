package overlaytest

import (
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// The steps below are system calls on names in the union, each noted with its errno and with what it gave back.

// Open opens a name and returns the descriptor, -1 if that failed.
func (r *Run) Open(name string, flags int, mode uint32) int {
	fd, err := unix.Open(r.Path(name), flags|unix.O_CLOEXEC, mode)
	if err == nil {
		r.open[fd] = true
		err = touch(r.lazy, fd, flags)
	}
	if !r.Err(fmt.Sprintf("open %q %s %04o", name, flagText(openFlags, flags), mode), err) {
		return -1
	}
	return fd
}

// Close closes a descriptor.
func (r *Run) Close(fd int) {
	delete(r.open, fd)
	r.Err("close", unix.Close(fd))
}

// ReadFile reads a whole file.
func (r *Run) ReadFile(name string) {
	fd := r.Open(name, unix.O_RDONLY, 0)
	if fd < 0 {
		return
	}
	defer r.Close(fd)
	data, err := readAll(fd)
	if r.Err("read "+name, err) {
		r.Note("content of "+name, text(data))
	}
}

// Pread reads from a descriptor.
func (r *Run) Pread(fd int, off int64, size int) {
	b := buffer(int64(size))
	n, err := unix.Pread(fd, b, off)
	if r.Err(fmt.Sprintf("pread %d at %d", size, off), err) {
		r.Note("bytes", text(b[:n]))
	}
}

// Pwrite writes to a descriptor.
func (r *Run) Pwrite(fd int, off int64, data string) {
	b := buffer(int64(len(data)))
	copy(b, data)
	n, err := unix.Pwrite(fd, b, off)
	r.Err(fmt.Sprintf("pwrite %d at %d", len(data), off), err)
	r.Note("written", n)
}

// WriteFile makes or replaces a file's content.
func (r *Run) WriteFile(name, data string) {
	r.write(name, data, unix.O_WRONLY|unix.O_CREAT|unix.O_TRUNC)
}

// Append writes at a file's end.
func (r *Run) Append(name, data string) { r.write(name, data, unix.O_WRONLY|unix.O_APPEND) }

func (r *Run) write(name, data string, flags int) {
	if fd := r.Open(name, flags, 0o644); fd >= 0 {
		n, err := unix.Write(fd, []byte(data))
		r.Err("write "+name, err)
		r.Note("written", n)
		r.Close(fd)
	}
}

// Mkdir makes a directory.
func (r *Run) Mkdir(name string, mode uint32) bool {
	return r.Err(fmt.Sprintf("mkdir %q %04o", name, mode), unix.Mkdir(r.Path(name), mode))
}

// Mknod makes a special file.
func (r *Run) Mknod(name string, mode uint32, major, minor uint32) bool {
	return r.Err(fmt.Sprintf("mknod %q %06o %d:%d", name, mode, major, minor), unix.Mknod(r.Path(name), mode, int(unix.Mkdev(major, minor))))
}

// Symlink makes a symbolic link.
func (r *Run) Symlink(target, name string) bool {
	return r.Err(fmt.Sprintf("symlink %q", name), unix.Symlink(target, r.Path(name)))
}

// Link makes a hard link.
func (r *Run) Link(from, to string) bool {
	return r.Err(fmt.Sprintf("link %q %q", from, to), unix.Link(r.Path(from), r.Path(to)))
}

// Unlink removes a name.
func (r *Run) Unlink(name string) bool {
	return r.Err(fmt.Sprintf("unlink %q", name), unix.Unlink(r.Path(name)))
}

// Rmdir removes a directory.
func (r *Run) Rmdir(name string) bool {
	return r.Err(fmt.Sprintf("rmdir %q", name), unix.Rmdir(r.Path(name)))
}

// Rename renames, by renameat2's flags.
func (r *Run) Rename(from, to string, flags uint) bool {
	label := fmt.Sprintf("rename %q %q %s", from, to, flagText(renameFlags, int(flags)))
	return r.Err(label, unix.Renameat2(unix.AT_FDCWD, r.Path(from), unix.AT_FDCWD, r.Path(to), flags))
}

// Chmod sets permission bits.
func (r *Run) Chmod(name string, mode uint32) bool {
	return r.Err(fmt.Sprintf("chmod %q %04o", name, mode), unix.Chmod(r.Path(name), mode))
}

// Chown sets the owner of the name itself.
func (r *Run) Chown(name string, uid, gid int) bool {
	return r.Err(fmt.Sprintf("chown %q %d:%d", name, uid, gid), unix.Lchown(r.Path(name), uid, gid))
}

// Utimens sets the times of the name itself.
func (r *Run) Utimens(name string, atime, mtime unix.Timespec) bool {
	err := unix.UtimesNanoAt(unix.AT_FDCWD, r.Path(name), []unix.Timespec{atime, mtime}, unix.AT_SYMLINK_NOFOLLOW)
	return r.Err(fmt.Sprintf("utimens %q %v %v", name, atime, mtime), err)
}

// Truncate sets a file's size.
func (r *Run) Truncate(name string, size int64) bool {
	return r.Err(fmt.Sprintf("truncate %q %d", name, size), unix.Truncate(r.Path(name), size))
}

// Fallocate works on a descriptor's space.
func (r *Run) Fallocate(fd int, mode uint32, off, size int64) bool {
	label := fmt.Sprintf("fallocate %s %d %d", flagText(fallocateFlags, int(mode)), off, size)
	return r.Err(label, unix.Fallocate(fd, mode, off, size))
}

// SetXattr sets an xattr of the name itself.
func (r *Run) SetXattr(name, attr, value string, flags int) bool {
	return r.Err(fmt.Sprintf("setxattr %q %s %d", name, attr, flags), unix.Lsetxattr(r.Path(name), attr, []byte(value), flags))
}

// GetXattr reads an xattr of the name itself.
func (r *Run) GetXattr(name, attr string) {
	v, err := GetXattr(r.Path(name), attr)
	if r.Err(fmt.Sprintf("getxattr %q %s", name, attr), err) {
		r.Note("value", text(v))
	}
}

// ListXattr lists the xattrs of the name itself.
func (r *Run) ListXattr(name string) {
	names, err := ListXattrs(r.Path(name))
	slices.Sort(names)
	r.Err("listxattr "+name, err)
	r.Note("names", strings.Join(names, " "))
}

// RemoveXattr removes an xattr of the name itself.
func (r *Run) RemoveXattr(name, attr string) bool {
	return r.Err(fmt.Sprintf("removexattr %q %s", name, attr), unix.Lremovexattr(r.Path(name), attr))
}

// Stat notes the attributes of the name itself.
func (r *Run) Stat(name string) {
	var st unix.Statx_t
	err := unix.Statx(unix.AT_FDCWD, r.Path(name), unix.AT_SYMLINK_NOFOLLOW, unix.STATX_BASIC_STATS, &st)
	r.stat("stat "+name, &st, err)
}

// Fstat notes the attributes of an open file.
func (r *Run) Fstat(fd int) {
	var st unix.Statx_t
	err := unix.Statx(fd, "", unix.AT_EMPTY_PATH, unix.STATX_BASIC_STATS, &st)
	r.stat("fstat", &st, err)
}

func (r *Run) stat(label string, st *unix.Statx_t, err error) {
	if !r.Err(label, err) {
		return
	}
	n := Node{}
	n.setStat(st, r.Clock)
	for _, field := range union(n, nil) {
		r.Note(label+" "+field, n[field])
	}
}

// List notes a directory's names and types, sorted.
func (r *Run) List(name string) {
	fd, err := unix.Open(r.Path(name), unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if !r.Err("list "+name, err) {
		return
	}
	defer unix.Close(fd)
	n := Node{}
	r.Err("readdir "+name, list(n, fd))
	r.Note("entries", n["entries"])
}

// Ino returns the inode number of the name itself, 0 if it has none.
func (r *Run) Ino(name string) uint64 {
	var st unix.Stat_t
	unix.Lstat(r.Path(name), &st)
	return st.Ino
}

// Changes notes which times of a name f changes. It asks for these alone: with the time of the last access a FUSE client would ask for
// all anew.
func (r *Run) Changes(name, label string, f func()) {
	before, after := unix.Statx_t{}, unix.Statx_t{}
	times := func(st *unix.Statx_t) {
		unix.Statx(unix.AT_FDCWD, r.Path(name), unix.AT_SYMLINK_NOFOLLOW, unix.STATX_MTIME|unix.STATX_CTIME, st)
	}
	times(&before)
	f()
	times(&after)
	r.Note(label+" changes "+name, "mtime ", before.Mtime != after.Mtime, " ctime ", before.Ctime != after.Ctime)
}

// DropCaches makes the kernel forget names and inodes that nobody uses.
func (r *Run) DropCaches() { r.Err("drop caches", callForget(nil, Op{}, nil)) }

// deep makes a chain of directories below the union's root, by descriptors since the path gets too long for one call, and
// returns the descriptor of the last. Each has the given name.
func (r *Run) deep(name string, levels int) int {
	fd, err := unix.Open(r.Root, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	for i := 0; i < levels && err == nil; i++ {
		up := fd
		if err = unix.Mkdirat(up, name, 0o755); err == nil {
			fd, err = unix.Openat(up, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
			unix.Close(up)
		}
	}
	r.open[fd] = true
	r.Err(fmt.Sprintf("make %d levels of %.10s", levels, name), err)
	return fd
}
