package overlaytest

import (
	"errors"
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// call is how an operation is run, and which arguments it has.
type call struct {
	run         func(e *executor, op Op, result Node) error
	slot, slot2 bool
	path, path2 bool
	times       bool
	flags       []bitName
}

// calls holds every operation by its name.
var calls map[string]call

func init() {
	calls = map[string]call{
		"open":      {run: callOpen, slot: true, path: true, flags: openFlags},
		"close":     {run: callClose, slot: true},
		"pread":     {run: callPread, slot: true},
		"pwrite":    {run: callPwrite, slot: true},
		"read":      {run: callRead, slot: true},
		"write":     {run: callWrite, slot: true},
		"lseek":     {run: callLseek, slot: true, flags: seekFlags},
		"ftruncate": {run: callFtruncate, slot: true},
		"truncate":  {run: callTruncate, path: true},
		"fallocate": {run: callFallocate, slot: true, flags: fallocateFlags},
		"fsync":     {run: callFsync, slot: true},
		"fdatasync": {run: callFdatasync, slot: true},
		"copyrange": {run: callCopyRange, slot: true, slot2: true},
		"flock":     {run: callFlock, slot: true, flags: lockFlags},
		"ofdlock":   {run: callOFDLock, slot: true},
		"mapread":   {run: callMapRead, path: true},
		"mapwrite":  {run: callMapWrite, path: true},
		"getflags":  {run: callGetFlags, slot: true},
		"store":     {run: callStore, path: true},
		"forget":    {run: callForget},

		"mkdir":    {run: callMkdir, path: true},
		"mknod":    {run: callMknod, path: true},
		"symlink":  {run: callSymlink, path: true},
		"link":     {run: callLink, path: true, path2: true},
		"linkslot": {run: callLinkSlot, slot: true, path: true},
		"unlink":   {run: callUnlink, path: true},
		"rmdir":    {run: callRmdir, path: true},
		"rename":   {run: callRename, path: true, path2: true, flags: renameFlags},
		"readdir":  {run: callReaddir, path: true},
		"freaddir": {run: callFreaddir, slot: true},
		"readlink": {run: callReadlink, path: true},

		"stat":        {run: callStat, path: true},
		"lstat":       {run: callLstat, path: true},
		"fstat":       {run: callFstat, slot: true},
		"access":      {run: callAccess, path: true, flags: accessFlags},
		"chmod":       {run: callChmod, path: true},
		"fchmod":      {run: callFchmod, slot: true},
		"lchown":      {run: callLchown, path: true},
		"fchown":      {run: callFchown, slot: true},
		"utimens":     {run: callUtimens, path: true, times: true},
		"futimens":    {run: callFutimens, slot: true, times: true},
		"setxattr":    {run: callSetxattr, path: true, flags: xattrFlags},
		"fsetxattr":   {run: callFsetxattr, slot: true, flags: xattrFlags},
		"getxattr":    {run: callGetxattr, path: true},
		"listxattr":   {run: callListxattr, path: true},
		"removexattr": {run: callRemovexattr, path: true},
	}
}

// callOpen opens into a slot; what was there is closed when that succeeds. Non-blocking, so that no fifo holds the test up.
func callOpen(e *executor, op Op, _ Node) error {
	fd, err := unix.Open(e.at(op.Path), op.Flags|unix.O_NONBLOCK|unix.O_NOCTTY|unix.O_CLOEXEC, op.Mode)
	if err != nil {
		return err
	}
	var st unix.Stat_t
	err = errors.Join(touch(e.lazy, fd, op.Flags), unix.Fstat(fd, &st))
	e.drop(op.Slot)
	e.open[op.Slot] = descriptor{fd: fd, flags: op.Flags, ino: st.Ino, dir: st.Mode&unix.S_IFMT == unix.S_IFDIR}
	return err
}

func callClose(e *executor, op Op, _ Node) error {
	err := unix.Close(e.fd(op))
	e.open[op.Slot] = descriptor{}
	return err
}

// buffer returns n bytes that begin at a page, as O_DIRECT wants them.
func buffer(n int64) []byte {
	raw := make([]byte, n+4096)
	skip := -uintptr(unsafe.Pointer(&raw[0])) & 4095
	return raw[skip : skip+uintptr(n)]
}

func callPread(e *executor, op Op, result Node) error {
	op = e.aligned(op)
	b := buffer(op.Len)
	n, err := unix.Pread(e.fd(op), b, op.Off)
	return setRead(result, b, n, err)
}

func callRead(e *executor, op Op, result Node) error {
	op = e.aligned(op)
	b := buffer(op.Len)
	n, err := unix.Read(e.fd(op), b)
	return setRead(result, b, n, err)
}

// setRead records what a read gave.
func setRead(result Node, b []byte, n int, err error) error {
	if err == nil {
		result["read"] = text(b[:n])
	}
	return err
}

func callPwrite(e *executor, op Op, result Node) error {
	op = e.aligned(op)
	b := buffer(op.Len)
	copy(b, op.fill())
	n, err := unix.Pwrite(e.fd(op), b, op.Off)
	result["written"] = fmt.Sprint(n)
	return err
}

func callWrite(e *executor, op Op, result Node) error {
	op = e.aligned(op)
	b := buffer(op.Len)
	copy(b, op.fill())
	n, err := unix.Write(e.fd(op), b)
	result["written"] = fmt.Sprint(n)
	return err
}

// callLseek leaves directories alone: their positions are the file system's own.
func callLseek(e *executor, op Op, result Node) error {
	if e.open[op.Slot].dir {
		return nil
	}
	at, err := unix.Seek(e.fd(op), op.Off, op.Flags)
	result["offset"] = fmt.Sprint(at)
	return err
}

func callFtruncate(e *executor, op Op, _ Node) error { return unix.Ftruncate(e.fd(op), op.Len) }

func callTruncate(e *executor, op Op, _ Node) error { return unix.Truncate(e.at(op.Path), op.Len) }

func callFallocate(e *executor, op Op, _ Node) error {
	return unix.Fallocate(e.fd(op), uint32(op.Flags), op.Off, op.Len)
}

func callFsync(e *executor, op Op, _ Node) error { return unix.Fsync(e.fd(op)) }

func callFdatasync(e *executor, op Op, _ Node) error { return unix.Fdatasync(e.fd(op)) }

// callCopyRange leaves O_DIRECT alone: a copy that ends with its source wants no alignment of a FUSE server, but of a disk's
// file system.
func callCopyRange(e *executor, op Op, result Node) error {
	if (e.open[op.Slot].flags|e.open[op.Slot2].flags)&unix.O_DIRECT != 0 {
		return nil
	}
	from, to := op.Off, op.Off/2
	n, err := unix.CopyFileRange(e.fd(op), &from, e.open[op.Slot2].fd, &to, int(op.Len), 0)
	result["copied"] = fmt.Sprint(n)
	return err
}

func callFlock(e *executor, op Op, _ Node) error { return unix.Flock(e.fd(op), op.Flags|unix.LOCK_NB) }

// callOFDLock takes a lock that belongs to the descriptor, for the operation's range.
func callOFDLock(e *executor, op Op, _ Node) error {
	lock := unix.Flock_t{Type: int16(op.Mode), Start: op.Off, Len: op.Len}
	return unix.FcntlFlock(uintptr(e.fd(op)), unix.F_OFD_SETLK, &lock)
}

// callMapRead reads through a private opening and a mapping. MADV_POPULATE faults the pages in inside a system call, so that
// a fault that fails is an errno and no signal.
func callMapRead(e *executor, op Op, result Node) error {
	fd, err := unix.Open(e.at(op.Path), unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	m, err := unix.Mmap(fd, op.Off, int(op.Len), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return err
	}
	defer unix.Munmap(m)
	if err := unix.Madvise(m, unix.MADV_POPULATE_READ); err != nil {
		return err
	}
	result["read"] = text(m)
	return nil
}

// callMapWrite writes through a private opening and a shared mapping, and waits for it to be written back.
func callMapWrite(e *executor, op Op, _ Node) error {
	fd, err := unix.Open(e.at(op.Path), unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := touch(e.lazy, fd, unix.O_RDWR); err != nil {
		return err
	}
	m, err := unix.Mmap(fd, op.Off, int(op.Len), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return err
	}
	defer unix.Munmap(m)
	if err := unix.Madvise(m, unix.MADV_POPULATE_WRITE); err != nil {
		return err
	}
	copy(m, op.fill())
	return unix.Msync(m, unix.MS_SYNC)
}

// callForget makes the kernel forget names and inodes that nobody uses, on every mount of the machine.
func callForget(*executor, Op, Node) error {
	fd, err := unix.Open("/proc/sys/vm/drop_caches", unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	_, err = unix.Write(fd, []byte("2"))
	return err
}

// callStore writes into a file that is there, through a private opening.
func callStore(e *executor, op Op, _ Node) error {
	fd, err := unix.Open(e.at(op.Path), unix.O_WRONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	n, err := unix.Pwrite(fd, op.fill(), op.Off)
	if err == nil && n < int(op.Len) {
		return unix.EIO
	}
	return err
}

func callGetFlags(e *executor, op Op, result Node) error {
	flags, err := unix.IoctlGetUint32(e.fd(op), unix.FS_IOC_GETFLAGS)
	if err == nil {
		result["flags"] = fmt.Sprintf("%#x", flags)
	}
	return err
}
