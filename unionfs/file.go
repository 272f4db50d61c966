package unionfs

import (
	"slices"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/unionfs-deep/unionfs-deep/perf"
	"github.com/unionfs-deep/unionfs-deep/unionfs/layers"
)

// Open copies a file up that is opened for writing. With the profile cache the kernel is told never to ask: the copy-up
// then comes with the first change.
func (f *FS) Open(cancel <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	if f.profile == perf.Cache {
		return fuse.ENOSYS
	}
	n, err := f.node(in.NodeId)
	if err == nil {
		err = f.open(cancel, n, in)
	}
	if err == nil {
		err = f.opened(n, in.Flags, out)
	}
	if err == nil && f.profile == perf.Passthrough && in.Flags&unix.O_ACCMODE != unix.O_RDONLY {
		f.attributesChanged(n) // from now on they are asked for each time: see attrValidity
	}
	return status(err)
}

// opened enters an open of a file and says what the kernel is to do with its pages.
func (f *FS) opened(n *node, flags uint32, out *fuse.OpenOut) error {
	switch {
	case n.kind != unix.S_IFREG:
	case f.profile == perf.Passthrough:
		return f.openPassthrough(n, flags, out)
	case f.profile == perf.Off && f.opens.enter(n.id, flags):
		out.OpenFlags = fuse.FOPEN_KEEP_CACHE
	}
	return nil
}

func (f *FS) open(cancel <-chan struct{}, n *node, in *fuse.OpenIn) error {
	if n.kind != unix.S_IFREG {
		return nil
	}
	if in.Flags&unix.O_ACCMODE == unix.O_RDONLY && in.Flags&unix.O_TRUNC == 0 {
		file, err := f.data(n)
		if err == nil {
			file.Release()
		}
		return err
	}
	if err := f.writable(); err != nil {
		return err
	}
	limit := wholeFile
	if in.Flags&unix.O_TRUNC != 0 {
		limit = 0
	}
	if err := f.copyUpData(cancel, n, limit); err != nil {
		return err
	}
	file, err := f.dataToWrite(n)
	if err != nil {
		return err
	}
	defer file.Release()
	if in.Flags&unix.O_TRUNC == 0 {
		return nil
	}
	if in.Mode&fuse.OPEN_KILL_SUIDGID != 0 {
		if _, err := killSuidgid(place{file, ""}, &in.Caller); err != nil {
			return err
		}
	}
	return unix.Ftruncate(file.FD, 0)
}

// Release ends an open: nothing is kept for one, but the use of a backing file, or the number of writers.
func (f *FS) Release(cancel <-chan struct{}, in *fuse.ReleaseIn) {
	f.opens.leave(in.NodeId, in.Flags)
	f.closePassthrough(in)
}

// Flush has nothing to write: a write is in the layer when it is answered.
func (f *FS) Flush(cancel <-chan struct{}, in *fuse.FlushIn) fuse.Status {
	if f.profile == perf.Off {
		return fuse.OK
	}
	return fuse.ENOSYS
}

// Read reads a file's data straight into the reply.
func (f *FS) Read(cancel <-chan struct{}, in *fuse.ReadIn, buf []byte) (fuse.ReadResult, fuse.Status) {
	n, err := f.node(in.NodeId)
	if err != nil {
		return nil, status(err)
	}
	file, err := f.data(n)
	if err != nil {
		return nil, status(err)
	}
	if in.Flags&unix.O_DIRECT != 0 {
		file = f.direct(file)
	}
	return &readResult{file: file, off: int64(in.Offset), size: int(in.Size)}, fuse.OK
}

// readResult reads when the reply is put together. It implements what go-fuse's ProtocolServer needs to read into the
// reply itself.
type readResult struct {
	file *layers.File
	off  int64
	size int
}

// Size returns how much is read at most, in bytes.
func (r *readResult) Size() int { return r.size }

// Done ends the use of the file.
func (r *readResult) Done() { r.file.Release() }

// Bytes reads into buf.
func (r *readResult) Bytes(buf []byte) ([]byte, fuse.Status) {
	n, st := r.Readv([][]byte{buf[:min(len(buf), r.size)]})
	return buf[:n], st
}

// Readv reads into several buffers.
func (r *readResult) Readv(dst [][]byte) (int, fuse.Status) {
	total := 0
	for _, b := range dst {
		for len(b) > 0 {
			n, err := unix.Pread(r.file.FD, b, r.off+int64(total))
			if err == unix.EINTR {
				continue
			}
			if err != nil && total == 0 {
				return 0, status(err)
			}
			if err != nil || n == 0 {
				return total, fuse.OK
			}
			total += n
			b = b[n:]
		}
	}
	return total, fuse.OK
}

// writableData returns a file's data in the upper layer, copied up whole.
func (f *FS) writableData(cancel <-chan struct{}, id uint64) (*node, *layers.File, error) {
	n, err := f.node(id)
	if err != nil {
		return nil, nil, err
	}
	if err := f.writable(); err != nil {
		return nil, nil, err
	}
	if err := f.copyUpData(cancel, n, wholeFile); err != nil {
		return nil, nil, err
	}
	file, err := f.dataToWrite(n)
	return n, file, err
}

// Write writes to a file.
func (f *FS) Write(cancel <-chan struct{}, in *fuse.WriteIn, data []byte) (uint32, fuse.Status) {
	n, file, err := f.writableData(cancel, in.NodeId)
	if err != nil {
		return 0, status(err)
	}
	if in.Flags&unix.O_DIRECT != 0 && in.WriteFlags&fuse.WRITE_CACHE == 0 {
		file = f.direct(file)
	}
	defer file.Release()
	if err := f.beforeWrite(n, file, in); err != nil {
		return 0, status(err)
	}
	start := time.Now()
	written, err := f.pwrite(n, file.FD, data, int64(in.Offset), in.WriteFlags)
	if written > 0 && noRoom(err) && f.makeRoom(start) {
		more, _ := f.pwrite(n, file.FD, data[written:], int64(in.Offset)+int64(written), in.WriteFlags)
		written += more
	}
	if err != nil && written == 0 {
		return 0, status(err)
	}
	if in.Flags&(unix.O_SYNC|unix.O_DSYNC) != 0 && in.WriteFlags&fuse.WRITE_CACHE == 0 {
		if err := f.syncFile(file.FD, in.Flags&unix.O_SYNC != unix.O_SYNC); err != nil {
			return 0, status(err)
		}
	}
	return uint32(written), fuse.OK
}

// beforeWrite drops set-id bits where the kernel says that the caller may not keep them.
func (f *FS) beforeWrite(n *node, file *layers.File, in *fuse.WriteIn) error {
	if in.WriteFlags&fuse.WRITE_KILL_SUIDGID == 0 {
		return nil
	}
	return f.killAndForget(n, file, &in.Caller)
}

// killAndForget drops set-id bits and, where there were any, what the kernel remembers of the mode.
func (f *FS) killAndForget(n *node, file *layers.File, caller *fuse.Caller) error {
	dropped, err := killSuidgid(place{file, ""}, caller)
	if dropped {
		f.attributesChanged(n)
	}
	return err
}

// attributesChanged makes the kernel ask for a node's attributes again. With a negative offset the kernel drops the
// attributes alone, for which it takes no lock that a request may hold (fuse_reverse_inval_inode).
func (f *FS) attributesChanged(n *node) {
	if conn := f.conn.Load(); conn != nil {
		_ = conn.InvalInode(n.id, -1, 0) // ENOENT where the kernel has forgotten it
	}
}

// unsure has the kernel ask for the attributes of nodes again if a change has failed, which it takes for no change at all: marks that
// were set for it stay, half of it may have been done, and what was done and taken back, such as a whiteout by the layer's file
// system, has left new times. A nil node is none.
func (f *FS) unsure(err error, nodes ...*node) error {
	if err == nil {
		return nil
	}
	for i, n := range nodes {
		if n != nil && !slices.Contains(nodes[:i], n) {
			f.attributesChanged(n)
		}
	}
	return err
}

// moment is how late the kernel may see new times where it would otherwise ask for each file.
const moment = 20 * time.Millisecond

// attributesChangedSoon does so within a moment, once for all changes of a directory in it. Next to the directory's time of change
// this is for its size alone, and the kernel, which checks a directory's mode at each use, would ask for them after each copy-up.
func (f *FS) attributesChangedSoon(n *node) {
	if n.dir.stale.CompareAndSwap(false, true) {
		time.AfterFunc(moment, func() {
			n.dir.stale.Store(false)
			f.attributesChanged(n)
		})
	}
}

// listingChanged makes the kernel ask for a directory's entries again too. The pages that it drops are locked for moments
// only, never while it waits for an answer.
func (f *FS) listingChanged(n *node) {
	if conn := f.conn.Load(); conn != nil {
		_ = conn.InvalInode(n.id, 0, 0)
	}
}

// pwrite writes all of data. Pages that are written back after the process has done its write must not cost the file its
// capabilities, which the layer's file system drops at each write.
func (f *FS) pwrite(n *node, fd int, data []byte, off int64, flags uint32) (int, error) {
	if flags&fuse.WRITE_CACHE == 0 {
		return pwriteAll(fd, data, off)
	}
	if f.writeback() {
		n.mu.Lock() // two that write at once would take each other's time for the file's
		defer n.mu.Unlock()
		defer keepModified(fd)()
	}
	value, err := layers.ReadXattr(fd, "", capability)
	written, werr := pwriteAll(fd, data, off)
	if err == nil {
		if err := layers.Setxattr(fd, "", capability, value, 0); err != nil && werr == nil {
			werr = err
		}
	}
	return written, werr
}

// keepModified returns what gives a file its time of modification back. Where the kernel gathers writes that time is the kernel's: it
// tells it after the pages (fuse_flush_times), but for a file that was written to within the tick in which it was made.
func keepModified(fd int) func() {
	var st unix.Stat_t
	if unix.Fstat(fd, &st) != nil {
		return func() {}
	}
	times := [2]unix.Timespec{{Nsec: unix.UTIME_OMIT}, st.Mtim}
	return func() { _ = utimens(place{layers.Borrow(fd), ""}, &times) } // what counts is the data
}

func pwriteAll(fd int, data []byte, off int64) (int, error) {
	total := 0
	for total < len(data) {
		n, err := unix.Pwrite(fd, data[total:], off+int64(total))
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return total, err
		}
		total += n
	}
	return total, nil
}

// Lseek finds data and holes.
func (f *FS) Lseek(cancel <-chan struct{}, in *fuse.LseekIn, out *fuse.LseekOut) fuse.Status {
	if f.writeback() {
		return fuse.ENOSYS // the kernel asks without writing its pages back first
	}
	n, err := f.node(in.NodeId)
	if err != nil {
		return status(err)
	}
	file, err := f.data(n)
	if err != nil {
		return status(err)
	}
	defer file.Release()
	// The offset of the shared descriptor moves, and nobody uses it.
	off, err := unix.Seek(file.FD, int64(in.Offset), int(in.Whence))
	out.Offset = uint64(off)
	return status(err)
}

// Fallocate reserves, punches or zeroes a range.
func (f *FS) Fallocate(cancel <-chan struct{}, in *fuse.FallocateIn) fuse.Status {
	n, file, err := f.writableData(cancel, in.NodeId)
	if err != nil {
		return status(err)
	}
	defer file.Release()
	if in.Uid != 0 {
		if err := f.killAndForget(n, file, &in.Caller); err != nil {
			return status(err)
		}
	}
	err = retry(func() error {
		return unix.Fallocate(file.FD, in.Mode, int64(in.Offset), int64(in.Length))
	})
	return status(f.unsure(err, n))
}

// CopyFileRange copies between two files without their data coming here.
func (f *FS) CopyFileRange(cancel <-chan struct{}, in *fuse.CopyFileRangeIn) (uint32, fuse.Status) {
	from, err := f.node(in.NodeId)
	if err != nil {
		return 0, status(err)
	}
	n, out, err := f.writableData(cancel, in.NodeIdOut)
	if err != nil {
		return 0, status(err)
	}
	defer out.Release()
	src, err := f.data(from)
	if err != nil {
		return 0, status(err)
	}
	defer src.Release()
	if in.Uid != 0 {
		if err := f.killAndForget(n, out, &in.Caller); err != nil {
			return 0, status(err)
		}
	}
	offIn, offOut := int64(in.OffIn), int64(in.OffOut)
	copied, err := unix.CopyFileRange(src.FD, &offIn, out.FD, &offOut, int(min(in.Len, 1<<30)), int(in.Flags))
	return uint32(copied), status(f.unsure(err, n))
}

// Fsync makes a file's data durable.
func (f *FS) Fsync(cancel <-chan struct{}, in *fuse.FsyncIn) fuse.Status {
	n, err := f.node(in.NodeId)
	if err != nil {
		return status(err)
	}
	if n.upper.Load() == 0 || n.kind != unix.S_IFREG {
		return fuse.OK
	}
	const dataOnly = 1 // FUSE_FSYNC_FDATASYNC
	if s := f.dataState(n); s.upper == 0 {
		return status(f.syncPlace(n))
	}
	file, err := f.data(n)
	if err != nil {
		return status(err)
	}
	defer file.Release()
	return status(f.syncFile(file.FD, in.FsyncFlags&dataOnly != 0))
}

// FsyncDir makes a directory's names durable.
func (f *FS) FsyncDir(cancel <-chan struct{}, in *fuse.FsyncIn) fuse.Status {
	n, err := f.directory(in.NodeId)
	if err != nil {
		return status(err)
	}
	dir, err := f.upperDir(n)
	if err != nil || dir == nil {
		return status(err)
	}
	defer dir.Release()
	return status(f.syncFile(dir.FD, false))
}

// syncPlace syncs the upper inode of a metacopy file.
func (f *FS) syncPlace(n *node) error {
	p, err := f.upperPlace(n)
	if err != nil {
		return err
	}
	defer p.Release()
	fd, err := openPlace(p, unix.O_RDONLY)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return f.syncFile(fd, false)
}

// syncFile is fsync or fdatasync, unless the union is volatile.
func (f *FS) syncFile(fd int, dataOnly bool) error {
	if f.opts.Volatile {
		return nil
	}
	if dataOnly {
		return retry(func() error { return unix.Fdatasync(fd) })
	}
	return retry(func() error { return unix.Fsync(fd) })
}

// retry repeats a call that a signal, such as the Go runtime's own, interrupted.
func retry(call func() error) error {
	for {
		if err := call(); err != unix.EINTR {
			return err
		}
	}
}
